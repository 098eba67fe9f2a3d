from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from geotag.telemetry.clock import Clocks, VideoTime, repair_clocks, repair_drive
from geotag.telemetry.track import Survey
from geotag.types import Drive, Moment, Origin, Video

BERLIN, DELHI, KATHMANDU, WARSAW = (
    "Europe/Berlin",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Europe/Warsaw",
)


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def one(**fields: object) -> VideoTime:
    return repair_clocks([Clocks(**fields)])[0]  # type: ignore[arg-type]


def test_satellite_time_wins_whatever_the_name_says() -> None:
    time = one(
        name_local=datetime(2015, 1, 1),
        telemetry_utc_s=utc("2024-07-01T10:00:00"),
        container_utc_s=utc("2015-01-01T00:00:00"),
        zone=BERLIN,
    )
    assert time.start_utc == "2024-07-01T10:00:00Z"
    assert time.start_local == "2024-07-01T12:00:00"
    assert time.time_zone == BERLIN
    assert time.time_source == "gps"


def test_milliseconds_are_kept_where_there_are_any() -> None:
    assert one(telemetry_utc_s=1_516_822_078.674).start_utc == "2018-01-24T19:27:58.674Z"


@pytest.mark.parametrize(
    ("zone", "local", "expected"),
    [
        (BERLIN, "2024-07-01T12:00:00", "2024-07-01T10:00:00Z"),
        (BERLIN, "2024-01-01T12:00:00", "2024-01-01T11:00:00Z"),
        (DELHI, "2024-07-01T12:00:00", "2024-07-01T06:30:00Z"),
        (KATHMANDU, "2024-07-01T02:00:00", "2024-06-30T20:15:00Z"),
        ("America/St_Johns", "2024-01-01T22:00:00", "2024-01-02T01:30:00Z"),
        # The clocks went forward at 2:00, and back at 3:00.
        (BERLIN, "2024-03-31T01:59:59", "2024-03-31T00:59:59Z"),
        (BERLIN, "2024-03-31T03:00:00", "2024-03-31T01:00:00Z"),
        (BERLIN, "2024-10-27T02:30:00", "2024-10-27T00:30:00Z"),
    ],
)
def test_a_file_name_is_local_time_in_the_zone_of_the_position(
    zone: str, local: str, expected: str
) -> None:
    time = one(name_local=datetime.fromisoformat(local), zone=zone)
    assert time.start_utc == expected
    assert time.start_local == local
    assert time.time_source == f"file name, zone {zone} from position"


def test_records_in_local_time_that_claim_utc_are_moved_by_the_zone() -> None:
    time = one(
        name_local=datetime(2024, 7, 1, 12),
        telemetry_utc_s=utc("2024-07-01T12:00:03"),
        is_camera_clock=True,
        zone=BERLIN,
    )
    assert time.start_utc == "2024-07-01T10:00:03Z"
    assert time.time_source == "gps, moved by -2 h to file name, zone Europe/Berlin from position"


def test_records_in_utc_are_left_alone() -> None:
    time = one(
        name_local=datetime(2024, 7, 1, 12),
        telemetry_utc_s=utc("2024-07-01T10:00:03"),
        is_camera_clock=True,
        zone=BERLIN,
    )
    assert time.start_utc == "2024-07-01T10:00:03Z"
    assert time.time_source == "gps, agrees with file name, zone Europe/Berlin from position"


@pytest.mark.parametrize("zone", [BERLIN, DELHI, KATHMANDU, "America/Denver", "Pacific/Apia"])
def test_the_constant_eight_hours_of_70mai_are_caught(zone: str) -> None:
    local = datetime(2024, 7, 1, 23, 55)
    truth_s = one(name_local=local, zone=zone).start_utc
    assert truth_s is not None
    time = one(
        name_local=local,
        telemetry_utc_s=utc(truth_s[:-1]) - 8 * 3600 + 2,
        is_camera_clock=True,
        zone=zone,
    )
    assert time.start_utc == truth_s.replace(":00Z", ":02Z")
    assert "moved by +8 h" in str(time.time_source)


def test_a_clock_that_was_never_set_is_not_moved_into_place() -> None:
    time = one(
        name_local=datetime(2019, 11, 30, 12, 1, 56),
        telemetry_utc_s=utc("2014-11-14T07:34:24"),
        is_camera_clock=True,
        container_utc_s=utc("2014-11-14T07:34:24"),
        zone=WARSAW,
    )
    assert time.start_utc == "2019-11-30T11:01:56Z"
    assert time.time_source == "file name, zone Europe/Warsaw from position"


def test_a_camera_set_to_another_zone_is_known_by_the_satellite_time_of_its_drive() -> None:
    first = Clocks(
        name_local=datetime(2024, 7, 1, 18, 0, 0),
        telemetry_utc_s=utc("2024-07-01T10:00:05"),
        zone=BERLIN,
    )
    later = Clocks(name_local=datetime(2024, 7, 1, 18, 1, 0), zone=BERLIN)
    times = repair_clocks([first, later])
    assert times[0].time_source == "gps"
    assert times[1].start_utc == "2024-07-01T10:01:00Z"
    assert times[1].start_local == "2024-07-01T12:01:00"
    assert times[1].time_source == "file name, UTC+08:00 by the drive's gps"


