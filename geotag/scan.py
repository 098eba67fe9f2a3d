"""The pipeline: drives in, tags out, in order; prints nothing and writes no result.

Worker threads read telemetry and decode, each one video at a time; the calling thread runs the
engine. They meet in one queue per video, and two counts bound what waits there, whatever the
number and the length of the files: a worker may only begin a video while few are unfinished
(`Gathering.places`), and may only decode a clip that the engine side has asked for
(`Job.wanted`). What is read ahead never changes what is answered: clips are judged strictly in
the order of the plan.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from engines.base import EngineError
from geotag.evidence import Evidence, Fault, Viewing
from geotag.gathering import READY_CLIPS, Gathering, Opened, Work
from geotag.locate import Ran, locate_drive, place_of_fix
from geotag.station import station_maker
from geotag.telemetry.clock import repair_drive
from geotag.telemetry.readers import NEEDS_EXIFTOOL, survey_of_frames
from geotag.telemetry.track import Survey, survey_from_json, survey_to_json
from geotag.types import FootageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from geotag.config import ScanConfig
    from geotag.gathering import Job, MakeStation
    from geotag.memory import Memory
    from geotag.model import Model
    from geotag.places.gazetteer import Gazetteer
    from geotag.sight import Look
    from geotag.types import Discovery, Drive, Tag, Video, VideoFacts

logger = logging.getLogger(__name__)

__all__ = ["READY_CLIPS", "Scan", "scan"]


def scan(
    discovery: Discovery,
    *,
    model: Model | None,
    gazetteer: Gazetteer,
    config: ScanConfig,
    make_station: MakeStation | None = None,
    memory: Memory | None = None,
) -> Generator[Tag, None, None]:
    """Tag the videos of a folder.

    Args:
        discovery: what the folder holds.
        model: looks at pictures, in the calling thread; None reads positions only.
        gazetteer: names places.
        config: clips, sampling, threads; with `fail_fast` the first failure ends the scan.
        make_station: what a worker thread reads with; None: `geotag.station.RealStation`.
        memory: what earlier scans found, and where this one puts what it finds.

    Yields:
        One tag per video, in the order of `discovery.videos`; one that fails has the status
        "failed". Closing the generator early stops all decoding.

    Raises:
        ConfigError: the sampling policy asked for is not one of the bundle's.
        EngineError: the engine or the bundle fails.
        OutputError: the memory cannot be written.
        Exception: with `fail_fast`, what went wrong inside a video and is a bug of ours.
    """
    running = Scan(
        discovery,
        model=model,
        gazetteer=gazetteer,
        config=config,
        make_station=make_station,
        memory=memory,
    )
    yield from running.tags()


class Scan:
    """A scan that can be stopped anywhere, and asked then for the tags of what it had read."""

    def __init__(
        self,
        discovery: Discovery,
        *,
        model: Model | None,
        gazetteer: Gazetteer,
        config: ScanConfig,
        make_station: MakeStation | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._discovery = discovery
        self._model = model
        self._gazetteer = gazetteer
        self._config = config
        self._make_station = make_station or station_maker(config)
        self._memory = memory
        self._ran = Ran() if model is None else model.ran
        self._drive: Drive | None = None
        self._gathered: dict[str, Evidence] = {}
        """Of the drive that is being read."""
        self._waiting: dict[str, Tag] = {}
        """Tags of later videos, whose drive is done before those of earlier ones."""
        self._next = 0
        self._has_failed = False
        self.needs_exiftool = 0
        """Videos that nothing but ExifTool could have read, where it is missing."""
        self.on_drive: Callable[[Drive, Mapping[str, Evidence], Sequence[Tag]], None] | None = None
        """Is shown each drive once it is tagged."""

    def tags(self) -> Generator[Tag, None, None]:
        """Every tag, in order; see `scan`."""
        work = _order_of_work(self._discovery, self._model, self._config)
        with Gathering(
            work,
            model=self._model,
            config=self._config,
            make_station=self._make_station,
            memory=self._memory,
        ) as gathering:
            jobs = gathering.jobs()
            for drive in self._discovery.drives:
                self._drive = drive
                self._gather(drive, jobs)
                self._settle()
                yield from self._ready()
                if self._has_failed and self._config.fail_fast:
                    yield from self._rest()
                    return

    def unfinished(self) -> list[Tag]:
        """Tags of what was read and not yet given out, after a stop; still in order."""
        self._settle()
        return list(self._rest())

    def _gather(self, drive: Drive, jobs: Iterator[Job]) -> None:
        """Collect the evidence of a drive, stopping at a failure if that is wanted."""
        for moment in drive.moments:
            is_enough = False
            for video in moment.videos:
                job = next(jobs)
                evidence = self._read(job, is_wanted=not is_enough)
                is_enough |= evidence.viewing.sight is not None
                is_enough |= self._model is None and place_of_fix(evidence.survey)
                self._gathered[video.name] = evidence
                self.needs_exiftool += NEEDS_EXIFTOOL in evidence.survey.notes
                fault = evidence.viewing.fault
                if fault is not None and not place_of_fix(evidence.survey):
                    self._has_failed = True
                    if self._config.fail_fast:
                        return

    def _settle(self) -> None:
        """Tag the drive as far as it is read."""
        drive, gathered = self._drive, self._gathered
        self._drive, self._gathered = None, {}
        if drive is None or not gathered:
            return
        times = repair_drive(drive, {name: entry.survey for name, entry in gathered.items()})
        tags = locate_drive(drive, gathered, times, gazetteer=self._gazetteer, ran=self._ran)
        self._waiting |= {tag.path: tag for tag in tags}
        if self.on_drive is not None:
            self.on_drive(drive, gathered, tags)

    def _ready(self) -> Iterator[Tag]:
        videos = self._discovery.videos
        while self._next < len(videos):
            tag = self._waiting.pop(videos[self._next].name, None)
            if tag is None:
                return
            self._next += 1
            yield tag

    def _rest(self) -> Iterator[Tag]:
        videos = self._discovery.videos[self._next :]
        self._next = len(self._discovery.videos)
        for video in videos:
            tag = self._waiting.pop(video.name, None)
            if tag is not None:
                yield tag

    def _read(self, job: Job, *, is_wanted: bool) -> Evidence:
        """Take one video's evidence from its worker; what goes wrong stays inside it."""
        survey = Survey()
        try:
            survey = job.survey()
            viewing = self._view(job, survey, is_wanted=is_wanted)
        except EngineError:
            raise
        except Exception as exc:
            if self._config.fail_fast and not isinstance(exc, FootageError):
                raise
            viewing = Viewing(fault=_fault(exc, job.video))
        return _with_seen(Evidence(video=job.video, survey=survey, viewing=viewing))

    def _view(self, job: Job, survey: Survey, *, is_wanted: bool) -> Viewing:
        """Open a video, and look at it if that is wanted."""
        looks_on = is_wanted and job.is_outward and self._looks_at(job, survey)
        known = job.known_viewing(looked_at=looks_on)
        if known is not None:
            return known
        opened = Opened()
        viewing: Viewing
        try:
            opened = job.opened()
            viewing = self._judge(job, opened) if looks_on else Viewing(facts=opened.facts)
        except FootageError as exc:
            logger.debug("%s: %s failed: %s", job.video.name, exc.stage, exc.message)
            fault = Fault(stage=exc.stage, code=exc.code, message=exc.message)
            viewing = Viewing(facts=opened.facts, fault=fault, is_looked_at=looks_on)
        job.keep(viewing)
        return viewing

    def _looks_at(self, job: Job, survey: Survey) -> bool:
        if self._model is None:
            return job.may_see_position and not place_of_fix(survey)
        if self._config.pictures == "without_gps":
            return not place_of_fix(survey)
        return True

    def _judge(self, job: Job, opened: Opened) -> Viewing:
        """Look at clips in the order of the plan until that is enough."""
        looks: list[Look] = []
        errors: list[FootageError] = []
        seen: list[tuple[float, bytes]] = []
        read = 0
        for judged in range(len(opened.windows)):
            # One clip ahead of the one in the engine, unless that one is likely to settle it.
            likely_last = looks and self._is_enough([*looks, looks[-1]])
            job.ask_for(judged + (1 if likely_last else READY_CLIPS))
            try:
                clip = job.clip()
            except FootageError as exc:
                errors.append(exc)
                if exc.code in ("stalled", "crashed"):
                    break
                continue
            read += 1
            seen += clip.user_data
            if self._model is not None:
                looks.append(self._model.look(clip))
                logger.debug("%s: %r: %s", job.video.name, clip, looks[-1].city_probs.argmax())
                if self._is_enough(looks):
                    break
        if not read:
            raise errors[0]
        facts = opened.facts
        sight = self._model.see(facts, looks, errors) if self._model and facts else None
        return Viewing(
            facts=facts, sight=sight, is_looked_at=True, seen_survey=_survey_text(seen, facts)
        )

    def _is_enough(self, looks: Sequence[Look]) -> bool:
        return self._model is not None and self._model.is_enough(looks)


