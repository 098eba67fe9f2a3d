"""Worker threads that read telemetry and decode, ahead of the thread that judges."""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeVar

from engines.choose import usable_cores
from geotag.evidence import Recalled, Viewing
from geotag.footage.clips import Sampling, Window, plan_windows
from geotag.telemetry.track import Survey
from geotag.types import Clip, FootageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from geotag.config import ScanConfig
    from geotag.memory import Memory
    from geotag.model import Model
    from geotag.types import Video, VideoFacts

logger = logging.getLogger(__name__)

READY_CLIPS = 2
"""Clips of a video that may be decoded and not yet judged: one in the engine, one ahead."""
MAX_WORKERS = 4
"""More videos at a time would only take memory from decoders that wait for the engine."""
KNOWN_AHEAD = 16
"""Videos that the memory is asked for before their turn: enough that workers always have one."""
POSITIONS_ONLY = Sampling(
    policy="keyframe", span_s=20.0, frames=16, height_px=32, width_px=32, max_keyframe_gap_s=5.0
)
"""Without a model, frames that carry positions are decoded for those alone."""

_Expected = TypeVar("_Expected")


class VideoReader(Protocol):
    """An open video, as `geotag.footage.decode` makes it."""

    @property
    def facts(self) -> VideoFacts:
        """What the container says."""
        ...

    def read_clip(self, window: Window, sampling: Sampling) -> Clip:
        """Decode one clip.  Raises FootageError."""
        ...


class Station(Protocol):
    """What one worker thread reads with: a decoder and the readers of telemetry."""

    def open_video(
        self, video: Video, *, decode_threads: int
    ) -> AbstractContextManager[VideoReader]:
        """Open a video.  Raises FootageError."""
        ...

    def survey(self, video: Video, facts: VideoFacts | None) -> Survey:
        """Read the positions that a file carries; facts are None where it does not open."""
        ...

    def close(self) -> None:
        """End the processes behind it, from any thread and more than once."""
        ...


class MakeStation(Protocol):
    """How a worker thread gets its station."""

    def __call__(self) -> Station:
        """Make one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One video to read."""

    video: Video
    reads_ahead: bool
    """Decode its first clips before they are asked for: they will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A video that opens."""

    facts: VideoFacts | None = None
    windows: tuple[Window, ...] = ()


_Message = Survey | Opened | Clip | Exception


@dataclass(eq=False, slots=True)
class Job:
    """One video on its way, shared by the worker that reads it and the side that judges."""

    video: Video
    wanted: threading.Semaphore
    memory: Memory | None = None
    recalled: Recalled = field(default_factory=Recalled)
    messages: SimpleQueue[_Message] = field(default_factory=SimpleQueue)
    """Survey; Opened or an error; then one Clip or error for each that was asked for."""
    is_done: bool = False
    _asked: int = 0

    @property
    def is_known(self) -> bool:
        """Whether nothing of it can be wanted that the memory lacks; then no worker reads it."""
        return self.recalled.survey is not None and self.recalled.looked_at is not None

    @property
    def is_outward(self) -> bool:
        """Whether its pictures show the world: a camera that looks inside is not asked."""
        return self.video.origin.channel != "interior"

    @property
    def may_see_position(self) -> bool:
        """Whether its frames may carry positions themselves."""
        return self.video.origin.vendor == "Tesla"

    def survey(self) -> Survey:
        """What the telemetry says; waits for it."""
        if self.recalled.survey is not None:
            return self.recalled.survey
        found = self._receive(Survey)
        if self.memory is not None:
            self.memory.keep_survey(self.video, found)
        return found

    def known_viewing(self, *, looked_at: bool) -> Viewing | None:
        """What an earlier scan saw, if that is enough."""
        known = self.recalled
        if looked_at or known.opened is not None:
            return known.looked_at if looked_at else known.opened
        if known.looked_at is None:
            return None
        # Looked at before, and not wanted now: as if it had only been opened.
        facts, fault = known.looked_at.facts, known.looked_at.fault
        return Viewing(facts=facts, fault=fault if facts is None else None)

    def opened(self) -> Opened:
        """The open video; waits for it.  Raises FootageError."""
        return self._receive(Opened)

    def clip(self) -> Clip:
        """The next clip that was asked for; waits for it.  Raises FootageError."""
        return self._receive(Clip)

    def ask_for(self, clips: int) -> None:
        """Let the worker decode the first `clips` clips in all."""
        if clips > self._asked:
            self.wanted.release(clips - self._asked)
            self._asked = clips

    def keep(self, viewing: Viewing) -> None:
        """Put a viewing into the memory, if there is one."""
        if self.memory is not None:
            self.memory.keep_viewing(self.video, viewing)

    def finish(self) -> None:
        """Let the worker go on to another video."""
        self.is_done = True
        self.wanted.release()

    def _receive(self, kind: type[_Expected]) -> _Expected:
        message = self.messages.get()
        if isinstance(message, Exception):
            raise message
        if not isinstance(message, kind):
            raise TypeError(f"{self.video.name}: {message!r} where {kind.__name__} belongs")
        return message


