"""A way with fewer points.

Shape suffix: N fixes, in the order of time.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from geotag.geo import EARTH_RADIUS_M

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geotag.telemetry.track import Track

MOST_POINTS = 200
FINEST_M = 1.0
"""A receiver is not better than that, so nothing is lost by leaving such corners out."""


def thin_line(track: Track) -> tuple[tuple[float, float, float], ...]:
    """Keep the points that shape a way: ends first, then whatever is furthest from the line.

    Returns:
        At most MOST_POINTS of (seconds from the first frame or -1, lat_deg, lon_deg), in order.

    Source: Douglas and Peucker, Cartographica 10(2), 1973, the worst corner first.
    """
    return tuple(
        (
            round(float(track.times_s[number]), 3) if np.isfinite(track.times_s[number]) else -1.0,
            round(float(track.lats_deg[number]), 7),
            round(float(track.lons_deg[number]), 7),
        )
        for number in _kept_numbers(_flat_m(track))
    )


def _kept_numbers(points_m: NDArray[np.float64]) -> list[int]:
    last = len(points_m) - 1
    if last < 1:
        return list(range(len(points_m)))
    kept = {0, last}
    # Largest distance first; of equals the earliest, which makes the choice the same every time.
    heap = [_worst(points_m, 0, last)]
    while heap and len(kept) < MOST_POINTS:
        negative_m, corner, start, stop = heapq.heappop(heap)
        if -negative_m < FINEST_M:
            break
        kept.add(corner)
        heapq.heappush(heap, _worst(points_m, start, corner))
        heapq.heappush(heap, _worst(points_m, corner, stop))
    return sorted(kept)


def _worst(points_m: NDArray[np.float64], start: int, stop: int) -> tuple[float, int, int, int]:
    """(minus the distance, number) of the point furthest from the chord, and the chord."""
    inner = points_m[start + 1 : stop]
    if not len(inner):
        return (0.0, start, start, stop)
    a, chord = points_m[start], points_m[stop] - points_m[start]
    along = np.clip((inner - a) @ chord / max(float(chord @ chord), 1e-12), 0.0, 1.0)
    away_m = np.hypot(*(inner - a - along[:, None] * chord).T)
    number = int(np.argmax(np.round(away_m, 3)))
    return (-float(away_m[number]), start + 1 + number, start, stop)


def _flat_m(track: Track) -> NDArray[np.float64]:
    """Metres east and north of the first fix, right across the date line.  [N, 2]."""
    if not track.lats_deg.size:
        return np.zeros((0, 2))
    lons = (track.lons_deg - track.lons_deg[0] + 180) % 360 - 180
    lats = track.lats_deg - track.lats_deg[0]
    shrink = np.cos(np.radians(track.lats_deg.mean()))
    return np.asarray(np.radians(np.stack([lons * shrink, lats], axis=1)) * EARTH_RADIUS_M)
