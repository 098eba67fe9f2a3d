"""Where each video of a drive was recorded: what was measured, what was seen, what is near.

Order of trust: a fix measured in the file, or by another camera of the same moment; then the
pictures of the file, or of the moment; then the nearest file of the drive; else none. Measured
and predicted never share a field of the tag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from geotag.geo import distance_m
from geotag.sight import rounded
from geotag.types import LEVELS, Tag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from geotag.evidence import Evidence
    from geotag.places.gazetteer import Gazetteer, Geocode
    from geotag.sight import Sight
    from geotag.telemetry.clock import VideoTime
    from geotag.telemetry.track import Survey
    from geotag.types import Drive, Video

Agreement = Literal["match", "state", "country", "conflict", "none"]

DRIVE_REACH_S = 900.0
"""A file without a place takes that of a file of its drive at most this far away in time: in a
quarter of an hour a car crosses a city, and seldom a state."""
DRIVE_REACH_FILES = 5
"""The same where the files have no time: clips of one to three minutes."""
QUALITY_ORDER = ("good", "fair", "poor", "single_point")
_SAME_SPOT_M = 200.0
"""Start, middle and end this close together are looked up once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What looked at the pictures; None where there was no model."""

    engine: str | None = None
    bundle: str | None = None
    agree: Callable[[Geocode, Sight], Agreement] | None = None
    """How far a measured place and an answer of this model agree."""

    @property
    def has_model(self) -> bool:
        """Whether pictures could be looked at."""
        return self.bundle is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """The telemetry that counts for one video, and the places it names."""

    survey: Survey
    source: Video
    middle: Geocode
    start: Geocode
    end: Geocode


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """All that is known of one video from its own moment."""

    evidence: Evidence
    moment: int
    measured: _Measured | None
    sight: Sight | None
    seen_in: Video | None
    """Whose pictures `sight` comes from."""
    time: VideoTime

    @property
    def has_place(self) -> bool:
        return self.measured is not None or (
            self.sight is not None and self.sight.level is not None
        )


def locate_drive(
    drive: Drive,
    evidence: Mapping[str, Evidence],
    times: Mapping[str, VideoTime],
    *,
    gazetteer: Gazetteer,
    ran: Ran,
) -> list[Tag]:
    """Tag the videos of one drive.

    Args:
        drive: the files, moment by moment.
        evidence: what is known, by name of the video; those missing get no tag.
        times: when each began, by name.
        gazetteer: names places.
        ran: the model that looked.

    Returns:
        One tag for each video with evidence, in the order of the drive.
    """
    findings = _find(drive, evidence, times, gazetteer)
    return [_tag(finding, drive, findings, ran) for finding in findings]


def place_of_fix(survey: Survey) -> bool:
    """Whether a survey holds a position that may be used."""
    return survey.quality is not None and survey.median_deg is not None


def best_survey(usable: Sequence[Evidence]) -> Evidence:
    """The one whose telemetry is best; of equals the first."""
    return min(usable, key=lambda entry: _rank(entry.survey))


def _find(
    drive: Drive,
    evidence: Mapping[str, Evidence],
    times: Mapping[str, VideoTime],
    gazetteer: Gazetteer,
) -> list[_Finding]:
    known = [
        [evidence[video.name] for video in moment.videos if video.name in evidence]
        for moment in drive.moments
    ]
    surveyed = {
        entry.video.name: entry
        for entries in known
        for entry in entries
        if place_of_fix(entry.survey)
    }
    codes = _geocode({name: entry.survey for name, entry in surveyed.items()}, gazetteer)
    findings = []
    for number, entries in enumerate(known):
        looked = next((entry for entry in entries if entry.viewing.sight is not None), None)
        for entry in entries:
            usable = [one for one in (entry, *entries) if place_of_fix(one.survey)]
            source = best_survey(usable) if usable else None
            own = entry if entry.viewing.sight is not None else looked
            findings.append(
                _Finding(
                    evidence=entry,
                    moment=number,
                    measured=None if source is None else codes[source.video.name](source),
                    sight=own.viewing.sight if own else None,
                    seen_in=own.video if own else None,
                    time=times[entry.video.name],
                )
            )
    return findings


def _rank(survey: Survey) -> int:
    return QUALITY_ORDER.index(survey.quality) if survey.quality else len(QUALITY_ORDER)


def _geocode(
    surveys: Mapping[str, Survey], gazetteer: Gazetteer
) -> dict[str, Callable[[Evidence], _Measured]]:
    """Name the places of all surveys of a drive in one look-up."""
    points: list[tuple[float, float]] = []
    rows: dict[str, tuple[int, int, int]] = {}
    for name, survey in surveys.items():
        if survey.median_deg is None:
            continue
        middle, row = survey.median_deg, len(points)
        points.append(middle)
        ends = []
        for end in (survey.start_deg or middle, survey.end_deg or middle):
            if distance_m(end, middle) <= _SAME_SPOT_M:
                ends.append(row)
                continue
            ends.append(len(points))
            points.append(end)
        rows[name] = (row, ends[0], ends[1])
    if not points:
        return {}
    lats_deg, lons_deg = zip(*points, strict=True)
    codes = gazetteer.locate(lats_deg, lons_deg)

    def measured(name: str) -> Callable[[Evidence], _Measured]:
        middle, start, end = (codes[row] for row in rows[name])
        return lambda source: _Measured(
            survey=source.survey, source=source.video, middle=middle, start=start, end=end
        )

    return {name: measured(name) for name in rows}


def _nearest(finding: _Finding, findings: Sequence[_Finding]) -> _Finding | None:
    """The nearest file of the drive that has a place of its own; measured before seen."""
    near = [
        (other.measured is None, away, other.moment, other)
        for other in findings
        if other.has_place
        and other.moment != finding.moment
        and (away := _away(finding, other)) is not None
    ]
    return min(near, key=lambda entry: entry[:3])[3] if near else None


def _away(finding: _Finding, other: _Finding) -> float | None:
    """How far two files are apart, as a share of what may be bridged; None if too far."""
    a_s, b_s = finding.time.start_s, other.time.start_s
    if a_s is not None and b_s is not None:
        share = abs(a_s - b_s) / DRIVE_REACH_S
    else:
        share = abs(finding.moment - other.moment) / DRIVE_REACH_FILES
    return share if share <= 1 else None


def _tag(finding: _Finding, drive: Drive, findings: Sequence[_Finding], ran: Ran) -> Tag:
    entry, measured = finding.evidence, finding.measured
    is_seen = finding.sight is not None and finding.sight.level is not None
    near = None if measured or is_seen else _nearest(finding, findings)
    fields: dict[str, object] = {}
    if measured is not None:
        fields |= {"location_source": "gps"} | _answer_measured(measured.middle)
        fields["location_from"] = _other(measured.source, entry.video)
    elif is_seen and finding.sight is not None:
        fields |= {"location_source": "visual"} | _answer_seen(finding.sight)
        fields["location_from"] = _other(finding.seen_in, entry.video)
    elif near is not None:
        fields |= _answer_near(near)
    if measured is not None:
        fields |= _measured_fields(measured)
    elif entry.survey.rejected:
        fields |= {"gps_points": 0, "gps_source": entry.survey.source}
        fields["gps_rejected"] = _counts(entry.survey.rejected)
    if finding.sight is not None:
        fields |= _seen_fields(finding.sight, ran)
    if measured is not None and finding.sight is not None:
        fields |= _agreement(measured, finding.sight, ran)
    fields |= _outcome(finding, ran, has_place=bool(measured or is_seen or near))
    return Tag(**_file_fields(finding, drive), **fields)  # type: ignore[arg-type]


def _file_fields(finding: _Finding, drive: Drive) -> dict[str, object]:
    """What the file is, and when it was recorded."""
    video, facts = finding.evidence.video, finding.evidence.viewing.facts
    origin, time = video.origin, finding.time
    return {
        "id": video.video_id,
        "path": video.name,
        "vendor": origin.vendor or finding.evidence.survey.vendor,
        "channel": origin.channel,
        "mode": origin.mode,
        "drive_id": drive.drive_id,
        "start_utc": time.start_utc,
        "start_local": time.start_local,
        "time_zone": time.time_zone,
        "time_source": time.time_source,
        "duration_s": rounded(facts.duration_s, 3) if facts else None,
    }


def _outcome(finding: _Finding, ran: Ran, *, has_place: bool) -> dict[str, object]:
    """Status and error: what could not be read, and whether there is an answer all the same."""
    viewing = finding.evidence.viewing
    own_fix = place_of_fix(finding.evidence.survey)
    if viewing.fault is not None:
        return {"status": "partial" if own_fix else "failed", "error": str(viewing.fault)}
    if viewing.sight is not None and viewing.sight.problem:
        return {"status": "partial", "error": viewing.sight.problem}
    if not ran.has_model and not has_place:
        return {
            "status": "no_model",
            "error": "no_model: the file carries no usable position, and there is no model to look "
            "at its pictures with",
        }
    return {"status": "ok"}


def _answer_measured(code: Geocode) -> dict[str, object]:
    level = next((name for name in LEVELS if getattr(code, name)), "none")
    return {
        "continent": code.continent,
        "continent_code": code.continent_code,
        "country": code.country,
        "country_code": code.country_code,
        "state": code.state,
        "state_code": code.state_code,
        "city": code.city,
        "city_geonameid": code.city_geonameid,
        "level": level,
    }


def _answer_seen(sight: Sight) -> dict[str, object]:
    fields: dict[str, object] = {"level": sight.level or "none"}
    for place in sight.places:
        fields[place.level] = place.name
        if place.level == "city":
            fields["city_geonameid"] = place.geonameid
        else:
            fields[f"{place.level}_code"] = place.code
    return fields


def _answer_near(near: _Finding) -> dict[str, object]:
    """The place of another file; its point goes into fields of its own."""
    fields: dict[str, object] = {"location_source": "drive"}
    if near.measured is not None:
        point, source = near.measured.survey.median_deg, near.measured.source
        fields |= _answer_measured(near.measured.middle)
    elif near.sight is not None and near.seen_in is not None:
        point, source = near.sight.point_deg, near.seen_in
        fields |= _answer_seen(near.sight)
    else:
        raise ValueError(f"{near.evidence.video.name} has no place to share")
    lat_deg, lon_deg = point or (None, None)
    return fields | {
        "location_from": source.name,
        "drive_lat": rounded(lat_deg, 6),
        "drive_lon": rounded(lon_deg, 6),
    }


def _measured_fields(measured: _Measured) -> dict[str, object]:
    survey = measured.survey
    middle = survey.median_deg or (math.nan, math.nan)
    start, end = survey.start_deg or middle, survey.end_deg or middle
    return {
        "gps_lat": rounded(middle[0], 6),
        "gps_lon": rounded(middle[1], 6),
        "gps_points": survey.points,
        "gps_quality": survey.quality,
        "gps_rejected": _counts(survey.rejected),
        "gps_source": survey.source,
        "gps_start_lat": rounded(start[0], 6),
        "gps_start_lon": rounded(start[1], 6),
        "gps_start_city": measured.start.city,
        "gps_start_country_code": measured.start.country_code,
        "gps_end_lat": rounded(end[0], 6),
        "gps_end_lon": rounded(end[1], 6),
        "gps_end_city": measured.end.city,
        "gps_end_country_code": measured.end.country_code,
        "gps_disputed": measured.middle.disputed,
    }


def _seen_fields(sight: Sight, ran: Ran) -> dict[str, object]:
    names = {place.level: place.name for place in sight.places}
    fields: dict[str, object] = {
        f"confidence_{level}": prob for level, prob in zip(LEVELS, sight.confidences, strict=True)
    }
    for rank, (name, prob) in enumerate(sight.cities, start=1):
        fields |= {f"city_{rank}": name, f"city_{rank}_p": prob}
    return fields | {
        **{f"visual_{level}": names.get(level) for level in LEVELS},
        "visual_lat": sight.lat_deg,
        "visual_lon": sight.lon_deg,
        "radius_m": sight.radius_m,
        "scene": sight.scene,
        "scene_p": sight.scene_prob,
        "clips": sight.clips,
        "engine": ran.engine,
        "bundle": ran.bundle,
        "sampling": sight.sampling,
    }


def _agreement(measured: _Measured, sight: Sight, ran: Ran) -> dict[str, object]:
    if sight.level is None or sight.point_deg is None or measured.survey.median_deg is None:
        return {}
    away_m = distance_m(measured.survey.median_deg, sight.point_deg)
    return {
        "agreement": ran.agree(measured.middle, sight) if ran.agree else "none",
        "agreement_km": rounded(away_m / 1000, 1),
    }


def _counts(rejected: Sequence[tuple[str, int]]) -> str | None:
    return ", ".join(f"{reason} {count}" for reason, count in rejected) or None


def _other(source: Video | None, own: Video) -> str | None:
    return source.name if source is not None and source.name != own.name else None