class Gathering:
    """The worker threads, for as long as a scan lasts."""

    def __init__(
        self,
        work: Sequence[Work],
        *,
        model: Model | None,
        config: ScanConfig,
        make_station: MakeStation,
        memory: Memory | None = None,
    ) -> None:
        cores = usable_cores()
        # One worker more than cores: while it waits for the engine the others keep them busy.
        workers = config.decode_workers or min(MAX_WORKERS, cores + 1)
        workers = max(1, min(workers, len(work)))
        self._work = work
        self._model = model
        self._memory = memory
        self._make_station = make_station
        self._decode_threads = config.decode_threads or (cores if workers == 1 else 1)
        self._to_read: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._unfinished: set[Job] = set()
        self._stations: list[Station] = []
        self._is_stopped = False
        self.places = threading.Semaphore(workers + 1)
        self._threads = [
            threading.Thread(target=self._run, name=f"geotag-read-{index}", daemon=True)
            for index in range(workers)
        ]

    def __enter__(self) -> Gathering:
        """Start the threads."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, whatever is being read; no thread and no process is left behind."""
        with self._lock:
            self._is_stopped = True
            for job in self._unfinished:
                job.finish()
            stations = tuple(self._stations)
        for _ in self._threads:
            self._to_read.put(None)
        self.places.release(len(self._threads))
        for station in stations:
            station.close()
        for thread in self._threads:
            thread.join()

    def jobs(self) -> Iterator[Job]:
        """Every video as a job, in order.

        The memory is asked here, a few videos ahead, and not by the workers: a card that is known
        whole is then gone through by one thread alone.
        """
        rest = iter(self._work)
        begun: deque[Job] = deque()
        for _ in self._work:
            begun.extend(self._begin(work) for work in islice(rest, KNOWN_AHEAD - len(begun)))
            job = begun.popleft()
            yield job
            job.finish()
            if not job.is_known:
                with self._lock:
                    self._unfinished.discard(job)
                self.places.release()

    def _begin(self, work: Work) -> Job:
        """Make a job, and give it to the workers if anything of it has to be read."""
        ahead = READY_CLIPS if work.reads_ahead else 0
        memory = self._memory
        job = Job(
            video=work.video,
            wanted=threading.Semaphore(ahead),
            memory=memory,
            recalled=Recalled() if memory is None else memory.recall(work.video),
            _asked=ahead,
        )
        if not job.is_known:
            self._to_read.put(job)
        return job

    def _run(self) -> None:
        with ExitStack() as stack:
            station = self._make_station()
            stack.callback(station.close)
            with self._lock:
                self._stations.append(station)
            while (job := self._next_job()) is not None:
                try:
                    self._read(job, station)
                except Exception as exc:  # noqa: BLE001 - becomes the Failure of this one video
                    job.messages.put(exc)

    def _next_job(self) -> Job | None:
        """Take the next video; None when all is over."""
        self.places.acquire()
        job = self._to_read.get()
        with self._lock:
            if job is None or self._is_stopped:
                return None
            self._unfinished.add(job)
            return job

    def _read(self, job: Job, station: Station) -> None:
        """Send what the memory lacks, as it is asked for."""
        recalled = job.recalled
        known = recalled.viewing
        reader: VideoReader | None = None
        fault: Exception | None = None
        facts = known.facts if known else None
        with ExitStack() as stack:
            if known is None:
                try:
                    reader = stack.enter_context(self._open(job.video, station))
                    facts = reader.facts
                except FootageError as exc:
                    fault = exc
            elif known.fault is not None and facts is None:
                fault = FootageError(known.fault.stage, known.fault.code, known.fault.message)
            if recalled.survey is None:
                job.messages.put(_survey(job.video, facts, station))
            if recalled.looked_at is not None:
                return
            if fault is not None or facts is None:
                job.messages.put(fault or RuntimeError("a video that opens has facts"))
                return
            windows = self._windows(job.video, facts)
            job.messages.put(Opened(facts=facts, windows=windows))
            for window in windows:
                job.wanted.acquire()
                if job.is_done:
                    return
                try:
                    reader = reader or stack.enter_context(self._open(job.video, station))
                    job.messages.put(reader.read_clip(window, self._sampling))
                except FootageError as exc:
                    job.messages.put(exc)

    def _open(self, video: Video, station: Station) -> AbstractContextManager[VideoReader]:
        return station.open_video(video, decode_threads=self._decode_threads)

    @property
    def _sampling(self) -> Sampling:
        return POSITIONS_ONLY if self._model is None else self._model.sampling

    def _windows(self, video: Video, facts: VideoFacts) -> tuple[Window, ...]:
        if self._model is None:
            return plan_windows(facts.duration_s, POSITIONS_ONLY.span_s, 3)
        return self._model.windows(video, facts)


def _survey(video: Video, facts: VideoFacts | None, station: Station) -> Survey:
    """The survey of a file; a bug of ours in it costs the positions, not the video."""
    try:
        return station.survey(video, facts)
    except Exception as exc:
        logger.debug("%s: reading its telemetry failed", video.name, exc_info=exc)
        return Survey(notes=(f"a bug in geotag while reading positions ({exc!r})",))
