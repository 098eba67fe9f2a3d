"""Garmin's FIT files: VIRB cameras write one beside their videos, watches and bike computers too.

Source: profile of the FIT SDK: messages `gps_metadata` (160, ten fixes a second by the camera's
    own clock), `record` (20, one a second by UTC), `camera_event` (161); a semicircle is
    180/2^31 degrees.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from geotag.telemetry.track import Fix, Reading, track_of

if TYPE_CHECKING:
    from pathlib import Path

_SEMICIRCLE_DEG = 180 / 2**31
_WANTED = ("gps_metadata", "record", "camera_event")


def read_fit(path: Path) -> Reading:
    """Positions of a FIT file; seconds count from the first video that the camera began.

    Raises:
        ValueError: it is no FIT file, or the package that reads them is missing.
        OSError: it cannot be read.
    """
    messages = _messages(path)
    start_s = next(
        (
            _clock_s(fields)
            for name, fields in messages
            if name == "camera_event" and fields.get("camera_event_type") == "video_start"
        ),
        math.nan,
    )
    metadata = [fields for name, fields in messages if name == "gps_metadata"]
    fixes = _camera_fixes(metadata, start_s)
    if not fixes:
        fixes = [_record_fix(fields) for name, fields in messages if name == "record"]
        fixes = [fix for fix in fixes if not math.isnan(fix.lat_deg)]
    return Reading(track=track_of(fixes), source="FIT", vendor="Garmin" if metadata else None)


def _messages(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        import fitdecode
    except ImportError as exc:
        raise ValueError(
            "FIT files need: pip install '.[telemetry]' in geotag's source folder"
        ) from exc
    found: list[tuple[str, dict[str, Any]]] = []
    try:
        # A power cut leaves a file without its checksum; what is before is sound.
        with fitdecode.FitReader(
            str(path),
            check_crc=fitdecode.CrcCheck.DISABLED,
            error_handling=fitdecode.ErrorHandling.IGNORE,
        ) as reader:
            found.extend(
                (frame.name, {one.name: one.value for one in frame.fields})
                for frame in reader
                if frame.frame_type == fitdecode.FIT_FRAME_DATA and frame.name in _WANTED
            )
    except (fitdecode.FitError, ValueError, TypeError, KeyError, IndexError, AttributeError) as exc:
        if not found:
            raise ValueError(f"no FIT file: {exc}") from exc
    return found


def _camera_fixes(metadata: list[dict[str, Any]], start_s: float) -> list[Fix]:
    clocks_s = [_clock_s(fields) for fields in metadata]
    # Each message names the whole second only; the camera's own clock has milliseconds.
    ahead = [
        _utc_s(fields, "utc_timestamp") - clock_s
        for fields, clock_s in zip(metadata, clocks_s, strict=True)
    ]
    ahead = [seconds for seconds in ahead if not math.isnan(seconds)]
    ahead_s = float(np.median(ahead)) if ahead else math.nan
    return [
        _fix(fields)._replace(time_s=clock_s - start_s, utc_s=clock_s + ahead_s)
        for fields, clock_s in zip(metadata, clocks_s, strict=True)
        if fields.get("position_lat") is not None
    ]


def _record_fix(fields: dict[str, Any]) -> Fix:
    return _fix(fields)._replace(utc_s=_utc_s(fields, "timestamp"))


def _utc_s(fields: dict[str, Any], name: str) -> float:
    moment = fields.get(name)
    return moment.timestamp() if isinstance(moment, datetime) else math.nan


def _fix(fields: dict[str, Any]) -> Fix:
    return Fix(
        _number(fields.get("position_lat")) * _SEMICIRCLE_DEG,
        _number(fields.get("position_long")) * _SEMICIRCLE_DEG,
        alt_m=_number(fields.get("enhanced_altitude", fields.get("altitude"))),
        speed_mps=_number(fields.get("enhanced_speed", fields.get("speed"))),
    )


def _clock_s(fields: dict[str, Any]) -> float:
    """The camera's own clock: seconds since it was switched on."""
    return _number(fields.get("timestamp")) + _number(fields.get("timestamp_ms", 0)) / 1000


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
