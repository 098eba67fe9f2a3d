"""What the decoding modes promise on any tree and any scores (method.md, section 2)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, get_args

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.bundle import LEVELS, DecodingMode
from geotag.places.hierarchy import build_hierarchy, decode
from tests import reference
from tests.tolerances import PROBABILITY

if TYPE_CHECKING:
    from engines.bundle import Level
    from geotag.places.hierarchy import Hierarchy

    Labels = dict[Level, np.ndarray]
    Case = tuple[Hierarchy, dict[Level, np.ndarray], np.random.Generator]

MODES = get_args(DecodingMode)


@st.composite
def trees(draw: st.DrawFn) -> Hierarchy:
    """Up to 30 cities; names of states repeat across countries."""
    continents = draw(st.integers(1, 4))
    countries = draw(st.lists(st.integers(0, continents - 1), min_size=1, max_size=6))
    states = draw(st.lists(st.integers(0, len(countries) - 1), min_size=1, max_size=10))
    cities = draw(st.lists(st.integers(0, len(states) - 1), min_size=1, max_size=30))
    rows = [
        {
            "city": f"city {number}",
            "state": f"state {state % 3}",
            "country": f"country {states[state]}",
            "continent": f"continent {countries[states[state]]}",
            "lat_deg": "0",
            "lon_deg": "0",
        }
        for number, state in enumerate(cities)
    ]
    return build_hierarchy(rows, source="drawn")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A tree and 40 rows of scores for it."""
    hierarchy = draw(trees())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.1, 1.0, 5.0, 50.0]))
    scores = {level: spread * rng.standard_normal((40, hierarchy.size(level))) for level in LEVELS}
    return hierarchy, scores, rng


def accuracies(hierarchy: Hierarchy, labels: Labels, truth: np.ndarray) -> list[float]:
    """Top-1 from city to continent; `truth` is the city of each clip."""
    return [float((labels[level] == hierarchy.ancestors[level][truth]).mean()) for level in LEVELS]


@given(cases())
def test_continents_do_not_change_from_without_to_independent(case: Case) -> None:
    hierarchy, scores, _ = case
    flat, product = (decode(scores, hierarchy, mode) for mode in ("without", "independent"))
    np.testing.assert_array_equal(flat.labels["continent"], product.labels["continent"])
    np.testing.assert_allclose(
        flat.probs["continent"], product.probs["continent"], atol=PROBABILITY
    )


@given(cases())
def test_traced_answers_get_no_worse_from_city_to_continent(case: Case) -> None:
    hierarchy, scores, rng = case
    truth = rng.integers(0, hierarchy.size("city"), 40)
    for mode in ("codependent", "trace_only"):
        rising = accuracies(hierarchy, decode(scores, hierarchy, mode).labels, truth)
        assert all(fine <= coarse for fine, coarse in pairwise(rising))


@given(cases())
def test_cities_are_the_same_in_independent_codependent_and_marginal(case: Case) -> None:
    hierarchy, scores, _ = case
    independent, codependent, marginal = (
        decode(scores, hierarchy, mode).labels["city"]
        for mode in ("independent", "codependent", "marginal")
    )
    np.testing.assert_array_equal(independent, codependent)
    np.testing.assert_array_equal(independent, marginal)


@given(cases())
def test_traced_answers_follow_the_tree(case: Case) -> None:
    hierarchy, scores, _ = case
    for mode in ("codependent", "trace_only"):
        labels = decode(scores, hierarchy, mode).labels
        for fine, coarse in pairwise(LEVELS):
            np.testing.assert_array_equal(hierarchy.parents[fine][labels[fine]], labels[coarse])


@given(cases())
def test_probabilities_of_every_mode_sum_to_one(case: Case) -> None:
    hierarchy, scores, _ = case
    for mode in MODES:
        for level, probs in decode(scores, hierarchy, mode).probs.items():
            assert probs.shape == (40, hierarchy.size(level))
            np.testing.assert_allclose(probs.sum(axis=1), 1, atol=PROBABILITY)


