"""Messages are written into bare H.264 here as ITU-T H.264 7.3.2.3 and D.1.7 have them."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotag.footage.clips import Sampling, Window
from geotag.footage.decode import open_video
from geotag.footage.isolation import DecodeProcess
from geotag.footage.user_data import MOST_PAYLOAD_BYTES, holds_position, read_payloads
from geotag.types import Clip, Policy, Video
from tests.media import read_index, write_video

if TYPE_CHECKING:
    from pathlib import Path

UUID = bytes(range(0x10, 0x20))
NAL_UNIT = b"\x00\x00\x00\x01"


def message(index: int, *, uuid: bytes = UUID) -> bytes:
    """A message like Tesla's with the number of its frame where the position would be."""
    return uuid + b"\x42" * 3 + b"\x69" + struct.pack("<BdBd", 0x59, index + 0.5, 0x61, 0.25)


def sei(payload: bytes) -> bytes:
    size = len(payload)
    content = b"\x05" + b"\xff" * (size // 255) + bytes([size % 255]) + payload + b"\x80"
    escaped, zeros = bytearray(), 0
    for value in content:
        if zeros >= 2 and value <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(value)
        zeros = zeros + 1 if value == 0 else 0
    return NAL_UNIT + b"\x06" + bytes(escaped)


def with_messages(path: Path, *, uuid: bytes = UUID, extra: tuple[bytes, ...] = ()) -> Path:
    """Put a message before the picture of every frame of a bare H.264 file of one-slice frames."""
    content = path.read_bytes()
    units = [unit for unit in content.split(b"\x00\x00\x01") if unit.strip(b"\x00")]
    written, index = bytearray(), 0
    for unit in units:
        if unit[0] & 0x1F in (1, 5):
            for payload in (message(index, uuid=uuid), *extra):
                written += sei(payload)
            index += 1
        written += NAL_UNIT + unit.rstrip(b"\x00")
    path.write_bytes(written)
    return path


def remux(path: Path, target: Path) -> Path:
    with av.open(str(path)) as source, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                packet.pts = packet.dts = number
                packet.duration = 1
                packet.time_base = Fraction(1, 25)
                packet.stream = stream
                output.mux(packet)
    return target


def read(path: Path, policy: Policy = "exact") -> Clip:
    video = Video(path=path, name=path.name, video_id="", size_bytes=path.stat().st_size)
    sampling = Sampling(
        policy=policy, span_s=2.0, frames=4, height_px=48, width_px=96, max_keyframe_gap_s=1.0
    )
    with open_video(video, read_user_data=True) as reader:
        here = reader.read_clip(Window(start_s=0.3, end_s=2.3), sampling)
    with DecodeProcess() as process, process.open_video(video) as reader:
        there = reader.read_clip(Window(start_s=0.3, end_s=2.3), sampling)
    assert there.user_data == here.user_data
    return there


def bare(tmp_path: Path) -> Path:
    options = {"x264-params": "keyint=15:min-keyint=15:scenecut=0:slices=1:sliced-threads=0"}
    return write_video(
        tmp_path / "a.h264", container="h264", fps=25, frames=60, gop=15, options=options
    )


@pytest.mark.parametrize("policy", ["dense", "exact", "keyframe"])
@pytest.mark.parametrize("uuid", [UUID, b""])
def test_messages_come_with_the_frames_of_the_clip_and_no_others(
    tmp_path: Path, policy: Policy, uuid: bytes
) -> None:
    clip = read(with_messages(bare(tmp_path), uuid=uuid), policy)
    indices = list(dict.fromkeys(read_index(picture) for picture in clip.frames_THWC))
    assert [payload for _, payload in clip.user_data] == [
        message(index, uuid=uuid) for index in indices
    ]
    assert [time_s for time_s, _ in clip.user_data] == list(dict.fromkeys(clip.times_s))


def test_messages_come_out_of_an_mp4_file_too(tmp_path: Path) -> None:
    clip = read(remux(with_messages(bare(tmp_path)), tmp_path / "b.mp4"))
    assert [payload for _, payload in clip.user_data] == [
        message(read_index(picture)) for picture in clip.frames_THWC
    ]


def test_other_messages_and_endless_ones_are_left_out(tmp_path: Path) -> None:
    others = (
        UUID + b"x264 - core 164",
        UUID + b"\x42\x69" + bytes(MOST_PAYLOAD_BYTES),
        UUID[:3],
    )
    clip = read(with_messages(bare(tmp_path), extra=others))
    assert len(clip.user_data) == 4
    assert all(len(payload) < 64 for _, payload in clip.user_data)


def test_an_encoder_that_only_signs_its_work_gives_none(tmp_path: Path) -> None:
    assert read(write_video(tmp_path / "a.mp4", frames=75)).user_data == ()


def test_a_frame_with_another_kind_of_data_is_read_all_the_same(tmp_path: Path) -> None:
    """Exif in a JPEG, here its header and an empty list: ffmpeg 8 hands it on with the frame."""
    path = write_video(tmp_path / "a.avi", frames=75, codec="mjpeg", pix_fmt="yuvj420p")
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00" + struct.pack("<HHIHxx", 0x112, 3, 1, 1)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 6) + exif + bytes(4)
    # In a file that is only frames, so that no size beside them need be told.
    with av.open(str(path)) as source:
        frames = [bytes(packet) for packet in source.demux(video=0) if packet.size]
    bare = tmp_path / "a.mjpeg"
    bare.write_bytes(b"".join(frame[:2] + segment + frame[2:] for frame in frames))
    with av.open(str(bare), format="mjpeg") as source:
        (frame, *_) = source.decode(video=0)
        assert read_payloads(frame) == ()


@given(st.binary(max_size=64))
def test_any_message_is_judged(payload: bytes) -> None:
    expected = any(
        payload[start:].lstrip(b"\x42")[:1] == b"\x69" and payload[start : start + 1] == b"\x42"
        for start in (0, 16)
    )
    assert holds_position(payload) == expected
