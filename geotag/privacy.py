"""Zones of which nothing may be told: what was recorded there leaves no trace in what is written.

A zone trims: what lies in it is left out, not rounded. No text made here holds the coordinates of
a zone, since logs are sent around.
Shape suffix: N fixes, in the order of time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geotag.errors import ConfigError
from geotag.geo import EARTH_RADIUS_M, distances_m

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MARGIN_M = 50.0
"""Added to every radius: what a receiver in a street may be wrong by, and what a lens sees."""
MAX_RADIUS_M = 1_000_000.0
_FORM = "LAT,LON,RADIUS_M in degrees and metres, such as 48.137,11.575,500"


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A disc on the sphere."""

    lat_deg: float
    lon_deg: float
    radius_m: float

    def __repr__(self) -> str:
        """Nothing that tells where."""
        return "Zone(...)"


def parse_zones(texts: Sequence[str], file: Path | None = None) -> tuple[Zone, ...]:
    """Read zones from flags, and from a file with one a line; `#` begins a comment.

    Raises:
        ConfigError: one of them is no zone, or the file cannot be read.
    """
    zones = [_parse(text, f"--exclude number {number}") for number, text in enumerate(texts, 1)]
    if file is not None:
        for number, line in enumerate(_read_lines(file), 1):
            text = line.partition("#")[0].strip()
            if text:
                zones.append(_parse(text, f"{file}, line {number}"))
    return tuple(zones)


def fixes_inside(
    zones: Sequence[Zone], lats_deg: NDArray[np.float64], lons_deg: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which fixes lie in a zone or its margin; one whose position is NaN does not.  [N] -> [N]."""
    inside = np.zeros(len(lats_deg), np.bool_)
    for zone in zones:
        away_m = distances_m((zone.lat_deg, zone.lon_deg), lats_deg, lons_deg)
        inside |= away_m <= zone.radius_m + MARGIN_M
    return inside


def fixes_passing(
    zones: Sequence[Zone], lats_deg: NDArray[np.float64], lons_deg: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which fixes lie in a zone, or are an end of a straight line through one.  [N] -> [N]."""
    passing = fixes_inside(zones, lats_deg, lons_deg)
    for zone in zones:
        away_m = _line_distances_m(zone, lats_deg, lons_deg)
        through = away_m <= zone.radius_m + MARGIN_M
        passing[:-1] |= through
        passing[1:] |= through
    return passing


def _line_distances_m(
    zone: Zone, lats_deg: NDArray[np.float64], lons_deg: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance from the centre to the line between each fix and the next.  [N], [N] -> [N - 1].

    On the plane that touches the sphere at the centre: exact where it matters, near the zone.
    """
    east_deg = (lons_deg - zone.lon_deg + 180.0) % 360.0 - 180.0
    # Two fixes on both sides of the far meridian would be joined the long way round, through here.
    jumps = np.abs(np.diff(east_deg)) > 180.0
    metres_per_deg = math.radians(EARTH_RADIUS_M)
    xs = east_deg * metres_per_deg * math.cos(math.radians(zone.lat_deg))
    ys = (lats_deg - zone.lat_deg) * metres_per_deg
    steps_x, steps_y = np.diff(xs), np.diff(ys)
    squares = np.maximum(steps_x**2 + steps_y**2, 1e-12)
    along = np.clip(-(xs[:-1] * steps_x + ys[:-1] * steps_y) / squares, 0.0, 1.0)
    distances = np.hypot(xs[:-1] + along * steps_x, ys[:-1] + along * steps_y)
    return np.where(jumps, np.inf, distances)


def _parse(text: str, where: str) -> Zone:
    try:
        lat_deg, lon_deg, radius_m = (float(part) for part in text.split(","))
    except ValueError as exc:
        raise ConfigError(f"reading the privacy zone of {where}: it is not {_FORM}.") from exc
    for name, value, least, most in (
        ("latitude", lat_deg, -90.0, 90.0),
        ("longitude", lon_deg, -180.0, 180.0),
        ("radius", radius_m, 1.0, MAX_RADIUS_M),
    ):
        if not least <= value <= most:
            raise ConfigError(
                f"reading the privacy zone of {where}: its {name} is outside {least:g} to "
                f"{most:g}. A zone is {_FORM}."
            )
    return Zone(lat_deg=lat_deg, lon_deg=lon_deg, radius_m=radius_m)


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"reading the privacy zones of {file}: {reason}. Nothing is written without them."
        ) from exc
