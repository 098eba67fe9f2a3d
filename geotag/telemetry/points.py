"""Single positions: of a container, and of Tesla's event.json."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from geotag.telemetry.track import Fix, Reading, track_of

if TYPE_CHECKING:
    from geotag.types import VideoFacts

_NUMBER = r"[+-]\d+(?:\.\d*)?"
_ISO_6709 = re.compile(rf"({_NUMBER})({_NUMBER})({_NUMBER})?(?:CRS[^/]*)?/?\s*$", re.ASCII)


def read_iso6709(text: str) -> tuple[float, float, float | None]:
    """Latitude, longitude (degrees) and altitude (m, or None) of an ISO 6709 text.

    Raises:
        ValueError: it is none, or no place on Earth.

    Source: ISO 6709:2008 Annex H: degrees, or degrees and minutes, or degrees, minutes and
        seconds, told apart by the number of digits before the point.
    """
    match = _ISO_6709.match(text.strip())
    if match is None:
        raise ValueError(f"reading a position: {text[:60]!r} is not like +32.0929+034.8620/")
    lat_deg, lon_deg = _angle_deg(match[1], 2), _angle_deg(match[2], 3)
    if abs(lat_deg) > 90 or abs(lon_deg) > 180:
        raise ValueError(f"reading a position: {text[:60]!r} is no place on Earth")
    return lat_deg, lon_deg, float(match[3]) if match[3] else None


def read_container(container: VideoFacts | None) -> Reading | None:
    """The position that a container gives for the whole video; None where there is none."""
    if container is None or container.location is None:
        return None
    try:
        lat_deg, lon_deg, alt_m = read_iso6709(container.location)
    except ValueError:
        return None
    fix = Fix(lat_deg, lon_deg, alt_m=math.nan if alt_m is None else alt_m)
    return Reading(
        track=track_of([fix]), source="container: ISO 6709 location", is_single_point=True
    )


def read_tesla_event(text: str) -> Reading:
    """Where the car believed to be at the event that kept its clips.

    Raises:
        ValueError: it is something else, or holds no position.

    Source: event.json beside the clips: est_lat and est_lon, numbers written as text.
    """
    event: Any = json.loads(text)
    try:
        lat_deg, lon_deg = float(event["est_lat"]), float(event["est_lon"])
    except (KeyError, TypeError) as exc:
        raise ValueError("no est_lat and est_lon in it") from exc
    return Reading(
        track=track_of([Fix(lat_deg, lon_deg)]),
        source="Tesla event.json",
        vendor="Tesla",
        is_single_point=True,
    )


def _angle_deg(text: str, degree_digits: int) -> float:
    sign, digits = (-1.0 if text[0] == "-" else 1.0), text[1:]
    whole, _, fraction = digits.partition(".")
    rest = f"{whole[degree_digits:]}.{fraction or 0}"
    extra = len(whole) - degree_digits
    if extra <= 0:
        return sign * float(digits)
    degrees = float(whole[:degree_digits])
    if extra == 2:
        return sign * (degrees + float(rest) / 60)
    if extra == 4:
        minutes, seconds = float(rest[:2]), float(rest[2:])
        return sign * (degrees + minutes / 60 + seconds / 3600)
    raise ValueError(f"reading a position: {text!r} has {len(whole)} digits before the point")
