"""The `index.json` of a folder of packed clips: what lies in which shard, and how it was packed.

    clips/
      index.json            this
      places.csv            the class tree; perhaps other files that belong to the dataset
      train-000000.tar      clips of one split, in WebDataset's format: per clip
        00000000.json         labels, and size and checksum of each frame
        00000000.000.jpg      its frames, in order
        00000000.001.jpg

A clip is found by the offset of its first member, so that no shard need be read through, or
unpacked. Everything in the file is checked when it is read: it may come from anywhere.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from engines.bundle import Policy, Resize
from train.data.dataset import Picking, Split
from train.data.entries import Entries
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SCHEMA = 1
INDEX = "index.json"
PLACES = "places.csv"
BLOCK_BYTES = 512
"""Of a tar: every header is one, and every member begins at one (POSIX.1-2001, pax/ustar)."""
LARGEST_HEAD_BYTES = 1 << 20
"""Of a clip's labels: a thousand times what they take."""

Row = tuple[str, int, str, int, int, int, int]
"""name, city_id, group, number of the shard, offset of the clip's first member, length and CRC-32
of its labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How the clips of a folder were read before they were packed."""

    frames: int | None = None
    """Stored of each clip, evenly spaced; None: all that its source stores."""
    image_px: int = 256
    resize: Resize = "squash"
    quality: int = 90
    """Of the JPEGs."""
    picking: Picking = "uniform"
    policy: Policy | None = None
    """Of sources with real time; None: drawn per clip, or no such source."""
    span_s: float | None = None
    seed: int | None = None
    """Of what was drawn per clip; None: nothing was."""
    clips_per_shard: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be packed.  Raises DatasetError."""
        for name, low, high in (
            ("frames", 1, 100_000),
            ("image_px", 16, 4096),
            ("quality", 1, 100),
            ("clips_per_shard", 1, 1_000_000),
        ):
            value = getattr(self, name)
            if value is None and name == "frames":
                continue
            if type(value) is not int or not low <= value <= high:
                raise DatasetError(f"packing clips: {name} {value!r}; allowed are {low} to {high}.")
        for name, allowed in (
            ("resize", get_args(Resize)),
            ("picking", get_args(Picking)),
            ("policy", (None, *get_args(Policy))),
        ):
            if getattr(self, name) not in allowed:
                raise DatasetError(
                    f"packing clips: {name} {getattr(self, name)!r}; allowed are {allowed}."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file of the folder, and what must be in it."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedSplit:
    """The clips of one split."""

    name: str
    """Of the dataset they come from."""
    fingerprint: str
    """Of that dataset and of the packing: the same again is not packed again."""
    has_times: bool
    """The source chose its frames by time: they follow one policy, or were drawn."""
    shards: tuple[StoredFile, ...]
    rows: tuple[Row, ...]
    bad: tuple[tuple[str, str], ...]
    """Name and reason of each clip that could not be packed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Index:
    """All that is known of a folder of packed clips without opening a shard."""

    packing: Packing
    places: StoredFile
    scene_labels: tuple[str, ...] = ()
    beside: tuple[StoredFile, ...] = ()
    """Other files of the dataset that were copied along, such as its table of texts."""
    splits: dict[str, PackedSplit]


def write_index(index: Index) -> str:
    """The text of an `index.json`, one clip a line; the same index gives the same text."""
    head = {
        "schema": SCHEMA,
        "packing": asdict(index.packing),
        "places": asdict(index.places),
        "scene_labels": list(index.scene_labels),
        "beside": [asdict(stored) for stored in index.beside],
    }
    pieces = [json.dumps(head, indent=1)[:-2], ',\n "splits": {']
    for number, (split, packed) in enumerate(sorted(index.splits.items())):
        facts = {
            "name": packed.name,
            "fingerprint": packed.fingerprint,
            "has_times": packed.has_times,
            "shards": [asdict(shard) for shard in packed.shards],
            "bad": packed.bad,
        }
        comma = "," if number else ""
        pieces.append(f'{comma}\n"{split}": {json.dumps(facts, indent=1)[:-2]},\n "entries": [\n')
        pieces.append(",\n".join(json.dumps(row) for row in packed.rows))
        pieces.append("\n]}")
    return "".join([*pieces, "\n}}\n"])


