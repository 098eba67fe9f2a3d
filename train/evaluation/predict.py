"""From a data set and a model to scores of clips, of samples seen several times, and of drives.

Scores of several clips become one answer by averaging log-probabilities level by level: the
product of experts, tempered so that more clips of the same scene do not pile up confidence.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, K classes of a level.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.progress import Progress
from torch.utils.data import DataLoader, Dataset

from engines.bundle import LEVELS
from engines.choose import usable_cores
from geotag.geo import mean_point_deg
from geotag.places.hierarchy import log_softmax
from train.data.dataset import BadSample, Sample
from train.errors import DatasetError
from train.evaluation.class_map import map_classes
from train.evaluation.metrics import UNKNOWN, Predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from rich.console import Console

    from train.data.dataset import ClipDataset, View
    from train.evaluation.scorers import Scorer

BATCH = 32
_NO_PIXELS = np.empty((0, 0, 0, 3), np.uint8)

_Read = Sample | BadSample | DatasetError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """What a pass over a data set gave."""

    predictions: Predictions
    bad: tuple[BadSample, ...]
    """Samples that could not be read, in order; none of them is in the predictions."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Reads(Dataset[_Read]):
    """Clips of a data set in the order in which they are scored: all parts of a sample together."""

    dataset: ClipDataset
    view: View
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices) * self.view.parts

    def __getitem__(self, number: int) -> _Read:
        row, part = divmod(number, self.view.parts)
        try:
            return self.dataset.read(self.indices[row], replace(self.view, part=part))
        except DatasetError as exc:  # raised in a worker it would come with the worker's traceback
            return exc


