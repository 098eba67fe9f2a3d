"""GeoParquet 1.1: one row a video, with the bounding boxes that readers skip rows by."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from geotag.writers.format import TableFormat
from geotag.writers.frames import tags_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geotag.types import Tag
    from geotag.writers.tracks import DriveTrack


def encode(tags: Sequence[Tag], tracks: Sequence[DriveTrack] | None = None) -> bytes:
    """The file; it has room for one table, so the tracks are not in it."""
    stream = io.BytesIO()
    tags_frame(tags).to_parquet(
        stream, index=False, schema_version="1.1.0", write_covering_bbox=True
    )
    return stream.getvalue()


GEOPARQUET = TableFormat(modules=("geopandas", "pyarrow.parquet"), encode=encode)
