from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from geotag.evidence import Evidence, Fault, Viewing, viewing_from_json, viewing_to_json
from geotag.locate import Ran, locate_drive
from geotag.places.gazetteer import read_gazetteer
from geotag.sight import SeenPlace, Sight
from geotag.telemetry.clock import repair_drive
from geotag.telemetry.track import Survey
from geotag.types import Drive, Moment, Origin, Tag, Video, VideoFacts

MUNICH, PARIS = (48.1372, 11.5756), (48.8534, 2.3488)
FACTS = VideoFacts(
    container="mp4",
    codec="h264",
    width_px=64,
    height_px=64,
    rotation_deg=0,
    duration_s=60.0,
    fps=30.0,
)


def video(name: str, minute: int = 0, **origin: object) -> Video:
    start = datetime(2026, 3, 14, 8, minute)
    return Video(
        path=Path(name),
        name=name,
        video_id=name,
        size_bytes=1,
        origin=Origin(start_local=start, **origin),  # type: ignore[arg-type]
    )


def fix(point: tuple[float, float], **changes: object) -> Survey:
    fields: dict[str, Any] = {
        "source": "GPX a.gpx",
        "points": 60,
        "quality": "good",
        "median_deg": point,
        "start_deg": point,
        "end_deg": point,
    }
    return Survey(**fields | changes)


def seen(city: str | None, point: tuple[float, float] | None = PARIS) -> Viewing:
    places = (
        SeenPlace(level="city", name="Paris", code=None, geonameid=2988507),
        SeenPlace(level="state", name="Île-de-France", code="FR-IDF", geonameid=None),
        SeenPlace(level="country", name="France", code="FR", geonameid=None),
        SeenPlace(level="continent", name="Europe", code="EU", geonameid=None),
    )
    sight = Sight(
        places=places if city else (),
        confidences=(0.9, 0.9, 0.95, 1.0),
        cities=(("Paris", 0.9), ("Lyon", 0.1)),
        scene="street",
        scene_prob=0.7,
        lat_deg=point[0] if city and point else None,
        lon_deg=point[1] if city and point else None,
        radius_m=25000.0 if city else None,
        clips=2,
        sampling="keyframe 4 s",
        problem=None,
    )
    return Viewing(facts=FACTS, sight=sight, is_looked_at=True)


NOTHING = Viewing(facts=FACTS)
RAN = Ran(engine="fake", bundle="fake@1", agree=lambda code, sight: "conflict")


def locate(*moments: dict[Video, tuple[Survey, Viewing]], ran: Ran = RAN) -> dict[str, Tag]:
    drive = Drive(
        drive_id="drive", moments=tuple(Moment(videos=tuple(moment)) for moment in moments)
    )
    evidence = {
        one.name: Evidence(video=one, survey=survey, viewing=viewing)
        for moment in moments
        for one, (survey, viewing) in moment.items()
    }
    times = repair_drive(drive, {name: entry.survey for name, entry in evidence.items()})
    tags = locate_drive(drive, evidence, times, gazetteer=read_gazetteer(), ran=ran)
    return {tag.path: tag for tag in tags}


def test_what_is_measured_comes_before_what_is_seen() -> None:
    tag = locate({video("a"): (fix(MUNICH), seen("Paris"))})["a"]
    assert (tag.location_source, tag.city, tag.country_code) == ("gps", "Munich", "DE")
    assert (tag.gps_lat, tag.gps_lon, tag.gps_points, tag.gps_quality) == (*MUNICH, 60, "good")
    assert (tag.visual_city, tag.visual_lat, tag.confidence_city) == ("Paris", PARIS[0], 0.9)
    assert tag.agreement == "conflict"
    assert tag.agreement_km == pytest.approx(685, abs=3)


def test_what_is_seen_never_fills_a_measured_field() -> None:
    tag = locate({video("a"): (Survey(), seen("Paris"))})["a"]
    assert (tag.location_source, tag.city, tag.city_geonameid) == ("visual", "Paris", 2988507)
    measured = [name for name in tag.__slots__ if name.startswith("gps_")]
    assert [getattr(tag, name) for name in measured] == [None] * len(measured)
    assert (tag.agreement, tag.agreement_km) == ("none", None)


def test_the_places_at_both_ends_are_named() -> None:
    survey = fix(MUNICH, start_deg=(48.3717, 10.8983), end_deg=(48.7665, 11.4258))
    tag = locate({video("a"): (survey, NOTHING)})["a"]
    assert (tag.gps_start_city, tag.city, tag.gps_end_city) == ("Augsburg", "Munich", "Ingolstadt")


