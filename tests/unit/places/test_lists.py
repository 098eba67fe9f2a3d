from __future__ import annotations

import csv
import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import geotag.places
from engines.bundle import LEVELS
from geotag.errors import ConfigError
from geotag.places.atlas import CITY_ALIASES, city_key, open_atlas
from geotag.places.countries import COUNTRY_ALIASES, read_spellings
from geotag.places.gazetteer import read_gazetteer
from geotag.places.hierarchy import build_hierarchy, read_hierarchy
from geotag.places.join import fold_name
from geotag.places.lists import (
    Finding,
    PlaceList,
    describe_places,
    make_places,
    need_places,
    places_text,
)
from geotag.places.sheets import COLUMNS, parse_sheet

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[..., PlaceList]

PATH166 = Path(geotag.places.__file__).with_name("places166.csv")
LARGE = 500_000


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Make a list of the lines of a file."""

    def read_lines(*lines: str, encoding: str = "utf-8", end: str = "\n") -> PlaceList:
        path = tmp_path / "mine.csv"
        path.write_bytes((end.join(lines) + end).encode(encoding))
        return make_places(str(path))

    return read_lines


@lru_cache
def world() -> PlaceList:
    return make_places("world")


@lru_cache
def large() -> PlaceList:
    return make_places(cities_over=LARGE)


def texts(places: PlaceList, severity: str, line: int | None = None) -> list[str]:
    return [
        finding.text
        for finding in places.findings
        if finding.severity == severity and line in (None, finding.line)
    ]


def only_error(places: PlaceList) -> Finding:
    (finding,) = places.errors
    return finding


# Built-in lists


def test_the_166_are_the_tree_of_the_reference() -> None:
    places = make_places("166")
    ours, reference = build_hierarchy(places.rows, source="166"), read_hierarchy(PATH166)
    assert ours.places == reference.places
    for level in LEVELS:
        assert np.array_equal(ours.ancestors[level], reference.ancestors[level])
    assert places.source == "the 166 cities of CityGuessr68k"
    assert places.findings == ()


def test_a_copy_of_the_166_is_completed_to_the_same_tree(tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_bytes(PATH166.read_bytes())
    places = make_places(str(copy))
    assert places.findings == ()
    assert build_hierarchy(places.rows, source="copy").places == read_hierarchy(PATH166).places


def test_the_166_are_found_by_city_and_country_alone(read: Read) -> None:
    rows = make_places("166").rows
    places = read("city,country", *(f'"{row["city"]}",{row["country"]}' for row in rows))
    assert texts(places, "error") == []
    wrong = [
        row["city"]
        for row, found in zip(rows, places.rows, strict=True)
        if row["geonameid"] != found["geonameid"]
    ]
    assert wrong == []


def test_the_world_has_every_country_with_people() -> None:
    table = read_gazetteer().table
    countries = read_gazetteer().place_countries
    peopled = {
        entry.code
        for row, entry in enumerate(table.countries)
        if entry.continent_code != "AN" and (table.populations[countries == row] > 0).any()
    }
    codes = [row["country_code"] for row in world().rows]
    assert set(codes) == peopled
    assert len(peopled) > 240
    assert codes.count("TV") == codes.count("LI") == codes.count("VA") == 1
    assert codes.count("US") > 100
    assert world().source == "world"
    assert world().errors == ()


def test_cities_over_a_population_are_those_of_the_table() -> None:
    table = read_gazetteer().table
    wanted = np.flatnonzero((table.populations > LARGE) & (table.kinds == 0))
    paths = {(fold_name(table.name(k)), int(table.place_states[k])) for k in wanted}
    assert len(large().rows) == len(paths)
    assert {row["geonameid"] for row in large().rows} <= set(
        map(str, table.geonameids[wanted].tolist())
    )
    keys = [(row["country_code"], row["state"], row["city"]) for row in large().rows]
    assert keys == sorted(keys)
    assert large().source == "cities over 500000 people"


def test_of_two_places_of_one_path_the_larger_is_taken_and_that_is_said() -> None:
    places = make_places(cities_over=20_000)
    table = read_gazetteer().table
    wanted = np.flatnonzero((table.populations > 20_000) & (table.kinds == 0))
    (warning,) = texts(places, "warning")
    assert warning.startswith(f"{len(wanted) - len(places.rows)} places")
    build_hierarchy(places.rows, source=places.source)


def test_a_place_without_a_state_has_the_countrys_name_there() -> None:
    (row,) = [row for row in large().rows if row["city"] == "Singapore"]
    assert (row["state"], row["state_code"]) == ("Singapore", "")


@pytest.mark.parametrize("places", [world, large], ids=["world", "large"])
def test_the_lists_are_trees_and_read_back_the_same(
    places: Callable[[], PlaceList], tmp_path: Path
) -> None:
    text = places_text(places().rows)
    assert text == places_text(places().rows)
    assert text.startswith(",".join(COLUMNS) + "\n")
    assert "\r" not in text
    path = tmp_path / "places.csv"
    path.write_text(text, encoding="utf-8", newline="")
    tree = build_hierarchy(places().rows, source="list")
    assert read_hierarchy(path).places == tree.places
    again = make_places(str(path))
    assert again.errors == ()
    assert places_text(again.rows) == text


def test_a_population_that_nothing_exceeds_leaves_no_rows() -> None:
    assert "no place is in the list" in only_error(make_places(cities_over=10**9)).text


@pytest.mark.parametrize(
    ("given", "over", "message"),
    [
        (None, None, "one of the two"),
        ("world", 1000, "one of the two"),
        (None, -1, "over -1 people"),
        ("", None, "Built in are 166 and world"),
        ("wurld", None, "'wurld': there is no such file. Built in are 166 and world"),
        ("x" * 5000, None, "there is no such file"),
        ("a\0b", None, "there is no such file"),
    ],
)
def test_what_names_no_list_is_refused(given: str | None, over: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_places(given, cities_over=over)


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        make_places(str(tmp_path))


# Completing


@pytest.mark.parametrize(
    ("city", "country", "name"),
    [
        ("Cologne", "", "Köln"),
        ("new york", "USA", "New York City"),
        ("Washington, D.C.", "", "Washington"),
        ("Nara", "JP", "Nara-shi"),
        ("St Petersburg", "Russia", "Saint Petersburg"),
        ("Saint Petersburg", "US", "St. Petersburg"),
        ("Padova", "Italy", "Padua"),
    ],
)
def test_cities_are_found_by_other_names(read: Read, city: str, country: str, name: str) -> None:
    table = read_gazetteer().table
    (row,) = read("city\tcountry", f"{city}\t{country}").rows
    (place,) = np.flatnonzero(table.geonameids == int(row["geonameid"]))
    assert table.name(int(place)) == name


def test_every_other_name_of_a_city_is_of_a_large_one() -> None:
    atlas = open_atlas()
    for (code, name), others in CITY_ALIASES.items():
        for other in others:
            places = [
                row for row in atlas.places[city_key(other)] if atlas.country_code(row) == code
            ]
            assert atlas.table.name(places[0]) == name
            assert atlas.table.populations[places[0]] > 50_000


@pytest.mark.parametrize(
    ("country", "state", "geonameid"),
    [
        ("US", "Alabama", "4049979"),
        ("usa", "Alabama", "4049979"),
        ("United States", "Alabama", "4049979"),
        ("GB", "England", "2655603"),
        ("gbr", "England", "2655603"),
        ("UK", "England", "2655603"),
        ("England", "England", "2655603"),
        ("", "England", "2655603"),
    ],
)
def test_birmingham_is_where_its_country_says(
    read: Read, country: str, state: str, geonameid: str
) -> None:
    (row,) = read("city,country", f"Birmingham,{country}").rows
    assert (row["state"], row["geonameid"]) == (state, geonameid)


def test_a_name_with_homonyms_is_the_most_populous_and_that_is_said(read: Read) -> None:
    places = read("city", "Birmingham")
    assert places.rows[0]["country_code"] == "GB"
    (warning,) = texts(places, "warning", line=2)
    assert "is taken for Birmingham, England, United Kingdom" in warning
    assert "There is also Birmingham, Alabama, United States; " in warning


def test_a_state_decides_between_homonyms(read: Read) -> None:
    for state in ("state,Michigan", "state,MI", "state_code,US-MI", "state_code,MI"):
        column, value = state.split(",")
        places = read(f"city,{column},country", f"Birmingham,{value},US")
        assert texts(places, "warning") == []
        (row,) = places.rows
        assert (row["state"], row["state_code"]) == ("Michigan", "US-MI")


def test_a_states_own_name_stays_beside_its_code(read: Read) -> None:
    (row,) = read("city,state,state_code,country", "Munich,Bayern,by,DE").rows
    assert (row["state"], row["state_code"]) == ("Bayern", "DE-BY")


def test_a_continent_decides_between_homonyms(read: Read) -> None:
    places = read("city,continent", "Birmingham,NA", "Birmingham,europe")
    assert [row["country_code"] for row in places.rows] == ["US", "GB"]
    assert [row["continent"] for row in places.rows] == ["North America", "Europe"]


def test_a_list_of_cities_alone_becomes_complete(read: Read) -> None:
    places = read("city", "Reykjavík", "nairobi", "LODZ", "Saint-Denis", "Tromso")
    assert places.errors == ()
    assert [row["country"] for row in places.rows] == [
        "Iceland",
        "Kenya",
        "Poland",
        "Réunion",
        "Norway",
    ]
    assert places.rows[1]["city"] == "nairobi"
    assert all(value for row in places.rows for name, value in row.items() if name != "state_code")
    build_hierarchy(places.rows, source="list")


def test_coordinates_place_what_the_gazetteer_lacks(read: Read) -> None:
    places = read("City;Latitude;LNG", "My Depot;48.2;11.6")
    assert places.findings == ()
    assert places.rows == (
        {
            "city": "My Depot",
            "state": "Bavaria",
            "country": "Germany",
            "continent": "Europe",
            "state_code": "DE-BY",
            "country_code": "DE",
            "continent_code": "EU",
            "lat_deg": "48.2000",
            "lon_deg": "11.6000",
            "geonameid": "",
        },
    )


def test_coordinates_of_a_known_place_bring_its_id(read: Read) -> None:
    (row,) = read("city,lat,lon", "Munich,48.1374,11.57549").rows
    assert (row["geonameid"], row["lon_deg"]) == ("2867714", "11.575490")


def test_an_id_alone_is_enough(read: Read) -> None:
    (row,) = read("city,geonameid", "München,2867714").rows
    assert (row["city"], row["state"], row["country"]) == ("München", "Bavaria", "Germany")
    assert (row["lat_deg"], row["lon_deg"]) == ("48.1374", "11.5755")


def test_names_that_are_given_stay_and_codes_are_filled(read: Read) -> None:
    rows = read(
        "city,state,country,country_code",
        "Nottingham,East Midlands,England,",
        "Munich,Bavaria,Deutschland,DE",
        "Prague,,Czech Republic,",
        "Oakland,California,USA,",
        "San Juan,,United States,",
    ).rows
    assert [(row["state"], row["state_code"]) for row in rows[:2]] == [
        ("East Midlands", ""),
        ("Bavaria", "DE-BY"),
    ]
    assert [row["country"] for row in rows] == [
        "England",
        "Deutschland",
        "Czech Republic",
        "USA",
        "United States",
    ]
    assert [row["country_code"] for row in rows[:4]] == ["GB", "DE", "CZ", "US"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("the netherlands", "NL"),
        ("Côte d\u2019Ivoire", "CI"),
        ("COTE D'IVOIRE", "CI"),
        ("Ivory Coast", "CI"),
        ("Viet Nam", "VN"),
        ("Korea, South", "KR"),
        ("Trinidad & Tobago", "TT"),
        ("XKX", "XK"),
        ("Turkiye", "TR"),
        ("U.S.A.", "US"),
    ],
)
def test_countries_are_understood_as_people_write_them(read: Read, text: str, code: str) -> None:
    places = read("city\tlat\tlon\tcountry", f"Depot\t0\t-30\t{text}")
    assert places.errors == ()
    assert places.rows[0]["country_code"] == code


def test_every_other_name_of_a_country_is_of_a_country() -> None:
    countries = read_gazetteer().table.countries
    assert set(COUNTRY_ALIASES) <= {entry.code for entry in countries}
    spellings = read_spellings(countries)
    assert {spelling.code for spelling in spellings.values()} == {e.code for e in countries}


# The form of the file


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_dialects_are_read(read: Read, delimiter: str, encoding: str, end: str) -> None:
    lines = ("Country,note,CITY", "", "Germany,x,  Köln ", 'France,"two, or\tthree; even",Lyon')
    quoted = [line if '"' in line else line.replace(",", delimiter) for line in lines]
    quoted[3] = delimiter.join(["France", '"two, or\tthree; even"', "Lyon"])
    places = read(*quoted, encoding=encoding, end=end)
    assert places.findings == ()
    assert [row["city"] for row in places.rows] == ["Köln", "Lyon"]
    assert places.source == "mine.csv"


def test_decimal_commas_are_read_where_commas_part_no_cells(read: Read) -> None:
    (row,) = read("city;lat;lon", "Depot;48,2;11,6").rows
    assert (row["lat_deg"], row["lon_deg"]) == ("48.2000", "11.6000")


def test_lines_are_counted_as_an_editor_does(read: Read) -> None:
    places = read("city,note", "", 'Kyoto,"a', 'note"', "Nowhereville-on-Sea,")
    assert only_error(places).line == 5


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", None, "no column city; the header holds nothing"),
        (b"name,lat\nx,1\n", None, "no column city; the header holds 'name', 'lat'"),
        (b"city\n", None, "no rows"),
        (b"city,lat,latitude\n", None, "two columns of one meaning: 'latitude'"),
        (b"city\nK\xf6ln\n", 2, "not UTF-8 text: the byte 0xf6"),
        ("city\nKöln\n".encode("utf-16"), 1, "not UTF-8 text"),
        (b"city\n\0\0\n", 2, "not text: the control character '\\x00'"),
        (b'city\n"Ky\n', 2, "no CSV from here on"),
        (b"city,country\nWashington, D.C., US\n", 2, "3 cells, 'US' the last; the header has 2"),
    ],
)
def test_a_file_that_is_no_list_says_why(content: bytes, line: int | None, words: str) -> None:
    (finding,) = parse_sheet(content).findings
    assert (finding.line, finding.severity) == (line, "error")
    assert words in finding.text


def test_a_list_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geotag.places.sheets.MOST_ROWS", 2)
    sheet = parse_sheet(b"city\na\nb\nc\nd\n")
    assert [finding.line for finding in sheet.findings] == [4]
    assert "more than 2 rows" in sheet.findings[0].text
    monkeypatch.setattr("geotag.places.sheets.MOST_BYTES", 9)
    (finding,) = parse_sheet(b"city\na\nb\nc\nd\n").findings
    assert "give a shorter list" in finding.text


# Errors

HEADER = "city,state,country,country_code,continent,continent_code,lat,lon,geonameid"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (",,France,,,,,,", "the city is empty"),
        ("!?,,France,,,,,,", "the city is '!?'"),
        ("Lyon,,Frnace,,,,,,", "unknown country 'Frnace'. Did you mean \"France\"?"),
        ("Lyon,,,QQ,,,,,", "unknown country_code 'QQ'"),
        ("Lyon,,France,DE,,,,,", "the country 'France' has the code FR, not 'DE'"),
        ("Lyon,,,,Americas,,,,", "unknown continent 'Americas'; allowed are Africa (AF)"),
        ("Lyon,,,,,AM,,,", "unknown continent_code 'AM'"),
        ("Lyon,,,,Europe,AS,,,", "the continent 'Europe' has the code EU, not 'AS'"),
        ("Xyzzy,,,,,,,,", "the city 'Xyzzy' is not in the gazetteer. Give its coordinates"),
        ("Lyon,,Japan,,,,,,", "is not in the gazetteer in Japan. The gazetteer has Lyon, "),
        ("Lyon,,,,,,91,4,", "latitude 91, longitude 4; allowed are -90 to 90"),
        ("Lyon,,,,,,104.5,45.8,", "Are the two in the wrong order?"),
        ("Lyon,,,,,,45,1e9,", "longitude 1e+09"),
        ("Lyon,,,,,,north,4,", "the coordinate 'north' is no number"),
        ("Lyon,,,,,,nan,4,", "the coordinate 'nan' is no number"),
        ("Lyon,,,,,,45.8,,", "the longitude is missing, the latitude is '45.8'"),
        ("Lyon,,,,,,,4.8,", "the latitude is missing, the longitude is '4.8'"),
        ("Lyon,,,,,,,,x1", "the geonameid 'x1' is no number"),
        ("Lyon,,,,,,,,1", "the geonameid 1 is not in the gazetteer"),
        ("Atlantis,,,,,,0,-30,", "the coordinates 0, -30 lie in no country"),
    ],
)
def test_an_error_says_what_is_wrong_and_where(read: Read, row: str, words: str) -> None:
    places = read(HEADER, "Kyoto,,JP,,,,,,", row)
    finding = only_error(places)
    assert finding.line == 3
    assert words in finding.text
    assert [good["city"] for good in places.rows] == ["Kyoto"]


def test_one_path_at_two_places_is_an_error(read: Read) -> None:
    places = read("city,state,country,lat,lon", "A,,FR,48.85,2.35", "A,,FR,48.86,4.35")
    assert places.findings == ()  # another state
    places = read("city,state,country,lat,lon", "A,S,FR,48.85,2.35", "A,S,FR,48.86,4.35")
    finding = only_error(places)
    assert finding.line == 3
    assert "A, S, France is listed in line 2 too, 146 km away" in finding.text


def test_a_country_within_itself_is_an_error(read: Read) -> None:
    places = read(
        "city,country,continent", "Lyon,France,Europe", "Lille,France,Europe", "Metz,Europe,France"
    )
    cycles = [text for text in texts(places, "error") if "within itself" in text]
    assert len(cycles) == 1
    assert "France in Europe in France" in cycles[0]
    places = read(
        "city,state,country", "Lyon,Germany,France", "Kyoto,Kyoto,JP", "Munich,France,Germany"
    )
    assert "Germany in France in Germany" in only_error(places).text


def test_a_state_of_its_countrys_name_is_no_error(read: Read) -> None:
    places = read("city,state,country", "Luxembourg,Luxembourg,Luxembourg")
    assert places.findings == ()


def test_all_errors_are_found_and_the_first_ten_told(read: Read, tmp_path: Path) -> None:
    read("city,country", *(f"Nowhere-{k}z,Nolandia{k}" for k in range(13)))
    path = str(tmp_path / "mine.csv")
    assert len(make_places(path).errors) == 13
    with pytest.raises(ConfigError) as caught:
        need_places(path)
    message = str(caught.value)
    assert message.startswith("reading the list of places 'mine.csv': 13 errors.\n  line 2: ")
    assert message.count("unknown country") == 10
    assert message.endswith("and 3 more")
    assert str(tmp_path) not in message


def test_warnings_forbid_nothing(read: Read, tmp_path: Path) -> None:
    read("city", "Birmingham")
    assert len(need_places(str(tmp_path / "mine.csv")).rows) == 1


# Warnings


def test_a_list_of_points_all_in_a_wrong_country_takes_no_minutes(read: Read) -> None:
    rows = [f"{k},FR,{row['lat_deg']},{row['lon_deg']}" for k, row in enumerate(world().rows)]
    places = read("city,country,lat,lon", *rows)
    strayed = [text for text in texts(places, "warning") if "lie in" in text]
    assert len(strayed) > len(rows) - 100
    assert sum("nearest place" in text for text in strayed) == 100
    assert len(places.rows) == len(rows)


def test_a_double_is_left_out(read: Read) -> None:
    places = read("city,country", "Kyoto,JP", "KYOTO,Japan", "Nara,JP")
    assert [row["city"] for row in places.rows] == ["Kyoto", "Nara"]
    (warning,) = texts(places, "warning", line=3)
    assert "is listed in line 2 already; this line is left out" in warning


def test_coordinates_in_another_country_are_told(read: Read) -> None:
    places = read("city,country,lat,lon", "Depot,Austria,48.2,11.6", "Depot,Scotland,51.5,-0.1")
    assert places.errors == ()
    (first,), (second,) = texts(places, "warning", line=2), texts(places, "warning", line=3)
    assert "the coordinates 48.2, 11.6 lie in Germany, the country given is 'Austria'" in first
    assert "whose nearest place, " in first
    assert " km away" in first
    assert "lie in England, United Kingdom, the country given is 'Scotland'" in second
    assert [row["country_code"] for row in places.rows] == ["AT", "GB"]
    assert places.rows[0]["state"] == "Austria"
    assert places.rows[0]["state_code"] == ""


def test_a_town_at_the_border_is_in_the_country_given(read: Read) -> None:
    # The time zone's border has it in Vietnam.
    places = read("city,country,lat,lon", "Depot,China,22.5385,104.011")
    assert places.findings == ()
    assert (places.rows[0]["country"], places.rows[0]["state"]) == ("China", "Yunnan")


def test_an_id_in_another_country_is_told(read: Read) -> None:
    places = read("city,country,geonameid", "Munich,Austria,2867714")
    (warning,) = texts(places, "warning")
    assert "the coordinates of the geonameid 48.1374, 11.5755 lie in Germany" in warning


def test_a_territory_lies_in_its_country(read: Read) -> None:
    assert read("city,country,lat,lon", "San Juan,United States,18.4663,-66.1057").findings == ()


def test_coordinates_far_from_the_id_are_told(read: Read) -> None:
    places = read("city,lat,lon,geonameid", "Munich,52.5,13.4,2867714")
    (warning,) = texts(places, "warning")
    assert "are 502 km from GeoNames 2867714, Munich, Bavaria, Germany" in warning
    assert places.rows[0]["lat_deg"] == "52.5000"


def test_a_country_on_two_continents_is_told(read: Read) -> None:
    places = read("city,country,continent", "Istanbul,Turkey,Europe", "Ankara,Turkey,Asia")
    (warning,) = texts(places, "warning", line=3)
    assert "'Turkey' is on two continents, Europe (line 2) and Asia (line 3)" in warning


def test_a_continent_that_is_not_the_countrys_is_told_once(read: Read) -> None:
    places = read("city,country,continent", "Lyon,France,Asia", "Lille,France,Asia")
    (warning,) = [text for text in texts(places, "warning") if "the continent given" in text]
    assert "for 'France' is Asia, the gazetteer has Europe" in warning


def test_one_code_of_two_countries_is_told(read: Read) -> None:
    places = read("city,state,country", "Oakland,California,USA", "Austin,Texas,United States")
    (warning,) = texts(places, "warning", line=3)
    assert "US has two names, 'USA' (line 2) and 'United States' (line 3)" in warning


def test_the_parts_of_one_country_are_no_double_name(read: Read) -> None:
    places = read("city,country", "Cardiff,Wales", "Glasgow,Scotland")
    assert [text for text in texts(places, "warning") if "two names" in text] == []


# For a person


def test_a_list_is_described(read: Read) -> None:
    places = read("city,country", "Kyoto,JP", "Kyoto,JP", "Lyon,FR", "Nagoya,XX")
    lines = describe_places(places).splitlines()
    assert lines[0] == "mine.csv: 2 cities, 2 states, 2 countries, 2 continents"
    assert [line[:16] for line in lines[1:]] == ["  warning: line ", "  error: line 5:"]
    assert describe_places(make_places("166")) == (
        "the 166 cities of CityGuessr68k: 166 cities, 157 states, 91 countries, 6 continents"
    )


# Anything at all


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(content=st.one_of(st.text().map(str.encode), st.binary()))
def test_any_content_is_a_list_or_a_finding(content: bytes, tmp_path: Path) -> None:
    check_any(content, tmp_path)


CELLS = st.one_of(
    st.sampled_from(["", "Paris", "Birmingham", "US", "England", "Europe", "95", "1.5", "-3", '"']),
    st.text(max_size=6),
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    header=st.lists(st.sampled_from([*COLUMNS, "lat", "note"]), unique=True, max_size=6),
    rows=st.lists(st.lists(CELLS, max_size=8), max_size=6),
    delimiter=st.sampled_from([",", ";", "\t"]),
    is_raw=st.booleans(),
)
def test_any_cells_are_rows_or_findings(
    header: list[str], rows: list[list[str]], delimiter: str, is_raw: bool, tmp_path: Path
) -> None:
    stream = io.StringIO()
    table = [["city", *header[1:]], *rows]
    if is_raw:
        stream.write("\n".join(delimiter.join(cells) for cells in table))
    else:
        csv.writer(stream, delimiter=delimiter).writerows(table)
    check_any(stream.getvalue().encode(), tmp_path)


def check_any(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    places = make_places(str(path))
    assert places.rows or places.errors
    assert all(tuple(row) == COLUMNS for row in places.rows)
    if places.rows:
        build_hierarchy(places.rows, source="any")
        text = places_text(places.rows)
        assert list(csv.DictReader(io.StringIO(text, newline=""))) == list(places.rows)
    describe_places(places)
