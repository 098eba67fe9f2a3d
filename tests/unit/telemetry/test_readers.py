from __future__ import annotations

import importlib.util
import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from geotag.errors import ConfigError
from geotag.geo import distance_m
from geotag.telemetry import native
from geotag.telemetry.readers import NEEDS_EXIFTOOL, SurveyReader, reader_versions
from geotag.telemetry.sidecars import TrackFileError, read_track_file
from geotag.telemetry.track import Fix, Survey
from geotag.types import Video, VideoFacts
from tests.unit.telemetry.made import (
    blackvue,
    box,
    camm,
    facts,
    gga,
    gpx,
    novatek,
    reading,
    rmc,
    tesla_message,
    text_track,
    video,
    way,
)

needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
needs_mapillary = pytest.mark.skipif(
    importlib.util.find_spec("mapillary_tools") is None, reason="needs mapillary_tools"
)
UTC_S = 1_700_000_000.0


def survey(
    video: Video,
    *,
    container: VideoFacts | None = None,
    user_data: tuple[tuple[float, bytes], ...] = (),
    tracks: tuple[Path, ...] = (),
) -> Survey:
    with SurveyReader(tracks) as reader:
        return reader.survey(video, container=container or facts(), user_data=user_data)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "20231114_221320_NF.mp4"
    path.write_bytes(box("ftyp", b"isom\0\0\2\0isom") + box("mdat", bytes(100)))
    return path


