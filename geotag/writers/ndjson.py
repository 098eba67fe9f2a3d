"""Newline-delimited GeoJSON: one Feature a line, what GDAL calls GeoJSONSeq; it can be streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geotag.writers.format import Format
from geotag.writers.geojson import feature

if TYPE_CHECKING:
    from geotag.types import Tag


def line(tag: Tag) -> str:
    """The feature and its newline; JSON escapes every newline inside."""
    return feature(tag) + "\n"


NDJSON = Format(head="", separator="", tail="", row=line)
