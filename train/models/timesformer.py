"""TimeSformer (Bertasius et al., ICML 2021): attention divided into time and space.

In each block a patch attends to the same patch of all frames, then to all patches of its frame and
the CLS token, then passes an MLP. The CLS token goes into the spatial attention of every frame, and
what it learns there is averaged over the frames. The clip's feature is the CLS token after the last
norm. The arithmetic is that of `transformers.TimesformerModel`, and its weights load.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, P patches of a frame, V values of
one, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from train.models.base import FeatureModel, Kind, Loaded, Wanted
from train.models.blocks import Attention, Block, Patched, TokenEncoder, check_multiples
from train.models.published import (
    CLASSIFIER,
    ENCODER_NAMES,
    PLAIN_BLOCKS,
    TOKEN_NUMBERS,
    Naming,
    describing,
    load_encoder,
    numbers_of,
    read_published,
)
from train.warmstart import warm_start


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSformerConfig(Patched):
    """Shape of an encoder; the defaults are TimeSformer-B, divided space-time attention."""

    frames: int = 8
    image_px: int = 224
    patch_px: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse shapes that do not divide."""
        check_multiples(self, ("image_px", "patch_px"), ("width", "heads"))


SIZES: dict[str, TimeSformerConfig] = {
    "tiny": TimeSformerConfig(image_px=112, width=160, depth=4, heads=5, mlp_width=640),
    "small": TimeSformerConfig(width=384, heads=6, mlp_width=1536),
    "base": TimeSformerConfig(),
}
"""`base` is what is published; `tiny` trains on two CPU cores."""


class TimeSformerEncoder(TokenEncoder):
    """Normalised patches of a clip's frames to its CLS token and one token a patch."""

    def __init__(self, config: TimeSformerConfig) -> None:
        """Build with random weights (truncated normal, 0.02); times begin at zero."""
        super().__init__(config, lambda: DividedBlock(config))
        self.times = nn.Parameter(torch.zeros(config.frames, config.width))

    def forward(self, patches_XPV: Tensor) -> Tensor:
        """Encode clips.  [N T, P, V] -> tokens [N, 1 + T P, D], after the last norm."""
        config = self.config
        patches_XPD = self.patch(patches_XPV) + self.positions[1:]
        patches_NTPD = patches_XPD.unflatten(0, (-1, config.frames)) + self.times[:, None]
        return self.encode(patches_NTPD.flatten(1, 2))


class DividedBlock(Block):
    """Attention over time, attention over space, and an MLP."""

    def __init__(self, config: TimeSformerConfig) -> None:
        """Build one of `depth` equal blocks."""
        attention = Attention(config.width, config.heads)
        super().__init__(config.width, attention, config.mlp_width, config.norm_eps)
        self.frames, self.patches = config.frames, config.patches
        self.time_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.time_attention = Attention(config.width, config.heads)
        self.time_dense = nn.Linear(config.width, config.width)

    def forward(self, tokens_NXD: Tensor) -> Tensor:
        """One block.  [N, 1 + T P, D] -> the same; patches frame by frame, row by row."""
        first_N1D, patches_NTPD = self._split(tokens_NXD)
        patches_NTPD = patches_NTPD + self._over_time(patches_NTPD)
        seen_NTPD = self._over_space(first_N1D, patches_NTPD)
        first_N1D = first_N1D + seen_NTPD[:, :, 0].mean(dim=1, keepdim=True)
        patches_NTPD = patches_NTPD + seen_NTPD[:, :, 1:]
        tokens_NXD = torch.cat((first_N1D, patches_NTPD.flatten(1, 2)), dim=1)
        mixed: Tensor = tokens_NXD + self.mlp(tokens_NXD)
        return mixed

    def _split(self, tokens_NXD: Tensor) -> tuple[Tensor, Tensor]:
        """The CLS token [N, 1, D] and the patches [N, T, P, D]."""
        return tokens_NXD[:, :1], tokens_NXD[:, 1:].unflatten(1, (self.frames, self.patches))

    def _over_time(self, patches_NTPD: Tensor) -> Tensor:
        """What each patch learns of itself in the other frames.  -> [N, T, P, D]."""
        normed_NPTD = self.time_norm(patches_NTPD).transpose(1, 2)
        attended_XTD = self.time_attention(normed_NPTD.flatten(0, 1))
        learned_NPTD = self.time_dense(attended_XTD).unflatten(0, (-1, self.patches))
        return learned_NPTD.transpose(1, 2)

    def _over_space(self, first_N1D: Tensor, patches_NTPD: Tensor) -> Tensor:
        """What each token learns of its frame, the CLS token of every one.  -> [N, T, 1 + P, D]."""
        first_NT1D = first_N1D[:, None].expand(-1, self.frames, -1, -1)
        frames_XPD = torch.cat((first_NT1D, patches_NTPD), dim=2).flatten(0, 1)
        learned_XPD: Tensor = self.attention(self.norm1(frames_XPD))
        return learned_XPD.unflatten(0, (-1, self.frames))


