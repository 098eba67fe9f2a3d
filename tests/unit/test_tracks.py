import pytest

from geotag.evidence import Evidence, Viewing
from geotag.telemetry.track import Survey
from geotag.tracks import drive_track
from geotag.types import Drive, Moment, Tag
from tests.unit.test_locate import FACTS, MUNICH, fix, video

EQUATOR = ((0.0, 0.0, 0.0), (10.0, 0.0, 0.01))


def test_a_drive_is_one_line_from_the_best_receiver_of_each_moment() -> None:
    front, rear, later, bare = video("F"), video("R"), video("later", 1), video("bare", 2)
    surveys = {
        "F": fix(MUNICH, quality="single_point", points=1),
        "R": fix((0.0, 0.0), line=EQUATOR, points=11),
        "later": fix((0.0, 0.02)),
        "bare": Survey(),
    }
    videos = {one.name: one for one in (front, rear, later, bare)}
    evidence = {
        name: Evidence(video=videos[name], survey=survey, viewing=Viewing(facts=FACTS))
        for name, survey in surveys.items()
    }
    drive = Drive(
        drive_id="d",
        moments=(
            Moment(videos=(front, rear)),
            Moment(videos=(later,)),
            Moment(videos=(bare,)),
        ),
    )
    tags = [
        Tag(id="1", path="F", start_utc="2026-03-14T07:00:00Z", duration_s=60.0, vendor="70mai"),
        Tag(id="2", path="later", start_utc="2026-03-14T07:01:00.500Z", duration_s=30.0),
        Tag(id="3", path="bare"),
    ]
    track = drive_track(drive, evidence, tags)
    assert track is not None
    assert track.paths == ("R", "later")
    assert track.line == ((0.0, 0.0), (0.0, 0.01), (0.0, 0.02))
    assert track.points == 71
    # A hundredth of a degree of a sphere of 6,371,008.8 m is 1,111.95 m.
    assert track.km == pytest.approx(2.2239, abs=1e-3)
    assert (track.start_utc, track.end_utc) == ("2026-03-14T07:00:00Z", "2026-03-14T07:01:30Z")


def test_a_drive_without_gps_has_no_line() -> None:
    one = video("a")
    drive = Drive(drive_id="d", moments=(Moment(videos=(one,)),))
    evidence = {"a": Evidence(video=one, survey=Survey(), viewing=Viewing(facts=FACTS))}
    assert drive_track(drive, evidence, [Tag(id="1", path="a")]) is None
