"""The process that decodes for another one: `python -m geotag.footage.decode_worker LIMITS`.

Requests come as lines of JSON on the standard input, in any order that makes sense:
`{"do": "open", ..}`, `{"do": "clip", ..}`, `{"do": "close"}`. Each gets one reply on the standard
output, after any number of `progress` ones: four bytes of length (big-endian), that much JSON, and
then the pixels and payloads whose sizes the JSON tells. Nothing is pickled.

The process ends itself when its input ends, whatever it is doing: it never outlives its parent.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import struct
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from geotag.footage.clips import Sampling, Window
from geotag.footage.decode import VideoReader, open_video
from geotag.footage.limits import Limits, Meter
from geotag.types import Clip, FootageError, Video

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRESS_EVERY_S = 0.25
_ORPHAN_S = 10.0
"""How much later than its parent would a process ends itself that hangs inside a library."""


def main(argv: Sequence[str]) -> int:
    """Answer requests until there are no more.

    Args:
        argv: the limits as JSON, and nothing else.
    """
    limits = Limits(**json.loads(argv[0]))
    replies = os.dup(1)
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    _leave_signals_to_the_parent()
    threading.Thread(target=_receive, args=(os.dup(0), requests), daemon=True).start()
    worker = _Worker(replies, limits)
    gc.freeze()  # the libraries need not be looked through after each file
    worker.send({"kind": "ready"})
    _silence()
    while True:
        worker.answer(requests.get())


class _Worker:
    """Holds the open video between requests."""

    def __init__(self, replies: int, limits: Limits) -> None:
        self._replies = replies
        self._limits = limits
        self._reader: VideoReader | None = None
        self._meter: Meter | None = None
        self._size_bytes = 0
        self._told_s = 0.0

    def send(self, header: dict[str, Any], *payloads: bytes | memoryview) -> None:
        """Write one reply."""
        text = json.dumps(header).encode("ascii")
        for part in (struct.pack(">I", len(text)) + text, *payloads):
            rest = memoryview(part).cast("B")
            while len(rest):
                rest = rest[os.write(self._replies, rest) :]

    def answer(self, request: dict[str, Any]) -> None:
        """Do what is asked, and reply; an error is a reply too."""
        self._size_bytes = request.get("size_bytes", self._size_bytes)
        self._set_alarm()
        try:
            self._do(request)
        except FootageError as exc:
            self.send(
                {"kind": "failed", "stage": exc.stage, "code": exc.code, "message": exc.message}
            )
        except MemoryError:
            self.send(
                {
                    "kind": "failed",
                    "stage": "open" if request["do"] == "open" else "decode",
                    "code": "too_large",
                    "message": "decoding this file takes more than "
                    f"{self._limits.most_memory_bytes >> 20} MiB of memory, which is refused",
                }
            )
        except Exception as exc:  # noqa: BLE001 - a bug of ours, raised again by the parent
            self.send(
                {
                    "kind": "bug",
                    "type": type(exc).__name__,
                    "message": str(exc),
                    "traceback": traceback.format_exc(),
                }
            )
        _set_timer(0.0)

    def _do(self, request: dict[str, Any]) -> None:
        if request["do"] == "clip":
            assert self._reader is not None
            assert self._meter is not None
            window, sampling = Window(**request["window"]), Sampling(**request["sampling"])
            self._send_clip(self._reader.read_clip(window, sampling))
            return
        self._close()
        if request["do"] == "close":
            self.send({"kind": "closed"})
            return
        video = Video(
            path=Path(request["path"]), name="", video_id="", size_bytes=request["size_bytes"]
        )
        threads = request["decode_threads"]
        _limit_memory(self._limits.most_memory_bytes + threads * self._limits.most_thread_bytes)
        self._meter = Meter(
            size_bytes=video.size_bytes, limits=self._limits, on_progress=self._tell_progress
        )
        self._reader = open_video(
            video, decode_threads=threads, meter=self._meter, read_user_data=True
        )
        self.send({"kind": "opened", "facts": asdict(self._reader.facts)})

    def _send_clip(self, clip: Clip) -> None:
        header = {
            "kind": "clip",
            "shape": clip.frames_THWC.shape,
            "times_s": clip.times_s,
            "policy": clip.policy,
            "fallback": clip.fallback,
            "damaged": clip.damaged,
            "user_data": [(time_s, len(payload)) for time_s, payload in clip.user_data],
        }
        self.send(header, clip.frames_THWC.data, *(payload for _, payload in clip.user_data))

    def _close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
            del reader
            gc.collect()  # frames of a large video in a forgotten cycle are much memory

    def _tell_progress(self, decoded_px: int) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= _PROGRESS_EVERY_S:
            self._told_s = now_s
            self._set_alarm()
            self.send({"kind": "progress", "decoded_px": decoded_px})

    def _set_alarm(self) -> None:
        """Have the kernel end this process should it hang where not even a thread can see to it."""
        _set_timer(self._limits.allowed_s(self._size_bytes, 0) + _ORPHAN_S)


def _receive(handle: int, requests: SimpleQueue[dict[str, Any]]) -> None:
    """Hand over requests, and end the process when there can be no more of them."""
    with open(handle, "rb") as stream:
        for line in stream:
            requests.put(json.loads(line))
    os._exit(0)


def _leave_signals_to_the_parent() -> None:
    """Ctrl-C and a polite kill reach whole groups of processes; the parent decides what ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _limit_memory(most_bytes: int) -> None:
    """Keep to so much address space, and write no picture of the memory after a crash."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    for kind, most in ((resource.RLIMIT_AS, most_bytes), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        if hard == resource.RLIM_INFINITY or most < hard:
            try:
                resource.setrlimit(kind, (most, hard))
            except (ValueError, OSError):  # a system that knows the limit, but does not keep it
                continue


def _silence() -> None:
    """Let what libraries print go nowhere, now that everything is imported.

    Some write to the handles of the process, past Python and past ffmpeg's log.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nowhere, handle)
    os.close(nowhere)


def _set_timer(after_s: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, after_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
