"""The way of a drive, out of the telemetry of its files."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from geotag.geo import distance_m
from geotag.locate import best_survey, place_of_fix
from geotag.writers.tracks import DriveTrack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from geotag.evidence import Evidence
    from geotag.telemetry.track import Survey
    from geotag.types import Drive, Tag


def drive_track(
    drive: Drive, evidence: Mapping[str, Evidence], tags: Sequence[Tag]
) -> DriveTrack | None:
    """Join the ways of a drive's moments, each from its best receiver; None where there is none.

    Args:
        drive: its moments, in order.
        evidence: what is known of the videos, by name.
        tags: those of the drive, in its order.
    """
    line: list[tuple[float, float]] = []
    paths: list[str] = []
    points = 0
    for moment in drive.moments:
        entries = [evidence[video.name] for video in moment.videos if video.name in evidence]
        measured = [entry for entry in entries if place_of_fix(entry.survey)]
        if not measured:
            continue
        best = best_survey(measured)
        line += _way(best.survey)
        paths.append(best.video.name)
        points += best.survey.points
    if not line:
        return None
    first = tags[0]
    return DriveTrack(
        drive_id=drive.drive_id,
        vendor=first.vendor,
        start_local=first.start_local,
        start_utc=first.start_utc,
        end_utc=max(filter(None, map(_end_utc, tags)), default=None),
        paths=tuple(paths),
        points=points,
        km=round(sum(itertools.starmap(distance_m, itertools.pairwise(line))) / 1000, 3),
        line=tuple(line),
    )


def _end_utc(tag: Tag) -> str | None:
    """When a video ended; None where that is not known."""
    if tag.start_utc is None or tag.duration_s is None:
        return None
    start = datetime.fromisoformat(tag.start_utc.replace("Z", "+00:00"))
    end = start + timedelta(seconds=tag.duration_s)
    return end.isoformat(timespec="seconds").replace("+00:00", "Z")


def _way(survey: Survey) -> list[tuple[float, float]]:
    if survey.line:
        return [(lat_deg, lon_deg) for _, lat_deg, lon_deg in survey.line]
    return [survey.median_deg] if survey.median_deg is not None else []
