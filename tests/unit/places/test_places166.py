from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import geotag.places
from engines.bundle import LEVELS
from geotag.geo import distance_m
from geotag.places.gazetteer import Gazetteer, Geocode, read_gazetteer
from geotag.places.hierarchy import Hierarchy, build_hierarchy, read_hierarchy
from geotag.places.join import Join, compare, compare_with, join_hierarchy
from geotag.sight import SeenPlace, Sight

PATH = Path(geotag.places.__file__).with_name("places166.csv")
ROWS = list(csv.DictReader(PATH.read_text(encoding="utf-8").splitlines()))


@pytest.fixture(scope="module")
def tree() -> Hierarchy:
    return read_hierarchy(PATH)


@pytest.fixture(scope="module")
def gazetteer() -> Gazetteer:
    return read_gazetteer()


@pytest.fixture(scope="module")
def join(tree: Hierarchy) -> Join:
    return join_hierarchy(tree)


def names(tree: Hierarchy, city: str) -> tuple[str, ...]:
    """Names of a city class and its parents."""
    (row,) = [k for k, place in enumerate(tree.places["city"]) if place.name == city]
    return tuple(tree.places[level][int(tree.ancestors[level][row])].name for level in LEVELS)


def test_the_tree_has_the_published_sizes(tree: Hierarchy) -> None:
    assert [tree.size(level) for level in LEVELS] == [166, 157, 91, 6]


def test_rows_are_in_the_order_of_the_folders() -> None:
    folders = [row["folder"] for row in ROWS]
    assert folders == sorted(folders)
    assert len(set(folders)) == 166


def test_continents_are_numbered_as_published(tree: Hierarchy) -> None:
    found = [place.name for place in tree.places["continent"]]
    assert found == ["Asia", "Africa", "Oceania", "Europe", "North America", "South America"]
    counts = np.bincount(tree.ancestors["continent"])
    assert dict(zip(found, counts.tolist(), strict=True)) == {
        "Asia": 61,
        "Europe": 43,
        "North America": 34,
        "Africa": 15,
        "South America": 7,
        "Oceania": 6,
    }


def test_the_eight_shared_states_are_the_published_ones() -> None:
    groups: dict[tuple[str, str], set[str]] = {}
    for row in ROWS:
        groups.setdefault((row["state"], row["country"]), set()).add(row["folder"])
    assert sorted(map(sorted, (group for group in groups.values() if len(group) > 1))) == [
        ["Agra", "Kanpur", "Lucknow"],
        ["Austin", "Dallas"],
        ["Calgary", "Edmonton"],
        ["Incheon", "Seoul"],
        ["Jacksonville", "Miami"],
        ["Jeddah", "Makkah"],
        ["Liverpool", "Manchester"],
        ["Memphis", "Nashville"],
    ]


def test_countries_group_the_cities_as_published() -> None:
    counts = Counter(row["country"] for row in ROWS)
    assert sum(count > 1 for count in counts.values()) == 24
    assert sum(count == 1 for count in counts.values()) == 67
    assert counts["United States"] == 24
    assert counts["India"] == 12
    assert (counts["England"], counts["Scotland"], counts["United Kingdom"]) == (5, 2, 0)


@pytest.mark.parametrize(
    ("folder", "city", "country", "lat_deg", "lon_deg"),
    [
        ("Malm", "Malmö", "Sweden", 55.61, 13.00),
        ("Talinn", "Tallinn", "Estonia", 59.44, 24.75),
        ("Oklahoma", "Oklahoma City", "United States", 35.47, -97.52),
        ("Banglore", "Bengaluru", "India", 12.98, 77.59),
        ("Makkah", "Mecca", "Saudi Arabia", 21.42, 39.83),
        ("Genova", "Genoa", "Italy", 44.41, 8.93),
        ("Bandar_Seri_Bagawan", "Bandar Seri Begawan", "Brunei", 4.89, 114.94),
        ("Washington_DC", "Washington, D.C.", "United States", 38.90, -77.04),
        ("San_Jose", "San Jose", "United States", 37.34, -121.89),
        ("Hyderabad", "Hyderabad", "India", 17.39, 78.48),
        ("Charleston", "Charleston", "United States", 32.78, -79.93),
        ("London", "London", "England", 51.51, -0.13),
    ],
)
def test_the_slips_of_the_dataset_are_put_right(
    folder: str, city: str, country: str, lat_deg: float, lon_deg: float
) -> None:
    (row,) = [row for row in ROWS if row["folder"] == folder]
    assert (row["city"], row["country"]) == (city, country)
    point = float(row["lat_deg"]), float(row["lon_deg"])
    assert distance_m(point, (lat_deg, lon_deg)) < 5_000


def test_coordinates_and_ids_are_those_of_geonames(gazetteer: Gazetteer) -> None:
    table = gazetteer.table
    places = {int(geonameid): row for row, geonameid in enumerate(table.geonameids)}
    for row in ROWS:
        place = places[int(row["geonameid"])]
        point = float(row["lat_deg"]), float(row["lon_deg"])
        there = float(table.lats_deg[place]), float(table.lons_deg[place])
        assert distance_m(point, there) < 100, row["folder"]
        country = table.countries[int(gazetteer.place_countries[place])]
        assert country.code == row["country_code"], row["folder"]
        assert table.populations[place] > 10_000, row["folder"]


def test_the_centre_of_each_city_is_found_as_that_city(gazetteer: Gazetteer) -> None:
    codes = gazetteer.locate(
        [float(row["lat_deg"]) for row in ROWS], [float(row["lon_deg"]) for row in ROWS]
    )
    assert [str(code.city_geonameid) for code in codes] == [row["geonameid"] for row in ROWS]


