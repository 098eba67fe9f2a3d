import math
from dataclasses import replace

import numpy as np
import pytest

from calibration.estimates import draw_counts, value_of
from tests.clip_datasets import tree
from train.evaluation.metrics import (
    UNKNOWN,
    Predictions,
    city_macro,
    compare_top1,
    distance_statistics,
    geoscores,
    join,
    judge,
    level_statistics,
    ranks,
    scene_statistic,
)

TREE = tree()
LEVELS = ("city", "state", "country", "continent")
PARIS, LYON, BERLIN, TOKYO = range(4)


def predictions_of(answers: list[int], cities: list[int], **changes: object) -> Predictions:
    """All four classifiers agree on the answer, each with odds of e^3 to one."""
    logits = {}
    for level in LEVELS:
        logits[level] = np.zeros((len(answers), TREE.size(level)), np.float32)
        logits[level][np.arange(len(answers)), TREE.ancestors[level][answers]] = 3.0
    names = tuple(f"clip {number}" for number in range(len(cities)))
    places = TREE.places["city"]
    made = Predictions(
        logits=logits,
        labels={level: TREE.ancestors[level][cities] for level in LEVELS},
        names=names,
        groups=names,
        cities=np.array(cities),
        truths_deg=np.array([(places[city].lat_deg, places[city].lon_deg) for city in cities]),
        measured=np.zeros(len(cities), bool),
    )
    return replace(made, **changes)


def numbers(statistics: dict, count: int) -> dict[str, float]:
    return {name: value_of(statistic, count) for name, statistic in statistics.items()}


def test_accuracy_grows_from_city_to_continent_by_hand() -> None:
    # Right; the right country; the right continent; nothing right.
    found = judge(
        predictions_of([PARIS, PARIS, PARIS, PARIS], [PARIS, LYON, BERLIN, TOKYO]), TREE, "marginal"
    )
    shares = [value_of(level_statistics(found, level)["top1"], 4) for level in LEVELS]
    assert shares == [0.25, 0.25, 0.5, 0.75]


def test_the_mean_of_cities_gives_a_rare_city_the_weight_of_a_frequent_one() -> None:
    predictions = predictions_of([PARIS] * 10, [PARIS] * 9 + [TOKYO])
    found = judge(predictions, TREE, "without")
    assert value_of(level_statistics(found, "city")["top1"], 10) == 0.9
    assert value_of(city_macro(found, predictions.cities), 10) == 0.5


def test_negative_log_likelihood_and_brier_score_by_hand() -> None:
    found = judge(predictions_of([PARIS, PARIS], [PARIS, TOKYO]), TREE, "without")
    top, rest = math.exp(3) / (math.exp(3) + 3), 1 / (math.exp(3) + 3)
    metrics = numbers(level_statistics(found, "city"), 2)
    assert metrics["nll"] == pytest.approx(-(math.log(top) + math.log(rest)) / 2)
    right = (1 - top) ** 2 + 3 * rest**2
    wrong = top**2 + (1 - rest) ** 2 + 2 * rest**2
    assert metrics["brier"] == pytest.approx((right + wrong) / 2)
    assert metrics["ece"] == pytest.approx(abs(0.5 - top))
    assert metrics["aurc"] == pytest.approx(0.5)  # equally sure: all orders are as likely


def test_five_of_six_continents_are_not_worth_a_number() -> None:
    found = judge(predictions_of([PARIS], [PARIS]), TREE, "marginal")
    assert "top5" not in level_statistics(found, "continent")
    assert "top5" in level_statistics(found, "country")


def test_ranks_count_the_classes_before_the_true_one() -> None:
    scores = np.array([[0.1, 0.5, 0.4], [0.1, 0.5, 0.4], [0.3, 0.3, 0.3]])
    assert ranks(scores, np.array([1, 0, 2])).tolist() == [0, 2, 2]


def test_distances_are_those_of_an_atlas() -> None:
    found = judge(predictions_of([PARIS, LYON, TOKYO], [PARIS, PARIS, PARIS]), TREE, "marginal")
    # Paris to Lyon 392 km, Paris to Tokyo 9,713 km (great circles between the city centres).
    assert found.distance_km == pytest.approx([0, 392, 9713], abs=3)
    metrics = numbers(distance_statistics(found), 3)
    assert metrics["median_km"] == pytest.approx(392, abs=2)
    assert metrics["within_25_km"] == pytest.approx(1 / 3)
    assert metrics["within_750_km"] == metrics["within_2500_km"] == pytest.approx(2 / 3)
    scores = [5000, 5000 * math.exp(-392 / 1492.7), 5000 * math.exp(-9713 / 1492.7)]
    assert metrics["geoscore"] == pytest.approx(sum(scores) / 3, rel=2e-3)


