"""VideoMAE's encoder (Tong et al., NeurIPS 2022): a plain video transformer.

The arithmetic is that of `transformers.VideoMAEModel` with mean pooling (no final norm), and the
weights of one load into the other. What differs is the form: the tubelet convolution is a reshape
and a matrix product, and query, key and value are three products, the layout that TensorRT, ONNX
Runtime and OpenVINO all read without surprises.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, P patches (tubelets), D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)

from train.models.blocks import attend, check_multiples, initialise
from train.models.published import BLOCK_NAMES, patch_matrix, renamed

SizeName = Literal["tiny", "small", "base"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoMAEConfig:
    """Shape of an encoder; the defaults are VideoMAE-S."""

    frames: int = 16
    tubelet_frames: int = 2
    """Frames that one token covers."""
    image_px: int = 224
    patch_px: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_width: int = 1536
    norm_eps: float = 1e-12
    """Of every LayerNorm; 1e-12 is the value of the published checkpoints."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not divide."""
        check_multiples(
            self, ("frames", "tubelet_frames"), ("image_px", "patch_px"), ("width", "heads")
        )
        if self.width % 2:
            raise ValueError(f"an encoder of width={self.width}: sinusoids need an even width.")

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens along time, height and width."""
        side = self.image_px // self.patch_px
        return self.frames // self.tubelet_frames, side, side

    @property
    def tokens(self) -> int:
        """P: tokens of one clip."""
        steps, rows, columns = self.grid
        return steps * rows * columns

    @property
    def token_values(self) -> int:
        """Pixel values that one token is made of: time x height x width x colours."""
        return self.tubelet_frames * self.patch_px**2 * 3


SIZES: dict[SizeName, VideoMAEConfig] = {
    "tiny": VideoMAEConfig(image_px=112, width=160, depth=4, heads=5, mlp_width=640),
    "small": VideoMAEConfig(),
    "base": VideoMAEConfig(width=768, heads=12, mlp_width=3072),
}
"""`small` is the encoder of CityGuessr; `tiny` trains on two CPU cores."""


class VideoMAEEncoder(nn.Module):
    """Pixels of a clip to one feature vector per tubelet."""

    positions: Tensor

    def __init__(self, config: VideoMAEConfig) -> None:
        """Build with random weights (truncated normal, 0.02)."""
        super().__init__()
        self.config = config
        self.patch = nn.Linear(config.token_values, config.width)
        """Weights over (time, height, width, colour): what a channels-last clip holds in a row."""
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        positions = sinusoids(config.tokens, config.width)
        self.register_buffer("positions", torch.from_numpy(positions), persistent=False)
        self.apply(initialise)

    def forward(self, pixels_NTCHW: Tensor) -> Tensor:
        """Encode normalised clips.  float [N, T, 3, H, W] -> tokens [N, P, D]."""
        return self.encode(self.tubelets(pixels_NTCHW.permute(0, 1, 3, 4, 2)))

    def encode(self, tubelets_NPV: Tensor, kept_NP: Tensor | None = None) -> Tensor:
        """Encode normalised tubelets.  float [N, P, values] -> tokens [N, P, D].

        Args:
            tubelets_NPV: as `tubelets` cuts them; all of them, or those that `kept_NP` names.
            kept_NP: which of the P positions the tubelets are; None for all.
        """
        positions = self.positions if kept_NP is None else self.positions[kept_NP]
        tokens_NPD = self.patch(tubelets_NPV) + positions
        for block in self.blocks:
            tokens_NPD = block(tokens_NPD)
        return tokens_NPD

    def tubelets(self, pixels_NTHWC: Tensor) -> Tensor:
        """Cut clips into tubelets.  [N, T, H, W, 3] -> [N, P, values], P in (t, h, w) order."""
        config = self.config
        _, rows, columns = config.grid
        cut = pixels_NTHWC.reshape(
            -1, config.tubelet_frames, rows, config.patch_px, columns, config.patch_px * 3
        )
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, config.tokens, config.token_values)


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm and added to what came in."""

    def __init__(self, config: VideoMAEConfig) -> None:
        """Build one of `depth` equal blocks."""
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        """No bias: it would add the same amount to every score of a query (VideoMAE, BEiT)."""
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.fc1 = nn.Linear(width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, width)

    def forward(self, tokens_NPD: Tensor) -> Tensor:
        """One block.  [N, P, D] -> [N, P, D]."""
        tokens_NPD = tokens_NPD + self.proj(self.attend(self.norm1(tokens_NPD)))
        mixed: Tensor = tokens_NPD + self.fc2(F.gelu(self.fc1(self.norm2(tokens_NPD))))
        return mixed

    def attend(self, tokens_NPD: Tensor) -> Tensor:
        """Scaled dot-product attention of every head, side by side.  [N, P, D] -> [N, P, D]."""
        return attend(
            self.query(tokens_NPD), self.key(tokens_NPD), self.value(tokens_NPD), self.heads
        )


def random_tokens(clips: int, tokens: int, share: float, generator: torch.Generator) -> Tensor:
    """A random choice of tokens for each clip, in their order.  -> int64 [clips, kept]."""
    kept = max(1, round(tokens * share))
    drawn = torch.rand(clips, tokens, generator=generator)
    return drawn.argsort(dim=1)[:, :kept].sort(dim=1).values


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Fixed position code over the flattened (t, h, w) grid.  float32 [positions, width].

    Source: Vaswani et al. 2017, section 3.5, computed in double precision as VideoMAE does.
    """
    rates = 10000.0 ** (-2 * (np.arange(width) // 2) / width)
    angles = np.arange(positions)[:, None] * rates
    code = np.where(np.arange(width) % 2 == 0, np.sin(angles), np.cos(angles))
    return code.astype(np.float32)


def load_transformers_state(encoder: VideoMAEEncoder, state: Mapping[str, Tensor]) -> None:
    """Load the weights of a `transformers.VideoMAEModel`, strictly.

    Both namings of the biases are read: `q_bias` and `v_bias` (published checkpoints) and
    `query.bias` and `value.bias` (transformers 5 and later, which drops the others silently).

    Args:
        encoder: receives the weights.
        state: a VideoMAEModel's state dict; a `videomae.` prefix is allowed, other weights are
            not: remove a decoder's or classifier's before.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape.
    """
    renamed = {our_name(name.removeprefix("videomae.")): value for name, value in state.items()}
    patch = renamed.get("patch.weight")
    if patch is not None and patch.ndim == 5:
        renamed["patch.weight"] = patch_matrix(patch)
    try:
        encoder.load_state_dict(renamed, strict=True)
    except RuntimeError as exc:
        raise ValueError(f"loading a VideoMAE state dict into {encoder.config}: {exc}") from exc


_NAMES = (
    ("embeddings.patch_embeddings.projection.", "patch."),
    ("encoder.layer.", "blocks."),
    ("attention.attention.q_bias", "query.bias"),
    ("attention.attention.v_bias", "value.bias"),
    ("attention.attention.", ""),
    ("attention.output.dense.", "proj."),
    *BLOCK_NAMES,
)
"""Pieces of a transformers name and ours; the longer of two that overlap comes first."""


def our_name(name: str) -> str:
    """The name here of a tensor that a `transformers.VideoMAEModel` calls `name`."""
    return renamed(name, _NAMES)