def test_two_kilometres_from_the_centre_nine_in_ten_agree_with_the_class(
    gazetteer: Gazetteer, tree: Hierarchy, join: Join
) -> None:
    lats = np.array([float(row["lat_deg"]) for row in ROWS])
    lons = np.array([float(row["lon_deg"]) for row in ROWS])
    away = 2 / 111.2
    agreed = []
    for north, east in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        codes = gazetteer.locate(lats + north * away, lons + east * away / np.cos(np.radians(lats)))
        agreed += [
            compare(code, join, names(tree, place.name)) == "city"
            for code, place in zip(codes, tree.places["city"], strict=True)
        ]
    assert np.mean(agreed) > 0.96


def test_every_class_is_joined_without_a_doubt(join: Join) -> None:
    assert join.mismatches == []
    assert all(city.geonameid is not None for city in join.cities)


def test_a_class_without_an_id_is_found_by_name_country_and_distance(gazetteer: Gazetteer) -> None:
    rows = [
        {**row, "geonameid": ""} for row in ROWS if row["folder"] in ("Malm", "London", "Bogota")
    ]
    join = join_hierarchy(build_hierarchy(rows, source="test"), gazetteer)
    assert [city.geonameid for city in join.cities] == [3688689, 2643743, 2692969]
    assert join.mismatches == []


def test_what_cannot_be_joined_is_listed(gazetteer: Gazetteer) -> None:
    rows = [
        {**ROWS[0], "city": "Atlantis", "geonameid": "1"},
        {**ROWS[1], "country_code": "XX"},
        {**ROWS[2], "lat_deg": "10"},
    ]
    join = join_hierarchy(build_hierarchy(rows, source="test"), gazetteer)
    assert len(join.mismatches) == 3
    assert "no place of the gazetteer is it" in join.mismatches[0]
    assert "in ET, not XX" in join.mismatches[1]
    assert "km away" in join.mismatches[2]


@pytest.mark.parametrize(
    ("place", "lat_deg", "lon_deg", "city", "level"),
    [
        ("central London", 51.507, -0.128, "London", "city"),
        ("Liverpool for Manchester", 53.408, -2.980, "Manchester", "state"),
        ("Birmingham for London", 52.480, -1.900, "London", "country"),
        ("Edinburgh for London", 55.953, -3.190, "London", "continent"),
        ("Cardiff for London", 51.480, -3.180, "London", "continent"),
        ("Glasgow for Edinburgh", 55.861, -4.250, "Edinburgh", "country"),
        ("Suwon for Seoul", 37.263, 127.029, "Seoul", "state"),
        ("Busan for Seoul", 35.180, 129.075, "Seoul", "country"),
        ("Jette for Brussels", 50.878, 4.325, "Brussels", "city"),
        ("Hong Kong for Shenzhen", 22.282, 114.158, "Shenzhen", "country"),
        ("Limassol for Nicosia", 34.707, 33.023, "Nicosia", "country"),
        ("Limassol for Beirut", 34.707, 33.023, "Beirut", "continent"),
        ("Istanbul for Athens", 41.010, 28.960, "Athens", "continent"),
        ("Istanbul for Ankara", 41.010, 28.960, "Ankara", "country"),
        ("Sharm el-Sheikh for Cairo", 27.912, 34.330, "Cairo", "country"),
        ("Sharm el-Sheikh for Amman", 27.912, 34.330, "Amman", "continent"),
        ("Novosibirsk for Beijing", 55.030, 82.920, "Beijing", "continent"),
        ("Houston for Austin", 29.760, -95.370, "Austin", "state"),
        ("San Juan for Miami", 18.466, -66.106, "Miami", "country"),
        ("Tokyo for Havana", 35.690, 139.690, "Havana", None),
        ("the open sea for Havana", 0.0, 0.0, "Havana", None),
    ],
)
def test_a_measured_place_and_a_class_agree_down_to_a_level(
    gazetteer: Gazetteer,
    tree: Hierarchy,
    join: Join,
    place: str,
    lat_deg: float,
    lon_deg: float,
    city: str,
    level: str | None,
) -> None:
    code = gazetteer.locate_one(lat_deg, lon_deg)
    assert compare(code, join, names(tree, city)) == level, place


def test_an_unknown_class_is_an_error(gazetteer: Gazetteer, join: Join) -> None:
    with pytest.raises(KeyError):
        compare(gazetteer.locate_one(51.5, -0.1), join, ("Atlantis", "X", "Y", "Z"))


def seen(tree: Hierarchy, city: str, levels: int) -> Sight:
    """An answer of a model, from the finest confident level upwards."""
    places = tuple(
        SeenPlace(level=level, name=name, code=None, geonameid=None)
        for level, name in zip(LEVELS, names(tree, city), strict=True)
    )
    sight = object.__new__(Sight)
    object.__setattr__(sight, "places", places[len(places) - levels :])
    return sight


@pytest.mark.parametrize(
    ("city", "levels", "expected"),
    [
        ("Lyon", 4, "match"),
        ("Marseille", 4, "country"),
        ("Lyon", 3, "state"),
        ("Lyon", 2, "country"),
        ("Madrid", 4, "conflict"),
        ("Madrid", 1, "none"),
        ("Havana", 1, "conflict"),
        ("Havana", 0, "none"),
    ],
)
def test_agreement_is_the_finest_level_shared(
    gazetteer: Gazetteer, tree: Hierarchy, city: str, levels: int, expected: str
) -> None:
    agree = compare_with(tree)
    assert agree(gazetteer.locate_one(45.757, 4.832), seen(tree, city, levels)) == expected


def test_nothing_agrees_with_a_point_in_no_country(tree: Hierarchy) -> None:
    assert compare_with(tree)(Geocode(time_zone="Etc/GMT"), seen(tree, "Lyon", 4)) == "none"
