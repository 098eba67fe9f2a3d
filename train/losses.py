"""The loss of the classifiers: one cross-entropy per level, and one for the scene.

Shape suffixes: N clips, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812

from engines.bundle import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def geo_loss(
    outputs: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    *,
    scene_weight: float = 1.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sum of the four levels' mean cross-entropies, plus the scene's.  -> scalar.

    Args:
        outputs: logits [N, K] per level and for `scene`.
        labels: class ids [N], the same keys.
        scene_weight: factor of the scene term; 0 leaves it out.
        label_smoothing: share of the target spread over all classes of a level.

    Source: CityGuessr (ECCV 2024), L = L_geo + L_scene.
    """
    loss = sum(
        F.cross_entropy(outputs[level], labels[level], label_smoothing=label_smoothing)
        for level in LEVELS
    )
    if scene_weight:
        loss = loss + scene_weight * F.cross_entropy(outputs["scene"], labels["scene"])
    return loss  # type: ignore[return-value]
