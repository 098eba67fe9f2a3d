"""What the numbers promise on any tree, any scores and any truth."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.estimates import value_of
from engines.bundle import LEVELS, DecodingMode
from tests.clip_datasets import tree
from train.evaluation.metrics import (
    Predictions,
    distance_statistics,
    judge,
    level_statistics,
)
from train.evaluation.predict import fuse, fuse_drives

TREE = tree()
MODES = get_args(DecodingMode)


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    """Up to 20 clips with random scores, some drives of several clips."""
    count = draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.0, 1.0, 8.0]))
    cities = rng.integers(TREE.size("city"), size=count)
    drives = rng.integers(4, size=count)
    places = TREE.places["city"]
    return Predictions(
        logits={
            level: (spread * rng.standard_normal((count, TREE.size(level)))).astype(np.float32)
            for level in LEVELS
        },
        labels={level: TREE.ancestors[level][cities] for level in LEVELS},
        names=tuple(f"clip {number}" for number in range(count)),
        groups=tuple(f"drive {number}" for number in drives),
        cities=cities,
        truths_deg=np.array([(places[city].lat_deg, places[city].lon_deg) for city in cities]),
        measured=np.zeros(count, bool),
    )


@given(predictions(), st.sampled_from(MODES))
def test_every_number_lies_where_it_must(made: Predictions, mode: DecodingMode) -> None:
    outcomes = judge(made, TREE, mode)
    for level in LEVELS:
        found = {
            name: value_of(statistic, len(made))
            for name, statistic in level_statistics(outcomes, level).items()
        }
        assert found.get("top5", 1.0) >= found["top1"]
        assert all(0 <= found[name] <= 1 for name in ("top1", "ece", "aurc"))
        assert 0 <= found["brier"] <= 2 + 1e-9
        assert found["nll"] >= 0
    found = {
        name: value_of(statistic, len(made))
        for name, statistic in distance_statistics(outcomes).items()
    }
    assert 0 <= found["geoscore"] <= 5000
    assert found["within_25_km"] <= found["within_200_km"] <= found["within_750_km"]
    right = value_of(level_statistics(outcomes, "city")["top1"], len(made))
    assert found["within_25_km"] == right  # no two of these cities are so near


@given(predictions())
def test_modes_without_conflicts_have_none_and_are_right_more_often_further_up(
    made: Predictions,
) -> None:
    for mode in ("codependent", "trace_only"):
        outcomes = judge(made, TREE, mode)
        assert not outcomes.conflicts.any()
        tops = [value_of(level_statistics(outcomes, level)["top1"], len(made)) for level in LEVELS]
        assert tops == sorted(tops)


@given(predictions(), st.sampled_from(MODES))
def test_a_clip_fused_with_itself_gives_its_own_answer(
    made: Predictions, mode: DecodingMode
) -> None:
    twice = fuse(made, [[row, row] for row in range(len(made))])
    alone, fused = judge(made, TREE, mode), judge(twice, TREE, mode)
    for level in LEVELS:
        assert fused.confidence[level] == pytest.approx(alone.confidence[level], abs=1e-5)
        assert np.array_equal(twice.labels[level], made.labels[level])


@given(predictions())
def test_drives_are_all_there_and_each_once(made: Predictions) -> None:
    fused = fuse_drives(made)
    assert fused.names == tuple(dict.fromkeys(made.groups))
    for row, drive in enumerate(fused.names):
        of_drive = [
            city for city, group in zip(made.cities, made.groups, strict=True) if group == drive
        ]
        assert max(map(of_drive.count, of_drive)) == of_drive.count(fused.cities[row])