def test_a_guess_at_the_spot_scores_five_thousand_and_further_ones_less() -> None:
    scores = geoscores(np.array([0.0, 100.0, 1492.7, 20_000.0]))
    assert scores[0] == 5000.0
    assert scores[2] == pytest.approx(5000 / math.e)
    assert (np.diff(scores) < 0).all()


def test_a_measured_point_takes_the_place_of_the_citys() -> None:
    versailles = np.array([[48.8049, 2.1204]])  # 18 km from the middle of Paris
    found = judge(
        predictions_of([PARIS], [PARIS], truths_deg=versailles, measured=np.ones(1, bool)),
        TREE,
        "marginal",
    )
    assert found.distance_km[0] == pytest.approx(17.6, abs=0.5)


def test_an_unknown_city_counts_where_its_country_is_known_and_nowhere_else() -> None:
    predictions = predictions_of([PARIS, PARIS, PARIS], [PARIS, LYON, BERLIN])
    labels = {level: predictions.labels[level].copy() for level in LEVELS}
    labels["city"][1] = labels["state"][1] = UNKNOWN  # Lyon is not in the model's tree
    for level in LEVELS:
        labels[level][2] = UNKNOWN  # nor is anything of Berlin
    found = judge(replace(predictions, labels=labels), TREE, "marginal")
    tops = {level: value_of(level_statistics(found, level)["top1"], 3) for level in LEVELS}
    assert tops == {"city": 1.0, "state": 1.0, "country": 1.0, "continent": 1.0}
    assert [int(found.counted[level].sum()) for level in LEVELS] == [1, 1, 2, 2]
    assert value_of(distance_statistics(found)["mean_km"], 3) == 0.0
    unknown = np.array([False, True, True])
    assert value_of(distance_statistics(found, unknown)["mean_km"], 3) > 300


def test_a_city_elsewhere_than_its_country_is_a_conflict_in_the_modes_that_allow_it() -> None:
    predictions = predictions_of([PARIS, PARIS], [PARIS, PARIS])
    predictions.logits["country"][1] = [0, 0, 9]  # Japan
    predictions.logits["continent"][1] = [0, 9]  # Asia
    assert judge(predictions, TREE, "without").conflicts.tolist() == [False, True]
    for mode in ("codependent", "trace_only", "marginal"):
        assert not judge(predictions, TREE, mode).conflicts.any()


def test_many_clips_are_judged_as_few_are() -> None:
    rng = np.random.default_rng(0)
    answers, cities = rng.integers(4, size=1500).tolist(), rng.integers(4, size=1500).tolist()
    found = judge(predictions_of(answers, cities), TREE, "codependent")
    assert np.array_equal(found.answers["city"], answers)
    assert np.array_equal(found.right["city"], np.array(answers) == np.array(cities))


def test_two_models_are_compared_clip_by_clip() -> None:
    cities = [PARIS, LYON, BERLIN, TOKYO] * 50
    ours = judge(predictions_of(cities, cities), TREE, "marginal")
    theirs = judge(predictions_of([PARIS] * 200, cities), TREE, "marginal")
    found = compare_top1(ours, theirs, draw_counts(200))
    assert found["city"].value == 0.75
    assert found["continent"].value == 0.25
    assert found["continent"].low > 0
    with pytest.raises(ValueError, match="same clips"):
        compare_top1(ours, judge(predictions_of([0], [0]), TREE, "marginal"), draw_counts(200))


def test_scenes_are_counted_where_somebody_labelled_them() -> None:
    predictions = predictions_of([PARIS] * 3, [PARIS] * 3)
    assert scene_statistic(predictions) is None
    logits = np.eye(3, dtype=np.float32)
    labelled = replace(predictions, scene_logits=logits, scene_labels=np.array([0, UNKNOWN, 0]))
    assert value_of(scene_statistic(labelled), 3) == 0.5
    nobody = replace(labelled, scene_labels=np.full(3, UNKNOWN))
    assert scene_statistic(nobody) is None


def test_joined_sets_keep_their_order() -> None:
    both = join([predictions_of([PARIS], [PARIS]), predictions_of([TOKYO], [LYON])])
    assert len(both) == 2
    assert both.cities.tolist() == [PARIS, LYON]
    assert both.logits["city"].argmax(axis=1).tolist() == [PARIS, TOKYO]
    assert both.scene_logits is None
