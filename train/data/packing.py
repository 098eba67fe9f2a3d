"""Clips of any dataset into shards, so that training reads little and decodes small pictures.

What a shard holds depends on its clips alone: not on how many processes read them, nor on how
often the packing was interrupted. A shard is written aside and takes its name when it is complete
and on the disk; what is finished stays finished.

Shape suffixes: T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geotag.errors import OutputError
from geotag.locks import OutputLock
from train.data.dataset import BadSample
from train.data.packed_clips import FRAMES_OF_FOOTAGE, PackedClip, StoredFrames, make_clips
from train.data.shard_index import (
    BLOCK_BYTES,
    INDEX,
    PLACES,
    Index,
    PackedSplit,
    Packing,
    Row,
    StoredFile,
    digest,
    parse_bad,
    parse_file,
    parse_rows,
    read_index,
    write_index,
)
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from train.data.dataset import ClipDataset, Entry, Split


_SHARD = re.compile(r"[a-z]+-\d{6}\.tar(\.part)?")
"""How a shard is called here, also while it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """What came of packing one split."""

    clips: int
    bad: tuple[tuple[str, str], ...]
    """Name and reason of each clip left out."""
    shards: int
    kept: int
    """Shards that an earlier run had finished."""


def pack(
    dataset: ClipDataset,
    out: Path,
    split: Split,
    packing: Packing | None = None,
    *,
    workers: int = 0,
    beside: Sequence[Path] = (),
    progress: Callable[[int], None] | None = None,
) -> PackReport:
    """Pack one split of a dataset into a folder; other splits of it stay as they are.

    The same call again goes on where an earlier one was interrupted, and does nothing where one
    was finished.

    Args:
        dataset: where the clips come from.
        out: the folder; made if it is not there.
        split: what the clips are packed as.
        packing: how they are read and stored; None is the usual way.
        workers: processes that read; 0 reads in this one.
        beside: files that belong to the dataset, copied along.
        progress: told how many clips more are done: packed, bad, or there already.

    Raises:
        DatasetError: the folder holds clips of another dataset or packed in another way, cannot
            be written, or the source is unusable as a whole.
    """
    packing = packing or Packing()
    if packing.frames is None and not isinstance(dataset, StoredFrames):
        packing = replace(packing, frames=FRAMES_OF_FOOTAGE)
    job = _Job(dataset, out, split, packing, _fingerprint(dataset, split, packing))
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            return job.run(workers, beside, progress)
    except OSError as exc:
        raise DatasetError(
            f"packing {dataset.name} into {out}: {exc}. What is finished is kept: make room or "
            "mend the disk, and run the same command again."
        ) from exc


