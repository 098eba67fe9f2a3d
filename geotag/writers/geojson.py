"""GeoJSON: one FeatureCollection, one Point feature a video (RFC 7946)."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING

from geotag.types import Tag
from geotag.writers.format import Format, position

if TYPE_CHECKING:
    from collections.abc import Callable

_encode: Callable[[object], str] = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_NAMES = tuple(field.name for field in fields(Tag))


def feature(tag: Tag) -> str:
    """One Feature on one line, properties flat and in the order of Tag's fields.

    The point is (lon, lat), 6 decimals, about 0.1 m; a video without a place has a null geometry,
    which RFC 7946 section 3.2 calls an unlocated feature.
    """
    point = position(tag)
    geometry = None
    if point is not None:
        geometry = {"type": "Point", "coordinates": [round(point[1], 6), round(point[0], 6)]}
    properties = {name: getattr(tag, name) for name in _NAMES}
    return _encode(
        {"type": "Feature", "id": tag.id, "geometry": geometry, "properties": properties}
    )


GEOJSON = Format(
    head='{"type": "FeatureCollection", "features": [\n',
    separator=",\n",
    tail="\n]}\n",
    row=feature,
)
