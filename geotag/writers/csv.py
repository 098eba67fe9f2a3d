"""CSV: RFC 4180, UTF-8; latitude and longitude first, where GDAL, QGIS and kepler.gl look."""

from __future__ import annotations

import csv
import io
from dataclasses import fields
from typing import TYPE_CHECKING

from geotag.types import Tag
from geotag.writers.format import Format, position

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMES = tuple(field.name for field in fields(Tag))


def record(tag: Tag) -> str:
    """One record; null is the empty field."""
    lat_deg, lon_deg = position(tag) or (None, None)
    return _join([lat_deg, lon_deg, *(getattr(tag, name) for name in _NAMES)])


def _join(values: Iterable[object]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return text.getvalue()


CSV = Format(head=_join(["latitude", "longitude", *_NAMES]), separator="", tail="", row=record)
