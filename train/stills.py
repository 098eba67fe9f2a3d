"""One frame of a clip, for models of single pictures: the paper's comparison of image and video.

Shape suffixes: N clips, T frames, H and W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Still = Literal["none", "first", "middle", "last", "random"]
"""none: the whole clip. random: a fresh frame at every training step, and one drawn with a fixed
seed where a model is measured (CityGuessr, ECCV 2024, table of image and video models)."""
Looks = Literal["first", "middle", "last", "random", "every"]
"""What a model of single pictures is measured on. every: all frames, their log-probabilities
averaged, which is what a fair comparison with a video model asks for."""


def draw_stills(clips: int, frames: int, still: Still, generator: torch.Generator) -> Tensor:
    """Which frame of each clip a model of single pictures sees.  -> int64 [clips].

    Args:
        clips: how many.
        frames: T of each; the middle is frame T // 2.
        still: which, not `none`.
        generator: draws random ones; on the CPU.
    """
    if still == "random":
        return torch.randint(frames, (clips,), generator=generator)
    at = {"first": 0, "middle": frames // 2, "last": frames - 1}[still]
    return torch.full((clips,), at)


def take_stills(clip_NTHWC: Tensor, chosen_N: Tensor) -> Tensor:
    """One frame of each clip.  [N, T, H, W, 3], [N] -> [N, 1, H, W, 3]."""
    return clip_NTHWC[torch.arange(len(clip_NTHWC)), chosen_N][:, None]
