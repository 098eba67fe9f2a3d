"""GeoDecoder (Clark et al., CVPR 2023): a query for each scene and place level asks the picture.

An image transformer makes tokens of a picture. 16 scene groups x 4 levels of learned queries attend
to them and to one another through the layers of a decoder. What becomes of a scene's queries says
in its first channel how much the picture shows that scene; the queries of the scene that shows most
answer, each for its level.

Where this departs from what its makers released, and from the paper:

- There each layer begins again from the queries, so that the last layer alone counts. Here each
  goes on from what the one before it made, as the paper describes it.
- Their variant of two scales never registers its decoder's layers, and decodes nothing. Here Swin
  gives one scale, the tokens of its last stage, through one linear layer where its width is another
  than the decoder's.
- The first channel is also their confidence in each level (its sigmoid, from which they choose how
  fine to answer). It is left out: confidences are calibrated as for every other network here.
- There a picture's places teach the queries of the scene that is predicted, right or wrong. Here
  they teach those of the scene that the clip is labelled with (`taught`): each scene's queries
  learn from all of its clips from the first step on. Without a scene label it is as there. Labels
  decide in training alone: what answers is always chosen by the picture.

Of a clip of several frames each is answered alone, and log-probabilities are averaged, as in
`train.models.vit`.

Shape suffixes: N clips, T frames, B pictures (N T), H and W pixels, C = 3 colours, P tokens of a
picture, D width, S scene groups, L levels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from engines.bundle import LEVELS
from train.data.world import SCENE_GROUPS
from train.losses import NO_SCENE
from train.models import swin, vit
from train.models.base import GeoModel, Kind, Loaded, Wanted
from train.models.blocks import Attention, check_choice, check_multiples, draw_small, initialise
from train.models.heads import Heads, average_frames, picked
from train.models.teachers import OWN
from train.warmstart import warm_start, widen_weights

if TYPE_CHECKING:
    from train.losses import Targets

Encoder = Literal["vit", "swin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoDecoderConfig:
    """Shape of the network; the defaults are ViT-B/16 or Swin-B and the decoder as released."""

    frames: int = 16
    """Of a clip; each is answered alone."""
    image_px: int = 224
    encoder: Encoder = "vit"
    """Which of the two below makes the tokens; the other's numbers mean nothing."""
    width: int = 768
    """Of the queries."""
    depth: int = 6
    """Layers of the decoder."""
    heads: int = 12
    mlp_width: int = 1024
    vit_patch_px: int = 16
    vit_width: int = 768
    vit_depth: int = 12
    vit_heads: int = 12
    vit_mlp_width: int = 3072
    vit_norm_eps: float = 1e-12
    swin_patch_px: int = 4
    swin_width: int = 128
    """Of the first stage."""
    swin_depths: tuple[int, ...] = (2, 2, 18, 2)
    swin_heads: tuple[int, ...] = (4, 8, 16, 32)
    swin_window: int = 7
    swin_mlp_ratio: float = 4.0
    swin_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse shapes that do not divide, of the decoder and of the encoder that is used."""
        check_choice(self, "encoder", get_args(Encoder), of="a GeoDecoder")
        check_multiples(self, ("width", "heads"), of="a decoder")
        _ = self.vit if self.encoder == "vit" else self.swin

    @property
    def vit(self) -> vit.ViTConfig:
        """Shape of the ViT."""
        return vit.ViTConfig(frames=self.frames, image_px=self.image_px, **self._own("vit_"))

    @property
    def swin(self) -> swin.SwinConfig:
        """Shape of the Swin."""
        return swin.SwinConfig(image_px=self.image_px, **self._own("swin_"))

    @property
    def token_width(self) -> int:
        """D of the tokens that the encoder makes."""
        return self.vit.width if self.encoder == "vit" else self.swin.last_width

    def _own(self, prefix: str) -> dict[str, Any]:
        names = [name for name in self.__slots__ if name.startswith(prefix)]
        return {name.removeprefix(prefix): getattr(self, name) for name in names}


SIZES: dict[str, GeoDecoderConfig] = {
    "tiny": GeoDecoderConfig(
        image_px=112, width=160, depth=2, heads=5, mlp_width=320,
        vit_width=160, vit_depth=4, vit_heads=5, vit_mlp_width=640,
        swin_width=40, swin_depths=(1, 2, 2), swin_heads=(1, 2, 4),
    ),
    "small": GeoDecoderConfig(
        width=384, heads=6, mlp_width=512, vit_width=384, vit_heads=6, vit_mlp_width=1536,
        swin_width=96, swin_depths=(2, 2, 6, 2), swin_heads=(3, 6, 12, 24),
    ),
    "base": GeoDecoderConfig(),
}  # fmt: skip
"""`base` is what is published; `small` has ViT-S or Swin-T; `tiny` trains on two CPU cores."""


class DecoderLayer(nn.Module):
    """Queries attend to the picture, then to one another, then pass an MLP."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        """Build one of several equal layers."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.cross = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, mlp_width)
        self.fc2 = nn.Linear(mlp_width, width)

    def forward(self, queries_BQD: Tensor, tokens_BPD: Tensor) -> Tensor:
        """One layer.  [B, S L, D], [B, P, D] -> [B, S L, D]; what is found is added."""
        queries_BQD = queries_BQD + self.cross(self.norm1(queries_BQD), tokens_BPD)
        queries_BQD = queries_BQD + self.attention(self.norm2(queries_BQD))
        asked: Tensor = queries_BQD + self.fc2(F.gelu(self.fc1(self.norm3(queries_BQD))))
        return asked