def write_aside(path: Path, content: bytes) -> None:
    """Write a file that appears complete or not at all.  Raises OSError."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as stream:
        stream.write(content)
        _finish(stream, part, path)


class _Job:
    """One split on its way into a folder."""

    def __init__(
        self, dataset: ClipDataset, out: Path, split: Split, packing: Packing, fingerprint: str
    ) -> None:
        self.dataset = dataset
        self.out = out
        self.split = split
        self.packing = packing
        self.fingerprint = fingerprint
        self.records = out / f"{split}.packing"
        """Folder of what is known of each finished shard, until the index tells."""
        self.shard_count = -(-len(dataset.entries) // packing.clips_per_shard)

    def run(
        self, workers: int, beside: Sequence[Path], progress: Callable[[int], None] | None
    ) -> PackReport:
        """Write what is missing, then the index."""
        index = self._begin_index(beside)
        done = index.splits.get(self.split)
        if (
            done is not None
            and done.fingerprint == self.fingerprint
            and self._are_there(done.shards)
        ):
            _tell(progress, len(done.rows) + len(done.bad))
            self._remove_orphans(done)
            return _report(done, kept=len(done.shards))
        self.records.mkdir(exist_ok=True)
        kept = [number for number in range(self.shard_count) if self._finished(number) is not None]
        _tell(progress, sum(len(self._indices(number)) for number in kept))
        self._write_missing(workers, progress)
        packed = self._collect()
        text = write_index(replace(index, splits={**index.splits, self.split: packed}))
        write_aside(self.out / INDEX, text.encode("utf-8"))
        shutil.rmtree(self.records)
        self._remove_orphans(packed)
        return _report(packed, kept=len(kept))

    def _remove_orphans(self, packed: PackedSplit) -> None:
        """Remove shards of this split that an earlier packing of other clips left."""
        named = {shard.file for shard in packed.shards}
        for path in self.out.glob(f"{self.split}-*.tar*"):
            if path.name.removesuffix(".part") not in named and _SHARD.fullmatch(path.name):
                path.unlink()

    def _begin_index(self, beside: Sequence[Path]) -> Index:
        """The index of the folder as it is, or a new one; writes what lies beside the shards."""
        places = self.dataset.places_csv.encode("utf-8")
        contents = {path.name: path.read_bytes() for path in beside}
        wanted = Index(
            packing=self.packing,
            places=_stored(PLACES, places),
            scene_labels=tuple(getattr(self.dataset, "scene_labels", ())),
            beside=tuple(_stored(*item) for item in sorted(contents.items())),
            splits={},
        )
        if (self.out / INDEX).exists():
            index = read_index(self.out)
            self._check_same(index, wanted)
            return index
        for name, content in {**contents, PLACES: places}.items():
            write_aside(self.out / name, content)
        write_aside(self.out / INDEX, write_index(wanted).encode("utf-8"))
        return wanted

    def _check_same(self, index: Index, wanted: Index) -> None:
        there, asked = asdict(index.packing), asdict(wanted.packing)
        differ = [
            f"{key} {there[key]!r} and not {asked[key]!r}"
            for key in asked
            if there[key] != asked[key]
        ]
        if index.places != wanted.places:
            differ.append("another class tree")
        if index.beside != wanted.beside:
            differ.append("other files beside the clips")
        if differ:
            raise DatasetError(
                f"packing {self.dataset.name} into {self.out}: the folder holds clips that were "
                f"packed with {', '.join(differ)}. Choose another folder, or the same settings."
            )

    def _are_there(self, shards: Iterable[StoredFile]) -> bool:
        """Whether shards are where they were put, as far as their sizes tell."""
        return all(_size(self.out / shard.file) == shard.bytes for shard in shards)

    def _indices(self, number: int) -> range:
        """The clips of a shard."""
        first = number * self.packing.clips_per_shard
        return range(first, min(first + self.packing.clips_per_shard, len(self.dataset.entries)))

    def _finished(self, number: int) -> dict[str, Any] | None:
        """What is known of a shard that an earlier run finished."""
        try:
            record: dict[str, Any] = json.loads(self._record_path(number).read_text("utf-8"))
            shard = parse_file(record["shard"])
            parse_rows(record["entries"], [shard] * (number + 1))
            parse_bad(record["bad"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if record.get("fingerprint") != self.fingerprint or not self._are_there([shard]):
            return None
        return record

    def _write_missing(self, workers: int, progress: Callable[[int], None] | None) -> None:
        """Write every shard that is not finished, in order."""
        missing = [number for number in range(self.shard_count) if self._finished(number) is None]
        indices = [index for number in missing for index in self._indices(number)]
        clips = make_clips(self.dataset, self.packing, indices, workers)
        try:
            for number in missing:
                self._write_shard(number, clips, progress)
        finally:
            clips.close()

    def _write_shard(
        self,
        number: int,
        clips: Iterator[PackedClip | BadSample],
        progress: Callable[[int], None] | None,
    ) -> None:
        path = self.out / f"{self.split}-{number:06d}.tar"
        part = path.with_name(path.name + ".part")
        rows: list[Row] = []
        bad: list[tuple[str, str]] = []
        hashed, offset = sha256(), 0
        entries = self.dataset.entries
        with part.open("wb") as stream:
            for index in self._indices(number):
                entry, clip = entries[index], next(clips)
                _tell(progress, 1)
                if isinstance(clip, BadSample):
                    bad.append((clip.name, clip.reason))
                    continue
                rows.append(_row(entry, number, offset, clip))
                offset += len(clip.members)
                hashed.update(clip.members)
                stream.write(clip.members)
            end = bytes(2 * BLOCK_BYTES)
            hashed.update(end)
            stream.write(end)
            _finish(stream, part, path)
        shard = StoredFile(file=path.name, sha256=hashed.hexdigest(), bytes=offset + len(end))
        record = {
            "fingerprint": self.fingerprint,
            "shard": asdict(shard),
            "entries": rows,
            "bad": bad,
        }
        write_aside(self._record_path(number), json.dumps(record).encode("utf-8"))

    def _collect(self) -> PackedSplit:
        """What the index says of the split, once all of its shards are finished."""
        records = [self._finished(number) for number in range(self.shard_count)]
        if None in records:
            raise DatasetError(
                f"packing {self.dataset.name} into {self.out}: a shard disappeared while others "
                "were written. Run the same command again."
            )
        finished = [record for record in records if record is not None]
        return PackedSplit(
            name=self.dataset.name,
            fingerprint=self.fingerprint,
            has_times=not isinstance(self.dataset, StoredFrames),
            shards=tuple(parse_file(record["shard"]) for record in finished),
            rows=tuple(tuple(row) for record in finished for row in record["entries"]),
            bad=tuple((name, reason) for record in finished for name, reason in record["bad"]),
        )

    def _record_path(self, number: int) -> Path:
        return self.records / f"{number:06d}.json"


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Be alone in a folder.  Raises DatasetError where another packing is at work in it."""
    try:
        lock = OutputLock([str(out / INDEX)])
        lock.__enter__()
    except OutputError as exc:
        raise DatasetError(
            f"packing into {out}: another process is packing into it. Wait for it to end, or "
            "choose another folder."
        ) from exc
    try:
        yield
    finally:
        lock.release()


def _fingerprint(dataset: ClipDataset, split: str, packing: Packing) -> str:
    """Tells whether shards come of the same dataset, packed the same way."""
    found = sha256(json.dumps([dataset.name, split, asdict(packing)]).encode("utf-8"))
    found.update(dataset.places_csv.encode("utf-8"))
    found.update(getattr(dataset, "labels_sha256", "").encode("utf-8"))
    for entry in dataset.entries:
        found.update(json.dumps([entry.name, entry.city_id, entry.group]).encode("utf-8"))
    return found.hexdigest()


def _row(entry: Entry, shard: int, offset: int, clip: PackedClip) -> Row:
    return (
        entry.name,
        entry.city_id,
        entry.group,
        shard,
        offset,
        clip.head_bytes,
        clip.head_crc32,
    )


def _stored(name: str, content: bytes) -> StoredFile:
    return StoredFile(file=name, sha256=digest(content), bytes=len(content))


def _finish(stream: io.BufferedWriter, part: Path, path: Path) -> None:
    """Put a written file on the disk, and then in its place."""
    stream.flush()
    os.fsync(stream.fileno())
    part.replace(path)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _report(packed: PackedSplit, *, kept: int) -> PackReport:
    return PackReport(clips=len(packed.rows), bad=packed.bad, shards=len(packed.shards), kept=kept)


def _tell(progress: Callable[[int], None] | None, clips: int) -> None:
    if progress is not None:
        progress(clips)
