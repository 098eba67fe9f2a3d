"""What a writer of one format is: pieces of text, or a function from all the rows to bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from geotag.types import Tag
    from geotag.writers.tracks import DriveTrack


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A file format as pieces of text, so that a file can be written one tag at a time."""

    head: str
    separator: str
    tail: str
    row: Callable[[Tag], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFormat:
    """A file format that is written as a whole, from all the tags."""

    modules: tuple[str, ...]
    """What it is written with, installed by the extra `geo`; imported for this format only."""
    encode: Callable[[Sequence[Tag], Sequence[DriveTrack] | None], bytes]
    """Tags, and tracks where they are wanted, to the bytes of the file."""


def position(tag: Tag) -> tuple[float, float] | None:
    """The point that stands for a tag, (lat_deg, lon_deg): that of whoever gave the answer.

    None where there is no answer, whatever else was seen or measured.
    """
    lat_deg, lon_deg = {
        "gps": (tag.gps_lat, tag.gps_lon),
        "visual": (tag.visual_lat, tag.visual_lon),
        "drive": (tag.drive_lat, tag.drive_lon),
        "none": (None, None),
    }[tag.location_source]
    return None if lat_deg is None or lon_deg is None else (lat_deg, lon_deg)