def read_index(folder: Path) -> Index:
    """Read the index of a folder of packed clips.

    Raises:
        DatasetError: there is none, or it is damaged or of a later version.
    """
    path = folder / INDEX
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise DatasetError(
            f"reading packed clips: {path} cannot be read ({exc}). Give the folder that "
            "`python -m train.pack` wrote; if it was interrupted, run it again."
        ) from exc
    try:
        record = json.loads(text)
        if record["schema"] != SCHEMA:
            raise DatasetError(
                f"reading packed clips: {path} is of schema {record['schema']!r}; this version "
                f"reads {SCHEMA}. Pack the clips again, or use the version that packed them."
            )
        return _parse(record)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as exc:
        raise DatasetError(
            f"reading packed clips: {path} is damaged ({type(exc).__name__}: {exc}). Pack the "
            "clips again."
        ) from exc


def columns_of(packed: PackedSplit) -> tuple[Entries, NDArray[np.int64]]:
    """The rows by column: entries, and [N, 4] shard, offset, length and CRC-32 of the labels."""
    entries = Entries(
        [row[0] for row in packed.rows],
        np.array([row[1] for row in packed.rows], dtype=np.int32),
        [row[2] for row in packed.rows],
    )
    return entries, np.array([row[3:] for row in packed.rows], dtype=np.int64).reshape(-1, 4)


def digest(content: bytes) -> str:
    """SHA-256 as hexadecimal."""
    return sha256(content).hexdigest()


def parse_rows(rows: Sequence[Any], shards: Sequence[StoredFile]) -> tuple[Row, ...]:
    """Check the rows of an index against its shards.

    Raises:
        ValueError: a row is not as `Row` says, or points out of its shard.
    """
    return tuple(_checked_row(row, shards) for row in rows)


def _parse(record: dict[str, Any]) -> Index:
    splits = {
        split: _parse_split(packed)
        for split, packed in record["splits"].items()
        if split in get_args(Split)
    }
    return Index(
        packing=_parse_packing(record["packing"]),
        places=parse_file(record["places"]),
        scene_labels=tuple(_text(label) for label in record["scene_labels"]),
        beside=tuple(parse_file(stored) for stored in record["beside"]),
        splits=splits,
    )


def _parse_packing(record: dict[str, Any]) -> Packing:
    try:
        return Packing(**record)
    except DatasetError as exc:
        raise ValueError(str(exc)) from exc


def _parse_split(packed: dict[str, Any]) -> PackedSplit:
    shards = tuple(parse_file(shard) for shard in packed["shards"])
    return PackedSplit(
        name=_text(packed["name"]),
        fingerprint=_text(packed["fingerprint"]),
        has_times=bool(packed["has_times"]),
        shards=shards,
        rows=parse_rows(packed["entries"], shards),
        bad=parse_bad(packed["bad"]),
    )


def parse_bad(bad: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    """Check the list of clips that could not be packed.  Raises ValueError or TypeError."""
    return tuple((_text(name), _text(reason)) for name, reason in bad)


def parse_file(record: dict[str, Any]) -> StoredFile:
    """Check what an index says of a file.

    Raises:
        ValueError, KeyError, TypeError: it is no plain name, hash and size.
    """
    stored = StoredFile(**record)
    name = _text(stored.file)
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is no plain file name")
    if len(_text(stored.sha256)) != 64 or type(stored.bytes) is not int or stored.bytes < 0:
        raise ValueError(f"{name}: hash {stored.sha256!r}, {stored.bytes!r} bytes")
    return stored


def _checked_row(row: Sequence[Any], shards: Sequence[StoredFile]) -> Row:
    name, city_id, group, shard, offset, head_bytes, crc32 = row
    numbers = (city_id, shard, offset, head_bytes, crc32)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"the entry {row!r} holds something other than whole numbers from 0")
    if city_id >= 1 << 31 or crc32 >= 1 << 32 or head_bytes > LARGEST_HEAD_BYTES:
        raise ValueError(f"a number of the entry {row!r} is too large")
    if shard >= len(shards) or offset + BLOCK_BYTES + head_bytes > shards[shard].bytes:
        raise ValueError(f"the entry {row!r} points out of its shard")
    return _text(name), city_id, _text(group), shard, offset, head_bytes, crc32


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
