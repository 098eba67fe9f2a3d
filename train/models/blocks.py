"""What the transformers here are made of: patches, tokens, attention, and weights to begin with.

Shape suffixes: N clips, T frames, B pictures (N T), H and W pixels, P tokens, Q tokens that are
attended to, V values of a patch, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (PyTorch's own convention)


def check_multiples(shape: object, *pairs: tuple[str, str], of: str = "an encoder") -> None:
    """Refuse a shape whose sizes do not divide.

    Args:
        shape: of a network.
        pairs: names of a size and of one that must divide it.
        of: what it is the shape of.

    Raises:
        ValueError: one does not.
    """
    for whole, part in pairs:
        if getattr(shape, whole) % getattr(shape, part):
            raise ValueError(
                f"{of} of {whole}={getattr(shape, whole)} and {part}={getattr(shape, part)}: "
                f"{whole} must be a multiple of {part}."
            )


def check_choice(shape: object, name: str, allowed: Sequence[str], of: str = "an encoder") -> None:
    """Refuse a shape with a word that there is not.

    Args:
        shape: of a network.
        name: of its field.
        allowed: what the field may be.
        of: what it is the shape of.

    Raises:
        ValueError: it is something else.
    """
    if getattr(shape, name) not in allowed:
        raise ValueError(
            f"{of} of {name}={getattr(shape, name)!r}: it is one of {', '.join(allowed)}."
        )


class Patched:
    """The shape of a network that cuts pictures into squares; dataclasses derive from it."""

    __slots__ = ()
    image_px: int
    patch_px: int

    @property
    def patches(self) -> int:
        """P: patches of one picture."""
        return (self.image_px // self.patch_px) ** 2

    @property
    def patch_values(self) -> int:
        """V: pixel values of a patch."""
        return self.patch_px**2 * 3


def cut_patches(pixels_NTHWC: Tensor, patch_px: int) -> Tensor:
    """Patches of every frame, row by row.  [N, T, H, W, 3] -> [B, P, V]."""
    height, width = pixels_NTHWC.shape[2:4]
    rows, columns = height // patch_px, width // patch_px
    cut = pixels_NTHWC.reshape(-1, rows, patch_px, columns, patch_px * 3)
    return cut.permute(0, 1, 3, 2, 4).reshape(-1, rows * columns, patch_px**2 * 3)


class PatchEncoder(nn.Module):
    """A network that reads pictures patch by patch."""

    def __init__(self, config: Any) -> None:  # noqa: ANN401 - each has a `Patched` of its own
        """Build the patch embedding."""
        super().__init__()
        self.config = config
        self.patch = nn.Linear(config.patch_values, config.width)
        """Weights over (height, width, colour): what a channels-last picture holds in a row."""

    def tubelets(self, pixels_NTHWC: Tensor) -> Tensor:
        """Cut every frame into patches.  [N, T, H, W, 3] -> [B, P, V], row by row."""
        return cut_patches(pixels_NTHWC, self.config.patch_px)


class TokenEncoder(PatchEncoder):
    """One whose blocks see a CLS token before the patches, and which ends with a norm."""

    def __init__(self, config: Any, make_block: Callable[[], nn.Module]) -> None:  # noqa: ANN401
        """Build with random weights (truncated normal, 0.02).

        Args:
            config: its shape.
            make_block: is called for every block.
        """
        super().__init__(config)
        self.cls = nn.Parameter(torch.empty(config.width))
        self.positions = nn.Parameter(torch.empty(1 + config.patches, config.width))
        self.blocks = nn.ModuleList(make_block() for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.apply(initialise)
        draw_small(self.cls)
        draw_small(self.positions)

    def encode(self, patches_BPD: Tensor) -> Tensor:
        """Tokens after the last norm.  Patches with their positions [B, P, D] -> [B, 1 + P, D]."""
        first_B1D = (self.cls + self.positions[0]).expand(patches_BPD.shape[0], 1, -1)
        tokens_BPD = torch.cat((first_B1D, patches_BPD), dim=1)
        for block in self.blocks:
            tokens_BPD = block(tokens_BPD)
        normed_BPD: Tensor = self.norm(tokens_BPD)
        return normed_BPD


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
        query_BPD, key_BQD = self.query(tokens_BPD), self.key(others_BQD)
        projected: Tensor = self.proj(
            attend(query_BPD, key_BQD, self.value(others_BQD), self.heads)
        )
        return projected


def attend(query_BPD: Tensor, key_BQD: Tensor, value_BQD: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of every head, side by side.  -> [B, P, D]."""
    query, key, value = (
        each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query_BPD, key_BQD, value_BQD)
    )
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm and added to what came in."""

    def __init__(self, width: int, attention: nn.Module, mlp_width: int, norm_eps: float) -> None:
        """Build one of several equal blocks around its attention."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.fc1 = nn.Linear(width, mlp_width)
        self.fc2 = nn.Linear(mlp_width, width)

    def forward(self, tokens_BPD: Tensor) -> Tensor:
        """One block.  [B, P, D] -> [B, P, D]."""
        tokens_BPD = tokens_BPD + self.attention(self.norm1(tokens_BPD))
        mixed: Tensor = tokens_BPD + self.mlp(tokens_BPD)
        return mixed

    def mlp(self, tokens_BPD: Tensor) -> Tensor:
        """What the MLP adds.  [..., D] -> [..., D]."""
        added: Tensor = self.fc2(F.gelu(self.fc1(self.norm2(tokens_BPD))))
        return added


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Give a Linear truncated-normal weights and a zero bias; leave other modules alone."""
    if isinstance(module, nn.Linear):
        draw_small(module.weight, std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def draw_small(table: Tensor, std: float = 0.02) -> None:
    """Fill with values of a normal distribution that ends at twice its standard deviation."""
    nn.init.trunc_normal_(table, std=std, a=-2 * std, b=2 * std)
