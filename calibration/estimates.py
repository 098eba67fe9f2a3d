"""Numbers over clips, each with the interval that the choice of clips leaves open.

A statistic takes counts of how often each clip was drawn, so that one definition gives the number
itself (every clip once) and its bootstrap replicates (clips drawn with replacement). Drawn twice
means counted twice, exactly as if the clip stood twice in the list.

Shape suffixes: N clips, B replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

Floats = NDArray[np.float64]
Counts = NDArray[np.float64]
"""How often each clip was drawn: whole numbers, as floats because sums of products are quicker."""
Statistic = Callable[[Counts], Floats]
"""Counts [B, N] to one value for each row [B]; NaN where nothing that counts was drawn."""

REPEATS = 1000
"""Replicates of a bootstrap.  Source: Efron and Tibshirani 1993, section 13.3: 1000 or more."""
PERCENTILES = (2.5, 97.5)
BINS = 15
"""Bins of the calibration error.  Source: Guo et al., ICML 2017."""
_BLOCK_CELLS = 100_000
"""Cells of counts that are worked on at a time: 0.8 MB, so that they stay in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number and its 95 % interval; NaN where nothing could be counted."""

    value: float
    low: float
    high: float

    def record(self) -> dict[str, float | None]:
        """For JSON, which has no NaN: None instead."""
        return {
            name: None if np.isnan(value) else float(value)
            for name, value in (("value", self.value), ("low", self.low), ("high", self.high))
        }


def draw_counts(
    count: int,
    *,
    groups: Sequence[Hashable] | None = None,
    repeats: int = REPEATS,
    seed: int = 0,
) -> NDArray[np.uint16]:
    """How often each of N clips is drawn in each replicate.  -> [B, N].

    As many groups are drawn, with replacement, as there are, and a group brings all its clips:
    clips of one drive resemble each other, and drawn one by one they would make every interval
    too narrow (Davison and Hinkley 1997, section 3.8).

    Args:
        count: N.
        groups: [N] what each clip belongs to; None where every clip stands for itself.
        repeats: B.
        seed: same seed, same draws.

    Raises:
        ValueError: not one group a clip.
    """
    if groups is None:
        rows_N = np.arange(count)
    elif len(groups) != count:
        raise ValueError(f"drawing {count} clips by {len(groups)} groups: each clip needs one")
    else:
        numbers: dict[Hashable, int] = {}
        rows_N = np.array([numbers.setdefault(name, len(numbers)) for name in groups], np.intp)
    rng = np.random.default_rng(seed)
    size = int(rows_N.max()) + 1 if count else 0
    counts_BN = np.zeros((repeats, count), np.uint16)
    for row in range(repeats if count else 0):
        drawn = np.bincount(rng.integers(size, size=size), minlength=size)
        counts_BN[row] = drawn[rows_N]
    return counts_BN


def value_of(statistic: Statistic, count: int) -> float:
    """The number itself: every clip once."""
    return float(statistic(np.ones((1, count)))[0])


def estimate(statistic: Statistic, counts_BN: NDArray[np.uint16]) -> Estimate:
    """The number, and the percentiles of its replicates; see `estimate_all`."""
    return estimate_all({"": statistic}, counts_BN)[""]


def estimate_all(
    statistics: Mapping[str, Statistic], counts_BN: NDArray[np.uint16]
) -> dict[str, Estimate]:
    """Numbers, each with the percentiles of its replicates.

    An interval is widened to hold its number where all replicates lie to one side of it, as they
    may for the calibration error: drawing again adds noise, and noise adds calibration error.
    Replicates without a clip that counts are left out.

    Source: percentile interval, Efron and Tibshirani 1993, section 13.3.
    """
    replicates: dict[str, list[Floats]] = {name: [] for name in statistics}
    rows = max(1, _BLOCK_CELLS // max(counts_BN.shape[1], 1))
    for start in range(0, len(counts_BN), rows):
        block_BN = counts_BN[start : start + rows].astype(np.float64)
        for name, statistic in statistics.items():
            replicates[name].append(statistic(block_BN))
    return {
        name: _interval(value_of(statistic, counts_BN.shape[1]), replicates[name])
        for name, statistic in statistics.items()
    }


def paired_difference(
    ours: Statistic, theirs: Statistic, counts_BN: NDArray[np.uint16]
) -> Estimate:
    """By how much one number exceeds another on the same clips, with the interval of that.

    Both are computed on the same draws: what is hard for both cancels out, which two separate
    intervals would not show.
    """
    return estimate(lambda counts: ours(counts) - theirs(counts), counts_BN)


def mean_of(values_N: NDArray[Any], counted_N: NDArray[np.bool_] | None = None) -> Statistic:
    """Mean of a value over the clips that count; of claims, their share."""
    counted = np.ones(len(values_N)) if counted_N is None else counted_N.astype(np.float64)
    values = np.where(counted > 0, values_N, 0).astype(np.float64)

    def statistic(counts_BN: Counts) -> Floats:
        return _ratio(counts_BN @ values, counts_BN @ counted)

    return statistic


def median_of(values_N: NDArray[Any], counted_N: NDArray[np.bool_] | None = None) -> Statistic:
    """Median over the clips that count; of an even number the mean of the middle two."""
    values, keep = _kept(values_N, counted_N)
    order = np.argsort(values, kind="stable")
    values, keep = values[order], keep[order]

    def statistic(counts_BN: Counts) -> Floats:
        reached_BN = counts_BN[:, keep].cumsum(axis=1)
        if not reached_BN.shape[1]:
            return np.full(len(counts_BN), np.nan)
        total_B = reached_BN[:, -1]
        middle = [
            values[(reached_BN > ((total_B - shift) // 2)[:, None]).argmax(axis=1)]
            for shift in (1, 0)
        ]
        return np.where(total_B > 0, (middle[0] + middle[1]) / 2, np.nan)

    return statistic


def class_mean_of(
    values_N: NDArray[Any],
    classes_N: NDArray[np.intp],
    counted_N: NDArray[np.bool_] | None = None,
) -> Statistic:
    """Mean over classes of the mean over each class's clips: rare ones weigh as much as frequent.

    Classes that were not drawn are left out.
    """
    values, keep = _kept(values_N, counted_N)
    order, starts = _runs(classes_N[keep])
    values, keep = values[order], keep[order]

    def statistic(counts_BN: Counts) -> Floats:
        kept_BN = counts_BN[:, keep]
        totals_BG = _sums(kept_BN, starts)
        means_BG = _ratio(_sums(kept_BN * values, starts), totals_BG)
        drawn_BG = totals_BG > 0
        return _ratio(np.where(drawn_BG, means_BG, 0.0).sum(axis=1), drawn_BG.sum(axis=1))

    return statistic


def calibration_error_of(
    confidence_N: Floats, right_N: NDArray[np.bool_], counted_N: NDArray[np.bool_] | None = None
) -> Statistic:
    """Expected calibration error: how far confidence and accuracy are apart, bin by bin.

    The answers' confidences fall into BINS bins of equal width, (0, 1/15], (1/15, 2/15] ...; the
    result is the mean over clips of |accuracy - mean confidence| of their bin, in [0, 1].

    Source: Naeini et al., AAAI 2015; Guo et al., ICML 2017.
    """
    confidence, keep = _kept(confidence_N, counted_N)
    bins = confidence_bins(confidence)
    is_bin_NG = bins[:, None] == np.unique(bins)
    excess_NG = np.zeros((len(confidence_N), is_bin_NG.shape[1]))
    excess_NG[keep] = is_bin_NG * (right_N[keep] - confidence)[:, None]
    counted = np.zeros(len(confidence_N))
    counted[keep] = 1.0

    def statistic(counts_BN: Counts) -> Floats:
        return _ratio(np.abs(counts_BN @ excess_NG).sum(axis=1), counts_BN @ counted)

    return statistic


def risk_area_of(
    confidence_N: Floats, right_N: NDArray[np.bool_], counted_N: NDArray[np.bool_] | None = None
) -> Statistic:
    """Area under the risk-coverage curve (AURC), in [0, 1]; less is better.

    Answers are accepted from the most confident down; after each, the risk is the share of wrong
    ones so far; the area is the mean of these risks. Answers of equal confidence come in an
    unknown order, so the mean over all their orders counts: with n answers and e errors before
    them, and E errors among M equals, sum over j = 1..M of (e + j E / M) / (n + j).

    Source: Geifman, Uziel and El-Yaniv, ICLR 2019.
    """
    confidence, keep = _kept(confidence_N, counted_N)
    order, starts = _runs(-confidence)
    keep = keep[order]
    wrong = 1.0 - right_N[keep]

    def statistic(counts_BN: Counts) -> Floats:
        kept_BN = counts_BN[:, keep]
        equal_BG = _sums(kept_BN, starts)
        errors_BG = _sums(kept_BN * wrong, starts)
        after_BG = equal_BG.cumsum(axis=1)
        before_BG = after_BG - equal_BG
        total_B = kept_BN.sum(axis=1)
        ordinals = np.arange(1, int(total_B.max(initial=0)) + 1)
        harmonic = np.concatenate(([0.0], (1 / ordinals).cumsum()))
        between_BG = np.diff(harmonic[after_BG.astype(np.intp)], axis=1, prepend=0.0)
        rate_BG = errors_BG / np.maximum(equal_BG, 1)
        earlier_BG = errors_BG.cumsum(axis=1) - errors_BG
        risks_BG = errors_BG + (earlier_BG - rate_BG * before_BG) * between_BG
        return _ratio(risks_BG.sum(axis=1), total_B)

    return statistic


def risk_coverage(confidence_N: Floats, right_N: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The risk-coverage curve: share answered, and share wrong among them.  -> [M], [M].

    One point for each distinct confidence, from the highest down: answers of equal confidence
    cannot be told apart, so they are accepted together.
    """
    order = np.argsort(-confidence_N, kind="stable")
    sorted_N = confidence_N[order]
    is_last_N = np.append(sorted_N[1:] != sorted_N[:-1], True)[: len(sorted_N)]
    taken_N = np.arange(1, len(order) + 1)
    risk_N = np.cumsum(~right_N[order]) / taken_N
    return taken_N[is_last_N] / max(len(order), 1), risk_N[is_last_N]