def test_channels_of_a_moment_share_gps_and_picture() -> None:
    front, rear = video("F", channel="front"), video("R", channel="rear")
    tags = locate({front: (Survey(), seen("Paris")), rear: (fix(MUNICH), NOTHING)})
    assert (tags["F"].location_source, tags["F"].city) == ("gps", "Munich")
    assert (tags["F"].location_from, tags["R"].location_from) == ("R", None)
    assert tags["R"].visual_city == "Paris"
    assert tags["R"].agreement == "conflict"


def test_a_better_receiver_of_the_moment_is_preferred() -> None:
    front, rear = video("F", channel="front"), video("R", channel="rear")
    single = fix(PARIS, quality="single_point", points=1)
    tags = locate({front: (single, NOTHING), rear: (fix(MUNICH), NOTHING)})
    assert tags["F"].city == "Munich"
    assert tags["F"].location_from == "R"


def test_a_file_without_a_place_takes_that_of_the_nearest_file_of_its_drive() -> None:
    tags = locate(
        {video("a", 0): (fix(PARIS), seen(None))},
        {video("b", 5): (Survey(), seen(None))},
        {video("c", 8): (fix(MUNICH), NOTHING)},
    )
    tag = tags["b"]
    assert (tag.location_source, tag.location_from, tag.city) == ("drive", "c", "Munich")
    assert (tag.drive_lat, tag.drive_lon) == MUNICH
    assert (tag.gps_lat, tag.visual_lat) == (None, None)


def test_a_file_too_far_away_lends_no_place() -> None:
    tags = locate(
        {video("a", 0): (fix(PARIS), NOTHING)},
        {video("b", 16): (Survey(), seen(None))},
    )
    assert (tags["b"].location_source, tags["b"].status) == ("none", "ok")


def test_an_answer_of_the_picture_comes_before_the_drive() -> None:
    tags = locate(
        {video("a", 0): (fix(MUNICH), NOTHING)},
        {video("b", 1): (Survey(), seen("Paris"))},
    )
    assert (tags["b"].location_source, tags["b"].city) == ("visual", "Paris")


def test_a_damaged_file_with_gps_of_its_own_is_tagged_in_part() -> None:
    fault = Viewing(fault=Fault(stage="open", code="damaged", message="no moov"))
    tags = locate({video("a", 0): (fix(MUNICH), fault)}, {video("b", 1): (Survey(), fault)})
    assert (tags["a"].status, tags["a"].error, tags["a"].city) == (
        "partial",
        "damaged: no moov",
        "Munich",
    )
    # Its drive tells where the other one was recorded, but nothing of it could be read.
    assert (tags["b"].status, tags["b"].location_source) == ("failed", "drive")


def test_a_file_whose_fixes_are_all_bad_says_so_and_has_no_place() -> None:
    survey = Survey(source="exiftool: GoPro", rejected=(("mode", 36),))
    tag = locate({video("a"): (survey, NOTHING)}, ran=Ran())["a"]
    assert (tag.status, tag.gps_points, tag.gps_rejected) == ("no_model", 0, "mode 36")
    assert (tag.gps_lat, tag.location_source) == (None, "none")


def test_without_a_model_the_drive_still_helps() -> None:
    tags = locate(
        {video("a", 0): (fix(MUNICH), NOTHING)},
        {video("b", 1): (Survey(), NOTHING)},
        {video("c", 40): (Survey(), NOTHING)},
        ran=Ran(),
    )
    assert [tags[name].status for name in "abc"] == ["ok", "ok", "no_model"]


def test_a_disputed_area_is_named_as_such() -> None:
    tag = locate({video("a"): (fix((44.95, 34.1)), NOTHING)})["a"]
    assert tag.gps_disputed is not None
    assert "Crimea" in tag.gps_disputed


@pytest.mark.parametrize(
    "viewing",
    [
        NOTHING,
        seen("Paris"),
        seen(None),
        Viewing(fault=Fault(stage="open", code="damaged", message="no moov"), is_looked_at=True),
        Viewing(facts=FACTS, seen_survey='{"source": null}'),
    ],
)
def test_a_viewing_survives_being_written_down(viewing: Viewing) -> None:
    text = viewing_to_json(viewing)
    assert viewing_from_json(text) == viewing
    assert viewing_to_json(viewing_from_json(text)) == text
