"""The tables of Mapillary MSLS: which images make a sequence, and where each was taken.

Every file has an unnamed first column that counts its rows.
Source of the columns: the release's README and `mapillary_sls` (which reads `sequence_key` where
the README says `sequence_id`).

Shape suffix: F frames.
"""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LEAST_FRAMES = 16
"""A sequence of fewer is no clip. Source: a clip of the paper has 16 frames."""
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drive:
    """A sequence: images that a camera took one after the other, panoramas left out."""

    key: str
    images: NDArray[np.bytes_]
    """Their keys in order, [F]."""
    points_deg: NDArray[np.float64]
    """lat_deg and lon_deg of each, NaN where nobody measured, [F, 2]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The query or the database images of a city."""

    drives: tuple[Drive, ...]
    """Those of at least LEAST_FRAMES images, by key."""
    panoramas: int
    """Images left out."""
    short: int
    """Sequences left out."""
    is_measured: bool


@dataclass(frozen=True, slots=True)
class _Frame:
    number: int
    key: str
    row: int


def read_side(folder: Path) -> Side:
    """Read `seq_info.csv` and, where it is there, `raw.csv` of one side of a city.

    Raises:
        DatasetError: a file cannot be read, lacks a column, has a wrong cell, an image twice, or
            the two files are not about the same images.
    """
    frames = _read_sequences(folder / "seq_info.csv")
    raw = folder / "raw.csv"
    is_measured = raw.is_file()
    measured = _read_raw(raw) if is_measured else None
    drives, panoramas, short = [], 0, 0
    for key in sorted(frames):
        kept: list[tuple[str, float, float]] = []
        for frame in sorted(frames[key], key=lambda frame: (frame.number, frame.key)):
            lat_deg, lon_deg, is_panorama = _measured_at(frame, measured, folder)
            panoramas += is_panorama
            if not is_panorama:
                kept.append((frame.key, lat_deg, lon_deg))
        if len(kept) < LEAST_FRAMES:
            short += 1
            continue
        drives.append(
            Drive(
                key=key,
                images=np.array([image for image, _, _ in kept], dtype=np.bytes_),
                points_deg=np.array([point for _, *point in kept], dtype=np.float64),
            )
        )
    return Side(drives=tuple(drives), panoramas=panoramas, short=short, is_measured=is_measured)


def _measured_at(
    frame: _Frame, measured: dict[str, tuple[float, float, bool]] | None, folder: Path
) -> tuple[float, float, bool]:
    if measured is None:
        return math.nan, math.nan, False
    if frame.key not in measured:
        raise DatasetError(
            f"{folder / 'seq_info.csv'}, row {frame.row}: the image {frame.key!r} is not in "
            "raw.csv beside it; extract both from one metadata.zip"
        )
    return measured[frame.key]


def _read_sequences(path: Path) -> dict[str, list[_Frame]]:
    sequences: dict[str, list[_Frame]] = defaultdict(list)
    rows: dict[str, int] = {}
    wanted = (("key",), ("sequence_key", "sequence_id"), ("frame_number",))
    for row, (key, sequence, number) in _cells(path, wanted):
        _check_key(key, path, row)
        if rows.setdefault(key, row) != row:
            raise DatasetError(
                f"{path}, row {row}: the image {key!r} is in row {rows[key]} already"
            )
        if not sequence:
            raise DatasetError(f"{path}, row {row}: no sequence; each image belongs to one")
        # As numbers are written where a table once had gaps: 12.0.
        value = _number(number, path, row, "frame_number")
        if not value.is_integer():
            raise DatasetError(f"{path}, row {row}: frame_number is {number!r}; count in integers")
        sequences[sequence].append(_Frame(int(value), key, row))
    return sequences


def _read_raw(path: Path) -> dict[str, tuple[float, float, bool]]:
    """lat_deg, lon_deg and whether it is a panorama, by image."""
    measured: dict[str, tuple[float, float, bool]] = {}
    for row, (key, lon, lat, pano) in _cells(path, (("key",), ("lon",), ("lat",), ("pano",))):
        _check_key(key, path, row)
        lat_deg, lon_deg = _number(lat, path, row, "lat"), _number(lon, path, row, "lon")
        if abs(lat_deg) > 90 or abs(lon_deg) > 180:
            raise DatasetError(
                f"{path}, row {row}: lat {lat_deg:g}, lon {lon_deg:g}; allowed are -90 to 90 and "
                "-180 to 180. Are they in the wrong order?"
            )
        if pano.lower() not in _TRUTH:
            raise DatasetError(f"{path}, row {row}: pano is {pano!r}; it must be True or False")
        measured[key] = (lat_deg, lon_deg, _TRUTH[pano.lower()])
    return measured


def _cells(path: Path, wanted: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Row, from 1 with the header, and the cells of the columns wanted, each by any of its names.

    Raises:
        DatasetError: the file cannot be read, or a column or a cell is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            places = [_place_of(names, header, path) for names in wanted]
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DatasetError(
                        f"{path}, row {reader.line_num}: {len(cells)} cells, the header has "
                        f"{len(header)}; is the file cut off? Extract it again"
                    )
                yield reader.line_num, tuple(cells[place].strip() for place in places)
    except FileNotFoundError as exc:
        raise DatasetError(
            f"reading {str(path)!r}: no such file; extract metadata.zip of MSLS over the images"
        ) from exc
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise DatasetError(f"reading {str(path)!r}: {exc}; extract metadata.zip again") from exc


def _place_of(names: tuple[str, ...], header: list[str], path: Path) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise DatasetError(
        f"{path}, row 1: no column {' or '.join(names)}; found are "
        f"{', '.join(map(repr, header[:12])) or 'none'}. Is it that file of MSLS?"
    )


def _check_key(key: str, path: Path, row: int) -> None:
    if not _KEY.fullmatch(key):
        raise DatasetError(
            f"{path}, row {row}: the image key {key[:40]!r}; keys are letters, digits, - and _"
        )


def _number(cell: str, path: Path, row: int, column: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError(f"{path}, row {row}: {column} is {cell[:40]!r}; it must be a number")
    return value
