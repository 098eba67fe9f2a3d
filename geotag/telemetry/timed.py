"""What ExifTool's answer says: timed fixes, or a single position.

ExifTool calls a sample of a track, or a block of the media, a "document"; a sample with many fixes
comes as sub-documents in new versions and as numbered copies of the tags in old ones.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from geotag.telemetry.track import Fix, Reading, track_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TRUE_CLOCKS = frozenset(("BlackVue", "Garmin", "GoPro", "Nextbase", "Thinkware"))
"""Makers whose records carry the time of the satellites (NMEA, or GoPro's GPSU). Others, all that
build on Novatek, write the camera's clock and call it UTC."""

MARKS_MADE_UP_TIMES = 13.38
"""Version of ExifTool from which on times that it makes up are in the group Composite."""

_DOCUMENT = re.compile(r"Doc(\d+)(?:-(\d+))?(?:-[\d-]+)?", re.ASCII)
_DATE = re.compile(
    r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)(\.\d+)?(?:Z|([+-]\d\d):(\d\d))?(\.\d+)?",
    re.ASCII,
)
_SAME_S = 0.002
_MOST_APART_S = 12 * 3600.0


@dataclass(slots=True)
class _Document:
    """Values of each tag in one document, in the order of the file."""

    values: dict[str, list[Any]] = field(default_factory=dict)
    family: str = ""

    def at(self, tag: str, number: int, count: int) -> float:
        """A tag of one of the document's fixes: its own value, or the one that all share."""
        values = self.values.get(tag, ())
        if len(values) == count:
            return _number(values[number])
        return _number(values[0]) if len(values) == 1 else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    """Times of a sample."""

    utc_s: float
    time_s: float
    span_s: float


def read_timed(tags: Mapping[str, Any], vendor: str | None) -> Reading | None:
    """Fixes with their times; None where there is none.

    Args:
        tags: from `ExifTool.read_tags`.
        vendor: maker of the camera, where its name or folder told.
    """
    documents, is_made_up = _documents(tags)
    found = [key for key, document in documents.items() if document.values.get("GPSLatitude")]
    if not found:
        return None
    fixes = list(_fixes(documents))
    if _main_number(tags, "ExifToolVersion") < MARKS_MADE_UP_TIMES:
        is_made_up = _is_container_time(fixes, tags)
    fixes = _placed(fixes)
    if is_made_up:
        fixes = [fix._replace(utc_s=math.nan) for fix in fixes]
    maker = _maker(documents, found, tags) or vendor
    is_camm = any(key.endswith("Format") and value == "camm" for key, value in tags.items())
    is_true = is_camm or maker in TRUE_CLOCKS
    if documents[found[0]].family == "GoPro":
        # The drone has no time of satellites, and no mode either.
        is_true = any(fix.mode >= 0 for fix in fixes)
    label = maker or ("CAMM" if is_camm else "timed GPS")
    return Reading(
        track=track_of(fixes),
        source=f"exiftool: {label}",
        vendor=maker,
        is_camera_clock=not is_true,
    )


def read_single(tags: Mapping[str, Any]) -> Reading | None:
    """The one position that a container gives for all of a video; None where there is none."""
    found: dict[str, float] = {}
    for key, value in tags.items():
        *groups, tag = key.split(":")
        if tag == "MIMEType" and str(value).startswith("image/"):
            return None  # a picture under a video's name says nothing about a video
        if "Main" in groups and tag in ("GPSLatitude", "GPSLongitude", "GPSAltitude"):
            found.setdefault(tag, _number(value))
    if not {"GPSLatitude", "GPSLongitude"} <= found.keys():
        return None
    fix = Fix(found["GPSLatitude"], found["GPSLongitude"], alt_m=found.get("GPSAltitude", math.nan))
    return Reading(track=track_of([fix]), source="exiftool: location", is_single_point=True)


def created_utc_s(tags: Mapping[str, Any]) -> float | None:
    """Creation time of the container, taken as UTC; None where there is none to believe."""
    for key, value in tags.items():
        if key.endswith("Main:CreateDate"):
            utc_s = _utc_s(value)
            return utc_s if utc_s > 366 * 86400 else None
    return None


def _documents(
    tags: Mapping[str, Any],
) -> tuple[dict[tuple[int, int], _Document], bool]:
    """Documents in the order of their numbers, and whether ExifTool made up their UTC."""
    documents: dict[tuple[int, int], _Document] = {}
    is_made_up = False
    for key, value in tags.items():
        *groups, tag = key.split(":")
        match = next((m for g in groups if (m := _DOCUMENT.fullmatch(g))), None)
        if match is None:
            continue
        if tag == "GPSDateTime" and groups[0] == "Composite":
            is_made_up = True
        document = documents.setdefault((int(match[1]), int(match[2] or 0)), _Document())
        document.values.setdefault(tag, []).append(value)
        if tag == "GPSLatitude":
            document.family = groups[0]
    return dict(sorted(documents.items())), is_made_up


