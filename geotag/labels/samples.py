"""Training samples from the track of one video: where good fixes show the vehicle moving.

Shape suffix: N fixes, in the order of time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geotag.geo import steps_m
from geotag.privacy import fixes_inside, fixes_passing
from geotag.telemetry.fixes import filter_fixes, summarise
from geotag.telemetry.track import take

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from geotag.privacy import Zone
    from geotag.telemetry.track import Quality, Reading, Track

LEAST_SPEED_MPS = 3.0
"""Slower, a receiver wanders more than the vehicle moves, and the pictures stay the same."""
LEAST_WAY_M = 50.0
LEAST_SPAN_S = 10.0
"""Room for a dense clip of 2.5 s anywhere in a sample."""
MOST_GAP_S = 5.0
"""Between two fixes further apart nobody knows where the vehicle went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A stretch of a video, [start_s, end_s), recorded around one place."""

    start_s: float
    end_s: float
    lat_deg: float
    lon_deg: float
    """Of the fix nearest to the middle of the stretch."""
    speed_mps: float
    quality: Quality


def cut_samples(
    reading: Reading, *, zones: Sequence[Zone] = (), duration_s: float | None = None
) -> tuple[tuple[Sample, ...], Counter[str]]:
    """Cut the track of a video into samples that do not overlap.

    Every fix of a sample passed the filter, moves faster than LEAST_SPEED_MPS, follows the one
    before within MOST_GAP_S, and keeps away from the zones, as do the lines between them, and as
    do fixes that did not pass. A sample lasts LEAST_SPAN_S and covers LEAST_WAY_M, or more of
    one where the other asks for it.

    Args:
        reading: what the video's receiver recorded.
        zones: what must not be told of.
        duration_s: length of the video, as far as it is known.

    Returns:
        The samples in the order of time, and how many fixes were left out for which reason.
    """
    dropped: Counter[str] = Counter()
    kept, rejected = filter_fixes(reading.track)
    dropped["bad fix"] = sum(count for _, count in rejected)
    quality = summarise(reading).quality
    if reading.is_single_point or quality not in ("good", "fair"):
        dropped["too few good fixes in the video"] = kept.lats_deg.size
        return (), +dropped
    inside = kept.times_s >= 0.0
    if duration_s is not None:
        inside &= kept.times_s <= duration_s
    dropped["no time in the video"] = int((~inside).sum())
    kept = take(kept, inside)
    private = fixes_passing(zones, kept.lats_deg, kept.lons_deg)
    private |= _near_private(kept, reading.track, zones)
    ways_m = np.concatenate([[0.0], np.cumsum(steps_m(kept.lats_deg, kept.lons_deg))])
    slow = ~private & ~(_speeds_mps(kept, ways_m) > LEAST_SPEED_MPS)
    dropped["in a privacy zone"], dropped["slow or standing"] = int(private.sum()), int(slow.sum())
    samples = []
    usable = ~private & ~slow
    unused = int(usable.sum())
    for first, last in _windows(kept, ways_m, usable):
        samples.append(_sample(kept, ways_m, first, last, quality))
        unused -= last - first
    dropped["in too short a stretch"] = unused
    return tuple(samples), +dropped


def _near_private(kept: Track, found: Track, zones: Sequence[Zone]) -> NDArray[np.bool_]:
    """Which kept fixes are within MOST_GAP_S of a fix, kept or not, in a zone.  [N].

    A fix that did not pass the filter may be the true one.
    """
    times_s = found.times_s[fixes_inside(zones, found.lats_deg, found.lons_deg)]
    times_s = np.sort(times_s[np.isfinite(times_s)])
    if not times_s.size:
        return np.zeros(kept.times_s.size, np.bool_)
    after = np.searchsorted(times_s, kept.times_s).clip(max=times_s.size - 1)
    nearest_s = np.minimum(
        np.abs(times_s[after] - kept.times_s), np.abs(times_s[after - 1] - kept.times_s)
    )
    return np.asarray(nearest_s <= MOST_GAP_S)


def _speeds_mps(track: Track, ways_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the receiver says, else the way to the neighbours over its time; NaN: unknown.  [N]."""
    last = track.times_s.size - 1
    numbers = np.arange(last + 1)
    before, after = np.maximum(numbers - 1, 0), np.minimum(numbers + 1, last)
    seconds = track.times_s[after] - track.times_s[before]
    seconds = np.where(seconds > 0, seconds, np.nan)
    derived = (ways_m[after] - ways_m[before]) / seconds
    return np.where(np.isfinite(track.speeds_mps), track.speeds_mps, derived)


def _windows(
    track: Track, ways_m: NDArray[np.float64], usable: NDArray[np.bool_]
) -> Iterator[tuple[int, int]]:
    """First and last fix of each sample; the last one may be the first of the next."""
    gaps_s = np.diff(track.times_s, prepend=np.nan)
    follows = usable & (gaps_s >= 0.0) & (gaps_s <= MOST_GAP_S)
    first: int | None = None
    for number in np.flatnonzero(usable).tolist():
        if first is None or not follows[number] or not usable[number - 1]:
            first = number
            continue
        lasts_s = track.times_s[number] - track.times_s[first]
        if lasts_s >= LEAST_SPAN_S and ways_m[number] - ways_m[first] >= LEAST_WAY_M:
            yield first, number
            first = number


def _sample(
    track: Track, ways_m: NDArray[np.float64], first: int, last: int, quality: Quality
) -> Sample:
    times_s = track.times_s[first : last + 1]
    start_s, end_s = float(times_s[0]), float(times_s[-1])
    middle = first + int(np.argmin(np.abs(times_s - (start_s + end_s) / 2)))
    way_m = float(ways_m[last] - ways_m[first])
    return Sample(
        start_s=round(start_s, 3),
        end_s=round(end_s, 3),
        lat_deg=round(float(track.lats_deg[middle]), 6),
        lon_deg=round(float(track.lons_deg[middle]), 6),
        speed_mps=round(way_m / (end_s - start_s), 2),
        quality=quality,
    )
