"""Decoding in a process of its own, so that no file can take the scan down or hold it up.

The libraries that decode video are large, and a file from a stranger, or from a camera that lost
its power, may crash them, fill the memory or keep them busy for ever. `DecodeProcess` runs them in
a child (`geotag.footage.decode_worker`), ends the child where a file exceeds its limits, and gives
the next file a fresh one. Pictures come back through a pipe: 2.4 MB and about a millisecond a clip.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from geotag.footage.child import Child, ChildDiedError, ChildLateError
from geotag.footage.limits import DEFAULT_LIMITS, Limits
from geotag.types import Clip, FootageError, VideoFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from geotag.footage.clips import Sampling, Window
    from geotag.types import Stage, Video

_CLOSE_S = 5.0
"""To close a file; a child that takes longer is ended instead."""
_MOST_PAYLOAD_BYTES = 1 << 20
"""Of user data in one clip; the child keeps to a fraction of it."""

_Result = TypeVar("_Result")


class DecodeBugError(RuntimeError):
    """A mistake of ours inside the decoding process; the text holds its traceback."""


class DecodeStoppedError(RuntimeError):
    """The decoding process was closed while it was in use."""


class DecodeProcess:
    """Opens videos in a child process; for one thread, but `close` may come from any.

    The child starts with the first video, and again after one that ended it. It ends with this
    object, and with this process however that ends.
    """

    def __init__(self, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Start nothing yet."""
        self._limits = limits
        self._child: Child | None = None
        self._opens = 0
        self._in_use = threading.RLock()
        self._is_closed = False

    def __enter__(self) -> DecodeProcess:
        """Return the object itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the child."""
        self.close()

    @property
    def pid(self) -> int | None:
        """Number of the child's process; None while there is none."""
        child = self._child
        return None if child is None else child.pid

    def close(self) -> None:
        """End the child at once, whatever it is doing; whoever waits for it is told."""
        self._is_closed = True
        child = self._child
        if child is not None:
            child.kill()
        with self._in_use:
            self._end_child()

    def open_video(self, video: Video, *, decode_threads: int = 2) -> RemoteReader:
        """Open a video for reading clips; the one opened before is closed.

        Args:
            video: what the walk found.
            decode_threads: threads that decode, >= 1.

        Raises:
            FootageError: stage "open"; "stalled" and "crashed" are told here, not by the child.
            DecodeStoppedError: `close` was called.
            RuntimeError: the child does not start, or has a bug.
        """
        self._opens += 1
        clock = _Clock(self._limits, video.size_bytes)
        request = {
            "do": "open",
            "path": str(video.path.absolute()),
            "size_bytes": video.size_bytes,
            "decode_threads": decode_threads,
        }
        with self._guarded("open", clock):
            facts = self._retried(lambda: _read_facts(self._ask(request, clock)))
        return RemoteReader(self, facts, request, clock, number=self._opens)

    # for RemoteReader

    def read_clip(self, reader: RemoteReader, window: Window, sampling: Sampling) -> Clip:
        """Read a clip of the video opened last."""
        request = {"do": "clip", "window": asdict(window), "sampling": asdict(sampling)}

        def read() -> Clip:
            self._bury()
            if self._child is None:
                self._ask(reader.request, reader.clock)
            header = self._ask(request, reader.clock)
            return self._receive_clip(header, sampling, reader.clock)

        if not self._is_open(reader):
            raise RuntimeError("this video is closed, or another one was opened since")
        with self._guarded("decode", reader.clock):
            return self._retried(read)

    def close_video(self, reader: RemoteReader) -> None:
        """Close a video, if it is the one opened last."""
        if not self._is_open(reader):
            return
        self._opens += 1
        with self._in_use:
            if self._child is None or self._is_closed:
                return
            try:
                self._child.send({"do": "close"})
                while self._child.receive(_CLOSE_S)["kind"] != "closed":
                    pass
            except (ChildDiedError, ChildLateError):
                self._end_child()

    def _is_open(self, reader: RemoteReader) -> bool:
        return reader.number == self._opens

    def _retried(self, ask: Callable[[], _Result]) -> _Result:
        """Ask; once more in a fresh child if one ended.

        An earlier file may have broken it, or the system may have ended it for want of memory: a
        file is to blame only where it does so twice.
        """
        try:
            return ask()
        except ChildDiedError:
            if self._is_closed:
                raise
            self._end_child()
            return ask()

    @contextmanager
    def _guarded(self, stage: Stage, clock: _Clock) -> Iterator[None]:
        """Use the child alone; turn its end into what is wrong with the file."""
        with self._in_use:
            try:
                yield
            except ChildLateError as exc:
                self._end_child()
                raise FootageError(stage, "stalled", _describe_stall(clock)) from exc
            except ChildDiedError as exc:
                self._end_child()
                if self._is_closed:
                    raise DecodeStoppedError("decoding was stopped") from exc
                raise FootageError(stage, "crashed", _describe_crash(exc)) from exc
            except FootageError:
                raise
            except BaseException:  # half a conversation: the next file must not hear the rest
                self._end_child()
                raise

    def _ask(self, request: dict[str, Any], clock: _Clock) -> dict[str, Any]:
        """Send a request and wait for its reply."""
        child = self._running_child()
        with clock.running():
            child.send(request)
            while (header := child.receive(clock.left_s()))["kind"] == "progress":
                clock.decoded_px = int(header["decoded_px"])
        if header["kind"] == "failed":
            raise FootageError(header["stage"], header["code"], header["message"])
        if header["kind"] == "bug":
            raise DecodeBugError(
                f"{header['type']}: {header['message']}\n\nIn the decoding process:\n"
                f"{header['traceback']}"
            )
        return header

    def _running_child(self) -> Child:
        self._bury()
        if self._child is None:
            self._child = Child("geotag.footage.decode_worker", json.dumps(asdict(self._limits)))
            if not self._is_closed:
                self._child.wait_until_ready(self._limits.start_s)
        if self._is_closed:
            self._end_child()
            raise DecodeStoppedError("decoding was stopped")
        return self._child

    def _receive_clip(self, header: dict[str, Any], sampling: Sampling, clock: _Clock) -> Clip:
        assert self._child is not None
        wanted = (sampling.frames, sampling.height_px, sampling.width_px, 3)
        sizes = [int(size) for _, size in header["user_data"]]
        if tuple(header["shape"]) != wanted or not 0 <= sum(sizes) <= _MOST_PAYLOAD_BYTES:
            raise ChildDiedError(f"it sent a clip of {header['shape']} for one of {wanted}")
        frames_THWC = np.empty(wanted, np.uint8)
        with clock.running():
            self._child.receive_into(frames_THWC.data.cast("B"), clock.left_s())
            payloads = [self._child.receive_bytes(size, clock.left_s()) for size in sizes]
        times_s = [time_s for time_s, _ in header["user_data"]]
        return Clip(
            frames_THWC=frames_THWC,
            times_s=tuple(header["times_s"]),
            policy=header["policy"],
            fallback=header["fallback"],
            damaged=header["damaged"],
            user_data=tuple(zip(times_s, payloads, strict=True)),
        )

    def _bury(self) -> None:
        """Let go of a child that has ended by itself."""
        if self._child is not None and not self._child.is_alive():
            self._end_child()

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


