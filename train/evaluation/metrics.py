"""What came of each clip, and the numbers that say how good a model is.

Scores of N clips are decoded in one mode into one row a clip (`Outcomes`); every number is a
statistic over these rows (`calibration.estimates`), so each has its bootstrap interval. A clip
whose city the model does not know still counts at the levels whose class it knows; everything about
cities (top-1, distance, calibration at city level) is over known cities, and the rest is counted
apart.

Shape suffixes: N clips, K classes of a level, B replicates.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from calibration.estimates import (
    Estimate,
    Statistic,
    calibration_error_of,
    class_mean_of,
    mean_of,
    median_of,
    paired_difference,
    risk_area_of,
)
from engines.bundle import LEVELS, DecodingMode, Level
from geotag.geo import distances_m
from geotag.places.hierarchy import Decoded, Hierarchy, decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Temperatures = Mapping[Level, float]

UNKNOWN = -1
"""Label of what a model has no class for, and of a scene that nobody labelled."""
RADII_KM = (25, 200, 750, 2500)
"""City, region, country, continent.  Source: Hays and Efros, CVPR 2008; the field's convention."""
GEOSCORE_MOST = 5000.0
GEOSCORE_KM = 1492.7
"""A guess d km off scores 5000 exp(-d / 1492.7), as in GeoGuessr's world map.
Source: OpenStreetView-5M, Astruc et al., CVPR 2024; PIGEON, Haas et al., CVPR 2024."""
LEAST_PROB = 1e-12
"""A likelihood is taken no lower than this, so that one clip cannot make a mean infinite."""
TRACING: tuple[DecodingMode, ...] = ("codependent", "trace_only")
"""Modes that answer with a city and its ancestors."""
_BLOCK = 512
"""Clips decoded at a time: with 20,000 places a block's probabilities are 80 MB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Scores and truth of N clips."""

    logits: dict[Level, NDArray[np.float32]]
    """[N, K] per level."""
    labels: dict[Level, NDArray[np.intp]]
    """[N] per level: the model's class, or UNKNOWN where it has none for the truth."""
    names: tuple[str, ...]
    groups: tuple[str, ...]
    """The drive, sequence or source of each clip; the name itself where nothing is known."""
    cities: NDArray[np.intp]
    """[N]: the true city in the data set's own tree, known to the model or not."""
    truths_deg: NDArray[np.float64]
    """[N, 2]: (lat_deg, lon_deg) where it was measured, else of the true city's reference point."""
    measured: NDArray[np.bool_]
    """[N]: whether that point was measured."""
    scene_logits: NDArray[np.float32] | None = None
    """[N, S]; None where the model has no scenes."""
    scene_labels: NDArray[np.intp] | None = None
    """[N], UNKNOWN where nobody labelled it; None where the data set has no scenes."""

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.names)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Clips whose city the model knows.  [N]."""
        return self.labels["city"] != UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """What came of N clips in one decoding mode; arrays [N] per level."""

    answers: dict[Level, NDArray[np.intp]]
    right: dict[Level, NDArray[np.bool_]]
    counted: dict[Level, NDArray[np.bool_]]
    """Whether the model has a class for the truth."""
    top5: dict[Level, NDArray[np.bool_]]
    """Whether the truth is among the five best; modes that trace rank a country by its best city,
    which is the order in which tracing down the list of cities meets it."""
    confidence: dict[Level, NDArray[np.float64]]
    """Probability of the answer."""
    nll: dict[Level, NDArray[np.float64]]
    """Negative logarithm of the truth's probability, nats; NaN where not counted."""
    brier: dict[Level, NDArray[np.float64]]
    """Sum over the classes of (probability - truth)^2, 0 to 2 (Brier 1950); NaN if not counted."""
    conflicts: NDArray[np.bool_]
    """[N]: whether the answers contradict the tree somewhere, such as a city elsewhere."""
    distance_km: NDArray[np.float64]
    """[N]: from the reference point of the answered city to the truth."""


