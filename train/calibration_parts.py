"""Where clips to calibrate on and to judge by come from: two parts of one data set, or of a folder.

The calibrating part is what is learned from, the other one what is held out of it. A test split is
never opened: what is reported on it must not depend on it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.errors import CalibrationError
from train.build import SCENES_FILE, beside_dataset
from train.data.footage import STEP_S, open_footage
from train.data.scenes import with_scenes
from train.data.sources import SOURCES, notes_of, open_dataset, parse_place
from train.data.splits import hold_out_quarter
from train.errors import DatasetError
from train.evaluation.sets import RENDERED, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from train.data.dataset import BadSample, ClipDataset, SamplingRange, Split
    from train.data.sources import Splitting

LEAST_CLIPS = 32
"""From fewer, neither ranges nor an accuracy can be told."""
WAYS = (
    "Give --calib a folder of videos, a manifest of `geotag label`, or a data set: rendered, "
    "cityguessr:PATH, msls:PATH, manifest:FILE or shards:PATH."
)
_TESTS_NOTHING = "Clips of a test split are never used to calibrate or to judge a calibration."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Some clips of a data set."""

    dataset: ClipDataset
    indices: tuple[int, ...]
    more: str
    """How to get more of them, for a person."""
    bad: tuple[BadSample, ...] = ()
    """What was found unreadable on opening, and is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """What calibrates and what judges; no clip, and nothing that looks like one, is in both."""

    calibrating: Part
    judging: Part
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many clips there should be to look at, and how they are drawn."""

    calibrating: int
    judging: int
    sampling: SamplingRange
    splitting: Splitting
    """Of what the model was trained on."""
    seed: int


def open_parts(given: str | None, trained_on: str | None, wanted: Wanted) -> Parts:
    """Open what a person gave, or what the model was trained on.

    Args:
        given: see `train.calibration_clips.open_calibration`.
        trained_on: spec of the model's data set; None where that is not known.
        wanted: how many clips.

    Raises:
        CalibrationError: it is not there, or is nothing that clips can be taken from.
        DatasetError: the data set cannot be used.
        ConfigError: a folder cannot be read.
    """
    if given is None:
        return _open_own(trained_on, wanted)
    spec = _spec_of(given)
    if spec is None:
        return _open_videos(Path(given).expanduser(), wanted)
    if trained_on is None or not _is_same(spec, trained_on):
        wanted = replace(wanted, splitting="official")
    return _open_spec(spec, wanted)


def _open_own(trained_on: str | None, wanted: Wanted) -> Parts:
    if trained_on is None:
        raise CalibrationError(
            f"calibrating: what the model was trained on is not known here. {WAYS}"
        )
    try:
        return _open_spec(trained_on, wanted)
    except DatasetError as exc:
        raise CalibrationError(
            f"calibrating on what the model was trained on, {trained_on}: {exc} If it is elsewhere "
            f"now, say where. {WAYS}"
        ) from exc


def _spec_of(given: str) -> str | None:
    """A data set as `open_dataset` takes it; None for a folder of videos, or a video."""
    kind, colon, _ = given.partition(":")
    if given == RENDERED or (colon and kind in SOURCES):
        return given
    path = Path(given).expanduser()
    place = path if path.exists() else Path(parse_place(given)[0]).expanduser()
    if not given or not place.exists():
        raise CalibrationError(f"calibrating on {given!r}: there is no such file or folder. {WAYS}")
    return f"manifest:{given}" if place.is_file() and place.suffix.lower() == ".csv" else None


def _is_same(one: str, other: str) -> bool:
    kinds, paths = zip(*(_kind_and_path(spec) for spec in (one, other)), strict=True)
    return kinds[0] == kinds[1] and paths[0] == paths[1]


def _kind_and_path(spec: str) -> tuple[str, Path]:
    kind, _, rest = spec.partition(":")
    return kind, Path(parse_place(rest)[0]).expanduser().resolve()


