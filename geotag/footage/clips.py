"""Which moments of a video become clips, and which frames a clip wants.

All times are seconds from the first frame; ranges are half-open, [start_s, end_s).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    fitting = min(count, 1 + int(room_s / (span_s / 2)))
    starts_s = [room_s * (index + 0.5) / fitting for index in range(fitting)]
    return tuple(
        Window(start_s=starts_s[index], end_s=starts_s[index] + span_s)
        for index in _spread_order(fitting)
    )


def wanted_times(window: Window, frames: int) -> NDArray[np.float64]:
    """Evenly spaced times over a window.  -> [frames], seconds, first at start_s.

    The last one lies one step before end_s: a window of 16 frames is 16 equal steps long, and the
    wanted times are where the steps begin.
    """
    step_s = (window.end_s - window.start_s) / frames
    return window.start_s + step_s * np.arange(frames, dtype=np.float64)


def _spread_order(count: int) -> list[int]:
    """Indices 0 .. count - 1, each next one far from those before it (middle first)."""
    order: list[int] = []
    left = set(range(count))
    while left:
        centre = (count - 1) / 2
        pick = min(
            left,
            key=lambda index: (
                -min((abs(index - done) for done in order), default=0),
                abs(index - centre),
                index,
            ),
        )
        order.append(pick)
        left.remove(pick)
    return order
