"""Clips out of video files: the frames of a policy are decoded, and as little else as can be."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from geotag.footage import clips, container, probe
from geotag.footage.clips import Sampling, Window
from geotag.footage.frames import FrameDecoder
from geotag.footage.limits import Meter
from geotag.footage.packets import PacketSource, Timeline
from geotag.footage.pictures import PictureMaker
from geotag.footage.user_data import CODECS_WITH_USER_DATA, read_payloads
from geotag.types import Clip, FootageError, Policy, Video, VideoFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

_LARGEST_WALK_BYTES = 1 << 30
"""A video of unknown duration is walked to its end only if it is no larger."""
_MOST_WALKED = 20_000
"""Packets that one clip looks at: eleven minutes at 30 fps."""
_CUT_OFF_S = 0.5
"""A video may end this much before its stated duration: sound often runs a little longer."""
_MOST_UNSTEADY = 0.1
"""Share of frames that may come much too early or too late: cameras drop some."""
_LOOKED_AT = 1.25
"""Times the length of a dense clip in which its frames are looked for."""
_UNSTEADY_RATE = "the frame rate varies or is unknown: frames chosen by time"


def open_video(
    video: Video,
    *,
    decode_threads: int = 2,
    meter: Meter | None = None,
    read_user_data: bool = False,
) -> VideoReader:
    """Open a video for reading clips.

    Args:
        video: what the walk found.
        decode_threads: threads that decode, >= 1. More are faster only where cores are idle.
        meter: what to count by, and to give up by; None is a new one.
        read_user_data: fill in `Clip.user_data`; for a process that does nothing else, because
            it takes collecting garbage after each frame.

    Raises:
        FootageError: stage "open"; its message is for a stranger.
    """
    meter = meter or Meter(size_bytes=video.size_bytes)
    head = probe.check_file(video)
    opened, stream = probe.open_stream(video, head, meter.limits)
    try:
        container.prepare_decoder(
            stream, threads=decode_threads, most_pixels=meter.limits.most_pixels
        )
        source = PacketSource(opened, stream, size_bytes=video.size_bytes, meter=meter)
        is_cut_off = probe.is_cut_off(video, opened)
        claim_s = None if is_cut_off else probe.claimed_duration_s(video, opened, stream)
        duration_s = probe.possible_duration_s(video, source.measured_end_s(claim_s)) or claim_s
        if duration_s is None and video.size_bytes <= _LARGEST_WALK_BYTES:
            duration_s = probe.possible_duration_s(video, source.walked_end_s())
        facts = probe.read_facts(video, opened, stream, duration_s=duration_s)
    except container.READING_ERRORS as exc:
        opened.close()
        raise FootageError("open", "damaged", f"reading the file failed: {exc}") from exc
    except BaseException:
        opened.close()
        raise
    return VideoReader(
        facts,
        source,
        stream,
        meter,
        is_cut_off=is_cut_off,
        reads_user_data=read_user_data and facts.codec in CODECS_WITH_USER_DATA,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Pictures:
    """Frames in the making."""

    ticks: NDArray[np.int64]
    """[T], of the frame that belongs in each place."""
    by_tick: dict[int, NDArray[np.uint8]]
    """[H, W, 3] each; several places may share one."""
    damaged: bool


class VideoReader:
    """An open video that clips are read from; for one thread, and closed after use."""

    def __init__(
        self,
        facts: VideoFacts,
        source: PacketSource,
        stream: VideoStream,
        meter: Meter,
        *,
        is_cut_off: bool,
        reads_user_data: bool,
    ) -> None:
        """Use `open_video` instead."""
        self.facts = facts
        self._source = source
        self._pictures = PictureMaker()
        self._is_cut_off = is_cut_off
        self._meter = meter
        self._decoder = FrameDecoder(source, stream, meter)
        self._reads_user_data = reads_user_data
        self._payloads: dict[int, tuple[bytes, ...]] = {}
        self._has_steady_rate = facts.fps is not None

    def __enter__(self) -> VideoReader:
        """Return the reader itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._source.close()

    def read_clip(self, window: Window, sampling: Sampling) -> Clip:
        """Read the frames of a window by the policy of a sampling.

        `dense` takes every n-th frame from the first one at or after the start, n from the span
        and the frame rate; where the sampling has slack, the start may be an earlier key frame.
        `exact` takes the frames nearest to evenly spaced times. `keyframe` takes the key frames
        nearest to those times and decodes nothing else; they must be close enough, and at least
        half as many as the clip has frames. A clip that cannot be had by its policy is an `exact`
        one, and `Clip.fallback` says why. What is missing (the video is shorter, cut off or
        damaged) is made up for by spreading the clip over what there is; frames repeat where there
        are too few.

        Raises:
            FootageError: stage "decode"; no frame decodes, or fewer than two different ones.
        """
        try:
            return self._read_clip(window, sampling)
        except container.READING_ERRORS as exc:
            raise FootageError(
                "decode", "decode_error", f"decoding stopped with an error: {exc}"
            ) from exc

    def _read_clip(self, window: Window, sampling: Sampling) -> Clip:
        self._decoder.errors = self._source.read_errors = 0
        self._meter.begin_clip()
        self._payloads = {}
        clip, fallback = None, None
        if sampling.policy == "dense":
            clip, fallback = self._dense(window, sampling)
        elif sampling.policy == "keyframe":
            clip, fallback = self._keyframes(window, sampling)
        return clip or self._exact(window, sampling, fallback)

    # dense

    def _dense(self, window: Window, sampling: Sampling) -> tuple[Clip | None, str | None]:
        """A clip of a fixed stride, or None and the reason, which is None if the video is short."""
        fps = self.facts.fps
        if fps is None or not self._has_steady_rate:
            return None, _UNSTEADY_RATE
        window = self._from_key_frame(window, sampling.slack_s)
        stride = clips.dense_stride(window, sampling.frames, fps, self.facts.duration_s)
        count = stride * (sampling.frames - 1) + 1
        # Cameras drop frames now and then: looked for in somewhat more time than they should take.
        end_s = window.start_s + _LOOKED_AT * count / fps
        packets: list[Packet[VideoStream]] = []
        timeline = self._source.timeline(window.start_s, end_s, most=_MOST_WALKED, held=packets)
        from_tick = math.ceil(window.start_s / self._source.tick_s - 1e-3)
        ticks = np.unique(timeline.ticks)
        passed = ticks[ticks >= from_tick][:count]
        steps = np.diff(passed) * self._source.tick_s * fps
        if len(steps) and np.mean(np.abs(steps - 1) > 0.5) > _MOST_UNSTEADY:
            self._has_steady_rate = bool(self._source.read_errors)
            return None, _UNSTEADY_RATE
        if len(passed) < count:
            return None, None
        ticks_T = passed[::stride]
        by_tick = self._decode_at(timeline, ticks_T, sampling, packets)
        if not set(ticks_T.tolist()) <= by_tick.keys():
            return None, None
        return self._clip(_Pictures(ticks_T, by_tick, self._is_damaged), "dense"), None

    def _from_key_frame(self, window: Window, slack_s: float) -> Window:
        """The window moved back to the last key frame before it, if that is near and known."""
        if not slack_s or not self._source.has_key_table:
            return window
        times_s = self._times_s(
            np.array(self._source.key_ticks(window.start_s, window.end_s), np.int64)
        )
        before_s = times_s[(times_s <= window.start_s) & (times_s >= window.start_s - slack_s)]
        if not len(before_s):
            return window
        back_s = window.start_s - float(before_s.max())
        return Window(start_s=window.start_s - back_s, end_s=window.end_s - back_s)

    # keyframe

    def _keyframes(self, window: Window, sampling: Sampling) -> tuple[Clip | None, str | None]:
        """A clip of key frames, or None and the reason."""
        key_ticks, window = self._find_keys(window, sampling.max_keyframe_gap_s)
        key_times_s = self._times_s(key_ticks)
        gap_s = clips.widest_gap_s(key_times_s, window)
        if gap_s > sampling.max_keyframe_gap_s:
            return None, (
                f"key frames are {gap_s:.1f} s apart, more than the "
                f"{sampling.max_keyframe_gap_s:g} s that this model takes"
            )
        if len(key_ticks) < 2:
            return None, f"there is only one key frame within {gap_s:.1f} s"
        wanted_s = clips.wanted_times(window, sampling.frames)
        ticks_T = key_ticks[clips.nearest(key_times_s, wanted_s)]
        picked = sorted(set(ticks_T.tolist()))
        if 2 * len(picked) < sampling.frames:
            span_s = window.end_s - window.start_s
            return None, f"only {len(picked)} key frames in {span_s:.1f} s"
        packets = self._source.packets_at(picked)
        # From here on by the packets' own times: a table may know only when they are decoded.
        own = {tick: self._source.tick(packet) for tick, packet in packets.items()}
        ticks = [own.get(tick) for tick in ticks_T.tolist()]
        needed = {tick for tick in ticks if tick is not None}
        by_tick = self._make(self._decoder.frames(packets.values()), needed, sampling)
        self._decoder.errors = 0
        for packet in packets.values():  # an open group of pictures may need a fresh decoder
            if self._source.tick(packet) not in by_tick:
                by_tick |= self._make(self._decoder.frames([packet]), needed, sampling)
        found = np.array([tick for tick in ticks if tick in by_tick], np.int64)
        if len(found) < len(ticks):
            return None, "some key frames do not decode"
        return self._clip(_Pictures(found, by_tick, self._is_damaged), "keyframe"), None

    def _find_keys(self, window: Window, max_gap_s: float) -> tuple[NDArray[np.int64], Window]:
        """Key frames in and around a window, and the part of the window that the video has."""
        if self._source.has_key_table:
            end_s = min(window.end_s, self.facts.duration_s or window.end_s)
            ticks = np.array(self._source.key_ticks(window.start_s, window.end_s), np.int64)
            return ticks, Window(start_s=min(window.start_s, end_s), end_s=end_s)
        # A key frame later than this is nearest to no wanted time, or the gap is too wide.
        timeline = self._source.timeline(window.start_s, window.end_s + max_gap_s)
        if timeline.is_end and len(timeline.ticks):
            window = clips.shorten(window, self._times_s(np.unique(timeline.ticks)))
        ticks = np.unique(timeline.ticks[timeline.is_key])
        after = int(np.searchsorted(self._times_s(ticks), window.end_s))
        return ticks[: after + 1], window

    # exact

    def _exact(self, window: Window, sampling: Sampling, fallback: str | None) -> Clip:
        """A clip of frames chosen by time; from the beginning if there is nothing where asked."""
        span_s = window.end_s - window.start_s
        seen = 0
        for place in (window, Window(start_s=0.0, end_s=span_s), Window(start_s=0.0, end_s=1e9)):
            pictures = self._spread(place, sampling)
            seen = max(seen, len(pictures.by_tick))
            if len(pictures.by_tick) < min(2, sampling.frames):
                continue
            if place is window:
                is_dense = sampling.policy == "dense" and fallback is None
                return self._clip(pictures, "dense" if is_dense else "exact", fallback)
            why = (
                f"nothing decodes from {window.start_s:.1f} to {window.end_s:.1f} s: "
                "frames from the beginning"
            )
            return self._clip(replace(pictures, damaged=True), "exact", why)
        if seen == 0:
            raise FootageError(
                "decode",
                "decode_error",
                "the file opens, but no frame of it decodes: it is damaged, or encrypted",
            )
        raise FootageError(
            "decode",
            "too_short",
            f"the video has {seen} frame that decodes; a clip needs at least 2",
        )

    def _spread(self, window: Window, sampling: Sampling) -> _Pictures:
        """Decode the frames nearest to evenly spaced times of what the window has."""
        asked_end_s = min(window.end_s, self.facts.duration_s or 0.0)
        window, timeline = self._look(window)
        nothing = _Pictures(np.empty(0, np.int64), {}, damaged=True)
        if not len(timeline.ticks):
            return nothing
        ends_early = timeline.is_end and window.end_s < asked_end_s - _CUT_OFF_S
        ticks_T = self._choose(window, sampling, timeline.ticks)
        by_tick = self._decode_at(timeline, ticks_T, sampling)
        if not set(ticks_T.tolist()) <= by_tick.keys():
            window, by_tick = self._decode_what_can_be(window, timeline, sampling)
            if not by_tick:
                return nothing
            ticks_T = self._choose(window, sampling, np.array(list(by_tick), np.int64))
        return _Pictures(ticks_T, by_tick, self._is_damaged or ends_early)

    def _decode_what_can_be(
        self, window: Window, timeline: Timeline, sampling: Sampling
    ) -> tuple[Window, dict[int, NDArray[np.uint8]]]:
        """Choose again, among the frames that do decode, and decode those.

        Twice through the window, so that not every frame of it need be held.
        """
        last_tick = int(timeline.ticks.max())
        decodable = [tick for tick, _ in self._decoder.frames(self._from(window), last_tick)]
        if not decodable:
            return window, {}
        ticks = np.unique(np.array(decodable, np.int64))
        if timeline.is_end or self._decoder.errors:
            window = clips.shorten(window, self._times_s(ticks))
        needed = set(self._choose(window, sampling, ticks).tolist())
        by_tick = self._make(self._decoder.frames(self._from(window), last_tick), needed, sampling)
        return window, by_tick

    def _look(self, window: Window) -> tuple[Window, Timeline]:
        """The packets of a window, and the part of it that the video has.

        A window past the end becomes as much of the end.
        """
        timeline = self._source.timeline(window.start_s, window.end_s, most=_MOST_WALKED)
        if not timeline.is_end or not len(timeline.ticks):
            return window, timeline
        times_s = self._times_s(np.unique(timeline.ticks))
        part = clips.shorten(window, times_s)
        if part.start_s < min(window.start_s, float(times_s[0])):
            timeline = self._source.timeline(part.start_s, part.end_s, most=_MOST_WALKED)
        return part, timeline

    def _from(self, window: Window) -> Iterator[Packet[VideoStream]]:
        return self._source.packets_from(window.start_s)

    def _choose(
        self, window: Window, sampling: Sampling, ticks: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Ticks of the T frames nearest to evenly spaced times of a window."""
        ticks = np.unique(ticks)
        wanted_s = clips.wanted_times(window, sampling.frames)
        return ticks[clips.nearest(self._times_s(ticks), wanted_s)]

    def _decode_at(
        self,
        timeline: Timeline,
        ticks_T: NDArray[np.int64],
        sampling: Sampling,
        held: list[Packet[VideoStream]] | None = None,
    ) -> dict[int, NDArray[np.uint8]]:
        """Decode from each needed key frame as far as the last frame needed after it.

        From the packets of the timeline where they were held, else from the file.
        """
        by_tick: dict[int, NDArray[np.uint8]] = {}
        for key_tick, needed in timeline.runs(set(ticks_T.tolist())):
            if held is None:
                packets = self._source.packets_from(key_tick * self._source.tick_s)
            else:
                packets = itertools.dropwhile(partial(self._is_not_at, key_tick), held)
            # The last in decoding order may be shown before another.
            wanted = set(needed)
            frames = self._decoder.frames(packets, needed[-1], needed=wanted)
            by_tick |= self._make(frames, wanted, sampling)
        return by_tick

    def _is_not_at(self, tick: int, packet: Packet[VideoStream]) -> bool:
        return self._source.tick(packet) != tick

    # all

    def _make(
        self, frames: Iterable[tuple[int, VideoFrame]], needed: set[int], sampling: Sampling
    ) -> dict[int, NDArray[np.uint8]]:
        """Pictures of the needed frames; stops when it has them all."""
        by_tick: dict[int, NDArray[np.uint8]] = {}
        for tick, frame in frames:
            if tick in needed and tick not in by_tick:
                by_tick[tick] = self._picture(tick, frame, sampling)
                if len(by_tick) == len(needed):
                    break
        return by_tick

    def _picture(self, tick: int, frame: VideoFrame, sampling: Sampling) -> NDArray[np.uint8]:
        """The picture of a frame; what else the frame carries is kept for the clip."""
        if self._reads_user_data:
            self._payloads[tick] = read_payloads(frame)
        return self._pictures.make(frame, sampling.height_px, sampling.width_px, sampling.resize)

    def _times_s(self, ticks: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.multiply(ticks, self._source.tick_s, dtype=np.float64)

    @property
    def _is_damaged(self) -> bool:
        return self._decoder.errors + self._source.read_errors > 0 or self._is_cut_off

    def _clip(self, pictures: _Pictures, policy: Policy, fallback: str | None = None) -> Clip:
        ticks = np.sort(pictures.ticks).tolist()
        return Clip(
            frames_THWC=np.stack([pictures.by_tick[tick] for tick in ticks]),
            times_s=tuple(self._time_s(tick) for tick in ticks),
            policy=policy,
            fallback=fallback,
            damaged=pictures.damaged,
            user_data=tuple(
                (self._time_s(tick), payload)
                for tick in dict.fromkeys(ticks)
                for payload in self._payloads.get(tick, ())
            ),
        )

    def _time_s(self, tick: int) -> float:
        return max(0.0, tick * self._source.tick_s)