class Decoder(nn.Module):
    """Layers, each of which goes on from what the one before it made."""

    def __init__(self, config: GeoDecoderConfig) -> None:
        """Build with random weights of a standard deviation of 1 / sqrt(fan-in).

        With the usual 0.02 all queries answer much the same for the first hundreds of steps.
        """
        super().__init__()
        self.blocks = nn.ModuleList(
            DecoderLayer(config.width, config.heads, config.mlp_width) for _ in range(config.depth)
        )
        self.apply(initialise)
        widen_weights(self)

    def forward(self, queries_BQD: Tensor, tokens_BPD: Tensor) -> Tensor:
        """All layers.  [B, S L, D], [B, P, D] -> [B, S L, D]."""
        for layer in self.blocks:
            queries_BQD = layer(queries_BQD, tokens_BPD)
        return queries_BQD


class GeoDecoder(GeoModel):
    """Queries of scenes and levels that ask the tokens of a picture."""

    kind = "geodecoder"
    usual_teachers = OWN
    undecayed = frozenset(("cls", "positions", "offsets", "queries"))

    def add_layers(self, config: GeoDecoderConfig) -> None:
        """Encoder, queries, decoder and classifiers; weights begin at random."""
        self.encoder: vit.ViTEncoder | swin.SwinEncoder = (
            vit.ViTEncoder(config.vit) if config.encoder == "vit" else swin.SwinEncoder(config.swin)
        )
        is_narrower = config.token_width != config.width
        self.bridge = nn.Linear(config.token_width, config.width) if is_narrower else nn.Identity()
        self.queries = nn.Parameter(torch.empty(self.classes["scene"], len(LEVELS), config.width))
        self.decoder = Decoder(config)
        self.heads = Heads(config.width, {level: self.classes[level] for level in LEVELS})
        self.bridge.apply(initialise)
        draw_small(self.queries)

    @property
    def depth(self) -> int:
        """Blocks of the encoder; all else begins at random, and learns at the full rate."""
        return len(self.encoder.blocks)

    def layer_of(self, name: str) -> int:
        """Depth of a parameter; what merges the patches of Swin learns with the block after it."""
        if name.startswith("encoder.merges."):
            return 1 + sum(self.config.swin_depths[: 1 + int(name.split(".")[2])])
        return super().layer_of(name)

    def forward(self, clip_NTHWC: Tensor, kept_NP: Tensor | None = None) -> dict[str, Tensor]:
        """Score clips.  uint8 [N, T, H, W, 3] -> logits [N, K] per level, and `scene` [N, S].

        `feature` [N, D] is the mean of the queries that answer, `asked` [N, S] the share of frames
        that each scene's queries answer for; while it trains there are `city_sets` [N, S, K] and so
        on for every level: the log-probabilities of each scene's queries.

        Args:
            clip_NTHWC: clips.
            kept_NP: None: the decoder asks the whole picture.

        Raises:
            ValueError: another type or shape.
        """
        self.check_clip(clip_NTHWC)
        patches_BPV = self.normalise(self.encoder.tubelets(clip_NTHWC))
        answered_BSLD = self.ask(self.bridge(self.encoder(patches_BPV)))
        scene_BS = answered_BSLD[..., 0].mean(dim=2)
        asked_BS = picked(scene_BS)
        chosen_BLD = (asked_BS[:, :, None, None] * answered_BSLD).sum(dim=1)
        found: dict[str, Tensor] = {
            level: self.heads[level](chosen_BLD[:, number]) for number, level in enumerate(LEVELS)
        }
        found |= {"scene": scene_BS, "feature": chosen_BLD.mean(dim=1), "asked": asked_BS}
        if self.training:
            for number, level in enumerate(LEVELS):
                logits_BSK = self.heads[level](answered_BSLD[:, :, number])
                found[f"{level}_sets"] = logits_BSK.log_softmax(dim=-1)
        return average_frames(found, self.config.frames)

    def ask(self, tokens_BPD: Tensor) -> Tensor:
        """What becomes of the queries.  [B, P, D] -> [B, S, L, D]."""
        scenes, levels = self.queries.shape[:2]
        queries_BQD = self.queries.flatten(0, 1).expand(tokens_BPD.shape[0], -1, -1)
        answered: Tensor = self.decoder(queries_BQD, tokens_BPD).unflatten(1, (scenes, levels))
        return answered

    def taught(self, outputs: Mapping[str, Tensor], targets: Targets) -> Mapping[str, Tensor]:
        """The answers of each clip's own scene, where it is known, in place of the scene found.

        What `forward` gave outside of training stays as it is.
        """
        if f"{LEVELS[0]}_sets" not in outputs:
            return outputs
        own_N = targets.scene_N.clamp_min(0)
        is_known_N1 = (targets.scene_N != NO_SCENE)[:, None]
        at_N = torch.arange(len(own_N), device=own_N.device)
        found: dict[str, Tensor] = {
            level: torch.where(is_known_N1, outputs[f"{level}_sets"][at_N, own_N], outputs[level])
            for level in LEVELS
        }
        return {**outputs, **found}

    def routing(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Share of each clip's frames that the queries of each scene answer for.  [N, S]."""
        return {"queries": outputs["asked"]}

    def route_names(self) -> dict[str, tuple[str, ...]]:
        """Scene groups, by whose queries a picture is answered."""
        scenes = self.classes["scene"]
        is_usual = scenes == len(SCENE_GROUPS)
        return {"queries": SCENE_GROUPS if is_usual else tuple(map(str, range(scenes)))}


def load(wanted: Wanted) -> Loaded:
    """ViT, image MAE or Swin into the encoder, in their shape; the decoder begins at random."""
    shape: GeoDecoderConfig = wanted.shape
    module, prefix = (vit, "vit_") if shape.encoder == "vit" else (swin, "swin_")
    loaded = module.load(replace(wanted, shape=getattr(shape, shape.encoder)))
    names = [name for name in GeoDecoderConfig.__slots__ if name.startswith(prefix)]
    theirs = {name: getattr(loaded.shape, name.removeprefix(prefix)) for name in names}
    return replace(loaded, shape=replace(shape, image_px=loaded.shape.image_px, **theirs))


KIND = Kind(
    title="GeoDecoder",
    noun="an image transformer whose tokens learned queries ask, a set for each scene,",
    model=GeoDecoder,
    shape=GeoDecoderConfig,
    sizes=SIZES,
    scenes=("own",),
    takes=frozenset(("warm_start",)),
    load=load,
    warm_start=warm_start,
)
