"""When videos began: which clock to believe, and how far it is off.

Cameras name their files by local time, write the same local time into the container as if it were
UTC, and many (all that build on Novatek) do so even with the time of their GPS records. A position
tells the time zone, the zone tells how far local time is ahead of UTC, and the difference of two
clocks, rounded to whole quarter hours, tells what each of them is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from geotag.telemetry.zones import as_if_utc_s, offset_s, utc_of_local_s, zone_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from geotag.telemetry.track import Survey
    from geotag.types import Drive, Video

_QUARTER_S = 900
"""Every zone in use is a whole number of quarter hours from UTC."""
_MOST_OFF_S = 26 * 3600
"""UTC+14 against UTC-12; clocks further apart are not in different zones: one was never set."""

_LATEST_S = 4_102_444_800
"""The year 2100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What the clocks of one video say; None where one says nothing."""

    name_local: datetime | None = None
    """By the name of the file, without a zone."""
    telemetry_utc_s: float | None = None
    """Of the first frame, by the telemetry."""
    is_camera_clock: bool = False
    """`telemetry_utc_s` comes from the camera's clock and may be local time."""
    is_local_clock: bool = False
    """`telemetry_utc_s` is local time."""
    container_utc_s: float | None = None
    zone: str | None = None
    """IANA name, from the video's position or the nearest one of the drive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTime:
    """When a video began, as far as it is known."""

    start_s: float | None = None
    """Seconds, to tell how far the videos of one drive are apart; not always UTC."""
    start_utc: str | None = None
    start_local: str | None = None
    """By the clocks of the place, or else by the camera's; without a zone."""
    time_zone: str | None = None
    time_source: str | None = None
    """Which clock, and how it was corrected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """How far a camera's clocks are off during a drive."""

    name_ahead_s: float | None = None
    """Local time of file names less UTC."""
    name_why: str = ""
    records_ahead_s: float | None = None
    """Time of the records less UTC; None where nothing tells."""


def repair_drive(drive: Drive, surveys: Mapping[str, Survey]) -> dict[str, VideoTime]:
    """Times of the videos of a drive, by name; each card is a camera with a clock of its own.

    Args:
        drive: its moments, in order.
        surveys: of its videos, by name; those that are missing count as without telemetry.
    """
    videos = [video for moment in drive.moments for video in moment.videos]
    zones = _zones(videos, surveys)
    cards: dict[str, list[Video]] = {}
    for video in videos:
        cards.setdefault(video.origin.card, []).append(video)
    times: dict[str, VideoTime] = {}
    for group in cards.values():
        clocks = [_clocks(video, surveys.get(video.name), zones[video.name]) for video in group]
        repaired = repair_clocks(clocks)
        times |= {video.name: time for video, time in zip(group, repaired, strict=True)}
    return {video.name: times[video.name] for video in videos}


def repair_clocks(videos: Sequence[Clocks]) -> tuple[VideoTime, ...]:
    """Times of the videos that one camera recorded in one drive.

    The time of satellites wins. Else the name of the file, which is local time: where other
    videos of the drive have satellite time, the most common difference to it, else the zone of
    the position, tells how far it is ahead. Records by the camera's clock are moved by the
    quarter hours that they differ from that, again one number for all. The container counts
    last. Nothing is moved without being named in `time_source`.
    """
    videos = [_believable(clocks) for clocks in videos]
    verdict = _judge(videos)
    times = [_time_of(clocks, verdict) for clocks in videos]
    # Differences only mean something on one clock: that of the names, if all have one.
    by_name = all(clocks.name_local is not None for clocks in videos)
    return tuple(
        _finished(clocks, utc_s, source, by_name=by_name)
        for clocks, (utc_s, source) in zip(videos, times, strict=True)
    )


def _believable(clocks: Clocks) -> Clocks:
    """Without the times that no camera can have recorded at."""
    return replace(
        clocks,
        telemetry_utc_s=_within_ages(clocks.telemetry_utc_s),
        container_utc_s=_within_ages(clocks.container_utc_s),
    )


def _within_ages(seconds: float | None) -> float | None:
    return seconds if seconds is not None and 0 < seconds < _LATEST_S else None


def _judge(videos: Sequence[Clocks]) -> _Verdict:
    """One vote for each video, and the most common answer; of equally common ones the first."""
    by_satellites = _most_common(
        _quarters(as_if_utc_s(clocks.name_local) - clocks.telemetry_utc_s)
        for clocks in videos
        if clocks.name_local and clocks.telemetry_utc_s is not None and not clocks.is_camera_clock
    )
    if by_satellites is not None:
        ahead_s, why = by_satellites, f"file name, {_offset_text(by_satellites)} by the drive's gps"
    else:
        zoned = [(clocks, _zone_ahead_s(clocks)) for clocks in videos]
        by_zone = _most_common(seconds for _, seconds in zoned if seconds is not None)
        if by_zone is None:
            return _Verdict()
        zone = next(clocks.zone for clocks, seconds in zoned if seconds == by_zone)
        ahead_s, why = by_zone, f"file name, zone {zone} from position"
    records = _most_common(
        _quarters(clocks.telemetry_utc_s - (as_if_utc_s(clocks.name_local) - ahead_s))
        for clocks in videos
        if clocks.name_local
        and clocks.telemetry_utc_s is not None
        and clocks.is_camera_clock
        and not clocks.is_local_clock
    )
    return _Verdict(name_ahead_s=ahead_s, name_why=why, records_ahead_s=records)


