"""The clips that a smaller model is calibrated on, and others that it is judged by.

Both come from footage that the model may be tuned to: the calibrating ones from the part that is
learned from, the others from the part that is held out of it. Clips of a test split are never
looked at, for what is reported on them must not depend on them.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.select import select_clips
from train.clip_pools import ClipPool, look_at
from train.data.dataset import View
from train.data.sources import notes_of, open_dataset
from train.data.world import SCENE_GROUPS
from train.evaluation.class_map import map_classes
from train.evaluation.metrics import UNKNOWN
from train.evaluation.sets import RENDERED, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rich.console import Console

    from calibration.select import Candidate
    from engines.bundle import InputSpec
    from geotag.places.hierarchy import Hierarchy
    from train.data.dataset import ClipDataset, Picking, SamplingRange
    from train.data.sources import Splitting

LEAST_CLIPS = 32
"""From fewer, neither ranges nor an accuracy can be told."""
ADVISED_CLIPS = 512
"""Source: NVIDIA ModelOpt's guide asks for 500 samples and more."""
_CANDIDATES = 1.5
"""Clips looked at for each that is calibrated on: what there is to choose from."""
LISTED = ("clip", "city", "scene", "light", "use")
"""Columns of a listing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibrationSet:
    """Clips to calibrate on, and clips to judge by; no clip is both."""

    calibration: ClipPool
    """In the order of choice: any first few are as even as they can be."""
    held_out: ClipPool
    source: str
    """What they are clips of, such as `rendered world train`; no path."""
    notes: tuple[str, ...]
    """What a person should know, such as files that could not be read."""
    listing: str
    """CSV with the columns LISTED, one line a clip, LF ends, no path of this machine."""


def open_calibration(
    given: str | None,
    *,
    trained_on: str | None,
    splitting: Splitting,
    sampling: SamplingRange,
    input: InputSpec,
    picking: Picking,
    clips: int,
    held_out: int,
    seed: int,
    workers: int,
    console: Console,
    hierarchy: Hierarchy,
) -> CalibrationSet:
    """Open footage, look at its clips once, and choose.

    Args:
        given: a folder of videos or one video, a manifest of `geotag label`, or a data set as
            `train.data.sources` opens it; None: what the model was trained on.
        trained_on: the data set that the model was trained on; None where that is not known.
        splitting: how that one was divided.
        sampling: the clips that training drew.
        input: what the model takes.
        picking: of stored frames, as in training.
        clips: how many calibrate, at most.
        held_out: how many judge, at most.
        seed: of everything random in the clips.
        workers: reading processes; 0 reads in this one.
        console: where progress is shown.
        hierarchy: the model's class tree.

    Raises:
        CalibrationError: there is nothing to open, or too few clips can be read.
        DatasetError: a data set or a manifest is damaged.
        ConfigError: a folder cannot be read.
    """
    train = open_dataset(
        RENDERED, "train", sampling=sampling, clips=int(clips * _CANDIDATES), seed=seed
    )
    val = open_dataset(RENDERED, "val", sampling=sampling, clips=held_out, seed=seed)
    view = View(
        frames=input.frames,
        image_px=input.height_px,
        resize=input.resize,
        picking=picking,
        seed=seed,
    )
    looks, bad = look_at(
        train,
        view,
        spread(len(train.entries), int(clips * _CANDIDATES)),
        workers=workers,
        console=console,
        title=f"looking at clips of {train.name}",
    )
    by_number = {look.number: look for look in looks}
    chosen = [by_number[number] for number in select_clips(looks, clips)]
    judging, unreadable = look_at(
        val,
        view,
        spread(len(val.entries), held_out),
        workers=workers,
        console=console,
        title=f"looking at clips of {val.name}",
    )
    pools = [
        ClipPool(
            dataset=dataset,
            view=view,
            looks=tuple(found),
            city_ids=_city_ids(dataset, found, hierarchy),
            bad=tuple(failed),
            workers=workers,
        )
        for dataset, found, failed in ((train, chosen, bad), (val, judging, unreadable))
    ]
    return CalibrationSet(
        calibration=pools[0],
        held_out=pools[1],
        source=train.name,
        notes=notes_of(train),
        listing=_listing(pools),
    )


def _city_ids(
    dataset: ClipDataset, looks: Sequence[Candidate], hierarchy: Hierarchy
) -> NDArray[np.intp] | None:
    """The model's class of each clip's city; None where no clip has one."""
    cities = np.array([UNKNOWN if look.city is None else look.city for look in looks], np.intp)
    known = cities != UNKNOWN
    if not known.any():
        return None
    classes = map_classes(dataset.hierarchy, hierarchy).labels["city"]
    return np.where(known, classes[cities], UNKNOWN)


def _listing(pools: Sequence[ClipPool]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LISTED)
    for pool, use in zip(pools, ("calibration", "held-out"), strict=True):
        places = pool.dataset.hierarchy.places["city"]
        for look in pool.looks:
            city = "" if look.city is None else places[look.city].name
            scene = "" if look.scene is None else SCENE_GROUPS[look.scene]
            writer.writerow((look.name, city, scene, look.light_bin, use))
    return text.getvalue()
