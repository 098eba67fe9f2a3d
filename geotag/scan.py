"""The pipeline: videos in, tags out, in order; prints nothing and writes nothing.

Worker threads decode, each one video at a time; the calling thread runs the engine. They meet in
one queue per video, and two counts bound what waits there, whatever the number and the length of
the files: a worker may only begin a video while few are unfinished (`_Decoding.places`), and may
only decode a clip that the engine side has asked for (`_Job.wanted`). What is decoded ahead never
changes what is answered: clips are judged strictly in the order of the plan.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

import numpy as np

from engines.base import EngineError
from engines.choose import usable_cores
from geotag.footage.clips import Sampling, plan_windows
from geotag.locate import calibration_of, failed_tag, is_settled, make_tag, read_scores
from geotag.sampling import choose_sampling, count_clips
from geotag.types import Clip, Failure, FootageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from engines.base import Engine, EngineChoice
    from engines.bundle import Bundle, Level, LevelCalibration
    from geotag.config import ScanConfig
    from geotag.footage.clips import Window
    from geotag.locate import Look
    from geotag.places.hierarchy import Hierarchy
    from geotag.types import Tag, Video, VideoFacts

logger = logging.getLogger(__name__)

READY_CLIPS = 2
"""Clips of a video that may be decoded and not yet judged: one in the engine, one ahead."""
MAX_WORKERS = 4
"""More videos at a time would only take memory from decoders that wait for the engine."""


class VideoReader(Protocol):
    """An open video, as `geotag.footage.decode` makes it."""

    @property
    def facts(self) -> VideoFacts:
        """What the container says."""
        ...

    def read_clip(self, window: Window, sampling: Sampling) -> Clip:
        """Decode one clip.  Raises FootageError."""
        ...


class OpenVideo(Protocol):
    """How a video is opened; raises FootageError."""

    def __call__(self, video: Video, *, decode_threads: int) -> AbstractContextManager[VideoReader]:
        """Open it."""
        ...


def scan(
    videos: Sequence[Video],
    *,
    bundle: Bundle,
    hierarchy: Hierarchy,
    engine: Engine,
    choice: EngineChoice,
    config: ScanConfig,
    open_video: OpenVideo | None = None,
) -> Generator[Tag, None, None]:
    """Tag videos.

    Args:
        videos: what to scan.
        bundle: the model folder that the engine runs.
        hierarchy: the class tree of that bundle.
        engine: the compiled model; used in the calling thread only, and not closed.
        choice: which engine that is.
        config: clips, sampling, threads; with `fail_fast` the first failure is the last tag.
        open_video: how a video is opened; None is `geotag.footage.decode.open_video`.

    Yields:
        One tag per video, in the order of `videos`; a video that fails has the status "failed".
        Closing the generator early stops all decoding.

    Raises:
        ConfigError: the sampling policy asked for is not one of the bundle's.
        EngineError: the engine or the bundle fails.
        Exception: with `fail_fast`, what went wrong inside a video and is a bug of ours.
    """
    model = _Model(bundle, hierarchy, engine, choice, config)
    opener = open_video or _default_opener()
    with _Decoding(videos, model, opener) as decoding:
        for job in decoding.jobs():
            tag = _tag_video(job, model)
            yield tag
            if config.fail_fast and tag.status == "failed":
                return


class _Model:
    """What is the same for every video of a scan."""

    def __init__(
        self,
        bundle: Bundle,
        hierarchy: Hierarchy,
        engine: Engine,
        choice: EngineChoice,
        config: ScanConfig,
    ) -> None:
        chosen = choose_sampling(bundle, config.sampling)
        spec = bundle.manifest.input
        self.bundle = bundle
        self.hierarchy = hierarchy
        self.engine = engine
        self.engine_name = choice.name
        self.config = config
        self.calibration: dict[Level, LevelCalibration] = calibration_of(bundle)
        self.sampling = Sampling(
            policy=chosen.policy,
            span_s=chosen.span_s,
            frames=spec.frames,
            height_px=spec.height_px,
            width_px=spec.width_px,
            max_keyframe_gap_s=bundle.manifest.sampling.max_keyframe_gap_s,
        )

    def windows(self, facts: VideoFacts) -> tuple[Window, ...]:
        """The clips that a video may get, the most useful first."""
        usual = self.bundle.manifest.sampling.clips
        most = count_clips(facts.duration_s, self.config.clips, usual)
        return plan_windows(facts.duration_s, self.sampling.span_s, most)

    def look(self, clip: Clip) -> Look:
        """Run the engine on one clip."""
        scores = self.engine.infer(clip.frames_THWC[np.newaxis])
        return read_scores(scores, clip, hierarchy=self.hierarchy, calibration=self.calibration)

    def is_enough(self, looks: Sequence[Look]) -> bool:
        """Whether no further clip is needed."""
        return self.config.clips is None and is_settled(looks, self.config.stop_prob)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """First message of a video that opens."""

    facts: VideoFacts
    windows: tuple[Window, ...]


_Message = _Opened | Clip | Exception


class _Job:
    """One video on its way, shared by the worker that decodes it and the engine side."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self.messages: SimpleQueue[_Message] = SimpleQueue()
        """_Opened or an error; then one Clip or error for each clip that was asked for."""
        self.wanted = threading.Semaphore(READY_CLIPS)
        self.is_done = False
        self._asked = READY_CLIPS

    def ask_for(self, clips: int) -> None:
        """Let the worker decode the first `clips` clips in all."""
        if clips > self._asked:
            self.wanted.release(clips - self._asked)
            self._asked = clips

    def finish(self) -> None:
        """Let the worker go on to another video."""
        self.is_done = True
        self.wanted.release()


