"""What training minimises: place levels, scene and text, L = L_geo + L_scene + L_TLA.

Every term is a mean over clips, so that its weight means the same at every batch size. Terms are
returned as sums over the clips given, for a batch may be cut into pieces that different processes
work on, and only the caller knows how many there are.

Shape suffixes: N clips, K classes, S scene groups, E width of a text embedding.

Source: CityGuessr (ECCV 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F  # noqa: N812

from engines.bundle import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from engines.bundle import Level

SceneTarget = Literal["soft", "majority"]
NO_SCENE = -100
"""Scene id of a clip without one: cross-entropy leaves it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weights and targets of the terms."""

    label_smoothing: float = 0.0
    """Share of the target spread over all classes of a level."""
    scene_weight: float = 1.0
    """0 leaves the term out."""
    scene_target: SceneTarget = "soft"
    """soft: the distribution over scene groups; majority: the most frequent scene alone."""
    text_weight: float = 0.0
    """0 leaves the term out. The released code sums over its batch of 12 clips: 12."""
    haversine_km: float = 0.0
    """Labels are spread over cities nearby, e times less for each so many kilometres further; 0 for
    none. See `train.haversine`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """What N clips should have been answered with."""

    labels: Mapping[Level, Tensor]
    """Class ids [N] per level."""
    scene_NS: Tensor
    """Distributions; rows of zeros where none is known."""
    scene_N: Tensor
    """The most frequent scene, NO_SCENE where none is known."""
    text_NE: Tensor | None = None
    """Embeddings of the place names, of length 1."""
    shares: Mapping[Level, Tensor] | None = None
    """Distributions over the classes [N, K] per level that stand for the labels; None: they do."""


def loss_sums(
    outputs: Mapping[str, Tensor], targets: Targets, config: LossConfig
) -> dict[str, Tensor]:
    """Weighted sums over clips of `geo`, and of `scene` and `text` where they count.

    Args:
        outputs: logits [N, K] per level, maybe `scene` [N, S] and `text` [N, E].
        targets: for the same clips.
        config: weights and targets.

    Raises:
        ValueError: a term counts and the network does not answer it.
    """
    wanted_places = targets.labels if targets.shares is None else targets.shares
    sums = {"geo": geo_loss(outputs, wanted_places, label_smoothing=config.label_smoothing)}
    wanted = {"scene": config.scene_weight, "text": config.text_weight}
    for head, weight in wanted.items():
        if weight and head not in outputs:
            raise ValueError(f"the {head} loss has weight {weight:g}, and the model no such head")
    if config.scene_weight:
        loss = (
            soft_scene_loss(outputs["scene"], targets.scene_NS)
            if config.scene_target == "soft"
            else majority_scene_loss(outputs["scene"], targets.scene_N)
        )
        sums["scene"] = config.scene_weight * loss
    if config.text_weight:
        if targets.text_NE is None:
            raise ValueError(f"the text loss has weight {config.text_weight:g}, and no table")
        sums["text"] = config.text_weight * alignment_loss(outputs["text"], targets.text_NE)
    return sums


def geo_loss(
    outputs: Mapping[str, Tensor], labels: Mapping[Level, Tensor], *, label_smoothing: float = 0.0
) -> Tensor:
    """Sum over clips and over the four levels of the cross-entropy.

    Args:
        outputs: logits [N, K] per level.
        labels: class ids [N], or distributions over the classes [N, K], per level.
        label_smoothing: share of the target spread over all classes.
    """
    terms = [
        F.cross_entropy(
            outputs[level], labels[level], label_smoothing=label_smoothing, reduction="sum"
        )
        for level in LEVELS
    ]
    return torch.stack(terms).sum()


def soft_scene_loss(logits_NS: Tensor, scene_NS: Tensor) -> Tensor:
    """Sum over clips of the cross-entropy with distributions.  [N, S], [N, S] -> scalar.

    A row of zeros counts as nothing.
    """
    return -(scene_NS * logits_NS.log_softmax(dim=1)).sum()


def majority_scene_loss(logits_NS: Tensor, scene_N: Tensor) -> Tensor:
    """Sum over clips of the cross-entropy with one scene each.  [N, S], [N] -> scalar."""
    return F.cross_entropy(logits_NS, scene_N, ignore_index=NO_SCENE, reduction="sum")


def alignment_loss(text_NE: Tensor, wanted_NE: Tensor) -> Tensor:
    """Sum over clips of the negative cosine similarity.  [N, E], [N, E] -> scalar, -N to N."""
    return -F.cosine_similarity(text_NE, wanted_NE, dim=1).sum()
