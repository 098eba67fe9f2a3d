"""What reads a feature: one linear classifier for each place level, and maybe one for the scene.

Shape suffixes: N clips, D width, K classes of one head.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from engines.bundle import LEVELS
from train.models.videomae import initialise

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
