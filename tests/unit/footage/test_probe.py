"""What is wrong with a file is said in words, by code, and never as a traceback."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from geotag.footage import files
from geotag.footage.decode import open_video
from geotag.footage.discover import find_videos
from geotag.footage.limits import Limits, Meter
from geotag.types import FootageError, Video, VideoFacts
from tests.media import cut, drop_moov, patch_box, write_sound, write_video

ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0


def video_at(path: Path) -> Video:
    return Video(path=path, name=path.name, video_id="0" * 32, size_bytes=path.stat().st_size)


def facts_of(path: Path) -> VideoFacts:
    with open_video(video_at(path)) as reader:
        return reader.facts


def refusal(path: Path) -> FootageError:
    with pytest.raises(FootageError) as caught:
        open_video(find_videos(path)[0])
    assert caught.value.stage == "open"
    assert str(caught.value) == caught.value.message
    return caught.value


def text(path: Path) -> Path:
    path.write_text("hello, this is no video\n")
    return path


def content(*parts: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(b"".join(parts))
        return path

    return make


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (content(b""), "empty", "no bytes"),
        (text, "not_video", "text"),
        (content(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(99)), "not_video", "a JPEG picture"),
        (content(b"\x89PNG\r\n\x1a\n" + bytes(99)), "not_video", "a PNG picture"),
        (content(b"GIF89a" + bytes(99)), "not_video", "a GIF picture"),
        (content(b"\x00\x00\x00\x18ftypheic" + bytes(99)), "not_video", "a HEIC picture"),
        (content(b"PK\x03\x04" + bytes(99)), "not_video", "a ZIP archive"),
        (content(bytes(range(128, 256)) * 50), "not_video", "no known video format"),
        (content(bytes(5000)), "damaged", "zeros only"),
        (content(b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"), "not_video", "text"),
        (lambda path: drop_moov(write_video(path)), "damaged", "moov"),
        (lambda path: cut(write_video(path), 0.01), "damaged", "moov"),
        (content(b"\x1a\x45\xdf\xa3\x01\x02" + bytes(99)), "damaged", "Matroska"),
        (content(b"\x00\x00\x00\x08moov" + bytes(99)), "damaged", "MP4"),
        (write_sound, "no_video_stream", "audio only"),
    ],
)
def test_what_is_no_video_is_refused_by_code_and_in_words(
    tmp_path: Path, make: Callable[[Path], Path], code: str, words: str
) -> None:
    error = refusal(make(tmp_path / "clip.mp4"))
    assert (error.code, words in error.message) == (code, True), error.message


def test_a_video_with_nothing_but_a_cover_picture_has_no_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "music.mp4", frames=0, cover=True, audio=True)
    assert refusal(path).code == "no_video_stream"


def test_a_picture_larger_than_any_camera_records_is_refused(tmp_path: Path) -> None:
    video = video_at(write_video(tmp_path / "clip.mp4", frames=2))
    meter = Meter(size_bytes=video.size_bytes, limits=Limits(most_pixels=20_000))
    with pytest.raises(FootageError, match="192 x 128 pixels") as caught:
        open_video(video, meter=meter)
    assert (caught.value.stage, caught.value.code) == ("open", "too_large")


def test_a_folder_that_may_not_be_listed_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    assert refusal(tmp_path).message == (
        "permission to list this folder was denied; videos in it are not in this result"
    )


def test_a_folder_is_unreadable_as_a_file(tmp_path: Path) -> None:
    video = Video(path=tmp_path, name="locked", video_id="0" * 32, size_bytes=0)
    with pytest.raises(FootageError, match="folder") as caught:
        open_video(video)
    assert caught.value.code == "unreadable"


def test_a_file_that_is_gone_by_now_is_unreadable(tmp_path: Path) -> None:
    video = Video(path=tmp_path / "gone.mp4", name="gone.mp4", video_id="0" * 32, size_bytes=9)
    with pytest.raises(FootageError, match="No such file") as caught:
        open_video(video)
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), OSError(5, "Input/output error")])
def test_what_the_system_refuses_to_read_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    video = find_videos(write_video(tmp_path / "clip.mp4", frames=2))[0]

    def refuse(*_: object) -> object:
        raise error

    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(FootageError, match="read") as caught:
        open_video(video)
    assert caught.value.code == "unreadable"


@pytest.mark.skipif(ROOT_USER, reason="root may read everything")
def test_permission_denied_is_said_as_such(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=2)
    path.chmod(0)
    error = refusal(path)
    assert (error.code, "permission" in error.message) == ("unreadable", True)


def test_facts_say_what_the_container_says(tmp_path: Path) -> None:
    facts = facts_of(write_video(tmp_path / "clip.mp4", frames=45, fps=30, rotation_deg=90))
    assert (facts.container, facts.codec, facts.width_px, facts.height_px, facts.rotation_deg) == (
        "mov",
        "h264",
        192,
        128,
        90,
    )
    assert facts.fps == pytest.approx(30)
    assert facts.duration_s == pytest.approx(1.5)


@pytest.mark.parametrize("claim", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x00\x00\x00\x01"])
@pytest.mark.parametrize("box", [b"mvhd", b"mdhd", b"tkhd"])
def test_a_lying_header_does_not_change_the_duration(
    tmp_path: Path, box: bytes, claim: bytes
) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=45, fps=30)
    patch_box(path, box, 20 if box == b"tkhd" else 16, claim)
    assert facts_of(path).duration_s == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("claim_ms", [1e12, 0.0, -5.0, float("nan"), float("inf")])
def test_a_lying_matroska_header_does_not_either(tmp_path: Path, claim_ms: float) -> None:
    path = write_video(tmp_path / "clip.mkv", frames=45, fps=30)
    patch_box(path, b"\x44\x89\x88", 0, struct.pack(">d", claim_ms))
    assert facts_of(path).duration_s == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clip.h264", {"container": "h264"}),
        ("clip.hevc", {"container": "hevc", "codec": "libx265"}),
    ],
)
def test_a_stream_without_times_is_counted(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    facts = facts_of(write_video(tmp_path / name, frames=50, **options))
    assert facts.fps == pytest.approx(25)
    assert facts.duration_s == pytest.approx(2.0)


def test_the_start_of_the_clock_is_not_part_of_the_duration(tmp_path: Path) -> None:
    for name in ("clip.mkv", "clip.ts", "clip.mp4"):
        facts = facts_of(write_video(tmp_path / name, frames=30, start_s=50.0))
        assert facts.duration_s == pytest.approx(1.0, abs=0.05)


def test_a_cut_off_video_is_as_long_as_what_is_left(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", container_options={"movflags": "faststart"})
    with av.open(str(whole)) as opened:
        ends = [packet.pos + packet.size for packet in opened.demux(video=0) if packet.size]
    (tmp_path / "b.mp4").write_bytes(whole.read_bytes()[: ends[44] + 1])
    assert facts_of(tmp_path / "b.mp4").duration_s == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("name", ["a:b.mp4", "http:clip.mp4", "100%d.mp4", "größe 東京.mp4"])
def test_odd_names_are_opened_as_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_video(tmp_path / "clip.mp4", frames=2).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert facts_of(Path(name)).codec == "h264"


def test_a_wrong_extension_does_not_matter(tmp_path: Path) -> None:
    for name in ("clip.avi", "clip.jpg", "clip"):
        path = write_video(tmp_path / "clip.mp4", frames=2).rename(tmp_path / name)
        assert facts_of(path).container == "mov"


def test_tags_in_an_unknown_encoding_do_not_matter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", frames=2)
    patch_box(path, b"Lavf", 0, b"\xff\xfe\xe9\xff")
    assert facts_of(path).codec == "h264"


def test_ffmpeg_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refusal(cut(write_video(tmp_path / "clip.mp4"), 0.5))
    refusal(text(tmp_path / "text.mp4"))
    assert capfd.readouterr() == ("", "")