class _Decoding:
    """The worker threads, for as long as a scan lasts."""

    def __init__(self, videos: Sequence[Video], model: _Model, opener: OpenVideo) -> None:
        cores, config = usable_cores(), model.config
        # One worker more than cores: while it waits for the engine the others keep them busy.
        workers = config.decode_workers or min(MAX_WORKERS, cores + 1)
        workers = max(1, min(workers, len(videos)))
        self._videos = videos
        self._model = model
        self._opener = opener
        self._decode_threads = config.decode_threads or (cores if workers == 1 else 1)
        self._numbers = count()
        self._order: SimpleQueue[_Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._unfinished: set[_Job] = set()
        self._is_stopped = False
        self.places = threading.Semaphore(workers + 1)
        self._threads = [
            threading.Thread(target=self._work, name=f"geotag-decode-{index}", daemon=True)
            for index in range(workers)
        ]

    def __enter__(self) -> _Decoding:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop after the frames in hand; no thread is left behind."""
        with self._lock:
            self._is_stopped = True
            for job in self._unfinished:
                job.finish()
        self.places.release(len(self._threads))
        for thread in self._threads:
            thread.join()

    def jobs(self) -> Iterator[_Job]:
        """Every video as a job, in order, each as soon as a worker has begun it."""
        for _ in self._videos:
            job = self._order.get()
            yield job
            job.finish()
            with self._lock:
                self._unfinished.discard(job)
            self.places.release()

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            self._decode(job)

    def _next_job(self) -> _Job | None:
        """Take the next video; the lock keeps `_order` in the order of the videos."""
        self.places.acquire()
        with self._lock:
            number = next(self._numbers)
            if self._is_stopped or number >= len(self._videos):
                self.places.release()  # for the next worker to find this out
                return None
            job = _Job(self._videos[number])
            self._unfinished.add(job)
            self._order.put(job)
            return job

    def _decode(self, job: _Job) -> None:
        try:
            with self._opener(job.video, decode_threads=self._decode_threads) as reader:
                windows = self._model.windows(reader.facts)
                job.messages.put(_Opened(facts=reader.facts, windows=windows))
                for window in windows:
                    job.wanted.acquire()
                    if job.is_done:
                        return
                    job.messages.put(self._read(reader, window))
        except Exception as exc:  # noqa: BLE001 - becomes the Failure of this one video
            job.messages.put(exc)

    def _read(self, reader: VideoReader, window: Window) -> Clip | FootageError:
        try:
            return reader.read_clip(window, self._model.sampling)
        except FootageError as exc:
            return exc


def _tag_video(job: _Job, model: _Model) -> Tag:
    """Judge the clips of one video; what goes wrong stays inside its tag."""
    try:
        return _judge(job, model)
    except FootageError as exc:
        logger.debug("%s: %s failed: %s", job.video.name, exc.stage, exc.message)
        failure = Failure(video=job.video, stage=exc.stage, code=exc.code, message=exc.message)
    except EngineError:
        raise
    except Exception as exc:
        if model.config.fail_fast:
            raise
        logger.debug("%s: internal error", job.video.name, exc_info=True)
        failure = Failure(
            video=job.video,
            stage="decode",
            code="internal",
            message=f"a bug in geotag ({type(exc).__name__}: {exc}); --verbose shows where. "
            "Please report it.",
        )
    return failed_tag(failure)


def _judge(job: _Job, model: _Model) -> Tag:
    """Look at clips in the order of the plan until that is enough."""
    opened = _unpack(job.messages.get())
    if not isinstance(opened, _Opened):
        raise TypeError(f"the first message of a video is {opened!r}")
    looks: list[Look] = []
    errors: list[FootageError] = []
    for judged in range(len(opened.windows)):
        # One clip ahead of the one in the engine, unless that one is likely to settle it.
        likely_last = looks and model.is_enough([*looks, looks[-1]])
        job.ask_for(judged + (1 if likely_last else READY_CLIPS))
        try:
            clip = _unpack(job.messages.get())
        except FootageError as exc:
            errors.append(exc)
            continue
        if not isinstance(clip, Clip):
            raise TypeError(f"message {judged + 1} of a video is {clip!r}")
        looks.append(model.look(clip))
        logger.debug("%s: %r: %s", job.video.name, clip, looks[-1].city_probs.argmax())
        if model.is_enough(looks):
            break
    if not looks:
        raise errors[0]
    return make_tag(
        job.video,
        opened.facts,
        looks,
        hierarchy=model.hierarchy,
        bundle=model.bundle,
        engine=model.engine_name,
        sampling=model.sampling,
        errors=errors,
    )


def _unpack(message: _Message) -> _Opened | Clip:
    if isinstance(message, Exception):
        raise message
    return message


def _default_opener() -> OpenVideo:
    from geotag.footage.decode import open_video

    return open_video