def confidence_bins(confidence_N: Floats) -> NDArray[np.intp]:
    """Which of the BINS bins of equal width each confidence falls into; the upper edge belongs."""
    bins: NDArray[np.intp] = np.clip(np.ceil(confidence_N * BINS) - 1, 0, BINS - 1).astype(np.intp)
    return bins


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % confidence interval of a share.  Source: Wilson 1927, z = 1.96."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def _interval(value: float, replicates: list[Floats]) -> Estimate:
    found = np.concatenate([np.empty(0), *replicates])
    found = found[np.isfinite(found)]
    if np.isnan(value) or not len(found):
        return Estimate(value=value, low=value, high=value)
    low, high = np.percentile(found, PERCENTILES)
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))


def _kept(
    values_N: NDArray[Any], counted_N: NDArray[np.bool_] | None
) -> tuple[Floats, NDArray[np.intp]]:
    keep = np.arange(len(values_N)) if counted_N is None else np.flatnonzero(counted_N)
    return values_N[keep].astype(np.float64), keep


def _runs(keys_N: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """An order that puts equal keys side by side, ascending, and where each run of them starts."""
    order = np.argsort(keys_N, kind="stable")
    sorted_N = keys_N[order]
    is_start = np.append(True, sorted_N[1:] != sorted_N[:-1])[: len(order)]
    return order, np.flatnonzero(is_start)


def _sums(values_BN: Floats, starts: NDArray[np.intp]) -> Floats:
    """Sums over each run of clips.  -> [B, runs]."""
    if len(starts) == values_BN.shape[1]:  # every run is one clip
        return values_BN
    return np.asarray(np.add.reduceat(values_BN, starts, axis=1))


def _ratio(numerators: NDArray[Any], denominators: NDArray[Any]) -> Floats:
    """Quotient; NaN where the denominator is 0."""
    quotients: Floats = np.divide(
        numerators,
        denominators,
        out=np.full(np.shape(numerators), np.nan),
        where=np.asarray(denominators) > 0,
        casting="unsafe",
    )
    return quotients
