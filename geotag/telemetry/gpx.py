"""GPX files, whole or cut short."""

from __future__ import annotations

import math
from datetime import timezone
from typing import TYPE_CHECKING, Any

from geotag.telemetry.track import Fix, Reading, track_of

if TYPE_CHECKING:
    from datetime import datetime

_MODES = {"none": 0, "2d": 2, "3d": 3, "dgps": 3, "pps": 3}
_LAST_POINT = "</trkpt>"
_ENDING = "</trkseg></trk></gpx>"


def read_gpx(text: str) -> Reading:
    """Points of the tracks, else of the routes, else the waypoints.

    A file that ends in the middle, as after a power cut, gives what it holds, and a note.

    Raises:
        ValueError: it is no GPX.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("a GPX file with a DOCTYPE could grow beyond measure and is not read")
    notes: tuple[str, ...] = ()
    try:
        parsed = _parse(text)
    except ValueError:
        whole, mark, _ = text.rpartition(_LAST_POINT)
        if not mark or "</gpx>" in text:
            raise
        parsed = _parse(whole + mark + _ENDING)
        notes = ("the GPX file is cut short",)
    fixes = [_fix(point) for point in _points(parsed)]
    return Reading(track=track_of(fixes), source="GPX", notes=notes)


def _parse(text: str) -> Any:  # noqa: ANN401 - gpxpy has no types
    import gpxpy
    import gpxpy.gpx

    try:
        return gpxpy.parse(text)
    except (gpxpy.gpx.GPXException, TypeError, AttributeError) as exc:
        raise ValueError(f"no GPX: {exc}") from exc


def _points(parsed: Any) -> list[Any]:  # noqa: ANN401
    tracks = [p for track in parsed.tracks for segment in track.segments for p in segment.points]
    routes = [point for route in parsed.routes for point in route.points]
    return tracks or routes or list(parsed.waypoints)


def _fix(point: Any) -> Fix:  # noqa: ANN401
    return Fix(
        _number(point.latitude),
        _number(point.longitude),
        utc_s=_utc_s(point.time),
        alt_m=_number(point.elevation),
        speed_mps=_number(point.speed),
        mode=_MODES.get(point.type_of_gpx_fix or "", -1),
        dop=_number(point.horizontal_dilution),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _utc_s(moment: datetime | None) -> float:
    """GPX demands UTC, so a time without a zone is that."""
    if moment is None:
        return math.nan
    try:
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    except (ValueError, OverflowError):
        return math.nan