@pytest.fixture
def no_exiftool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.delenv("GEOTAG_EXIFTOOL", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


# Sidecars


def test_a_gpx_beside_a_video_begins_with_it(clip: Path) -> None:
    side = clip.with_suffix(".gpx")
    side.write_text(gpx(way(30)))
    found = survey(video(clip, sidecars=[side]))
    assert found.source == f"GPX {side.name}"
    assert (found.points, found.quality) == (30, "good")
    assert found.start_utc_s == UTC_S
    assert not found.is_camera_clock


def test_of_a_longer_gpx_a_video_has_its_part_by_time(clip: Path) -> None:
    side = clip.with_suffix(".gpx")
    side.write_text(gpx(way(3600)))
    found = survey(
        video(clip, sidecars=[side]),
        container=facts(duration_s=60, created_utc_s=UTC_S + 1800),
    )
    assert found.start_utc_s is None  # the container's clock, which must not come back as gps
    assert found.points == 71
    assert distance_m(found.median_deg or (0, 0), (52.0 + 1830 * 2e-4, 21 + 1830 * 2e-4)) < 100


def test_of_a_longer_gpx_a_video_without_a_clock_has_the_beginning(clip: Path) -> None:
    side = clip.with_suffix(".gpx")
    side.write_text(gpx(way(3600)))
    found = survey(video(clip, sidecars=[side]), container=facts(duration_s=60))
    assert found.points == 66
    assert found.notes == ("3534 fixes outside the video were left out",)


def test_ddpai_s_gpx_that_holds_nmea_is_read(clip: Path) -> None:
    side = clip.with_suffix(".gpx")
    side.write_text("\r\n".join(map(rmc, way(30))))
    assert survey(video(clip, sidecars=[side])).source == f"NMEA {side.name}"


def test_blackvue_s_gps_is_read_with_the_camera_s_stamps(clip: Path) -> None:
    side = clip.with_suffix(".gps")
    side.write_text("".join(rmc(fix, stamp_ms=int(fix.utc_s * 1000)) + "\n\n" for fix in way(30)))
    found = survey(video(clip, sidecars=[side]))
    assert (found.points, found.start_utc_s) == (30, UTC_S)


def test_the_second_sidecar_is_asked_where_the_first_is_useless(clip: Path) -> None:
    broken, void = clip.with_suffix(".gpx"), clip.with_suffix(".nmea")
    good = clip.with_suffix(".srt")
    broken.write_bytes(b"\x00\xff\x00" * 50)
    void.write_text("\n".join(rmc(fix, status="V") for fix in way(10)))
    good.write_text(
        "".join(
            f"{n}\n00:00:{n:02d},000 --> 00:00:{n:02d},900\n[latitude: {fix.lat_deg}] "
            f"[longitude: {fix.lon_deg}]\n\n"
            for n, fix in enumerate(way(20))
        )
    )
    found = survey(video(clip, sidecars=[broken, void, good]))
    assert found.source == f"DJI subtitles {good.name}"
    assert any("neither GPX nor NMEA" in note for note in found.notes)
    assert f"NMEA {void.name}: no usable fix (mode 10)" in found.notes


def test_two_sidecars_that_disagree_are_named(clip: Path) -> None:
    one, two = clip.with_suffix(".gpx"), clip.with_suffix(".nmea")
    one.write_text(gpx(way(30)))
    two.write_text("\n".join(map(rmc, way(30, start=(52.1, 21.0)))))
    found = survey(video(clip, sidecars=[one, two]))
    assert found.source == f"GPX {one.name}"
    assert found.notes == (
        f"two sidecars disagree: GPX {one.name} and NMEA {two.name}, 11.1 km apart",
    )


def test_a_sidecar_that_is_gone_is_a_note(clip: Path) -> None:
    found = survey(video(clip, sidecars=[clip.with_suffix(".gpx")]))
    assert found.quality is None
    assert any("no such file" in note for note in found.notes)


def test_70mai_s_card_log_gives_each_video_its_part(clip: Path) -> None:
    log = clip.with_name("GPSData000001.txt")
    raw = int(UTC_S) - 8 * 3600
    lines = "".join(
        f"{raw + n},A,{fix.lat_deg},{fix.lon_deg},0,1200,0,0,0,0,0,0,0\n"
        for n, fix in enumerate(way(600))
    )
    log.write_text("$V02\n" + lines)
    # 22:18:20 UTC is 23:18:20 in Warsaw.
    found = survey(
        video(clip, sidecars=[log], vendor="70mai", start_local=datetime(2023, 11, 14, 23, 18, 20)),
        container=facts(duration_s=60),
    )
    assert found.source == f"70mai card log {log.name}"
    assert found.points == 71
    assert distance_m(found.start_deg or (0, 0), (52.0 + 295 * 2e-4, 21 + 295 * 2e-4)) < 1
    elsewhere = survey(
        video(clip, sidecars=[log], vendor="70mai", start_local=datetime(2023, 11, 20, 12)),
        container=facts(duration_s=60),
    )
    assert elsewhere.quality is None
    assert any("does not cover" in note for note in elsewhere.notes)


def test_tesla_s_event_counts_after_what_the_frames_say(clip: Path) -> None:
    event = clip.with_name("event.json")
    event.write_text('{"est_lat": "37.0", "est_lon": "-122.0"}')
    car = video(clip, sidecars=[event], vendor="Tesla")
    alone = survey(car)
    assert (alone.quality, alone.median_deg) == ("single_point", (37.0, -122.0))
    frames = tuple((float(n), tesla_message(38.0 + n * 1e-4, -121.0)) for n in range(5))
    assert survey(car, user_data=frames).source == "Tesla: in the frames"


# A track of a receiver of its own


def test_a_track_is_matched_by_the_file_name_in_the_zone_of_the_track(
    clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "watch.gpx"
    path.write_text(gpx(way(3600)))
    local = datetime(2023, 11, 14, 23, 33, 20)  # Warsaw: 20 minutes after the track began
    found = survey(video(clip, start_local=local), tracks=(path,))
    assert found.source == "GPX watch.gpx"
    assert found.start_utc_s is None
    assert distance_m(found.start_deg or (0, 0), (52.0 + 1195 * 2e-4, 21 + 1195 * 2e-4)) < 1
    assert "matched by file name, zone Europe/Warsaw" in found.notes


def test_a_track_in_local_time_is_matched_by_its_zone(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "drone.srt"
    path.write_text(
        "".join(
            f"{n}\n00:{n // 60:02d}:{n % 60:02d},000 --> 00:59:59,900\n"
            f"2023-11-14 12:{n // 60:02d}:{n % 60:02d},000\n"
            f"[latitude: {fix.lat_deg:.6f}] [longitude: {fix.lon_deg:.6f}]\n\n"
            for n, fix in enumerate(way(1200))
        )
    )
    found = survey(video(clip, start_local=datetime(2023, 11, 14, 12, 10)), tracks=(path,))
    assert distance_m(found.start_deg or (0, 0), (52.0 + 595 * 2e-4, 21 + 595 * 2e-4)) < 1


def test_a_container_in_local_time_is_tried_last(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "watch.gpx"
    path.write_text(gpx(way(600)))
    found = survey(video(clip), container=facts(created_utc_s=UTC_S + 3600 + 300), tracks=(path,))
    assert "matched by container, taken as local time in Europe/Warsaw" in found.notes
    assert found.start_utc_s == UTC_S + 300
    assert found.is_camera_clock


def test_a_track_that_does_not_cover_the_video_says_so(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "watch.gpx"
    path.write_text(gpx(way(60)))
    found = survey(video(clip, start_local=datetime(2020, 1, 1)), tracks=(path,))
    assert found.quality is None
    assert "GPX watch.gpx: does not cover the video's time" in found.notes


def test_a_video_without_any_time_is_not_matched(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "watch.gpx"
    path.write_text(gpx(way(60)))
    found = survey(video(clip), tracks=(path,))
    assert found.quality is None
    assert "GPX watch.gpx: the video has no time" in found.notes


def test_a_track_named_like_the_video_is_its_own(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tracks"
    folder.mkdir()
    path = folder / f"{clip.stem}.gpx"
    path.write_text(gpx(way(60)))
    assert survey(video(clip), tracks=(path,)).points == 60


def test_a_track_that_cannot_be_read_stops_the_run(tmp_path: Path) -> None:
    path = tmp_path / "notes.gpx"
    path.write_text("nothing here")
    with pytest.raises(TrackFileError, match=r"notes\.gpx"):
        SurveyReader((path,))
    with pytest.raises(ConfigError, match="no such file"):
        read_track_file(tmp_path / "gone.gpx")


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\x0e\x10\x00\x00\x00\x00\x00\x00.FITxx"])
def test_a_file_of_nothing_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.fit"
    path.write_bytes(content)
    with pytest.raises(TrackFileError):
        read_track_file(path)


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrackFileError, match="it is a folder; give a file"):
        read_track_file(tmp_path)


# In the file itself


def near(found: Survey, fixes: list[Fix]) -> bool:
    middle = fixes[len(fixes) // 2]
    return distance_m(found.median_deg or (0, 0), (middle.lat_deg, middle.lon_deg)) < 50


@needs_exiftool
@pytest.mark.parametrize("start", [(52.0, 21.0), (-33.9, -70.6)])
def test_novatek_s_blocks_are_read(clip: Path, start: tuple[float, float]) -> None:
    fixes = way(20, start=start)
    clip.write_bytes(novatek(fixes))
    found = survey(video(clip, vendor="VIOFO"))
    assert found.source == "exiftool: VIOFO"
    assert (found.points, found.quality, found.start_utc_s) == (20, "good", UTC_S)
    assert found.is_camera_clock
    assert near(found, fixes)


@needs_exiftool
def test_a_recording_that_lost_its_index_has_its_positions_still(clip: Path) -> None:
    fixes = way(20)
    clip.write_bytes(novatek(fixes, has_index=False))
    with SurveyReader() as reader:
        found = reader.survey(video(clip), container=None)
    assert (found.points, found.start_utc_s) == (20, UTC_S)
    assert near(found, fixes)


@needs_exiftool
def test_sentences_in_a_subtitle_track_are_read_with_the_time_of_the_satellites(clip: Path) -> None:
    fixes = way(20)
    clip.write_bytes(text_track([f"{rmc(fix)}\r\n{gga(fix)}\r\n" for fix in fixes]))
    found = survey(video(clip, vendor="Thinkware"))
    assert (found.source, found.points) == ("exiftool: Thinkware", 20)
    assert found.start_utc_s == UTC_S
    assert not found.is_camera_clock
    assert near(found, fixes)


@needs_exiftool
def test_camm_and_blackvue_are_read_by_exiftool(clip: Path) -> None:
    fixes = way(20)
    clip.write_bytes(camm(fixes))
    assert survey(video(clip)).source == "exiftool: CAMM"
    clip.write_bytes(
        blackvue("\r\n".join(rmc(fix, stamp_ms=int(fix.utc_s * 1000)) for fix in fixes))
    )
    found = survey(video(clip, vendor="BlackVue"))
    assert (found.source, found.start_utc_s) == ("exiftool: BlackVue", UTC_S)
    assert near(found, fixes)


@needs_exiftool
@pytest.mark.parametrize("size", [0, 7, 8, 100, 40_000, 100_000])
def test_a_cut_off_file_is_no_crash(clip: Path, size: int) -> None:
    clip.write_bytes(novatek(way(20))[:size])
    with SurveyReader() as reader:
        assert reader.survey(video(clip, vendor="VIOFO"), container=None).quality in (None, "fair")


def test_a_container_s_position_is_used_last(clip: Path) -> None:
    found = survey(video(clip), container=facts(location="+32.0929+034.8620+028.516/"))
    assert (found.quality, found.median_deg) == ("single_point", (32.0929, 34.862))


def test_a_position_is_not_believed_where_the_receiver_never_had_one(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    void = reading([fix._replace(mode=0) for fix in way(20)])
    monkeypatch.setattr(SurveyReader, "_from_file", lambda *_: (void, None))
    found = survey(video(clip), container=facts(location="+32.0929+034.8620/"))
    assert found.quality is None
    assert found.rejected == (("mode", 20),)


# Without ExifTool


@needs_mapillary
def test_camm_and_blackvue_are_read_without_exiftool(clip: Path, no_exiftool: None) -> None:
    fixes = way(20)
    clip.write_bytes(camm(fixes))
    found = survey(video(clip), container=facts(created_utc_s=UTC_S))
    assert (found.source, found.points, found.start_utc_s) == ("mapillary_tools: CAMM", 20, UTC_S)
    assert near(found, fixes)
    stamped = (rmc(fix, stamp_ms=int(fix.utc_s * 1000) + 7_200_000) for fix in fixes)
    clip.write_bytes(blackvue("\r\n".join(stamped)))
    found = survey(video(clip))
    assert (found.source, found.start_utc_s) == ("mapillary_tools: BlackVue", UTC_S)
    assert near(found, fixes)
    assert found.notes == ()


def test_every_other_file_says_that_it_needs_exiftool(clip: Path, no_exiftool: None) -> None:
    clip.write_bytes(novatek(way(20)))
    found = survey(video(clip, vendor="VIOFO"))
    assert found.quality is None
    assert found.notes == (NEEDS_EXIFTOOL,)
    assert reader_versions()[0] == "exiftool None"


def test_a_sidecar_needs_no_exiftool(clip: Path, no_exiftool: None) -> None:
    side = clip.with_suffix(".gpx")
    side.write_text(gpx(way(30)))
    assert survey(video(clip, sidecars=[side])).notes == ()


@needs_mapillary
def test_a_file_that_its_parser_cannot_read_is_a_note(clip: Path, no_exiftool: None) -> None:
    clip.write_bytes(box("moov", box("trak", b"gpmd" * 9)))
    found = survey(video(clip))
    assert "mapillary_tools: mapillary_tools cannot read it" in found.notes


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", None),
        (b"short", None),
        (bytes(64), None),
        (b"\xff" * 64, None),
        (box("free", b"nothing") + box("moov", b"avc1"), None),
        (box("moov", b"xx gpmd xx"), "gpmd"),
        (box("mdat", b"gpmd") + box("free", box("gps ", b"")), "gps "),
    ],
)
def test_the_kind_is_told_by_boxes(tmp_path: Path, content: bytes, kind: str | None) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert native.find_kind(path) == kind


def test_a_name_of_any_bytes_is_read_without_exiftool(tmp_path: Path, no_exiftool: None) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/-\xff\n.mp4"))
    path.write_bytes(camm(way(20)))
    assert survey(video(path)).points == (20 if native.is_installed() else 0)
