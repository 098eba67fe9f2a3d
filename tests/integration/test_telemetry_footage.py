"""The real files: every position that they carry, and none where there is none."""

from __future__ import annotations

import csv
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from geotag.footage.decode import open_video
from geotag.footage.discover import discover
from geotag.geo import distance_m
from geotag.telemetry.clock import VideoTime, repair_drive
from geotag.telemetry.fixes import summarise
from geotag.telemetry.readers import NEEDS_EXIFTOOL, SurveyReader
from geotag.telemetry.sidecars import TrackFileError, read_track_file
from geotag.types import FootageError

if TYPE_CHECKING:
    from geotag.telemetry.track import Survey

FOOTAGE = Path(__file__).resolve().parents[2].parent / "shared" / "footage"
TELEMETRY = FOOTAGE / "telemetry"
pytestmark = pytest.mark.skipif(not FOOTAGE.is_dir(), reason="the shared footage is not here")
needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")

KITTI = "kitti_2011_09_26_drive_0001/kitti_2011_09_26_drive_0001.mp4"


class Found(NamedTuple):
    survey: Survey
    time: VideoTime


def read_all() -> dict[str, Found]:
    """Survey and time of every video below `telemetry`, by name."""
    found: dict[str, Found] = {}
    with SurveyReader() as reader:
        for drive in discover(TELEMETRY).drives:
            surveys = {}
            for moment in drive.moments:
                for video in moment.videos:
                    try:
                        with open_video(video, decode_threads=1) as opened:
                            facts = opened.facts
                    except FootageError:
                        facts = None
                    surveys[video.name] = reader.survey(video, container=facts)
            times = repair_drive(drive, surveys)
            found |= {name: Found(survey, times[name]) for name, survey in surveys.items()}
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    return read_all()


@pytest.fixture(scope="module")
def truth() -> dict[str, tuple[float, float]]:
    with (FOOTAGE / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        return {
            row["file"].removeprefix("telemetry/"): (float(row["lat"]), float(row["lon"]))
            for row in csv.DictReader(stream)
            if row["lat"]
        }


def utc_s(text: str) -> float:
    return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=timezone.utc).timestamp()


@needs_exiftool
@pytest.mark.parametrize(
    ("name", "source", "utc"),
    [
        ("gopro_hero5_karma_gpmf.mp4", "exiftool: GoPro", "2017-04-17T19:27:57.526"),
        ("gopro_hero6_gpmf_gps5_2s.mp4", "exiftool: GoPro", "2018-01-24T19:27:58.674"),
        ("70mai_NO20191130-120156-000121.MP4", "exiftool: 70mai", "2019-11-30T11:01:56"),
    ],
)
def test_positions_in_the_file_are_within_500_m_and_a_second(
    found: dict[str, Found],
    truth: dict[str, tuple[float, float]],
    name: str,
    source: str,
    utc: str,
) -> None:
    survey, time = found[name]
    assert survey.source == source
    assert survey.median_deg is not None
    assert distance_m(survey.median_deg, truth[name]) < 500
    assert time.start_utc is not None
    assert abs(utc_s(time.start_utc) - utc_s(utc)) <= 1


@pytest.mark.parametrize(
    ("name", "of", "utc"),
    [
        ("iphone6_quicktime_iso6709.mov", "iphone6_quicktime_iso6709.mov", "2019-07-24T08:25:57"),
        (KITTI, KITTI, "2011-09-26T11:02:25.964"),
        ("mapillary_pair/sample_5s.mp4", "mapillary_pair/sample_5s.gpx", "2025-03-14T07:00:00"),
    ],
)
def test_positions_beside_the_file_need_no_exiftool(
    truth: dict[str, tuple[float, float]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    of: str,
    utc: str,
) -> None:
    monkeypatch.delenv("GEOTAG_EXIFTOOL", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    survey, time = read_all()[name]
    assert survey.median_deg is not None
    assert distance_m(survey.median_deg, truth[of]) < 500
    assert time.start_utc is not None
    assert abs(utc_s(time.start_utc) - utc_s(utc)) <= 1
    assert NEEDS_EXIFTOOL not in survey.notes


@needs_exiftool
def test_a_receiver_without_a_fix_gives_no_position(found: dict[str, Found]) -> None:
    survey = found["gopro_hero8_gpmf_nofix_2s.mp4"].survey
    assert survey.quality is None
    assert survey.median_deg is None
    assert survey.rejected == (("mode", 36),)


def test_without_exiftool_gopro_is_read_and_the_others_say_what_they_need(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, truth: dict[str, tuple[float, float]]
) -> None:
    pytest.importorskip("mapillary_tools")
    monkeypatch.delenv("GEOTAG_EXIFTOOL", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = read_all()
    survey, time = found["gopro_hero6_gpmf_gps5_2s.mp4"]
    assert survey.source == "mapillary_tools: GoPro"
    assert survey.median_deg is not None
    assert distance_m(survey.median_deg, truth["gopro_hero6_gpmf_gps5_2s.mp4"]) < 500
    assert abs(utc_s(str(time.start_utc)) - utc_s("2018-01-24T19:27:58.674")) <= 1
    assert found["gopro_hero8_gpmf_nofix_2s.mp4"].survey.rejected == (("mode", 36),)
    for name in ("gopro_hero5_karma_gpmf.mp4", "70mai_NO20191130-120156-000121.MP4"):
        assert found[name].survey.notes == (NEEDS_EXIFTOOL,)


@needs_exiftool
def test_the_same_files_give_the_same_surveys(found: dict[str, Found]) -> None:
    assert read_all() == found


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("dji_srt/dji_mavic_air2.srt", 25),
        ("dji_srt/dji_mavic_mini.srt", 117),
        ("dji_srt/dji_old_home_gps_format.srt", 468),
        ("garmin_virb_360_20180111.fit", 2700),
        ("mapillary_pair/sample_5s.gpx", 49),
    ],
)
def test_files_without_a_video_are_read(
    truth: dict[str, tuple[float, float]], name: str, points: int
) -> None:
    if name.endswith(".fit"):
        pytest.importorskip("fitdecode")
    survey = summarise(read_track_file(TELEMETRY / name))
    assert survey.points == points
    assert survey.start_deg is not None
    assert distance_m(survey.start_deg, truth[name]) < 50


def test_one_lone_sentence_is_read_and_proves_no_position(
    truth: dict[str, tuple[float, float]],
) -> None:
    reading = read_track_file(TELEMETRY / "ublox_nmea4.nmea")
    place = (float(reading.track.lats_deg[0]), float(reading.track.lons_deg[0]))
    assert distance_m(place, truth["ublox_nmea4.nmea"]) < 50
    assert summarise(reading).rejected == (("alone", 1),)


def test_a_subtitle_file_that_is_cut_off_gives_what_it_holds() -> None:
    survey = summarise(read_track_file(FOOTAGE / "bad" / "dji_srt_incomplete.srt"))
    assert survey.quality == "good"


@pytest.mark.parametrize(
    "name", ["telemetry/dji_srt/dji_mavic_air_no_gps.srt", "bad/dji_srt_empty.srt"]
)
def test_files_without_a_position_are_refused(name: str) -> None:
    with pytest.raises(TrackFileError):
        read_track_file(FOOTAGE / name)


@needs_exiftool
def test_a_picture_under_a_video_s_name_has_no_position() -> None:
    with SurveyReader() as reader:
        for drive in discover(FOOTAGE / "bad").drives:
            for moment in drive.moments:
                for video in moment.videos:
                    survey = reader.survey(video, container=None)
                    assert (survey.quality is None) == (video.name != "mp4_named.avi"), video.name
