import math

import numpy as np
import pytest

from calibration.estimates import (
    calibration_error_of,
    draw_counts,
    estimate,
    mean_of,
    paired_difference,
    risk_area_of,
    value_of,
    wilson_interval,
)


def test_wilson_interval_equals_the_published_example() -> None:
    # 81 of 263: 0.2553 to 0.3662 (Newcombe, Statistics in Medicine 1998, table I).
    low, high = wilson_interval(81 / 263, 263)
    assert (low, high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))


def test_wilson_interval_stays_inside_zero_and_one() -> None:
    assert wilson_interval(0.0, 5)[0] == 0.0
    assert wilson_interval(1.0, 5)[1] == 1.0
    assert not math.isnan(wilson_interval(0.5, 1)[0])


def test_the_interval_of_a_share_is_that_of_the_binomial() -> None:
    # 700 of 1000 right: normal approximation 0.7 +- 1.96 sqrt(0.21 / 1000) = 0.6716 to 0.7284.
    right = np.arange(1000) < 700
    found = estimate(mean_of(right), draw_counts(1000, repeats=4000))
    assert found.value == 0.7
    assert found.low == pytest.approx(0.6716, abs=0.003)
    assert found.high == pytest.approx(0.7284, abs=0.003)


def test_clips_of_one_drive_make_the_interval_wider() -> None:
    # 50 drives of 20 clips, each all right or all wrong: there are 50 facts, not 1000.
    right = np.repeat(np.arange(50) < 35, 20)
    drives = np.repeat(np.arange(50), 20).tolist()
    by_clip = estimate(mean_of(right), draw_counts(1000))
    by_drive = estimate(mean_of(right), draw_counts(1000, groups=drives))
    ratio = (by_drive.high - by_drive.low) / (by_clip.high - by_clip.low)
    assert ratio == pytest.approx(math.sqrt(20), rel=0.15)


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.random(2000) < 0.6
    ours = theirs | (rng.random(2000) < 0.05)  # right wherever they are, and now and then more
    counts_BN = draw_counts(2000)
    difference = paired_difference(mean_of(ours), mean_of(theirs), counts_BN)
    assert difference.value == pytest.approx(ours.mean() - theirs.mean())
    assert difference.low > 0
    apart = estimate(mean_of(ours), counts_BN).low - estimate(mean_of(theirs), counts_BN).high
    assert apart < 0


def test_an_honest_predictor_has_hardly_any_calibration_error() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(200_000)
    honest = rng.random(200_000) < confidence
    assert value_of(calibration_error_of(confidence, honest), 200_000) < 0.005
    # One that claims twice the doubt it should: the error is the mean of |p - p / 2| = 1 / 4.
    boastful = rng.random(200_000) < confidence / 2
    found = value_of(calibration_error_of(confidence, boastful), 200_000)
    assert found == pytest.approx(0.25, abs=0.01)


def test_calibration_error_by_hand() -> None:
    # Bin (14/15, 1]: 0.96 and 0.98, one right: |0.5 - 0.97| = 0.47. Bin (7/15, 8/15]: 0.5, right.
    found = value_of(
        calibration_error_of(np.array([0.96, 0.98, 0.5]), np.array([True, False, True])), 3
    )
    assert found == pytest.approx((2 * 0.47 + 0.5) / 3)


def test_risk_area_by_hand() -> None:
    # Right, wrong, right from the surest down: risks 0, 1/2, 1/3.
    confidence, right = np.array([0.9, 0.5, 0.7]), np.array([True, True, False])
    assert value_of(risk_area_of(confidence, right), 3) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)


def test_the_same_seed_draws_the_same_clips() -> None:
    assert np.array_equal(draw_counts(50, seed=3), draw_counts(50, seed=3))
    assert not np.array_equal(draw_counts(50, seed=3), draw_counts(50, seed=4))


def test_a_clip_without_a_group_is_refused() -> None:
    with pytest.raises(ValueError, match="3 clips by 2 groups"):
        draw_counts(3, groups=["a", "b"])
