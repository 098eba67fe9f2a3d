"""Which fixes can be believed, and what is kept of them.

Shape suffix: N fixes, in the order of time.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from geotag.geo import EARTH_RADIUS_M, distances_m
from geotag.telemetry.lines import thin_line
from geotag.telemetry.track import Survey, take

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geotag.telemetry.track import Quality, Reading, Track
    from geotag.types import VideoFacts

MOST_DOP = 10.0
"""Beyond, the sky is seen so badly that a fix may be off by hundreds of metres."""
MOST_ALTITUDE_M = 9000.0
"""No road is higher than 5900 m; receivers without a fix report tens of kilometres."""
MOST_SPEED_MPS = 70.0
"""252 km/h: no road vehicle between two fixes, other than by a wrong one."""
FEWEST_FIXES = 3
"""Fewer that agree with one another prove nothing."""
_CLOCK_STEP_S = 1.0
"""Most receivers tell whole seconds, so two fixes may be that much further apart in time."""
_LONGEST_GAP_S = 600.0
"""However long a receiver saw nothing: 42 km at MOST_SPEED_MPS."""
_MOST_APART_S = 86400.0
"""No video is longer; receivers remember fixes of other days."""
_NULL_DEG = 0.001
"""Around 0 N 0 E, where receivers without a fix believe to be."""
_GOOD_FIXES = 10
_MOST_COMPARED = 200
"""Of a long way, this many fixes are compared for the one in the middle."""


def filter_fixes(track: Track) -> tuple[Track, tuple[tuple[str, int], ...]]:
    """Leave out what a receiver reports without knowing where it is.

    Left out, each for the first reason that holds: no fix by its own word ("mode"), coordinates
    that do not exist ("range"), 0 N 0 E ("null island"), bad geometry ("dop"), "altitude", more
    than a day from the others ("time"), and a "jump": a fix that no vehicle reaches from the
    others. Of parts of the way that do not connect, the one with the most fixes counts, and each
    other that connects to it: one wild fix costs itself, not those that follow. What is left
    must be three or more ("alone").

    Returns:
        The kept fixes, in the order of time, and how many were left out for which reason.

    Source: thresholds from what cameras were seen to write without a fix, 42.0 N 129.3 W at
        9540 m with GPSMeasureMode 0 and DOP 99.99 (GoPro HERO8).
    """
    ordered = _in_order(track)
    reasons = _plain_reasons(ordered)
    counts = Counter({name: int(count) for name, count in _counted(reasons)})
    kept = take(ordered, reasons == "")
    connected = _connected(kept)
    counts["jump"] = int((~connected).sum())
    kept = take(kept, connected)
    if 0 < kept.lats_deg.size < FEWEST_FIXES:
        counts["alone"] = kept.lats_deg.size
        kept = take(kept, np.zeros(kept.lats_deg.size, bool))
    return kept, tuple((name, count) for name, count in counts.items() if count)


def summarise(
    reading: Reading, container: VideoFacts | None = None, notes: tuple[str, ...] = ()
) -> Survey:
    """Keep what a tag, a drive and a map need of a reading.

    The fix that stands for the video is the one with the smallest sum of distances to the
    others, so a point on the way. Quality: "single_point" for a position that stands alone by
    its nature; "good": ten fixes or more, nine of ten kept; "fair": half of them kept; else
    "poor".
    """
    kept, rejected = (
        _single(reading.track) if reading.is_single_point else filter_fixes(reading.track)
    )
    plain = Survey(
        source=reading.source,
        vendor=reading.vendor,
        rejected=rejected,
        container_utc_s=container.created_utc_s if container else None,
        notes=(*notes, *reading.notes),
    )
    if not kept.lats_deg.size:
        return plain
    return _with_positions(plain, reading, kept)


def _with_positions(plain: Survey, reading: Reading, kept: Track) -> Survey:
    quality: Quality = "single_point" if reading.is_single_point else _quality(kept, reading.track)
    points = [
        (round(float(lat), 7), round(float(lon), 7))
        for lat, lon in zip(kept.lats_deg, kept.lons_deg, strict=True)
    ]
    return Survey(
        source=plain.source,
        vendor=plain.vendor,
        points=len(points),
        rejected=plain.rejected,
        quality=quality,
        median_deg=points[_middle(kept)],
        start_deg=points[0],
        end_deg=points[-1],
        start_utc_s=_start_utc_s(kept),
        is_camera_clock=reading.is_camera_clock,
        is_local_clock=reading.is_local_clock,
        container_utc_s=plain.container_utc_s,
        line=thin_line(kept),
        notes=plain.notes,
    )


def _in_order(track: Track) -> Track:
    """By time where every fix has one; receivers and loggers write late now and then."""
    for clock in (track.times_s, track.utc_s):
        if clock.size and np.isfinite(clock).all():
            return take(track, np.argsort(clock, kind="stable"))
    return track


def _plain_reasons(track: Track) -> NDArray[np.str_]:
    """The first reason against each fix by itself, "" where there is none.  [N]."""
    lats, lons = track.lats_deg, track.lons_deg
    # Comparisons with NaN are False, so what is not known is no reason, but for the position.
    outside = ~((np.abs(lats) <= 90) & (np.abs(lons) <= 180))
    return np.select(
        [
            (track.modes == 0) | (track.modes == 1),
            outside,
            (np.abs(lats) < _NULL_DEG) & (np.abs(lons) < _NULL_DEG),
            track.dops > MOST_DOP,
            np.abs(track.alts_m) > MOST_ALTITUDE_M,
            _is_of_another_day(track.utc_s),
        ],
        ["mode", "range", "null island", "dop", "altitude", "time"],
        default="",
    )


def _is_of_another_day(utc_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    timed = np.isfinite(utc_s)
    if not timed.any():
        return timed
    return np.asarray(np.abs(utc_s - np.median(utc_s[timed])) > _MOST_APART_S)


def _counted(reasons: NDArray[np.str_]) -> list[tuple[str, int]]:
    names, counts = np.unique(reasons[reasons != ""], return_counts=True)
    return [(str(name), int(count)) for name, count in zip(names, counts, strict=True)]


def _connected(track: Track) -> NDArray[np.bool_]:
    """Which fixes belong to the way: the longest unbroken part and all that connect to it.  [N]."""
    count = track.lats_deg.size
    chosen = np.zeros(count, bool)
    if count == 0:
        return chosen
    clock_s = _clock_s(track)
    breaks = np.flatnonzero(_steps_m(track) > _reach_m(np.diff(clock_s))) + 1
    starts = [0, *breaks.tolist()]
    stops = [*breaks.tolist(), count]
    parts = list(zip(starts, stops, strict=True))
    longest = max(range(len(parts)), key=lambda number: parts[number][1] - parts[number][0])
    chosen[slice(*parts[longest])] = True

    last = parts[longest][1] - 1
    for start, stop in parts[longest + 1 :]:
        if _connects(track, clock_s, last, start):
            chosen[start:stop] = True
            last = stop - 1
    first = parts[longest][0]
    for start, stop in reversed(parts[:longest]):
        if _connects(track, clock_s, stop - 1, first):
            chosen[start:stop] = True
            first = start
    return chosen


def _clock_s(track: Track) -> NDArray[np.float64]:
    """A time for each fix: the track's own where it is whole, else one fix a second.  [N]."""
    for clock in (track.times_s, track.utc_s):
        if np.isfinite(clock).all():
            return clock
    return np.arange(track.lats_deg.size, dtype=np.float64)


