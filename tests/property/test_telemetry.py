"""Whatever a file holds, its readers end, and what they keep is a place on Earth."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geotag.geo import distance_m
from geotag.telemetry.clock import Clocks, repair_clocks
from geotag.telemetry.fixes import MOST_SPEED_MPS, filter_fixes, summarise
from geotag.telemetry.points import read_iso6709
from geotag.telemetry.sidecars import TrackFileError, read_track_file
from geotag.telemetry.tesla import read_frames
from geotag.telemetry.timed import read_single, read_timed
from geotag.telemetry.track import Fix, Survey, survey_from_json, survey_to_json, track_of
from tests.unit.telemetry.made import gga, gpx, reading, rmc, tesla_message, way

numbers = st.one_of(st.floats(-400, 400), st.floats(), st.just(math.nan))
fixes = st.builds(
    Fix,
    numbers,
    numbers,
    time_s=st.one_of(st.floats(0, 1e5), st.floats()),
    utc_s=st.one_of(st.floats(1.6e9, 1.6e9 + 1e5), st.floats()),
    alt_m=numbers,
    speed_mps=numbers,
    mode=st.integers(-1, 3),
    dop=numbers,
)
texts = st.one_of(
    st.text(max_size=300),
    st.lists(
        st.sampled_from(
            (
                "$GPRMC,",
                "$GPGGA,,,,,,1",
                rmc(way(1)[0]),
                gga(way(1)[0]),
                "[99999999999999]$GPRMC,1,A,91,N,999,W,x,,999999",
                "00:00:01,000 --> 00:00:02,000\nGPS(999,1,1)",
                "99:99:99,999 --> [latitude: -91] [longitude: 2]",
                '<gpx><trk><trkseg><trkpt lat="1e999" lon="nan"/>',
                "1790845997,A,51.9,-2.1,0,0,",
                "99999999999,V,..,..,,,",
                '{"est_lat":"nan","est_lon":"1e400"}',
                "\x00\ufeff\r",
            )
        ),
        max_size=12,
    ).map("\n".join),
)


@given(st.lists(fixes, max_size=60))
def test_what_the_filter_keeps_is_possible_and_counted(found: list[Fix]) -> None:
    kept, rejected = filter_fixes(track_of(found))
    assert kept.lats_deg.size + sum(count for _, count in rejected) == len(found)
    assert kept.lats_deg.size == 0 or kept.lats_deg.size >= 3
    assert (np.abs(kept.lats_deg) <= 90).all()
    assert (np.abs(kept.lons_deg) <= 180).all()
    assert not ((kept.modes == 0) | (kept.modes == 1)).any()


@given(st.lists(fixes, max_size=60), st.booleans())
def test_a_survey_is_the_same_every_time_and_survives_its_text(
    found: list[Fix], is_single: bool
) -> None:
    survey = summarise(reading(found, is_single_point=is_single))
    assert survey == summarise(reading(found, is_single_point=is_single))
    assert survey_from_json(survey_to_json(survey)) == survey
    assert (survey.quality is None) == (survey.median_deg is None)
    if survey.median_deg is not None:
        assert abs(survey.median_deg[0]) <= 90
        assert abs(survey.median_deg[1]) <= 180
        assert 1 <= len(survey.line) <= 200


@given(
    st.lists(st.tuples(st.floats(-60, 60), st.floats(-60, 60)), min_size=3, max_size=80),
    st.floats(-85, 85),
    st.floats(-180, 180),
)
def test_no_drive_slower_than_the_limit_loses_a_fix(
    steps: list[tuple[float, float]], lat: float, lon: float
) -> None:
    north_m = np.cumsum([step[0] / 1.5 for step in steps])
    east_m = np.cumsum([step[1] / 1.5 for step in steps])
    drive = [
        Fix(
            lat + north / 111_195,
            (lon + east / (111_195 * math.cos(math.radians(lat))) + 180) % 360 - 180,
            time_s=float(number),
        )
        for number, (north, east) in enumerate(zip(north_m, east_m, strict=True))
    ]
    if any(abs(fix.lat_deg) < 0.001 and abs(fix.lon_deg) < 0.001 for fix in drive):
        return
    kept, rejected = filter_fixes(track_of(drive))
    assert rejected == ()
    gaps_m = [
        distance_m((a_lat, a_lon), (b_lat, b_lon))
        for a_lat, a_lon, b_lat, b_lon in zip(
            kept.lats_deg, kept.lons_deg, kept.lats_deg[1:], kept.lons_deg[1:], strict=False
        )
    ]
    assert max(gaps_m) <= MOST_SPEED_MPS * 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(texts | st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = read_track_file(path)
    except TrackFileError:
        return
    survey_to_json(summarise(found))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.sampled_from(("gpx", "nmea")),
    st.integers(0, 5000),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=5),
)
def test_a_damaged_file_is_read_or_refused(
    tmp_path: Path, kind: str, size: int, flips: list[tuple[int, int]]
) -> None:
    text = gpx(way(30)) if kind == "gpx" else "\n".join(map(rmc, way(30)))
    content = bytearray(text.encode()[: max(size, 1)])
    for place, value in flips:
        content[place % len(content)] = value
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    try:
        found = read_track_file(path)
    except TrackFileError:
        return
    survey_to_json(summarise(found))


@given(st.binary(max_size=200), st.binary(max_size=40), st.integers(0, 60))
def test_any_message_of_a_frame_is_read_or_passed_over(noise: bytes, tail: bytes, cut: int) -> None:
    whole = tesla_message(1.0, 2.0)
    frames = [(0.0, noise), (1.0, b"\x42\x69" + noise), (2.0, whole[:cut] + tail)]
    found = read_frames(frames)
    if found is not None:
        summarise(found)


@given(
    st.dictionaries(
        st.sampled_from(
            tuple(
                f"{family}:{document}:{tag}"
                for family in ("GoPro:Track3", "QuickTime", "Composite")
                for document in ("Doc1", "Doc1-1", "Doc2:Copy1", "Main", "Doc99999999999")
                for tag in (
                    "GPSLatitude",
                    "GPSLongitude",
                    "GPSDateTime",
                    "SampleTime",
                    "CreateDate",
                )
            )
        ),
        st.one_of(
            st.floats(),
            st.integers(),
            st.text(max_size=20),
            st.none(),
            st.lists(st.integers(), max_size=2),
            st.sampled_from(
                ("2024:13:41 25:61:61Z", "0000:00:00 00:00:00", "2024:01:02 03:04:05Z")
            ),
        ),
        max_size=20,
    )
)
def test_any_answer_of_exiftool_is_read_or_passed_over(tags: dict[str, object]) -> None:
    for found in (read_timed(tags, None), read_single(tags)):
        if found is not None:
            survey_to_json(summarise(found))


@given(st.text(max_size=40) | st.from_regex(r"[+-][0-9.]{1,9}[+-][0-9.]{1,9}/", fullmatch=True))
def test_any_location_is_a_place_or_refused(text: str) -> None:
    try:
        lat_deg, lon_deg, _ = read_iso6709(text)
    except ValueError:
        return
    assert abs(lat_deg) <= 90
    assert abs(lon_deg) <= 180


times = st.one_of(st.none(), st.floats(1.2e9, 2e9), st.floats())
clocks = st.builds(
    Clocks,
    name_local=st.none() | st.datetimes(datetime(1971, 1, 1), datetime(2099, 1, 1)),
    telemetry_utc_s=times,
    is_camera_clock=st.booleans(),
    is_local_clock=st.booleans(),
    container_utc_s=times,
    zone=st.sampled_from((None, "Europe/Berlin", "Asia/Kathmandu", "Pacific/Apia", "Etc/GMT+11")),
)


@given(st.lists(clocks, max_size=8))
def test_every_time_names_its_source_and_no_utc_comes_from_nothing(videos: list[Clocks]) -> None:
    repaired = repair_clocks(videos)
    assert len(repaired) == len(videos)
    for given_clocks, time in zip(videos, repaired, strict=True):
        assert time.start_utc is None or time.time_source
        if given_clocks.telemetry_utc_s is given_clocks.container_utc_s is None:
            assert time.start_utc is None or given_clocks.name_local is not None


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)),
    st.sampled_from(("Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns")),
    st.integers(-48, 56),
)
def test_whatever_whole_quarters_the_records_are_off_the_name_puts_them_right(
    local: datetime, zone: str, quarters: int
) -> None:
    local = local.replace(microsecond=0)
    (plain,) = repair_clocks([Clocks(name_local=local, zone=zone)])
    assert plain.start_utc is not None
    records_s = datetime.fromisoformat(plain.start_utc[:-1] + "+00:00").timestamp()
    (moved,) = repair_clocks(
        [
            Clocks(
                name_local=local,
                telemetry_utc_s=records_s + quarters * 900,
                is_camera_clock=True,
                zone=zone,
            )
        ]
    )
    assert moved.start_utc == plain.start_utc


def test_the_empty_survey_survives_its_text() -> None:
    assert survey_from_json(survey_to_json(Survey())) == Survey()
