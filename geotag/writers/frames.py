"""Tags and tracks as geopandas frames, whose columns have the same types whatever they hold.

geopandas is imported inside the functions: only GeoParquet and GeoPackage need it.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from geotag.errors import ConfigError
from geotag.types import Tag
from geotag.writers.format import position
from geotag.writers.tracks import DriveTrack, split_line, track_properties

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CRS = "EPSG:4326"
EXTRA = "pip install '.[geo]' in geotag's source folder"

_TRACK_TYPES: dict[str, type] = {"points": int, "km": float}
"""Of the properties of a track that are not text."""
_DTYPES: dict[type, str] = {str: "string", int: "Int64", float: "float64"}


def need(out: str, modules: Sequence[str]) -> None:
    """Make sure, before hours of work, that a format can be written.

    Raises:
        ConfigError: a package is missing or does not load.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as exc:
            raise ConfigError(
                f"--out {out}: this format is written with {name}, which cannot be loaded ({exc}). "
                f"Install it with {EXTRA}, or choose .geojson, .geojsonl or .csv."
            ) from exc


def tags_frame(tags: Sequence[Tag]) -> Any:  # noqa: ANN401 - geopandas is not there for mypy
    """One row a tag, in the order of Tag's fields, its point last; a GeoDataFrame."""
    import shapely

    rows = [{name: getattr(tag, name) for name in tag_types()} for tag in tags]
    points = [position(tag) for tag in tags]
    shapes = [None if p is None else shapely.Point(round(p[1], 6), round(p[0], 6)) for p in points]
    return _frame(rows, tag_types(), shapes)


def tracks_frame(tracks: Sequence[DriveTrack]) -> Any:  # noqa: ANN401 - as above
    """One row a drive that went anywhere, its way last, always a MultiLineString."""
    import shapely

    rows, shapes = [], []
    for track in tracks:
        pieces = split_line(track.line)
        if pieces:
            rows.append(track_properties(track))
            lines = [[(lon, lat) for lat, lon in piece.points] for piece in pieces]
            shapes.append(shapely.MultiLineString(lines))
    names = track_properties(DriveTrack(drive_id="", points=0, km=0.0, line=()))
    return _frame(rows, {name: _TRACK_TYPES.get(name, str) for name in names}, shapes)


@functools.cache
def tag_types() -> dict[str, type]:
    """The type of each field of Tag, None left aside: str, int or float."""
    hints = get_type_hints(Tag)
    return {field.name: _plain(hints[field.name]) for field in fields(Tag)}


def _plain(hint: object) -> type:
    """The type of a hint's values: `Literal["a", "b"] | None` is str."""
    if isinstance(hint, type):
        return hint
    kinds = {
        _plain(part) if isinstance(part, type) or get_args(part) else type(part)
        for part in get_args(hint)
    } - {type(None)}
    (kind,) = kinds
    return kind


def _frame(
    rows: Sequence[Mapping[str, object]], types: Mapping[str, type], shapes: Sequence[object]
) -> Any:  # noqa: ANN401 - as above
    import geopandas
    import pandas as pd

    columns = {
        name: pd.Series(list(_cells((row[name] for row in rows), kind)), dtype=_DTYPES[kind])
        for name, kind in types.items()
    }
    return geopandas.GeoDataFrame(columns, geometry=geopandas.GeoSeries(shapes, crs=CRS), crs=CRS)


def _cells(values: Iterable[object], kind: type) -> Iterable[object]:
    """Letters that UTF-8 does not have are spelt out, as in the text formats."""
    if kind is not str:
        return values
    return (
        value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for value in values
    )
