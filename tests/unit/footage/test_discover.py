import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from geotag.errors import ConfigError
from geotag.footage import discover, files
from geotag.footage.discover import find_videos
from geotag.footage.probe import check_file
from geotag.footage.walk import walk
from geotag.types import FootageError

MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(64)
ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0


def put(path: Path, content: bytes = MP4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(root: Path) -> list[str]:
    return [video.name for video in find_videos(root)]


def test_videos_are_found_in_every_folder_by_content_or_by_name(tmp_path: Path) -> None:
    put(tmp_path / "a.mp4")
    put(tmp_path / "deep" / "er" / "no-extension")
    put(tmp_path / "deep" / "broken.MOV", b"hello")
    put(tmp_path / "deep" / "empty.mkv", b"")
    put(tmp_path / "track.gpx", b"<gpx/>")
    put(tmp_path / "clip.THM", b"\xff\xd8\xff\xe0" + bytes(32))
    assert names(tmp_path) == ["a.mp4", "deep/broken.MOV", "deep/empty.mkv", "deep/er/no-extension"]


def test_hidden_and_system_places_are_left_out(tmp_path: Path) -> None:
    for name in (
        "._clip.mp4",
        ".clip.mp4.part",
        ".Trash-1000/clip.mp4",
        ".thumbnails/clip.mp4",
        "System Volume Information/clip.mp4",
        "$RECYCLE.BIN/clip.mp4",
        "@eaDir/clip.mp4",
    ):
        put(tmp_path / name)
    put(tmp_path / "clip.mp4")
    assert names(tmp_path) == ["clip.mp4"]


def test_a_hidden_folder_is_scanned_when_it_is_asked_for(tmp_path: Path) -> None:
    put(tmp_path / ".cards" / "clip.mp4")
    assert names(tmp_path / ".cards") == ["clip.mp4"]


def test_order_ignores_case_and_keeps_folders_together(tmp_path: Path) -> None:
    for name in ("b.mp4", "A.mp4", "a b/z.mp4", "a/y.mp4", "B/x.mp4", "a.mp4"):
        put(tmp_path / name)
    assert names(tmp_path) == ["a/y.mp4", "a b/z.mp4", "A.mp4", "a.mp4", "B/x.mp4", "b.mp4"]


def test_order_does_not_depend_on_the_operating_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("c/1.mp4", "a/2.mp4", "b.mp4", "a/1.mp4"):
        put(tmp_path / name)
    before = find_videos(tmp_path)
    real = os.scandir
    monkeypatch.setattr(discover.os, "scandir", lambda path: list(real(path))[::-1])
    assert find_videos(tmp_path) == before


def test_a_file_is_taken_whatever_it_is(tmp_path: Path) -> None:
    found = find_videos(put(tmp_path / "notes.txt", b"hello"))
    assert [(video.name, video.size_bytes) for video in found] == [("notes.txt", 5)]


def test_what_does_not_exist_is_refused_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.*Give a folder or a file") as caught:
        find_videos(tmp_path / "nowhere")
    assert caught.value.exit_code == 2


def test_ids_tell_apart_equal_names_and_equal_contents(tmp_path: Path) -> None:
    put(tmp_path / "one" / "clip.mp4")
    put(tmp_path / "two" / "clip.mp4")
    put(tmp_path / "two" / "copy.mp4")
    ids = [video.video_id for video in find_videos(tmp_path)]
    assert len(set(ids)) == 3
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in ids)


@pytest.mark.parametrize("changed", [0, 500, -1])
def test_ids_are_stable_and_follow_the_content(tmp_path: Path, changed: int) -> None:
    path = put(tmp_path / "clip.mp4", MP4 + bytes(1000))
    before = find_videos(tmp_path)[0].video_id
    assert find_videos(tmp_path)[0].video_id == before
    content = bytearray(path.read_bytes())
    content[changed] ^= 1
    path.write_bytes(content)
    assert find_videos(tmp_path)[0].video_id != before


