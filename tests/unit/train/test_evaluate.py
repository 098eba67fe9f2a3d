import math

import numpy as np
import pytest

from geotag.places.hierarchy import build_hierarchy, decode
from train.evaluate import Predictions, calibrate, claim_threshold, conflict_rate, wilson_interval

TREE = build_hierarchy(
    [
        {"city": c, "state": s, "country": n, "continent": k, "lat_deg": "0", "lon_deg": "0"}
        for c, s, n, k in (
            ("a", "sa", "na", "x"),
            ("b", "sb", "na", "x"),
            ("c", "sc", "nc", "y"),
        )
    ],
    source="test",
)
LEVELS = ("city", "state", "country", "continent")


def predictions_of(city_logits: np.ndarray, cities: np.ndarray, scale: float = 1.0) -> Predictions:
    """Coarser levels know nothing: their scores are equal."""
    logits = {level: np.zeros((len(cities), TREE.size(level)), np.float32) for level in LEVELS}
    logits["city"] = (scale * city_logits).astype(np.float32)
    labels = {level: TREE.ancestors[level][cities] for level in LEVELS}
    return Predictions(logits=logits, labels=labels, scene_top1=0.0)


def test_wilson_interval_equals_the_published_example() -> None:
    # 81 of 263: 0.2553 to 0.3662 (Newcombe, Statistics in Medicine 1998, table I).
    low, high = wilson_interval(81 / 263, 263)
    assert (low, high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))


def test_a_city_elsewhere_than_its_country_is_a_conflict() -> None:
    logits = {level: np.zeros((2, TREE.size(level))) for level in LEVELS}
    logits["city"] = np.array([[5.0, 0, 0], [5.0, 0, 0]])
    logits["state"] = np.array([[5.0, 0, 0], [5.0, 0, 0]])
    logits["country"] = np.array([[5.0, 0], [0, 5.0]])
    logits["continent"] = np.array([[5.0, 0], [0, 5.0]])
    assert conflict_rate(decode(logits, TREE, "without"), TREE) == 0.5
    for mode in ("codependent", "trace_only", "marginal"):
        assert conflict_rate(decode(logits, TREE, mode), TREE) == 0.0


def test_temperature_undoes_a_scale_on_the_logits() -> None:
    rng = np.random.default_rng(0)
    cities = rng.integers(3, size=4000)
    logits = np.log(np.full((4000, 3), 0.15))
    logits[np.arange(4000), cities] = np.log(0.7)
    wrong = rng.random(4000) < 0.3  # right seven times in ten: the logits say just that
    logits[wrong] = np.roll(logits[wrong], 1, axis=1)
    found = calibrate(predictions_of(logits, cities, scale=3.0), TREE)
    assert found["without"]["city"]["temperature"] == pytest.approx(3.0, rel=0.1)


def test_the_threshold_is_the_first_from_which_claims_are_mostly_right() -> None:
    confidence = np.repeat([0.35, 0.55, 0.75, 0.95], 100)
    right = np.concatenate([np.arange(100) < share for share in (20, 60, 95, 100)])
    # From 0.55 up: 255 of 300 right; from 0.75 up: 195 of 200.
    assert claim_threshold(confidence, right) == pytest.approx(0.6)


def test_a_hopeless_level_is_claimed_only_at_the_top() -> None:
    assert claim_threshold(np.linspace(0.3, 1.0, 50), np.zeros(50, bool)) == pytest.approx(0.95)


def test_wilson_interval_stays_inside_zero_and_one() -> None:
    assert wilson_interval(0.0, 5)[0] == 0.0
    assert wilson_interval(1.0, 5)[1] == 1.0
    assert not math.isnan(wilson_interval(0.5, 1)[0])