class TimeSformer(FeatureModel):
    """A video transformer of divided attention with classifiers on its CLS token."""

    kind = "timesformer"
    undecayed = frozenset(("cls", "positions", "times"))

    def add_layers(self, config: TimeSformerConfig) -> None:
        """The encoder; weights begin at random."""
        self.encoder = TimeSformerEncoder(config)
        self.add_heads()

    def features(self, clip_NTHWC: Tensor, kept_NP: Tensor | None = None) -> Tensor:
        """The CLS token of each clip.  uint8 [N, T, H, W, 3] -> [N, D]."""
        self.check_clip(clip_NTHWC)
        patches_XPV = self.encoder.tubelets(clip_NTHWC)
        feature_ND: Tensor = self.encoder(self.normalise(patches_XPV))[:, 0]
        return feature_ND


# --- published weights ---

_NAMING = Naming(
    wrap="timesformer.",
    outside={"classifier.": CLASSIFIER},
    pieces=(
        ("embeddings.patch_embeddings.projection.", "patch."),
        ("embeddings.time_embeddings", "times"),
        ("encoder.layer.", "blocks."),
        ("temporal_attention.output.dense.", "time_attention.proj."),
        ("temporal_attention.attention.", "time_attention."),
        ("temporal_layernorm.", "time_norm."),
        ("temporal_dense.", "time_dense."),
        ("attention.output.dense.", "attention.proj."),
        ("attention.attention.", "attention."),
        *ENCODER_NAMES,
    ),
)


def load(wanted: Wanted) -> Loaded:
    """TimeSformer into the encoder; the shape is theirs but for the number of frames.

    Times of another number of frames are taken from the nearest, as transformers does.
    """
    published = read_published(
        wanted,
        model_types={"timesformer": "facebook/timesformer-base-finetuned-k400"},
        must={"attention_type": "divided_space_time", **PLAIN_BLOCKS},
    )
    numbers = numbers_of(published, {"frames": "num_frames", **TOKEN_NUMBERS})
    with describing(published):
        eps = float(published.said.get("layer_norm_eps", 1e-6))
        shape = TimeSformerConfig(norm_eps=eps, **numbers)
    loaded = load_encoder(published, TimeSformerEncoder, shape, rename, heads=shape.heads)
    frames = wanted.shape.frames
    if frames == shape.frames:
        return loaded
    times_TD = nearest_times(loaded.tensors["encoder.times"], frames)
    note = f"trained with {shape.frames} frames; {frames} take the times of the nearest"
    return replace(
        loaded,
        shape=replace(shape, frames=frames),
        tensors={**loaded.tensors, "encoder.times": times_TD},
        report=replace(loaded.report, notes=(*loaded.report.notes, note)),
    )


def nearest_times(times_TD: Tensor, frames: int) -> Tensor:
    """Embeddings of time for another number of frames.  [T, D] -> [frames, D]."""
    return F.interpolate(times_TD.T[None], size=frames, mode="nearest")[0].T.contiguous()


def rename(name: str, value: Tensor) -> Mapping[str, Tensor] | str:
    """Where a tensor of transformers goes; see `train.models.published.Rename`."""
    found = _NAMING.tensors(name, value)
    if isinstance(found, str):
        return found
    ((ours, value),) = found.items()
    if ours == "times":
        return {ours: value[0]}
    if not ours.rpartition(".")[0].endswith("qkv"):
        return found
    # Rows: all queries, then all keys, then all values.
    parts = (ours.replace("qkv", part) for part in ("query", "key", "value"))
    return dict(zip(parts, value.chunk(3), strict=True))


KIND = Kind(
    title="TimeSformer",
    noun="a video transformer",
    model=TimeSformer,
    shape=TimeSformerConfig,
    sizes=SIZES,
    takes=frozenset(("warm_start",)),
    load=load,
    warm_start=warm_start,
)
