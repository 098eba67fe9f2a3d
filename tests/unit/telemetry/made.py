"""Files that hold positions as cameras write them, made byte by byte.

Source: ISO/IEC 14496-12 for the boxes; the tag tables of ExifTool's QuickTimeStream.pl for what
cameras put into them; Google's CAMM specification.
"""

from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geotag.telemetry.track import Fix, Reading, track_of
from geotag.types import Origin, Video, VideoFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK_BYTES = 0x8000
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
MP4_EPOCH_S = 2_082_844_800
"""1970 in seconds since 1904."""


def way(
    count: int = 20,
    *,
    start: tuple[float, float] = (52.0, 21.0),
    step_deg: float = 0.0002,
    utc_s: float = 1_700_000_000.0,
) -> list[Fix]:
    """A drive to the north-east, a fix a second, some 26 m apart."""
    return [
        Fix(
            start[0] + number * step_deg,
            start[1] + number * step_deg,
            time_s=float(number),
            utc_s=utc_s + number,
            mode=3,
            dop=1.5,
        )
        for number in range(count)
    ]


def reading(fixes: Sequence[Fix], **fields: object) -> Reading:
    return Reading(track=track_of(fixes), source="made", **fields)  # type: ignore[arg-type]


def video(path: Path, *, sidecars: Sequence[Path] = (), **origin: object) -> Video:
    return Video(
        path=path,
        name=path.name,
        video_id="0",
        size_bytes=path.stat().st_size if path.exists() else 0,
        origin=Origin(**origin),  # type: ignore[arg-type]
        sidecars=tuple(sidecars),
    )


def facts(
    *,
    duration_s: float | None = 60.0,
    created_utc_s: float | None = None,
    location: str | None = None,
) -> VideoFacts:
    return VideoFacts(
        container="mov",
        codec="h264",
        width_px=1920,
        height_px=1080,
        rotation_deg=0,
        duration_s=duration_s,
        fps=30.0,
        created_utc_s=created_utc_s,
        location=location,
    )


def gpx(fixes: Sequence[Fix]) -> str:
    points = "".join(
        f'<trkpt lat="{fix.lat_deg}" lon="{fix.lon_deg}"><ele>40</ele>'
        f"<time>{_moment(fix.utc_s).isoformat()}</time></trkpt>\n"
        for fix in fixes
    )
    return (
        '<?xml version="1.0"?><gpx version="1.1" creator="made" '
        f'xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>{points}</trkseg></trk></gpx>'
    )


def rmc(fix: Fix, *, status: str = "A", stamp_ms: int | None = None) -> str:
    moment = _moment(fix.utc_s)
    body = (
        f"GPRMC,{moment:%H%M%S}.00,{status},{_dm(fix.lat_deg, 2)},{'NS'[fix.lat_deg < 0]},"
        f"{_dm(fix.lon_deg, 3)},{'EW'[fix.lon_deg < 0]},10.0,45.0,{moment:%d%m%y},,,A"
    )
    return f"{'' if stamp_ms is None else f'[{stamp_ms}]'}${body}*{checksum(body)}"


def gga(fix: Fix, *, quality: int = 1, dop: float = 0.9) -> str:
    body = (
        f"GPGGA,{_moment(fix.utc_s):%H%M%S}.00,{_dm(fix.lat_deg, 2)},{'NS'[fix.lat_deg < 0]},"
        f"{_dm(fix.lon_deg, 3)},{'EW'[fix.lon_deg < 0]},{quality},08,{dop},40.0,M,30.0,M,,"
    )
    return f"${body}*{checksum(body)}"


def checksum(body: str) -> str:
    total = 0
    for char in body.encode():
        total ^= char
    return f"{total:02X}"


def box(name: str, *contents: bytes) -> bytes:
    inner = b"".join(contents)
    return struct.pack(">I", 8 + len(inner)) + name.encode("latin-1") + inner


