from __future__ import annotations

import csv
import io
from math import exp
from typing import TYPE_CHECKING

import numpy as np
import pytest

from engines.base import BundleError
from engines.bundle import LEVELS
from geotag.places.hierarchy import build_hierarchy, decode, read_hierarchy
from tests.tolerances import PROBABILITY

if TYPE_CHECKING:
    from pathlib import Path

    from geotag.places.hierarchy import Hierarchy

HEADER = "city,state,country,continent,country_code,state_code,continent_code,lat_deg,lon_deg"
ROWS = (
    "Suva,Central,Fiji,Oceania,FJ,FJ-C,OC,-18.14,178.44",
    "Lomé,Maritime,Togo,Africa,TG,TG-M,AF,6.13,1.22",
    "Sokodé,Central,Togo,Africa,TG,TG-C,AF,8.98,1.13",
    "Blitta,Central,Togo,Africa,TG,TG-C,AF,8.32,0.98",
)
"""Four cities; Fiji and Togo each have a state named Central."""


def tree(*rows: str, header: str = HEADER) -> Hierarchy:
    text = "\n".join((header, *rows))
    return build_hierarchy(csv.DictReader(io.StringIO(text)), source="places.csv")


@pytest.fixture
def four() -> Hierarchy:
    return tree(*ROWS)


def names(hierarchy: Hierarchy, level: str) -> list[str]:
    return [place.name for place in hierarchy.places[level]]  # type: ignore[index]


def test_ids_follow_first_appearance(four: Hierarchy) -> None:
    assert names(four, "city") == ["Suva", "Lomé", "Sokodé", "Blitta"]
    assert names(four, "country") == ["Fiji", "Togo"]
    assert names(four, "continent") == ["Oceania", "Africa"]


def test_states_of_one_name_in_two_countries_are_two_classes(four: Hierarchy) -> None:
    assert names(four, "state") == ["Central", "Maritime", "Central"]
    assert [place.code for place in four.places["state"]] == ["FJ-C", "TG-M", "TG-C"]
    assert four.ancestors["state"].tolist() == [0, 1, 2, 2]


def test_parents_and_ancestors_are_those_of_the_rows(four: Hierarchy) -> None:
    assert four.parents["city"].tolist() == [0, 1, 2, 2]
    assert four.parents["state"].tolist() == [0, 1, 1]
    assert four.parents["country"].tolist() == [0, 1]
    assert four.ancestors["country"].tolist() == [0, 1, 1, 1]
    assert four.ancestors["city"].tolist() == [0, 1, 2, 3]
    assert [place.parent for place in four.places["continent"]] == [-1, -1]


def test_read_from_a_file_keeps_coordinates_and_geonames_ids(tmp_path: Path) -> None:
    path = tmp_path / "places.csv"
    path.write_text(f"{HEADER},geonameid\n{ROWS[0]},2198148\n{ROWS[1]},\n", encoding="utf-8")
    suva, lome = read_hierarchy(path).places["city"]
    assert (suva.lat_deg, suva.lon_deg, suva.geonameid) == (-18.14, 178.44, 2198148)
    assert lome.geonameid is None


def logits(**probs: list[float]) -> dict[str, np.ndarray]:
    """Logits whose softmax is the given probabilities."""
    return {level: np.log(np.array([row])) for level, row in probs.items()}


SCORES = logits(
    city=[0.4, 0.1, 0.2, 0.3],
    state=[0.3, 0.5, 0.2],
    country=[0.4, 0.6],
    continent=[0.25, 0.75],
)


