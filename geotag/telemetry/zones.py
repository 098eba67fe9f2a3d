"""Time zones from positions, and what their clocks showed."""

from __future__ import annotations

import zoneinfo
from datetime import datetime, timezone


def zone_at(point_deg: tuple[float, float]) -> str | None:
    """IANA name of the time zone at (lat_deg, lon_deg); None where none is known."""
    import tzfpy

    lat_deg, lon_deg = point_deg
    name = str(tzfpy.get_tz(lon_deg, lat_deg) or "")
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return None
    return name


def offset_s(zone: str, utc_s: float) -> float:
    """Seconds that a zone's clocks are ahead of UTC at a moment.

    Raises:
        ValueError, OverflowError, OSError: no calendar has that moment.
    """
    moment = datetime.fromtimestamp(utc_s, tz=zoneinfo.ZoneInfo(zone))
    offset = moment.utcoffset()
    return offset.total_seconds() if offset else 0.0


def utc_of_local_s(zone: str, local: datetime) -> float:
    """Unix time at which a zone's clocks showed a time.

    The hour that comes twice in autumn is taken as its first pass, and the one that spring leaves
    out as if the clock had not yet been set.

    Source: PEP 495, fold = 0.
    """
    return local.replace(tzinfo=zoneinfo.ZoneInfo(zone), fold=0).timestamp()


def as_if_utc_s(local: datetime) -> float:
    """A zoneless time as if its clock had shown UTC."""
    return local.replace(tzinfo=timezone.utc).timestamp()
