"""Clips and videos of the rendered world: never real footage, for demos and experiments.

Shape legend: T frames, H/W pixels, C = 3 colours. Only numpy and PyAV are used, so that the demo
runs where torch is not installed.
"""

import datetime as dt
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from train.data.lens import burn_line, develop, pass_lens
from train.data.scenery import paint_scenery
from train.data.view import aim_camera, pose_at
from train.data.world import Drive, scene_group

Policy = Literal["dense", "exact", "keyframe"]

NOTICE = "Rendered by geotag: NOT real footage"


def sample_times(
    policy: Policy,
    span_s: float,
    *,
    frames: int = 16,
    duration_s: float,
    rng: np.random.Generator,
    jitter: bool = True,
) -> NDArray[np.float64]:
    """Moments [T] of one clip in seconds, ascending and inside [0, duration_s).

    `dense` and `exact` spread frames evenly over the span; `keyframe` moves each to the nearest
    whole second, where a video with one-second groups of pictures has its key frames, so short
    spans hold repeats.

    Args:
        policy: How frames are picked.
        span_s: Length of the clip, cut to fit; a frame begins each of `frames` equal steps.
        frames: Number of frames.
        duration_s: Length of the drive.
        rng: Draws the start.
        jitter: Start at random; otherwise the span is centred.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"cannot sample by {policy!r}: choose dense, exact or keyframe")
    if frames < 1 or span_s < 0.0 or duration_s <= 0.0:
        raise ValueError(f"cannot sample {frames} frames over {span_s} s of {duration_s} s")
    end_s = np.nextafter(duration_s, 0.0)
    span_s = min(span_s, end_s)
    slack_s = end_s - span_s
    start_s = rng.uniform(0.0, slack_s) if jitter else 0.5 * slack_s
    times_s = np.clip(start_s + np.linspace(0.0, span_s, frames, endpoint=False), 0.0, end_s)
    if policy == "keyframe":
        last_s = np.ceil(duration_s) - 1.0
        times_s = np.clip(np.floor(times_s + 0.5), 0.0, last_s)
    return times_s


def render_frames(
    drive: Drive, times_s: NDArray[np.float64], *, height: int = 112, width: int = 112
) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] of a drive, RGB; the view is that of a 16:9 frame whatever the size.

    Raises:
        ValueError: A time lies outside [0, drive.duration_s].
    """
    times_s = np.asarray(times_s, dtype=np.float64)
    if times_s.size and (times_s.min() < 0.0 or times_s.max() > drive.duration_s):
        raise ValueError(f"cannot render outside [0, {drive.duration_s}] s: got {times_s}")
    frames_THWC = np.empty((len(times_s), height, width, 3), np.uint8)
    drawn: dict[float, int] = {}
    for position, time_s in enumerate(times_s.tolist()):
        if time_s in drawn:  # key frames of a short span repeat
            frames_THWC[position] = frames_THWC[drawn[time_s]]
            continue
        drawn[time_s] = position
        _render_frame(drive, time_s, frames_THWC[position])
    return frames_THWC


def render_clip(
    drive: Drive,
    policy: Policy,
    span_s: float,
    *,
    rng: np.random.Generator,
    frames: int = 16,
    size: int = 112,
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """One clip [T, size, size, 3] of a drive, and the scene group of each frame [T]."""
    times_s = sample_times(policy, span_s, frames=frames, duration_s=drive.duration_s, rng=rng)
    scenes_T = np.array([scene_group(drive, time_s) for time_s in times_s.tolist()], np.intp)
    return render_frames(drive, times_s, height=size, width=size), scenes_T


def write_video(
    drive: Drive,
    path: str | Path,
    *,
    duration_s: float | None = None,
    start_s: float = 0.0,
    fps: float = 10.0,
    width: int = 1280,
    height: int = 720,
    render_width: int = 640,
) -> None:
    """Writes [start_s, start_s + duration_s) of a drive as an H.264 MP4 with a key frame a second.

    The file says that it is rendered in its metadata and in the line burnt into every frame.
    """
    duration_s = drive.duration_s - start_s if duration_s is None else duration_s
    if start_s < 0.0 or duration_s <= 0.0 or start_s + duration_s > drive.duration_s:
        raise ValueError(
            f"cannot write [{start_s}, {start_s + duration_s}) s: drive lasts {drive.duration_s} s"
        )
    drawn_width = min(render_width, width)
    drawn_height = round(drawn_width * height / width)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        container.metadata["title"] = NOTICE
        container.metadata["comment"] = f"{NOTICE}; split {drive.split}, drive {drive.index}"
        stream = _add_stream(container, rate, width, height)
        for number in range(round(duration_s * fps)):
            time_s = np.array([start_s + number / float(rate)])
            pixels = render_frames(drive, time_s, height=drawn_height, width=drawn_width)[0]
            frame = _enlarge(pixels, width, height)
            frame.pts = number
            frame.time_base = 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _add_stream(
    container: av.container.OutputContainer, rate: Fraction, width: int, height: int
) -> av.VideoStream:
    second = max(round(rate), 1)
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.time_base = 1 / rate
    stream.gop_size = second
    stream.options = {
        "preset": "veryfast",
        "crf": "26",
        "x264-params": f"keyint={second}:min-keyint={second}:scenecut=0:open-gop=0:"
        "colorprim=bt709:transfer=bt709:colormatrix=bt709:threads=1",
    }
    return stream


def _enlarge(pixels: NDArray[np.uint8], width: int, height: int) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
        width=width,
        height=height,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
    )


def _render_frame(drive: Drive, time_s: float, out_HWC: NDArray[np.uint8]) -> None:
    camera = aim_camera(*out_HWC.shape[:2])
    canvas, view = paint_scenery(drive, camera, pose_at(drive, time_s))
    pass_lens(canvas, view, drive.seed)
    clock = dt.datetime(2015, 1, 1) + dt.timedelta(seconds=drive.clock_s + int(time_s))
    burn_line(canvas, f"RENDERED {clock:%Y-%m-%d %H:%M:%S}")
    develop(canvas, view, drive.seed, out_HWC)