def judge(
    predictions: Predictions,
    hierarchy: Hierarchy,
    mode: DecodingMode,
    temperatures: Temperatures | None = None,
) -> Outcomes:
    """Decode every clip in one mode and compare it with the truth."""
    blocks = [
        _judge_block(predictions, hierarchy, mode, temperatures, slice(start, start + _BLOCK))
        for start in range(0, len(predictions), _BLOCK)
    ]
    columns = {
        name: {level: np.concatenate([block[name][level] for block in blocks]) for level in LEVELS}
        for name in ("answers", "top5", "confidence", "nll", "brier")
    }
    answers = columns["answers"]
    return Outcomes(
        **columns,
        right={level: answers[level] == predictions.labels[level] for level in LEVELS},
        counted={level: predictions.labels[level] != UNKNOWN for level in LEVELS},
        conflicts=conflicts(answers, hierarchy),
        distance_km=answer_distances_km(answers["city"], predictions.truths_deg, hierarchy),
    )


def conflicts(answers: Mapping[Level, NDArray[np.intp]], hierarchy: Hierarchy) -> NDArray[np.bool_]:
    """Whether a clip's answers contradict the tree at any level.  [N] per level -> [N]."""
    found = np.zeros(len(answers["city"]), dtype=bool)
    for fine, coarse in pairwise(LEVELS):
        found |= hierarchy.parents[fine][answers[fine]] != answers[coarse]
    return found


def answer_distances_km(
    cities_N: NDArray[np.intp], truths_deg_N2: NDArray[np.float64], hierarchy: Hierarchy
) -> NDArray[np.float64]:
    """Great-circle distance from each answered city's reference point to the truth.  -> [N], km."""
    result = np.full(len(cities_N), np.nan)
    for city in np.unique(cities_N):
        place, rows = hierarchy.places["city"][city], cities_N == city
        if place.lat_deg is None or place.lon_deg is None:
            continue
        lats_deg, lons_deg = truths_deg_N2[rows].T
        result[rows] = distances_m((place.lat_deg, place.lon_deg), lats_deg, lons_deg) / 1000
    return result


