from __future__ import annotations

import struct

import pytest

from geotag.telemetry.readers import survey_of_frames
from geotag.telemetry.tesla import read_frames
from tests.unit.telemetry.made import tesla_message

UUID = bytes(range(16))


@pytest.mark.parametrize("before", [b"", UUID])
def test_frames_give_their_position_with_or_without_a_uuid(before: bytes) -> None:
    frames = [
        (float(n), before + tesla_message(37.4 + n * 1e-4, -122.1, speed_mps=11.0))
        for n in range(5)
    ]
    reading = read_frames(frames)
    assert reading is not None
    assert reading.vendor == "Tesla"
    assert list(reading.track.lats_deg) == [37.4 + n * 1e-4 for n in range(5)]
    assert list(reading.track.times_s) == [0, 1, 2, 3, 4]
    assert reading.track.speeds_mps[0] == 11
    survey = survey_of_frames(frames, None)
    assert survey is not None
    assert survey.quality == "fair"


def test_a_parked_car_without_a_position_gives_none() -> None:
    assert read_frames([(0.0, b"\x42\x42\x69\x08\x01")]) is None
    assert survey_of_frames([], None) is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x42\x69",
        b"\x42\x69\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x42\x69\x59\x00",
        b"\x42\x69\x5a\xff\xff\xff\xff\x7f",
        b"\x42\x69\x5b\x5c",
        b"\x42\x69\x00\x00",
        b"\x42" * 4000,
        UUID,
    ],
)
def test_what_does_not_fit_is_no_position(message: bytes) -> None:
    assert read_frames([(0.0, message)]) is None


def test_other_fields_are_passed_over() -> None:
    extra = b"\x52\x03abc" + b"\x08\x01" + b"\xa5\x01" + struct.pack("<f", 1.0)
    reading = read_frames([(0.0, tesla_message(1.0, 2.0) + extra)])
    assert reading is not None
    assert reading.track.lons_deg[0] == 2.0


def test_positions_that_are_no_numbers_do_not_pass_the_filter() -> None:
    survey = survey_of_frames(
        [(float(n), tesla_message(float("nan"), float("inf"))) for n in range(5)], None
    )
    assert survey is not None
    assert survey.rejected == (("range", 5),)
