"""The folder `oxts` of a KITTI drive: one text file per frame, and their times.

Source: KITTI raw data, dataformat.txt: latitude, longitude (degrees), altitude (m); 9th field
    forward speed (m/s). The times are local.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from geotag.telemetry.track import Fix, Reading, track_of
from geotag.telemetry.zones import as_if_utc_s

if TYPE_CHECKING:
    from pathlib import Path

_MOST_FILES = 20_000
_MOST_BYTES = 4096
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(\.\d+)?", re.ASCII)
_FORWARD_SPEED = 8


def read_oxts(folder: Path) -> Reading:
    """Positions of a folder `oxts`.

    Raises:
        ValueError: it holds none.
        OSError: it cannot be read.
    """
    records = sorted(islice((folder / "data").glob("*.txt"), _MOST_FILES))
    if not records:
        raise ValueError("the folder oxts has no data/*.txt")
    clocks_s = _clocks_s(folder / "timestamps.txt", len(records))
    fixes = [
        fix._replace(time_s=clock_s - clocks_s[0], utc_s=clock_s)
        for path, clock_s in zip(records, clocks_s, strict=True)
        if (fix := _read_record(path)) is not None
    ]
    return Reading(
        track=track_of(fixes), source="KITTI OXTS", is_camera_clock=True, is_local_clock=True
    )


def _read_record(path: Path) -> Fix | None:
    with path.open("r", encoding="ascii", errors="replace") as stream:
        fields = stream.read(_MOST_BYTES).split()
    try:
        lat_deg, lon_deg, alt_m = map(float, fields[:3])
        speed_mps = float(fields[_FORWARD_SPEED])
    except (ValueError, IndexError):
        return None
    return Fix(lat_deg, lon_deg, alt_m=alt_m, speed_mps=speed_mps)


def _clocks_s(path: Path, count: int) -> list[float]:
    """Local time of each record as if it were UTC; NaN where the file does not tell.  [count]."""
    clocks_s: list[float] = []
    try:
        with path.open("r", encoding="ascii", errors="replace") as stream:
            for line in islice(stream, count):
                match = _TIME.match(line)
                moment = datetime.fromisoformat(match[1]) if match else None
                fraction_s = float(f"0{match[2] or ''}") if match else 0.0
                clocks_s.append(as_if_utc_s(moment) + fraction_s if moment else math.nan)
    except (OSError, ValueError):
        pass
    return clocks_s + [math.nan] * (count - len(clocks_s))