def _steps_m(track: Track) -> NDArray[np.float64]:
    """Great-circle distance from each fix to the next.  [N - 1]."""
    lats, lons = np.radians(track.lats_deg), np.radians(track.lons_deg)
    half = (
        np.sin(np.diff(lats) / 2) ** 2
        + np.cos(lats[:-1]) * np.cos(lats[1:]) * np.sin(np.diff(lons) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))))


def _reach_m(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far a vehicle comes.  [N] -> [N], metres."""
    return np.asarray(
        MOST_SPEED_MPS * (np.minimum(np.abs(seconds), _LONGEST_GAP_S) + _CLOCK_STEP_S)
    )


def _connects(track: Track, clock_s: NDArray[np.float64], earlier: int, later: int) -> bool:
    pair = take(track, np.array([earlier, later], np.intp))
    return bool(_steps_m(pair)[0] <= _reach_m(clock_s[later] - clock_s[earlier]))


def _single(track: Track) -> tuple[Track, tuple[tuple[str, int], ...]]:
    """A lone position: nothing but its own numbers speak for it."""
    reasons = _plain_reasons(track)
    return take(track, reasons == ""), tuple(_counted(reasons))


def _quality(kept: Track, found: Track) -> Quality:
    share = kept.lats_deg.size / found.lats_deg.size
    if kept.lats_deg.size >= _GOOD_FIXES and share >= 0.9:
        return "good"
    return "fair" if share >= 0.5 else "poor"


def _middle(track: Track) -> int:
    """Number of the fix with the smallest sum of distances to the others; of equals the first."""
    count = track.lats_deg.size
    sample = np.unique(np.linspace(0, count - 1, min(count, _MOST_COMPARED)).astype(np.intp))
    lats, lons = track.lats_deg[sample], track.lons_deg[sample]
    sums = [
        float(distances_m((float(lat), float(lon)), lats, lons).sum())
        for lat, lon in zip(lats, lons, strict=True)
    ]
    # Rounded, so that the last bit of a sum does not choose.
    return int(sample[int(np.argmin(np.round(sums, 3)))])


def _start_utc_s(track: Track) -> float | None:
    """UTC of the first frame: half of the fixes say earlier, half later."""
    timed = np.isfinite(track.utc_s)
    if not timed.any():
        return None
    placed = timed & np.isfinite(track.times_s)
    if placed.any():
        return round(float(np.median(track.utc_s[placed] - track.times_s[placed])), 3)
    # Records without a time in the video: cameras begin to write them with the video.
    return round(float(track.utc_s[timed][0]), 3)
