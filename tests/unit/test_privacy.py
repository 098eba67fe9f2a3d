from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from geotag.errors import ConfigError
from geotag.privacy import MARGIN_M, Zone, fixes_inside, fixes_passing, parse_zones

if TYPE_CHECKING:
    from pathlib import Path

HOME = Zone(lat_deg=48.137, lon_deg=11.575, radius_m=200.0)
DEG_M = math.radians(6_371_008.8)


def _east(lat_deg: float, lon_deg: float, metres: float) -> tuple[float, float]:
    return lat_deg, lon_deg + metres / (DEG_M * math.cos(math.radians(lat_deg)))


def _inside(*points: tuple[float, float]) -> list[bool]:
    lats, lons = np.array(points).T
    return [bool(each) for each in fixes_inside([HOME], lats, lons)]


def _passing(zone: Zone, *points: tuple[float, float]) -> list[bool]:
    lats, lons = np.array(points).T
    return [bool(each) for each in fixes_passing([zone], lats, lons)]


def test_a_zone_is_read_from_a_flag() -> None:
    assert parse_zones(["48.137, 11.575,200"]) == (HOME,)


def test_zones_are_read_from_a_file_with_comments(tmp_path: Path) -> None:
    file = tmp_path / "zones.txt"
    file.write_bytes("\ufeff# home\r\n48.137,11.575,200  # the flat\r\n\r\n-33.9,18.4,50".encode())
    zones = parse_zones(["0,0,1"], file)
    assert [zone.radius_m for zone in zones] == [1, 200, 50]


@pytest.mark.parametrize(
    "text", ["", "48.1,11.5", "48.1;11.5;200", "48,1,11,5,200", "a,b,c", "48.1,11.5,200 m"]
)
def test_what_is_no_zone_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--exclude number 2: it is not LAT,LON,RADIUS_M"):
        parse_zones(["1,1,1", text])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("95,11.5,200", "latitude"),
        ("11.5,195,200", "longitude"),
        ("48.1,11.5,0", "radius"),
        ("48.1,11.5,nan", "radius"),
        ("nan,11.5,10", "latitude"),
        ("48.1,11.5,1e9", "radius"),
    ],
)
def test_a_zone_out_of_range_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"its {wrong} is outside"):
        parse_zones([text])


def test_no_text_says_where_a_zone_is(tmp_path: Path) -> None:
    file = tmp_path / "zones.txt"
    file.write_text("52.518,13.408,0.2")
    with pytest.raises(ConfigError) as caught:
        parse_zones([], file)
    assert "line 1" in str(caught.value)
    assert "52.5" not in str(caught.value)
    assert "48.1" not in repr(HOME)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_stops_everything(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "zones.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="Nothing is written without them"):
        parse_zones([], file)


def test_a_fix_is_inside_up_to_the_margin() -> None:
    rim = HOME.radius_m + MARGIN_M
    inside = [_east(HOME.lat_deg, HOME.lon_deg, metres) for metres in (0, rim - 1, rim + 1)]
    assert _inside(*inside) == [True, True, False]


def test_a_fix_without_a_position_is_nowhere() -> None:
    assert _inside((math.nan, math.nan), (48.137, math.nan)) == [False, False]


def test_the_ends_of_a_line_through_a_zone_pass_it() -> None:
    west, east = (_east(48.137, 11.575, metres) for metres in (-600, 600))
    north = (48.2, 11.575)
    assert _passing(HOME, north, west, east, north) == [False, True, True, False]


def test_a_line_beside_a_zone_does_not_pass_it() -> None:
    assert _passing(HOME, (48.142, 11.5), (48.142, 11.6)) == [False, False]


def test_a_line_beyond_the_zone_does_not_pass_it() -> None:
    points = [_east(48.137, 11.575, metres) for metres in (300, 600)]
    assert _passing(HOME, *points) == [False, False]


def test_a_zone_on_the_date_line_is_passed_on_both_sides() -> None:
    zone = Zone(lat_deg=-17.0, lon_deg=180.0, radius_m=200.0)
    assert _passing(zone, (-17.0, 179.99), (-17.0, -179.99)) == [True, True]
    assert _passing(zone, (-17.0, 179.999), (-16.0, 0.0))[0]


def test_a_line_on_the_far_side_of_the_earth_passes_nothing() -> None:
    zone = Zone(lat_deg=0.0, lon_deg=0.0, radius_m=200.0)
    assert _passing(zone, (0.0, 179.9), (0.0, -179.9)) == [False, False]
