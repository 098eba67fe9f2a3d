"""Files that hold positions, read by what is in them rather than by what they are called."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from geotag.errors import ConfigError
from geotag.telemetry.card_logs import CardLog, is_card_log, parse_card_log
from geotag.telemetry.fit import read_fit
from geotag.telemetry.gpx import read_gpx
from geotag.telemetry.nmea import is_nmea, read_nmea
from geotag.telemetry.oxts import read_oxts
from geotag.telemetry.points import read_tesla_event
from geotag.telemetry.subtitles import read_srt

if TYPE_CHECKING:
    from pathlib import Path

    from geotag.telemetry.track import Reading

MOST_BYTES = 64 << 20
"""A day of sentences at ten a second; larger files are something else."""
_MOST_GPX = 16 << 20
"""Its points take fifty times their text in memory; a day at one a second has a tenth of that."""
_CARD_LOG = re.compile(r"\.?gpsdata\d*\.txt", re.IGNORECASE | re.ASCII)
_FIT_MARK = b".FIT"
_FIT_MARK_AT = 8


class TrackFileError(ConfigError):
    """A file of positions that cannot be used: unreadable, unknown, or without any position."""


def read_track_file(path: Path) -> Reading:
    """Positions of a GPX, NMEA, SRT or FIT file, a 70mai log, a Tesla event or a folder `oxts`.

    Raises:
        TrackFileError: it cannot be read, or holds no position.
    """
    return _read(path, video_name=None)


def read_sidecar(path: Path, video_name: str) -> Reading:
    """Positions of a file that lies beside a video.

    Args:
        path: the file.
        video_name: of the video: a log of a whole card may name the lines that belong to it.

    Raises:
        TrackFileError: it cannot be read, or holds no position.
    """
    return _read(path, video_name=video_name)


def _read(path: Path, *, video_name: str | None) -> Reading:
    try:
        reading = _read_any(path, video_name)
    except (OSError, ValueError) as exc:
        raise TrackFileError(_message(path, str(exc) or type(exc).__name__)) from exc
    if not reading.track.lats_deg.size:
        raise TrackFileError(_message(path, "no position in it"))
    name = _printable(path.name)
    return replace(reading, source=f"{reading.source} {name}" if name else reading.source)


def _read_any(path: Path, video_name: str | None) -> Reading:
    if path.is_dir():
        if not (path / "data").is_dir():
            raise ValueError("it is a folder; give a file")
        return read_oxts(path)
    if not path.is_file():
        raise ValueError("no such file")
    with path.open("rb") as stream:
        head = stream.read(16)
        if head[_FIT_MARK_AT : _FIT_MARK_AT + 4] == _FIT_MARK:
            _check_size(path)
            return read_fit(path)
        _check_size(path)
        if _CARD_LOG.fullmatch(path.name):
            status = path.stat()
            log = _read_log(path, status.st_mtime_ns, status.st_size)
            named = log.read_video(video_name) if video_name else None
            return named or log.read_all()
        return _read_text(_decode(head + stream.read(MOST_BYTES)))


@lru_cache(maxsize=2)
def _read_log(path: Path, _changed_ns: int, _size_bytes: int) -> CardLog:
    """A card's log, read once for its hundreds of videos."""
    text = _decode(path.read_bytes())
    if not is_card_log(text):
        raise ValueError("not a log of 70mai")
    return parse_card_log(text)


def _read_text(text: str) -> Reading:
    """Read a text by what is in it: DDPai's `.gpx` holds NMEA, others call NMEA `.txt`."""
    start = text[:4096].lstrip()
    if start.startswith("<") and "<gpx" in text[:65536]:
        if len(text) > _MOST_GPX:
            raise ValueError(f"{len(text)} characters of GPX; at most {_MOST_GPX} are read")
        return read_gpx(text)
    if start.startswith("{"):
        return read_tesla_event(text)
    if "-->" in text[:65536]:
        return read_srt(text)
    if is_nmea(text):
        return read_nmea(text)
    raise ValueError("neither GPX nor NMEA, SRT, FIT, a 70mai log or a Tesla event")


def _check_size(path: Path) -> None:
    size_bytes = path.stat().st_size
    if size_bytes > MOST_BYTES:
        raise ValueError(f"{size_bytes} bytes; at most {MOST_BYTES} are read")


def _decode(content: bytes) -> str:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return content.decode(encoding, errors="replace")


def _message(path: Path, why: str) -> str:
    return (
        f"reading positions from {_printable(str(path))}: {why}. "
        "Give a GPX, NMEA, SRT (DJI) or FIT file with positions."
    )


def _printable(text: str) -> str:
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)
