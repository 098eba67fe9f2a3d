"""Positions that Tesla's cameras write into every frame.

The message is an unregistered user data SEI: a run of the byte 0x42, then 0x69, then a message in
the encoding of protocol buffers, of which three fields matter. Not tried on a clip of a real car:
no public one is known.

Source: field numbers as described in public, 4 speed (m/s), 11 latitude, 12 longitude; encoding
    of protocol buffers: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING

from geotag.telemetry.track import Fix, Reading, track_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MARK = re.compile(rb"\x42+\x69", re.DOTALL)
_UUID_BYTES = 16
_SPEED, _LATITUDE, _LONGITUDE = 4, 11, 12
_MOST_PAYLOADS = 100_000


def read_frames(user_data: Sequence[tuple[float, bytes]]) -> Reading | None:
    """Positions in the messages of decoded frames; None where none holds one.

    Args:
        user_data: time (s from the first frame) and payload, with or without a UUID before.
    """
    fixes = [
        fix
        for time_s, payload in user_data[:_MOST_PAYLOADS]
        if (fix := _read_fix(time_s, payload)) is not None
    ]
    if not fixes:
        return None
    return Reading(track=track_of(fixes), source="Tesla: in the frames", vendor="Tesla")


def _read_fix(time_s: float, payload: bytes) -> Fix | None:
    for start in (0, _UUID_BYTES):
        mark = _MARK.match(payload, start)
        if mark is None:
            continue
        try:
            fields = dict(_read_fields(payload[mark.end() :]))
        except ValueError:
            continue
        lat_deg, lon_deg = fields.get(_LATITUDE), fields.get(_LONGITUDE)
        # A car that does not know where it is leaves both out: zero is not written.
        if lat_deg is not None and lon_deg is not None:
            speed_mps = fields.get(_SPEED, math.nan)
            return Fix(lat_deg, lon_deg, time_s=time_s, speed_mps=speed_mps)
    return None


def _read_fields(message: bytes) -> Iterator[tuple[int, float]]:
    """Number and value of each floating-point field; others are passed over.

    Raises:
        ValueError: it is no such message.
    """
    place = 0
    while place < len(message):
        key, place = _read_varint(message, place)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("no field has the number 0")
        if kind == 0:
            _, place = _read_varint(message, place)
            continue
        size = 8 if kind == 1 else 4 if kind == 5 else -1
        if kind == 2:
            size, place = _read_varint(message, place)
        if size < 0 or place + size > len(message):
            raise ValueError(f"a field of kind {kind} does not fit")
        if kind != 2:
            yield number, struct.unpack_from("<d" if kind == 1 else "<f", message, place)[0]
        place += size


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    """Value, and the place behind it.  Raises ValueError."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number does not end")