def test_the_drive_has_one_vote_and_the_majority_wins() -> None:
    def clocks(minute: int, ahead_h: int) -> Clocks:
        return Clocks(
            name_local=datetime(2024, 7, 1, 12, minute),
            telemetry_utc_s=utc(f"2024-07-01T10:{minute:02d}:00") + ahead_h * 3600,
            is_camera_clock=True,
            zone=BERLIN,
        )

    times = repair_clocks([clocks(0, 2), clocks(1, 0), clocks(2, 2), clocks(3, 2)])
    assert [time.start_utc for time in times] == [
        f"2024-07-01T10:{minute:02d}:00Z" for minute in range(4)
    ]
    # The one that disagrees with the vote falls back to its name, and says so.
    assert times[1].time_source == "file name, zone Europe/Berlin from position"


def test_without_a_position_a_name_has_no_utc() -> None:
    time = one(name_local=datetime(2024, 7, 1, 12))
    assert time.start_utc is None
    assert time.start_local == "2024-07-01T12:00:00"
    assert time.time_source == "file name, zone unknown"


def test_a_container_that_equals_the_name_is_local_time_and_tells_no_utc() -> None:
    time = one(name_local=datetime(2024, 7, 1, 12), container_utc_s=utc("2024-07-01T12:00:01"))
    assert time.start_utc is None
    assert time.time_source == "file name, zone unknown"


def test_a_container_that_differs_by_hours_is_the_utc_to_the_name() -> None:
    time = one(name_local=datetime(2024, 7, 1, 12), container_utc_s=utc("2024-07-01T06:30:01"))
    assert time.start_utc == "2024-07-01T06:30:01Z"
    assert time.time_source == "container, file name is UTC+05:30"


def test_a_lone_container_is_taken_at_its_word_and_that_is_said() -> None:
    time = one(container_utc_s=utc("2019-07-24T08:25:57"), zone="Asia/Jerusalem")
    assert time.start_utc == "2019-07-24T08:25:57Z"
    assert time.start_local == "2019-07-24T11:25:57"
    assert time.time_source == "container, taken as UTC, unchecked"


def test_a_lone_camera_clock_is_named_as_such() -> None:
    time = one(telemetry_utc_s=utc("2024-07-01T12:00:00"), is_camera_clock=True, zone=BERLIN)
    assert time.start_utc == "2024-07-01T12:00:00Z"
    assert time.time_source == "gps by the camera's clock, unchecked"


def test_a_camera_clock_ahead_of_its_container_by_the_zone_is_local_time() -> None:
    time = one(
        telemetry_utc_s=utc("2024-07-01T12:00:00"),
        is_camera_clock=True,
        container_utc_s=utc("2024-07-01T10:00:01"),
        zone=BERLIN,
    )
    assert time.start_utc == "2024-07-01T10:00:00Z"
    assert time.time_source == "gps, taken as local time, zone Europe/Berlin"


def test_telemetry_known_to_be_local_needs_the_zone() -> None:
    local_s = utc("2022-05-01T15:01:58.532")
    time = one(
        telemetry_utc_s=local_s, is_camera_clock=True, is_local_clock=True, zone="Europe/Madrid"
    )
    assert time.start_utc == "2022-05-01T13:01:58.532Z"
    assert time.start_local == "2022-05-01T15:01:58.532"
    unknown = one(telemetry_utc_s=local_s, is_camera_clock=True, is_local_clock=True)
    assert unknown.start_utc is None
    assert unknown.start_local == "2022-05-01T15:01:58.532"


def test_nothing_known_is_nothing_said() -> None:
    assert one() == VideoTime()


def test_midnight_moves_the_day() -> None:
    time = one(name_local=datetime(2024, 12, 31, 16, 30), zone="America/Los_Angeles")
    assert time.start_utc == "2025-01-01T00:30:00Z"


@pytest.mark.parametrize("seconds", [1e300, -1e300, 253402300800.0, float("1e18")])
def test_times_beyond_every_calendar_are_no_times(seconds: float) -> None:
    time = one(telemetry_utc_s=seconds, container_utc_s=seconds, zone=BERLIN)
    assert time.start_utc is None


def test_a_drive_shares_its_zone_and_keeps_its_cards_apart() -> None:
    def clip(name: str, card: str, minute: int) -> Video:
        origin = Origin(start_local=datetime(2024, 7, 1, 12, minute), card=card)
        return Video(path=Path(name), name=name, video_id=name, size_bytes=1, origin=origin)

    front, rear, later = clip("f", "a", 0), clip("r", "b", 0), clip("l", "a", 1)
    drive = Drive(drive_id="d", moments=(Moment(videos=(front, rear)), Moment(videos=(later,))))
    place = (52.52, 13.4)
    surveys = {
        "f": Survey(
            quality="good",
            median_deg=place,
            start_deg=place,
            end_deg=place,
            start_utc_s=utc("2024-07-01T04:00:00"),
        )
    }
    times = repair_drive(drive, surveys)
    assert list(times) == ["f", "r", "l"]
    assert times["f"].time_source == "gps"
    assert times["l"].start_utc == "2024-07-01T04:01:00Z"  # the same clock, eight hours ahead
    assert times["r"].start_utc == "2024-07-01T10:00:00Z"  # another camera
    assert times["r"].time_zone == BERLIN
    assert times["l"].start_s is not None
    assert times["f"].start_s is not None
    assert times["l"].start_s - times["f"].start_s == 60
