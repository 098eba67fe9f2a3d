from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geotag.geo import distances_m
from geotag.places.gazetteer import CITY_REACH_KM, read_gazetteer
from geotag.places.where import parse_lat_lon

LATS = st.floats(-90, 90)
LONS = st.floats(-180, 180)
POINTS = st.tuples(LATS, LONS)
LAND = st.builds(
    lambda place, north, east: (place, north, east),
    st.integers(0, 200_000),
    st.floats(-0.3, 0.3),
    st.floats(-0.3, 0.3),
)


def near_a_place(drawn: tuple[int, float, float]) -> tuple[float, float]:
    place, north, east = drawn
    table = read_gazetteer().table
    lat = float(np.clip(table.lats_deg[place] + north, -90, 90))
    return lat, float(np.clip(table.lons_deg[place] + east, -180, 180))


@given(LAND.map(near_a_place))
@example((66.5, 180.0))
@example((66.5, -180.0))
@example((78.2, 15.6))
@example((-16.8, 179.999))
@settings(deadline=None, max_examples=60)
def test_the_nearest_place_is_the_nearest_of_all_that_are_allowed(
    point: tuple[float, float],
) -> None:
    gazetteer = read_gazetteer()
    table = gazetteer.table
    code = gazetteer.locate_one(*point)
    if code.nearest_km is None:
        return
    row = gazetteer.zones.get(code.time_zone or "", len(gazetteer.zones))
    allowed = gazetteer.allowed_states[row][table.place_states]
    away_km = distances_m(point, table.lats_deg, table.lons_deg) / 1000
    assert abs(away_km[allowed].min() - code.nearest_km) < 0.002


@given(st.lists(POINTS, max_size=20))
@settings(deadline=None, max_examples=40)
def test_many_points_at_once_are_answered_as_one_by_one(points: list[tuple[float, float]]) -> None:
    gazetteer = read_gazetteer()
    lats, lons = [lat for lat, _ in points], [lon for _, lon in points]
    assert gazetteer.locate(lats, lons) == [gazetteer.locate_one(*point) for point in points]


@given(POINTS)
@example((90.0, 0.0))
@example((-90.0, 180.0))
@example((0.0, -180.0))
@settings(deadline=None)
def test_finer_names_come_with_coarser_ones(point: tuple[float, float]) -> None:
    code = read_gazetteer().locate_one(*point)
    assert code.time_zone
    assert (code.country is None) == (code.continent is None) == (code.country_code is None)
    if code.state is not None or code.city is not None or code.nearest_place is not None:
        assert code.country is not None
    if code.state_code is not None:
        assert code.state_code.startswith(f"{code.country_code}-")
    if code.city is not None:
        assert code.city_km is not None
        assert code.city_km <= CITY_REACH_KM
        assert code.nearest_km is not None
        assert code.nearest_km <= code.city_km + 0.001


@given(POINTS)
@settings(deadline=None)
def test_a_point_that_is_printed_can_be_read_back(point: tuple[float, float]) -> None:
    lat, lon = (round(angle, 6) for angle in point)
    north, east = "NS"[lat < 0], "EW"[lon < 0]
    assert parse_lat_lon(f"{lat:.6f},{lon:.6f}") == (lat, lon)
    assert parse_lat_lon(f"{abs(lat):.6f}{north} {abs(lon):.6f}{east}") == (lat, lon)


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_text_is_a_point_on_earth_or_refused(text: str) -> None:
    try:
        lat, lon = parse_lat_lon(text)
    except ValueError:
        return
    assert abs(lat) <= 90
    assert abs(lon) <= 180
