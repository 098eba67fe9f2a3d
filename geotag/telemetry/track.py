"""What a receiver recorded: tracks, and what is left of them after the bad fixes are gone.

Shape suffix: N fixes, in the order of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Quality = Literal["good", "fair", "poor", "single_point"]


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
    container_utc_s: float | None = None
    """`creation_time` of the container, taken as UTC although many cameras write local time."""
    line: tuple[tuple[float, float, float], ...] = ()
    """The way, thinned: (seconds from the first frame, lat_deg, lon_deg); NaN times as -1."""
    notes: tuple[str, ...] = ()
    """What a person should know: `needs ExifTool`, `two sidecars disagree`."""
