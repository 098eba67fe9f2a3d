"""GeoPackage 1.4: the layer `tags`, one point a video, and the layer `tracks`, one line a drive."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from geotag.errors import OutputError
from geotag.writers.format import TableFormat
from geotag.writers.frames import tags_frame, tracks_frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from geotag.types import Tag
    from geotag.writers.tracks import DriveTrack

LAST_CHANGE = "1970-01-01T00:00:00.000Z"
"""What the file says about when it was changed: the same tags give the same bytes."""


def encode(tags: Sequence[Tag], tracks: Sequence[DriveTrack] | None = None) -> bytes:
    """The file, made in the folder for temporary files: SQLite needs locks, which cards lack.

    Raises:
        OutputError: that folder cannot be written.
    """
    layers = {"tags": (tags_frame(tags), "Point")}
    if tracks is not None:
        layers["tracks"] = (tracks_frame(tracks), "MultiLineString")
    try:
        with tempfile.TemporaryDirectory(prefix="geotag-") as folder, _same_date():
            path = Path(folder) / "out.gpkg"
            for layer, (frame, shape) in layers.items():
                frame.to_file(
                    path,
                    layer=layer,
                    driver="GPKG",
                    engine="pyogrio",
                    geometry_type=shape,
                    index=False,
                )
            return path.read_bytes()
    except (OSError, RuntimeError) as exc:  # GDAL's errors are RuntimeErrors
        raise OutputError(
            f"making a GeoPackage in {tempfile.gettempdir()}: {exc}. Free some space there, or "
            "set TMPDIR to another folder."
        ) from exc


@contextlib.contextmanager
def _same_date() -> Iterator[None]:
    """Have GDAL write LAST_CHANGE instead of the time of day."""
    from pyogrio import get_gdal_config_option, set_gdal_config_options  # type: ignore[import-untyped]

    before = get_gdal_config_option("OGR_CURRENT_DATE")
    set_gdal_config_options({"OGR_CURRENT_DATE": LAST_CHANGE})
    try:
        yield
    finally:
        set_gdal_config_options({"OGR_CURRENT_DATE": before})


GEOPACKAGE = TableFormat(modules=("geopandas", "pyogrio"), encode=encode)
