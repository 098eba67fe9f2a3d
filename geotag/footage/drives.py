"""Which files one vehicle recorded together: channels of a moment, moments of a drive.

Moment: files of one camera that begin within MOMENT_S of each other and show different channels;
without a time in the name, files whose names differ in the channel alone.

Drive: moments of one camera in the order of time, as long as each begins at most GAP_S, or
GAP_CLIPS times the usual distance of the camera's clips, after the one before. Files that a camera
cut from one recording, chapters of GoPro or segments of comma, are one drive whatever their times.
A parked camera wakes up for hours: a run of parking clips longer than PARKED_S is cut. Where names
hold no time, consecutive numbers make a drive if the camera's naming is known to number so;
anything else is a drive of its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING

from geotag.footage.vendors import load_table
from geotag.types import Drive, Moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from geotag.types import Video

MOMENT_S = 2.0
"""Two cameras of one recorder rarely start in the same second, and never further apart."""
GAP_S = 330.0
"""Five minutes, the longest clip of most cameras, and half a minute to begin the next one."""
GAP_CLIPS = 1.5
PARKED_S = 3600.0

_SPACINGS_S = (10.0, 1800.0)
"""Distances of clips that may be their length: events come quicker, drives further apart."""
_MOST_CHANNELS = 32
"""No vehicle has more cameras: among this many moments of one time is the right one."""
_CHANNELS = ("front", None, "side", "rear", "interior")
"""From the best to the worst for telling the place; a camera without a word for it looks ahead."""


def group_drives(videos: Iterable[Video]) -> tuple[Drive, ...]:
    """Group videos into moments and drives; their order does not matter.

    Returns:
        The drives in the order of their first video by name; every video is in exactly one.
    """
    cameras: dict[tuple[str, str], list[Video]] = defaultdict(list)
    for video in sorted(videos, key=_name_key):
        cameras[video.origin.card, video.origin.vendor or ""].append(video)
    drives = [
        _drive(moments) for camera in cameras.values() for moments in _chains(_moments(camera))
    ]
    return tuple(sorted(drives, key=_first_name))


def _moments(videos: Sequence[Video]) -> list[list[Video]]:
    """Files of one camera, put together by the time they begin or by their names."""
    timed = [video for video in videos if video.origin.start_local is not None]
    timed.sort(key=lambda video: (_start(video), *_rank(video)))
    moments: list[list[Video]] = []
    first = 0
    for video in timed:
        while first < len(moments) and _seconds(moments[first][0], video) > MOMENT_S:
            first += 1
        near = moments[max(first, len(moments) - _MOST_CHANNELS) :]
        fitting = [moment for moment in near if _fits(video, moment)]
        if fitting:
            min(fitting, key=lambda moment: _distance(video, moment)).append(video)
        else:
            moments.append([video])
    return moments + _named_alike([video for video in videos if video.origin.start_local is None])


def _named_alike(videos: Sequence[Video]) -> list[list[Video]]:
    """Files without a time whose names differ in the channel alone."""
    alike: dict[tuple[str, int | None], list[list[Video]]] = defaultdict(list)
    for video in videos:
        moments = alike[video.origin.recording, video.origin.part]
        near = moments[-_MOST_CHANNELS:]
        fitting = next((moment for moment in near if _fits(video, moment)), None)
        if fitting is None:
            moments.append([video])
        else:
            fitting.append(video)
    return [moment for moments in alike.values() for moment in moments]


def _fits(video: Video, moment: Sequence[Video]) -> bool:
    """Whether its channel is still free; only cameras that are told apart make a moment."""
    channel = _channel(video)
    return all(channel != _channel(other) for other in moment)


def _channel(video: Video) -> tuple[str | None, str | None]:
    """What must differ in a moment: two side cameras differ in the lens."""
    origin = video.origin
    return origin.channel, origin.lens.lower() if origin.lens else None


def _distance(video: Video, moment: Sequence[Video]) -> tuple[bool, bool, float]:
    other = moment[0]
    return (
        video.origin.mode != other.origin.mode,
        video.origin.recording != other.origin.recording,
        _seconds(other, video),
    )


def _chains(moments: Sequence[list[Video]]) -> list[list[list[Video]]]:
    """Moments of one camera, chained into drives."""
    cut: dict[str, list[list[Video]]] = defaultdict(list)
    timed: list[list[Video]] = []
    numbered: dict[tuple[str, str, str | None], list[list[Video]]] = defaultdict(list)
    alone: list[list[list[Video]]] = []
    table = load_table()
    for moment in moments:
        origin = moment[0].origin
        naming = table.by_rule.get(origin.rule)
        if origin.part is not None:
            cut[origin.recording].append(moment)
        elif origin.start_local is not None:
            timed.append(moment)
        elif naming is not None and naming.numbered and origin.sequence is not None:
            folder = moment[0].name.rpartition("/")[0]
            numbered[folder, origin.rule, origin.mode].append(moment)
        else:
            alone.append([moment])
    parts = [sorted(moments, key=_part) for moments in cut.values()]
    runs = [run for moments in numbered.values() for run in _runs(moments)]
    return parts + _by_time(timed) + runs + alone


def _by_time(moments: Sequence[list[Video]]) -> list[list[list[Video]]]:
    ordered = sorted(moments, key=lambda moment: (_start(moment[0]), *_name_key(moment[0])))
    gap_s = max(GAP_S, GAP_CLIPS * _usual_spacing_s(ordered))
    drives: list[list[list[Video]]] = []
    parked_since: datetime | None = None
    for moment in ordered:
        is_parked = all(video.origin.mode == "parking" for video in moment)
        start = _start(moment[0])
        follows = bool(drives) and _seconds(drives[-1][-1][0], moment[0]) <= gap_s
        if is_parked and parked_since is not None:
            follows &= (start - parked_since).total_seconds() <= PARKED_S
        if not is_parked:
            parked_since = None
        elif parked_since is None or not follows:
            parked_since = start
        if follows:
            drives[-1].append(moment)
        else:
            drives.append([moment])
    return drives


def _usual_spacing_s(ordered: Sequence[list[Video]]) -> float:
    """The most frequent distance of the beginnings, to 5 s; 0 where none comes twice."""
    least_s, most_s = _SPACINGS_S
    counts = Counter(
        round(spacing_s / 5) * 5
        for spacing_s in (_seconds(before[0], after[0]) for before, after in pairwise(ordered))
        if least_s <= spacing_s <= most_s
    )
    usual = max(counts.items(), key=lambda item: (item[1], -item[0]), default=(0, 0))
    return float(usual[0]) if usual[1] > 1 else 0.0


def _runs(moments: Sequence[list[Video]]) -> list[list[list[Video]]]:
    """Moments whose numbers are consecutive."""
    ordered = sorted(moments, key=lambda moment: (_number(moment), *_name_key(moment[0])))
    runs: list[list[list[Video]]] = []
    for moment in ordered:
        if runs and _number(moment) - _number(runs[-1][-1]) == 1:
            runs[-1].append(moment)
        else:
            runs.append([moment])
    return runs


def _drive(moments: Sequence[list[Video]]) -> Drive:
    first = min((video for video in moments[0]), key=_rank)
    digest = blake2b(digest_size=8)
    for part in (first.origin.card, first.name):
        digest.update(len(part).to_bytes(8, "little") + part.encode("utf-8", "backslashreplace"))
    return Drive(
        drive_id=digest.hexdigest(),
        moments=tuple(Moment(videos=tuple(sorted(moment, key=_rank))) for moment in moments),
    )


def _rank(video: Video) -> tuple[object, ...]:
    """The best channel first; among lenses of one channel, as the table lists them."""
    origin = video.origin
    naming = load_table().by_rule.get(origin.rule)
    lenses = list(naming.lenses) if naming is not None else []
    lens = (origin.lens or "").lower()
    preference = lenses.index(lens) if lens in lenses else len(lenses)
    return (_CHANNELS.index(origin.channel), preference, *_name_key(video))


def _part(moment: Sequence[Video]) -> tuple[object, ...]:
    return (moment[0].origin.part or 0, *_name_key(moment[0]))


def _number(moment: Sequence[Video]) -> int:
    return moment[0].origin.sequence or 0


def _start(video: Video) -> datetime:
    start = video.origin.start_local
    assert start is not None  # only asked of videos that have one
    return start


def _seconds(before: Video, after: Video) -> float:
    return (_start(after) - _start(before)).total_seconds()


def _first_name(drive: Drive) -> tuple[object, ...]:
    return min(_name_key(video) for moment in drive.moments for video in moment.videos)


def _name_key(video: Video) -> tuple[tuple[str, ...], str]:
    """The order of `Discovery.videos`."""
    return tuple(part.casefold() for part in video.name.split("/")), video.name