def _order_of_work(
    discovery: Discovery, model: Model | None, config: ScanConfig
) -> tuple[Work, ...]:
    """The videos as they are read: drive by drive, moment by moment, the best channel first."""
    looks_ahead = model is not None and config.pictures == "always"
    return tuple(
        Work(
            video=video,
            reads_ahead=looks_ahead and number == 0 and video.origin.channel != "interior",
        )
        for drive in discovery.drives
        for moment in drive.moments
        for number, video in enumerate(moment.videos)
    )


def _survey_text(seen: Sequence[tuple[float, bytes]], facts: VideoFacts | None) -> str | None:
    """The survey of what the frames themselves say of their position."""
    survey = survey_of_frames(seen, facts) if seen else None
    return survey_to_json(survey) if survey is not None else None


def _with_seen(evidence: Evidence) -> Evidence:
    """Take the positions that the frames carry, where nothing better is known."""
    text = evidence.viewing.seen_survey
    if text is None or evidence.survey.quality not in (None, "single_point"):
        return evidence
    return replace(evidence, survey=survey_from_json(text))


def _fault(exc: Exception, video: Video) -> Fault:
    if isinstance(exc, FootageError):
        return Fault(stage=exc.stage, code=exc.code, message=exc.message)
    logger.debug("%s: internal error", video.name, exc_info=exc)
    return Fault(
        stage="decode",
        code="internal",
        message=f"a bug in geotag ({type(exc).__name__}: {exc}); --verbose shows where. "
        "Please report it.",
    )
