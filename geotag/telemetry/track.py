"""What a receiver recorded: tracks, and what is left of them after the bad fixes are gone.

Shape suffix: N fixes, in the order of time.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

Quality = Literal["good", "fair", "poor", "single_point"]


class Fix(NamedTuple):
    """One position as a reader finds it; NaN: not known."""

    lat_deg: float
    lon_deg: float
    time_s: float = math.nan
    """Seconds from the first frame of the video."""
    utc_s: float = math.nan
    alt_m: float = math.nan
    speed_mps: float = math.nan
    mode: int = -1
    dop: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Track:
    """Fixes as a reader found them: nothing is filtered yet.  All arrays [N]; NaN: not known."""

    times_s: NDArray[np.float64]
    """Seconds from the first frame of the video; NaN where only the order is known."""
    utc_s: NDArray[np.float64]
    """Unix time; NaN where the file gives none, or only the time of day."""
    lats_deg: NDArray[np.float64]
    lons_deg: NDArray[np.float64]
    alts_m: NDArray[np.float64]
    speeds_mps: NDArray[np.float64]
    modes: NDArray[np.int8]
    """-1 unknown, 0 or 1 no fix, 2 two-dimensional, 3 three-dimensional."""
    dops: NDArray[np.float64]
    """Dilution of precision."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What one reader found in one file."""

    track: Track
    source: str
    """For a person: `gpx sidecar clip.gpx`, `exiftool: GoPro`."""
    vendor: str | None = None
    """Maker of the camera, where the telemetry says it."""
    is_camera_clock: bool = False
    """`utc_s` follows the camera's clock and may be local time, whatever it claims."""
    is_local_clock: bool = False
    """`utc_s` is local time as if it were UTC, and known to be."""
    is_shared: bool = False
    """The fixes of a whole card, of which a video has its part by time."""
    is_single_point: bool = False
    """One position for the whole video, which cannot be checked against others."""
    notes: tuple[str, ...] = ()
    """What a person should know of how it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is kept of a video's telemetry: small, plain values, the same in every run."""

    source: str | None = None
    """What read it; None where no reader found a position."""
    vendor: str | None = None
    points: int = 0
    """Fixes that passed the filter."""
    rejected: tuple[tuple[str, int], ...] = ()
    """Reason and count of those that did not."""
    quality: Quality | None = None
    """None where no fix passed: then all positions below are None."""
    median_deg: tuple[float, float] | None = None
    """(lat_deg, lon_deg) of the fix that stands for the video."""
    start_deg: tuple[float, float] | None = None
    end_deg: tuple[float, float] | None = None
    start_utc_s: float | None = None
    """Unix time of the first frame by the telemetry."""
    is_camera_clock: bool = False
    """`start_utc_s` may be local time."""
    is_local_clock: bool = False
    """`start_utc_s` is local time, for certain."""
    container_utc_s: float | None = None
    """`creation_time` of the container, taken as UTC although many cameras write local time."""
    line: tuple[tuple[float, float, float], ...] = ()
    """The way, thinned: (seconds from the first frame, lat_deg, lon_deg); NaN times as -1."""
    notes: tuple[str, ...] = ()
    """What a person should know: `needs ExifTool`, `two sidecars disagree`."""


def track_of(fixes: Sequence[Fix]) -> Track:
    """Put fixes into arrays, in their order."""
    import numpy as np

    columns = list(zip(*fixes, strict=True)) or [()] * len(Fix._fields)
    lats, lons, times, utc, alts, speeds, modes, dops = columns
    return Track(
        times_s=np.array(times, np.float64),
        utc_s=np.array(utc, np.float64),
        lats_deg=np.array(lats, np.float64),
        lons_deg=np.array(lons, np.float64),
        alts_m=np.array(alts, np.float64),
        speeds_mps=np.array(speeds, np.float64),
        modes=np.array(modes, np.int8),
        dops=np.array(dops, np.float64),
    )


def take(track: Track, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Track:
    """Some of the fixes: a mask, or their numbers in the order that is wanted."""
    return Track(
        times_s=track.times_s[chosen],
        utc_s=track.utc_s[chosen],
        lats_deg=track.lats_deg[chosen],
        lons_deg=track.lons_deg[chosen],
        alts_m=track.alts_m[chosen],
        speeds_mps=track.speeds_mps[chosen],
        modes=track.modes[chosen],
        dops=track.dops[chosen],
    )


def survey_to_json(survey: Survey) -> str:
    """Text that `survey_from_json` reads; the same survey gives the same text."""
    return json.dumps(asdict(survey), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def survey_from_json(text: str) -> Survey:
    """Read what `survey_to_json` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    fields: dict[str, Any] = json.loads(text)
    quality: Quality | None = fields.pop("quality")
    if quality is not None and quality not in get_args(Quality):
        raise ValueError(f"reading a survey: quality {quality!r}, allowed {get_args(Quality)}")
    return Survey(
        quality=quality,
        rejected=tuple((str(reason), int(count)) for reason, count in fields.pop("rejected")),
        median_deg=_point(fields.pop("median_deg")),
        start_deg=_point(fields.pop("start_deg")),
        end_deg=_point(fields.pop("end_deg")),
        line=tuple((float(t), float(lat), float(lon)) for t, lat, lon in fields.pop("line")),
        notes=tuple(map(str, fields.pop("notes"))),
        **fields,
    )


def _point(pair: list[float] | None) -> tuple[float, float] | None:
    if pair is None:
        return None
    lat_deg, lon_deg = pair
    return float(lat_deg), float(lon_deg)
