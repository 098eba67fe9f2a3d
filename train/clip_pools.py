"""Clips of a data set that were looked at once and can be read any number of times after that.

Nothing of a clip is kept but its name and labels: the pixels are decoded anew in every pass, so
that memory does not depend on how many clips there are.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import Progress
from torch.utils.data import DataLoader, Dataset

from calibration.errors import CalibrationError
from calibration.select import Candidate, measure_light
from train.data.dataset import UNKNOWN_SCENE, BadSample, Sample
from train.data.loading import outlive_signals
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from rich.console import Console

    from train.data.dataset import ClipDataset, View

_LOOKED_AT = 4
"""Clips between two steps of a progress line."""

_Read = Sample | Candidate | BadSample | DatasetError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipBatch:
    """Some clips of a pool."""

    clips_NTHWC: NDArray[np.uint8]
    city_ids: NDArray[np.intp] | None
    """[N], the model's class of each; UNKNOWN (-1) where it has no such city. None: no labels."""
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Clips."""
        return len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipPool:
    """Clips that were readable when they were looked at, in a fixed order."""

    dataset: ClipDataset
    view: View
    looks: tuple[Candidate, ...]
    """What is known of each; `number` is its place in the data set."""
    city_ids: NDArray[np.intp] | None
    """[N], as in a batch."""
    bad: tuple[BadSample, ...]
    """Those that could not be read, and are not in here."""
    workers: int

    @property
    def count(self) -> int:
        """Clips."""
        return len(self.looks)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the clips; unique, and no path of this machine."""
        return tuple(look.name for look in self.looks)

    def batches(self, size: int) -> Iterator[ClipBatch]:
        """All clips in order, read anew: the same bytes in every pass.

        Args:
            size: clips of a batch; the last may have fewer.

        Raises:
            CalibrationError: a clip cannot be read any more.
            DatasetError: the data set cannot be used any more.
        """
        if size < 1:
            raise ValueError(f"reading clips {size} at a time: at least 1 is needed")
        reads = _Reads(self.dataset, self.view, tuple(look.number for look in self.looks))
        start = 0
        for found in _load(reads, size, self.workers):
            clips = [self._readable(read) for read in found]
            end = start + len(clips)
            yield ClipBatch(
                clips_NTHWC=np.stack([sample.clip_THWC for sample in clips]),
                city_ids=None if self.city_ids is None else self.city_ids[start:end],
                names=self.names[start:end],
            )
            start = end

    def _readable(self, read: _Read) -> Sample:
        if isinstance(read, BadSample):
            raise CalibrationError(
                f"reading {read.name!r} again: it could be read before and cannot be now "
                f"({read.reason}). Leave the footage as it is until the export has ended."
            )
        assert isinstance(read, Sample)
        return read


def look_at(
    dataset: ClipDataset,
    view: View,
    indices: Sequence[int],
    *,
    workers: int,
    console: Console,
    title: str,
) -> tuple[list[Candidate], list[BadSample]]:
    """Read clips once, and keep what they look like.

    Args:
        dataset: whose clips.
        view: how they are read.
        indices: which.
        workers: reading processes; 0 reads in this one.
        console: where progress is shown.
        title: what the progress line says.

    Returns:
        The readable ones in order, each with its index as number, and the unreadable ones in order.

    Raises:
        DatasetError: the data set cannot be used.
    """
    good: list[Candidate] = []
    bad: list[BadSample] = []
    reads = _Reads(dataset, view, tuple(indices), keeps_pixels=False)
    # Not rich's track: see train.evaluation.predict.
    with Progress(console=console) as progress:
        task = progress.add_task(title, total=len(reads))
        for found in _load(reads, _LOOKED_AT, workers):
            good += [read for read in found if isinstance(read, Candidate)]
            bad += [read for read in found if isinstance(read, BadSample)]
            progress.advance(task, len(found))
    return good, bad


@dataclass(frozen=True, slots=True, eq=False)
class _Reads(Dataset[_Read]):
    """Clips of a data set in an order, or what they look like."""

    dataset: ClipDataset
    view: View
    indices: tuple[int, ...]
    keeps_pixels: bool = True

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> _Read:
        index = self.indices[place]
        try:
            read = self.dataset.read(index, self.view)
        except DatasetError as exc:  # raised in a worker it would come with the worker's traceback
            return exc
        if self.keeps_pixels or isinstance(read, BadSample):
            return read
        entry = self.dataset.entries[index]
        light, contrast = measure_light(read.clip_THWC)
        return Candidate(
            number=index,
            name=entry.name,
            group=entry.group,
            city=None if read.city_id < 0 else read.city_id,
            scene=_scene_of(read),
            light=light,
            contrast=contrast,
        )


def _scene_of(sample: Sample) -> int | None:
    if sample.scene_id != UNKNOWN_SCENE:
        return sample.scene_id
    return None if sample.scene_S is None else int(sample.scene_S.argmax())


def _load(reads: _Reads, size: int, workers: int) -> Iterator[list[Any]]:
    """Everything in order, in lists of a size; the first error of the data set is raised."""
    workers = min(workers, -(-len(reads) // size))
    loader = DataLoader(
        reads,
        batch_size=size,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=outlive_signals if workers else None,
    )
    for found in loader:
        for read in found:
            if isinstance(read, DatasetError):
                raise read
        yield found
