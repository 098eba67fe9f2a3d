"""Swin (Liu et al., ICCV 2021): an image transformer whose patches attend within shifted windows.

Small patches attend to those of their window of 7 x 7. In every other block the windows lie half a
window further, and go round the edges of the picture: there a mask keeps apart what are no
neighbours. Between stages four neighbouring patches become one of twice the width. The arithmetic
is that of `transformers.SwinModel`, and its weights load; the tokens are those after its last norm.

What is easily got wrong, and is tested against transformers: the patch embedding has a norm of its
own; its epsilon and that of merging are 1e-5, whatever config.json says; merging takes the four
patches column by column; a stage that is one window wide shifts nothing.

Shape suffixes: N clips, T frames, B pictures (N T), H and W patches along the sides of one, P
patches, V values of a patch, D width, M windows, Q patches of a window, A heads, X pairs of places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.models.base import Loaded, Wanted
from train.models.blocks import Block, Patched, PatchEncoder, initialise
from train.models.published import (
    ENCODER_NAMES,
    OUTSIDE,
    PLAIN_BLOCKS,
    Naming,
    Published,
    describing,
    load_encoder,
    numbers_of,
    read_published,
)

APART = -100.0
"""Added to the score of two patches that the edge of the picture lies between; as published."""
MERGED_EPS = 1e-5
"""Of the norms of embedding and merging."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwinConfig(Patched):
    """Shape of an encoder; the defaults are Swin-B."""

    image_px: int = 224
    patch_px: int = 4
    width: int = 128
    """Of the first stage; each next one has twice as much."""
    depths: tuple[int, ...] = (2, 2, 18, 2)
    """Blocks of each stage."""
    heads: tuple[int, ...] = (4, 8, 16, 32)
    """Of each stage."""
    window: int = 7
    """Patches along the side of a window."""
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse shapes that do not divide; nothing is ever padded."""
        if len(self.depths) != len(self.heads) or not self.depths or min(self.depths) < 1:
            raise ValueError(
                f"a Swin of depths={self.depths} and heads={self.heads}: both have one positive "
                "number for each stage."
            )
        coarsest = self.patch_px * self.window * 2 ** (len(self.depths) - 1)
        if self.image_px % coarsest:
            raise ValueError(
                f"a Swin of image_px={self.image_px}: it must be a multiple of {coarsest}, so that "
                f"windows of {self.window} patches fill all of its {len(self.depths)} stages."
            )
        for stage, heads in enumerate(self.heads):
            if heads < 1 or self.width_of(stage) % heads:
                raise ValueError(
                    f"a Swin of width={self.width} and heads={self.heads}: the width of stage "
                    f"{stage}, {self.width_of(stage)}, must be a multiple of its heads."
                )

    def width_of(self, stage: int) -> int:
        """D of a stage."""
        return self.width * 2**stage

    def side_of(self, stage: int) -> int:
        """Patches along the side of a picture in a stage."""
        return self.image_px // self.patch_px // 2**stage

    @property
    def last_width(self) -> int:
        """D of the tokens that come out."""
        return self.width_of(len(self.depths) - 1)


SIZES: dict[str, SwinConfig] = {
    "tiny": SwinConfig(image_px=112, width=40, depths=(1, 2, 2), heads=(1, 2, 4)),
    "base": SwinConfig(),
}
"""`base` is what is published; `tiny` trains on two CPU cores."""


class SwinEncoder(PatchEncoder):
    """Normalised patches of a picture to the tokens of the last stage, row by row."""

    def __init__(self, config: SwinConfig) -> None:
        """Build with random weights (truncated normal, 0.02); offsets within windows begin at 0."""
        super().__init__(config)
        self.patch_norm = nn.LayerNorm(config.width, eps=MERGED_EPS)
        self.blocks = nn.ModuleList(
            WindowBlock(config, stage, is_shifted=bool(number % 2))
            for stage, depth in enumerate(config.depths)
            for number in range(depth)
        )
        """Of all stages, one after the other."""
        self.merges = nn.ModuleList(
            Merge(config.width_of(stage)) for stage in range(len(config.depths) - 1)
        )
        self.norm = nn.LayerNorm(config.last_width, eps=config.norm_eps)
        self.apply(initialise)

    def forward(self, patches_BPV: Tensor) -> Tensor:
        """Encode pictures.  [B, P, V] -> tokens [B, last P, last D], after the last norm."""
        config, block = self.config, 0
        tokens_BPD = self.patch_norm(self.patch(patches_BPV))
        for stage, depth in enumerate(config.depths):
            side = config.side_of(stage)
            map_BHWD = tokens_BPD.unflatten(1, (side, side))
            for each in self.blocks[block : block + depth]:
                map_BHWD = each(map_BHWD)
            block += depth
            if stage < len(self.merges):
                map_BHWD = self.merges[stage](map_BHWD)
            tokens_BPD = map_BHWD.flatten(1, 2)
        normed_BPD: Tensor = self.norm(tokens_BPD)
        return normed_BPD


class WindowBlock(Block):
    """A block whose attention stays within windows."""

    apart_MQQ: Tensor

    def __init__(self, config: SwinConfig, stage: int, *, is_shifted: bool) -> None:
        """Build one block.

        Args:
            config: of the encoder.
            stage: that it is in.
            is_shifted: whether it is one of those whose windows lie half a window further.
        """
        width, side = config.width_of(stage), config.side_of(stage)
        attention = WindowAttention(width, config.heads[stage], config.window)
        super().__init__(width, attention, int(config.mlp_ratio * width), config.norm_eps)
        self.window = config.window
        # A single window holds the whole picture: shifted, it would hold the same.
        self.shift = config.window // 2 if is_shifted and side > config.window else 0
        mask = edge_mask(side, config.window, self.shift)
        self.register_buffer("apart_MQQ", mask, persistent=False)

    def forward(self, map_BHWD: Tensor) -> Tensor:
        """One block.  [B, H, W, D] -> [B, H, W, D]."""
        side = map_BHWD.shape[1]
        normed_BHWD = self.norm1(map_BHWD)
        if self.shift:
            normed_BHWD = normed_BHWD.roll((-self.shift, -self.shift), dims=(1, 2))
        seen_BMQD = self.attention(cut_windows(normed_BHWD, self.window), self.apart_MQQ)
        seen_BHWD = join_windows(seen_BMQD, self.window, side)
        if self.shift:
            seen_BHWD = seen_BHWD.roll((self.shift, self.shift), dims=(1, 2))
        map_BHWD = map_BHWD + seen_BHWD
        mixed: Tensor = map_BHWD + self.mlp(map_BHWD)
        return mixed


class WindowAttention(nn.Module):
    """Multi-head attention within windows, which knows how far apart two patches are."""

    places_X: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        """Build; `width` is a multiple of `heads`."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        reach = 2 * window - 1
        self.offsets = nn.Parameter(torch.zeros(reach, reach, heads))
        """What is added to scores, by how far (down, right) the key lies before the query."""
        self.register_buffer("places_X", offset_places(window).flatten(), persistent=False)

    def forward(self, windows_BMQD: Tensor, apart_MQQ: Tensor) -> Tensor:
        """Attend.  [B, M, Q, D], [M or 1, Q, Q] -> [B, M, Q, D]."""
        query, key, value = (
            linear(windows_BMQD).unflatten(-1, (self.heads, -1)).transpose(2, 3)
            for linear in (self.query, self.key, self.value)
        )
        patches, root = query.shape[-2], query.shape[-1] ** -0.25
        near_XA = self.offsets.flatten(0, 1)[self.places_X]
        near_AQQ = near_XA.unflatten(0, (patches, patches)).permute(2, 0, 1)
        scores_BMAQQ = (query * root) @ (key.transpose(-2, -1) * root)
        scores_BMAQQ = scores_BMAQQ + (near_AQQ + apart_MQQ[:, None])
        mixed = (scores_BMAQQ.softmax(dim=-1) @ value).transpose(2, 3).flatten(3)
        projected: Tensor = self.proj(mixed)
        return projected


