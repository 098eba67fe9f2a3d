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
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from geotag.places.hierarchy import Hierarchy

WANTED_PRECISION = 0.9
"""A level is claimed where, on validation clips, claims are right this often."""
FLAT = 1e6
"""Temperature of scores that are to say nothing: their softmax is even to 1e-4."""


def calibrate(
    predictions: Predictions, hierarchy: Hierarchy, *, nests: bool = False
) -> dict[str, dict[str, dict[str, float]]]:
    """Temperature and claim threshold per decoding mode and level, on validation clips.

    Modes that multiply levels take one temperature for all of them, the one with the least
    negative log-likelihood of the true city; the other modes one per level (Guo et al., ICML 2017).
    Clips of cities that the model does not know say nothing here and are left out.

    Args:
        predictions: of validation clips.
        hierarchy: the model's class tree.
        nests: the coarser scores are sums over the cities' own. Multiplied with them, the same
            evidence would count up to four times: in `marginal`, by which scans read a model, they
            are made FLAT, and the probabilities are those of the cities and their sums.

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
        elif mode == "marginal" and nests:
            others = dict.fromkeys(LEVELS[1:], FLAT)
            own = _best_temperature(logits, labels, hierarchy, mode, ("city",), others)
            temperatures = {"city": own, **others}
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


def uncalibrated(*, nests: bool = False) -> dict[str, dict[str, dict[str, float]]]:
    """What stands in the place of a calibration; see `calibrate`."""

    def temperature(mode: DecodingMode, level: Level) -> float:
        return FLAT if nests and mode == "marginal" and level != "city" else 1.0

    return {
        mode: {
            level: {"temperature": temperature(mode, level), "threshold_prob": 0.5}
            for level in LEVELS
        }
        for mode in get_args(DecodingMode)
    }


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
    others: Mapping[Level, float] | None = None,
) -> float:
    """Least NLL of the finest of `levels` over a logarithmic grid from 1/4 to 8.

    `others` are temperatures that stay as they are.
    """
    fixed = others or {}
    target = levels[0]
    rows = np.arange(len(labels[target]))

    def loss(temperature: float) -> float:
        given = {**dict.fromkeys(levels, temperature), **fixed}
        decoded = decode(logits, hierarchy, mode, given)
        truth = decoded.probs[target][rows, labels[target]]
        return float(-np.log(np.maximum(truth, LEAST_PROB)).mean())

    return float(min(np.geomspace(0.25, 8.0, 61), key=loss))
