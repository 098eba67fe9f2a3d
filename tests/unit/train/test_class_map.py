import numpy as np

from geotag.places.hierarchy import Hierarchy
from tests.clip_datasets import WORLD, tree
from train.evaluation.class_map import map_classes
from train.evaluation.metrics import UNKNOWN

LEVELS = ("city", "state", "country", "continent")


def names(found: np.ndarray, level: str, model: Hierarchy) -> list[str | None]:
    return [None if row == UNKNOWN else model.places[level][row].name for row in found]


def mapped(given: str, model: str = WORLD) -> dict[str, list[str | None]]:
    """Names of the model's classes for each city of a data set."""
    found = map_classes(tree(given), tree(model))
    return {level: names(found.labels[level], level, tree(model)) for level in LEVELS}


def test_equal_trees_map_every_class_to_itself() -> None:
    found = map_classes(tree(), tree())
    assert found.unknown == ()
    for level in LEVELS:
        assert np.array_equal(found.labels[level], tree().ancestors[level])


def test_a_city_is_found_by_its_id_whatever_it_is_called() -> None:
    found = mapped("Parigi,Isola di Francia,Francia,Europa,,,,48.8,2.3,2988507\n")
    assert {level: found[level] for level in LEVELS} == {
        "city": ["Paris"],
        "state": ["Ile-de-France"],
        "country": ["France"],
        "continent": ["Europe"],
    }


def test_a_city_without_an_id_is_found_by_country_and_name() -> None:
    assert mapped("LYON,Rhône,France,Europe,,,,45.7,4.8,\n")["city"] == ["Lyon"]
    assert mapped("Lyon,Rhône,la France,Europe,,FR,,45.7,4.8,\n")["city"] == ["Lyon"]
    assert mapped("Lyon,Iowa,United States,North America,,US,,41.8,-90.2,\n")["city"] == [None]


def test_names_are_compared_without_accents_and_case() -> None:
    model = "São Paulo,São Paulo,Brazil,South America,BR-SP,BR,SA,-23.55,-46.64,\n"
    assert mapped("sao_paulo,SP,Brazil,South America,,,,-23.5,-46.6,\n", model)["city"] == [
        "São Paulo"
    ]


def test_a_name_that_fits_two_cities_is_told_apart_by_the_state_or_not_at_all() -> None:
    model = (
        "Portland,Oregon,United States,North America,US-OR,US,NA,45.5,-122.7,\n"
        "Portland,Maine,United States,North America,US-ME,US,NA,43.7,-70.3,\n"
    )
    assert mapped("Portland,Maine,United States,North America,,US,,43.7,-70.3,\n", model)[
        "state"
    ] == ["Maine"]
    elsewhere = mapped("Portland,Texas,United States,North America,,US,,27.9,-97.3,\n", model)
    assert elsewhere["city"] == [None]
    assert elsewhere["country"] == ["United States"]


def test_a_city_that_the_model_does_not_know_keeps_what_is_above_it() -> None:
    found = mapped(
        "Marseille,Provence,France,Europe,FR-PAC,FR,EU,43.3,5.4,2995469\n"
        "Vienna,Vienna,Austria,Europe,AT-9,AT,EU,48.2,16.4,2761369\n"
        "Lima,Lima,Peru,South America,PE-LMA,PE,SA,-12.0,-77.0,3936456\n"
    )
    assert found["city"] == [None, None, None]
    assert found["state"] == [None, None, None]
    assert found["country"] == ["France", None, None]
    assert found["continent"] == ["Europe", "Europe", None]


def test_england_and_scotland_are_both_of_a_model_that_knows_the_united_kingdom() -> None:
    given = (
        "Bristol,South West,England,Europe,,GB,EU,51.5,-2.6,\n"
        "Glasgow,Glasgow City,Scotland,Europe,,GB,EU,55.9,-4.3,\n"
    )
    united = "London,England,United Kingdom,Europe,,GB,EU,51.5,-0.1,\n"
    assert mapped(given, united)["country"] == ["United Kingdom", "United Kingdom"]
    apart = "London,Greater London,England,Europe,,GB,EU,51.5,-0.1,\n"
    assert mapped(given, apart)["country"] == ["England", None]


def test_the_models_ancestors_are_the_truth_above_a_known_city() -> None:
    model = "Glasgow,Scotland,United Kingdom,Europe,GB-SCT,GB,EU,55.9,-4.3,2648579\n"
    found = mapped("Glasgow,Glasgow City,Scotland,Europe,GB-GLG,GB,EU,55.9,-4.3,2648579\n", model)
    assert found["state"] == ["Scotland"]
    assert found["country"] == ["United Kingdom"]
