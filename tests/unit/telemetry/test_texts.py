"""Formats that are text: NMEA, GPX, subtitles, 70mai's log, event.json, ISO 6709."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geotag.telemetry.card_logs import parse_card_log
from geotag.telemetry.fixes import summarise
from geotag.telemetry.gpx import read_gpx
from geotag.telemetry.nmea import is_nmea, read_nmea
from geotag.telemetry.points import read_container, read_iso6709, read_tesla_event
from geotag.telemetry.subtitles import read_srt
from tests.unit.telemetry.made import facts, gga, gpx, rmc, way


def test_sentences_of_one_moment_are_one_fix() -> None:
    fixes = way(5, start=(-33.9, 151.2))
    text = "\r\n".join(f"{gga(fix)}\r\n{rmc(fix)}" for fix in fixes)
    track = read_nmea(text).track
    np.testing.assert_allclose(track.lats_deg, [fix.lat_deg for fix in fixes], atol=1e-6)
    np.testing.assert_allclose(track.lons_deg, [fix.lon_deg for fix in fixes], atol=1e-6)
    assert list(track.utc_s) == [fix.utc_s for fix in fixes]
    assert track.alts_m[0] == 40
    assert track.dops[0] == 0.9
    assert track.speeds_mps[0] == pytest.approx(10 * 1852 / 3600)


def test_the_camera_s_stamp_gives_the_place_in_the_video_and_rmc_the_time() -> None:
    text = "\n".join(
        rmc(fix, stamp_ms=int(fix.utc_s * 1000) + 7_200_000) + f"[{1}]" for fix in way(5)
    )
    track = read_nmea(text).track
    assert list(track.times_s) == [0, 1, 2, 3, 4]
    assert track.utc_s[0] == 1_700_000_000


def test_void_sentences_are_counted_as_no_fix() -> None:
    text = "\n".join(
        rmc(fix, status="V" if number < 3 else "A") for number, fix in enumerate(way(9))
    )
    assert dict(summarise(read_nmea(text)).rejected) == {"mode": 3}


def test_an_empty_void_sentence_is_counted_too() -> None:
    sound = "\n".join(map(rmc, way(5)))
    assert dict(summarise(read_nmea("$GPRMC,,V,,,,,,,,,,N*53\n" + sound)).rejected) == {"mode": 1}


def test_vendors_sentences_and_noise_are_passed_over() -> None:
    lines = [
        line for fix in way(5) for line in ("$GSENSORD,1,2,3", rmc(fix), "\x00\x01", "$GPRMC,")
    ]
    reading = read_nmea("\n".join(lines))
    assert reading.track.lats_deg.size == 5
    assert reading.notes == ()


def test_a_few_wrong_checksums_cost_their_sentences() -> None:
    lines = [rmc(fix) for fix in way(9)]
    lines[4] = lines[4][:-2] + "00"
    reading = read_nmea("\n".join(lines))
    assert reading.track.lats_deg.size == 8
    assert reading.notes == ("1 NMEA sentences with a wrong checksum were left out",)


def test_a_log_whose_checksums_are_nearly_all_wrong_is_read_all_the_same() -> None:
    lines = [rmc(fix)[:-2] + "ZZ" for fix in way(9)]
    lines[0] = rmc(way(1)[0])
    lines[1:] = [line[:-2] + "00" for line in lines[1:]]
    reading = read_nmea("\n".join(lines))
    assert reading.track.lats_deg.size == 9
    assert reading.notes == ("8 NMEA sentences with a wrong checksum were taken",)


def test_gga_alone_has_a_place_and_no_date() -> None:
    reading = read_nmea("\n".join(map(gga, way(5))))
    assert reading.track.lats_deg.size == 5
    assert np.isnan(reading.track.utc_s).all()


def test_midnight_between_two_sentences_is_one_second() -> None:
    text = "\n".join(map(rmc, way(4, utc_s=1_700_006_398.0)))
    assert list(np.diff(read_nmea(text).track.utc_s)) == [1, 1, 1]


def test_nmea_is_known_by_its_sentences() -> None:
    assert is_nmea(rmc(way(1)[0]))
    assert not is_nmea("$100,000 in notes")


def test_gpx_gives_its_points_their_time_and_height() -> None:
    track = read_gpx(gpx(way(5))).track
    assert list(track.utc_s) == [1_700_000_000.0 + number for number in range(5)]
    assert track.alts_m[0] == 40
    assert set(track.modes) == {-1}


def test_a_gpx_that_ends_in_the_middle_gives_what_it_holds() -> None:
    text = gpx(way(20))
    reading = read_gpx(text[: len(text) * 2 // 3])
    assert 10 <= reading.track.lats_deg.size < 20
    assert reading.notes == ("the GPX file is cut short",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<gpx",
        "<gpx><trk></gpx>",
        "<html></html>",
        '<!DOCTYPE g [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><gpx><name>&b;</name></gpx>',
        '<gpx><trk><trkseg><trkpt lat="x" lon="1"/></trkseg></trk></gpx>',
        '<gpx><trk><trkseg><trkpt lon="1"/></trkseg></trk></gpx>',
    ],
)
def test_what_is_no_gpx_is_refused(text: str) -> None:
    try:
        reading = read_gpx(text)
    except ValueError:
        return
    assert not np.isfinite(reading.track.lats_deg).any()


def test_gpx_says_when_there_was_no_fix() -> None:
    text = gpx(way(5)).replace("<ele>40</ele>", "<ele>40</ele><fix>none</fix>", 1)
    assert dict(summarise(read_gpx(text.replace("<fix>none</fix>", ""))).rejected) == {}
    assert read_gpx(text).track.lats_deg.size == 5


CUE = "{n}\n00:00:{n:02d},000 --> 00:00:{n:02d},500\n{body}\n\n"


def srt(*bodies: str) -> str:
    return "".join(CUE.format(n=number, body=body) for number, body in enumerate(bodies))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[latitude: 41.420684] [longitude: 2.162162] [altitude: 27.3]", (41.420684, 2.162162)),
        ("[latitude : 41.4] [longtitude : 2.1] [rel_alt: 1.3 abs_alt: 27.3]", (41.4, 2.1)),
        ("F/2.8, SS 30, GPS (-121.7458, 48.0771, 17), D 221.21m", (48.0771, -121.7458)),
        (
            "HOME(149.0251,-20.2532) 2017.8.5 14:11:51\nGPS(149.0251,-20.2533,16)",
            (-20.2533, 149.0251),
        ),
        ("GPS(-58.4563,-34.7383,19) BAROMETER:20.1", (-34.7383, -58.4563)),
        ("GPS(2.16,41.42,16)", (41.42, 2.16)),
        ("GPS(-20.2533,149.0251,16)", (-20.2533, 149.0251)),
    ],
)
def test_every_layout_of_dji_is_read_the_right_way_round(
    body: str, expected: tuple[float, float]
) -> None:
    track = read_srt(srt(body, body, body)).track
    assert (track.lats_deg[0], track.lons_deg[0]) == expected
    assert list(track.times_s) == [0, 1, 2]


def test_subtitles_without_a_position_have_none() -> None:
    assert read_srt(srt("[iso : 100]", "HOME(1.0,2.0)")).track.lats_deg.size == 0
    assert read_srt("").track.lats_deg.size == 0


def test_dates_of_subtitles_are_the_camera_s_local_time() -> None:
    reading = read_srt(srt("2022-05-01 15:01:58,531,716 [latitude: 1.0] [longitude: 2.0]"))
    assert reading.track.utc_s[0] == pytest.approx(1_651_417_318.531)
    assert reading.is_local_clock
    assert math.isnan(read_srt(srt("2022-13-41 15:01:58 GPS(1.0,2.0,3)")).track.utc_s[0])


LOG = """$V02
{a},A,51.980000,-2.140000,4500,1250,1,2,3,NO20261001-181229-008817F.MP4,0,0,0
{b},A,51.980100,-2.140000,4500,1250,1,2,3,NO20261001-181229-008817F.MP4,0,0,0
{c},V,0.000000,0.000000,0,0,1,2,3,NO20261001-181329-008818F.MP4,0,0,0
garbage
{d},A,51.980200,-2.140000,4500,1250,1,2,3,NO20261001-181329-008818F.MP4,0,0,0
"""


def test_70mai_s_log_is_eight_hours_behind() -> None:
    at = 1_790_845_997
    text = LOG.format(a=at, b=at + 1, c=at + 60, d=at + 61)
    track = parse_card_log(text).read_all().track
    assert track.lats_deg.size == 4
    # 18:12:29 in the name is British summer time.
    assert track.utc_s[0] == 1_790_874_797
    assert track.speeds_mps[0] == 12.5
    assert list(track.modes) == [-1, -1, 0, -1]


def test_lines_that_name_a_video_belong_to_it_and_to_its_other_channels() -> None:
    text = LOG.format(a=1_790_845_997, b=1_790_845_998, c=1_790_846_057, d=1_790_846_058)
    for name in ("NO20261001-181229-008817F.MP4", "NO20261001-181229-008817B.mp4"):
        reading = parse_card_log(text).read_video(name)
        assert reading is not None
        assert list(reading.track.times_s) == [0, 1]
    assert parse_card_log(text).read_video("NO20991001-181229-008817F.MP4") is None
    assert parse_card_log(text).read_video("holiday.mp4") is None


def test_tesla_s_event_gives_its_numbers_as_text() -> None:
    reading = read_tesla_event('{"timestamp":"2024","est_lat":"37.4","est_lon":"-122.1"}')
    assert reading.is_single_point
    assert (reading.track.lats_deg[0], reading.track.lons_deg[0]) == (37.4, -122.1)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"est_lat":"north","est_lon":"1"}', "1"])
def test_another_event_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        read_tesla_event(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+32.0929+034.8620+028.516/", (32.0929, 34.862, 28.516)),
        ("+32.0929+034.8620/", (32.0929, 34.862, None)),
        ("-33.8688+151.2093", (-33.8688, 151.2093, None)),
        ("+3205.574+03451.72/", (32.0929, 34.862, None)),
        ("+320534.44+0345143.2-12/", (32.0929, 34.862, -12.0)),
        ("+00.5-000.5/", (0.5, -0.5, None)),
        ("+48.5773+007.7510+100CRSWGS_84/", (48.5773, 7.751, 100.0)),
    ],
)
def test_iso_6709_is_read_in_degrees_minutes_and_seconds(
    text: str, expected: tuple[float, float, float | None]
) -> None:
    lat_deg, lon_deg, alt_m = read_iso6709(text)
    assert (lat_deg, lon_deg) == pytest.approx(expected[:2], abs=1e-4)
    assert alt_m == expected[2]


@pytest.mark.parametrize(
    "text", ["", "here", "+91.0+000.0/", "+1+2+3+4/", "12.5 13.5", "+12345678+1/"]
)
def test_other_texts_are_no_position(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        read_iso6709(text)
    assert read_container(facts(location=text)) is None
