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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from train.models.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PLAIN,
    FeatureModel,
    Kind,
    Loaded,
    Wanted,
)
from train.models.heads import HEADS
from train.models.videomae import initialise

if TYPE_CHECKING:
    from train.models.published import Published
    from train.models.teachers import TeacherConfig

Pooling = Literal["cls", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTConfig:
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
    """cls: the CLS token; mean: the mean of the patches, as image MAE is fine-tuned too."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not divide."""
        for whole, part in (("image_px", "patch_px"), ("width", "heads")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"an encoder of {whole}={getattr(self, whole)} and "
                    f"{part}={getattr(self, part)}: {whole} must be a multiple of {part}."
                )
        if self.pooling not in get_args(Pooling):
            raise ValueError(
                f"an encoder of pooling={self.pooling!r}: it is one of "
                f"{', '.join(get_args(Pooling))}."
            )

    @property
    def patches(self) -> int:
        """P: patches of one picture."""
        return (self.image_px // self.patch_px) ** 2

    @property
    def patch_values(self) -> int:
        """V: pixel values of a patch."""
        return self.patch_px**2 * 3


SIZES: dict[str, ViTConfig] = {
    "tiny": ViTConfig(image_px=112, width=160, depth=4, heads=5, mlp_width=640),
    "small": ViTConfig(width=384, heads=6, mlp_width=1536),
    "base": ViTConfig(),
}
"""`base` is what is published; `tiny` trains on two CPU cores."""


class ViTEncoder(nn.Module):
    """Normalised patches of a picture to its tokens: CLS first, then the patches row by row."""

    def __init__(self, config: ViTConfig) -> None:
        """Build with random weights (truncated normal, 0.02)."""
        super().__init__()
        self.config = config
        self.patch = nn.Linear(config.patch_values, config.width)
        """Weights over (height, width, colour): what a channels-last picture holds in a row."""
        self.cls = nn.Parameter(torch.empty(config.width))
        self.positions = nn.Parameter(torch.empty(1 + config.patches, config.width))
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_width, config.norm_eps)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.apply(initialise)
        for table in (self.cls, self.positions):
            nn.init.trunc_normal_(table, std=0.02, a=-0.04, b=0.04)

    def forward(self, patches_BPV: Tensor, kept_BP: Tensor | None = None) -> Tensor:
        """Encode pictures.  [B, P, V] -> tokens [B, 1 + P, D], after the last norm.

        Args:
            patches_BPV: normalised; all, or those that `kept_BP` names.
            kept_BP: which of the P positions they are; None for all.
        """
        places = self.positions[1:] if kept_BP is None else self.positions[1:][kept_BP]
        patches_BPD = self.patch(patches_BPV) + places
        first_D = self.cls + self.positions[0]
        tokens_BPD = torch.cat((first_D.expand(patches_BPD.shape[0], 1, -1), patches_BPD), dim=1)
        for block in self.blocks:
            tokens_BPD = block(tokens_BPD)
        normed_BPD: Tensor = self.norm(tokens_BPD)
        return normed_BPD

    def tubelets(self, pixels_NTHWC: Tensor) -> Tensor:
        """Cut every frame into patches.  [N, T, H, W, 3] -> [B, P, V], row by row."""
        return cut_patches(pixels_NTHWC, self.config.patch_px)


def cut_patches(pixels_NTHWC: Tensor, patch_px: int) -> Tensor:
    """Patches of every frame, row by row.  [N, T, H, W, 3] -> [B, P, V]."""
    height, width = pixels_NTHWC.shape[2:4]
    rows, columns = height // patch_px, width // patch_px
    cut = pixels_NTHWC.reshape(-1, rows, patch_px, columns, patch_px * 3)
    return cut.permute(0, 1, 3, 2, 4).reshape(-1, rows * columns, patch_px**2 * 3)


class Attention(nn.Module):
    """Multi-head attention, of tokens among themselves or to others."""

    def __init__(self, width: int, heads: int) -> None:
        """Build; `width` is a multiple of `heads`."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_BPD: Tensor, others_BQD: Tensor | None = None) -> Tensor:
        """Attend.  [B, P, D], maybe [B, Q, D] -> [B, P, D]."""
        others_BQD = tokens_BPD if others_BQD is None else others_BQD
        query, key, value = (
            linear(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, tokens in (
                (self.query, tokens_BPD),
                (self.key, others_BQD),
                (self.value, others_BQD),
            )
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        projected: Tensor = self.proj(mixed)
        return projected


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm and added to what came in."""

    def __init__(self, width: int, heads: int, mlp_width: int, norm_eps: float) -> None:
        """Build one of several equal blocks."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.fc1 = nn.Linear(width, mlp_width)
        self.fc2 = nn.Linear(mlp_width, width)

    def forward(self, tokens_BPD: Tensor) -> Tensor:
        """One block.  [B, P, D] -> [B, P, D]."""
        tokens_BPD = tokens_BPD + self.attention(self.norm1(tokens_BPD))
        mixed: Tensor = tokens_BPD + self.mlp(tokens_BPD)
        return mixed

    def mlp(self, tokens_BPD: Tensor) -> Tensor:
        """What the MLP adds.  [B, P, D] -> [B, P, D]."""
        added: Tensor = self.fc2(F.gelu(self.fc1(self.norm2(tokens_BPD))))
        return added


class ViT(FeatureModel):
    """An image transformer with classifiers on one frame, or on each of a clip's."""

    kind = "vit"
    undecayed = frozenset(("cls", "positions"))

    def __init__(
        self,
        config: ViTConfig,
        classes: Mapping[str, int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        teachers: TeacherConfig = PLAIN,
    ) -> None:
        """Build with random weights; see `GeoModel`."""
        super().__init__(config, classes, mean, std, teachers)
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


def average_frames(found: Mapping[str, Tensor], frames: int) -> dict[str, Tensor]:
    """Answers for frames as one for each clip: the mean of log-probabilities, and of all else.

    Args:
        found: of pictures, [B, K] each; frames of a clip follow each other.
        frames: of a clip; one changes nothing.
    """
    if frames == 1:
        return dict(found)
    scored = {
        name: values.log_softmax(dim=-1) if name in HEADS else values
        for name, values in found.items()
    }
    return {name: values.unflatten(0, (-1, frames)).mean(dim=1) for name, values in scored.items()}


def warm_start(model: ViT, clips_NTHWC: Tensor) -> None:
    """Wide weights, and principal components as the patch embedding."""
    from train.warmstart import start_from_components, widen_weights

    widen_weights(model.encoder)
    start_from_components(model, clips_NTHWC)


# --- published weights ---

_TYPES = {
    "vit": "google/vit-base-patch16-224-in21k",
    "vit_mae": "facebook/vit-mae-base",
}
_MUST = {"hidden_act": "gelu", "num_channels": 3}
_NUMBERS = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "image_px": "image_size",
    "patch_px": "patch_size",
}
_LEFT_OUT = {
    "decoder.": "decoder: only pretraining rebuilds pixels",
    "embeddings.mask_token": "decoder: only pretraining rebuilds pixels",
    "classifier.": "classifier of other classes",
    "pooler.": "pooler: the CLS token itself is the feature",
}
_NAMES = (
    ("embeddings.patch_embeddings.projection.", "patch."),
    ("encoder.layer.", "blocks."),
    ("attention.attention.", "attention."),
    ("attention.output.dense.", "attention.proj."),
    ("attention.q_proj.", "attention.query."),  # as transformers 5 has them in memory
    ("attention.k_proj.", "attention.key."),
    ("attention.v_proj.", "attention.value."),
    ("attention.o_proj.", "attention.proj."),
    ("layers.", "blocks."),
    ("mlp.", ""),
    ("intermediate.dense.", "fc1."),
    ("output.dense.", "fc2."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("layernorm.", "norm."),
)
"""Theirs and ours, in the order in which they are replaced."""


def load(wanted: Wanted) -> Loaded:
    """ViT or image MAE into the encoder; the shape is theirs but for frames and pooling."""
    from train.models.published import numbers_of, place, read_published

    published = read_published(
        wanted.source,
        model_types=_TYPES,
        must=_MUST,
        is_accepted=wanted.is_accepted,
        tell=wanted.tell,
    )
    shape = shape_of(published, numbers_of(published, _NUMBERS), wanted.shape)
    with torch.device("meta"):  # no time for random weights: every one is replaced
        encoder = ViTEncoder(shape)
    state, report = place(published, rename, encoder, heads=shape.heads)
    if published.said["model_type"] == "vit_mae":
        note = "image MAE drops 0.75 of a picture while it pretrains; here every patch is seen"
        report = replace(report, notes=(*report.notes, note))
    return Loaded(
        shape=shape,
        tensors={f"encoder.{name}": value for name, value in state.items()},
        report=report,
        normalisation=published.normalisation,
    )


def shape_of(published: Published, numbers: Mapping[str, int], usual: ViTConfig) -> ViTConfig:
    """The shape that config.json describes, for clips and with the pooling of `usual`.

    Raises:
        WeightsError: it describes none.
    """
    from train.errors import WeightsError

    try:
        eps = float(published.said.get("layer_norm_eps", 1e-12))
        shape: ViTConfig = replace(usual, norm_eps=eps, **dict[str, Any](numbers))
        return shape
    except (TypeError, ValueError) as exc:
        raise WeightsError(f"reading the encoder {published.name}: {exc}") from exc


def rename(name: str, value: Tensor) -> Mapping[str, Tensor] | str:
    """Where a tensor of transformers goes; see `train.models.published.Rename`."""
    stem = name.removeprefix("vit.")
    outside = next((why for begin, why in _LEFT_OUT.items() if stem.startswith(begin)), None)
    if outside is not None:
        return outside
    if stem == "embeddings.cls_token":
        return {"cls": value.flatten()}
    if stem == "embeddings.position_embeddings":
        return {"positions": value[0]}
    ours = stem
    for theirs, own in _NAMES:
        ours = ours.replace(theirs, own)
    if value.ndim == 4:  # the patch convolution: [D, colour, H, W] -> [D, values]
        value = value.permute(0, 2, 3, 1).flatten(1)
    return {ours: value}


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
