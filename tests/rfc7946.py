"""A strict reader of GeoJSON, written from RFC 7946 and RFC 8259 alone."""

from __future__ import annotations

import json
import math
from typing import Any

GEOMETRY_TYPES = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")
FORBIDDEN = ("crs", "coordinates", "geometries")
"""Members that a Feature or FeatureCollection must not have (sections 4 and 7.1)."""


def check_collection(text: str) -> list[dict[str, Any]]:
    """Check a FeatureCollection of points; returns its features."""
    assert not text.startswith("\ufeff"), "a byte order mark (RFC 8259, 8.1)"
    assert text.endswith("\n")
    collection = parse(text)
    assert list(collection) == ["type", "features"]
    assert collection["type"] == "FeatureCollection"
    assert isinstance(collection["features"], list)
    for feature in collection["features"]:
        check_feature(feature)
    ids = [feature["id"] for feature in collection["features"]]
    assert len(set(ids)) == len(ids)
    return collection["features"]


def check_feature(feature: dict[str, Any]) -> None:
    """Section 3.2: type, geometry or null, properties or null, id a string."""
    assert feature["type"] == "Feature"
    assert isinstance(feature["id"], str)
    assert not set(FORBIDDEN) & set(feature)
    assert "geometry" in feature
    if feature["geometry"] is not None:
        check_point(feature["geometry"])
    for name, value in feature["properties"].items():
        assert value is None or isinstance(value, str | int | float), (name, value)


def check_point(geometry: dict[str, Any]) -> None:
    """Sections 3.1.1 and 4: longitude first, in degrees, no more digits than are meant."""
    assert geometry["type"] == "Point"
    assert set(geometry) == {"type", "coordinates"}
    assert len(geometry["coordinates"]) == 2
    lon_deg, lat_deg = geometry["coordinates"]
    for value in (lon_deg, lat_deg):
        assert isinstance(value, int | float)
        assert not isinstance(value, bool)
        assert math.isfinite(value)
        assert round(value, 6) == value
    assert -180 <= lon_deg <= 180
    assert -90 <= lat_deg <= 90


def parse(text: str) -> Any:  # noqa: ANN401
    """JSON without NaN, without a name twice in one object."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs), "a name twice"
        return dict(pairs)

    return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
