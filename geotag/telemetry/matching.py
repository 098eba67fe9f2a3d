"""Where in a video the fixes of another file belong: matched by time, or by a stated rule."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from geotag.telemetry.fixes import FEWEST_FIXES
from geotag.telemetry.track import take
from geotag.telemetry.zones import as_if_utc_s, offset_s, utc_of_local_s, zone_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from geotag.telemetry.track import Reading, Track
    from geotag.types import Video, VideoFacts

_MARGIN_S = 5.0
"""How far a file may reach beyond the video: a receiver's last record, a clock's drift."""
_UNKNOWN_LENGTH_S = 600.0
"""Taken for videos whose length nothing tells; cameras cut their files at five minutes."""

NO_TIME = "the video has no time"
"""Why a track could not be matched: nothing says when the video began."""
_LOCAL_CONTAINER = "container, taken as local time"


def place_sidecar(reading: Reading, video: Video, container: VideoFacts | None) -> Reading:
    """Give the fixes of a video's own sidecar their seconds in the video.

    Times in the file count as they are. Else, where the file is longer than the video and the
    video's clock lies in it, they are matched by time; else it begins with the video. What lies
    after the video's end is left out.
    """
    track = reading.track
    if not np.isfinite(track.times_s).any():
        timed = np.isfinite(track.utc_s)
        if not timed.any():
            return reading
        start_s = float(track.utc_s[timed].min())
        length_s = _length_s(container)
        if float(track.utc_s[timed].max()) - start_s > length_s + _MARGIN_S:
            for begin_s, how in _possible_starts_s(track, video, container):
                if _inside(track.utc_s - begin_s, length_s).any():
                    return cut_to_video(_matched(reading, begin_s, how), video, container)
        track = replace(track, times_s=track.utc_s - start_s)
    return cut_to_video(replace(reading, track=track), video, container)


def match_track(
    reading: Reading, video: Video, container: VideoFacts | None
) -> tuple[Reading | None, str]:
    """Take from a track of a receiver of its own what falls into a video.

    The video's clock is, in this order: the time in its name, in the zone where the track is;
    the container's as UTC; the container's as local time there. The first by which the track has
    a fix in the video is taken. A track without times belongs to the video that shares its name,
    which is for the caller to see.

    Returns:
        The part, with seconds in the video, or None; and how it was matched, or why it was not.
    """
    reading = to_utc(reading)
    track = reading.track
    if not np.isfinite(track.utc_s).any():
        return None, "has no times to match it by"
    is_timed = False
    for begin_s, how in _possible_starts_s(track, video, container):
        is_timed = True
        chosen = _inside(track.utc_s - begin_s, _length_s(container))
        if chosen.any():
            part = replace(reading, track=take(track, chosen))
            return _matched(part, begin_s, how), f"matched by {how}"
    return None, "does not cover the video's time" if is_timed else NO_TIME


def cut_to_video(reading: Reading, video: Video, container: VideoFacts | None) -> Reading:
    """Leave out the fixes that lie outside a video, where its length is known and some lie inside.

    A camera may write on after the pictures end, and a file may hold more than its video. Videos
    that play faster than they were recorded keep all.
    """
    if container is None or container.duration_s is None or video.origin.mode == "timelapse":
        return reading
    times_s = reading.track.times_s
    outside = np.isfinite(times_s) & ~_inside(times_s, container.duration_s)
    if not outside.any() or (~outside).sum() < FEWEST_FIXES:
        return reading
    note = f"{int(outside.sum())} fixes outside the video were left out"
    return replace(reading, track=take(reading.track, ~outside), notes=(*reading.notes, note))


def to_utc(reading: Reading) -> Reading:
    """Records in local time, moved to UTC by the zone that they lie in."""
    track, zone = reading.track, _zone_of(reading.track)
    timed = track.utc_s[np.isfinite(track.utc_s)]
    if not reading.is_local_clock or zone is None or not timed.size:
        return reading
    ahead_s = offset_s(zone, float(np.median(timed)))
    return replace(reading, track=replace(track, utc_s=track.utc_s - ahead_s), is_local_clock=False)


def _matched(reading: Reading, begin_s: float, how: str) -> Reading:
    """Seconds in the video for fixes that were found by the video's clock.

    Their UTC goes: it would come back as the time of the video, as if satellites had said what
    the video's own clock did. But for a container in local time, which nothing else puts right.
    """
    track = replace(reading.track, times_s=reading.track.utc_s - begin_s)
    if how.startswith(_LOCAL_CONTAINER):
        return replace(reading, track=track, is_camera_clock=True)
    return replace(reading, track=replace(track, utc_s=np.full_like(track.utc_s, np.nan)))


def _possible_starts_s(
    track: Track, video: Video, container: VideoFacts | None
) -> Iterator[tuple[float, str]]:
    """When the video may have begun, on the track's clock, the most believable first."""
    zone = _zone_of(track)
    local = video.origin.start_local
    if local is not None and zone is not None:
        yield utc_of_local_s(zone, local), f"file name, zone {zone}"
    elif local is not None:
        yield as_if_utc_s(local), "file name, taken as UTC"
    created_s = container.created_utc_s if container else None
    if created_s is not None:
        yield created_s, "container, taken as UTC"
        if zone is not None:
            yield created_s - offset_s(zone, created_s), f"{_LOCAL_CONTAINER} in {zone}"


def _zone_of(track: Track) -> str | None:
    """Zone of the fix in the middle; of a receiver, most fixes are right."""
    sound = np.flatnonzero((np.abs(track.lats_deg) <= 90) & (np.abs(track.lons_deg) <= 180))
    if not sound.size:
        return None
    middle = sound[sound.size // 2]
    return zone_at((float(track.lats_deg[middle]), float(track.lons_deg[middle])))


def _length_s(container: VideoFacts | None) -> float:
    length_s = container.duration_s if container else None
    return _UNKNOWN_LENGTH_S if length_s is None or math.isnan(length_s) else length_s


def _inside(times_s: NDArray[np.float64], length_s: float) -> NDArray[np.bool_]:
    return np.asarray((times_s >= -_MARGIN_S) & (times_s <= length_s + _MARGIN_S))
