"""`geotag doctor` and `geotag bench`: what this machine can do, and how fast."""

from __future__ import annotations

import json as jsonlib
from functools import partial
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from engines.base import EngineName
from engines.bundle import PRECISIONS
from geotag.errors import EXIT_OK

if TYPE_CHECKING:
    from geotag.bench import BenchEngine, BenchPrecision
    from geotag.invocation import Invocation

_ENGINES = (*get_args(EngineName), "all")
_PRECISIONS = ("auto", *PRECISIONS)


def doctor(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what this installation can do: the text to paste into an issue."""
    asked: Invocation = ctx.obj
    asked.work = partial(_doctor, json, asked)


def bench(
    ctx: typer.Context,
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle",
            "-b",
            metavar="NAME|FOLDER",
            help="Model to measure. [default: the default one, else the demo]",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="|".join(_ENGINES),
            help="What runs it; all: every engine and precision here, side by side.",
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            "--precision", metavar="|".join(_PRECISIONS), help="auto: what a scan would take."
        ),
    ] = "auto",
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, max=256, help="Clips at a time.")
    ] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure how fast a model runs here, and what share of the machine's peak that is."""
    for flag, value, allowed in (
        ("--engine", engine, _ENGINES),
        ("--precision", precision, _PRECISIONS),
    ):
        if value not in allowed:
            raise typer.BadParameter(f"{flag} {value}: allowed are {', '.join(allowed)}.")
    asked: Invocation = ctx.obj
    asked.work = partial(_bench, bundle, engine, precision, batch, json, asked)


def _doctor(as_json: bool, asked: Invocation) -> int:
    from geotag.doctor import describe, examine

    report = examine(asked.open_engine)
    text = jsonlib.dumps(report.to_json(), indent=2) if as_json else describe(report)
    asked.console.result(text)
    return EXIT_OK


def _bench(
    name: str | None, engine: str, precision: str, batch: int, as_json: bool, asked: Invocation
) -> int:
    from engines.bundle import read_bundle
    from geotag.bench import measure
    from geotag.bench_report import HEAD, describe_bench, table_rows
    from geotag.bundles import DEMO, find_bundle, has_default_bundle

    if name is None and not has_default_bundle():
        asked.console.say("no model is chosen: this measures the small one of the demo.")
        name = DEMO
    bundle = read_bundle(find_bundle(name))
    asked.console.say(f"measuring {bundle.label}; other programs should rest meanwhile.")
    report = measure(
        bundle,
        asked.open_engine,
        engine=cast("BenchEngine", engine),
        precision=cast("BenchPrecision", precision),
        batch=batch,
        say=asked.console.say,
    )
    if as_json:
        asked.console.result(jsonlib.dumps(report.to_json(), indent=2))
    else:
        asked.console.table(HEAD, table_rows(report))
        asked.console.result(describe_bench(report))
    return EXIT_OK
