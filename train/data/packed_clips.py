"""Clips into members of a tar, as many at once as there are processes, always in order.

Shape suffixes: T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import tarfile
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from zlib import crc32

import numpy as np

from train.data.dataset import BadSample, View
from train.data.pictures import encode_picture
from train.data.shard_index import BLOCK_BYTES, LARGEST_HEAD_BYTES, Packing
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from train.data.dataset import ClipDataset, Entry, Sample

FRAMES_OF_FOOTAGE = 32
"""Stored of a clip where `all` has no meaning, because its source is video: as many again as a
model of 16 frames takes, so that it can still shift them."""
_AHEAD = 4
"""Clips that wait for each process: its next ones, and those that are written later than made."""


@runtime_checkable
class StoredFrames(Protocol):
    """A dataset whose clips are stored as frames, not as video."""

    def count_frames(self, index: int) -> int:
        """How many frames of a clip there are; 0 where that cannot be told."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedClip:
    """A clip as members of a tar, and what the index says of it."""

    members: bytes
    head_bytes: int
    head_crc32: int


def make_clips(
    dataset: ClipDataset, packing: Packing, indices: Sequence[int], workers: int
) -> Generator[PackedClip | BadSample, None, None]:
    """The clips of some indices in their order, made ahead by other processes if there are any."""
    if workers < 1:
        for index in indices:
            yield _make_clip(dataset, packing, index)
        return
    # Forked processes would inherit threads of libraries in any state.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin_worker, (dataset, packing))
    try:
        waiting: deque[Any] = deque()
        for index in indices:
            waiting.append(pool.submit(_work, index))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as exc:
        raise DatasetError(
            f"packing {dataset.name}: a process that reads clips was ended, perhaps for want of "
            "memory. What is finished is kept: run the same command again, with fewer --workers."
        ) from exc
    finally:
        pool.shutdown(cancel_futures=True)


_source: tuple[ClipDataset, Packing] | None = None
"""Of a worker process, from its beginning to its end."""


def _begin_worker(dataset: ClipDataset, packing: Packing) -> None:
    global _source
    _source = (dataset, packing)


def _work(index: int) -> PackedClip | BadSample:
    assert _source is not None
    return _make_clip(*_source, index)


def _make_clip(dataset: ClipDataset, packing: Packing, index: int) -> PackedClip | BadSample:
    """Read a clip and put it into the members of a tar."""
    frames = _frames_of(dataset, packing, index)
    view = View(
        frames=frames,
        image_px=packing.image_px,
        resize=packing.resize,
        picking=packing.picking,
        policy=packing.policy,
        span_s=packing.span_s,
        seed=packing.seed,
    )
    sample = dataset.read(index, view)
    if isinstance(sample, BadSample):
        return sample
    return _members(dataset.entries[index], sample, index, packing.quality)


def _frames_of(dataset: ClipDataset, packing: Packing, index: int) -> int:
    """How many frames of a clip are stored: none twice where the source has fewer."""
    if isinstance(dataset, StoredFrames):
        count = max(1, dataset.count_frames(index))
        return count if packing.frames is None else min(count, packing.frames)
    return packing.frames or FRAMES_OF_FOOTAGE


def _members(entry: Entry, sample: Sample, index: int, quality: int) -> PackedClip | BadSample:
    jpegs = [encode_picture(frame_HWC, quality) for frame_HWC in sample.clip_THWC]
    labels = {
        "name": entry.name,
        "city_id": sample.city_id,
        "group": entry.group,
        "point_deg": sample.point_deg,
        "scene": None if sample.scene_S is None else [_short(share) for share in sample.scene_S],
        "scene_id": sample.scene_id,
        "frame_bytes": [len(jpeg) for jpeg in jpegs],
        "frame_crc32": [crc32(jpeg) for jpeg in jpegs],
    }
    head = json.dumps(labels).encode("ascii")
    if len(head) > LARGEST_HEAD_BYTES:
        return BadSample(name=entry.name, reason=f"its labels take {len(head)} bytes")
    members = io.BytesIO()
    members.write(_member(f"{index:08d}.json", head))
    for number, jpeg in enumerate(jpegs):
        members.write(_member(f"{index:08d}.{number:03d}.jpg", jpeg))
    return PackedClip(members=members.getvalue(), head_bytes=len(head), head_crc32=crc32(head))


def _member(name: str, content: bytes) -> bytes:
    """One member of a tar, without owner and time: the same content gives the same bytes."""
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = len(content), 0o644, 0
    padding = bytes(-len(content) % BLOCK_BYTES)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + padding


def _short(share: np.float32) -> float:
    """The shortest decimal that is read back as the same float32."""
    return float(str(np.float32(share)))
