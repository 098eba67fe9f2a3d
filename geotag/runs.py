"""One run of `geotag scan`: check, scan, write, account for every video."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import Engine, EngineChoice
from engines.bundle import read_bundle
from geotag.bundles import find_bundle
from geotag.console import Tally, describe_summary, printable
from geotag.errors import NoVideosError, OutputError
from geotag.footage.discover import find_videos
from geotag.interrupts import Interrupts
from geotag.places.hierarchy import read_hierarchy
from geotag.sampling import choose_sampling
from geotag.scan import scan
from geotag.writers import Outputs
from geotag.writers.run import (
    RUN_FILE,
    SECOND_RUN_FILE,
    RunFacts,
    choose_run_file,
    write_run,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from engines.bundle import Bundle
    from geotag.config import ScanConfig
    from geotag.console import Console
    from geotag.sampling import SamplingChoice
    from geotag.types import Tag, Video

OpenEngine = Callable[..., tuple[Engine, EngineChoice]]
"""`engines.choose.open_engine`, or what a test puts in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is settled before the first video is opened."""

    config: ScanConfig
    bundle: Bundle
    sampling: SamplingChoice
    choice: EngineChoice
    command: Sequence[str]
    started_utc: str


def find_footage(folder: Path) -> list[Video]:
    """The videos of a folder, or the one video that the path is.

    Raises:
        ConfigError: there is nothing at the path.
        NoVideosError: there is something, but no video.
    """
    videos = find_videos(folder)
    if videos:
        return videos
    raise NoVideosError(
        f"scanning {printable(str(folder))}: no videos. Looked in it and in every folder below, "
        "names with a leading dot left out, for files that are videos by their content or by "
        "their name, such as .mp4, .mov, .avi, .mkv, .ts. Is the card mounted?"
    )


def run_scan(
    videos: Sequence[Video],
    config: ScanConfig,
    *,
    console: Console,
    open_engine: OpenEngine,
    command: Sequence[str] = (),
    watch: Callable[[Tag], None] | None = None,
) -> Tally:
    """Scan videos into the files of the configuration.

    All that can be checked at once is checked first: outputs, bundle, engine. Whatever stops the
    scan later, Ctrl-C, a full disk, a bug, the videos finished by then are written.

    Args:
        videos: what to scan.
        config: the resolved settings.
        console: whom to tell.
        open_engine: how to open the engine.
        command: the command line, for `run.json`.
        watch: is shown each tag as it comes.

    Raises:
        ConfigError, OutputError, EngineError: as their names say.
        KeyboardInterrupt: the scan was interrupted; what was finished is written.
    """
    with Interrupts() as interrupts, ExitStack() as stack:
        outputs = Outputs(config.out)
        stack.callback(outputs.close, keep=False)
        bundle = read_bundle(find_bundle(config.bundle))
        hierarchy = read_hierarchy(bundle.file("places.csv"))
        sampling = choose_sampling(bundle, config.sampling)
        engine, choice = open_engine(bundle, engine=config.engine, threads=config.engine_threads)
        stack.callback(engine.close)
        plan = _Plan(
            config=config,
            bundle=bundle,
            sampling=sampling,
            choice=choice,
            command=tuple(command),
            started_utc=_now_utc(),
        )
        _announce(plan, len(videos), console)
        tags = scan(
            videos,
            bundle=bundle,
            hierarchy=hierarchy,
            engine=engine,
            choice=choice,
            config=config,
        )
        tally = Tally(total=len(videos), started_s=console.clock())
        _write_all(tags, outputs, tally, plan, console, interrupts, watch)
    _account(tally, plan, console)
    return tally


def _announce(plan: _Plan, count: int, console: Console) -> None:
    if plan.bundle.manifest.domain == "rendered":
        console.warn(
            f"the bundle {plan.bundle.label} knows only the rendered world of `geotag demo`; "
            "its answers for real footage mean nothing."
        )
    console.say(f"{count} video{'s' * (count != 1)}; bundle {plan.bundle.label}")
    console.say(f"engine {plan.choice}")
    console.say(f"sampling {plan.sampling}")


def _write_all(
    tags: Generator[Tag, None, None],
    outputs: Outputs,
    tally: Tally,
    plan: _Plan,
    console: Console,
    interrupts: Interrupts,
    watch: Callable[[Tag], None] | None,
) -> None:
    """Write tags as they come; on any stop, end the files with those that came."""
    outcome = "finished"
    try:
        console.progress(tally)
        with closing(tags):
            for tag in tags:
                with interrupts.held():  # written and counted, or neither
                    outputs.add(tag)
                    tally.add(tag)
                    if watch is not None:
                        watch(tag)
                console.progress(tally)
        if tally.done < tally.total:
            outcome = "stopped at the first failed video (--fail-fast)"
    except KeyboardInterrupt as exc:
        outcome = "interrupted"
        raise KeyboardInterrupt(_how_far(outcome, tally, outputs)) from exc
    except BaseException as exc:
        outcome = f"stopped: {exc!r}"
        raise
    finally:
        with interrupts.held(forget=True):
            console.clear()
            outputs.close(keep=tally.done > 0)
            _record_run(tally, outputs, plan, outcome, console)
        if tally.done < tally.total and outcome != "interrupted":
            console.warn(_how_far(outcome, tally, outputs))


def _account(tally: Tally, plan: _Plan, console: Console) -> None:
    """Tell what became of every video."""
    console.problems(tally)
    console.say(
        describe_summary(
            tally,
            console.clock(),
            ran_with=f"{plan.choice.name}; {plan.bundle.label}; "
            f"{plan.sampling.policy} {plan.sampling.span_s:g} s",
            written=", ".join(map(printable, plan.config.out)),
        )
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
        bundle=plan.bundle.label,
        engine=str(plan.choice),
        sampling=str(plan.sampling),
        outcome=outcome,
        counts=tally.counts(),
    )


def _how_far(outcome: str, tally: Tally, outputs: Outputs) -> str:
    """What became of a scan that did not reach its end."""
    names = ", ".join(printable(str(path)) for path in outputs.files) or "standard output"
    kept = f"written to {names}" if tally.done else "nothing is written"
    return f"{outcome}: {tally.done} of {tally.total} videos are done, {kept}."


def _now_utc() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
