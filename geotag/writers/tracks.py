"""The ways of the drives: one line each, as GeoJSON (RFC 7946)."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geotag.writers.files import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Position = tuple[float, float]
"""(lat_deg, lon_deg)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveTrack:
    """One drive with GPS."""

    drive_id: str
    vendor: str | None = None
    start_utc: str | None = None
    end_utc: str | None = None
    start_local: str | None = None
    paths: tuple[str, ...] = ()
    """The files whose receiver the way comes from, in the order of time."""
    points: int
    """Fixes that passed the filter."""
    km: float
    """Length of the way."""
    line: tuple[Position, ...]
    """The way, (lat_deg, lon_deg) each, in the order of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Part of a way that does not cross the antimeridian."""

    turn_deg: float
    """What to add to its longitudes, so that they follow on from those of the first piece."""
    points: tuple[Position, ...]
    """At least two, no two neighbours the same; 6 decimals."""


def write_tracks(path: Path, tracks: Sequence[DriveTrack]) -> None:
    """Write one feature for each drive that went anywhere, atomically.

    A drive whose fixes are all one point, to 6 decimals, is left out: a line needs two, and its
    point is in the tags.

    Raises:
        OutputError: the file cannot be written; what was there is untouched.
    """
    write_file(path, tracks_geojson(tracks), option="--tracks")


def tracks_geojson(tracks: Sequence[DriveTrack]) -> str:
    """A FeatureCollection of LineStrings, and of MultiLineStrings across the antimeridian."""
    features = [_encode(feature) for feature in map(_feature, tracks) if feature is not None]
    return '{"type": "FeatureCollection", "features": [\n' + ",\n".join(features) + "\n]}\n"


def track_properties(track: DriveTrack) -> dict[str, str | int | float | None]:
    """The flat properties of a drive, in the order of the output's columns."""
    return {
        "drive_id": track.drive_id,
        "vendor": track.vendor,
        "start_utc": track.start_utc,
        "end_utc": track.end_utc,
        "start_local": track.start_local,
        "paths": "; ".join(track.paths),
        "points": track.points,
        "km": track.km,
    }


def split_line(line: Sequence[Position]) -> tuple[Piece, ...]:
    """Cut a way where it crosses the antimeridian, and drop what is too short to be a line.

    Two neighbours more than half the world apart are taken to have crossed it: the other way round
    would be longer. The latitude of the crossing lies on the straight line between them.
    Source: RFC 7946, section 3.1.9.
    """
    turn_deg = 0.0
    cut: list[tuple[float, list[Position]]] = [(turn_deg, list(line[:1]))]
    for (lat0, lon0), (lat1, lon1) in itertools.pairwise(line):
        if abs(lon1 - lon0) > 180:
            edge = 180.0 if lon0 > 0 else -180.0
            seen_from_here = lon1 + 2 * edge
            way = seen_from_here - lon0
            lat = lat0 + (lat1 - lat0) * ((edge - lon0) / way if way else 0.0)
            cut[-1][1].append((lat, edge))
            turn_deg += 2 * edge
            cut.append((turn_deg, [(lat, -edge)]))
        cut[-1][1].append((lat1, lon1))
    pieces = (Piece(turn_deg=turn, points=_distinct(points)) for turn, points in cut)
    return tuple(piece for piece in pieces if len(piece.points) > 1)


def bounds(pieces: Sequence[Piece]) -> tuple[float, float, float, float]:
    """West, south, east, north, in degrees; west > east for a way across the antimeridian.

    Source: RFC 7946, section 5.2.
    """
    lats = [lat for piece in pieces for lat, _ in piece.points]
    lons = [lon + piece.turn_deg for piece in pieces for _, lon in piece.points]
    west, east = min(lons), max(lons)
    if east - west >= 360:
        return -180.0, min(lats), 180.0, max(lats)
    width = east - west
    west = round((west + 180) % 360 - 180, 6)  # in [-180, 180)
    east = round(180 - (180 - east) % 360, 6) if width else west  # in (-180, 180]
    return west, min(lats), east, max(lats)


def _feature(track: DriveTrack) -> dict[str, object] | None:
    pieces = split_line(track.line)
    if not pieces:
        return None
    lines = [[[lon, lat] for lat, lon in piece.points] for piece in pieces]
    geometry: dict[str, object] = {"type": "LineString", "coordinates": lines[0]}
    if len(lines) > 1:
        geometry = {"type": "MultiLineString", "coordinates": lines}
    return {
        "type": "Feature",
        "id": track.drive_id,
        "bbox": bounds(pieces),
        "geometry": geometry,
        "properties": track_properties(track),
    }


def _distinct(points: Sequence[Position]) -> tuple[Position, ...]:
    """The points to 6 decimals, about 0.1 m, without standstills."""
    rounded = [(round(lat, 6) + 0.0, round(lon, 6) + 0.0) for lat, lon in points]  # no -0.0
    return tuple(point for point, _ in itertools.groupby(rounded))


def _encode(feature: dict[str, object]) -> str:
    return json.dumps(feature, ensure_ascii=False, allow_nan=False)
