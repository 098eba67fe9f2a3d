"""The clips that a smaller model is calibrated on, and others that it is judged by.

Both come from footage that the model may be tuned to, and never from a test split: see
`train.calibration_parts`. Each clip is read once to see what it looks like, as training reads it;
what is then chosen covers places, light and scenes, and its pixels are read again when they are
wanted.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError
from calibration.select import select_clips
from train.calibration_parts import LEAST_CLIPS, Wanted, open_parts
from train.clip_pools import ClipPool, look_at
from train.data.dataset import View
from train.data.world import SCENE_GROUPS
from train.evaluation.class_map import map_classes
from train.evaluation.metrics import UNKNOWN
from train.evaluation.sets import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rich.console import Console

    from calibration.select import Candidate
    from engines.bundle import InputSpec
    from geotag.places.hierarchy import Hierarchy
    from train.calibration_parts import Part
    from train.data.dataset import BadSample, ClipDataset, Picking, SamplingRange
    from train.data.sources import Splitting

ADVISED_CLIPS = 512
"""Source: NVIDIA ModelOpt's guide asks for 500 samples and more."""
ADVISED_HELD_OUT = 256
"""The standard error of an agreement of 99 % is then 0.6 points."""
CALIBRATING, HELD_OUT = "calibrating clips", "held-out clips"
ADVISED = {CALIBRATING: ADVISED_CLIPS, HELD_OUT: ADVISED_HELD_OUT}
LISTED = ("clip", "city", "scene", "light", "use")
"""Columns of a listing."""
_CANDIDATES = 1.5
"""Clips looked at for each that is calibrated on: what there is to choose from."""
_SPARE = 1.25
"""Held-out clips opened for each that is wanted: others take the place of those that are bad."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibrationSet:
    """Clips to calibrate on, and clips to judge by; no clip is both."""

    calibration: ClipPool
    """In the order of choice: any first few are as even as they can be."""
    held_out: ClipPool
    source: str
    """What they are clips of, such as `rendered world train`; no path."""
    notes: tuple[str, ...]
    """What a person should know, such as files that could not be read; may name paths."""
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
    _check(clips, held_out, input)
    parts = open_parts(
        given,
        trained_on,
        Wanted(
            calibrating=int(clips * _CANDIDATES),
            judging=int(held_out * _SPARE),
            sampling=sampling,
            splitting=splitting,
            seed=seed,
        ),
    )
    view = View(
        frames=input.frames,
        image_px=input.height_px,
        resize=input.resize,
        picking=picking,
        seed=seed,
    )
    looking = _Looking(view=view, workers=workers, console=console, hierarchy=hierarchy)
    calibrating = looking.choose(parts.calibrating, clips)
    judging = looking.sample(parts.judging, held_out)
    return CalibrationSet(
        calibration=calibrating,
        held_out=judging,
        source=parts.calibrating.dataset.name,
        notes=(*parts.notes, *_notes(calibrating, judging)),
        listing=_listing(calibrating, judging),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Looking:
    """How clips are looked at."""

    view: View
    workers: int
    console: Console
    hierarchy: Hierarchy

    def choose(self, part: Part, count: int) -> ClipPool:
        """Of all clips of a part those that cover most."""
        use = CALIBRATING
        looks, bad = self._look(part, range(len(part.indices)), use)
        by_number = {look.number: look for look in looks}
        chosen = [by_number[number] for number in select_clips(looks, count)]
        return self._pool(part, chosen, bad, use)

    def sample(self, part: Part, count: int) -> ClipPool:
        """Clips from all over a part, as frequent as they are: an accuracy is a mean over those."""
        use = HELD_OUT
        places = spread(len(part.indices), count)
        looks, bad = self._look(part, places, use)
        spare = sorted(set(range(len(part.indices))) - set(places))
        if len(looks) < count and spare:
            more, worse = self._look(part, spare, f"other {use}")
            looks = sorted([*looks, *more[: count - len(looks)]], key=lambda look: look.number)
            bad += worse
        return self._pool(part, looks, bad, use)

    def _look(
        self, part: Part, places: Sequence[int], use: str
    ) -> tuple[list[Candidate], list[BadSample]]:
        return look_at(
            part.dataset,
            self.view,
            [part.indices[place] for place in places],
            workers=self.workers,
            console=self.console,
            title=f"looking at {use}",
        )

    def _pool(
        self, part: Part, looks: Sequence[Candidate], bad: Sequence[BadSample], use: str
    ) -> ClipPool:
        bad = (*part.bad, *bad)
        _refuse_few(part, use, looks, bad, ADVISED[use])
        return ClipPool(
            dataset=part.dataset,
            view=self.view,
            looks=tuple(looks),
            city_ids=_city_ids(part.dataset, looks, self.hierarchy),
            bad=bad,
            workers=self.workers,
        )


def _check(clips: int, held_out: int, wanted: InputSpec) -> None:
    for count, use, advised in (
        (clips, "to calibrate on", ADVISED_CLIPS),
        (held_out, "to judge by", ADVISED_HELD_OUT),
    ):
        if count < LEAST_CLIPS:
            raise CalibrationError(
                f"taking {count} clips {use}: at least {LEAST_CLIPS} are needed, {advised} are "
                "advised."
            )
    if wanted.height_px != wanted.width_px:
        raise CalibrationError(
            f"calibrating a model that takes {wanted.width_px}x{wanted.height_px} px: clips are "
            "read as squares, so only a model that takes squares can be calibrated."
        )


def _refuse_few(
    part: Part, use: str, looks: Sequence[Candidate], bad: Sequence[BadSample], advised: int
) -> None:
    if len(looks) >= LEAST_CLIPS:
        return
    failed = f", {len(bad)} cannot ({bad[0].reason})" if bad else ""
    raise CalibrationError(
        f"taking {use} from {part.dataset.name}: {len(looks)} can be read{failed}. At least "
        f"{LEAST_CLIPS} are needed, {advised} are advised. {part.more}".rstrip()
    )


def _notes(calibrating: ClipPool, judging: ClipPool) -> list[str]:
    notes = []
    for pool, use in ((calibrating, "calibrating"), (judging, "held-out")):
        if pool.bad:
            count, reason = len(pool.bad), pool.bad[0].reason
            notes.append(f"{count} {use} clips or videos cannot be read, such as {reason}")
    if calibrating.count < ADVISED_CLIPS:
        notes.append(
            f"{calibrating.count} clips to calibrate on: {ADVISED_CLIPS} and more are advised"
        )
    if judging.city_ids is None:
        notes.append("no held-out clip is labelled with a city that the model knows")
    elif unknown := int((judging.city_ids == UNKNOWN).sum()):
        notes.append(
            f"{unknown} of {judging.count} held-out clips have no city that the model knows"
        )
    return notes


def _city_ids(
    dataset: ClipDataset, looks: Sequence[Candidate], hierarchy: Hierarchy
) -> NDArray[np.intp] | None:
    """The model's class of each clip's city; None where it knows the city of no clip."""
    cities = np.array([UNKNOWN if look.city is None else look.city for look in looks], np.intp)
    labelled = cities != UNKNOWN
    if not labelled.any():
        return None
    classes = map_classes(dataset.hierarchy, hierarchy).labels["city"]
    found = np.where(labelled, classes[cities], UNKNOWN)
    return found if (found != UNKNOWN).any() else None


def _listing(calibrating: ClipPool, judging: ClipPool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LISTED)
    for pool, use in ((calibrating, "calibration"), (judging, "held-out")):
        places = pool.dataset.hierarchy.places["city"]
        for look in pool.looks:
            city = "" if look.city is None else places[look.city].name
            scene = "" if look.scene is None else SCENE_GROUPS[look.scene]
            writer.writerow((look.name, city, scene, look.light_bin, use))
    return text.getvalue()
