from __future__ import annotations

import math

import pytest

from geotag.geo import distance_m
from geotag.telemetry.fixes import filter_fixes, summarise
from geotag.telemetry.track import Fix, Survey, survey_from_json, survey_to_json, track_of
from tests.unit.telemetry.made import facts, reading, way

NOWHERE = Fix(42.0266, -129.2943, alt_m=9540.24, mode=0, dop=99.99)


def counts(fixes: list[Fix]) -> dict[str, int]:
    return dict(filter_fixes(track_of(fixes))[1])


def test_a_sound_drive_is_kept_whole() -> None:
    kept, rejected = filter_fixes(track_of(way(50)))
    assert kept.lats_deg.size == 50
    assert rejected == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": 0}, "mode"),
        ({"mode": 1}, "mode"),
        ({"lat_deg": 91.0}, "range"),
        ({"lon_deg": -180.1}, "range"),
        ({"lat_deg": math.nan}, "range"),
        ({"lat_deg": math.inf}, "range"),
        ({"lat_deg": 0.0, "lon_deg": 0.0}, "null island"),
        ({"dop": 10.1}, "dop"),
        ({"alt_m": 9000.5}, "altitude"),
        ({"alt_m": -9000.5}, "altitude"),
        ({"utc_s": 1_600_000_000.0}, "time"),
        ({"lat_deg": 52.5}, "jump"),
    ],
)
def test_one_bad_fix_costs_itself_and_says_why(change: dict[str, float], reason: str) -> None:
    fixes = way(20)
    fixes[7] = fixes[7]._replace(**change)  # type: ignore[arg-type]
    kept, rejected = filter_fixes(track_of(fixes))
    assert rejected == ((reason, 1),)
    assert kept.lats_deg.size == 19


def test_limits_themselves_are_kept() -> None:
    fixes = [fix._replace(dop=10.0, alt_m=9000.0, mode=2) for fix in way(5)]
    assert counts(fixes) == {}


def test_a_receiver_without_a_fix_gives_none() -> None:
    survey = summarise(reading([NOWHERE] * 36))
    assert survey.quality is None
    assert survey.median_deg is survey.start_deg is None
    assert survey.rejected == (("mode", 36),)


def test_the_last_known_office_before_the_first_fix_goes() -> None:
    office = [Fix(51.5, -0.1, time_s=float(number)) for number in range(8)]
    drive = [fix._replace(time_s=fix.time_s + 8, utc_s=math.nan) for fix in way(30)]
    kept, rejected = filter_fixes(track_of(office + drive))
    assert rejected == (("jump", 8),)
    assert kept.lats_deg[0] == 52.0


def test_one_wild_fix_does_not_cost_six_thousand_good_ones() -> None:
    fixes = way(6000, step_deg=0.00001)
    fixes[3] = fixes[3]._replace(lat_deg=10.0)
    fixes[3000] = fixes[3000]._replace(lon_deg=100.0)
    kept, rejected = filter_fixes(track_of(fixes))
    assert kept.lats_deg.size == 5998
    assert rejected == (("jump", 2),)


def test_a_tunnel_is_a_gap_and_no_jump() -> None:
    before, after = way(30), way(30, start=(52.05, 21.05), utc_s=1_700_000_200.0)
    after = [fix._replace(time_s=fix.time_s + 200) for fix in after]
    assert counts(before + after) == {}


def test_two_hundred_kilometres_an_hour_pass_and_three_hundred_do_not() -> None:
    metre_deg = 1 / 111_195
    fast = [Fix(50 + n * 56 * metre_deg, 8.0, time_s=float(n)) for n in range(30)]
    assert counts(fast) == {}
    flying = [Fix(50 + n * 250 * metre_deg, 8.0, time_s=float(n)) for n in range(30)]
    assert counts(flying) == {"jump": 29, "alone": 1}


def test_two_fixes_prove_nothing() -> None:
    assert counts(way(2)) == {"alone": 2}
    assert counts(way(3)) == {}


