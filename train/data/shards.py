"""Packed clips as training samples: each is read from its place in a tar, and nothing else is.

A shard is never read through or unpacked, so a loader may begin at any clip, in any order, in any
process, and memory does not grow with what was read. `python -m train.pack` writes the shards.

Shape suffixes: T frames, S scene groups.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import weakref
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from engines.base import BundleError
from geotag.places.hierarchy import build_hierarchy
from train.data.dataset import UNKNOWN_SCENE, BadSample, Sample
from train.data.picking import pick_frames
from train.data.pictures import PictureError, read_pictures
from train.data.shard_index import BLOCK_BYTES, INDEX, columns_of, read_index
from train.errors import DatasetError, MissingPartError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geotag.places.hierarchy import Hierarchy
    from train.data.dataset import Entry, Split, View
    from train.data.shard_index import Index, PackedSplit, StoredFile

MOST_OPEN_SHARDS = 64
"""File handles that one copy of a dataset holds; the oldest is closed for another."""
MOST_ASKED = 500
"""Clips whose labels are read to learn whether there are scenes."""
_BRIDGED_BYTES = 32 << 10
"""A gap between wanted frames that is read along rather than left out: one call costs more."""
_PIECE_BYTES = 1 << 20


def open_shards(path: Path, split: Split, *, verify: bool = False) -> ShardedClips:
    """Open one split of a folder of packed clips.

    Args:
        path: the folder that `python -m train.pack` wrote.
        split: one that was packed.
        verify: read every shard of the split and check its hash; without, only their sizes are
            looked at, and each clip's own checksums as it is read.

    Raises:
        MissingPartError: the split was not packed.
        DatasetError: the index, a shard, or what lies beside them is missing, damaged or another.
    """
    index = read_index(path)
    if split not in index.splits:
        there = ", ".join(sorted(index.splits)) or "none"
        raise MissingPartError(
            f"reading packed clips: {path / INDEX} has no split {split!r}; there are: {there}. "
            f"Pack it too: python -m train.pack DATASET --out {path} --split {split}"
        )
    packed = index.splits[split]
    places_csv = _read_beside(path, index.places).decode("utf-8", "strict")
    try:
        hierarchy = build_hierarchy(
            csv.DictReader(io.StringIO(places_csv)), source=str(path / index.places.file)
        )
    except (BundleError, csv.Error) as exc:
        raise DatasetError(f"reading packed clips: {exc}") from exc
    for stored in index.beside if verify else ():
        _read_beside(path, stored)
    for shard in packed.shards:
        _check_shard(path / shard.file, shard, verify=verify)
    _check_cities(path, packed, hierarchy.size("city"))
    return ShardedClips(path, index, packed, hierarchy, places_csv)


class ShardedClips:
    """The clips of one split; a copy in another process opens the shards for itself."""

    def __init__(
        self,
        folder: Path,
        index: Index,
        packed: PackedSplit,
        hierarchy: Hierarchy,
        places_csv: str,
    ) -> None:
        """Use `open_shards` instead."""
        self._entries, self._places_N4 = columns_of(packed)
        self._folder = folder
        self._packing = index.packing
        self._shards = packed.shards
        self._has_times = packed.has_times
        self._name = f"{packed.name}, packed at {index.packing.image_px} px"
        self._hierarchy = hierarchy
        self._places_csv = places_csv
        self._files = _OpenFiles()
        self.scene_labels = index.scene_labels
        """Names of the scene groups; empty where the source has none."""
        shards = [packed.fingerprint, *(shard.sha256 for shard in packed.shards)]
        self.content_sha256 = sha256("".join(shards).encode("ascii", "replace")).hexdigest()
        """Of the source, how it was packed, and every byte of the clips."""
        self.bad = packed.bad
        """Name and reason of each clip of the source that could not be packed."""
        self.notes = (f"{len(self.bad)} clips could not be packed",) if self.bad else ()
        """What a person should know."""

    @property
    def name(self) -> str:
        """That of the source, and that it was packed."""
        return self._name

    @property
    def hierarchy(self) -> Hierarchy:
        """The class tree that the labels follow."""
        return self._hierarchy

    @property
    def places_csv(self) -> str:
        """The same tree as the text of a `places.csv`."""
        return self._places_csv

    @property
    def entries(self) -> Sequence[Entry]:
        """What it holds, in the order of the source."""
        return self._entries

    def __getstate__(self) -> dict[str, Any]:
        """Everything but open files."""
        return {**self.__dict__, "_files": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start without open files."""
        self.__dict__.update(state)
        self._files = _OpenFiles()

    @property
    def has_scenes(self) -> bool:
        """Whether clips say which scene they show, asked of some from everywhere."""
        count = len(self._entries)
        asked = min(count, MOST_ASKED)
        heads = (self._read_head(number * count // asked) for number in range(asked))
        return any(
            isinstance(head, _Head) and (head.scene_S is not None or head.scene_id != UNKNOWN_SCENE)
            for head in heads
        )

    def count_frames(self, index: int) -> int:
        """How many frames of a clip are stored; 0 if its labels are damaged."""
        head = self._read_head(index)
        return 0 if isinstance(head, BadSample) else len(head.offsets)

    def read(self, index: int, view: View) -> Sample | BadSample:
        """Read one clip.

        Raises:
            DatasetError: a shard cannot be opened any more, or the clips were packed in a way that
                cannot give this view.
        """
        self._check_view(view)
        head = self._read_head(index)
        if isinstance(head, BadSample):
            return head
        name = self._entries[index].name
        shard = self._shards[self._places_N4[index, 0]]
        picked_T = _pick(len(head.offsets), view, index, self._packing.picking)
        try:
            jpegs = self._read_frames(index, head, picked_T)
            clip_THWC = read_pictures(jpegs, view, index)
        except _DamageError as exc:
            return BadSample(name=name, reason=f"{shard.file}, clip {name}: {exc}")
        except PictureError as exc:
            stored = "" if exc.number is None else f"frame {picked_T[exc.number]} "
            return BadSample(name=name, reason=f"{shard.file}, clip {name}: {stored}{exc.reason}")
        return Sample(
            clip_THWC=clip_THWC,
            city_id=self._entries[index].city_id,
            scene_S=head.scene_S,
            scene_id=head.scene_id,
            point_deg=head.point_deg,
        )

    def _check_view(self, view: View) -> None:
        packing = self._packing
        wrong = None
        if view.resize != packing.resize:
            wrong = f"by {packing.resize!r} and not {view.resize!r}", f"--resize {view.resize}"
        elif view.image_px > packing.image_px:
            wrong = (
                f"at {packing.image_px} px and not at least {view.image_px}",
                f"--image-px {view.image_px}",
            )
        elif view.picking in ("reference", "lexicographic") and not self._holds(view):
            held = "all frames" if packing.frames is None else f"{packing.frames} frames"
            wrong = (
                f"with {held} picked by {packing.picking!r}, which does not hold the "
                f"{view.frames} frames picked by {view.picking!r}",
                "--frames all",
            )
        elif self._has_times and view.policy is not None and not self._follows(view):
            wrong = (
                f"with {_described(packing.policy, packing.span_s)} and not "
                f"{_described(view.policy, view.span_s)}",
                f"--policy {view.policy}",
            )
        if wrong is not None:
            raise DatasetError(
                f"reading packed clips: those in {self._folder} are packed {wrong[0]}. Ask for "
                f"what there is, or pack them again with {wrong[1]}."
            )

    def _holds(self, view: View) -> bool:
        packing = self._packing
        if packing.frames is None:
            return packing.picking == "uniform"
        return packing.picking == view.picking and packing.frames == view.frames

    def _follows(self, view: View) -> bool:
        packing = self._packing
        return view.policy == packing.policy and view.span_s in (None, packing.span_s)

    def _read_head(self, index: int) -> _Head | BadSample:
        number, offset, length, checksum = self._places_N4[index].tolist()
        shard = self._shards[number]
        payload = self._read_at(number, offset + BLOCK_BYTES, length)
        try:
            if len(payload) != length or crc32(payload) != checksum:
                raise _DamageError("its labels are damaged (checksum)")
            return _parse_head(json.loads(payload), offset + BLOCK_BYTES + _padded(length), shard)
        except (_DamageError, ValueError, KeyError, TypeError) as exc:
            name = self._entries[index].name
            return BadSample(name=name, reason=f"{shard.file}, clip {name}: {exc}")

    def _read_frames(self, index: int, head: _Head, picked_T: NDArray[np.intp]) -> list[bytes]:
        """The stored bytes of some frames, in the order asked for; each is read once."""
        number = int(self._places_N4[index, 0])
        frames: dict[int, bytes] = {}
        for run in _runs(head, sorted(set(picked_T.tolist()))):
            first, last = run[0], run[-1]
            start = head.offsets[first]
            piece = self._read_at(number, start, head.offsets[last] + head.sizes[last] - start)
            for frame in run:
                at = head.offsets[frame] - start
                jpeg = piece[at : at + head.sizes[frame]]
                if len(jpeg) != head.sizes[frame] or crc32(jpeg) != head.checksums[frame]:
                    raise _DamageError(f"frame {frame} is damaged (checksum)")
                frames[frame] = jpeg
        return [frames[frame] for frame in picked_T.tolist()]

    def _read_at(self, number: int, offset: int, length: int) -> bytes:
        path = self._folder / self._shards[number].file
        try:
            return os.pread(self._files.handle(number, path), length, offset)
        except OSError as exc:
            raise DatasetError(
                f"reading packed clips: {path} cannot be read ({exc}). Is its disk still there?"
            ) from exc


class _DamageError(ValueError):
    """What is stored is not what was written."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Head:
    """The labels of a clip, and where its frames are."""

    offsets: list[int]
    sizes: list[int]
    checksums: list[int]
    scene_S: NDArray[np.float32] | None
    scene_id: int
    point_deg: tuple[float, float] | None


class _OpenFiles:
    """Handles of the shards in use, closed with the object."""

    def __init__(self) -> None:
        self._handles: dict[int, int] = {}
        weakref.finalize(self, _close_all, self._handles)

    def handle(self, number: int, path: Path) -> int:
        """The handle of a shard.  Raises OSError."""
        if number not in self._handles:
            while len(self._handles) >= MOST_OPEN_SHARDS:
                os.close(self._handles.pop(next(iter(self._handles))))
            self._handles[number] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._handles[number]


def _close_all(handles: dict[int, int]) -> None:
    while handles:
        os.close(handles.popitem()[1])


def _read_beside(folder: Path, stored: StoredFile) -> bytes:
    path = folder / stored.file
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise DatasetError(f"reading packed clips: {path} cannot be read ({exc}).") from exc
    if sha256(content).hexdigest() != stored.sha256:
        raise DatasetError(
            f"reading packed clips: {path} is not the file that was packed (its hash differs). "
            "Restore it, or pack the clips again."
        )
    return content


def _check_shard(path: Path, stored: StoredFile, *, verify: bool) -> None:
    try:
        size = path.stat().st_size
        if size != stored.bytes:
            raise DatasetError(
                f"reading packed clips: {path} has {size} bytes and not {stored.bytes}: it is cut "
                "off or another file. Copy it again, or pack the clips again."
            )
        if verify and hash_file(path) != stored.sha256:
            raise DatasetError(
                f"reading packed clips: {path} is damaged (its hash differs). Copy it again, or "
                "pack the clips again."
            )
    except OSError as exc:
        raise DatasetError(
            f"reading packed clips: {path} cannot be read ({exc}). Copy it there, or pack the "
            "clips again."
        ) from exc


def hash_file(path: Path) -> str:
    """SHA-256 of a file as hexadecimal, in little memory.  Raises OSError."""
    found = sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            found.update(piece)
    return found.hexdigest()


def _check_cities(folder: Path, packed: PackedSplit, cities: int) -> None:
    for row in packed.rows:
        if row[1] >= cities:
            raise DatasetError(
                f"reading packed clips: {folder / INDEX}: the clip {row[0]!r} has city id "
                f"{row[1]}; {folder}/places.csv has {cities} cities."
            )


def _parse_head(record: dict[str, Any], start: int, shard: StoredFile) -> _Head:
    sizes = [int(size) for size in record["frame_bytes"]]
    checksums = [int(checksum) for checksum in record["frame_crc32"]]
    if not sizes or len(checksums) != len(sizes) or min(sizes) < 0:
        raise _DamageError(f"it lists {len(sizes)} frames and {len(checksums)} checksums")
    offsets = []
    for size in sizes:
        offsets.append(start + BLOCK_BYTES)
        start += BLOCK_BYTES + _padded(size)
    if start > shard.bytes:
        raise _DamageError("its frames lie outside the shard")
    scene, point = record["scene"], record["point_deg"]
    return _Head(
        offsets=offsets,
        sizes=sizes,
        checksums=checksums,
        scene_S=None if scene is None else np.array(scene, dtype=np.float32),
        scene_id=int(record.get("scene_id", UNKNOWN_SCENE)),
        point_deg=None if point is None else _checked_point(point),
    )


def _checked_point(point: Sequence[float]) -> tuple[float, float]:
    lat_deg, lon_deg = (float(degrees) for degrees in point)
    if not (math.isfinite(lat_deg) and math.isfinite(lon_deg) and abs(lat_deg) <= 90):
        raise _DamageError(f"it was recorded at {point!r}")
    return lat_deg, lon_deg


def _pick(count: int, view: View, index: int, packed_by: str) -> NDArray[np.intp]:
    if view.picking in ("reference", "lexicographic") and packed_by == view.picking:
        return np.arange(view.frames, dtype=np.intp).clip(max=count - 1)
    return pick_frames(count, view, index)


def _runs(head: _Head, frames: Sequence[int]) -> Iterator[list[int]]:
    """Frames in rising order, together as far as little lies between them."""
    run: list[int] = []
    for frame in frames:
        if run and head.offsets[frame] - head.offsets[run[-1]] - head.sizes[run[-1]] > (
            _BRIDGED_BYTES
        ):
            yield run
            run = []
        run.append(frame)
    if run:
        yield run


def _padded(length: int) -> int:
    """Length in whole blocks of a tar."""
    return -(-length // BLOCK_BYTES) * BLOCK_BYTES


def _described(policy: str | None, span_s: float | None) -> str:
    if policy is None:
        return "policies drawn for each clip"
    return policy if span_s is None else f"{policy} over {span_s:g} s"
