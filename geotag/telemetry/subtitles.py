"""Positions in subtitle files that DJI's cameras write beside their videos.

Four layouts are known: `[latitude: 41.42] [longitude: 2.16]` (Mavic Air 2 and later, some of them
with `longtitude`), `GPS (-121.7458, 48.0771, 17)` (Mavic Mini, longitude first, then the number of
satellites), `GPS(149.0251,-20.2533,16)` after `HOME(..)` (Phantom 3 and 4, longitude first, then
the altitude), and one without any position.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import TYPE_CHECKING

from geotag.telemetry.track import Fix, Reading, track_of
from geotag.telemetry.zones import as_if_utc_s

if TYPE_CHECKING:
    from collections.abc import Sequence

_CUE = re.compile(r"(\d{1,3}):(\d{2}):(\d{2})[,.](\d{1,3})\s*-->")
_NUMBER = r"([+-]?\d{1,3}(?:\.\d+)?)"
_NAMED = re.compile(
    rf"\[?latitude\s*:\s*{_NUMBER}\]?.{{0,20}}?\[?longt?itude\s*:\s*{_NUMBER}\b", re.IGNORECASE
)
_PAIR = re.compile(rf"\bGPS\s?\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*(?:,\s*{_NUMBER})?")
_ALTITUDE = re.compile(r"\b(?:abs_alt|altitude)\s*:\s*([+-]?\d+(?:\.\d+)?)", re.IGNORECASE)
_DATE = re.compile(
    r"\b(\d{4})[.-](\d{1,2})[.-](\d{1,2})\s+(\d{1,2}):(\d{2}):(\d{2})(?:[,.](\d{3}))?"
)


def read_srt(text: str) -> Reading:
    """Positions of a subtitle file, one per cue that has one.

    Of a bare pair, longitude is taken first, as DJI writes it, unless that cannot be: where the
    second number is beyond 90 in any cue and the first one never is.
    """
    cues = _cues(text)
    pairs = [_PAIR.search(body) for _, body in cues]
    is_lon_first = not _must_be_lat_first([(float(p[1]), float(p[2])) for p in pairs if p])
    fixes = [
        fix
        for (time_s, body), pair in zip(cues, pairs, strict=True)
        if (fix := _read_cue(time_s, body, pair, is_lon_first=is_lon_first)) is not None
    ]
    return Reading(
        track=track_of(fixes), source="DJI subtitles", is_camera_clock=True, is_local_clock=True
    )


def _cues(text: str) -> list[tuple[float, str]]:
    """Start (s) and text of each cue."""
    marks = list(_CUE.finditer(text))
    stops = [mark.start() for mark in marks[1:]] + [len(text)]  # one too many if there is no cue
    return [
        (
            int(mark[1]) * 3600 + int(mark[2]) * 60 + int(mark[3]) + float(f"0.{mark[4]}"),
            text[mark.end() : stop],
        )
        for mark, stop in zip(marks, stops, strict=False)
    ]


def _must_be_lat_first(pairs: Sequence[tuple[float, float]]) -> bool:
    return any(abs(b) > 90 for _, b in pairs) and all(abs(a) <= 90 for a, _ in pairs)


def _read_cue(
    time_s: float, body: str, pair: re.Match[str] | None, *, is_lon_first: bool
) -> Fix | None:
    named = _NAMED.search(body)
    if named is not None:
        lat_deg, lon_deg = float(named[1]), float(named[2])
    elif pair is not None:
        a_deg, b_deg = float(pair[1]), float(pair[2])
        lat_deg, lon_deg = (b_deg, a_deg) if is_lon_first else (a_deg, b_deg)
    else:
        return None
    altitude = _ALTITUDE.search(body)
    return Fix(
        lat_deg,
        lon_deg,
        time_s=time_s,
        utc_s=_camera_clock_s(body),
        alt_m=float(altitude[1]) if altitude else math.nan,
    )


def _camera_clock_s(body: str) -> float:
    """The date in a cue, which is local time, as if it were UTC."""
    date = _DATE.search(body)
    if date is None:
        return math.nan
    try:
        moment = datetime(*(int(part) for part in date.groups()[:6]))  # type: ignore[arg-type]
    except ValueError:
        return math.nan
    return as_if_utc_s(moment) + (int(date[7]) / 1000 if date[7] else 0.0)
