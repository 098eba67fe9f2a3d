"""Whole scans of small cards as cameras write them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from geotag.cli import main
from tests.fakes import COLOURS, open_fake_engine, write_colour_video
from tests.media import drop_moov
from tests.rfc7946 import check_collection
from tests.unit.footage.test_user_data import bare, remux, sei
from tests.unit.telemetry.made import tesla_message

if TYPE_CHECKING:
    from engines.bundle import Bundle

MUNICH = (48.1372, 11.5756)
NMEA = "".join(
    f"$GPRMC,0715{second:02}.00,A,4808.{2300 + 4 * second},N,01134.5360,E,20.0,0.0,140326,,,A\r\n"
    for second in range(8)
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def scan(*arguments: object) -> tuple[int, dict[str, dict[str, object]]]:
    code = main(["scan", *map(str, arguments)], open_engine=open_fake_engine)
    features = check_collection(Path("tags.geojson").read_text(encoding="utf-8"))
    return code, {tag["path"]: tag for tag in (feature["properties"] for feature in features)}


def with_tesla_messages(path: Path) -> Path:
    """Put a position into every frame of a bare H.264 file: a car that drives north."""
    units = [unit for unit in path.read_bytes().split(b"\x00\x00\x01") if unit.strip(b"\x00")]
    written, frame = bytearray(), 0
    for unit in units:
        if unit[0] & 0x1F in (1, 5):
            written += sei(bytes(16) + tesla_message(MUNICH[0] + frame * 4e-6, MUNICH[1]))
            frame += 1
        written += b"\x00\x00\x00\x01" + unit.rstrip(b"\x00")
    path.write_bytes(written)
    return path


def test_a_tesla_tells_its_place_in_its_frames_and_its_cameras_share_it(
    tmp_path: Path, bundle: Bundle
) -> None:
    card = tmp_path / "TeslaCam" / "RecentClips"
    card.mkdir(parents=True)
    clip = remux(with_tesla_messages(bare(tmp_path)), tmp_path / "clip.mp4")
    for lens in ("front", "left_repeater"):
        shutil.copy(clip, card / f"2026-03-14_08-15-00-{lens}.mp4")
    for arguments in ((), ("--bundle", bundle.path, "--fresh")):
        code, tags = scan(tmp_path / "TeslaCam", *arguments)
        assert code == 0
        front, side = (
            tags[f"RecentClips/2026-03-14_08-15-00-{lens}.mp4"]
            for lens in ("front", "left_repeater")
        )
        assert (front["vendor"], front["channel"], side["channel"]) == ("Tesla", "front", "side")
        assert (front["location_source"], front["city"]) == ("gps", "Munich")
        assert front["gps_lat"] == pytest.approx(MUNICH[0], abs=1e-3)
        assert (side["location_source"], side["location_from"]) == ("gps", front["path"])
        assert front["start_utc"] == "2026-03-14T07:15:00Z"


def test_the_small_copy_is_looked_at_where_that_is_wanted(tmp_path: Path, bundle: Bundle) -> None:
    card = tmp_path / "DCIM" / "100GOPRO"
    write_colour_video(card / "GX010001.MP4", COLOURS["Paris"])
    write_colour_video(card / "small.mp4", COLOURS["Berlin"]).rename(card / "GL010001.LRV")
    _, plain = scan(tmp_path / "DCIM", "-b", bundle.path)
    assert [(path, tag["city"]) for path, tag in plain.items()] == [
        ("100GOPRO/GX010001.MP4", "Paris")
    ]
    _, small = scan(tmp_path / "DCIM", "-b", bundle.path, "--proxies")
    assert [tag["city"] for tag in small.values()] == ["Berlin"]


def test_gps_of_a_mio_counts_for_both_its_cameras(tmp_path: Path) -> None:
    for channel in "FR":
        write_colour_video(tmp_path / "card" / "Normal" / f"FILE260314-081500{channel}.MP4")
    (tmp_path / "card" / "Normal" / "FILE260314-081500F.NMEA").write_text(NMEA, encoding="ascii")
    code, tags = scan(tmp_path / "card", "--tracks", "ways.geojson")
    assert code == 0
    assert {tag["city"] for tag in tags.values()} == {"Munich"}
    assert {tag["drive_id"] for tag in tags.values()} == {
        tags["Normal/FILE260314-081500F.MP4"]["drive_id"]
    }
    assert tags["Normal/FILE260314-081500F.MP4"]["start_utc"] == "2026-03-14T07:15:00Z"
    assert len(json.loads(Path("ways.geojson").read_text(encoding="utf-8"))["features"]) == 1


def test_a_track_of_a_receiver_of_its_own_is_matched_by_time(tmp_path: Path) -> None:
    write_colour_video(tmp_path / "card" / "FILE260314-081500F.MP4")
    (tmp_path / "walk.nmea").write_text(NMEA, encoding="ascii")
    code, tags = scan(tmp_path / "card", "--gpx", tmp_path / "walk.nmea")
    (tag,) = tags.values()
    assert (code, tag["location_source"], tag["city"]) == (0, "gps", "Munich")


def test_a_recording_cut_off_by_a_power_cut_keeps_its_place(tmp_path: Path) -> None:
    path = drop_moov(write_colour_video(tmp_path / "card" / "FILE260314-081500F.MP4"))
    path.with_suffix(".NMEA").write_text(NMEA, encoding="ascii")
    code, tags = scan(tmp_path / "card")
    (tag,) = tags.values()
    assert (code, tag["status"], tag["city"]) == (0, "partial", "Munich")
    assert str(tag["error"]).startswith("damaged: the index (moov) is missing")


def test_that_exiftool_is_missing_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for number in range(3):
        write_colour_video(tmp_path / "card" / f"{number}.mp4")
    assert scan(tmp_path / "card")[0] == 3
    error = capsys.readouterr().err
    assert error.count("ExifTool is not installed: 3 videos") == 1
    assert error.count("ExifTool") == 1
