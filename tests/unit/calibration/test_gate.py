from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.errors import CalibrationError, GateError
from calibration.estimates import draw_counts
from calibration.gate import Verdict, judge, refuse
from engines.bundle import LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from engines.bundle import Level, Precision

    Answers = dict[Level, NDArray[np.intp]]


def answers(cities: Sequence[int] | NDArray[np.intp]) -> Answers:
    """Of all levels: three cities make a state, and so on."""
    return {level: np.asarray(cities) // 3**depth for depth, level in enumerate(LEVELS)}


def changed(cities: NDArray[np.intp], *clips: int) -> Answers:
    """The same, but for some clips with a city of another continent."""
    other = cities.copy()
    other[list(clips)] += 1000
    return answers(other)


CITIES = np.arange(200) % 50


# --- with labels ---


def test_the_drop_and_its_interval_are_those_of_a_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 50, 120)
    reference = np.where(rng.random(120) < 0.8, truth, truth + 1)
    found = np.where(rng.random(120) < 0.1, truth + 2, reference)
    verdict = judge(answers(found), answers(reference), answers(truth), seed=3)
    assert verdict.drop is not None
    # Clip by clip: 1 where float32 alone is right, -1 where the smaller model alone is.
    lost = (reference == truth).astype(int) - (found == truth).astype(int)
    drops = sorted(
        sum(int(count) * int(each) for count, each in zip(counts, lost, strict=True)) / 120
        for counts in draw_counts(120, seed=3)
    )
    assert verdict.drop.value == pytest.approx(lost.mean())
    assert verdict.drop.low == pytest.approx(np.percentile(drops, 2.5))
    assert verdict.drop.high == pytest.approx(np.percentile(drops, 97.5))
    assert verdict.clips == 120
    assert verdict.agreement["city"] == pytest.approx((found == reference).mean())


def test_the_interval_is_that_of_paired_shares() -> None:
    # Of 1000 clips float32 alone is right about 30, the smaller model alone about 10: a drop of
    # 0.02 with a standard error of sqrt((0.04 - 0.02^2) / 1000) = 0.00629.
    truth = np.zeros(1000, np.intp)
    reference, found = truth.copy(), truth.copy()
    found[:30], reference[30:40] = 7, 7
    verdict = judge(answers(found), answers(reference), answers(truth))
    assert verdict.drop is not None
    assert verdict.drop.value == pytest.approx(0.02)
    assert verdict.drop.low == pytest.approx(0.02 - 1.96 * 0.00629, abs=0.002)
    assert verdict.drop.high == pytest.approx(0.02 + 1.96 * 0.00629, abs=0.002)
    assert verdict.accuracy is not None
    assert verdict.reference_accuracy is not None
    assert verdict.accuracy["city"].value == pytest.approx(0.97)
    assert verdict.reference_accuracy["city"].value == pytest.approx(0.99)
    assert verdict.agreement["city"] == pytest.approx(0.96)


@pytest.mark.parametrize(("lost", "passes"), [(0, True), (1, True), (2, False)])
def test_a_drop_of_just_what_is_allowed_passes(lost: int, passes: bool) -> None:
    truth = answers(CITIES)  # 200 clips: each is half a point
    verdict = judge(changed(CITIES, *range(lost)), truth, truth, max_drop=0.005)
    assert verdict.passed is passes
    if not passes:
        assert verdict.reason is not None
        assert "right about the city 1.00 points less often than float32" in verdict.reason
        assert "200 clips" in verdict.reason
        assert verdict.reason.endswith("allowed is 0.50")


def test_what_few_clips_leave_open_is_told() -> None:
    truth = answers(CITIES)
    passed = judge(changed(CITIES, 0), truth, truth, max_drop=0.005)
    assert passed.passed
    assert passed.doubt is not None
    assert passed.doubt.startswith("200 clips leave a loss of up to 1.50 points")
    assert judge(truth, truth, truth).doubt is None


def test_clips_that_were_lost_and_won_cancel_out() -> None:
    reference = changed(CITIES, *range(10))
    found = changed(CITIES, *range(10, 20))
    verdict = judge(found, reference, answers(CITIES))
    assert verdict.drop is not None
    assert verdict.drop.value == 0
    assert verdict.drop.low < 0 < verdict.drop.high
    assert verdict.passed
    assert verdict.agreement["city"] == pytest.approx(0.9)  # with labels this refuses nothing


def test_a_model_that_got_better_passes() -> None:
    verdict = judge(answers(CITIES), changed(CITIES, *range(20)), answers(CITIES), max_drop=0.0)
    assert verdict.passed
    assert verdict.drop is not None
    assert verdict.drop.value == pytest.approx(-0.1)