class Merge(nn.Module):
    """Four neighbouring patches to one of twice the width."""

    def __init__(self, width: int) -> None:
        """Build; the linear layer has no bias."""
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=MERGED_EPS)
        self.linear = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, map_BHWD: Tensor) -> Tensor:
        """Merge.  [B, H, W, D] -> [B, H / 2, W / 2, 2 D]."""
        split = map_BHWD.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # B, H/2, down, W/2, right, D
        four_BHWD = split.permute(0, 1, 3, 4, 2, 5).flatten(3)  # right before down
        merged: Tensor = self.linear(self.norm(four_BHWD))
        return merged


def cut_windows(map_BHWD: Tensor, window: int) -> Tensor:
    """Windows of a picture, row by row.  [B, H, W, D] -> [B, M, Q, D]."""
    cut = map_BHWD.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def join_windows(windows_BMQD: Tensor, window: int, side: int) -> Tensor:
    """A picture of `side` patches a side from its windows.  [B, M, Q, D] -> [B, H, W, D]."""
    rows = side // window
    cut = windows_BMQD.unflatten(2, (window, window)).unflatten(1, (rows, rows))
    return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def edge_mask(side: int, window: int, shift: int) -> Tensor:
    """APART where two patches of a shifted window are no neighbours, else 0.  [M or 1, Q, Q].

    Windows that are shifted over the edge of the picture go on at the other side.
    """
    if not shift:
        return torch.zeros(1, window**2, window**2)
    at = torch.arange(side)
    stripe = (at >= side - window).long() + (at >= side - shift).long()
    region_1HW1 = (stripe[:, None] * 3 + stripe)[None, :, :, None]
    region_MQ = cut_windows(region_1HW1, window)[0, :, :, 0]
    return APART * (region_MQ[:, None] != region_MQ[:, :, None]).float()


