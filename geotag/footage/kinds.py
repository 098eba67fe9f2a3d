"""What a file is, by its first bytes: its name is only a hint.

Source of the signatures: ISO/IEC 14496-12 (boxes and brands), 13818-1 (MPEG-TS and -PS), RFC 8794
(EBML), RFC 3533 (Ogg), ITU-T H.264 7.4.1 and H.265 7.4.2 (NAL unit types).
"""

from __future__ import annotations

import codecs
from pathlib import PurePath

HEAD_BYTES = 4096
"""How much of a file's beginning is enough for every question here."""

# fmt: off
VIDEO_EXTENSIONS = frozenset((
    ".mp4", ".m4v", ".mov", ".qt", ".avi", ".mkv", ".webm", ".ts", ".mts", ".m2ts", ".m2t", ".mpg",
    ".mpeg", ".mpe", ".m2v", ".vob", ".mod", ".tod", ".3gp", ".3g2", ".flv", ".f4v", ".wmv", ".asf",
    ".ogv", ".insv", ".lrv", ".lrf", ".360", ".h264", ".264", ".avc", ".h265", ".265", ".hevc",
    ".mjpeg", ".mjpg", ".mxf", ".divx", ".dav", ".dv",
))
# fmt: on
_ALSO_TEXT_EXTENSIONS = frozenset((".ts", ".mod"))
"""Shared with source code and translations (.ts), and with Go modules (.mod). Not so .mts: of
TypeScript it is a rare ending, of camcorders (AVCHD) the usual one."""

_CONTROLS = frozenset((*range(32), 127)) - frozenset(b"\t\n\f\r\x1b")
_ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"moof", b"styp", b"pnot")
_PICTURE_BRANDS = {
    b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC",
    b"hevx": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF",
    b"crx ": "Canon raw",
}  # fmt: skip
_AUDIO_BRANDS = frozenset((b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ", b"aax "))
_PICTURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)
_OTHERS = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"%PDF-", "a PDF document"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3\x00", "a database"),
)


def is_video(head: bytes, name: str) -> bool:
    """Whether the scan should take this file for video.

    By content whatever the name; or by the name alone, so that a broken video becomes a failure
    that is reported instead of a file that nobody misses.

    Args:
        head: the first HEAD_BYTES of the file, or all of a shorter one; empty if unreadable.
        name: the file's name; only its ending is looked at.
    """
    extension = PurePath(name).suffix.lower()
    if extension in VIDEO_EXTENSIONS:
        return not (extension in _ALSO_TEXT_EXTENSIONS and _is_text(head))
    return video_kind(head) is not None and extension != ".mka"


def video_kind(head: bytes) -> str | None:
    """Name of the video container that begins with these bytes, or None."""
    if _is_iso(head):
        return "MP4" if head[4:8] != b"ftyp" or _brand_kind(head) is None else None
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "Matroska"
    if _is_transport_stream(head):
        return "MPEG-TS"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "AVI"
    if head.startswith(b"FLV\x01"):
        return "FLV"
    if head.startswith(bytes.fromhex("3026b2758e66cf11")):
        return "ASF"
    if head.startswith(b"OggS"):
        # The first page of an Ogg file names the codec: Vorbis, Opus and FLAC are music.
        known = (b"theora", b"fishead", b"OVP80", b"BBCD", b"video")
        return "Ogg" if any(word in head[:128] for word in known) else None
    return _mpeg_kind(head)


def describe_stranger(head: bytes) -> str | None:
    """What a file that is no video is, as a noun phrase; None if it may be video or is unknown."""
    if _is_iso(head):
        kind = _brand_kind(head) if head[4:8] == b"ftyp" else None
        return f"a {kind} picture" if kind not in (None, "audio") else None
    for signature, kind in _PICTURES:
        if head.startswith(signature):
            return f"a {kind} picture"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "a WebP picture"
    for signature, phrase in _OTHERS:
        if head.startswith(signature):
            return phrase
    if video_kind(head) is None and _is_text(head):
        return "text"
    return None


def _is_iso(head: bytes) -> bool:
    return head[4:8] in _ISO_BOXES


def _brand_kind(head: bytes) -> str | None:
    """'audio', or the name of a picture format, of a file that begins with a ftyp box."""
    brand = head[8:12]
    return "audio" if brand in _AUDIO_BRANDS else _PICTURE_BRANDS.get(brand)


def _is_transport_stream(head: bytes) -> bool:
    """Sync bytes a packet apart: 188 bytes, or 192 with the 4-byte time stamp of an M2TS."""
    for first, step in ((0, 188), (4, 192)):
        syncs = head[first::step]
        if len(syncs) >= 3 and syncs[:5].count(0x47) == len(syncs[:5]):
            return True
    return False


def _mpeg_kind(head: bytes) -> str | None:
    """MPEG program streams and bare elementary streams: all begin with a start code."""
    if not head.startswith((b"\x00\x00\x01", b"\x00\x00\x00\x01")):
        return None
    start = head.index(b"\x01") + 1
    first, second = (head[start : start + 2] + b"\xff\xff")[:2]
    if first == 0xBA:
        return "MPEG-PS"
    if first in (0xB3, 0xB0):
        return "MPEG video"
    if first & 0x80:
        return None
    if first & 0x1F in (6, 7, 9) and (first & 0x60 != 0) == (first & 0x1F == 7):
        return "H.264"  # SEI, SPS or access unit delimiter; only an SPS is a reference
    if first >> 1 in (32, 33, 35, 39) and first & 1 == 0 and second == 1:
        return "H.265"  # VPS, SPS, access unit delimiter or SEI, in layer 0
    return None


def _is_text(head: bytes) -> bool:
    """UTF-16 with its mark, or UTF-8 without control characters."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if not head or not _CONTROLS.isdisjoint(head):
        return False
    try:
        # Not final: the last character may be cut.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
