import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from geotag.errors import ConfigError
from geotag.footage import discover, files
from geotag.footage.discover import find_videos
from geotag.footage.probe import check_file
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