def test_a_position_that_stands_alone_by_its_nature_is_kept() -> None:
    survey = summarise(reading([Fix(32.0929, 34.862)], is_single_point=True))
    assert survey.quality == "single_point"
    assert survey.median_deg == survey.start_deg == survey.end_deg == (32.0929, 34.862)
    assert summarise(reading([Fix(0.0, 0.0)], is_single_point=True)).quality is None


def test_late_records_are_put_in_order() -> None:
    fixes = way(20)
    fixes[4], fixes[15] = fixes[15], fixes[4]
    kept, rejected = filter_fixes(track_of(fixes))
    assert rejected == ()
    assert list(kept.times_s) == sorted(kept.times_s)


def test_a_drive_across_the_date_line_is_one_drive() -> None:
    fixes = [
        Fix(-17.0, (179.99 + number * 0.0005 + 180) % 360 - 180, time_s=float(number))
        for number in range(40)
    ]
    survey = summarise(reading(fixes))
    assert survey.rejected == ()
    assert survey.start_deg is not None
    assert survey.start_deg[1] > 179
    assert survey.end_deg is not None
    assert survey.end_deg[1] < -179
    assert len(survey.line) == 2


def test_nothing_at_all_is_a_survey_without_a_position() -> None:
    survey = summarise(reading([]), facts(created_utc_s=5e8))
    assert survey == Survey(source="made", container_utc_s=5e8)


def test_the_median_is_a_point_of_the_way() -> None:
    # There and back again on two sides of a square: the mean would lie in a field.
    east = [Fix(52.0, 21.0 + n * 0.0005, time_s=float(n)) for n in range(50)]
    north = [Fix(52.0 + n * 0.0003, 21.0245, time_s=50.0 + n) for n in range(1, 50)]
    survey = summarise(reading(east + north))
    points = {(round(fix.lat_deg, 7), round(fix.lon_deg, 7)) for fix in east + north}
    assert survey.median_deg in points
    assert distance_m(survey.median_deg or (0, 0), (52.0, 21.0245)) < 500


@pytest.mark.parametrize(
    ("sound", "void", "quality"),
    [(10, 1, "good"), (10, 3, "fair"), (9, 0, "fair"), (10, 11, "poor"), (3, 40, "poor")],
)
def test_quality_follows_the_stated_rule(sound: int, void: int, quality: str) -> None:
    assert summarise(reading(way(sound) + [NOWHERE] * void)).quality == quality


def test_the_first_frame_has_the_time_that_most_fixes_agree_on() -> None:
    fixes = way(20, utc_s=1_700_000_000.25)
    fixes[0] = fixes[0]._replace(utc_s=1_700_000_040.0)
    assert summarise(reading(fixes)).start_utc_s == 1_700_000_000.25


def test_fixes_without_a_place_in_the_video_begin_with_it() -> None:
    fixes = [fix._replace(time_s=math.nan) for fix in way(5)]
    survey = summarise(reading(fixes))
    assert survey.start_utc_s == 1_700_000_000.0
    assert {time_s for time_s, _, _ in survey.line} == {-1.0}


def test_a_survey_survives_its_text() -> None:
    survey = summarise(reading(way(30), vendor="VIOFO", is_camera_clock=True), facts(), ("a note",))
    text = survey_to_json(survey)
    assert survey_from_json(text) == survey
    assert survey_to_json(survey_from_json(text)) == text
    assert survey_from_json(survey_to_json(Survey())) == Survey()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"quality":"superb"}', '{"source":1}'])
def test_another_text_is_no_survey(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        survey_from_json(text)


def test_a_long_way_is_thinned_and_keeps_its_ends_and_corners() -> None:
    circle = [
        Fix(52 + math.sin(n / 500) * 0.1, 21 + math.cos(n / 500) * 0.1, time_s=float(n))
        for n in range(3000)
    ]
    survey = summarise(reading(circle))
    assert len(survey.line) <= 200
    assert survey.line[0][1:] == survey.start_deg
    assert survey.line[-1][1:] == survey.end_deg
    times = [time_s for time_s, _, _ in survey.line]
    assert times == sorted(times)
