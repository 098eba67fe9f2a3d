"""Coarser levels as sums over their cities: one softmax, and a tree of probabilities that nests.

    P(country) = sum of P(city) over the cities of the country

A place is never less likely than a place in it, whatever the weights. The logits of a coarser level
are the logarithms of these sums: its softmax is the sums again.

Source: marginals over the leaves of a tree, as in Bertinetto et al., Making Better Mistakes, CVPR
2020. That a tree nests does not mean that each level's likeliest place lies in the likeliest of the
next: with Lyon 0.4, Rome 0.3 and Turin 0.3 the city is Lyon and the country Italy, both rightly.
Decoding that answers with a city and its ancestors (`trace_only`) never contradicts itself.

Shape suffixes: N clips, K classes of a level, C cities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engines.bundle import LEVELS

if TYPE_CHECKING:
    from geotag.places.hierarchy import Hierarchy

COARSER = LEVELS[1:]
LEAST_PROB = 1e-30
"""Of a place, where nothing learns: float32 ends at 1e-38, and no logarithm is to be infinite."""


class NestedLevels(nn.Module):
    """Logits of cities to those of the levels above."""

    def __init__(self, classes: Mapping[str, int]) -> None:
        """Build over a tree of one branch; `start` gives the tree.

        Args:
            classes: of every level.
        """
        super().__init__()
        self.classes = {level: classes[level] for level in COARSER}
        for level in COARSER:
            self.register_buffer(f"above_{level}", torch.zeros(classes["city"], dtype=torch.long))

    def start(self, hierarchy: Hierarchy) -> None:
        """Take the tree."""
        for level in COARSER:
            above_C = torch.from_numpy(hierarchy.ancestors[level])
            self.get_buffer(f"above_{level}").copy_(above_C)

    def forward(self, city_NC: Tensor) -> dict[str, Tensor]:
        """Logarithms of the sums.  Logits [N, C] -> [N, K] of each coarser level.

        Exact for any logits: each class is summed beside its own largest city, so that a gradient
        reaches the true country however unlikely it is. Where nothing learns, no probability is
        taken for less than LEAST_PROB, as in the exported graph.
        """
        if city_NC.dtype in (torch.float16, torch.bfloat16):
            city_NC = city_NC.float()
        log_probs_NC = city_NC.log_softmax(dim=1)
        found: dict[str, Tensor] = {}
        for level, count in self.classes.items():
            above_C = self.get_buffer(f"above_{level}")
            sums_NK = _log_sums(log_probs_NC, above_C, count)
            found[level] = sums_NK if self.training else sums_NK.clamp_min(math.log(LEAST_PROB))
        return found

    def fixed(self) -> SummedLevels:
        """What is exported."""
        return SummedLevels(self.membership())

    def membership(self) -> dict[str, Tensor]:
        """1 where a city lies in a class, else 0.  [C, K] of each coarser level."""
        return {
            level: nn.functional.one_hot(self.get_buffer(f"above_{level}"), count).float()
            for level, count in self.classes.items()
        }


class SummedLevels(nn.Module):
    """The same as one softmax and a product with zeros and ones for each level, for export."""

    def __init__(self, membership: Mapping[str, Tensor]) -> None:
        """Take over matrices [C, K]."""
        super().__init__()
        self.levels = tuple(membership)
        for level, matrix_CK in membership.items():
            self.register_buffer(f"membership_{level}", matrix_CK)

    def forward(self, city_NC: Tensor) -> dict[str, Tensor]:
        """Logarithms of the sums.  Logits [N, C] -> [N, K] of each coarser level."""
        probs_NC = city_NC.softmax(dim=1)
        return {
            level: (probs_NC @ self.get_buffer(f"membership_{level}")).clamp_min(LEAST_PROB).log()
            for level in self.levels
        }


def _log_sums(log_probs_NC: Tensor, above_C: Tensor, count: int) -> Tensor:
    """Logarithm of the sums of exp over the cities of each class.  [N, C] -> [N, K]."""
    above_NC = above_C.expand_as(log_probs_NC)
    least_NK = log_probs_NC.new_full((log_probs_NC.shape[0], count), -math.inf)
    largest_NK = least_NK.scatter_reduce(1, above_NC, log_probs_NC.detach(), "amax")
    beside_NC = (log_probs_NC - largest_NK.gather(1, above_NC)).exp()
    sums_NK = torch.zeros_like(largest_NK).scatter_add(1, above_NC, beside_NC)
    return largest_NK + sums_NK.log()