class RemoteReader:
    """A video that is open in the child; clips are read from it as from a `VideoReader`."""

    def __init__(
        self,
        process: DecodeProcess,
        facts: VideoFacts,
        request: dict[str, Any],
        clock: _Clock,
        *,
        number: int,
    ) -> None:
        """Use `DecodeProcess.open_video` instead."""
        self.facts = facts
        self.request = request
        self.clock = clock
        self.number = number
        self._process = process
        self._failure: FootageError | None = None

    def __enter__(self) -> RemoteReader:
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
        self._process.close_video(self)

    def read_clip(self, window: Window, sampling: Sampling) -> Clip:
        """Read the frames of a window, as `geotag.footage.decode.VideoReader.read_clip` does.

        A file that stalled or crashed once is not tried again: it fails for good.

        Raises:
            FootageError: stage "decode".
            DecodeStoppedError: the process was closed.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._process.read_clip(self, window, sampling)
        except FootageError as exc:
            if exc.code in ("stalled", "crashed"):
                self._failure = exc
            raise


class _Clock:
    """How long the child has worked on a file, and how long it still may."""

    def __init__(self, limits: Limits, size_bytes: int) -> None:
        self.decoded_px = 0
        self._limits = limits
        self._size_bytes = size_bytes
        self._before_s = 0.0
        self._since_s: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the time inside the block count."""
        self._since_s = time.monotonic()
        try:
            yield
        finally:
            self._before_s, self._since_s = self.spent_s, None

    @property
    def spent_s(self) -> float:
        """Time that counted so far."""
        running_s = 0.0 if self._since_s is None else time.monotonic() - self._since_s
        return self._before_s + running_s

    def left_s(self) -> float:
        """Time until the file is cut off."""
        return self._limits.allowed_s(self._size_bytes, self.decoded_px) - self.spent_s


def _read_facts(header: dict[str, Any]) -> VideoFacts:
    return VideoFacts(**cast("dict[str, Any]", header["facts"]))


def _describe_stall(clock: _Clock) -> str:
    return (
        f"reading was cut off after {clock.spent_s:.0f} s without a result, longer than a file of "
        "this size may take: it is damaged, or its disk is very slow or does not answer"
    )


def _describe_crash(exc: ChildDiedError) -> str:
    how = str(exc)
    if exc.returncode is not None and exc.returncode < 0:
        try:
            how = signal.Signals(-exc.returncode).name
        except ValueError:
            how = f"signal {-exc.returncode}"
    return (
        f"decoding this file crashed the decoder ({how}): it is damaged in a way that the "
        "decoder does not survive, or there is not enough memory"
    )
