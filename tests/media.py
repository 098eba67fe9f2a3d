"""Test videos made in code, whose frame numbers can be read back from the pixels.

A frame shows its number as ten columns, most significant bit first: a one is white over black,
a zero black over white. A white strip on the left tells up from down and left from right.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from numpy.typing import NDArray

BITS = 10
WIDTH_PX, HEIGHT_PX = 192, 128


def bars(index: int, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> NDArray[np.uint8]:
    """The grey picture of a frame number below 1024.  -> [height_px, width_px]."""
    small = np.zeros((2, BITS + 2), np.uint8)
    for bit in range(BITS):
        small[index >> (BITS - 1 - bit) & 1, bit + 1] = 255
    small = 255 - small
    small[:, 0], small[:, -1] = 255, 0
    rows = np.arange(height_px) * 2 // height_px
    columns = np.arange(width_px) * (BITS + 2) // width_px
    return small[rows][:, columns]


def read_index(picture: NDArray[np.uint8]) -> int:
    """Frame number of a picture made of `bars`.  [H, W, 3] -> number."""
    grey = picture.astype(np.float64).mean(axis=2)
    height_px, width_px = grey.shape
    columns = ((np.arange(BITS) + 1.5) * width_px / (BITS + 2)).astype(int)
    above, below = grey[height_px // 4, columns], grey[height_px * 3 // 4, columns]
    assert np.all(np.abs(above - below) > 60), "this picture shows no frame number"
    assert grey[:, 2].mean() > grey[:, -3].mean() + 60, "this picture is not upright"
    return int("".join("1" if up > down else "0" for up, down in zip(above, below, strict=True)), 2)


def solid(
    luma: int, blue: int, red: int, *, pix_fmt: str = "yuv420p", size: tuple[int, int] = (64, 64)
) -> av.VideoFrame:
    """A frame of one colour, given as it is stored: Y, Cb and Cr in the format's own depth."""
    frame = av.VideoFrame(size[0], size[1], pix_fmt)
    for number, value in zip(range(len(frame.planes)), (luma, blue, red), strict=False):
        _plane(frame, number, pix_fmt)[:] = value
    return frame


def write_video(
    path: Path,
    *,
    frames: int = 60,
    fps: Fraction | int = 30,
    size: tuple[int, int] = (WIDTH_PX, HEIGHT_PX),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 15,
    b_frames: int = 0,
    options: dict[str, str] | None = None,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    times_s: Sequence[float] | None = None,
    start_s: float = 0.0,
    audio: bool = False,
    cover: bool = False,
    rotation_deg: int = 0,
    draw: Callable[[int], av.VideoFrame] | None = None,
    color_range: int | None = None,
    colorspace: int | None = None,
) -> Path:
    """Write a video of numbered frames.

    Args:
        path: where; the ending chooses the container unless `container` does.
        frames: how many.
        fps: frames per second.
        size: width and height of the stored pictures.
        codec: name of an encoder.
        pix_fmt: pixel format given to the encoder.
        gop: frames from key frame to key frame.
        b_frames: most B-frames in a row.
        options: of the encoder, beside the fastest there are.
        container: name of the format.
        container_options: of the format.
        times_s: time of each frame in place of a steady rate.
        start_s: time of the first frame.
        audio: put a silent sound track before the video track.
        cover: put a cover picture into the file.
        rotation_deg: clockwise turn that the header asks for; the pictures are stored turned the
            other way, so that a player shows them upright.
        draw: makes the frame of a number in place of `bars`.
        color_range: ffmpeg's number for the range to mark the stream with.
        colorspace: ffmpeg's number for the matrix to mark the stream with.
    """
    output = av.open(str(path), "w", format=container, options=container_options or {})
    sound = output.add_stream("aac", rate=8000, layout="mono") if audio else None
    stream: Any = output.add_stream(
        codec, rate=Fraction(fps), options=_encoder_options(codec, gop) | (options or {})
    )
    stream.width, stream.height = size
    stream.pix_fmt = pix_fmt
    stream.gop_size, stream.codec_context.max_b_frames = gop, b_frames
    stream.codec_context.thread_count = 1
    ticks_per_s = 90_000 if times_s is not None else Fraction(fps)
    if times_s is not None:
        stream.codec_context.time_base = Fraction(1, 90_000)
    if color_range is not None:
        stream.codec_context.color_range = color_range
    if colorspace is not None:
        stream.codec_context.colorspace = colorspace
    picture = _add_cover(output) if cover else None
    if sound is not None:
        _add_silence(output, sound, frames / float(fps))
    for index in range(frames):
        frame = (draw or _bars_frame(size, pix_fmt, rotation_deg))(index)
        time_s = times_s[index] if times_s is not None else index / Fraction(fps)
        frame.pts = round((Fraction(time_s) + Fraction(start_s)) * ticks_per_s)
        frame.time_base = Fraction(1) / ticks_per_s
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
    if picture is not None:
        output.mux(picture)
    output.close()
    if rotation_deg:
        _turn(path, rotation_deg)
    return path