@given(cases())
def test_marginals_nest(case: Case) -> None:
    hierarchy, scores, _ = case
    probs = decode(scores, hierarchy, "marginal").probs
    for fine, coarse in pairwise(LEVELS):
        for parent in range(hierarchy.size(coarse)):
            children = probs[fine][:, hierarchy.parents[fine] == parent]
            np.testing.assert_allclose(
                children.sum(axis=1), probs[coarse][:, parent], atol=PROBABILITY
            )


@given(cases())
@settings(max_examples=25)
def test_city_probabilities_are_the_product_along_the_path(case: Case) -> None:
    hierarchy, scores, _ = case
    flat = {level: np.exp(values) for level, values in scores.items() if np.abs(values).max() < 30}
    if len(flat) < len(LEVELS):
        return  # the textbook formula overflows where ours does not
    product = np.ones((40, hierarchy.size("city")))
    for level in LEVELS:
        softmax = flat[level] / flat[level].sum(axis=1, keepdims=True)
        product *= softmax[:, hierarchy.ancestors[level]]
    found = decode(scores, hierarchy, "independent").probs["city"]
    np.testing.assert_allclose(
        found, product / product.sum(axis=1, keepdims=True), atol=PROBABILITY
    )


@given(cases(), st.floats(-50, 50))
def test_adding_a_constant_to_the_logits_changes_nothing(case: Case, constant: float) -> None:
    hierarchy, scores, _ = case
    moved = {level: values + constant for level, values in scores.items()}
    for mode in MODES:
        before, after = (decode(values, hierarchy, mode).probs for values in (scores, moved))
        for level in LEVELS:
            np.testing.assert_allclose(before[level], after[level], atol=PROBABILITY)


@st.composite
def paths(draw: st.DrawFn) -> list[tuple[str, str, str, str]]:
    """City, state, country, continent of up to 12 cities, in any order; names repeat."""
    steps = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
    return [
        (f"city {number}", f"state {state}", f"country {country}", f"continent {continent}")
        for number, (state, country, continent) in enumerate(
            draw(st.lists(steps, min_size=1, max_size=12))
        )
    ]


@given(paths(), st.data())
def test_every_mode_is_what_the_formulas_say(
    cities: list[tuple[str, str, str, str]], data: st.DataObject
) -> None:
    sizes, above = reference.number_places(cities)
    columns = (*LEVELS, "lat_deg", "lon_deg")
    rows = [dict(zip(columns, (*path, "0", "0"), strict=True)) for path in cities]
    hierarchy = build_hierarchy(rows, source="drawn")
    drawn = [
        data.draw(st.lists(st.integers(-60, 60), min_size=sizes[level], max_size=sizes[level]))
        for level in LEVELS
    ]
    scores = [np.array(values) / 4 for values in drawn]
    logits = {level: values[None] for level, values in zip(LEVELS, scores, strict=True)}
    for mode in MODES:
        wanted = reference.decode(scores, above, mode)
        found = decode(logits, hierarchy, mode)
        city = int(found.labels["city"][0])
        assert wanted[0][city] >= wanted[0].max() * (1 - PROBABILITY)
        for depth, level in enumerate(LEVELS):
            np.testing.assert_array_equal(hierarchy.ancestors[level], above[:, depth])
            label = int(found.labels[level][0])
            if mode in ("codependent", "trace_only"):
                assert label == above[city, depth]
                continue
            assert wanted[depth][label] >= wanted[depth].max() * (1 - PROBABILITY)
            np.testing.assert_allclose(found.probs[level][0], wanted[depth], atol=PROBABILITY)


@given(cases(), st.floats(0.2, 5))
def test_a_temperature_divides_the_scores_of_its_level(case: Case, temperature: float) -> None:
    hierarchy, scores, _ = case
    divided = {**scores, "state": scores["state"] / temperature}
    for mode in MODES:
        found = decode(scores, hierarchy, mode, temperatures={"state": temperature}).probs
        wanted = decode(divided, hierarchy, mode).probs
        for level in LEVELS:
            np.testing.assert_allclose(found[level], wanted[level], atol=PROBABILITY)
