import numpy as np
import pytest

from geotag.places.hierarchy import build_hierarchy
from train.errors import TrainError
from train.evaluation.calibrate import calibrate, claim_threshold
from train.evaluation.metrics import UNKNOWN, Predictions

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
    names = tuple(map(str, range(len(cities))))
    return Predictions(
        logits=logits,
        labels={level: TREE.ancestors[level][cities] for level in LEVELS},
        names=names,
        groups=names,
        cities=cities,
        truths_deg=np.zeros((len(cities), 2)),
        measured=np.zeros(len(cities), bool),
    )


def seven_in_ten(count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that say 0.7 and are right seven times in ten, and the true cities."""
    rng = np.random.default_rng(0)
    cities = rng.integers(3, size=count)
    logits = np.log(np.full((count, 3), 0.15))
    logits[np.arange(count), cities] = np.log(0.7)
    wrong = rng.random(count) < 0.3
    logits[wrong] = np.roll(logits[wrong], 1, axis=1)
    return logits, cities


def test_temperature_undoes_a_scale_on_the_logits() -> None:
    found = calibrate(predictions_of(*seven_in_ten(), scale=3.0), TREE)
    assert found["without"]["city"]["temperature"] == pytest.approx(3.0, rel=0.1)


def test_clips_of_unknown_cities_do_not_move_the_temperature() -> None:
    logits, cities = seven_in_ten(500)
    known = predictions_of(logits, cities, scale=3.0)
    more = predictions_of(np.concatenate([logits, logits[::-1]]), np.tile(cities, 2), scale=3.0)
    for level in LEVELS:
        more.labels[level][len(cities) :] = UNKNOWN
    assert calibrate(more, TREE) == calibrate(known, TREE)


def test_a_model_that_knows_none_of_the_cities_cannot_be_calibrated() -> None:
    made = predictions_of(*seven_in_ten(10))
    made.labels["city"][:] = UNKNOWN
    with pytest.raises(TrainError, match="10 clips: the model knows none of their cities"):
        calibrate(made, TREE)


def test_the_threshold_is_the_first_from_which_claims_are_mostly_right() -> None:
    confidence = np.repeat([0.35, 0.55, 0.75, 0.95], 100)
    right = np.concatenate([np.arange(100) < share for share in (20, 60, 95, 100)])
    # From 0.55 up: 255 of 300 right; from 0.75 up: 195 of 200.
    assert claim_threshold(confidence, right) == pytest.approx(0.6)


def test_a_hopeless_level_is_claimed_only_at_the_top() -> None:
    assert claim_threshold(np.linspace(0.3, 1.0, 50), np.zeros(50, bool)) == pytest.approx(0.95)