def test_ids_of_large_files_rest_on_both_ends_and_the_size(tmp_path: Path) -> None:
    middle = bytearray(MP4 + bytes(3 << 20))
    path = put(tmp_path / "clip.mp4", bytes(middle))
    before = find_videos(path)[0].video_id
    middle[3 << 19] = 1
    path.write_bytes(middle)
    assert find_videos(path)[0].video_id == before
    middle[-1] = 1
    path.write_bytes(middle)
    assert find_videos(path)[0].video_id != before


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    put(tmp_path / "card" / "real" / "clip.mp4")
    put(tmp_path / "elsewhere" / "other.mp4")
    root = tmp_path / "card"
    (root / "a-link").symlink_to(root / "real")
    (root / "real" / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "out-again").symlink_to(tmp_path / "elsewhere")
    (root / "self.mp4").symlink_to(root / "self.mp4")
    (root / "dangling.mp4").symlink_to(root / "gone")
    (root / "dangling.txt").symlink_to(root / "gone")
    found = find_videos(root)
    assert [video.name for video in found] == [
        "dangling.mp4",
        "out/other.mp4",
        "real/clip.mp4",
        "self.mp4",
    ]
    assert [video.size_bytes for video in found] == [0, len(MP4), len(MP4), 0]


def test_a_linked_file_is_listed(tmp_path: Path) -> None:
    put(tmp_path / "store" / "object")
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "clip.mp4").symlink_to(tmp_path / "store" / "object")
    assert names(tmp_path / "card") == ["clip.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")
def test_a_pipe_under_a_video_s_name_does_not_block_the_walk(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "live.mp4")
    (tmp_path / "linked.mp4").symlink_to(tmp_path / "live.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/tty")
    (tmp_path / "endless.mp4").symlink_to("/dev/zero")
    assert names(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")
def test_a_pipe_or_a_device_is_refused_with_a_next_step(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "live.mp4")
    (tmp_path / "linked.mp4").symlink_to(tmp_path / "live.mp4")
    for path in (tmp_path / "live.mp4", tmp_path / "linked.mp4", Path("/dev/zero")):
        with pytest.raises(ConfigError, match=r"pipe.*Give a folder or a file"):
            find_videos(path)


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")
def test_a_file_that_turns_into_a_pipe_does_not_block_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (video,) = find_videos(put(tmp_path / "clip.mp4"))
    status = video.path.stat()
    video.path.unlink()
    os.mkfifo(video.path)
    with pytest.raises(FootageError, match="pipe") as caught:
        check_file(video)
    assert caught.value.code == "unreadable"
    monkeypatch.setattr(Path, "stat", lambda *_, **__: status)
    with pytest.raises(FootageError, match="not a regular file") as caught:
        check_file(video)
    assert caught.value.code == "unreadable"
    assert [video.size_bytes for video in find_videos(video.path)] == [len(MP4)]


@pytest.mark.skipif(ROOT_USER, reason="root may read everything")
def test_what_may_not_be_read_is_listed_all_the_same(tmp_path: Path) -> None:
    put(tmp_path / "secret.mp4").chmod(0)
    put(tmp_path / "locked" / "clip.mp4")
    (tmp_path / "locked").chmod(0)
    try:
        assert names(tmp_path) == ["locked", "secret.mp4"]
        with pytest.raises(ConfigError, match="Give a folder"):
            find_videos(tmp_path / "locked")
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_a_folder_that_cannot_be_listed_becomes_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "bad" / "clip.mp4")
    put(tmp_path / "good" / "clip.mp4")
    real = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "bad":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(discover.os, "scandir", refuse)
    found = find_videos(tmp_path)
    assert [video.name for video in found] == ["bad", "good/clip.mp4"]
    assert found[0].size_bytes == 0


def test_a_file_that_cannot_be_opened_is_still_listed_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "clip.mp4")
    put(tmp_path / "notes.txt", b"hello")

    def refuse(*_: object) -> object:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "open", refuse)
    assert names(tmp_path) == ["clip.mp4"]


