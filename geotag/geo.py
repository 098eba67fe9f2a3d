"""Distances and means on the sphere; degrees at every boundary.

Shape suffix: K points.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius of the WGS 84 ellipsoid, (2a + b) / 3 (IUGG)."""


def distances_m(
    point_deg: tuple[float, float], lats_deg: NDArray[np.float64], lons_deg: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Great-circle distance from one point to each of the others.  [K], [K] -> [K], metres.

    Source: haversine, Sinnott, Sky & Telescope 68(2), 1984; on a sphere of EARTH_RADIUS_M.
    """
    lat, lon = np.radians(point_deg)
    lats, lons = np.radians(lats_deg), np.radians(lons_deg)
    half = (
        np.sin((lats - lat) / 2) ** 2 + np.cos(lat) * np.cos(lats) * np.sin((lons - lon) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))))


def steps_m(lats_deg: NDArray[np.float64], lons_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Great-circle distance from each point to the next.  [K], [K] -> [K - 1], metres."""
    lats, lons = np.radians(lats_deg), np.radians(lons_deg)
    half = (
        np.sin(np.diff(lats) / 2) ** 2
        + np.cos(lats[:-1]) * np.cos(lats[1:]) * np.sin(np.diff(lons) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))))


def mean_point_deg(
    lats_deg: NDArray[np.float64], lons_deg: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Weighted mean of points on a sphere, (lat_deg, lon_deg); right across the date line.

    The mean of the unit vectors, put back on the sphere; where they cancel out, which leaves no
    mean direction, the heaviest point.
    """
    lats, lons = np.radians(lats_deg), np.radians(lons_deg)
    units = np.stack([np.cos(lats) * np.cos(lons), np.cos(lats) * np.sin(lons), np.sin(lats)])
    x, y, z = (units * weights).sum(axis=1) / max(float(weights.sum()), 1e-300)
    if np.hypot(np.hypot(x, y), z) < 1e-6:
        heaviest = int(weights.argmax())
        return float(lats_deg[heaviest]), float(lons_deg[heaviest])
    return float(np.degrees(np.arctan2(z, np.hypot(x, y)))), float(np.degrees(np.arctan2(y, x)))


def distance_m(a_deg: tuple[float, float], b_deg: tuple[float, float]) -> float:
    """Great-circle distance between two points, (lat_deg, lon_deg) each, in metres."""
    # The same formula as above; for a single pair numpy would take ten times as long.
    (lat_a, lon_a), (lat_b, lon_b) = map(math.radians, a_deg), map(math.radians, b_deg)
    half = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(max(half, 0.0), 1.0)))
