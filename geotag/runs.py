"""One run of `geotag scan`: check, scan, write, account for every video."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import Engine, EngineChoice
from engines.bundle import read_bundle
from geotag.bundles import find_bundle, has_default_bundle, no_model_text
from geotag.console import Tally, describe_summary, printable
from geotag.errors import NoVideosError, OutputError
from geotag.footage.discover import discover
from geotag.interrupts import Interrupts
from geotag.ledger import Ledger, ledger_path
from geotag.locks import OutputLock
from geotag.memory import Memory
from geotag.model import Model
from geotag.places.gazetteer import read_gazetteer
from geotag.places.hierarchy import read_hierarchy
from geotag.sampling import choose_sampling
from geotag.scan import Scan
from geotag.side_files import SideFiles
from geotag.station import station_maker, telemetry_settings
from geotag.telemetry.readers import SurveyReader
from geotag.track_use import TrackUse
from geotag.types import Discovery, Moment
from geotag.writers import Outputs
from geotag.writers.files import remove_leftovers
from geotag.writers.run import (
    RUN_FILE,
    SECOND_RUN_FILE,
    RunFacts,
    choose_run_file,
    write_run,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engines.bundle import Bundle
    from geotag.config import ScanConfig
    from geotag.console import Console
    from geotag.evidence import Evidence
    from geotag.footage.discover import Remember
    from geotag.gathering import MakeStation
    from geotag.types import Drive, Tag

OpenEngine = Callable[..., tuple[Engine, EngineChoice]]
"""`engines.choose.open_engine`, or what a test puts in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is settled before the first video is opened."""

    config: ScanConfig
    discovery: Discovery
    model: Model | None
    engine: str
    """The choice of the engine, for a person."""
    sampling: str
    command: Sequence[str]
    started_utc: str


def find_footage(
    folder: Path, *, ledger: Ledger | None = None, remember: Remember | None = None
) -> Discovery:
    """The videos of a folder, or the one video that the path is.

    Args:
        folder: where to look.
        ledger: knows files that have not changed, and is told of those that were read.
        remember: is told of the files that were read, where there is no ledger yet.

    Raises:
        ConfigError: there is nothing at the path.
        NoVideosError: there is something, but no video.
    """
    discovery = discover(
        folder,
        recall=ledger.recall if ledger else None,
        remember=ledger.remember if ledger else remember,
    )
    if discovery.videos:
        return discovery
    raise NoVideosError(
        f"scanning {printable(str(folder))}: no videos. Looked in it and in every folder below, "
        "names with a leading dot left out, for files that are videos by their content or by "
        "their name, such as .mp4, .mov, .avi, .mkv, .ts. Is the card mounted?"
    )


def run_scan(
    folder: Path,
    config: ScanConfig,
    *,
    console: Console,
    open_engine: OpenEngine,
    command: Sequence[str] = (),
    watch: Callable[[Tag], None] | None = None,
    only: Callable[[str], bool] | None = None,
    make_station: MakeStation | None = None,
) -> Tally:
    """Scan a folder into the files of the configuration.

    All that can be checked at once is checked first: outputs, bundle, engine. Whatever stops the
    scan later, Ctrl-C, a full disk, a bug, the videos finished by then are written.

    Args:
        folder: what to scan; a single video is taken as well.
        config: the resolved settings.
        console: whom to tell.
        open_engine: how to open the engine.
        command: the command line, for `run.json`.
        watch: is shown each tag as it comes.
        only: which names to scan; None: all.
        make_station: what worker threads read with; None is the real thing.

    Raises:
        ConfigError, NoVideosError, OutputError, EngineError: as their names say.
        KeyboardInterrupt: the scan was interrupted; what was finished is written.
    """
    with Interrupts() as interrupts, ExitStack() as stack:
        started_utc = _now_utc()
        ledger = _existing_ledger(config, console, stack)
        read: list[tuple[Path, os.stat_result, str, int]] = []
        discovery = find_footage(
            folder,
            ledger=ledger,
            remember=lambda *seen: read.append((*seen, time.time_ns())),
        )
        if only is not None:
            discovery = _narrow(discovery, only)
        SurveyReader().close()  # a wrong GEOTAG_EXIFTOOL is told before the scan
        tracks = TrackUse(config.gpx)
        _lock(config, console, stack)
        outputs = Outputs(config.out, with_tracks=bool(config.tracks))
        stack.callback(outputs.close, keep=False)
        side = SideFiles(config, folder, discovery, console)
        stack.callback(side.close, keep=False)
        model, engine_text = _open_model(config, open_engine, console, stack)
        if ledger is None:
            ledger = _new_ledger(config, read, console, stack)
        plan = _Plan(
            config=config,
            discovery=discovery,
            model=model,
            engine=engine_text,
            sampling=_describe_sampling(model),
            command=tuple(command),
            started_utc=started_utc,
        )
        _announce(plan, console)
        scanning = Scan(
            discovery,
            model=model,
            gazetteer=read_gazetteer(),
            config=config,
            make_station=make_station or station_maker(config, tracks.paths),
            memory=_memory(ledger, model, config),
        )
        tally = Tally(total=len(discovery.videos), started_s=console.clock())
        writing = _Writing(outputs, side, tally, watch, console, tracks)
        _write_all(scanning, writing, plan, interrupts)
    _account(writing, plan, scanning, console)
    return tally


def _narrow(discovery: Discovery, only: Callable[[str], bool]) -> Discovery:
    """The part of a discovery whose names are wanted."""

    def kept(drive: Drive) -> Drive:
        moments = (
            Moment(videos=tuple(video for video in moment.videos if only(video.name)))
            for moment in drive.moments
        )
        return replace(drive, moments=tuple(moment for moment in moments if moment.videos))

    drives = (kept(drive) for drive in discovery.drives)
    return Discovery(
        videos=tuple(video for video in discovery.videos if only(video.name)),
        drives=tuple(drive for drive in drives if drive.moments),
    )


def _existing_ledger(config: ScanConfig, console: Console, stack: ExitStack) -> Ledger | None:
    """The ledger of an earlier scan: it saves reading files that have not changed."""
    path = ledger_path(config.out, Path(config.state) if config.state else None)
    if path is None or not path.exists():
        return None
    return _open_ledger(path, console, stack)


def _new_ledger(
    config: ScanConfig,
    read: Sequence[tuple[Path, os.stat_result, str, int]],
    console: Console,
    stack: ExitStack,
) -> Ledger | None:
    """A ledger begun once there is something to scan, and told of the files read before it was."""
    path = ledger_path(config.out, Path(config.state) if config.state else None)
    if path is None:
        return None
    ledger = _open_ledger(path, console, stack)
    for file, status, content, seen_ns in read:
        ledger.remember(file, status, content, seen_ns=seen_ns)
    return ledger


def _open_ledger(path: Path, console: Console, stack: ExitStack) -> Ledger:
    ledger = stack.enter_context(Ledger(path))
    if ledger.warning:
        console.warn(ledger.warning)
    return ledger


def _lock(config: ScanConfig, console: Console, stack: ExitStack) -> None:
    outs = [*config.out, *([config.tracks] if config.tracks else [])]
    lock = stack.enter_context(OutputLock(outs))
    for warning in lock.warnings:
        console.warn(warning)
    if not lock.warnings:
        for out in outs:
            if out != "-":
                remove_leftovers(Path(out))


def _memory(ledger: Ledger | None, model: Model | None, config: ScanConfig) -> Memory | None:
    if ledger is None:
        return None
    return Memory(
        ledger,
        telemetry=telemetry_settings(config.gpx),
        pictures=model.settings if model else (),
        proxies=config.proxies,
        recalls=not config.fresh,
    )


def _open_model(
    config: ScanConfig, open_engine: OpenEngine, console: Console, stack: ExitStack
) -> tuple[Model | None, str]:
    """The model of a scan, or None where pictures are not wanted or there is nothing to see with.

    A bundle that was named is never done without.
    """
    if config.pictures == "never":
        return None, "none: pictures are not looked at"
    if config.bundle is None and not has_default_bundle():
        console.warn(
            "no model is installed or named with --bundle; files are tagged by the GPS they carry"
            if console.verbosity == "quiet"
            else f"{no_model_text()}\n  Until then, files are tagged by the GPS they carry."
        )
        return None, "none: no model is installed"
    bundle = read_bundle(find_bundle(config.bundle))
    _warn_of_domain(bundle, console)
    hierarchy = read_hierarchy(bundle.file("places.csv"))
    choose_sampling(bundle, config.sampling)  # a wrong one is told before the engine compiles
    engine, choice = open_engine(
        bundle,
        engine=config.engine,
        precision=None if config.precision == "auto" else config.precision,
        threads=config.engine_threads,
        say=console.say,
    )
    stack.callback(engine.close)
    return Model(bundle, hierarchy, engine, choice, config), str(choice)


def _warn_of_domain(bundle: Bundle, console: Console) -> None:
    if bundle.manifest.domain == "rendered":
        console.warn(
            f"the bundle {bundle.label} knows only the rendered world of `geotag demo`; "
            "its answers for real footage mean nothing."
        )


def _describe_sampling(model: Model | None) -> str:
    return "none" if model is None else str(model.choice)


def _announce(plan: _Plan, console: Console) -> None:
    count, drives = len(plan.discovery.videos), len(plan.discovery.drives)
    bundle = plan.model.bundle.label if plan.model else "none"
    skipped = len(plan.discovery.skipped)
    left_out = f", {skipped} left out (--explain says why)" if skipped else ""
    console.say(
        f"{count} video{'s' * (count != 1)} in {drives} drive{'s' * (drives != 1)}{left_out}; "
        f"bundle {bundle}"
    )
    if plan.model is not None:
        console.say(f"engine {plan.engine}")
        console.say(f"sampling {plan.sampling}")
        if console.verbosity == "verbose":
            console.say(f"licence of the weights: {plan.model.bundle.manifest.licence}")


class _Writing:
    """Where the tags of a scan go, one by one."""

    def __init__(
        self,
        outputs: Outputs,
        side: SideFiles,
        tally: Tally,
        watch: Callable[[Tag], None] | None,
        console: Console,
        tracks: TrackUse,
    ) -> None:
        self.outputs = outputs
        self.side = side
        self.tally = tally
        self.console = console
        self.tracks = tracks
        self._watch = watch

    def add(self, tag: Tag) -> None:
        """Write a tag everywhere, and count it."""
        self.outputs.add(tag)
        self.tally.add(tag)
        self.side.add(tag)
        if self._watch is not None:
            self._watch(tag)

    def add_drive(
        self, drive: Drive, evidence: Mapping[str, Evidence], tags: Sequence[Tag]
    ) -> None:
        """Take what is kept of a whole drive."""
        self.side.add_drive(drive, evidence, tags)
        self.tracks.add(evidence.values())


def _write_all(scanning: Scan, writing: _Writing, plan: _Plan, interrupts: Interrupts) -> None:
    """Write tags as they come; on any stop, end the files with those that came."""
    tally, console = writing.tally, writing.console
    outcome = "finished"
    scanning.on_drive = writing.add_drive
    try:
        console.progress(tally)
        with closing(scanning.tags()) as tags:
            for tag in tags:
                with interrupts.held():  # written and counted, or neither
                    writing.add(tag)
                console.progress(tally)
        if tally.done < tally.total:
            outcome = "stopped at the first failed video (--fail-fast)"
    except KeyboardInterrupt as exc:
        outcome = "interrupted"
        with interrupts.held(forget=True):
            for tag in scanning.unfinished():
                writing.add(tag)
        how_far = _how_far(outcome, tally, writing.outputs)
        raise KeyboardInterrupt(f"{how_far}{_way_on(plan, writing.outputs)}") from exc
    except BaseException as exc:
        outcome = f"stopped: {exc!r}"
        raise
    finally:
        with interrupts.held(forget=True):
            console.clear()
            writing.outputs.close(keep=tally.done > 0, tracks=writing.side.tracks)
            writing.side.close(keep=tally.done > 0)
            _record_run(tally, writing.outputs, plan, outcome, console)
        if tally.done < tally.total and outcome != "interrupted":
            console.warn(_how_far(outcome, tally, writing.outputs))


def _account(writing: _Writing, plan: _Plan, scanning: Scan, console: Console) -> None:
    """Tell what became of every video."""
    tally = writing.tally
    console.problems(tally)
    for warning in (*_warn_of_folders(plan.discovery), *writing.tracks.warnings()):
        console.warn(printable(warning))
    if scanning.needs_exiftool:
        console.warn(
            f"ExifTool is not installed: {scanning.needs_exiftool} videos were searched for GPS "
            "only where geotag can do without it. `geotag doctor` says how to install it."
        )
    model = plan.model
    chosen = f"{model.choice.policy} {model.choice.span_s:g} s" if model else ""
    ran_with = (
        f"{model.engine_name}; {model.bundle.label}; {chosen}"
        if model
        else f"without a model ({plan.engine.removeprefix('none: ')})"
    )
    console.say(
        describe_summary(
            tally,
            console.clock(),
            ran_with=ran_with,
            written=", ".join((*map(printable, plan.config.out), *writing.side.describe())),
        )
    )
    if model is not None and model.bundle.manifest.domain == "rendered":
        console.say(
            f"beware   {model.bundle.label} knows a rendered world only: what it says of real "
            "footage means nothing"
        )


def _warn_of_folders(discovery: Discovery) -> tuple[str, ...]:
    """That some of the videos counted are folders, which stand for all that may be in them."""
    empty = (video.path for video in discovery.videos if not video.size_bytes)
    count = sum(os.path.isdir(path) for path in empty)  # noqa: PTH112 - never raises
    if not count:
        return ()
    return (
        f"{count} of the {len(discovery.videos)} counted as videos "
        f"{'is a folder' if count == 1 else 'are folders'} that cannot be listed; the videos in "
        f"{'it' if count == 1 else 'them'} are not in this result",
    )


def _record_run(
    tally: Tally, outputs: Outputs, plan: _Plan, outcome: str, console: Console
) -> None:
    """`run.json` beside the first file; none where everything went to standard output.

    The tags are safe by now, so a record that cannot be written is a warning, not an error.
    """
    if not outputs.files or not tally.done:
        return
    folder = outputs.files[0].parent
    path = choose_run_file(folder)
    if path is None:
        console.warn(
            f"{RUN_FILE} and {SECOND_RUN_FILE} in {printable(str(folder))} are not geotag's and "
            "stay as they are; the facts of this run are not recorded."
        )
        return
    try:
        write_run(path, _run_facts(tally, plan, outcome))
    except OutputError as exc:
        console.warn(f"the tags are written, the facts of this run are not: {exc}")
        return
    if path.name != RUN_FILE:
        console.say(
            f"{RUN_FILE} in {printable(str(folder))} is not geotag's and stays as it is; the "
            f"facts of this run are in {path.name}"
        )


def _run_facts(tally: Tally, plan: _Plan, outcome: str) -> RunFacts:
    return RunFacts(
        started_utc=plan.started_utc,
        finished_utc=_now_utc(),
        command=tuple(plan.command),
        config=asdict(plan.config),
        bundle=plan.model.bundle.label if plan.model else None,
        licence=plan.model.bundle.manifest.licence if plan.model else None,
        engine=plan.engine,
        sampling=plan.sampling,
        outcome=outcome,
        counts=tally.counts(),
    )


def _how_far(outcome: str, tally: Tally, outputs: Outputs) -> str:
    """What became of a scan that did not reach its end."""
    names = ", ".join(printable(str(path)) for path in outputs.files) or "standard output"
    kept = f"written to {names}" if tally.done else "nothing is written"
    return f"{outcome}: {tally.done} of {tally.total} videos are done, {kept}."


def _way_on(plan: _Plan, outputs: Outputs) -> str:
    """How an interrupted scan goes on, where something remembers what was read."""
    if not outputs.files and plan.config.state is None:
        return ""
    without = " without --fresh" if plan.config.fresh else ""
    return f" Run the same command again{without} to go on."


def _now_utc() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