def offset_places(window: int) -> Tensor:
    """Where `offsets`, one row after the other, holds what lies between two patches.  [Q, Q]."""
    at = torch.arange(window)
    down_Q, right_Q = at.repeat_interleave(window), at.repeat(window)
    down_QQ = down_Q[:, None] - down_Q + window - 1
    right_QQ = right_Q[:, None] - right_Q + window - 1
    return down_QQ * (2 * window - 1) + right_QQ


# --- published weights ---

_NAMING = Naming(
    wrap="swin.",
    outside=OUTSIDE,
    pieces=(
        ("embeddings.patch_embeddings.projection.", "patch."),
        ("embeddings.norm.", "patch_norm."),
        ("attention.self.", "attention."),
        ("attention.output.dense.", "attention.proj."),
        ("attention.relative_position_bias.", "attention."),
        ("relative_position_bias_table", "offsets"),
        *ENCODER_NAMES,
        ("downsample.reduction.", "linear."),
        ("downsample.norm.", "norm."),
    ),
)


def load(wanted: Wanted) -> Loaded:
    """Swin into an encoder; the shape is theirs."""
    published = read_published(
        wanted,
        model_types={"swin": "microsoft/swin-base-patch4-window7-224-in22k"},
        must={**PLAIN_BLOCKS, "use_absolute_embeddings": False},
    )
    shape = shape_of(published)

    def rename_here(name: str, value: Tensor) -> Mapping[str, Tensor] | str:
        return rename(name, value, shape)

    return load_encoder(published, SwinEncoder, shape, rename_here)


def shape_of(published: Published) -> SwinConfig:
    """The shape that config.json describes.

    Raises:
        WeightsError: it describes none.
    """
    names = {
        "image_px": "image_size",
        "patch_px": "patch_size",
        "width": "embed_dim",
        "window": "window_size",
    }
    numbers, said = numbers_of(published, names), published.said
    with describing(published):
        return SwinConfig(
            depths=tuple(map(int, said["depths"])),
            heads=tuple(map(int, said["num_heads"])),
            mlp_ratio=float(said.get("mlp_ratio", 4.0)),
            norm_eps=float(said.get("layer_norm_eps", 1e-5)),
            **numbers,
        )


def rename(name: str, value: Tensor, shape: SwinConfig) -> Mapping[str, Tensor] | str:
    """Where a tensor of transformers goes; see `train.models.published.Rename`."""
    if name.endswith("relative_position_index"):
        if torch.equal(value.flatten().long(), offset_places(shape.window).flatten()):
            return "where offsets lie, which follows from the window"
        return {}
    found = _NAMING.tensors(name, value)
    if isinstance(found, str):
        return found
    ((ours, value),) = found.items()
    if ours.startswith("encoder.layers."):
        stage, _, rest = ours.removeprefix("encoder.layers.").partition(".")
        ours = f"merges.{stage}.{rest}"
        if rest.startswith("blocks."):
            number, _, rest = rest.removeprefix("blocks.").partition(".")
            ours = f"blocks.{sum(shape.depths[: int(stage)]) + int(number)}.{rest}"
    if ours.endswith(".offsets") and len(value) == (2 * shape.window - 1) ** 2:
        value = value.unflatten(0, (2 * shape.window - 1, -1))
    return {ours: value}
