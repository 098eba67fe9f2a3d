"""What a writer of one format is: text before, between and after the tags, and one tag's text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from geotag.types import Tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A file format as pieces of text, so that a file can be written one tag at a time."""

    head: str
    separator: str
    tail: str
    row: Callable[[Tag], str]


def position(tag: Tag) -> tuple[float, float] | None:
    """The point that stands for a tag, (lat_deg, lon_deg): measured before predicted."""
    if tag.location_source == "gps" and tag.gps_lat is not None and tag.gps_lon is not None:
        return tag.gps_lat, tag.gps_lon
    if tag.visual_lat is not None and tag.visual_lon is not None:
        return tag.visual_lat, tag.visual_lon
    return None
