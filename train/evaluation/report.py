"""What `evaluation.json` says of a set of predictions, as plain JSON values.

Every number that was counted on clips is `{"value", "low", "high"}`, with a 95 % bootstrap
interval; None where there was nothing to count.

Shape suffixes: N clips, B replicates.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from calibration.estimates import (
    BINS,
    REPEATS,
    confidence_bins,
    draw_counts,
    estimate,
    estimate_all,
    mean_of,
    risk_coverage,
)
from engines.bundle import LEVELS, DecodingMode, Level
from train.evaluation.metrics import (
    Outcomes,
    Predictions,
    city_macro,
    distance_statistics,
    judge,
    level_statistics,
    scene_statistic,
)
from train.evaluation.predict import fuse, fuse_drives, rows_of_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geotag.places.hierarchy import Hierarchy
    from train.data.dataset import BadSample

    Calibration = dict[str, dict[str, dict[str, float]]]
    Record = dict[str, Any]

MODES: tuple[DecodingMode, ...] = get_args(DecodingMode)
SHOWN_MODE: DecodingMode = "marginal"
"""Of the curves, the map and the drives: what a tag's confidences are."""
MOST_CONFUSIONS = 100
MOST_POINTS = 101
"""Of a risk-coverage curve."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Context:
    """What predictions are read with."""

    model: Hierarchy
    """The class tree of the scores."""
    given: Hierarchy
    """The class tree of the data set's cities."""
    repeats: int = REPEATS
    """Bootstrap replicates."""
    seed: int = 0
    """Of the bootstrap."""

    def draw(self, groups: Sequence[str]) -> NDArray[np.uint16]:
        """Counts [B, N] of clips that belong to these groups [N]."""
        return draw_counts(len(groups), groups=groups, repeats=self.repeats, seed=self.seed)


def report(predictions: Predictions, context: Context, calibration: Calibration) -> Record:
    """All numbers of one set of predictions, of clips or of drives."""
    model, given = context.model, context.given
    counts_BN = context.draw(predictions.groups)
    outcomes = {mode: judge_calibrated(predictions, model, mode, calibration) for mode in MODES}
    metrics = {mode: mode_record(outcomes[mode], predictions, counts_BN) for mode in MODES}
    shown = outcomes[SHOWN_MODE]
    scene = scene_statistic(predictions)
    return {
        "clips": len(predictions),
        "modes": {
            mode: {level: metrics[mode][level]["top1"]["value"] for level in LEVELS}
            for mode in MODES
        },
        "conflict_rate": {mode: metrics[mode]["conflict_rate"]["value"] for mode in MODES},
        "scene_top1": None if scene is None else estimate(scene, counts_BN).value,
        "scene": None if scene is None else estimate(scene, counts_BN).record(),
        "metrics": metrics,
        "bootstrap": {
            "repeats": context.repeats,
            "seed": context.seed,
            "interval": "95 %, percentile",
            "groups": len(set(predictions.groups)),
        },
        "measured_points": int(predictions.measured.sum()),
        "open_set": open_set(predictions, shown, given, counts_BN),
        "reliability": {level: reliability(shown, level) for level in LEVELS},
        "risk_coverage": {level: curve(shown, level) for level in LEVELS},
        "cities": cities(predictions, shown, given),
        "confusions": confusions(predictions, shown, model=model, given=given),
    }


def judge_calibrated(
    predictions: Predictions, model: Hierarchy, mode: DecodingMode, calibration: Calibration
) -> Outcomes:
    """Decode with the temperatures of a calibration and compare with the truth."""
    temperatures = {level: calibration[mode][level]["temperature"] for level in LEVELS}
    return judge(predictions, model, mode, temperatures)


def mode_record(
    outcomes: Outcomes, predictions: Predictions, counts_BN: NDArray[np.uint16]
) -> Record:
    """All numbers of one decoding mode."""
    record: Record = {}
    for level in LEVELS:
        found = estimate_all(level_statistics(outcomes, level), counts_BN)
        record[level] = {
            "clips": int(outcomes.counted[level].sum()),
            **{name: number.record() for name, number in found.items()},
        }
    macro = estimate(city_macro(outcomes, predictions.cities), counts_BN)
    record["city"]["macro_top1"] = macro.record()
    distances = estimate_all(distance_statistics(outcomes), counts_BN)
    record["distance"] = {name: number.record() for name, number in distances.items()}
    record["conflict_rate"] = estimate(mean_of(outcomes.conflicts), counts_BN).record()
    return record


def open_set(
    predictions: Predictions,
    outcomes: Outcomes,
    given: Hierarchy,
    counts_BN: NDArray[np.uint16],
) -> Record:
    """Clips from cities that the model does not know: how many, and what it can still say.

    Their state, country and continent count where the model has that class; their distance always.
    """
    unknown = ~predictions.known
    record: Record = {
        "clips": int(unknown.sum()),
        "cities": [
            {"city": given.places["city"][city].name, "clips": count}
            for city, count in sorted(Counter(predictions.cities[unknown].tolist()).items())
        ],
    }
    if not unknown.any():
        return record
    for level in LEVELS[1:]:
        counted = unknown & outcomes.counted[level]
        top1 = estimate(mean_of(outcomes.right[level], counted), counts_BN)
        record[level] = {"clips": int(counted.sum()), "top1": top1.record()}
    distances = estimate_all(distance_statistics(outcomes, unknown), counts_BN)
    record["distance"] = {name: number.record() for name, number in distances.items()}
    return record


