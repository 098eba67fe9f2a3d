"""The command line: flags, then settings, then one call, then an exit code.

Typer only reads the flags: a command leaves behind what is to be done, and `main` does it inside
the one place that turns errors into text and exit codes (`geotag.errors` lists them).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engines.base import EngineError
from engines.choose import open_engine
from geotag import __version__
from geotag.cli_export import export
from geotag.cli_machine import bench, doctor
from geotag.cli_models import CitiesOverOption, models_app
from geotag.console import Console, log_handler
from geotag.errors import (
    EXIT_BUG,
    EXIT_ENGINE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SOME_FAILED,
    ConfigError,
    GeotagError,
)
from geotag.interrupts import Interrupts
from geotag.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from geotag.runs import OpenEngine


app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Say where dashcam footage was recorded: continent, country, state, city. Offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.add_typer(models_app, name="models")
app.command()(export)


def run() -> None:
    """Be the process `geotag`."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # its reader is gone, or its disk is full: Python would complain again
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def main(argv: Sequence[str] | None = None, *, open_engine: OpenEngine = open_engine) -> int:
    """Do what the arguments ask for.

    Args:
        argv: arguments without the program's name; None takes those of the process.
        open_engine: how an engine is opened; tests put theirs here.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    asked = Invocation(command=("geotag", *given), open_engine=open_engine)
    try:
        app(given, prog_name="geotag", obj=asked)
    except SystemExit as stop:
        if asked.work is None:
            return stop.code if isinstance(stop.code, int) else EXIT_BUG
    return EXIT_OK if asked.work is None else _guard(asked.work, asked.console)


def _guard(work: Callable[[], int], console: Console) -> int:
    """The error boundary: whatever went wrong becomes a text and an exit code."""
    try:
        with _log_shown(console), Interrupts():
            return work()
    except GeotagError as exc:
        console.error(str(exc))
        return exc.exit_code
    except EngineError as exc:
        console.error(str(exc))
        return EXIT_ENGINE
    except KeyboardInterrupt as exc:
        console.error(str(exc) or "interrupted before anything was written.")
        return EXIT_INTERRUPTED
    except Exception:  # noqa: BLE001 - the last stop: a bug of ours, shown whole
        console.error(
            f"a bug in geotag. Please report this text and that of `geotag doctor`.\n"
            f"{traceback.format_exc()}"
        )
        return EXIT_BUG


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Flags that belong to no command."""
    if version:
        Console().result(f"geotag {__version__}")
        raise typer.Exit


@app.command()
def scan(
    ctx: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of videos, or a video.")],
    out: Annotated[
        list[str] | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File to write: .geojson, .geojsonl, .csv, .parquet or .gpkg; - is standard "
            "output. Repeatable. [default: tags.geojson]",
        ),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option("--bundle", "-b", metavar="NAME|FOLDER", help="Model to use."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="auto|openvino|tensorrt|tensorrt-rtx",
            help="What runs the model; auto: the first that works here, a GPU first.",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="auto|fp32|fp16|int8",
            help="Of the network's numbers; auto: the fastest that the bundle has.",
        ),
    ] = None,
    clips: Annotated[
        str | None,
        typer.Option("--clips", metavar="auto|N", help="Looks at each video; auto: enough."),
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(
            "--sampling",
            metavar="auto|dense|exact|keyframe",
            help="How the frames of a clip are chosen; auto: the cheapest that is good enough.",
        ),
    ] = None,
    gpx: Annotated[
        list[str] | None,
        typer.Option(
            "--gpx",
            metavar="FILE",
            help="Track of a receiver of its own (GPX, NMEA, SRT, FIT), matched by time. "
            "Repeatable.",
        ),
    ] = None,
    tracks: Annotated[
        str | None,
        typer.Option("--tracks", metavar="FILE", help="Also write the way of each drive: GeoJSON."),
    ] = None,
    sidecars: Annotated[
        str | None,
        typer.Option(
            "--sidecars", metavar="json,xmp", help="Also write such files beside each video."
        ),
    ] = None,
    sidecars_dir: Annotated[
        str | None,
        typer.Option(
            "--sidecars-dir",
            metavar="FOLDER",
            help="Write them below this instead; json,xmp if nothing is said.",
        ),
    ] = None,
    proxies: Annotated[
        bool, typer.Option("--proxies", help="Decode a camera's own small copy where there is one.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Read every file anew; default: only what changed.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print how each file is understood and why; scan nothing."),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings. [default: ./geotag.toml]"),
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first video that fails.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is done.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say errors only.")] = False,
) -> None:
    """Tag every video of a folder with the place where it was recorded."""
    flags: dict[str, object] = {
        "out": tuple(out or ()),
        "bundle": bundle,
        "engine": engine,
        "precision": precision,
        "clips": clips,
        "sampling": sampling,
        "gpx": tuple(gpx or ()),
        "tracks": tracks,
        "sidecars": sidecars or ("json,xmp" if sidecars_dir else None),
        "sidecars_dir": sidecars_dir,
        "proxies": proxies or None,
        "fresh": fresh or None,
        "fail_fast": fail_fast or None,
    }
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet exclude each other.")
    asked: Invocation = ctx.obj
    asked.console = Console("verbose" if verbose else "quiet" if quiet else "normal")
    asked.work = (
        partial(_explain, folder, asked)
        if explain
        else partial(_scan, folder, flags, config, asked)
    )