def _fixes(documents: Mapping[tuple[int, int], _Document]) -> Iterator[Fix]:
    samples: dict[int, list[_Document]] = {}
    for (sample, _), document in documents.items():
        samples.setdefault(sample, []).append(document)
    for sample, parts in samples.items():
        head = parts[0]
        bare = [fix for part in parts for fix in _fixes_of(part, head)]
        clock = _clock_of(sample, head, samples)
        for number, fix in enumerate(bare):
            share = number / len(bare) * clock.span_s if number else 0.0
            yield fix._replace(
                time_s=clock.time_s + share,
                utc_s=clock.utc_s + share if math.isnan(fix.utc_s) else fix.utc_s,
            )


def _fixes_of(part: _Document, head: _Document) -> Iterator[Fix]:
    """The fixes of one document, which takes from the first of its sample what it lacks."""
    count = len(part.values.get("GPSLatitude", ()))
    times = part.values.get("GPSDateTime", ())
    for number in range(count):
        dop = part.at("GPSDOP", number, count)
        error = part.at("GPSHPositioningError", number, count)
        shared = head.at("GPSHPositioningError", 0, 1) if math.isnan(error) else error
        mode = part.at("GPSMeasureMode", number, count)
        mode = head.at("GPSMeasureMode", 0, 1) if math.isnan(mode) else mode
        speed = part.at("GPSSpeed", number, count)
        yield Fix(
            part.at("GPSLatitude", number, count),
            part.at("GPSLongitude", number, count),
            utc_s=_utc_s(times[number]) if len(times) == count else math.nan,
            alt_m=part.at("GPSAltitude", number, count),
            # km/h, but for GoPro, where it depends on the version of ExifTool.
            speed_mps=math.nan if part.family == "GoPro" else speed / 3.6,
            mode=int(mode) if 0 <= mode <= 3 else -1,
            dop=shared if math.isnan(dop) else dop,
        )


def _clock_of(sample: int, head: _Document, samples: Mapping[int, Sequence[_Document]]) -> _Clock:
    time_s = head.at("SampleTime", 0, 1)
    span_s = head.at("SampleDuration", 0, 1)
    if math.isnan(span_s) and sample + 1 in samples:
        span_s = samples[sample + 1][0].at("SampleTime", 0, 1) - time_s
    times = head.values.get("GPSDateTime", ())
    return _Clock(utc_s=_utc_s(times[0]) if times else math.nan, time_s=time_s, span_s=span_s)


def _is_container_time(fixes: Sequence[Fix], tags: Mapping[str, Any]) -> bool:
    """Whether the times of fixes are nothing but the container's, which ExifTool adds itself."""
    created_s = created_utc_s(tags)
    timed = [fix for fix in fixes if not math.isnan(fix.utc_s)]
    if created_s is None or not timed:
        return False
    first = timed[0]
    later_s = 0.0 if math.isnan(first.time_s) else first.time_s
    return abs(first.utc_s - later_s - created_s) < _SAME_S


def _placed(fixes: list[Fix]) -> list[Fix]:
    """Seconds for fixes that have only a UTC: cameras write the first one with the first frame."""
    utc_s = np.array([fix.utc_s for fix in fixes])
    if any(not math.isnan(fix.time_s) for fix in fixes) or not np.isfinite(utc_s).any():
        return fixes
    # A receiver may first report where, and when, it was last used.
    is_near = np.abs(utc_s - np.median(utc_s[np.isfinite(utc_s)])) < _MOST_APART_S
    start_s = float(utc_s[is_near].min()) if is_near.any() else math.nan
    return [
        fix._replace(time_s=fix.utc_s - start_s) if near else fix
        for fix, near in zip(fixes, is_near, strict=True)
    ]


def _maker(
    documents: Mapping[tuple[int, int], _Document],
    found: Sequence[tuple[int, int]],
    tags: Mapping[str, Any],
) -> str | None:
    if documents[found[0]].family == "GoPro":
        return "GoPro"
    for key, value in tags.items():
        if key.endswith("Main:Make") and str(value).strip():
            return str(value).strip()[:40]
    return None


def _main_number(tags: Mapping[str, Any], wanted: str) -> float:
    """A number that stands for the whole file; 0 where there is none."""
    found = next((value for key, value in tags.items() if key.endswith(f"Main:{wanted}")), 0.0)
    number = _number(found)
    return 0.0 if math.isnan(number) else number


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def _utc_s(value: object) -> float:
    """Unix time of ExifTool's text; without a zone it is UTC."""
    match = _DATE.match(str(value))
    if match is None:
        return math.nan
    try:
        moment = datetime(*(int(part) for part in match.groups()[:6]), tzinfo=timezone.utc)  # type: ignore[misc,arg-type]
    except ValueError:
        return math.nan
    ahead_s = 0.0
    if match[8]:
        ahead_s = int(match[8]) * 3600 + math.copysign(int(match[9]) * 60, int(match[8]))
    # Of GoPro's Karma, ExifTool writes the fraction behind the zone.
    return moment.timestamp() + float(match[7] or match[10] or 0) - ahead_s