def _time_of(clocks: Clocks, verdict: _Verdict) -> tuple[float | None, str | None]:
    """Unix time of the first frame, and what says so."""
    records_s = clocks.telemetry_utc_s
    if records_s is not None and not clocks.is_camera_clock:
        return records_s, "gps"
    if records_s is not None and clocks.is_local_clock:
        return _of_local_records(clocks, records_s)
    if clocks.name_local is None:
        return _without_name(clocks)
    name_s = as_if_utc_s(clocks.name_local)
    if verdict.name_ahead_s is None:
        return _without_zone(clocks, name_s)
    by_name_s = name_s - verdict.name_ahead_s
    moved_s = verdict.records_ahead_s
    if records_s is None or moved_s is None or abs(records_s - moved_s - by_name_s) > _QUARTER_S:
        return by_name_s, verdict.name_why
    if moved_s == 0:
        return records_s, f"gps, agrees with {verdict.name_why}"
    return records_s - moved_s, f"gps, moved by {_hours_text(-moved_s)} to {verdict.name_why}"


def _of_local_records(clocks: Clocks, records_s: float) -> tuple[float | None, str | None]:
    if clocks.zone is None:
        return None, "telemetry in local time, zone unknown"
    local = datetime.fromtimestamp(records_s, tz=timezone.utc).replace(tzinfo=None)
    utc_s = utc_of_local_s(clocks.zone, local)
    return utc_s, f"telemetry in local time, zone {clocks.zone} from position"


def _without_name(clocks: Clocks) -> tuple[float | None, str | None]:
    """Only the records by the camera's clock, or only the container: nothing to check them by."""
    records_s, container_s = clocks.telemetry_utc_s, clocks.container_utc_s
    if records_s is None:
        if container_s is None:
            return None, None
        return container_s, "container, taken as UTC, unchecked"
    if container_s is not None and clocks.zone is not None:
        differ_s = _quarters(records_s - container_s)
        if differ_s and differ_s == offset_s(clocks.zone, container_s):
            return records_s - differ_s, f"gps, taken as local time, zone {clocks.zone}"
    return records_s, "gps by the camera's clock, unchecked"


def _without_zone(clocks: Clocks, name_s: float) -> tuple[float | None, str | None]:
    """A name without a zone: a container that differs by quarter hours is the UTC to it."""
    container_s = clocks.container_utc_s
    if container_s is not None:
        ahead_s = _quarters(name_s - container_s)
        if ahead_s:
            return container_s, f"container, file name is {_offset_text(ahead_s)}"
    return None, "file name, zone unknown"


def _finished(
    clocks: Clocks, utc_s: float | None, source: str | None, *, by_name: bool
) -> VideoTime:
    local_s = _local_s(clocks, utc_s)
    name_s = as_if_utc_s(clocks.name_local) if clocks.name_local else None
    return VideoTime(
        start_s=name_s if by_name else utc_s,
        start_utc=_text(utc_s, "Z"),
        start_local=_text(local_s, ""),
        time_zone=clocks.zone,
        time_source=source,
    )


def _local_s(clocks: Clocks, utc_s: float | None) -> float | None:
    """Local time as if it were UTC: of the place, else what the camera says."""
    if utc_s is not None and clocks.zone is not None:
        return utc_s + offset_s(clocks.zone, utc_s)
    if clocks.name_local is not None:
        return as_if_utc_s(clocks.name_local)
    return clocks.telemetry_utc_s if clocks.is_local_clock else None


def _zones(videos: Sequence[Video], surveys: Mapping[str, Survey]) -> dict[str, str | None]:
    """Zone of each video: of its own position, else of the nearest in the drive that has one."""
    own = {
        number: zone
        for number, video in enumerate(videos)
        if (survey := surveys.get(video.name)) is not None
        and survey.median_deg is not None
        and (zone := zone_at(survey.median_deg)) is not None
    }
    return {
        video.name: own[min(own, key=lambda other: (abs(other - number), other))] if own else None
        for number, video in enumerate(videos)
    }


def _clocks(video: Video, survey: Survey | None, zone: str | None) -> Clocks:
    if survey is None:
        return Clocks(name_local=video.origin.start_local, zone=zone)
    return Clocks(
        name_local=video.origin.start_local,
        telemetry_utc_s=survey.start_utc_s,
        is_camera_clock=survey.is_camera_clock,
        is_local_clock=survey.is_local_clock,
        container_utc_s=survey.container_utc_s,
        zone=zone,
    )


def _zone_ahead_s(clocks: Clocks) -> float | None:
    if clocks.name_local is None or clocks.zone is None:
        return None
    return as_if_utc_s(clocks.name_local) - utc_of_local_s(clocks.zone, clocks.name_local)


def _most_common(votes: Iterable[float | None]) -> float | None:
    counts = Counter(vote for vote in votes if vote is not None)
    return counts.most_common(1)[0][0] if counts else None


def _quarters(seconds: float) -> float | None:
    """A difference of clocks in whole quarter hours; None if no two zones are so far apart."""
    return round(seconds / _QUARTER_S) * float(_QUARTER_S) if abs(seconds) <= _MOST_OFF_S else None


def _offset_text(ahead_s: float) -> str:
    """Like UTC+05:30."""
    minutes = round(abs(ahead_s) / 60)
    return f"UTC{'-' if ahead_s < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}"


def _hours_text(seconds: float) -> str:
    """Like -2 h or +5.75 h."""
    return f"{seconds / 3600:+g} h"


def _text(seconds: float | None, ending: str) -> str | None:
    """ISO 8601, with milliseconds where there are any; None where no calendar has the time."""
    if seconds is None:
        return None
    try:
        moment = datetime(1970, 1, 1) + timedelta(milliseconds=round(seconds * 1000))
    except (OverflowError, ValueError):
        return None
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds") + ending
