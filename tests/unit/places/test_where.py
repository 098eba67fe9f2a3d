from __future__ import annotations

import json

import pytest

from geotag.places.gazetteer import Geocode, read_gazetteer
from geotag.places.where import describe_where, parse_lat_lon, where_json


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("48.1,11.5", (48.1, 11.5)),
        ("48.1 11.5", (48.1, 11.5)),
        (" 48.1 ; 11.5 ", (48.1, 11.5)),
        ("48.1N, 11.5E", (48.1, 11.5)),
        ("48.1N 11.5E", (48.1, 11.5)),
        ("48.1N11.5E", (48.1, 11.5)),
        ("N48.1 E11.5", (48.1, 11.5)),
        ("11.5E, 48.1N", (48.1, 11.5)),
        ("33.87s 151.21e", (-33.87, 151.21)),
        ("-33.87,151.21", (-33.87, 151.21)),
        ("-33.87, -151.21", (-33.87, -151.21)),
        ("+48,+11", (48.0, 11.0)),
        ("48°30'N 11°15'W", (48.5, -11.25)),
        ("48° 30' 36\" N, 11° 15' 0\" W", (48.51, -11.25)),
        ("48\u00b030\u203236\u2033N 11\u00b015\u2032W", (48.51, -11.25)),
        ("N48 30' E11 15'", (48.5, 11.25)),
        ("90,180", (90.0, 180.0)),
        ("0,0", (0.0, 0.0)),
    ],
)
def test_a_point_can_be_written_in_many_ways(text: str, point: tuple[float, float]) -> None:
    assert parse_lat_lon(text) == pytest.approx(point)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no place"),
        ("Munich", "is no place"),
        ("48.1", "is no place"),
        ("48.1,11.5,3", "is no place"),
        ("nan,nan", "is no place"),
        ("1e3,2", "is no place"),
        ("48,1,11,5", "is no place"),
        ("48°75'N 11E", "is no place"),
        ("-48N 11E", "is no place"),
        ("48N 11N", "latitude twice"),
        ("11E, 12W", "longitude twice"),
        ("91,0", "latitude 91; allowed are -90 to 90"),
        ("151.21,-33.87", "in the wrong order"),
        ("0,181", "longitude 181; allowed are -180 to 180"),
        ("9" * 500, "500 characters"),
    ],
)
def test_what_is_no_point_is_refused_with_a_way_out(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_lat_lon(text)


def test_a_place_that_begins_with_a_minus_is_explained() -> None:
    with pytest.raises(ValueError, match=r"south and west are negative: -33\.87,151\.21"):
        parse_lat_lon("somewhere")


def test_a_description_names_every_level_and_its_code() -> None:
    text = describe_where(read_gazetteer().locate_one(51.457, -0.192))
    assert text.splitlines()[0] == "London, England, United Kingdom"
    for part in ("GB-ENG", "(GB)", "Europe (EU)", "Europe/London", "GeoNames 2643743"):
        assert part in text


def test_a_city_that_is_a_state_is_named_once() -> None:
    assert describe_where(read_gazetteer().locate_one(52.52, 13.405)).startswith(
        "Berlin, Germany\n"
    )


def test_a_dispute_is_named() -> None:
    text = describe_where(read_gazetteer().locate_one(44.9521, 34.1024))
    assert "disputed      Crimea: held by Russia" in text


def test_the_open_sea_is_described_as_such() -> None:
    assert describe_where(Geocode(time_zone="Etc/GMT")).startswith("At sea")


def test_the_json_has_every_field_and_survives_a_round_trip() -> None:
    code = read_gazetteer().locate_one(52.52, 13.405)
    fields = json.loads(json.dumps(where_json(code)))
    assert Geocode(**fields) == code
