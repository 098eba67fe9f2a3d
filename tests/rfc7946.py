"""A strict reader of GeoJSON, written from RFC 7946 and RFC 8259 alone."""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

GEOMETRY_TYPES = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")
FORBIDDEN = ("crs", "coordinates", "geometries")
"""Members that a Feature or FeatureCollection must not have (sections 4 and 7.1)."""


def check_collection(
    text: str, check_geometry: Callable[[dict[str, Any]], None] | None = None
) -> list[dict[str, Any]]:
    """Check a FeatureCollection, of points if nothing else is said; returns its features."""
    assert not text.startswith("\ufeff"), "a byte order mark (RFC 8259, 8.1)"
    assert text.endswith("\n")
    collection = parse(text)
    assert list(collection) == ["type", "features"]
    assert collection["type"] == "FeatureCollection"
    assert isinstance(collection["features"], list)
    for feature in collection["features"]:
        check_feature(feature, check_geometry)
    ids = [feature["id"] for feature in collection["features"]]
    assert len(set(ids)) == len(ids)
    return collection["features"]


def check_feature(
    feature: dict[str, Any], check_geometry: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Section 3.2: type, geometry or null, properties or null, id a string."""
    assert feature["type"] == "Feature"
    assert isinstance(feature["id"], str)
    assert not set(FORBIDDEN) & set(feature)
    assert "geometry" in feature
    if feature["geometry"] is not None:
        (check_geometry or check_point)(feature["geometry"])
    if "bbox" in feature:
        check_bbox(feature["bbox"], feature["geometry"])
    for name, value in feature["properties"].items():
        assert value is None or isinstance(value, str | int | float), (name, value)


def check_point(geometry: dict[str, Any]) -> None:
    """Section 3.1.2."""
    assert geometry["type"] == "Point"
    assert set(geometry) == {"type", "coordinates"}
    check_position(geometry["coordinates"])


def check_position(position: list[float]) -> None:
    """Sections 3.1.1 and 4: longitude first, in degrees, no more digits than are meant."""
    assert len(position) == 2
    for value in position:
        assert isinstance(value, int | float)
        assert not isinstance(value, bool)
        assert math.isfinite(value)
        assert round(value, 6) == value
    lon_deg, lat_deg = position
    assert -180 <= lon_deg <= 180
    assert -90 <= lat_deg <= 90


def check_line(geometry: dict[str, Any]) -> None:
    """Sections 3.1.4, 3.1.5 and 3.1.9: two positions or more, never across the antimeridian."""
    assert set(geometry) == {"type", "coordinates"}
    assert geometry["type"] in ("LineString", "MultiLineString")
    lines = lines_of(geometry)
    assert len(lines) > (geometry["type"] == "MultiLineString")
    for line in lines:
        assert len(line) >= 2
        for position in line:
            check_position(position)
        assert all(abs(a[0] - b[0]) <= 180 for a, b in itertools.pairwise(line))


def lines_of(geometry: dict[str, Any]) -> list[list[list[float]]]:
    """The lines of either kind of geometry."""
    coordinates = geometry["coordinates"]
    return coordinates if geometry["type"] == "MultiLineString" else [coordinates]


def check_bbox(bbox: list[float], geometry: dict[str, Any]) -> None:
    """Section 5: west, south, east, north; west > east where it spans the antimeridian."""
    west, south, east, north = bbox
    check_position([west, south])
    check_position([east, north])
    for lon, lat in itertools.chain.from_iterable(lines_of(geometry)):
        assert south <= lat <= north
        is_same_meridian = abs(lon) == 180 and 180 in (abs(west), abs(east))
        is_inside = west <= lon <= east if west <= east else lon >= west or lon <= east
        assert is_inside or is_same_meridian


def parse(text: str) -> Any:  # noqa: ANN401
    """JSON without NaN, without a name twice in one object."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs), "a name twice"
        return dict(pairs)

    return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