def test_a_folder_that_can_be_listed_but_not_entered_fails_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "half" / "clip.mp4")
    put(tmp_path / "half" / "notes.txt", b"hello")
    put(tmp_path / "half" / "inner" / "clip.mp4")
    (tmp_path / "half" / "link.mp4").symlink_to(tmp_path / "half" / "clip.mp4")
    put(tmp_path / "open" / "clip.mp4")
    for name in ("stat", "lstat", "open", "scandir"):
        monkeypatch.setattr(os, name, refuse_inside("half", getattr(os, name)))
    monkeypatch.setattr(Path, "stat", refuse_inside("half", Path.stat))
    monkeypatch.setattr(Path, "lstat", refuse_inside("half", Path.lstat))
    found = find_videos(tmp_path)
    assert [video.name for video in found] == [
        "half/clip.mp4",
        "half/inner",
        "half/link.mp4",
        "open/clip.mp4",
    ]
    for video in found[:3]:
        with pytest.raises(FootageError) as caught:
            check_file(video)
        assert caught.value.code == "unreadable"


def refuse_inside(folder: str, real: Callable[..., object]) -> Callable[..., object]:
    def call(path: str | Path, *args: object, **options: object) -> object:
        if folder in Path(path).parent.parts:
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    return call


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_names_are_printable_whatever_bytes_they_hold(tmp_path: Path) -> None:
    for raw in (b"caf\xe9.mp4", "größe 東京.mp4".encode(), b"new\nline.mp4", b"back\\xe9.mp4"):
        put(tmp_path / os.fsdecode(raw))
    found = find_videos(tmp_path)
    assert sorted(video.name for video in found) == sorted(
        ["caf\\xe9.mp4", "größe 東京.mp4", "new\\nline.mp4", "back\\\\xe9.mp4"]
    )
    for video in found:
        assert video.name.encode("utf-8").decode("utf-8").isprintable()
        assert video.path.is_file()
    assert len({video.video_id for video in found}) == 4


def found_in(root: Path) -> tuple[list[str], dict[str, str]]:
    found = discover.discover(root)
    return [video.name for video in found.videos], {one.name: one.reason for one in found.skipped}


def test_small_copies_are_skipped_with_the_file_they_copy_and_kept_as_its_proxy(
    tmp_path: Path,
) -> None:
    pairs = {
        "DCIM/100GOPRO/GX010048.MP4": "DCIM/100GOPRO/GL010048.LRV",
        "DCIM/100GOPRO/GOPR0049.MP4": "DCIM/100GOPRO/GOPR0049.LRV",
        "DJI_20230101120000_0001_D.MP4": "DJI_20230101120000_0001_D.LRF",
        "240915_143027_001_FH.MP4": "240915_143027_001_FL.MP4",
        "2024-04-26--19-07-52--3/fcamera.hevc": "2024-04-26--19-07-52--3/qcamera.ts",
    }
    for full, copy in pairs.items():
        put(tmp_path / full)
        put(tmp_path / copy)
    found = discover.discover(tmp_path)
    assert {video.name: video.proxy for video in found.videos} == {
        full: tmp_path / copy for full, copy in pairs.items()
    }
    assert {one.name: one.reason for one in found.skipped} == {
        copy: f"the camera's small copy of {Path(full).name}" for full, copy in pairs.items()
    }


@pytest.mark.parametrize(
    "name", ["GL010048.LRV", "clip.lrf", "240915_143027_001_FL.MP4", "2024-04-26--1/qcamera.ts"]
)
def test_a_small_copy_without_its_video_is_a_video(tmp_path: Path, name: str) -> None:
    put(tmp_path / name)
    put(tmp_path / "another" / "GX010048.MP4")
    assert set(found_in(tmp_path)[0]) == {name, "another/GX010048.MP4"}


def test_a_small_copy_of_an_empty_file_is_scanned_as_well(tmp_path: Path) -> None:
    put(tmp_path / "GX010048.MP4", b"")
    put(tmp_path / "GL010048.LRV")
    assert found_in(tmp_path) == (["GL010048.LRV", "GX010048.MP4"], {})