def geoscores(distance_km: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score of each distance, from 5000 at the spot down to 0; see GEOSCORE_KM."""
    return GEOSCORE_MOST * np.exp(-distance_km / GEOSCORE_KM)


def level_statistics(outcomes: Outcomes, level: Level) -> dict[str, Statistic]:
    """The numbers of one level: accuracy, and how far its confidences can be trusted.

    `top5` is left out at continent level: five of six continents are nearly always right.
    """
    counted = outcomes.counted[level]
    right, confidence = outcomes.right[level], outcomes.confidence[level]
    found = {"top1": mean_of(right, counted)}
    if level != "continent":
        found["top5"] = mean_of(outcomes.top5[level], counted)
    return {
        **found,
        "nll": mean_of(outcomes.nll[level], counted),
        "brier": mean_of(outcomes.brier[level], counted),
        "ece": calibration_error_of(confidence, right, counted),
        "aurc": risk_area_of(confidence, right, counted),
    }


def distance_statistics(
    outcomes: Outcomes, counted_N: NDArray[np.bool_] | None = None
) -> dict[str, Statistic]:
    """The numbers of the distance from the answered city to the truth.

    Args:
        outcomes: of one mode.
        counted_N: which clips count; None for those whose city the model knows.
    """
    counted = outcomes.counted["city"] if counted_N is None else counted_N
    distance_km = outcomes.distance_km
    return {
        "median_km": median_of(distance_km, counted),
        "mean_km": mean_of(distance_km, counted),
        **{f"within_{radius}_km": mean_of(distance_km <= radius, counted) for radius in RADII_KM},
        "geoscore": mean_of(geoscores(distance_km), counted),
    }


def city_macro(outcomes: Outcomes, cities_N: NDArray[np.intp]) -> Statistic:
    """Top-1 of the city as the mean over cities of each city's own."""
    return class_mean_of(outcomes.right["city"], cities_N, outcomes.counted["city"])


def scene_statistic(predictions: Predictions) -> Statistic | None:
    """Share of labelled clips whose scene is right; None without scenes on either side."""
    if predictions.scene_logits is None or predictions.scene_labels is None:
        return None
    labelled = predictions.scene_labels != UNKNOWN
    if not labelled.any():
        return None
    right = predictions.scene_logits.argmax(axis=1) == predictions.scene_labels
    return mean_of(right, labelled)


def compare_top1(
    ours: Outcomes, theirs: Outcomes, counts_BN: NDArray[np.uint16]
) -> dict[Level, Estimate]:
    """By how much more often one model is right than another on the same clips, per level.

    Over the clips that count for both.

    Raises:
        ValueError: the two are of different numbers of clips.
    """
    if len(ours.conflicts) != len(theirs.conflicts):
        raise ValueError(
            f"comparing {len(ours.conflicts)} clips with {len(theirs.conflicts)}: a paired "
            "difference needs the same clips in the same order"
        )
    both = {level: ours.counted[level] & theirs.counted[level] for level in LEVELS}
    return {
        level: paired_difference(
            mean_of(ours.right[level], both[level]),
            mean_of(theirs.right[level], both[level]),
            counts_BN,
        )
        for level in LEVELS
    }


def join(parts: Sequence[Predictions]) -> Predictions:
    """Several sets of clips as one.  Scenes are kept where every part has them."""

    def stacked(arrays: list[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
        there = [array for array in arrays if array is not None]
        return np.concatenate(there) if len(there) == len(arrays) else None

    scene_labels = stacked([part.scene_labels for part in parts])  # type: ignore[misc]
    return Predictions(
        logits={level: np.concatenate([part.logits[level] for part in parts]) for level in LEVELS},
        labels={level: np.concatenate([part.labels[level] for part in parts]) for level in LEVELS},
        names=tuple(name for part in parts for name in part.names),
        groups=tuple(group for part in parts for group in part.groups),
        cities=np.concatenate([part.cities for part in parts]),
        truths_deg=np.concatenate([part.truths_deg for part in parts]),
        measured=np.concatenate([part.measured for part in parts]),
        scene_logits=stacked([part.scene_logits for part in parts]),
        scene_labels=None if scene_labels is None else scene_labels.astype(np.intp),
    )


def _judge_block(
    predictions: Predictions,
    hierarchy: Hierarchy,
    mode: DecodingMode,
    temperatures: Temperatures | None,
    rows: slice,
) -> dict[str, dict[Level, NDArray[np.generic]]]:
    logits = {level: predictions.logits[level][rows] for level in LEVELS}
    decoded = decode(logits, hierarchy, mode, temperatures)
    block: dict[str, dict[Level, NDArray[np.generic]]] = {
        name: {} for name in ("answers", "top5", "confidence", "nll", "brier")
    }
    clips = np.arange(len(decoded.labels["city"]))
    for level in LEVELS:
        probs_NK, answers = decoded.probs[level], decoded.labels[level]
        labels = predictions.labels[level][rows]
        known = labels != UNKNOWN
        true_prob = np.where(known, probs_NK[clips, labels], np.nan)
        block["answers"][level] = answers
        block["confidence"][level] = probs_NK[clips, answers]
        block["nll"][level] = -np.log(np.maximum(true_prob, LEAST_PROB))
        block["brier"][level] = (probs_NK**2).sum(axis=1) - 2 * true_prob + 1
        is_first = ranks(_ranked_by(decoded, hierarchy, mode, level), labels) < 5
        block["top5"][level] = known & (is_first | (answers == labels))
    return block


def ranks(scores_NK: NDArray[np.float64], labels_N: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many classes come before the true one; of equals, the lower class comes first.  [N]."""
    clips = np.arange(len(labels_N))
    true_N1 = scores_NK[clips, labels_N][:, None]
    is_before = np.arange(scores_NK.shape[1]) < labels_N[:, None]
    before_NK = (scores_NK > true_N1) | ((scores_NK == true_N1) & is_before)
    return before_NK.sum(axis=1)


def _ranked_by(
    decoded: Decoded, hierarchy: Hierarchy, mode: DecodingMode, level: Level
) -> NDArray[np.float64]:
    if mode not in TRACING or level == "city":
        return decoded.probs[level]
    ancestors = hierarchy.ancestors[level]
    order = np.argsort(ancestors, kind="stable")
    starts = np.searchsorted(ancestors[order], np.arange(hierarchy.size(level)))
    best: NDArray[np.float64] = np.maximum.reduceat(decoded.probs["city"][:, order], starts, axis=1)
    return best