def test_clips_whose_city_nobody_knows_do_not_count() -> None:
    truth = answers(CITIES)
    unknown = {level: np.where(np.arange(200) < 100, -1, truth[level]) for level in LEVELS}
    verdict = judge(changed(CITIES, *range(50)), truth, unknown)
    assert verdict.passed
    assert verdict.drop is not None
    assert (verdict.drop.value, verdict.drop.high) == (0.0, 0.0)
    assert verdict.agreement["city"] == 0.75  # all of them can be compared
    one_of_half = judge(changed(CITIES, 150), truth, unknown)
    assert one_of_half.drop is not None
    assert one_of_half.drop.value == pytest.approx(0.01)
    assert "100 clips" in str(one_of_half.reason)


def test_clips_of_one_drive_leave_more_open() -> None:
    truth = answers(CITIES)
    found = changed(CITIES, *range(20))  # all that changed is the first drive
    alone = judge(found, truth, truth, max_drop=1.0).drop
    drives = judge(found, truth, truth, max_drop=1.0, groups=[at // 20 for at in range(200)]).drop
    assert alone is not None
    assert drives is not None
    assert alone.value == drives.value == pytest.approx(0.1)
    assert drives.high > alone.high + 0.05


def test_the_same_seed_gives_the_same_numbers() -> None:
    truth = answers(CITIES)
    first, again, other = (
        judge(changed(CITIES, 1, 2, 3), truth, truth, seed=seed).record() for seed in (0, 0, 5)
    )
    assert first == again
    assert first["city_drop"] == other["city_drop"]


# --- without labels ---


@pytest.mark.parametrize("truth", [None, answers(np.full(200, -3000))], ids=["none", "unknown"])
@pytest.mark.parametrize(("differ", "passes"), [(0, True), (2, True), (3, False)])
def test_without_labels_one_clip_in_a_hundred_may_get_another_city(
    differ: int, passes: bool, truth: Answers | None
) -> None:
    verdict = judge(changed(CITIES, *range(differ)), answers(CITIES), truth)
    assert verdict.passed is passes
    assert (verdict.accuracy, verdict.reference_accuracy, verdict.drop) == (None, None, None)
    if not passes:
        assert verdict.reason == (
            "it answers another city than float32 for 1.50% of 200 clips; allowed is 1.00%"
        )


def test_another_state_alone_refuses_nothing() -> None:
    reference = answers(CITIES)
    verdict = judge({**reference, "state": reference["state"] + 1}, reference, None)
    assert verdict.passed
    assert verdict.agreement == {"city": 1.0, "state": 0.0, "country": 1.0, "continent": 1.0}


def test_no_clip_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="not one held-out clip"):
        judge(answers([]), answers([]), None)


# --- what is made of it ---


def test_a_record_is_plain_numbers() -> None:
    truth = answers(CITIES)
    record = judge(changed(CITIES, *range(3)), truth, truth).record()
    assert json.loads(json.dumps(record)) == record
    assert record["clips"] == 200
    assert record["city_top1"] == record["agreement_continent"] == 0.985
    assert record["city_drop"] == 0.015
    assert record["city_drop_low"] <= 0.015 <= record["city_drop_high"]
    assert set(judge(truth, truth, None).record()) == {
        "clips",
        *(f"agreement_{level}" for level in LEVELS),
    }


def _verdicts(*lost: int) -> dict[Precision, Verdict]:
    truth = answers(CITIES)
    names: tuple[Precision, ...] = ("fp16", "int8")
    return {
        name: judge(changed(CITIES, *range(count)), truth, truth)
        for name, count in zip(names, lost, strict=True)
    }


def test_what_passed_is_not_refused() -> None:
    refuse(_verdicts(0, 1), doing="exporting")


def test_a_refusal_names_the_precision_the_loss_and_what_to_try() -> None:
    layers = [f"blocks.{number}.fc2" for number in range(5)]
    with pytest.raises(GateError) as caught:
        refuse(_verdicts(0, 20), sensitive=layers, doing="exporting runs/mine")
    text = str(caught.value)
    assert text.startswith("exporting runs/mine: the smaller model lost too much, so nothing was")
    assert "int8: it is right about the city 10.00 points less often than float32" in text
    assert "fp16" not in text
    assert "--int8-skip blocks.0.fc2 --int8-skip blocks.1.fc2 --int8-skip blocks.2.fc2)" in text
    assert "blocks.3" not in text
    assert "--max-drop" in text
    assert text.endswith("--force.")


def test_a_refusal_without_layers_says_nothing_of_layers() -> None:
    with pytest.raises(GateError) as caught:
        refuse(_verdicts(20, 20), doing="exporting")
    assert "--int8-skip" not in str(caught.value)
    assert "fp16: it is right" in str(caught.value)
    assert "int8: it is right" in str(caught.value)