def test_thumbnails_are_skipped_and_what_only_is_called_so_is_scanned(tmp_path: Path) -> None:
    put(tmp_path / "GX010048.MP4")
    put(tmp_path / "GX010048.THM", b"\xff\xd8\xff\xe0" + bytes(32))
    put(tmp_path / "odd.thm")
    names, skipped = found_in(tmp_path)
    assert names == ["GX010048.MP4", "odd.thm"]
    assert list(skipped) == ["GX010048.THM"]
    assert "thumbnail" in skipped["GX010048.THM"]


def sidecars(root: Path, name: str) -> list[str]:
    (video,) = (one for one in discover.discover(root).videos if one.name == name)
    return [path.relative_to(root).as_posix() for path in video.sidecars]


def test_sidecars_of_the_same_name_are_found_in_any_case_the_most_specific_first(
    tmp_path: Path,
) -> None:
    put(tmp_path / "a" / "clip.MP4")
    for name in ("CLIP.NMEA", "clip.srt", "Clip.Gpx", "clip.mp4.GPX", "clip.gps", "clip.fit"):
        put(tmp_path / "a" / name, b"x")
    for name in ("clip2.gpx", "clip.txt", "clip.MP4.geotag.json", "clip.MP4.xmp", "clip.csv"):
        put(tmp_path / "a" / name, b"x")
    put(tmp_path / "a" / "tags.geojson", b"{}")
    put(tmp_path / "clip.gpx", b"x")
    assert sidecars(tmp_path, "a/clip.MP4") == [
        "a/clip.mp4.GPX",
        "a/Clip.Gpx",
        "a/CLIP.NMEA",
        "a/clip.gps",
        "a/clip.srt",
        "a/clip.fit",
    ]


def test_channels_share_the_sidecar_that_names_none(tmp_path: Path) -> None:
    for name in ("20141017_163635_NF.mp4", "20141017_163635_NR.mp4"):
        put(tmp_path / "Record" / name)
    put(tmp_path / "Record" / "20141017_163635_N.gps", b"x")
    for lens in "FR":
        assert sidecars(tmp_path, f"Record/20141017_163635_N{lens}.mp4") == [
            "Record/20141017_163635_N.gps"
        ]


def test_the_hidden_log_of_a_70mai_card_belongs_to_each_of_its_files_and_to_no_other(
    tmp_path: Path,
) -> None:
    put(tmp_path / "car" / "Normal" / "Front" / "NO20191130-120156-000121F.MP4")
    put(tmp_path / "car" / ".GPSData000001.txt", b"$V02")
    put(tmp_path / "car" / "holiday.mp4")
    put(tmp_path / ".GPSData000009.txt", b"$V02")
    name = "car/Normal/Front/NO20191130-120156-000121F.MP4"
    assert sidecars(tmp_path, name) == ["car/.GPSData000001.txt"]
    assert sidecars(tmp_path, "car/holiday.mp4") == []


def test_a_log_above_the_card_is_not_of_the_card(tmp_path: Path) -> None:
    put(tmp_path / "car" / "Normal" / "NO20191130-120156-000121F.MP4")
    put(tmp_path / ".GPSData000009.txt", b"$V02")
    assert sidecars(tmp_path, "car/Normal/NO20191130-120156-000121F.MP4") == []


def test_tesla_s_event_and_the_oxts_folder_of_kitti_are_sidecars(tmp_path: Path) -> None:
    stamp = "2024-08-19_19-06-18"
    put(tmp_path / "SavedClips" / stamp / f"{stamp}-front.mp4")
    put(tmp_path / "SavedClips" / stamp / "event.json", b"{}")
    put(tmp_path / "kitti" / "drive.mp4")
    put(tmp_path / "kitti" / "event.json", b"{}")
    put(tmp_path / "kitti" / "oxts" / "data" / "0000000000.txt", b"1")
    assert sidecars(tmp_path, f"SavedClips/{stamp}/{stamp}-front.mp4") == [
        f"SavedClips/{stamp}/event.json"
    ]
    assert sidecars(tmp_path, "kitti/drive.mp4") == ["kitti/oxts"]


def test_a_file_that_was_asked_for_alone_has_its_sidecar_too(tmp_path: Path) -> None:
    path = put(tmp_path / "RO" / "20220101120000_000123.MP4")
    put(tmp_path / "RO" / "20220101120000_000123.gpx", b"x")
    (video,) = discover.discover(path).videos
    assert [one.name for one in video.sidecars] == ["20220101120000_000123.gpx"]
    assert video.origin.mode == "event"


