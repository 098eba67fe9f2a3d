"""ViT (Dosovitskiy et al., ICLR 2021): an image transformer, one picture or a clip's frames.

Published weights are those of `transformers.ViTModel` (Google's, trained to classify) and of
`transformers.ViTMAEModel` (image MAE, He et al., CVPR 2022), whose arithmetic this is. The feature
of a picture is its CLS token after the last norm, or the mean of its patches. Of a clip of several
frames each is scored alone, and their log-probabilities are averaged: what a fair comparison with a
video model asks of a model of single pictures.

A trap of `ViTMAEModel`: it drops three quarters of the patches at random even when nothing trains
(`mask_ratio` 0.75). Here none is ever dropped unless a recipe says so.

Shape suffixes: N clips, T frames, B pictures (N T), H and W pixels, C = 3 colours, P patches, V
values of one, D width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor

from train.models.base import FeatureModel, Kind, Loaded, Wanted
from train.models.blocks import (
    Attention,
    Block,
    Patched,
    TokenEncoder,
    check_choice,
    check_multiples,
)
from train.models.heads import average_frames
from train.models.published import (
    ENCODER_NAMES,
    OUTSIDE,
    PLAIN_BLOCKS,
    TOKEN_NUMBERS,
    Naming,
    Published,
    describing,
    load_encoder,
    numbers_of,
    read_published,
)
from train.warmstart import warm_start

Pooling = Literal["cls", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTConfig(Patched):
    """Shape of an encoder; the defaults are ViT-B/16."""

    frames: int = 16
    """Of a clip; each is scored alone."""
    image_px: int = 224
    patch_px: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    norm_eps: float = 1e-12
    pooling: Pooling = "cls"
    """cls: the CLS token; mean: the mean of the patches, both after the last norm. (Image MAE with
    its mean pooled is fine-tuned with a fresh norm behind the mean.)"""

    def __post_init__(self) -> None:
        """Refuse shapes that do not divide."""
        check_multiples(self, ("image_px", "patch_px"), ("width", "heads"))
        check_choice(self, "pooling", get_args(Pooling))


SIZES: dict[str, ViTConfig] = {
    "tiny": ViTConfig(image_px=112, width=160, depth=4, heads=5, mlp_width=640),
    "small": ViTConfig(width=384, heads=6, mlp_width=1536),
    "base": ViTConfig(),
}
"""`base` is what is published; `tiny` trains on two CPU cores."""


class ViTEncoder(TokenEncoder):
    """Normalised patches of a picture to its tokens: CLS first, then the patches row by row."""

    def __init__(self, config: ViTConfig) -> None:
        """Build with random weights (truncated normal, 0.02)."""
        super().__init__(config, lambda: make_block(config))

    def forward(self, patches_BPV: Tensor, kept_BP: Tensor | None = None) -> Tensor:
        """Encode pictures.  [B, P, V] -> tokens [B, 1 + P, D], after the last norm.

        Args:
            patches_BPV: normalised; all, or those that `kept_BP` names.
            kept_BP: which of the P positions they are; None for all.
        """
        places = self.positions[1:] if kept_BP is None else self.positions[1:][kept_BP]
        return self.encode(self.patch(patches_BPV) + places)


def make_block(config: ViTConfig) -> Block:
    """One of `depth` equal blocks."""
    attention = Attention(config.width, config.heads)
    return Block(config.width, attention, config.mlp_width, config.norm_eps)


class ViT(FeatureModel):
    """An image transformer with classifiers on one frame, or on each of a clip's."""

    kind = "vit"
    undecayed = frozenset(("cls", "positions"))

    def add_layers(self, config: ViTConfig) -> None:
        """The encoder; weights begin at random."""
        self.tokens = config.patches
        self.encoder = ViTEncoder(config)
        self.add_heads()

    def features(self, clip_NTHWC: Tensor, kept_NP: Tensor | None = None) -> Tensor:
        """One feature of each frame.  uint8 [N, T, H, W, 3] -> [B, D].

        `kept_NP` names the same patches in every frame of a clip.
        """
        self.check_clip(clip_NTHWC)
        patches_BPV, kept_BP = self.encoder.tubelets(clip_NTHWC), None
        if kept_NP is not None:
            kept_BP = kept_NP.repeat_interleave(self.config.frames, dim=0)
            patches_BPV = patches_BPV.take_along_dim(kept_BP[..., None], dim=1)
        tokens_BPD = self.encoder(self.normalise(patches_BPV), kept_BP)
        return tokens_BPD[:, 0] if self.config.pooling == "cls" else tokens_BPD[:, 1:].mean(dim=1)

    def answer(self, feature_ND: Tensor) -> dict[str, Tensor]:
        """Scores of each frame, and of the clip their mean: log-probabilities, features as such."""
        found = average_frames(super().answer(feature_ND), self.config.frames)
        return found if self.config.frames == 1 else self.nest(found)  # sums of the mean's cities


# --- published weights ---

_TYPES = {
    "vit": "google/vit-base-patch16-224-in21k",
    "vit_mae": "facebook/vit-mae-base",
}
_NAMING = Naming(
    wrap="vit.",
    outside={**OUTSIDE, "pooler.": "pooler: the CLS token itself is the feature"},
    pieces=(
        ("embeddings.patch_embeddings.projection.", "patch."),
        ("encoder.layer.", "blocks."),
        ("layers.", "blocks."),
        ("attention.attention.", "attention."),
        ("attention.output.dense.", "attention.proj."),
        *ENCODER_NAMES,
    ),
)


def load(wanted: Wanted) -> Loaded:
    """ViT or image MAE into the encoder; the shape is theirs but for frames and pooling."""
    published = read_published(wanted, model_types=_TYPES, must=PLAIN_BLOCKS)
    shape = shape_of(published, wanted.shape)
    loaded = load_encoder(published, ViTEncoder, shape, _NAMING.tensors, heads=shape.heads)
    if published.said["model_type"] != "vit_mae":
        return loaded
    note = "image MAE drops 0.75 of a picture while it pretrains; here every patch is seen"
    return replace(loaded, report=replace(loaded.report, notes=(*loaded.report.notes, note)))


def shape_of(published: Published, usual: ViTConfig) -> ViTConfig:
    """The shape that config.json describes, for clips and with the pooling of `usual`.

    Raises:
        WeightsError: it describes none.
    """
    numbers: dict[str, Any] = {**numbers_of(published, TOKEN_NUMBERS)}
    with describing(published):
        eps = float(published.said.get("layer_norm_eps", 1e-12))
        return replace(usual, norm_eps=eps, **numbers)


KIND = Kind(
    title="ViT",
    noun="an image transformer",
    model=ViT,
    shape=ViTConfig,
    sizes=SIZES,
    takes=frozenset(("keep_tokens", "warm_start")),
    load=load,
    warm_start=warm_start,
)
