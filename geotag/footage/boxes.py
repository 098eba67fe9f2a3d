"""The few boxes of an MP4 or MOV file that tell what ffmpeg does not.

Source: ISO/IEC 14496-12, sections 4.2 (boxes), 8.3.2 (track header and its matrix).
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_BOXES = 10_000
"""No sane file has more at one level; a damaged one could keep us busy with tiny boxes."""


def top_level_boxes(path: Path) -> list[str]:
    """Names of the boxes a file consists of, as far as they can be followed.

    Reads a few bytes per box, never the media.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        end = stream.seek(0, 2)
        return [name.decode("latin-1") for name, _, _ in _boxes(stream, 0, end)]


def is_cut_off(path: Path) -> bool:
    """Whether a file ends before its media or its index does.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        end = stream.seek(0, 2)
        # Other boxes may claim what they like: cameras append their own, with odd sizes.
        return any(
            name in (b"mdat", b"moov", b"moof") and stop > end
            for name, _, stop in _boxes(stream, 0, end)
        )


def track_rotation_deg(path: Path, track_id: int) -> int:
    """Clockwise turn that a track's header asks for: 0, 90, 180 or 270; 0 where it says nothing.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        end = stream.seek(0, 2)
        for moov in _inside(stream, b"moov", 0, end):
            for track in _inside(stream, b"trak", *moov):
                for start, stop in _inside(stream, b"tkhd", *track):
                    stream.seek(start)
                    header = stream.read(min(stop - start, 96))
                    if len(header) >= 84 and _track_id(header) == track_id:
                        return _rotation_deg(header)
    return 0


def _boxes(stream: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name and claimed content range [start, end) of each box that begins between two offsets."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        stream.seek(start)
        header = stream.read(16)
        if len(header) < 8:
            return
        size, name = struct.unpack(">I4s", header[:8])
        length = 8
        if size == 1 and len(header) == 16:  # a 64-bit size follows the name
            size, length = struct.unpack(">Q", header[8:])[0], 16
        elif size == 0:  # to the end of the file
            size = end - start
        if size < length:
            return
        yield name, start + length, start + size
        start += size


def _inside(stream: BinaryIO, name: bytes, start: int, end: int) -> list[tuple[int, int]]:
    return [(first, last) for found, first, last in _boxes(stream, start, end) if found == name]


def _track_id(header: bytes) -> int:
    # Version 1 has 64-bit times before the number of the track.
    return int(struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0])


def _rotation_deg(header: bytes) -> int:
    """Angle of the matrix {a b u c d v x y w}, whose a and b are 16.16 fixed point."""
    a, b = struct.unpack_from(">ii", header, 52 if header[0] == 1 else 40)
    return round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360
