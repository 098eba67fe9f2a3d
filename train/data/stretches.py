"""A stretch of a video as a clip: the frames that a view wants, decoded as a scan decodes them.

No frame outside a stretch is shown: what lies there may have been left out for privacy, or be of
another split. Videos are decoded in a process apart, as in a scan, so that no file can take down
whoever reads.
"""

from __future__ import annotations

import math
import os
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from geotag.footage.clips import Sampling, Window
from geotag.footage.isolation import DecodeProcess
from geotag.types import FootageError, Video
from train.data.dataset import BadSample

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from engines.bundle import Policy
    from geotag.footage.isolation import RemoteReader
    from geotag.types import Clip, VideoFacts
    from train.data.dataset import SamplingRange, View

PURPOSE = 3
"""Of the randomness drawn here; see `View.generator`."""
_MOST_DENSE_S = 4.0
"""A fixed stride of a few frames: a dense clip of a dashcam is 2 to 4 s long."""
_LEAST_KEYFRAME_S = 8.0
"""From under 8 s of key frames a scan makes no clip (geotag.footage.clips)."""
_EDGE_S = 0.002
"""A frame may lie this much outside its stretch, for times are rounded; one chosen by time half
the time between two frames, which is how far the one nearest to an edge may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a video, [start_s, end_s)."""

    video: str
    """Path below the folder of the footage, for a person."""
    path: Path
    start_s: float
    end_s: float


def unreadable(name: str, stretch: Stretch, error: FootageError) -> BadSample:
    """What is told of a stretch that gives no clip."""
    return BadSample(
        name=name,
        reason=f"{stretch.video}, {stretch.start_s:g} to {stretch.end_s:g} s: {error.message}",
    )


def draw_clip(
    start_s: float, end_s: float, view: View, index: int, allowed: SamplingRange
) -> tuple[Window, Sampling]:
    """Choose the clip of a stretch, [start_s, end_s), that a view shows.

    Where the view leaves them open, policies are equally frequent as far as the stretch is long
    enough, and so are short and long spans (uniform in the logarithm). A window of key frames
    keeps half their allowed distance from the edges, so that the nearest ones lie inside.

    Returns:
        The window, inside the stretch, and how it is to be decoded.
    """
    rng = view.generator(index, PURPOSE)
    length_s = end_s - start_s
    policy = view.policy or _draw_policy(rng, length_s, allowed)
    margin_s = allowed.max_keyframe_gap_s / 2 if policy == "keyframe" else 0.0
    if 2 * margin_s >= length_s:
        margin_s = 0.0
    room_s = length_s - 2 * margin_s
    span_s = view.span_s or _draw_span_s(rng, policy, room_s, allowed)
    span_s = min(span_s, room_s)
    share = (view.part + 0.5) / view.parts if rng is None else rng.random()
    first_s = start_s + margin_s + share * (room_s - span_s)
    sampling = Sampling(
        policy=policy,
        span_s=span_s,
        frames=view.frames,
        height_px=view.image_px,
        width_px=view.image_px,
        max_keyframe_gap_s=allowed.max_keyframe_gap_s,
        resize=view.resize,
    )
    return Window(start_s=first_s, end_s=first_s + span_s), sampling


class Decoding:
    """The decoding process of whichever process asks: a fork must not share its parent's.

    A copy in another process, however it came there, begins without one.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._running: list[_Running] = []
        weakref.finalize(self, _end, self._running)

    def __reduce__(self) -> tuple[type[Decoding], tuple[()]]:
        """A process cannot be handed over."""
        return Decoding, ()

    def read_facts(self, path: Path) -> VideoFacts:
        """What the container of a video says.  Raises FootageError."""
        with self._open(path) as reader:
            return reader.facts

    def read_clip(self, stretch: Stretch, view: View, index: int, allowed: SamplingRange) -> Clip:
        """Read the clip that `draw_clip` chooses.

        Raises:
            FootageError: the file cannot be opened, or has no frames there that decode.
        """
        window, sampling = draw_clip(stretch.start_s, stretch.end_s, view, index, allowed)
        with self._open(stretch.path) as reader:
            clip = reader.read_clip(window, sampling)
            if not _is_inside(clip, stretch, reader):
                # Key frames, or a stride of whole frames, may reach over the edge; times do not.
                clip = reader.read_clip(window, replace(sampling, policy="exact"))
            if not _is_inside(clip, stretch, reader):
                raise FootageError(
                    "decode",
                    "decode_error",
                    "the video has no frames there that decode: it is shorter than it says, or "
                    "than when it was labelled, or damaged",
                )
        return clip

    def close(self) -> None:
        """End the process, if there is one; another read starts a new one."""
        _end(self._running)

    def _open(self, path: Path) -> RemoteReader:
        """Open a video, in a fresh process if this one has none yet."""
        try:
            size_bytes = path.stat().st_size
        except (OSError, ValueError) as exc:
            raise FootageError("open", "unreadable", f"it cannot be opened ({exc})") from exc
        if not self._running or self._running[-1].pid != os.getpid():
            # That of the parent is kept, for letting go of it here would close its pipes.
            self._running.append(_Running(os.getpid(), DecodeProcess()))
        video = Video(path=path, name=path.name, video_id="", size_bytes=size_bytes)
        return self._running[-1].decoder.open_video(video, decode_threads=1)


def _draw_policy(
    rng: np.random.Generator | None, length_s: float, allowed: SamplingRange
) -> Policy:
    if rng is None:
        return "exact"
    fitting: list[Policy] = ["dense", "exact"]
    if length_s - allowed.max_keyframe_gap_s >= _LEAST_KEYFRAME_S:
        fitting.append("keyframe")
    return fitting[int(rng.integers(len(fitting)))]


def _draw_span_s(
    rng: np.random.Generator | None, policy: Policy, room_s: float, allowed: SamplingRange
) -> float:
    low_s, high_s = {
        "dense": (allowed.min_span_s, _MOST_DENSE_S),
        "exact": (allowed.min_span_s, allowed.max_span_s),
        "keyframe": (_LEAST_KEYFRAME_S, allowed.max_span_s),
    }[policy]
    high_s = min(high_s, room_s)
    low_s = min(low_s, high_s)
    share = 0.5 if rng is None else rng.random()
    return math.exp((1 - share) * math.log(low_s) + share * math.log(high_s))


def _is_inside(clip: Clip, stretch: Stretch, reader: RemoteReader) -> bool:
    edge_s = _EDGE_S
    if clip.policy == "exact" and reader.facts.fps:
        edge_s = max(edge_s, 0.5 / reader.facts.fps)
    return clip.times_s[0] >= stretch.start_s - edge_s and clip.times_s[-1] < stretch.end_s + edge_s


@dataclass(slots=True)
class _Running:
    """A decoding process, and the process that started it."""

    pid: int
    decoder: DecodeProcess


def _end(running: list[_Running]) -> None:
    while running:
        one = running.pop()
        if one.pid == os.getpid():
            one.decoder.close()
