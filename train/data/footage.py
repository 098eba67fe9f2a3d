"""Plain videos as clips: nobody says where they were recorded.

There is nothing to learn from them, but a model can be calibrated on them, and two models be
compared. Videos are found as a scan finds them, and clips decoded as a scan decodes them.

Shape suffixes: T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from engines.bundle import LEVELS
from geotag.footage.discover import content_id, discover
from geotag.places.hierarchy import Hierarchy
from geotag.places.sheets import COLUMNS
from geotag.types import FootageError
from train.data.dataset import BadSample, Sample, SamplingRange
from train.data.entries import Entries
from train.data.pictures import disturb
from train.data.splits import hold_out_quarter
from train.data.stretches import Decoding, Stretch, unreadable
from train.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from geotag.types import Discovery, Video
    from train.data.dataset import Entry, Split, View

UNKNOWN_CITY = -1
FOOTAGE_CLIPS = 768
"""Of a folder, where nothing says how many."""
STEP_S = 5.0
"""Clips of a video are at least so far apart."""
_ROOM_S = 30.0
"""Of a video as long as that, the stretch that a clip is cut from: room for the longest span that
is usual in training, 25 s, and for key frames around it."""
_HELD_OUT_FROM = 0.75
"""Share of a single video before its held-out part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a clip is to be cut."""

    name: str
    stretch: Stretch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FootageClips:
    """Clips of videos without labels; see `ClipDataset`."""

    name: str
    places: tuple[_Place, ...]
    entries: Sequence[Entry]
    """In the order of the videos; a group is a drive."""
    sampling: SamplingRange
    bad: tuple[BadSample, ...] = ()
    """Videos that cannot be opened, by their names; none has an entry."""
    notes: tuple[str, ...] = ()
    """What else was left out, for a person."""
    decoding: Decoding = field(default_factory=Decoding)

    @property
    def hierarchy(self) -> Hierarchy:
        """A tree without places: nothing is labelled."""
        nothing = np.empty(0, np.intp)
        return Hierarchy(
            places=dict.fromkeys(LEVELS, ()),
            ancestors=dict.fromkeys(LEVELS, nothing),
            parents=dict.fromkeys(LEVELS[:-1], nothing),
        )

    @property
    def places_csv(self) -> str:
        """The same as text: a heading."""
        return ",".join(COLUMNS) + "\n"

    def close(self) -> None:
        """End the decoding process; another read starts a new one."""
        self.decoding.close()

    def read(self, index: int, view: View) -> Sample | BadSample:
        """Read one clip; what a view leaves open is drawn as from a manifest (`draw_clip`)."""
        place = self.places[index]
        try:
            clip = self.decoding.read_clip(place.stretch, view, index, self.sampling)
        except FootageError as exc:
            return unreadable(place.name, place.stretch, exc)
        return Sample(clip_THWC=disturb(clip.frames_THWC, view, index), city_id=UNKNOWN_CITY)


def open_footage(
    path: Path,
    split: Split,
    *,
    sampling: SamplingRange | None = None,
    clips: int = FOOTAGE_CLIPS,
) -> FootageClips:
    """Open one side of a folder of videos, or of one video.

    About one video in four is held out, by a hash of its name; of a single video the last quarter
    is. Left out are the camera's own small copies, videos that are there a second time, and those
    of cameras that look inside, which a scan does not look at either. Clips are shared out evenly
    among the videos as far as these are long enough (STEP_S).

    Args:
        path: what to look through.
        split: train, or val for what is held out; without labels nothing can be tested.
        sampling: the clips that are drawn where a view leaves policy or span open; None for what
            is usual.
        clips: how many, at most; of more videos, as many are taken from all over the list.

    Raises:
        ConfigError: there is no such file or folder, or it cannot be listed.
        DatasetError: there is no video, or the split is test.
    """
    if split == "test":
        raise DatasetError(f"opening the test split of {path}: videos without labels have none.")
    # Contents matter only where two files may be the same: see _without_twins.
    found = discover(path, recall=lambda file, status: "not read")
    videos, notes = _usable(found)
    if not videos:
        why = f": {', '.join(notes)}" if notes else ""
        raise DatasetError(
            f"looking for videos in {path}: there are none to use{why}. Give a folder of videos "
            "from dashcams. A data set of pictures is named with its kind: cityguessr:PATH, "
            "msls:PATH or shards:PATH."
        )
    is_single, held = len(videos) == 1, hold_out_quarter(dict.fromkeys(videos, 1))
    own = [videos[name] for name in videos if is_single or (name in held) == (split == "val")]
    own = [own[at] for at in (np.arange(clips) * len(own) // clips)] if len(own) > clips else own
    part = (0.0, 1.0)
    if is_single:
        part = (_HELD_OUT_FROM, 1.0) if split == "val" else (0.0, _HELD_OUT_FROM)
    decoding = Decoding()
    probed = [_probe(video, part, decoding) for video in own]
    places = _share_out([one for one in probed if isinstance(one, Stretch)], clips)
    drive_of = {
        video.name: drive.drive_id
        for drive in found.drives
        for moment in drive.moments
        for video in moment.videos
    }
    return FootageClips(
        name=f"{path.resolve().name or 'footage'} {split}",
        places=tuple(places),
        entries=Entries(
            [place.name for place in places],
            np.full(len(places), UNKNOWN_CITY, np.int32),
            [drive_of[place.stretch.video] for place in places],
        ),
        sampling=sampling or SamplingRange(),
        bad=tuple(one for one in probed if isinstance(one, BadSample)),
        notes=tuple(notes),
        decoding=decoding,
    )


def _usable(found: Discovery) -> tuple[dict[str, Video], list[str]]:
    """By name, what to cut clips from; and what was left out."""
    outward = [video for video in found.videos if video.origin.channel != "interior"]
    videos = _without_twins(outward)
    inside, twins = len(found.videos) - len(outward), len(outward) - len(videos)
    notes = []
    if inside:
        notes.append(f"{inside} videos of a camera that looks inside are left out")
    if twins:
        notes.append(f"{twins} videos that are there a second time are left out")
    return {video.name: video for video in videos}, notes


def _without_twins(videos: Sequence[Video]) -> list[Video]:
    """The videos, less those whose content another has: it might be on both sides of a split."""
    of_size: dict[int, list[Video]] = defaultdict(list)
    for video in videos:
        of_size[video.size_bytes].append(video)
    kept: list[Video] = []
    for size_bytes, alike in of_size.items():
        if size_bytes and len(alike) > 1:
            alike = list({content_id(video.path): video for video in reversed(alike)}.values())
        kept += alike
    names = {video.name for video in kept}
    return [video for video in videos if video.name in names]


def _probe(video: Video, part: tuple[float, float], decoding: Decoding) -> Stretch | BadSample:
    """The part of a video that clips are cut from, given in shares of its length."""
    try:
        # Where nothing short of decoding tells the end, only its beginning is looked at.
        end_s = decoding.read_facts(video.path).duration_s or _ROOM_S
    except FootageError as exc:
        return BadSample(name=video.name, reason=f"{video.name}: {exc.message}")
    first, last = part
    return Stretch(video=video.name, path=video.path, start_s=first * end_s, end_s=last * end_s)


def _share_out(parts: Sequence[Stretch], clips: int) -> list[_Place]:
    """Clips of every video: as many of each as it has room for, and no more than others need."""
    room = [max(1, int((part.end_s - part.start_s) // STEP_S)) for part in parts]
    counts, left = [0] * len(parts), clips
    for done, at in enumerate(sorted(range(len(parts)), key=lambda at: (room[at], at))):
        counts[at] = min(room[at], left // (len(parts) - done))
        left -= counts[at]
    return [
        _place(part, number, count)
        for part, count in zip(parts, counts, strict=True)
        for number in range(count)
    ]


def _place(part: Stretch, number: int, count: int) -> _Place:
    """One of several clips: around its share of the part, a stretch as long as it needs.

    Where a video is short, the stretches of its clips overlap.
    """
    length_s = part.end_s - part.start_s
    middle_s = part.start_s + (number + 0.5) / count * length_s
    room_s = min(length_s, max(_ROOM_S, length_s / count))
    start_s = min(max(part.start_s, middle_s - room_s / 2), part.end_s - room_s)
    return _Place(
        name=f"{part.video}@{middle_s:.1f}",
        stretch=replace(part, start_s=start_s, end_s=start_s + room_s),
    )
