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


def moment_of(still: Still, frames: int) -> float:
    """Where in a clip's stretch its frame lies, 0 to 1: what scanning takes in its place.

    Frames are as far apart as the stretch is long divided by their number. In place of a random
    frame it is the middle one: the same video is always answered alike.

    Args:
        still: which, not `none`.
        frames: T of the clip that it is chosen from.
    """
    if still == "random":
        still = "middle"
    chosen_N = draw_stills(1, frames, still, torch.Generator())
    return float(chosen_N[0]) / frames


def take_stills(clip_NTHWC: Tensor, chosen_N: Tensor) -> Tensor:
    """One frame of each clip.  [N, T, H, W, 3], [N] -> [N, 1, H, W, 3]."""
    return clip_NTHWC[torch.arange(len(clip_NTHWC)), chosen_N][:, None]


class Stills:
    """Chooses the frame of clips that a network of single pictures is measured on."""

    def __init__(self, still: Still) -> None:
        """Begin a series of clips: random frames are the same ones in each.

        Args:
            still: which, not `none`.
        """
        self._still = still
        self._drawn = torch.Generator().manual_seed(0)

    def of(self, clip_NTHWC: Tensor) -> Tensor:
        """One frame of each of the next clips.  [N, T, H, W, 3] -> [N, 1, H, W, 3]."""
        clips, frames = clip_NTHWC.shape[:2]
        return take_stills(clip_NTHWC, draw_stills(clips, frames, self._still, self._drawn))
