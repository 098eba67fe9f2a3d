"""GoPro, CAMM and BlackVue without ExifTool, by mapillary_tools, in a process of its own.

Its parsers are Python and trust the file: one that lies could keep them busy for ever or fill the
memory. They run for files only that hold one of the three formats, and for a limited time.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from geotag.telemetry.track import Fix, Reading, track_of

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_S = 30.0
_MOST_BOXES = 10_000
_MOST_INDEX_BYTES = 64 << 20
_MOST_MEMORY_BYTES = 2 << 30
_GPS_EPOCH_S = 315964800
"""1980-01-06 in Unix time."""
_FIVE_YEARS_S = 5 * 365.25 * 86400
_MAKERS = {"gpmd": "GoPro", "camm": "CAMM", "gps ": "BlackVue"}


def is_installed() -> bool:
    """Whether mapillary_tools is there."""
    return find_spec("mapillary_tools") is not None


def read_native(path: Path, created_utc_s: float | None) -> Reading | None:
    """Fixes of a GoPro, CAMM or BlackVue file; None for every other file.

    Args:
        path: the file.
        created_utc_s: creation time of the container: tells Unix time from time since 1980.

    Raises:
        ValueError: the file could not be read, or not in time.
        OSError: it cannot be opened.
    """
    kind = find_kind(path)
    if kind is None:
        return None
    points = _read_apart(path, kind)
    if not points:
        return None
    fixes = [_fix(point, kind, created_utc_s) for point in points]
    if kind == "gpmd":
        fixes = _first_of_second(fixes)
    maker = _MAKERS[kind]
    return Reading(
        track=track_of(fixes),
        source=f"mapillary_tools: {maker}",
        vendor=None if kind == "camm" else maker,
    )


def find_kind(path: Path) -> str | None:
    """Which of the three formats a file holds, by its boxes: "gpmd", "camm", "gps " or None.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        for name, start, size in _boxes(stream):
            stream.seek(start)
            if name == b"free" and stream.read(8)[4:] == b"gps ":
                return "gps "
            if name == b"moov":
                index = stream.read(min(size, _MOST_INDEX_BYTES))
                kind = next((one for one in ("gpmd", "camm") if one.encode() in index), None)
                if kind is not None:
                    return kind
    return None


def _boxes(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of the contents of the outermost boxes (ISO/IEC 14496-12, 4.2)."""
    end = stream.seek(0, os.SEEK_END)
    place = 0
    for _ in range(_MOST_BOXES):
        stream.seek(place)
        header = stream.read(16)
        if len(header) < 8:
            return
        size, name = int.from_bytes(header[:4], "big"), header[4:8]
        inner = 16 if size == 1 else 8
        size = int.from_bytes(header[8:16], "big") if size == 1 else size or end - place
        if size < inner:
            return
        yield name, place + inner, size - inner
        place += size


def _read_apart(path: Path, kind: str) -> list[list[float | None]]:
    search = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        answer = subprocess.run(
            [sys.executable, "-m", __name__, kind, path.absolute()],
            capture_output=True,
            timeout=LIMIT_S,
            check=True,
            env=search,
            stdin=subprocess.DEVNULL,
        )
        points: list[list[float | None]] = json.loads(answer.stdout)
    except subprocess.TimeoutExpired as exc:
        raise ValueError(f"took more than {LIMIT_S:.0f} s") from exc
    except (subprocess.CalledProcessError, ValueError) as exc:
        raise ValueError("mapillary_tools cannot read it") from exc
    return points


def _fix(point: list[float | None], kind: str, created_utc_s: float | None) -> Fix:
    time_s, lat, lon, alt, epoch, mode, dop, speed = (
        math.nan if value is None else float(value) for value in point
    )
    if kind == "camm":
        epoch = _camm_utc_s(epoch, created_utc_s)
    return Fix(
        lat,
        lon,
        time_s=time_s,
        utc_s=epoch if epoch > 0 else math.nan,
        alt_m=alt,
        speed_mps=speed,
        mode=-1 if math.isnan(mode) else int(mode),
        dop=dop,
    )


def _first_of_second(fixes: list[Fix]) -> list[Fix]:
    """Of GoPro's payloads only the first fix has the time that all of them carry here."""
    return [
        fix._replace(utc_s=math.nan) if number and fix.utc_s == fixes[number - 1].utc_s else fix
        for number, fix in enumerate(fixes)
    ]


def _camm_utc_s(epoch_s: float, created_utc_s: float | None) -> float:
    """CAMM says seconds since 1980; some cameras count from 1970: the container decides."""
    if created_utc_s is None:
        return math.nan
    for offset_s in (_GPS_EPOCH_S, 0):
        if abs(epoch_s + offset_s - created_utc_s) < _FIVE_YEARS_S:
            return epoch_s + offset_s
    return math.nan


def _main() -> None:
    """The other process: parse, and write the points as JSON."""
    kind, path = sys.argv[1], Path(sys.argv[2])
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    points = [_numbers(point) for point in _parse(kind, path)]
    sys.stdout.write(json.dumps(points))


def _parse(kind: str, path: Path) -> list[Any]:
    from mapillary_tools import blackvue_parser
    from mapillary_tools.camm import camm_parser
    from mapillary_tools.gpmf import gpmf_parser

    with path.open("rb") as stream:
        if kind == "gpmd":
            gopro = gpmf_parser.extract_gopro_info(stream)
            return list(gopro.gps or ()) if gopro else []
        if kind == "camm":
            camm = camm_parser.extract_camm_info(stream)
            return list(camm.gps or camm.mini_gps or ()) if camm else []
        blackvue = blackvue_parser.extract_blackvue_info(stream)
        return list(blackvue.gps or ()) if blackvue else []


def _numbers(point: Any) -> list[float | None]:  # noqa: ANN401 - mapillary_tools promises no types
    fix = getattr(point, "fix", None)
    precision = getattr(point, "precision", None)
    values = (
        point.time,
        point.lat,
        point.lon,
        point.alt,
        getattr(point, "epoch_time", getattr(point, "time_gps_epoch", None)),
        getattr(fix, "value", getattr(point, "gps_fix_type", None)),
        None if precision is None else precision / 100,
        getattr(point, "ground_speed", None),
    )
    return [None if value is None or not math.isfinite(value) else float(value) for value in values]


if __name__ == "__main__":
    _main()
