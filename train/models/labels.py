"""Classifiers by cosine: a place is a direction, made of its name and of the places that hold it.

    logit_k = s cos(g * f + h, W e'_k),    e'_k = e_k + a e'_parent(k)

f is the feature of a clip; e_k belongs to the place and begins as its name (and, if wanted, where
on Earth it lies); a says how much a place takes over from the next coarser one, so that a city with
few clips learns from its neighbours too; W brings names to the width of features; s = 1 /
temperature is learned, one for each level. g and h, a number each for every value of the feature,
can take out what all clips have in common and would make all cosines alike.

W stands on the side of the places, so that W e'_k is one fixed matrix after training: exported is a
matrix product as of a linear classifier, and in front of it a feature of length 1.

Sources: cosine classifiers, Gidaris and Komodakis, CVPR 2018; learned scale from 1 / 0.07 to at
most 100, CLIP (Radford et al., ICML 2021); the parents' embeddings after GeoGAT (2026), without its
attention over the tree: a place has one parent, and there is nothing to weigh.

Shape suffixes: N clips, D width of a feature, K classes of one level, E width of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own convention)
from torch import Tensor, nn

from engines.bundle import LEVELS
from train.models.blocks import initialise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engines.bundle import Level
    from geotag.places.hierarchy import Hierarchy

FIRST_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0
LEAST_LENGTH = 1e-12
"""That anything is divided by, as torch's `normalize` has it."""
FIRST_GATE = 0.5
"""Of its parent's embedding that a place begins with."""


class UnitFeature(nn.Module):
    """A feature, shifted and scaled value by value, then of length 1."""

    def __init__(self, width: int) -> None:
        """Begin with the feature as it is."""
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, feature_ND: Tensor) -> Tensor:
        """Feature to direction.  [N, D] -> [N, D]."""
        placed_ND = feature_ND * self.gain + self.shift
        # torch's own `normalize` would put more nodes into a graph.
        length_N1 = torch.linalg.vector_norm(placed_ND, dim=-1, keepdim=True)
        unit_ND: Tensor = placed_ND / length_N1.clamp_min(LEAST_LENGTH)
        return unit_ND

    def absorb(self, mean_D: Tensor, deviation_D: Tensor) -> None:
        """Do to bare features what was done to (feature - mean) / deviation."""
        with torch.no_grad():
            self.gain.div_(deviation_D)
            self.shift.sub_(self.gain * mean_D)


class FixedLabels(nn.Module):
    """Cosine classifiers as they are exported: a feature of length 1 and a matrix a level."""

    def __init__(self, unit: UnitFeature, matrices: Mapping[Level, Tensor]) -> None:
        """Take over directions [K, D], each as long as its scale."""
        super().__init__()
        self.unit = unit
        self.linears = nn.ModuleDict()
        for level, matrix_KD in matrices.items():
            count, width = matrix_KD.shape
            linear = nn.Linear(width, count, bias=False, device="meta")
            linear.weight = nn.Parameter(matrix_KD.detach())
            self.linears[level] = linear

    def forward(self, feature_ND: Tensor) -> dict[str, Tensor]:
        """Logits of its levels.  [N, D] -> [N, K] each."""
        unit_ND = self.unit(feature_ND)
        return {level: linear(unit_ND) for level, linear in self.linears.items()}


class CosineLabels(nn.Module):
    """Cosine classifiers while they learn."""

    def __init__(
        self, width: int, embedding_width: int, classes: Mapping[str, int], levels: Sequence[Level]
    ) -> None:
        """Build with random embeddings under a tree of one branch; `start` gives both.

        Args:
            width: D.
            embedding_width: E.
            classes: of every level.
            levels: that are answered; the others only pass on what they hold.
        """
        super().__init__()
        self.levels = tuple(levels)
        self.unit = UnitFeature(width)
        self.embeddings = nn.ParameterDict(
            {level: nn.Parameter(torch.randn(classes[level], embedding_width)) for level in LEVELS}
        )
        self.gates = nn.Parameter(torch.full((len(LEVELS) - 1,), FIRST_GATE))
        """Of city, state and country."""
        self.projection = nn.Linear(embedding_width, width, bias=False)
        initialise(self.projection, std=embedding_width**-0.5)
        self.log_scales = nn.Parameter(torch.full((len(levels),), math.log(FIRST_SCALE)))
        for level in LEVELS[:-1]:
            self.register_buffer(f"parents_{level}", torch.zeros(classes[level], dtype=torch.long))

    def start(self, hierarchy: Hierarchy, vectors: Mapping[Level, NDArray[np.float32]]) -> None:
        """Take the tree, and embeddings [K, E] of every level to begin with."""
        with torch.no_grad():
            for level in LEVELS:
                self.embeddings[level].copy_(torch.from_numpy(vectors[level]))
            for level in LEVELS[:-1]:
                parents_K = torch.from_numpy(hierarchy.parents[level])
                self.get_buffer(f"parents_{level}").copy_(parents_K)

    def matrices(self) -> dict[Level, Tensor]:
        """Directions of the classes, each as long as the scale of its level.  [K, D] each."""
        passed = {LEVELS[-1]: self.embeddings[LEVELS[-1]]}
        for depth in reversed(range(len(LEVELS) - 1)):
            level, coarser_KE = LEVELS[depth], passed[LEVELS[depth + 1]]
            taken_KE = coarser_KE[self.get_buffer(f"parents_{level}")]
            passed[level] = self.embeddings[level] + self.gates[depth] * taken_KE
        scales = self.log_scales.clamp(max=math.log(LARGEST_SCALE)).exp()
        return {
            level: scale * F.normalize(self.projection(passed[level]), dim=-1)
            for level, scale in zip(self.levels, scales, strict=True)
        }

    def forward(self, feature_ND: Tensor) -> dict[str, Tensor]:
        """Logits of its levels.  [N, D] -> [N, K] each, never in fewer bits than float32.

        bfloat16 would be half a logit off at the largest scale.
        """
        with torch.autocast(feature_ND.device.type, enabled=False):
            is_short = feature_ND.dtype in (torch.float16, torch.bfloat16)
            unit_ND = self.unit(feature_ND.float() if is_short else feature_ND)
            return {level: unit_ND @ matrix.T for level, matrix in self.matrices().items()}

    def fixed(self) -> FixedLabels:
        """What is exported."""
        return FixedLabels(self.unit, self.matrices())
