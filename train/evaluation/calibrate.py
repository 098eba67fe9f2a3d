"""How to read a model's confidences: temperatures and claim thresholds, from validation clips.

Shape suffix: N clips.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np

from engines.bundle import LEVELS, DecodingMode, Level
from geotag.places.hierarchy import decode
from train.errors import TrainError
from train.evaluation.metrics import LEAST_PROB, Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geotag.places.hierarchy import Hierarchy

WANTED_PRECISION = 0.9
"""A level is claimed where, on validation clips, claims are right this often."""


def calibrate(
    predictions: Predictions, hierarchy: Hierarchy
) -> dict[str, dict[str, dict[str, float]]]:
    """Temperature and claim threshold per decoding mode and level, on validation clips.

    Modes that multiply levels take one temperature for all of them, the one with the least
    negative log-likelihood of the true city; the other modes one per level (Guo et al., ICML 2017).
    Clips of cities that the model does not know say nothing here and are left out.

    Raises:
        TrainError: not one clip is of a known city.
    """
    known = predictions.known
    if not known.any():
        raise TrainError(
            f"calibrating on {len(known)} clips: the model knows none of their cities. "
            "Give it a data set that shares cities with its class tree."
        )
    logits = {level: predictions.logits[level][known] for level in LEVELS}
    labels = {level: predictions.labels[level][known] for level in LEVELS}
    result: dict[str, dict[str, dict[str, float]]] = {}
    for mode in get_args(DecodingMode):
        if mode in ("without", "trace_only"):
            temperatures = {
                level: _best_temperature(logits, labels, hierarchy, mode, (level,))
                for level in LEVELS
            }
        else:
            shared = _best_temperature(logits, labels, hierarchy, mode, LEVELS)
            temperatures = dict.fromkeys(LEVELS, shared)
        decoded = decode(logits, hierarchy, mode, temperatures)
        result[mode] = {
            level: {
                "temperature": round(temperatures[level], 4),
                # Of what is answered, which in traced modes need not be the likeliest class.
                "threshold_prob": claim_threshold(
                    np.take_along_axis(
                        decoded.probs[level], decoded.labels[level][:, np.newaxis], axis=1
                    )[:, 0],
                    decoded.labels[level] == labels[level],
                ),
            }
            for level in LEVELS
        }
    return result


def claim_threshold(confidence_N: NDArray[np.float64], right_N: NDArray[np.bool_]) -> float:
    """Lowest confidence, in steps of 0.05, from which claims are right WANTED_PRECISION often."""
    for threshold in np.arange(0.3, 0.96, 0.05):
        claimed = confidence_N >= threshold
        if not claimed.any() or right_N[claimed].mean() >= WANTED_PRECISION:
            return round(float(threshold), 2)
    return 0.95


def _best_temperature(
    logits: dict[Level, NDArray[np.float32]],
    labels: dict[Level, NDArray[np.intp]],
    hierarchy: Hierarchy,
    mode: DecodingMode,
    levels: tuple[Level, ...],
) -> float:
    """Least NLL of the finest of `levels` over a logarithmic grid from 1/4 to 8."""
    target = levels[0]
    rows = np.arange(len(labels[target]))

    def loss(temperature: float) -> float:
        decoded = decode(logits, hierarchy, mode, dict.fromkeys(levels, temperature))
        truth = decoded.probs[target][rows, labels[target]]
        return float(-np.log(np.maximum(truth, LEAST_PROB)).mean())

    return float(min(np.geomspace(0.25, 8.0, 61), key=loss))