def test_the_rest_of_a_card_tells_whose_a_name_of_several_makers_is(tmp_path: Path) -> None:
    put(tmp_path / "a" / "20260806170529_0060.mp4")
    put(tmp_path / "a" / "20260806170629_0060.mp4")
    put(tmp_path / "b" / "20260806170629_0060.mp4")
    put(tmp_path / "a" / "20260806170529_0060_A.mp4")
    makers = {video.name: video.origin.vendor for video in find_videos(tmp_path)}
    assert makers == {
        "a/20260806170529_0060.mp4": "DDPai",
        "a/20260806170529_0060_A.mp4": "DDPai",
        "a/20260806170629_0060.mp4": "DDPai",
        "b/20260806170629_0060.mp4": None,
    }


def test_content_ids_follow_the_content_wherever_it_lies(tmp_path: Path) -> None:
    put(tmp_path / "one" / "clip.mp4")
    put(tmp_path / "two" / "renamed.mp4")
    put(tmp_path / "two" / "other.mp4", MP4 + b"x")
    one, other, renamed = find_videos(tmp_path)
    assert one.content_id == renamed.content_id != other.content_id
    assert discover.content_id(one.path) == one.content_id
    assert one.video_id != renamed.video_id


def test_what_cannot_be_read_has_the_content_of_nothing_else(tmp_path: Path) -> None:
    put(tmp_path / "empty.mp4", b"")
    for name in ("gone", "gone-too"):
        (tmp_path / f"{name}.mp4").symlink_to(tmp_path / name)
    assert len({video.content_id for video in find_videos(tmp_path)}) == 3


def test_a_remembered_file_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "b.mp4"):
        put(tmp_path / name, MP4 + name.encode())
    known: dict[tuple[Path, int], str] = {}

    def remember(path: Path, status: os.stat_result, content: str) -> None:
        known[path, status.st_mtime_ns] = content

    def recall(path: Path, status: os.stat_result) -> str | None:
        return known.get((path, status.st_mtime_ns))

    first = discover.discover(tmp_path, recall=recall, remember=remember)
    assert len(known) == 2
    put(tmp_path / "c.mp4", MP4 + b"c")
    read: list[Path] = []
    real = discover.content_id
    monkeypatch.setattr(discover, "content_id", lambda path: (read.append(path), real(path))[1])
    second = discover.discover(tmp_path, recall=recall, remember=remember)
    assert read == [tmp_path / "c.mp4"]
    assert second.videos[:2] == first.videos
    assert len(known) == 3


def test_drives_hold_what_was_found(tmp_path: Path) -> None:
    for minute in (0, 1, 2):
        for lens in "FR":
            put(tmp_path / "Movie" / f"20240501_080{minute}00_0000{minute}{lens}.MP4")
    found = discover.discover(tmp_path)
    (drive,) = found.drives
    assert [len(moment.videos) for moment in drive.moments] == [2, 2, 2]
    assert {video.video_id for moment in drive.moments for video in moment.videos} == {
        video.video_id for video in found.videos
    }


def test_names_that_differ_in_case_alone_stay_apart(tmp_path: Path) -> None:
    for name in ("A/clip.mp4", "a/clip.mp4", "Movie.mp4", "movie.MP4", "b.MP4/clip.mp4", "B.mp4"):
        put(tmp_path / name)
    if (tmp_path / "Movie.mp4").samefile(tmp_path / "movie.MP4"):
        pytest.skip("this file system knows no case")
    assert sorted(names(tmp_path)) == sorted(
        ["A/clip.mp4", "a/clip.mp4", "Movie.mp4", "movie.MP4", "b.MP4/clip.mp4", "B.mp4"]
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no such file system here")
def test_file_systems_of_the_kernel_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "link").symlink_to("/proc/self/fdinfo")
    assert [entry.name for entry in walk(tmp_path)] == ["a.mp4"]
    assert list(walk(Path("/proc/self/fdinfo")))