def test_every_mode_agrees_with_a_computation_by_hand(four: Hierarchy) -> None:
    # country: .4 x .25, .6 x .75; state: .3 x .1, .5 x .45, .2 x .45; city: .4 x .03, ...
    country, state = np.array([0.1, 0.45]), np.array([0.03, 0.225, 0.09])
    city = np.array([0.012, 0.0225, 0.018, 0.027])
    found = decode(SCORES, four, "independent")  # type: ignore[arg-type]
    np.testing.assert_allclose(found.probs["country"][0], country / 0.55, atol=PROBABILITY)
    np.testing.assert_allclose(found.probs["state"][0], state / 0.345, atol=PROBABILITY)
    np.testing.assert_allclose(found.probs["city"][0], city / 0.0795, atol=PROBABILITY)
    answers = {
        mode: [int(decode(SCORES, four, mode).labels[level][0]) for level in LEVELS]  # type: ignore[arg-type]
        for mode in ("without", "independent", "codependent", "trace_only", "marginal")
    }
    assert answers == {
        "without": [0, 1, 1, 1],
        "independent": [3, 1, 1, 1],  # Blitta is not in Maritime: levels may disagree
        "codependent": [3, 2, 1, 1],
        "trace_only": [0, 0, 0, 0],
        "marginal": [3, 2, 1, 1],
    }
    sums = decode(SCORES, four, "marginal").probs  # type: ignore[arg-type]
    np.testing.assert_allclose(
        sums["state"][0], np.array([0.012, 0.0225, 0.045]) / 0.0795, atol=PROBABILITY
    )
    np.testing.assert_allclose(sums["continent"][0], np.array([0.012, 0.0675]) / 0.0795)


def test_a_temperature_divides_the_logits_of_its_level_only(four: Hierarchy) -> None:
    plain = decode(SCORES, four, "without")  # type: ignore[arg-type]
    warm = decode(SCORES, four, "without", {"country": 2.0})  # type: ignore[arg-type]
    odds = (0.4 / 0.6) ** 0.5
    np.testing.assert_allclose(warm.probs["country"][0, 0], odds / (1 + odds), atol=PROBABILITY)
    np.testing.assert_array_equal(warm.probs["city"], plain.probs["city"])


def test_large_logits_neither_overflow_nor_vanish(four: Hierarchy) -> None:
    huge = {level: 1e4 * values for level, values in SCORES.items()}
    probs = decode(huge, four, "marginal").probs  # type: ignore[arg-type]
    assert all(np.isfinite(values).all() for values in probs.values())
    np.testing.assert_allclose(probs["city"].sum(axis=1), 1, atol=PROBABILITY)


def test_float32_logits_are_decoded_in_double_precision(four: Hierarchy) -> None:
    scores = {
        "city": np.float32([[30, 0, 0, 0]]),
        **{level: np.zeros((1, four.size(level)), np.float32) for level in LEVELS[1:]},  # type: ignore[arg-type]
    }
    rest = decode(scores, four, "without").probs["city"][0, 1]  # type: ignore[arg-type]
    assert rest == pytest.approx(exp(-30) / (1 + 3 * exp(-30)), rel=1e-12)


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        (HEADER.replace("state,", "", 1), "Suva,Fiji,Oceania,FJ,FJ-C,OC,-18.1,178.4", "'state'"),
        (HEADER, "Suva,,Fiji,Oceania,FJ,FJ-C,OC,-18.1,178.4", "'state'"),
        (HEADER, "Suva,Central,Fiji,Oceania,FJ,FJ-C,OC,nan,178.4", "latitude nan"),
        (HEADER, "Suva,Central,Fiji,Oceania,FJ,FJ-C,OC,-18.1,inf", "longitude inf"),
        (HEADER, "Suva,Central,Fiji,Oceania,FJ,FJ-C,OC,-98.1,178.4", "latitude -98.1"),
        (HEADER, "Suva,Central,Fiji,Oceania,FJ,FJ-C,OC,south,178.4", "'south'"),
        (HEADER, "Suva,Central,Fiji,Oceania", "lat_deg"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(header: str, row: str, said: str) -> None:
    with pytest.raises(BundleError, match=f"places.csv, line 2: .*{said}"):
        tree(row, header=header)


def test_a_city_listed_twice_is_refused() -> None:
    with pytest.raises(BundleError, match="line 3: the city 'Suva' is listed twice"):
        tree(ROWS[0], ROWS[0])


def test_an_empty_tree_is_refused() -> None:
    with pytest.raises(BundleError, match="no places"):
        tree()
