"""Which moments of a video become clips, and which frames a clip wants.

All times are seconds from the first frame; ranges are half-open, [start_s, end_s).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.bundle import Resize
    from geotag.types import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to turn a stretch of video into what the model takes."""

    policy: Policy
    span_s: float
    """Length of video that a clip covers, first frame to last."""
    frames: int
    height_px: int
    width_px: int
    max_keyframe_gap_s: float
    """Key frames further apart than this make a `keyframe` clip fall back to `exact`."""
    resize: Resize = "squash"
    slack_s: float = 0.0
    """How much earlier a `dense` clip may begin than asked, so that it begins with a key frame:
    what lies between the two is decoded for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The stretch of video that a clip covers: [start_s, end_s)."""

    start_s: float
    end_s: float


def plan_windows(duration_s: float | None, span_s: float, count: int) -> tuple[Window, ...]:
    """Choose `count` windows of span_s seconds, the most useful first.

    The windows are spread evenly over the video, and ordered so that any first few are spread too:
    middle, then the quarters, and so on. A video shorter than two spans gets
    windows that overlap by at most half, at least one; one no longer than the span gets a
    single window that covers it.

    Args:
        duration_s: length of the video; None if unknown, which gives one window from the start.
        span_s: wanted length of a window, > 0.
        count: the most windows wanted, >= 1.

    Returns:
        1 to `count` windows inside [0, duration_s).
    """
    if span_s <= 0 or count < 1:
        raise ValueError(f"span_s {span_s} must be > 0 and count {count} >= 1")
    if duration_s is None:
        return (Window(start_s=0.0, end_s=span_s),)
    if duration_s <= span_s:
        return (Window(start_s=0.0, end_s=max(duration_s, 1e-3)),)
    room_s = duration_s - span_s
    fitting = max(1, min(count, int(room_s / (span_s / 2))))
    starts_s = [room_s * (index + 0.5) / fitting for index in range(fitting)]
    return tuple(
        Window(start_s=starts_s[index], end_s=starts_s[index] + span_s)
        for index in _spread_order(fitting)
    )


def rest_of(window: Window, moment: float) -> Window:
    """What is left of a window from a share of it on: 0 for all of it, 0.5 for its second half."""
    start_s = window.start_s + moment * (window.end_s - window.start_s)
    return Window(start_s=start_s, end_s=window.end_s)


def wanted_times(window: Window, frames: int) -> NDArray[np.float64]:
    """Evenly spaced times over a window.  -> [frames], seconds, first at start_s.

    The last one lies one step before end_s: a window of 16 frames is 16 equal steps long, and the
    wanted times are where the steps begin.
    """
    step_s = (window.end_s - window.start_s) / frames
    return window.start_s + step_s * np.arange(frames, dtype=np.float64)


def dense_stride(window: Window, frames: int, fps: float, duration_s: float | None) -> int:
    """How many frames on the next frame of a dense clip lies: >= 1, steady over the clip.

    The span of the window to the nearest whole stride, or a shorter one where the clip would
    otherwise run past the end of the video.
    """
    stride = round((window.end_s - window.start_s) * fps / frames)
    if duration_s is not None and frames > 1:
        left = math.ceil((duration_s - window.start_s) * fps - 0.5)
        stride = min(stride, (left - 1) // (frames - 1))
    return max(1, stride)


def nearest(times_s: NDArray[np.float64], wanted_s: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each wanted time the index of the nearest of some rising times.

    Of two that are equally near, to the microsecond, it is the earlier. Where everything falls on
    one frame and there are others, the clip shares its frames between the two that are nearest
    to its middle: a clip of one still picture says nothing about motion.
    """
    after = np.searchsorted(times_s, wanted_s).clip(0, len(times_s) - 1)
    before = (after - 1).clip(0)
    is_before = np.abs(times_s[before] - wanted_s) <= np.abs(times_s[after] - wanted_s) + 1e-6
    picked = np.where(is_before, before, after)
    if len(times_s) > 1 and len(wanted_s) > 1 and picked[0] == picked[-1]:
        middle_s = (wanted_s[0] + wanted_s[-1]) / 2
        first = int(np.searchsorted(times_s, middle_s).clip(1, len(times_s) - 1)) - 1
        picked = first + (np.arange(len(wanted_s)) * 2) // len(wanted_s)
    return picked


def shorten(window: Window, times_s: NDArray[np.float64]) -> Window:
    """The part of a window that some rising times cover, the last of them being the last there is.

    Where they end before the window begins, as much of their end as the window is long.
    """
    step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    end_s = min(window.end_s, float(times_s[-1]) + step_s)
    start_s = window.start_s
    if start_s >= end_s:
        start_s = max(float(times_s[0]), end_s - (window.end_s - window.start_s))
    return Window(start_s=start_s, end_s=max(end_s, start_s))


def widest_gap_s(key_times_s: NDArray[np.float64], window: Window) -> float:
    """Longest stretch of a window without a key frame; the window's edges count as ends."""
    inside = key_times_s[(key_times_s > window.start_s) & (key_times_s < window.end_s)]
    return float(np.diff([window.start_s, *inside, window.end_s]).max())


def _spread_order(count: int) -> list[int]:
    """Indices 0 .. count - 1, the middle first, each next one as far as can be from those before.

    Of those equally far from the nearest, the one that is farthest from all goes first; of these
    the most central one, and of two such the earlier.
    """
    indices = np.arange(count)
    off_centre = np.abs(2 * indices - (count - 1))
    nearest = np.full(count, count)  # 0 for what is in the order already
    sums = np.zeros(count, np.int64)
    order: list[int] = []
    while len(order) < count:
        farthest = np.flatnonzero(nearest == nearest.max())
        farthest = farthest[sums[farthest] == sums[farthest].max()]
        order.append(int(farthest[off_centre[farthest].argmin()]))
        distances = np.abs(indices - order[-1])
        np.minimum(nearest, distances, out=nearest)
        sums += distances
    return order