def predict(
    scorer: Scorer,
    dataset: ClipDataset,
    view: View,
    *,
    indices: Sequence[int],
    workers: int,
    console: Console,
    title: str,
) -> Scored:
    """Score samples of a data set, in order.

    With `view.parts` above 1 every sample is seen so many times and its clips are fused into one
    answer; a sample with one unreadable part is a bad sample.

    Args:
        scorer: the model.
        dataset: any; its classes are found in the model's tree (`train.evaluation.class_map`).
        view: how clips are read.
        indices: which samples.
        workers: reading processes; 0 reads in this one.
        console: where progress is shown.
        title: what the progress line says is being scored.

    Raises:
        DatasetError: the data set cannot be used, or not one sample can be read.
    """
    reads = _Reads(dataset=dataset, view=view, indices=tuple(indices))
    loader = DataLoader(reads, batch_size=BATCH, num_workers=workers, collate_fn=list)
    torch.set_num_threads(max(1, usable_cores() - workers))
    # Not rich's track: left by an error, its generator ends whenever garbage is collected, and then
    # waits for a lock that the next bar may hold.
    with Progress(console=console) as progress:
        task = progress.add_task(f"evaluating {title}", total=len(loader))
        clips, scores, bad = _score(scorer, loader, view.parts, lambda: progress.advance(task))
    # A sample with one bad part gives no answer: its other parts are dropped with it.
    kept = [row for row, (number, _) in enumerate(clips) if number // view.parts not in bad]
    if not kept:
        reason = next(iter(bad.values())).reason if bad else "it lists none"
        raise DatasetError(
            f"evaluating {dataset.name}: none of its {len(reads.indices)} samples could be read "
            f"({reason}). Check the path and the labels."
        )
    predictions = _gather(
        scorer,
        dataset,
        [(reads.indices[clips[row][0] // view.parts], clips[row][1]) for row in kept],
        {name: values_NK[kept] for name, values_NK in scores.items()},
    )
    if view.parts > 1:
        rows = np.arange(len(kept)).reshape(-1, view.parts)
        predictions = fuse(predictions, rows.tolist())
    return Scored(predictions=predictions, bad=tuple(bad.values()))


def _score(
    scorer: Scorer, batches: Iterable[list[_Read]], parts: int, advance: Callable[[], None]
) -> tuple[list[tuple[int, Sample]], dict[str, NDArray[np.float32]], dict[int, BadSample]]:
    """Readable clips by their number in the pass, their scores, and unreadable samples by row."""
    clips: list[tuple[int, Sample]] = []
    scores: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    bad: dict[int, BadSample] = {}
    start = 0
    for batch in batches:
        good = list(_sort_out(batch, start, bad, parts))
        start += len(batch)
        if good:
            outputs = scorer.score(np.stack([sample.clip_THWC for _, sample in good]))
            for name, values_NK in outputs.items():
                scores[name].append(values_NK)
        # What the labels need stays; the pixels of a whole data set would not fit.
        clips += [(number, replace(sample, clip_THWC=_NO_PIXELS)) for number, sample in good]
        advance()
    return clips, {name: np.concatenate(values) for name, values in scores.items()}, bad


def _sort_out(
    batch: list[_Read], start: int, bad: dict[int, BadSample], parts: int
) -> Iterator[tuple[int, Sample]]:
    for number, read in enumerate(batch, start=start):
        if isinstance(read, DatasetError):
            raise read
        if isinstance(read, BadSample):
            bad.setdefault(number // parts, read)
        else:
            yield number, read


def _gather(
    scorer: Scorer,
    dataset: ClipDataset,
    clips: list[tuple[int, Sample]],
    scores: dict[str, NDArray[np.float32]],
) -> Predictions:
    """Scores and truth side by side, of clips with their index in the data set."""
    entries = [dataset.entries[index] for index, _ in clips]
    samples = [sample for _, sample in clips]
    cities = np.array([sample.city_id for sample in samples], np.intp)
    classes = map_classes(dataset.hierarchy, scorer.hierarchy)
    scene_labels = np.array([sample.scene_id for sample in samples], np.intp)
    scene_logits = scores.get("scene")
    if scene_logits is not None and scene_labels.max() >= scene_logits.shape[1]:
        raise DatasetError(
            f"evaluating {scorer.label} on {dataset.name}: a clip has the scene "
            f"{scene_labels.max()}, the model has {scene_logits.shape[1]} scene groups. "
            "The two do not follow the same scenes."
        )
    return Predictions(
        logits={level: scores[level] for level in LEVELS},
        labels={level: classes.labels[level][cities] for level in LEVELS},
        names=tuple(entry.name for entry in entries),
        groups=tuple(entry.group for entry in entries),
        cities=cities,
        truths_deg=np.array([_truth_deg(dataset, sample) for sample in samples], np.float64),
        measured=np.array([sample.point_deg is not None for sample in samples]),
        scene_logits=scene_logits,
        scene_labels=scene_labels if (scene_labels != UNKNOWN).any() else None,
    )


def _truth_deg(dataset: ClipDataset, sample: Sample) -> tuple[float, float]:
    """Where the clip was recorded; NaN where its city has no reference point either."""
    if sample.point_deg is not None:
        return sample.point_deg
    place = dataset.hierarchy.places["city"][sample.city_id]
    if place.lat_deg is None or place.lon_deg is None:
        return float("nan"), float("nan")
    return place.lat_deg, place.lon_deg


def fuse(predictions: Predictions, rows: Sequence[Sequence[int]]) -> Predictions:
    """One answer from each list of clips: the mean of their log-probabilities at every level.

    The truth of several clips is their most frequent city and the mean of their measured points;
    name and group are those of the first.
    """
    firsts = [_with_frequent_city(predictions, given) for given in rows]
    truths = [
        _mean_truth(predictions, given, first) for given, first in zip(rows, firsts, strict=True)
    ]
    scenes = predictions.scene_logits
    labels = predictions.scene_labels
    return Predictions(
        logits={level: _mean_log_probs(predictions.logits[level], rows) for level in LEVELS},
        labels={level: predictions.labels[level][firsts] for level in LEVELS},
        names=tuple(predictions.names[given[0]] for given in rows),
        groups=tuple(predictions.groups[given[0]] for given in rows),
        cities=predictions.cities[firsts],
        truths_deg=np.array(truths, np.float64).reshape(-1, 2),
        measured=np.array([predictions.measured[list(given)].any() for given in rows], bool),
        scene_logits=None if scenes is None else _mean_log_probs(scenes, rows),
        scene_labels=None
        if labels is None
        else np.array([_frequent(labels[list(given)]) for given in rows], np.intp),
    )


def rows_of_groups(predictions: Predictions) -> list[list[int]]:
    """The clips of each group, in order of first appearance."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(predictions.groups):
        rows[group].append(row)
    return list(rows.values())


def fuse_drives(predictions: Predictions) -> Predictions:
    """One answer for each drive: all clips of a group fused, and named after it."""
    fused = fuse(predictions, rows_of_groups(predictions))
    return replace(fused, names=fused.groups)


def _mean_log_probs(
    logits_NK: NDArray[np.float32], rows: Sequence[Sequence[int]]
) -> NDArray[np.float32]:
    means = [log_softmax(logits_NK[list(given)]).mean(axis=0) for given in rows]
    return np.array(means, np.float32).reshape(len(rows), logits_NK.shape[1])


def _with_frequent_city(predictions: Predictions, rows: Sequence[int]) -> int:
    """The first clip in the city that most of the clips are in."""
    cities = predictions.cities[list(rows)]
    return int(rows[int(np.flatnonzero(cities == _frequent(cities))[0])])


def _frequent(values: NDArray[Any]) -> int:
    """Most frequent value, the lowest of equals; UNKNOWN only where there is no other."""
    known = values[values != UNKNOWN]
    if not len(known):
        return UNKNOWN
    found, counts = np.unique(known, return_counts=True)
    return int(found[counts.argmax()])


def _mean_truth(
    predictions: Predictions, rows: Sequence[int], first: int
) -> tuple[float, float] | NDArray[np.float64]:
    here = [row for row in rows if predictions.measured[row]]
    if not here:
        return predictions.truths_deg[first]
    lats_deg, lons_deg = predictions.truths_deg[here].T
    return mean_point_deg(lats_deg, lons_deg, np.ones(len(here)))
