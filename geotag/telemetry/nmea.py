"""Sentences of GPS receivers: NMEA 0183, in a file of their own or behind a time stamp.

BlackVue writes the camera's clock before each sentence: `[1623057074211]$GPRMC,..`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import date, datetime, time, timezone
from typing import TYPE_CHECKING, Any

from geotag.telemetry.track import Fix, Reading, track_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_SENTENCE = re.compile(r"(?:\[(\d{10,16})\]\s*)?(\$[A-Z]{2}(?:RMC|GGA|GLL|GSA|ZDA),[^$\[\r\n]*)")
_KNOT_MPS = 1852 / 3600
_CHECKSUM_MARK = "*"
_FEWEST_SOUND = 3
_RANKS = {"RMC": 3, "GGA": 2, "GLL": 1}
_ODDITIES = (ValueError, TypeError, AttributeError, IndexError, OverflowError)
"""What pynmea2 raises for sentences that are not as they should be."""


@dataclass(slots=True)
class _Epoch:
    """What the sentences of one moment say together."""

    clock: time | None = None
    day: date | None = None
    stamp_ms: int | None = None
    rank: int = 0
    fix: Fix = field(default_factory=lambda: Fix(math.nan, math.nan))


def is_nmea(text: str) -> bool:
    """Whether a text holds sentences, whatever its file is called."""
    return _SENTENCE.search(text[:65536]) is not None


def read_nmea(text: str) -> Reading:
    """Positions of the sentences RMC, GGA and GLL; precision from GGA and GSA.

    Sentences whose checksum is wrong are left out, unless fewer than three sound fixes remain:
    then they count too, and a note says so. Void fixes (status V, quality 0) are kept for the
    filter to count.
    """
    fixes, broken = _read(text, is_lenient=False)
    notes: tuple[str, ...] = ()
    if broken and sum(1 for fix in fixes if fix.mode != 0) < _FEWEST_SOUND:
        fixes, _ = _read(text, is_lenient=True)
        notes = (f"{broken} NMEA sentences with a wrong checksum were taken",)
    elif broken:
        notes = (f"{broken} NMEA sentences with a wrong checksum were left out",)
    return Reading(track=track_of(fixes), source="NMEA", notes=notes)


def _read(text: str, *, is_lenient: bool) -> tuple[list[Fix], int]:
    epochs: list[_Epoch] = []
    broken = 0
    here = _Epoch()
    for stamp_ms, sentence in _sentences(text):
        message, is_sound = _parse(sentence)
        broken += not is_sound
        if message is None or not (is_sound or is_lenient):
            continue
        try:
            here = _add(epochs, here, message, stamp_ms)
        except _ODDITIES:
            continue
    return _fixes(epochs), broken


def _sentences(text: str) -> Iterator[tuple[int | None, str]]:
    for match in _SENTENCE.finditer(text):
        yield (int(match[1]) if match[1] else None), match[2].strip()


def _parse(sentence: str) -> tuple[Any, bool]:
    """The parsed sentence, or None, and whether its checksum is right; none at all is right."""
    import pynmea2

    try:
        return pynmea2.parse(sentence, check=False), True
    except pynmea2.ChecksumError:
        bare = sentence.partition(_CHECKSUM_MARK)[0]
    except (pynmea2.ParseError, *_ODDITIES):
        return None, True
    try:
        return pynmea2.parse(bare, check=False), False
    except (pynmea2.ParseError, *_ODDITIES):
        return None, False


def _add(epochs: list[_Epoch], here: _Epoch, message: Any, stamp_ms: int | None) -> _Epoch:  # noqa: ANN401 - pynmea2 has no types
    """Put a sentence into the epoch that it belongs to; returns that epoch."""
    kind = str(message.sentence_type)
    if kind == "GSA":
        mode = int(message.mode_fix_type or -1)
        dop = _number(message.hdop)
        here.fix = here.fix._replace(mode=here.fix.mode if here.fix.mode == 0 else mode)
        if not math.isnan(dop):
            here.fix = here.fix._replace(dop=dop)
        return here
    if kind in ("RMC", "GLL") and message.status not in ("A", "V"):
        return here  # cut off
    clock = message.timestamp if isinstance(message.timestamp, time) else None
    if here.clock is None or clock != here.clock:
        here = _Epoch(clock=clock, stamp_ms=stamp_ms)
        epochs.append(here)
    if kind == "ZDA":
        here.day = datetime(int(message.year), int(message.month), int(message.day)).date()
    else:
        _add_position(here, message, kind)
    return here


def _add_position(here: _Epoch, message: Any, kind: str) -> None:  # noqa: ANN401
    has_fix = int(message.gps_qual or 0) > 0 if kind == "GGA" else message.status == "A"
    if kind == "RMC":
        here.day = message.datestamp if isinstance(message.datestamp, date) else here.day
        here.fix = here.fix._replace(speed_mps=_number(message.spd_over_grnd) * _KNOT_MPS)
    if kind == "GGA":
        here.fix = here.fix._replace(
            alt_m=_number(message.altitude), dop=_number(message.horizontal_dil)
        )
    if _RANKS[kind] <= here.rank:
        return
    here.rank = _RANKS[kind]
    is_placed = bool(message.lat and message.lon)
    here.fix = here.fix._replace(
        lat_deg=float(message.latitude) if is_placed else math.nan,
        lon_deg=float(message.longitude) if is_placed else math.nan,
        mode=here.fix.mode if has_fix else 0,
    )


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def _fixes(epochs: list[_Epoch]) -> list[Fix]:
    """Times for the fixes: UTC where the date is known, seconds where the camera stamped them."""
    stamps = [epoch.stamp_ms for epoch in epochs if epoch.stamp_ms is not None]
    fixes: list[Fix] = []
    day: date | None = next((epoch.day for epoch in epochs if epoch.day), None)
    for epoch in epochs:
        day = epoch.day or day
        if not epoch.rank:
            continue
        time_s = math.nan
        if epoch.stamp_ms is not None:
            time_s = (epoch.stamp_ms - stamps[0]) / 1000
        fixes.append(epoch.fix._replace(time_s=time_s, utc_s=_utc_s(day, epoch.clock)))
    return fixes


def _utc_s(day: date | None, clock: time | None) -> float:
    if day is None or clock is None:
        return math.nan
    return datetime.combine(day, clock.replace(tzinfo=timezone.utc)).timestamp()
