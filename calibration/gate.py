"""Whether a smaller model may be shipped: its answers against those of float32, on held-out clips.

Shape suffixes: N clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError, GateError
from calibration.estimates import (
    Estimate,
    draw_counts,
    estimate,
    mean_of,
    paired_difference,
)
from engines.bundle import LEVELS, Level, Precision

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import NDArray

MAX_DROP = 0.005
"""Largest share of clips by which city accuracy may fall: half a point."""
LEAST_AGREEMENT = 0.99
"""Least share of clips with the same city, where nothing says which city is right."""

Answers = dict[Level, "NDArray[np.intp]"]
"""[N] per level: the class answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A smaller model beside float32 on the same clips."""

    clips: int
    agreement: Mapping[Level, float]
    """Share of clips with the answer of float32."""
    accuracy: Mapping[Level, Estimate] | None
    """Share of clips with the right answer; None where nothing says what is right."""
    reference_accuracy: Mapping[Level, Estimate] | None
    drop: Estimate | None
    """By how much less often the city is right, as a share, paired clip by clip."""
    reason: str | None
    """Why it must not be shipped; None where it may."""
    doubt: str | None
    """What the number of clips leaves open; None where nothing."""

    @property
    def passed(self) -> bool:
        """Whether it may be shipped."""
        return self.reason is None

    def record(self) -> dict[str, float]:
        """Plain numbers, for a bundle; shares rounded to what clips can tell."""
        found: dict[str, float] = {"clips": self.clips}
        for level in LEVELS:
            found[f"agreement_{level}"] = round(self.agreement[level], 5)
        if self.accuracy is not None:
            for level in LEVELS:
                found[f"{level}_top1"] = round(self.accuracy[level].value, 5)
        if self.drop is not None:
            found |= {
                "city_drop": round(self.drop.value, 5),
                "city_drop_low": round(self.drop.low, 5),
                "city_drop_high": round(self.drop.high, 5),
            }
        return found


def judge(
    found: Mapping[Level, NDArray[np.intp]],
    reference: Mapping[Level, NDArray[np.intp]],
    truth: Mapping[Level, NDArray[np.intp]] | None,
    *,
    max_drop: float = MAX_DROP,
    least_agreement: float = LEAST_AGREEMENT,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Verdict:
    """Compare a smaller model's answers with those of float32 on the same clips.

    With labels what counts is how much less often the city is right; the interval of that is a
    paired bootstrap over groups (Efron and Tibshirani 1993, chapter 13): what is hard for both
    cancels out. Without labels what counts is how often the city is the same.

    Args:
        found: of the smaller model, [N] per level.
        reference: of float32.
        truth: what is right, -1 where nobody knows; None where nobody knows anything.
        max_drop: largest fall of city accuracy that passes, as a share.
        least_agreement: smallest share of equal cities that passes where there are no labels.
        groups: [N] what clips belong together, such as a drive; None where each is its own.
        seed: of the bootstrap.

    Raises:
        CalibrationError: no clip at all.
    """
    clips = len(reference["city"])
    if not clips:
        raise CalibrationError("judging a smaller model: there is not one held-out clip.")
    agreement = {level: float(np.mean(found[level] == reference[level])) for level in LEVELS}
    known = None if truth is None else {level: truth[level] >= 0 for level in LEVELS}
    if truth is None or known is None or not known["city"].any():
        share = agreement["city"]
        reason = None
        if share < least_agreement:
            reason = (
                f"it answers another city than float32 for {1 - share:.2%} of {clips} clips; "
                f"allowed is {1 - least_agreement:.2%}"
            )
        return Verdict(
            clips=clips,
            agreement=agreement,
            accuracy=None,
            reference_accuracy=None,
            drop=None,
            reason=reason,
            doubt=None,
        )
    draws = draw_counts(clips, groups=groups, seed=seed)
    right = {
        name: {level: mean_of(answers[level] == truth[level], known[level]) for level in LEVELS}
        for name, answers in (("found", found), ("reference", reference))
    }
    drop = paired_difference(right["reference"]["city"], right["found"]["city"], draws)
    counted = int(known["city"].sum())
    reason = doubt = None
    if drop.value > max_drop + 1e-9:
        reason = (
            f"it is right about the city {100 * drop.value:.2f} points less often than float32 "
            f"({100 * drop.low:+.2f} to {100 * drop.high:+.2f}, {counted} clips); allowed is "
            f"{100 * max_drop:.2f}"
        )
    elif drop.high > max_drop:
        doubt = (
            f"{counted} clips leave a loss of up to {100 * drop.high:.2f} points of city accuracy "
            "possible; judge by more of them for a narrower answer"
        )
    return Verdict(
        clips=clips,
        agreement=agreement,
        accuracy={level: estimate(right["found"][level], draws) for level in LEVELS},
        reference_accuracy={level: estimate(right["reference"][level], draws) for level in LEVELS},
        drop=drop,
        reason=reason,
        doubt=doubt,
    )


def refuse(
    verdicts: Mapping[Precision, Verdict],
    *,
    sensitive: Sequence[str] = (),
    doing: str,
) -> None:
    """Refuse what must not be shipped.

    Args:
        verdicts: by precision.
        sensitive: names of the families that int8 hurts most, the worst first.
        doing: what was being done.

    Raises:
        GateError: a precision did not pass; it says why, and what to try.
    """
    reasons = [f"{name}: {held.reason}." for name, held in verdicts.items() if held.reason]
    if not reasons:
        return
    advice = "Calibrate on more clips of the footage that it is for"
    if sensitive:
        skips = " ".join(f"--int8-skip {name}" for name in sensitive[:3])
        advice += f", leave the most sensitive layers in floating point ({skips})"
    raise GateError(
        f"{doing}: the smaller model lost too much, so nothing was written. {' '.join(reasons)} "
        f"{advice}, allow more with --max-drop, or ship it all the same with --force."
    )