@app.command(context_settings={"ignore_unknown_options": True})  # -33.9,18.4 is no option
def where(
    ctx: typer.Context,
    place: Annotated[
        list[str], typer.Argument(metavar="LAT,LON", help="Degrees: 48.137,11.575 or -33.9 18.4.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Name the place at a position, offline."""
    asked: Invocation = ctx.obj
    asked.work = partial(_where, " ".join(place), json, asked)


@app.command()
def label(
    ctx: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Footage that carries GPS.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="CSV to write.")] = Path(
        "manifest.csv"
    ),
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="LAT,LON,RADIUS_M",
            help="Leave out all footage from around here: your home, say. Repeatable.",
        ),
    ] = None,
    exclude_file: Annotated[
        Path | None,
        typer.Option("--exclude-file", metavar="FILE", help="File with one such zone a line."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which drives go where.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is done.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say errors only.")] = False,
) -> None:
    """Turn footage that carries GPS into a training manifest: where each second was recorded."""
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet exclude each other.")
    asked: Invocation = ctx.obj
    asked.console = Console("verbose" if verbose else "quiet" if quiet else "normal")
    asked.work = partial(_label, folder, out, tuple(exclude or ()), exclude_file, seed, asked)


@app.command()
def places(
    ctx: typer.Context,
    given: Annotated[
        str | None,
        typer.Argument(metavar="[FILE|166|world]", help="List of places; a CSV has a column city."),
    ] = None,
    cities_over: CitiesOverOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="CSV to write. [default: print it]"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Check and complete a list of places for `export --from-clip`, and print it."""
    asked: Invocation = ctx.obj
    asked.work = partial(_places, given, cities_over, out, overwrite, asked)


@app.command()
def demo(
    ctx: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder to write.")
    ] = Path("geotag-demo"),
    videos: Annotated[
        int, typer.Option("--videos", metavar="N", min=1, max=64, help="How many.")
    ] = 6,
) -> None:
    """Render a small dashcam folder, scan it, and compare the tags with the truth."""
    asked: Invocation = ctx.obj
    asked.work = partial(_demo, out, videos, asked)


app.command()(doctor)
app.command()(bench)


def _scan(
    folder: str, flags: dict[str, object], config_file: Path | None, asked: Invocation
) -> int:
    from geotag.config import resolve_scan_config
    from geotag.runs import run_scan

    tally = run_scan(
        _folder(folder, "scanning"),
        resolve_scan_config(flags, file=config_file),
        console=asked.console,
        open_engine=asked.open_engine,
        command=asked.command,
    )
    return EXIT_SOME_FAILED if tally.failed or tally.status["no_model"] else EXIT_OK


def _explain(folder: str, asked: Invocation) -> int:
    from geotag.footage.explain import explain
    from geotag.runs import find_footage

    asked.console.result(explain(find_footage(_folder(folder, "explaining"))))
    return EXIT_OK


def _where(place: str, as_json: bool, asked: Invocation) -> int:
    import json

    from geotag.places.gazetteer import read_gazetteer
    from geotag.places.where import describe_where, parse_lat_lon, where_json

    try:
        lat_deg, lon_deg = parse_lat_lon(place)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    code = read_gazetteer().locate_one(lat_deg, lon_deg)
    if as_json:
        asked.console.result(json.dumps(where_json(code), indent=2, ensure_ascii=False))
    else:
        asked.console.result(describe_where(code))
    return EXIT_OK


def _label(
    folder: str,
    out: Path,
    exclude: tuple[str, ...],
    exclude_file: Path | None,
    seed: int,
    asked: Invocation,
) -> int:
    from geotag.label import run_label

    return run_label(
        _folder(folder, "labelling"),
        out,
        exclude=exclude,
        exclude_file=exclude_file,
        seed=seed,
        console=asked.console,
    )


def _folder(folder: str, doing: str) -> Path:
    if not folder:  # as a Path it would be the current folder
        raise ConfigError(
            f"{doing} '': FOLDER is empty; perhaps a variable of the shell is not set. Name a "
            "folder or a video; the current folder is a dot."
        )
    return Path(folder)


def _places(
    given: str | None,
    cities_over: int | None,
    out: Path | None,
    overwrite: bool,
    asked: Invocation,
) -> int:
    from geotag.places.lists import describe_places, make_places, places_text
    from geotag.writers.files import write_file

    if out is not None and out.exists() and not overwrite:
        raise ConfigError(
            f"writing {out}: it exists, and may hold a list that somebody has edited. Choose "
            "another --out, or --overwrite."
        )
    listed = make_places(given, cities_over=cities_over)
    asked.console.say(describe_places(listed))
    if listed.errors:
        raise ConfigError(
            f"checking {listed.source}: {len(listed.errors)} "
            f"error{'s' * (len(listed.errors) != 1)}, listed above. No list is written until "
            "that is mended."
        )
    if out is None:
        asked.console.result(places_text(listed.rows).rstrip("\n"))
    else:
        write_file(out, places_text(listed.rows))
    return EXIT_OK


def _demo(out: Path, videos: int, asked: Invocation) -> int:
    from geotag.demo import run_demo

    return run_demo(out, videos, console=asked.console, open_engine=asked.open_engine)


@contextlib.contextmanager
def _log_shown(console: Console) -> Iterator[None]:
    """Show the log of our packages for as long as a command runs."""
    handler = log_handler(console.verbosity)
    loggers = [logging.getLogger(name) for name in ("geotag", "engines")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(handler.level)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
