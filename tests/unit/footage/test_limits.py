"""What a file may cost, counted; and made files that ask for more than that."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from geotag.footage.clips import Sampling, Window
from geotag.footage.decode import open_video
from geotag.footage.isolation import DecodeProcess
from geotag.footage.limits import Limits, Meter
from geotag.types import Clip, FootageError, Policy, Video
from tests.media import patch_box, read_index, solid, write_video

POLICIES: tuple[Policy, ...] = ("dense", "exact", "keyframe")


def video_at(path: Path) -> Video:
    return Video(path=path, name=path.name, video_id="0" * 32, size_bytes=path.stat().st_size)


def sampling(policy: Policy, span_s: float = 2.0, frames: int = 8) -> Sampling:
    return Sampling(
        policy=policy,
        span_s=span_s,
        frames=frames,
        height_px=48,
        width_px=96,
        max_keyframe_gap_s=2.5,
    )


def read(path: Path, policy: Policy, limits: Limits) -> Clip:
    video = video_at(path)
    meter = Meter(size_bytes=video.size_bytes, limits=limits)
    with open_video(video, meter=meter) as reader:
        return reader.read_clip(Window(start_s=0.0, end_s=2.0), sampling(policy))


def test_a_small_file_has_less_than_ten_seconds_and_a_large_one_more() -> None:
    limits = Limits()
    assert limits.allowed_s(4_000_000, 0) < 10
    assert limits.allowed_s(400_000_000, 0) > 60
    assert limits.allowed_s(1 << 50, 0) == 120


def test_decoded_frames_earn_time() -> None:
    limits = Limits()
    of_1080p = limits.allowed_s(0, 100 * 1920 * 1080) - limits.allowed_s(0, 0)
    assert 5 < of_1080p < 20


def test_too_many_packets_end_a_step(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", frames=60)
    with pytest.raises(FootageError, match="more than 20 packets") as caught:
        read(path, "exact", Limits(most_packets=20))
    assert (caught.value.stage, caught.value.code) == ("decode", "stalled")
    assert read(path, "exact", Limits(most_packets=1000)).times_s


def test_each_step_has_its_own_count() -> None:
    meter = Meter(size_bytes=100, limits=Limits(most_packets=3, most_passes=1, spare_bytes=0))
    for _ in range(3):
        meter.count_packet(10)
    meter.begin_clip()
    for _ in range(3):
        meter.count_packet(10)
    with pytest.raises(FootageError) as caught:
        meter.count_packet(10)
    assert (caught.value.stage, caught.value.code) == ("decode", "stalled")


def test_reading_a_file_many_times_over_ends_a_step() -> None:
    meter = Meter(size_bytes=100, limits=Limits(most_passes=2, spare_bytes=50))
    meter.count_packet(250)
    with pytest.raises(FootageError, match="many times its size"):
        meter.count_packet(1)


def test_decoding_without_end_ends_a_clip(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=60)
    with pytest.raises(FootageError, match="were decoded for one clip") as caught:
        read(path, "exact", Limits(most_megapixels_per_clip=0.5))
    assert (caught.value.stage, caught.value.code) == ("decode", "stalled")


def test_progress_is_told_over_all_clips() -> None:
    told: list[int] = []
    meter = Meter(size_bytes=1, on_progress=told.append)
    meter.begin_clip()
    meter.count_frame(10, 10)
    meter.begin_clip()
    meter.count_frame(10, 20)
    assert told == [100, 300]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_picture_that_grows_to_16k_on_the_way_is_never_decoded(
    tmp_path: Path, policy: Policy
) -> None:
    path = write_video(tmp_path / "a.mov", frames=60, codec="mjpeg", pix_fmt="yuvj420p")
    content = bytearray(path.read_bytes())
    at = -1
    for number in range(60):  # SOF0: marker, length, depth, height, width (ITU-T T.81, B.2.2)
        at = content.index(b"\xff\xc0\x00\x11\x08", at + 1)
        if number >= 20:
            content[at + 5 : at + 9] = struct.pack(">HH", 16384, 16384)
    path.write_bytes(content)
    limits = Limits(most_memory_bytes=700 << 20)
    with DecodeProcess(limits=limits) as process, process.open_video(video_at(path)) as reader:
        clip = reader.read_clip(Window(start_s=0.0, end_s=2.0), sampling(policy))
    assert clip.damaged
    assert {read_index(picture) for picture in clip.frames_THWC} <= set(range(20))


@pytest.mark.parametrize("claim", [100_000, 10_000_000, 4_000_000_000])
def test_an_index_that_claims_more_frames_than_the_file_has_bytes_is_refused(
    tmp_path: Path, claim: int
) -> None:
    path = write_video(tmp_path / "a.mp4", frames=60)
    patch_box(path, b"stsz", 4, struct.pack(">II", 1, claim))
    patch_box(path, b"stts", 4, struct.pack(">III", 1, claim, 512))
    patch_box(path, b"stsc", 4, struct.pack(">IIII", 1, 1, claim, 1))
    with pytest.raises(FootageError) as caught:
        read(path, "keyframe", Limits())
    assert caught.value.code in ("damaged", "decode_error")


@pytest.mark.parametrize("policy", ["keyframe", "dense"])
def test_a_clip_reads_the_index_and_its_frames_and_hardly_anything_else(
    tmp_path: Path, policy: Policy
) -> None:
    """Counted by the operating system, over all that the process reads while it decodes."""
    if not Path("/proc/self/io").exists():
        pytest.skip("this system does not count what a process reads")
    path = write_video(
        tmp_path / "a.mp4", frames=900, gop=30, draw=noisy, options={"qp": "8"}, audio=True
    )
    video = video_at(path)
    assert video.size_bytes > 8_000_000
    span_s = 20.0 if policy == "keyframe" else 2.5
    with DecodeProcess() as process:
        process.open_video(video).close()
        before = bytes_read(process)
        with process.open_video(video, decode_threads=1) as reader:
            window = Window(start_s=5.0, end_s=5.0 + span_s)
            clip = reader.read_clip(window, sampling(policy, span_s, 16))
        share = (bytes_read(process) - before) / video.size_bytes
    assert (clip.policy, len(set(clip.times_s))) == (policy, 16)
    assert share < 0.2


def noisy(index: int) -> av.VideoFrame:
    frame = solid(128, 128, 128, size=(192, 128))
    plane = np.frombuffer(memoryview(frame.planes[0]), np.uint8)
    plane[:] = np.random.default_rng(index).integers(16, 235, plane.size, np.uint8)
    return frame


def bytes_read(process: DecodeProcess) -> int:
    lines = Path(f"/proc/{process.pid}/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])