def reliability(outcomes: Outcomes, level: Level) -> list[Record]:
    """Mean confidence and accuracy in each bin of confidence that holds clips."""
    counted = outcomes.counted[level]
    confidence = outcomes.confidence[level][counted]
    right = outcomes.right[level][counted]
    bins = confidence_bins(confidence)
    return [
        {
            "low": number / BINS,
            "high": (number + 1) / BINS,
            "clips": int((bins == number).sum()),
            "confidence": float(confidence[bins == number].mean()),
            "accuracy": float(right[bins == number].mean()),
        }
        for number in np.unique(bins).tolist()
    ]


def curve(outcomes: Outcomes, level: Level) -> Record:
    """The risk-coverage curve of a level, at no more than MOST_POINTS of its points."""
    counted = outcomes.counted[level]
    coverage, risk = risk_coverage(
        outcomes.confidence[level][counted],
        outcomes.right[level][counted],
    )
    picked = np.linspace(0, len(risk) - 1, min(MOST_POINTS, len(risk))).round().astype(int)
    return {"coverage": coverage[picked].tolist(), "risk": risk[picked].tolist()}


def cities(predictions: Predictions, outcomes: Outcomes, given: Hierarchy) -> list[Record]:
    """How many clips each true city has, and how many of them are right, known or not."""
    rows: list[Record] = []
    for city in np.unique(predictions.cities).tolist():
        of_city = predictions.cities == city
        place = given.places["city"][city]
        rows.append(
            {
                "city": place.name,
                "country": given.places["country"][given.ancestors["country"][city]].name,
                "lat_deg": place.lat_deg,
                "lon_deg": place.lon_deg,
                "known": bool(predictions.known[of_city].all()),
                "clips": int(of_city.sum()),
                "right": int(outcomes.right["city"][of_city].sum()),
            }
        )
    return rows


def confusions(
    predictions: Predictions, outcomes: Outcomes, *, model: Hierarchy, given: Hierarchy
) -> list[Record]:
    """The most frequent wrong answers: from the true city to the answered one."""
    wrong = ~outcomes.right["city"]
    answers = outcomes.answers["city"]
    pairs = Counter(zip(predictions.cities[wrong].tolist(), answers[wrong].tolist(), strict=True))
    ranked = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    return [
        {
            "city": given.places["city"][truth].name,
            "city_deg": [given.places["city"][truth].lat_deg, given.places["city"][truth].lon_deg],
            "answer": model.places["city"][answer].name,
            "answer_deg": [
                model.places["city"][answer].lat_deg,
                model.places["city"][answer].lon_deg,
            ],
            "clips": count,
        }
        for (truth, answer), count in ranked[:MOST_CONFUSIONS]
    ]


def bad_samples(bad: tuple[BadSample, ...]) -> Record:
    """How many samples could not be read, and every one of them with its reason."""
    return {
        "count": len(bad),
        "samples": [{"name": sample.name, "reason": sample.reason} for sample in bad],
    }


def drive_report(predictions: Predictions, context: Context, calibration: Calibration) -> Record:
    """The same numbers for whole drives, and how accuracy grows with the clips of a drive."""
    record = report(fuse_drives(predictions), context, calibration)
    groups = rows_of_groups(predictions)
    record["drives"] = record.pop("clips")
    record["clips"] = len(predictions)
    record["mixed_cities"] = sum(len(set(predictions.cities[rows].tolist())) > 1 for rows in groups)
    record["by_clips"] = accuracy_by_clips(predictions, context, calibration)
    return record


def accuracy_by_clips(
    predictions: Predictions, context: Context, calibration: Calibration
) -> list[Record]:
    """Accuracy when 1, 2, 4 ... clips of a drive are fused, over the drives that have so many.

    The clips are spread evenly over the drive. Fewer and fewer drives are long enough, and they
    may be easier or harder ones: `one_clip` is the accuracy of single clips in the same drives.
    """
    groups = rows_of_groups(predictions)
    single = judge_calibrated(predictions, context.model, SHOWN_MODE, calibration)
    records: list[Record] = []
    wanted = 1
    while long := [rows for rows in groups if len(rows) >= wanted]:
        fused = fuse(predictions, [_evenly(rows, wanted) for rows in long])
        outcomes = judge_calibrated(fused, context.model, SHOWN_MODE, calibration)
        counts_BN = context.draw(fused.groups)
        record: Record = {"fused": wanted, "drives": len(long)}
        for level in LEVELS:
            counted = outcomes.counted[level]
            shares = np.array([single.right[level][rows].mean() for rows in long])
            record[level] = {
                "top1": estimate(mean_of(outcomes.right[level], counted), counts_BN).record(),
                "one_clip": estimate(mean_of(shares, counted), counts_BN).record(),
            }
        records.append(record)
        wanted *= 2
    return records


def _evenly(rows: list[int], wanted: int) -> list[int]:
    return [rows[number * len(rows) // wanted] for number in range(wanted)]
