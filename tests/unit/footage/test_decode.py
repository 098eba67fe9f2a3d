"""Clips are checked against the frame numbers in the pixels and a plain decode of everything."""

from __future__ import annotations

import threading
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

from geotag.footage import clips, container, probe
from geotag.footage.clips import Sampling, Window, plan_windows, wanted_times
from geotag.footage.decode import open_video
from geotag.footage.discover import find_videos
from geotag.footage.pictures import PictureMaker
from geotag.types import Clip, FootageError, Policy
from tests.media import cut, garble, patch_box, read_index, write_video

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

FPS, GOP, FRAMES = 30, 15, 66
UNEVEN_S = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 2.5, 4.5, 6.5, 8.5]

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "mp4": ("a.mp4", {}),
    "mp4 with B-frames": ("a.mp4", {"b_frames": 2}),
    "mp4 with open groups": (
        "a.mp4",
        {
            "b_frames": 2,
            "options": {
                "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:open-gop=1:bframes=2"
            },
        },
    ),
    "fragmented mp4": ("a.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mp4 that starts late": ("a.mp4", {"start_s": 7.0}),
    "mp4 with sound first": ("a.mp4", {"audio": True}),
    "mp4 with a cover": ("a.mp4", {"cover": True}),
    "mpeg-4 part 2": ("a.mp4", {"codec": "mpeg4"}),
    "10-bit hevc": ("a.mp4", {"codec": "libx265", "pix_fmt": "yuv420p10le"}),
    "odd size, 4:4:4": ("a.mp4", {"pix_fmt": "yuv444p", "size": (191, 127)}),
    "grey": ("a.mp4", {"pix_fmt": "gray"}),
    "mov": ("a.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "mkv": ("a.mkv", {"b_frames": 2}),
    "mkv that starts late": ("a.mkv", {"start_s": 7.0}),
    "mpeg-ts": ("a.ts", {}),
    "mpeg-ts with B-frames": ("a.ts", {"b_frames": 2, "start_s": 100.0}),
    "avi": ("a.avi", {"codec": "mpeg4"}),
    "avi with B-frames": ("a.avi", {"b_frames": 2}),
    "motion jpeg avi": ("a.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "flv": ("a.flv", {"codec": "flv"}),
    "turned by 90": ("a.mp4", {"rotation_deg": 90}),
    "turned by 180": ("a.mp4", {"rotation_deg": 180}),
    "turned by 270": ("a.mp4", {"rotation_deg": 270}),
    "29.97 fps": ("a.mp4", {"fps": Fraction(30_000, 1001)}),
    "bare h264": ("a.h264", {"container": "h264", "fps": 25}),
    "bare h264 with B-frames": ("a.h264", {"container": "h264", "fps": 25, "b_frames": 2}),
    "bare hevc": ("a.hevc", {"container": "hevc", "codec": "libx265", "fps": 25}),
}


def sampling(policy: Policy, frames: int = 8, *, max_gap_s: float = 1.0) -> Sampling:
    return Sampling(
        policy=policy,
        span_s=2.0,
        frames=frames,
        height_px=48,
        width_px=96,
        max_keyframe_gap_s=max_gap_s,
    )


def read(path: Path, start_s: float, end_s: float, wanted: Sampling) -> Clip:
    with open_video(find_videos(path)[0]) as reader:
        return reader.read_clip(Window(start_s=start_s, end_s=end_s), wanted)


def numbers(clip: Clip) -> list[int]:
    return [read_index(picture) for picture in clip.frames_THWC]


def all_times(path: Path) -> list[float]:
    """Time of every frame of a file, by decoding all of it; counted where it has no times."""
    with av.open(str(path)) as opened:
        stream = max(opened.streams.video, key=lambda one: one.frames)
        frames = list(opened.decode(stream))
        if path.suffix in (".h264", ".hevc", ".avi"):
            return [index / float(stream.average_rate) for index in range(len(frames))]
        times = [float(frame.pts * frame.time_base) for frame in frames]
        return [time - times[0] for time in times]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    paths = {}
    for number, (kind, (name, options)) in enumerate(KINDS.items()):
        (folder / str(number)).mkdir()
        settings = {"frames": FRAMES, "fps": FPS, "gop": GOP} | options
        paths[kind] = write_video(folder / str(number) / name, **settings)
    return paths


@pytest.fixture(scope="module")
def plain(made: dict[str, Path]) -> Path:
    return made["mp4"]


@pytest.mark.parametrize("kind", KINDS)
def test_exact_gives_the_frames_nearest_to_the_wanted_times(
    made: dict[str, Path], kind: str
) -> None:
    times = np.array(all_times(made[kind]))
    window = Window(start_s=0.51, end_s=2.11)
    clip = read(made[kind], window.start_s, window.end_s, sampling("exact"))
    wanted = wanted_times(window, 8)
    nearest = np.abs(times[None] - wanted[:, None]).argmin(axis=1)
    assert numbers(clip) == nearest.tolist()
    assert clip.times_s == pytest.approx(times[nearest].tolist(), abs=2e-3)
    assert (clip.policy, clip.fallback, clip.damaged) == ("exact", None, False)
    assert clip.frames_THWC.shape == (8, 48, 96, 3)


@pytest.mark.parametrize(
    ("kind", "start_s"), [*((kind, 0.53) for kind in KINDS), ("mp4", 0.0), ("mpeg-ts", 0.0)]
)
def test_dense_takes_every_nth_frame_from_the_first_after_the_start(
    made: dict[str, Path], kind: str, start_s: float
) -> None:
    times = all_times(made[kind])
    clip = read(made[kind], start_s, start_s + 1.6, sampling("dense"))
    first = next(index for index, time in enumerate(times) if time >= start_s - 1e-3)
    stride = {25: 5}.get(KINDS[kind][1].get("fps", FPS), 6)
    expected = list(range(first, first + 8 * stride, stride))
    assert numbers(clip) == expected
    assert clip.times_s == pytest.approx([times[index] for index in expected], abs=2e-3)
    assert (clip.policy, clip.fallback, clip.damaged) == ("dense", None, False)


@pytest.mark.parametrize("kind", KINDS)
def test_keyframe_gives_key_frames_near_the_wanted_times(made: dict[str, Path], kind: str) -> None:
    times = np.array(all_times(made[kind]))
    window = Window(start_s=0.55, end_s=2.05)
    clip = read(made[kind], window.start_s, window.end_s, sampling("keyframe", 6))
    every = 1 if KINDS[kind][1].get("codec") == "mjpeg" else GOP
    keys = np.arange(0, FRAMES, every)
    wanted = wanted_times(window, 6)
    distances = np.abs(times[keys][None] - wanted[:, None])
    got = numbers(clip)
    assert set(got) <= set(keys.tolist())
    # Open groups: the table of an MP4 file says when a frame is decoded, not when it is shown.
    slack_s = 2 / FPS + 1e-3 if "open" in kind else 1e-3
    for index, row in zip(got, distances, strict=True):
        assert row[index // every] <= row.min() + slack_s
    assert clip.times_s == pytest.approx(times[got].tolist(), abs=2e-3)
    assert (clip.policy, clip.fallback, clip.damaged) == ("keyframe", None, False)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_keyframe_decodes_nothing_but_key_frames(
    made: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """With every other packet overwritten the clip is the same, and not damaged."""
    before = read(made[kind], 0.3, 2.0, sampling("keyframe"))
    content = bytearray(made[kind].read_bytes())
    with av.open(str(made[kind])) as opened:
        for packet in opened.demux(video=0):
            if packet.size and not packet.is_keyframe:
                start = content.index(bytes(packet))
                content[start + 4 : start + packet.size] = b"\xff" * (packet.size - 4)
    broken = tmp_path / made[kind].name
    broken.write_bytes(content)
    after = read(broken, 0.3, 2.0, sampling("keyframe"))
    assert np.array_equal(after.frames_THWC, before.frames_THWC)
    assert (after.policy, after.damaged) == ("keyframe", False)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_key_frames_too_far_apart_fall_back_to_exact_and_say_so(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, frames=90, gop=45)
    clip = read(path, 0.0, 3.0, sampling("keyframe", max_gap_s=1.2))
    assert clip.policy == "exact"
    assert clip.fallback is not None
    assert "1.5 s apart" in clip.fallback
    assert "1.2 s" in clip.fallback
    assert numbers(clip) == numbers(read(path, 0.0, 3.0, sampling("exact")))
    assert read(path, 0.0, 3.0, sampling("keyframe", 4, max_gap_s=1.6)).policy == "keyframe"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_too_few_key_frames_for_a_clip_fall_back_to_exact_and_say_so(
    tmp_path: Path, name: str
) -> None:
    path = write_video(tmp_path / name, frames=114, gop=30)
    with open_video(find_videos(path)[0]) as reader:
        (window,) = plan_windows(reader.facts.duration_s, 21.0, 1)
        clip = reader.read_clip(window, sampling("keyframe", 16, max_gap_s=2.0))
        assert (clip.policy, clip.fallback) == ("exact", "only 4 key frames in 3.8 s")
        assert len(set(clip.times_s)) == 16
        enough = reader.read_clip(window, sampling("keyframe", 8, max_gap_s=2.0))
        assert (enough.policy, enough.fallback) == ("keyframe", None)
        one_more = reader.read_clip(window, sampling("keyframe", 9, max_gap_s=2.0))
        assert one_more.policy == "exact"


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_a_single_key_frame_falls_back_to_exact(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, frames=60, gop=600)
    clip = read(path, 0.2, 1.8, sampling("keyframe", max_gap_s=60.0))
    assert clip.policy == "exact"
    assert clip.fallback is not None
    assert "only one key frame" in clip.fallback


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_dense_goes_by_time_where_the_frame_rate_varies(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, frames=10, times_s=UNEVEN_S)
    clip = read(path, 0.0, 8.0, sampling("dense"))
    assert clip.policy == "exact"
    assert clip.fallback is not None
    assert "frame rate varies" in clip.fallback
    wanted = np.arange(8) * 1.0
    nearest = np.abs(np.array(UNEVEN_S)[None] - wanted[:, None]).argmin(axis=1)
    assert numbers(clip) == nearest.tolist()
    assert clip.times_s == pytest.approx([UNEVEN_S[index] for index in nearest], abs=2e-3)


def test_dense_bears_a_camera_that_drops_a_frame_now_and_then(tmp_path: Path) -> None:
    times_s = [index / 30 for index in range(62) if index not in (20, 45)]
    clip = read(
        write_video(tmp_path / "a.mp4", frames=60, times_s=times_s), 0.0, 1.6, sampling("dense")
    )
    assert (clip.policy, clip.fallback) == ("dense", None)
    assert numbers(clip) == list(range(0, 48, 6))


@pytest.mark.parametrize("policy", ["dense", "exact", "keyframe"])
@pytest.mark.parametrize("frames", [2, 5, 20])
def test_a_video_shorter_than_the_span_is_spread_evenly(
    tmp_path: Path, policy: Policy, frames: int
) -> None:
    path = write_video(tmp_path / "a.mp4", frames=frames, fps=10, gop=2)
    clip = read(path, 0.0, frames / 10, sampling(policy, 16))
    got = numbers(clip)
    assert clip.frames_THWC.shape[0] == 16
    assert got == sorted(got)
    assert not clip.damaged
    if policy != "keyframe":
        assert set(got) == set(range(frames)) if frames < 16 else len(set(got)) == 16


@pytest.mark.parametrize("policy", ["dense", "exact", "keyframe"])
def test_an_unknown_duration_does_not_stretch_a_short_video(tmp_path: Path, policy: Policy) -> None:
    path = write_video(tmp_path / "a.ts", frames=30, gop=5)
    clip = read(path, 0.0, 21.0, sampling(policy))
    got = numbers(clip)
    assert got[0] == 0
    assert 20 <= got[-1] <= 29
    assert len(set(got)) >= 5


@pytest.mark.parametrize("policy", ["dense", "exact", "keyframe"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_a_window_past_the_end_gives_the_end(tmp_path: Path, policy: Policy, name: str) -> None:
    path = write_video(tmp_path / name, frames=60, gop=15)
    clip = read(path, 5.0, 6.0, sampling(policy))
    got = numbers(clip)
    assert got == sorted(got)
    assert min(got) >= 28
    assert len(set(got)) > 1


@pytest.mark.parametrize("policy", ["dense", "exact", "keyframe"])
def test_one_frame_is_too_short(tmp_path: Path, policy: Policy) -> None:
    path = write_video(tmp_path / "a.mp4", frames=1)
    with pytest.raises(FootageError, match="1 frame") as caught:
        read(path, 0.0, 1.0, sampling(policy))
    assert (caught.value.stage, caught.value.code) == ("decode", "too_short")


def test_a_clip_of_one_frame_can_be_had_from_one_frame(tmp_path: Path) -> None:
    clip = read(write_video(tmp_path / "a.mp4", frames=1), 0.0, 1.0, sampling("exact", 1))
    assert numbers(clip) == [0]


def test_a_window_between_two_frames_shows_both(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=10, times_s=UNEVEN_S)
    assert numbers(read(path, 3.0, 3.2, sampling("exact", 6))) == [6, 6, 6, 7, 7, 7]


@pytest.mark.parametrize("policy", ["dense", "exact", "keyframe"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_a_cut_off_video_gives_damaged_clips_of_what_is_left(
    tmp_path: Path, policy: Policy, name: str
) -> None:
    movflags = {"movflags": "faststart"} if name == "a.mp4" else None
    path = write_video(tmp_path / name, frames=90, gop=15, container_options=movflags)
    with av.open(str(path)) as opened:
        places = [packet.pos for packet in opened.demux(video=0) if packet.size]
    cut(path, (places[61] + 2) / path.stat().st_size)
    with open_video(find_videos(path)[0]) as reader:
        clip = reader.read_clip(Window(start_s=0.5, end_s=2.9), sampling(policy))
    got = numbers(clip)
    assert len(got) == 8
    assert got == sorted(got)
    assert set(got) <= set(range(62))
    assert got[-1] >= 45
    assert len(set(got)) >= 3
    if name == "a.mp4":  # the others only end sooner, which their headers do not tell
        assert clip.damaged


@pytest.mark.parametrize("policy", ["dense", "exact", "keyframe"])
def test_a_corrupted_video_gives_damaged_clips_of_what_decodes(
    tmp_path: Path, policy: Policy
) -> None:
    path = write_video(
        tmp_path / "a.mp4", frames=90, gop=15, container_options={"movflags": "faststart"}
    )
    garble(path, 0.5, 0.75)
    clip = read(path, 0.0, 3.0, sampling(policy))
    assert clip.damaged
    assert clip.frames_THWC.shape[0] == 8
    assert list(clip.times_s) == sorted(clip.times_s)
    assert len(set(clip.times_s)) >= 4
    good = [
        (round(time * FPS), picture)
        for time, picture in zip(clip.times_s, clip.frames_THWC, strict=True)
        if time < 1.0
    ]
    assert good
    assert all(read_index(picture) == index for index, picture in good)


def test_a_corrupted_stretch_does_not_damage_clips_elsewhere(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4", frames=90, gop=15, container_options={"movflags": "faststart"}
    )
    garble(path, 0.8, 0.9)
    clip = read(path, 0.0, 1.0, sampling("exact"))
    assert not clip.damaged


def test_frames_come_from_the_beginning_where_nothing_decodes_as_asked(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4",
        frames=90,
        gop=15,
        codec="mpeg4",
        container_options={"movflags": "faststart"},
    )
    garble(path, 0.5, 1.0)
    clip = read(path, 2.2, 2.9, sampling("exact"))
    assert clip.damaged
    assert clip.fallback is not None
    assert "nothing decodes from 2.2 to 2.9 s" in clip.fallback
    assert numbers(clip) == [round(time * FPS) for time in clip.times_s]
    assert clip.times_s[-1] < 0.7


def test_a_video_of_which_nothing_decodes_is_a_decode_error(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4", frames=30, codec="mpeg4", container_options={"movflags": "faststart"}
    )
    start = path.read_bytes().index(b"mdat") / path.stat().st_size
    garble(path, start + 0.001, 1.0)
    with pytest.raises(FootageError) as caught:
        read(path, 0.0, 1.0, sampling("exact"))
    assert (caught.value.stage, caught.value.code) == ("decode", "decode_error")


def test_a_lying_duration_leads_to_what_is_there(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=60, gop=15)
    # 20 s: small enough to be believed.
    patch_box(path, b"\x44\x89\x88", 0, b"\x40\xd3\x88\x00\x00\x00\x00\x00")
    with open_video(find_videos(path)[0]) as reader:
        assert reader.facts.duration_s == pytest.approx(20.0)
        for window in plan_windows(reader.facts.duration_s, 2.0, 3):
            clip = reader.read_clip(window, sampling("exact"))
            assert set(numbers(clip)) <= set(range(60))
            assert clip.damaged


@pytest.mark.parametrize("policy", ["dense", "exact", "keyframe"])
def test_reading_again_gives_the_same_bytes_in_any_order(plain: Path, policy: Policy) -> None:
    windows = [Window(start_s=start, end_s=start + 1.0) for start in (1.2, 0.0, 0.7)]
    with open_video(find_videos(plain)[0]) as reader:
        once = [reader.read_clip(window, sampling(policy)) for window in windows]
        again = [reader.read_clip(window, sampling(policy)) for window in reversed(windows)]
    for first, second in zip(once, reversed(again), strict=True):
        assert np.array_equal(first.frames_THWC, second.frames_THWC)
        assert first.times_s == second.times_s


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(plain: Path, threads: int) -> None:
    window = Window(start_s=0.4, end_s=1.9)
    for policy in ("dense", "exact", "keyframe"):
        with open_video(find_videos(plain)[0], decode_threads=threads) as reader:
            clip = reader.read_clip(window, sampling(policy))
        assert np.array_equal(clip.frames_THWC, read(plain, 0.4, 1.9, sampling(policy)).frames_THWC)


def test_readers_in_different_threads_do_not_disturb_each_other(plain: Path) -> None:
    expected = read(plain, 0.4, 1.9, sampling("exact"))
    clips: list[Clip] = []
    workers = [
        threading.Thread(target=lambda: clips.append(read(plain, 0.4, 1.9, sampling("exact"))))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(clips) == 4
    assert all(np.array_equal(clip.frames_THWC, expected.frames_THWC) for clip in clips)


@pytest.mark.parametrize("error", [ValueError, IndexError, MemoryError, RuntimeError])
def test_a_mistake_of_our_own_is_not_called_a_damaged_file(
    plain: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> object:
        raise error("a mistake")

    video = find_videos(plain)[0]
    with open_video(video) as reader, monkeypatch.context() as patch:
        patch.setattr(clips, "nearest", fail)
        with pytest.raises(error, match="a mistake"):
            reader.read_clip(Window(start_s=0.0, end_s=1.0), sampling("exact"))


@pytest.mark.parametrize("error", [ValueError, KeyError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        (probe, "read_facts"),
        (container, "prepare_decoder"),
        (container, "main_video_stream"),
    ],
)
def test_a_file_is_closed_whatever_happens_while_it_opens(
    plain: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    module: ModuleType,
    name: str,
) -> None:
    closed = []

    class Opened:
        def __init__(self, path: Path, **_: object) -> None:
            self.real = av.open(str(path))

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def close(self) -> None:
            closed.append(True)
            self.real.close()

    def fail(*_: object, **__: object) -> object:
        raise error("a mistake")

    monkeypatch.setattr(container, "open_container", Opened)
    monkeypatch.setattr(module, name, fail)
    expected = FootageError if error is OSError and name != "main_video_stream" else error
    with pytest.raises(expected, match="a mistake"):
        open_video(find_videos(plain)[0])
    assert closed == [True]


@pytest.mark.parametrize("error", [ValueError, av.error.InvalidDataError(1, "bad")])
def test_a_frame_that_cannot_be_converted_is_a_decode_error(
    plain: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> object:
        raise error

    with open_video(find_videos(plain)[0]) as reader:
        monkeypatch.setattr(reader._pictures, "_scaler", SimpleNamespace(reformat=fail))
        with pytest.raises(FootageError) as caught:
            reader.read_clip(Window(start_s=0.0, end_s=1.0), sampling("exact"))
    assert (caught.value.stage, caught.value.code) == ("decode", "decode_error")


def test_closing_twice_does_nothing(plain: Path) -> None:
    reader = open_video(find_videos(plain)[0])
    reader.close()
    reader.close()


def test_decoding_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "a.mp4", frames=60, container_options={"movflags": "faststart"})
    capfd.readouterr()
    read(garble(path, 0.5, 0.7), 0.0, 2.0, sampling("exact"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("policy", ["dense", "exact"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"x264-params": "keyint=30:bframes=3:b-pyramid=normal:scenecut=0:weightp=0"}),
        ("libx265", {"x265-params": "keyint=30:bframes=4:b-pyramid=1:scenecut=0:log-level=none"}),
        ("mpeg4", {"bf": "2"}),
    ],
)
def test_pictures_passed_over_leave_those_that_are_wanted_as_they_are(
    tmp_path: Path, codec: str, options: dict[str, str], policy: Policy
) -> None:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 255, (12, 24, 3), np.uint8).repeat(16, 0).repeat(16, 1)

    def draw(index: int) -> av.VideoFrame:
        grain = rng.integers(0, 60, (96, 192, 3))
        moved = np.roll(coarse, (3 * index, 5 * index), axis=(0, 1))[:96, :192]
        return av.VideoFrame.from_ndarray((moved // 2 + grain).astype(np.uint8), format="rgb24")

    path = write_video(
        tmp_path / "a.mp4",
        frames=FRAMES,
        fps=FPS,
        size=(192, 96),
        codec=codec,
        gop=30,
        b_frames=3,
        options=options,
        draw=draw,
    )
    clip = read(path, 0.4, 2.0, sampling(policy))
    with av.open(str(path)) as opened:
        whole = [PictureMaker().make(frame, 48, 96, "squash") for frame in opened.decode(video=0)]
    wanted = [whole[round(time * FPS)] for time in clip.times_s]
    np.testing.assert_array_equal(clip.frames_THWC, np.stack(wanted))
    assert (clip.policy, clip.fallback, clip.damaged) == (policy, None, False)


def test_a_dense_clip_with_slack_begins_with_the_key_frame_before_it(plain: Path) -> None:
    with_slack = replace(sampling("dense"), slack_s=0.4)
    clip = read(plain, 0.73, 2.33, with_slack)  # a key frame every half second
    assert numbers(clip) == list(range(15, 15 + 8 * 6, 6))
    assert clip.times_s[0] == pytest.approx(0.5)
    assert (clip.policy, clip.fallback, clip.damaged) == ("dense", None, False)
    near = read(plain, 0.73, 2.33, replace(with_slack, slack_s=0.2))  # none is as near as that
    assert numbers(near)[0] == 22
