"""What reads a feature: one linear classifier for each place level, and maybe one for the scene.

Shape suffixes: N clips, B pictures (of N clips, T each), D width, K classes of one head.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engines.bundle import LEVELS
from train.models.blocks import initialise

HEADS = (*LEVELS, "scene")


class Heads(nn.ModuleDict):
    """City, state, country, continent, each linear in the same feature; with `scene`, five.

    Source: CityGuessr (ECCV 2024): no hidden layer, no norm, no dropout.
    """

    def __init__(self, width: int, classes: Mapping[str, int]) -> None:
        """Build with small random weights: first losses near ln(classes), first gradients small.

        Args:
            width: D.
            classes: of each head, in the order of HEADS.
        """
        super().__init__({head: nn.Linear(width, count) for head, count in classes.items()})
        for linear in self.values():
            initialise(linear, std=0.002)

    def forward(self, feature_ND: Tensor) -> dict[str, Tensor]:
        """Logits of every head.  [N, D] -> [N, K] each."""
        return {head: linear(feature_ND) for head, linear in self.items()}


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


def picked(scores_BK: Tensor) -> Tensor:
    """1 at the largest of each row, 0 elsewhere.  [B, K] -> [B, K]."""
    places_K = torch.arange(scores_BK.shape[1], device=scores_BK.device)
    return (scores_BK.argmax(dim=1, keepdim=True) == places_K).to(scores_BK.dtype)
