"""Statistics against their definitions, worked out clip by clip in plain Python."""

from __future__ import annotations

import math
from itertools import pairwise, permutations
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from calibration.estimates import (
    BINS,
    calibration_error_of,
    class_mean_of,
    draw_counts,
    estimate,
    mean_of,
    median_of,
    paired_difference,
    risk_area_of,
    risk_coverage,
    value_of,
)

if TYPE_CHECKING:
    from calibration.estimates import Statistic

    Case = tuple[list[float], list[bool], list[int], list[int]]


@st.composite
def cases(draw: st.DrawFn, most: int = 12) -> Case:
    """Confidences (with ties), right or wrong, a class each, and how often each was drawn."""
    count = draw(st.integers(1, most))

    def several(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=count, max_size=count))

    confidence = several(st.sampled_from([0.0, 0.2, 1 / 3, 0.4, 0.61, 0.99, 1.0]))
    return (
        confidence,
        several(st.booleans()),
        several(st.integers(0, 3)),
        several(st.integers(0, 3)),
    )


def drawn(statistic: Statistic, counts: list[int]) -> float:
    return float(statistic(np.array([counts]))[0])


def expanded(values: list, counts: list[int]) -> list:
    return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]


@given(cases())
def test_a_clip_drawn_twice_counts_twice_in_mean_and_median(case: Case) -> None:
    confidence, _, _, counts = case
    assume(sum(counts))
    values, listed = np.array(confidence), expanded(confidence, counts)
    assert drawn(mean_of(values), counts) == pytest.approx(fmean(listed))
    assert drawn(median_of(values), counts) == pytest.approx(median(listed))


@given(cases())
def test_the_mean_over_classes_weighs_each_class_the_same(case: Case) -> None:
    _, right, classes, counts = case
    assume(sum(counts))
    listed = list(zip(expanded(right, counts), expanded(classes, counts), strict=True))
    each = [fmean(r for r, c in listed if c == wanted) for wanted in {c for _, c in listed}]
    found = drawn(class_mean_of(np.array(right), np.array(classes)), counts)
    assert found == pytest.approx(fmean(each))


@given(cases())
def test_the_calibration_error_is_the_gap_of_each_bin_weighed_by_its_clips(case: Case) -> None:
    confidence, right, _, counts = case
    assume(sum(counts))
    listed = list(zip(expanded(confidence, counts), expanded(right, counts), strict=True))
    expected = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        held = [(c, r) for c, r in listed if low < c <= high or (number == 0 and c == 0)]
        if held:
            gap = abs(fmean(r for _, r in held) - fmean(c for c, _ in held))
            expected += gap * len(held) / len(listed)
    found = drawn(calibration_error_of(np.array(confidence), np.array(right)), counts)
    assert found == pytest.approx(expected)
    assert 0 <= found <= 1


@given(cases(most=4))
def test_the_risk_area_is_the_mean_over_all_orders_of_equal_confidences(case: Case) -> None:
    confidence, right, _, counts = case
    listed = list(zip(expanded(confidence, counts), expanded(right, counts), strict=True))
    assume(0 < len(listed) <= 6)
    areas = []
    for order in permutations(listed):
        if any(a[0] < b[0] for a, b in pairwise(order)):
            continue
        wrong = np.cumsum([not r for _, r in order])
        areas.append(fmean(wrong / np.arange(1, len(order) + 1)))
    found = drawn(risk_area_of(np.array(confidence), np.array(right)), counts)
    assert found == pytest.approx(fmean(areas))


@given(cases())
def test_the_risk_curve_ends_at_the_share_of_wrong_answers(case: Case) -> None:
    confidence, right, _, _ = case
    coverage, risk = risk_coverage(np.array(confidence), np.array(right))
    assert coverage[-1] == 1.0
    assert risk[-1] == pytest.approx(1 - fmean(right))
    assert len(coverage) == len(set(confidence))
    assert (np.diff(coverage) > 0).all()


@given(cases(), st.integers(0, 1000), st.booleans())
def test_an_interval_holds_its_number(case: Case, seed: int, by_group: bool) -> None:
    confidence, right, classes, _ = case
    counts_BN = draw_counts(len(right), groups=classes if by_group else None, repeats=50, seed=seed)
    for statistic in (
        mean_of(np.array(right)),
        median_of(np.array(confidence)),
        class_mean_of(np.array(right), np.array(classes)),
        calibration_error_of(np.array(confidence), np.array(right)),
        risk_area_of(np.array(confidence), np.array(right)),
    ):
        found = estimate(statistic, counts_BN)
        assert found.low <= found.value <= found.high
        assert found.value == value_of(statistic, len(right))


@given(cases())
def test_a_model_is_no_better_than_itself(case: Case) -> None:
    right = np.array(case[1])
    found = paired_difference(mean_of(right), mean_of(right), draw_counts(len(right), repeats=20))
    assert (found.low, found.value, found.high) == (0.0, 0.0, 0.0)


@given(cases())
def test_clips_that_do_not_count_change_nothing(case: Case) -> None:
    confidence, right, classes, counts = case
    kept = np.array(classes) != 0
    assume((np.array(counts) * kept).sum())
    few = [(np.array(values)[kept]) for values in (confidence, right, classes)]
    few_counts = np.array(counts)[kept].tolist()
    everything = np.array(confidence), np.array(right), np.array(classes)
    for build in (
        lambda c, r, k, m: mean_of(r, m),
        lambda c, r, k, m: median_of(c, m),
        lambda c, r, k, m: class_mean_of(r, k, m),
        lambda c, r, k, m: calibration_error_of(c, r, m),
        lambda c, r, k, m: risk_area_of(c, r, m),
    ):
        assert drawn(build(*everything, kept), counts) == pytest.approx(
            drawn(build(*few, None), few_counts)
        )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.integers(0, 99))
def test_a_group_is_drawn_whole(groups: list[int], seed: int) -> None:
    counts_BN = draw_counts(len(groups), groups=groups, repeats=30, seed=seed)
    for group in set(groups):
        of_group = counts_BN[:, np.array(groups) == group]
        assert (of_group == of_group[:, :1]).all()
    firsts = [groups.index(group) for group in set(groups)]
    assert (counts_BN[:, firsts].sum(axis=1) == len(firsts)).all()


def test_nothing_that_counts_is_not_a_number_rather_than_nought() -> None:
    nobody = np.zeros(3, bool)
    values = np.array([0.1, 0.2, 0.3])
    for statistic in (
        mean_of(values, nobody),
        median_of(values, nobody),
        class_mean_of(values, np.arange(3), nobody),
        calibration_error_of(values, nobody, nobody),
        risk_area_of(values, nobody, nobody),
    ):
        found = estimate(statistic, draw_counts(3, repeats=5))
        assert math.isnan(found.value)
        assert found.record() == {"value": None, "low": None, "high": None}
