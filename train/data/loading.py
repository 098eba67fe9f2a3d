"""From a dataset to batches: which clips a step sees, and how they get there.

The clips of every step follow from the seed alone. A run that goes on at step 1,000 sees what it
would have seen, and processes that share the work see together what one alone would have seen.

Shape suffixes: N clips, T frames, H and W pixels, S scene groups.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from train.data.dataset import UNKNOWN_SCENE, BadSample, Sample
from train.errors import DatasetError
from train.losses import NO_SCENE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from train.data.dataset import ClipDataset, View

REPLAY_POOL = 1024
"""Clips that wait for their second view: 0.6 GB at 16x112x112."""
AHEAD = 2
"""Batches that each worker process prepares ahead."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Clips with what they should be answered with."""

    clip_NTHWC: Tensor
    """uint8."""
    city_N: Tensor
    """int64."""
    scene_NS: Tensor
    """float32; rows of zeros where no scenes are known."""
    scene_N: Tensor
    """int64: the most frequent scene of the frames, or the largest share where only shares are
    known; NO_SCENE where nothing is."""
    positions_N: Tensor
    """int64: which samples of what was asked for these are, counted from 0."""
    point_N2: Tensor | None = None
    """float64: (lat_deg, lon_deg) where it was measured, NaN where not; None: nowhere."""
    bad: tuple[BadSample, ...] = ()
    """Those that could not be read, and are not in here."""
    error: DatasetError | None = None
    """What is wrong with the whole dataset: it crosses processes as a value, so that a person sees
    its message and not the trace of a worker."""

    def __len__(self) -> int:
        """Clips."""
        return len(self.city_N)

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU copies from at full speed; a DataLoader calls it."""
        return self._map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def take(self, chosen: slice | list[int]) -> Batch:
        """Some of the clips."""
        return replace(self._map(lambda tensor: tensor[chosen]), bad=())

    def _map(self, change) -> Batch:  # noqa: ANN001
        return Batch(
            clip_NTHWC=change(self.clip_NTHWC),
            city_N=change(self.city_N),
            scene_NS=change(self.scene_NS),
            scene_N=change(self.scene_N),
            positions_N=change(self.positions_N),
            point_N2=None if self.point_N2 is None else change(self.point_N2),
            bad=self.bad,
            error=self.error,
        )


def collate(
    found: Sequence[tuple[int, Sample | BadSample | DatasetError]], *, view: View, scenes: int
) -> Batch:
    """Put samples side by side; those that could not be read go into `bad`.

    Args:
        found: (position, sample) of each.
        view: gives the shape of an empty batch.
        scenes: S.
    """
    good = [(position, sample) for position, sample in found if isinstance(sample, Sample)]
    shape = (len(good), view.frames, view.image_px, view.image_px, 3)
    clip_NTHWC = torch.empty(shape, dtype=torch.uint8)
    scene_NS = torch.zeros(len(good), scenes)
    for row, (_, sample) in enumerate(good):
        clip_NTHWC[row] = torch.from_numpy(sample.clip_THWC)
        if sample.scene_S is not None:
            scene_NS[row] = torch.from_numpy(sample.scene_S)
    scene_ids = [_scene_of(sample) for _, sample in good]
    return Batch(
        clip_NTHWC=clip_NTHWC,
        city_N=torch.tensor([sample.city_id for _, sample in good], dtype=torch.long),
        scene_NS=scene_NS,
        scene_N=torch.tensor(scene_ids, dtype=torch.long),
        positions_N=torch.tensor([position for position, _ in good], dtype=torch.long),
        point_N2=torch.tensor(
            [sample.point_deg or (math.nan, math.nan) for _, sample in good], dtype=torch.float64
        ).reshape(-1, 2),
        bad=tuple(sample for _, sample in found if isinstance(sample, BadSample)),
        error=next((each for _, each in found if isinstance(each, DatasetError)), None),
    )


def _scene_of(sample: Sample) -> int:
    if sample.scene_id != UNKNOWN_SCENE:
        return sample.scene_id
    return NO_SCENE if sample.scene_S is None else int(sample.scene_S.argmax())


def _points_of(batch: Batch) -> Tensor:
    nowhere_N2 = torch.full((len(batch), 2), math.nan, dtype=torch.float64)
    return nowhere_N2 if batch.point_N2 is None else batch.point_N2


def join(batches: Sequence[Batch]) -> Batch:
    """Batches one behind the other."""
    return Batch(
        clip_NTHWC=torch.cat([batch.clip_NTHWC for batch in batches]),
        city_N=torch.cat([batch.city_N for batch in batches]),
        scene_NS=torch.cat([batch.scene_NS for batch in batches]),
        scene_N=torch.cat([batch.scene_N for batch in batches]),
        positions_N=torch.cat([batch.positions_N for batch in batches]),
        point_N2=torch.cat([_points_of(batch) for batch in batches]),
        bad=tuple(bad for batch in batches for bad in batch.bad),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which samples each step sees.

    A sample is numbered by its place in an endless row: all clips of the dataset in a random order,
    then all again in another, and so on.
    """

    samples: int
    """Of the dataset."""
    steps: int
    batch: int
    views: int
    seed: int

    def __iter__(self) -> Iterator[list[int]]:
        """Numbers of the samples of each step."""
        fresh = -(-self.steps // self.views)
        rows = ([step * self.batch + at for at in range(self.batch)] for step in range(fresh))
        return islice(replay(rows, views=self.views, seed=self.seed), self.steps)

    def locate(self, number: int) -> tuple[int, int]:
        """(index in the dataset, epoch) of a sample's number."""
        epoch, at = divmod(number, self.samples)
        return int(_order(self.samples, self.seed, epoch)[at]), epoch


@lru_cache(maxsize=2)
def _order(samples: int, seed: int, epoch: int) -> NDArray[np.intp]:
    return np.random.default_rng([seed, epoch]).permutation(samples)


def replay(rows: Iterator[list[int]], *, views: int, seed: int) -> Iterator[list[int]]:
    """Show every sample `views` times, its repeats later and among other samples.

    Rendering a clip costs more than a training step on it, and with half of the tokens dropped a
    second view is not the same view. At most REPLAY_POOL samples wait.
    """
    rng = np.random.default_rng(seed)
    pool: list[int] = []
    size = 0
    for row in rows:
        size = size or len(row)
        yield row
        for number in row:
            pool.extend([number] * (views - 1))
        while len(pool) > REPLAY_POOL:
            yield [pool.pop(int(rng.integers(len(pool)))) for _ in range(size)]
    while pool:
        count = min(size, len(pool))
        yield [pool.pop(int(rng.integers(len(pool)))) for _ in range(count)]


def training_batches(
    dataset: ClipDataset,
    view: View,
    plan: Plan,
    *,
    scenes: int,
    workers: int,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """The batches of one process, from a step on.

    Args:
        dataset: what to read.
        view: how; its seed is given anew for every epoch.
        plan: which samples.
        scenes: S.
        workers: processes that read; 0 reads in this one.
        start: first step.
        share: (r, n): of every step the samples r, r + n, r + 2n, ... are this process's.
        pin_memory: for a GPU.
    """
    rank, world = share
    reader = _Reader(dataset, view, plan)
    rows = (numbers[rank::world] for numbers in islice(plan, start, None))
    if plan.views == 1:
        yield from _load(
            reader, rows, view=view, scenes=scenes, workers=workers, pin_memory=pin_memory
        )
        return
    steps = list(rows)
    last_use = {number: step for step, numbers in enumerate(steps) for number in numbers}
    seen: set[int] = set()
    fresh: list[list[int]] = []
    for numbers in steps:
        fresh.append([number for number in dict.fromkeys(numbers) if number not in seen])
        seen.update(numbers)
    kept: dict[int, Batch] = {}
    read = _load(reader, fresh, view=view, scenes=scenes, workers=workers, pin_memory=pin_memory)
    for step, (numbers, batch) in enumerate(zip(steps, read, strict=True)):
        for row, number in enumerate(batch.positions_N.tolist()):
            kept[number] = batch.take([row])  # a copy: a slice would keep its whole batch
        shown = [kept[number] for number in numbers if number in kept]
        yield replace(join(shown) if shown else batch, bad=batch.bad)
        for number in set(numbers):
            if last_use[number] == step:
                kept.pop(number, None)


def reading_batches(
    dataset: ClipDataset,
    view: View,
    *,
    size: int,
    scenes: int,
    workers: int,
    indices: Sequence[int] | None = None,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Every sample once, in order; `positions_N` are indices of the dataset.

    Args:
        dataset: what to read.
        view: how.
        size: clips of a batch.
        scenes: S.
        workers: processes that read; 0 reads in this one.
        indices: which samples; None for all.
        pin_memory: for a GPU.
    """
    chosen = range(len(dataset.entries)) if indices is None else indices
    rows = [list(chosen[at : at + size]) for at in range(0, len(chosen), size)]
    reader = _Reader(dataset, view, None)
    return _load(reader, rows, view=view, scenes=scenes, workers=workers, pin_memory=pin_memory)


@dataclass(frozen=True, slots=True)
class _Reader(Dataset):
    dataset: ClipDataset
    view: View
    plan: Plan | None

    def __getitem__(self, number: int) -> tuple[int, Sample | BadSample | DatasetError]:
        try:
            return self._read(number)
        except DatasetError as exc:
            return number, exc

    def _read(self, number: int) -> tuple[int, Sample | BadSample]:
        if self.plan is None:
            return number, self.dataset.read(number, self.view)
        index, epoch = self.plan.locate(number)
        # One seed for each epoch, so that a clip looks different each time it comes.
        seed = int(np.random.SeedSequence([self.plan.seed, epoch]).generate_state(1)[0])
        return number, self.dataset.read(index, replace(self.view, seed=seed))


@dataclass(frozen=True, slots=True)
class _Collate:
    view: View
    scenes: int

    def __call__(self, found: Sequence[tuple[int, Sample | BadSample | DatasetError]]) -> Batch:
        return collate(found, view=self.view, scenes=self.scenes)


def _load(
    reader: _Reader,
    rows: Iterable[list[int]],
    *,
    view: View,
    scenes: int,
    workers: int,
    pin_memory: bool,
) -> Iterator[Batch]:
    loader: DataLoader[Batch] = DataLoader(
        reader,
        batch_sampler=rows,  # any iterable will do
        num_workers=workers,
        collate_fn=_Collate(view, scenes),
        prefetch_factor=AHEAD if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=outlive_signals if workers else None,
    )
    for batch in loader:
        if batch.error is not None:
            raise batch.error
        yield batch


def outlive_signals(_: int) -> None:
    """What asks a run to stop reaches its workers too; they are stopped by the run itself."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