def novatek(fixes: Sequence[Fix], *, has_index: bool = True, created_utc_s: float = 0.0) -> bytes:
    """freeGPS blocks among the media, with the table that points to them or cut off before it."""
    media = b"".join(bytes(BLOCK_BYTES // 2) + _free_gps(fix) for fix in fixes)
    head = box("ftyp", b"isom\0\0\2\0isomavc1")
    body = head + box("mdat", media)
    if not has_index:
        return head + struct.pack(">I", len(media) + 9_000_000) + b"mdat" + media
    first = len(head) + 8
    places = [
        struct.pack(">II", first + number * BLOCK_BYTES * 3 // 2 + BLOCK_BYTES // 2, BLOCK_BYTES)
        for number in range(len(fixes))
    ]
    table = box("gps ", struct.pack(">II", 257, len(places)), *places)
    return body + box("moov", _mvhd(len(fixes), created_utc_s), table)


def text_track(samples: Sequence[str]) -> bytes:
    """A subtitle track, a sample a second, as Thinkware and Nextbase keep their sentences in."""
    packed = [struct.pack(">H", len(text)) + text.encode() for text in samples]
    entry = box("text", bytes(6) + b"\0\1" + bytes(43))
    return _with_track(packed, handler="text", entry=entry)


def camm(fixes: Sequence[Fix]) -> bytes:
    """Google's camera motion metadata, packets of type 6, times since 1980 as specified."""
    packed = [
        struct.pack(
            "<HHdiddfffffff",
            0,
            6,
            fix.utc_s - 315_964_800,
            3,
            fix.lat_deg,
            fix.lon_deg,
            40.0,
            3.0,
            5.0,
            1.0,
            1.0,
            0.0,
            0.5,
        )
        for fix in fixes
    ]
    entry = box("camm", bytes(6) + b"\0\1")
    return _with_track(packed, handler="camm", entry=entry, created_utc_s=fixes[0].utc_s)


def blackvue(sentences: str) -> bytes:
    head = box("ftyp", b"mp42\0\0\0\0mp42isom")
    return head + box("free", box("gps ", sentences.encode())) + box("moov", _mvhd(60, 0.0))


def tesla_message(lat_deg: float, lon_deg: float, *, speed_mps: float = 8.5) -> bytes:
    """The payload of a frame: run of 0x42, 0x69, fields 1 (varint), 4, 11, 12 and 13."""
    fields = (
        b"\x08\x96\x01"
        + b"\x25"
        + struct.pack("<f", speed_mps)
        + b"\x59"
        + struct.pack("<d", lat_deg)
        + b"\x61"
        + struct.pack("<d", lon_deg)
        + b"\x69"
        + struct.pack("<d", 45.0)
    )
    return b"\x42\x42\x42\x69" + fields


def _with_track(
    packed: Sequence[bytes], *, handler: str, entry: bytes, created_utc_s: float = 0.0
) -> bytes:
    head = box("ftyp", b"isom\0\0\2\0isom")
    first = len(head) + 8
    places = np.cumsum([first, *(len(one) for one in packed[:-1])])
    count = len(packed)
    stbl = box(
        "stbl",
        box("stsd", struct.pack(">II", 0, 1), entry),
        box("stts", struct.pack(">IIII", 0, 1, count, 1000)),
        box("stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1)),
        box("stsz", struct.pack(">III", 0, 0, count), *(struct.pack(">I", len(p)) for p in packed)),
        box("stco", struct.pack(">II", 0, count), *(struct.pack(">I", int(p)) for p in places)),
    )
    url = box("url ", struct.pack(">I", 1))
    dinf = box("dinf", box("dref", struct.pack(">II", 0, 1), url))
    minf = box("minf", box("nmhd", bytes(4)), dinf, stbl)
    mdia = box(
        "mdia",
        box("mdhd", struct.pack(">IIIIII", 0, 0, 0, 1000, count * 1000, 0x55C40000)),
        box("hdlr", bytes(8), handler.encode(), bytes(12), b"made\0"),
        minf,
    )
    tkhd = box(
        "tkhd", struct.pack(">IIIIII", 3, 0, 0, 1, 0, count * 1000), bytes(16), _MATRIX, bytes(8)
    )
    moov = box("moov", _mvhd(count, created_utc_s), box("trak", tkhd, mdia))
    return head + box("mdat", *packed) + moov


def _mvhd(duration_s: float, created_utc_s: float) -> bytes:
    created = int(created_utc_s) + MP4_EPOCH_S if created_utc_s else 0
    return box(
        "mvhd",
        struct.pack(">IIIII", 0, created, created, 1000, int(duration_s * 1000)),
        struct.pack(">IH", 0x10000, 0x100),
        bytes(10),
        _MATRIX,
        bytes(24),
        struct.pack(">I", 2),
    )


def _free_gps(fix: Fix) -> bytes:
    moment = _moment(fix.utc_s)
    record = struct.pack(
        "<6I4sffff",
        moment.hour,
        moment.minute,
        moment.second,
        moment.year - 2000,
        moment.month,
        moment.day,
        b"A" + (b"S" if fix.lat_deg < 0 else b"N") + (b"W" if fix.lon_deg < 0 else b"E") + b"\0",
        float(_dm(abs(fix.lat_deg), 2)),
        float(_dm(abs(fix.lon_deg), 3)),
        20.0,
        45.0,
    )
    block = struct.pack(">I", BLOCK_BYTES) + b"freeGPS \x4c\0\0\0" + bytes(32) + record
    return block.ljust(BLOCK_BYTES, b"\0")


def _dm(angle_deg: float, digits: int) -> str:
    """Degrees and minutes as NMEA has them: DDMM.MMMMM."""
    whole = int(abs(angle_deg))
    return f"{whole:0{digits}d}{(abs(angle_deg) - whole) * 60:08.5f}"


def _moment(utc_s: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=utc_s)