def write_sound(path: Path, *, seconds: float = 1.0) -> Path:
    """Write a file that holds a sound track and nothing else."""
    output = av.open(str(path), "w")
    _add_silence(output, output.add_stream("aac", rate=8000, layout="mono"), seconds)
    output.close()
    return path


def cut(path: Path, share: float) -> Path:
    """Cut a file off after a share of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def drop_moov(path: Path) -> Path:
    """Cut an MP4 file off before its index, which must come last."""
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"moov") - 4])
    return path


def garble(path: Path, start: float, stop: float) -> Path:
    """Overwrite a stretch of a file, given in shares of its length, with a pattern."""
    content = bytearray(path.read_bytes())
    first, last = int(len(content) * start), int(len(content) * stop)
    content[first:last] = (b"\x5a\xa5\x3c" * (last - first))[: last - first]
    path.write_bytes(content)
    return path


def patch_box(path: Path, name: bytes, offset: int, value: bytes) -> Path:
    """Overwrite bytes of the first box of a name, counted from the end of its name."""
    content = bytearray(path.read_bytes())
    start = content.index(name) + len(name) + offset
    content[start : start + len(value)] = value
    path.write_bytes(content)
    return path


def _encoder_options(codec: str, gop: int) -> dict[str, str]:
    if codec == "libx264":
        still = f"keyint={gop}:min-keyint={gop}:scenecut=0"
        return {"preset": "ultrafast", "crf": "18", "x264-params": still}
    if codec in ("libx265", "hevc"):
        still = f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:log-level=none:pools=none"
        return {"preset": "ultrafast", "crf": "18", "x265-params": f"{still}:frame-threads=1"}
    return {"qmin": "1", "qmax": "3", "sc_threshold": "1000000000"} if codec == "mpeg4" else {}


def _bars_frame(
    size: tuple[int, int], pix_fmt: str, rotation_deg: int
) -> Callable[[int], av.VideoFrame]:
    turns = rotation_deg // 90
    upright = size if turns % 2 == 0 else size[::-1]

    def draw(index: int) -> av.VideoFrame:
        # numpy turns counterclockwise, against the turn that the header asks for.
        stored = np.rot90(bars(index, *upright), turns)
        levels = stored if "yuvj" in pix_fmt else 16 + stored // 255 * 219
        frame = solid(0, *(2 * [512 if "10le" in pix_fmt else 128]), pix_fmt=pix_fmt, size=size)
        _plane(frame, 0, pix_fmt)[: size[1], : size[0]] = levels * (4.0 if "10le" in pix_fmt else 1)
        return frame

    return draw


def _plane(frame: av.VideoFrame, number: int, pix_fmt: str) -> NDArray[Any]:
    """A plane of a frame, to write into.  -> [rows, columns with padding]."""
    plane = frame.planes[number]
    kind = np.dtype("<u2") if "10le" in pix_fmt else np.dtype(np.uint8)
    return np.frombuffer(memoryview(plane), kind).reshape(
        plane.height, plane.line_size // kind.itemsize
    )


def _add_cover(output: OutputContainer) -> list[Packet[Any]]:
    """A picture that is marked as the file's cover; larger than the video.  -> its packets."""
    stream: Any = output.add_stream("mjpeg", rate=1)
    stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
    stream.disposition = 0x400
    frame = solid(128, 90, 90, pix_fmt="yuvj420p", size=(640, 480))
    frame.pts = 0
    return [*stream.encode(frame), *stream.encode(None)]


def _add_silence(output: OutputContainer, stream: AudioStream, seconds: float) -> None:
    for start in range(0, int(seconds * 8000), 1024):
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def _turn(path: Path, rotation_deg: int) -> None:
    """Write the turn into the header of the first track (ISO/IEC 14496-12, 8.3.2)."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[rotation_deg]
    one = 1 << 16
    matrix = (cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    patch_box(path, b"tkhd", 40, struct.pack(">9i", *matrix))