def _open_videos(path: Path, wanted: Wanted) -> Parts:
    train = open_footage(path, "train", sampling=wanted.sampling, clips=wanted.calibrating)
    val = open_footage(path, "val", sampling=wanted.sampling, clips=wanted.judging)
    more = (
        f"Give more videos, or longer ones: a video gives a clip for every {STEP_S:g} s of it, and "
        "about one video in four is held out."
    )
    return Parts(
        calibrating=replace(_part(train, wanted.calibrating, more), bad=train.bad),
        judging=replace(_part(val, wanted.judging, more), bad=val.bad),
        notes=notes_of(train),
    )


def _open_spec(spec: str, wanted: Wanted) -> Parts:
    if spec == RENDERED:
        return _draw_rendered(wanted)
    train = _open_train(spec, wanted)
    notes = [f"{train.name}: {note}" for note in notes_of(train)]
    more = (
        "Take a data set with more of them, or give --calib a folder of videos. " + _TESTS_NOTHING
    )
    val, why = _open_val(spec, wanted)
    if val is not None:
        judging = _part(val, wanted.judging, more)
        return Parts(
            calibrating=_part(train, wanted.calibrating, more), judging=judging, notes=tuple(notes)
        )
    ours, held = _by_groups(train)
    notes.append(f"{why}: held-out clips are of other drives of its train split")
    more += " A drive is never on both sides."
    return Parts(
        calibrating=_part(train, wanted.calibrating, more, ours),
        judging=_part(train, wanted.judging, more, held),
        notes=tuple(notes),
    )


def _draw_rendered(wanted: Wanted) -> Parts:
    def part(split: Split, clips: int) -> Part:
        drives = open_dataset(
            RENDERED, split, sampling=wanted.sampling, clips=clips, seed=wanted.seed
        )
        return _part(drives, clips, "")

    return Parts(
        calibrating=part("train", wanted.calibrating), judging=part("val", wanted.judging), notes=()
    )


def _open_train(spec: str, wanted: Wanted) -> ClipDataset:
    """The training split, with the scene labels that lie beside it, if there are any."""
    try:
        train = open_dataset(spec, "train", sampling=wanted.sampling, splitting=wanted.splitting)
    except DatasetError as exc:
        raise DatasetError(f"{exc} {_TESTS_NOTHING}") from exc
    if not len(train.entries):
        raise CalibrationError(
            f"calibrating on {train.name}: there are no clips in this split. {_TESTS_NOTHING} "
            "Take a data set with a train split, or give --calib a folder of videos."
        )
    scenes = beside_dataset(spec, SCENES_FILE)
    return with_scenes(train, scenes) if scenes is not None and scenes.is_file() else train


def _open_val(spec: str, wanted: Wanted) -> tuple[ClipDataset | None, str]:
    """What the data set holds out itself; or None, and why that cannot be judged by."""
    try:
        val = open_dataset(spec, "val", sampling=wanted.sampling, splitting=wanted.splitting)
    except DatasetError as exc:  # packed clips may have been packed without it
        return None, str(exc).rstrip(".")
    count = len(val.entries)
    if count >= LEAST_CLIPS:
        return val, ""
    return None, f"{val.name} has {count} clips, fewer than {LEAST_CLIPS}"


def _by_groups(dataset: ClipDataset) -> tuple[list[int], list[int]]:
    """Clips of some groups to calibrate on, and of others to judge by."""
    groups = [entry.group for entry in dataset.entries]
    held = hold_out_quarter(Counter(groups))
    sides: tuple[list[int], list[int]] = ([], [])
    for index, group in enumerate(groups):
        sides[group in held].append(index)
    return sides


def _part(
    dataset: ClipDataset, wanted: int, more: str, indices: Sequence[int] | None = None
) -> Part:
    """As many clips as are wanted, from all over the list."""
    own = range(len(dataset.entries)) if indices is None else indices
    return Part(
        dataset=dataset, indices=tuple(own[at] for at in spread(len(own), wanted)), more=more
    )
