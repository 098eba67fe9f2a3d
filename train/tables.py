"""The paper's tables, ours beside the published numbers.

    python -m train.tables sota --data cityguessr:/data/CityGuessr68k
    python -m train.tables msls --data msls:/data/MSLS --mode codependent
    python -m train.tables all --like demo --data shards:rendered --seeds 3 --steps 800

Each row is a preset, trained and evaluated once a seed: a cell. Finished cells are taken as they
are, and one that was cut off goes on, so that the command may be stopped and given again at any
time. With `--like` the presets give what the table compares (network, heads and losses), and
another preset all else (size, optimiser, steps): that is how the tables are tried on a small world.

All rows of a table have the same budget there: as many steps, clips a step and clips seen. What a
step costs differs between networks, as it does in use; the table says how much.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from train.cells import make_cells, need_sources, need_tests
from train.comparison import output_console, read_tables, record_table, show_table
from train.config import ModelConfig, TrainConfig, load_preset
from train.endings import telling
from train.errors import TrainError
from train.evaluation.report import MODES
from train.files import refuse_file, write_aside
from train.models.kinds import find_kind

if TYPE_CHECKING:
    from engines.bundle import DecodingMode
    from train.comparison import PaperTable, Row

ALL = "all"
"""Every table of CityGuessr68k."""
RECORD = "tables.json"
"""In the folder of the cells: all tables that were made of them, by name."""

app = typer.Typer(add_completion=False)


@app.command()
def main(
    name: Annotated[
        str,
        typer.Argument(
            help="One of train/published.toml, such as sota; or all of those on CityGuessr68k."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="Dataset, as for train.fit. Default: the table's or the presets' own."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="Preset that gives everything but network, heads and losses, such as demo."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of each run.")] = None,
    views: Annotated[
        int, typer.Option(min=1, help="How often each stored clip is shown once it is read.")
    ] = 1,
    mode: Annotated[
        str | None,
        typer.Option(
            help="Show one decoding alone, of rows that name none of their own: without, "
            "independent, codependent, trace_only or marginal. [default: all of them]"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the cells and the tables.")] = Path(
        "runs/tables"
    ),
    workers: Annotated[int, typer.Option(min=0, help="Processes that read clips.")] = 0,
    save: Annotated[
        Path | None, typer.Option(help="Also write these tables, as JSON, to this file.")
    ] = None,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Fetch weights for non-commercial use alone, too."),
    ] = False,
) -> None:
    """Train and evaluate what a table of the paper compares, and print it."""
    console = Console(stderr=True)
    tables = read_tables()
    command = shlex.join(["python", "-m", "train.tables", *sys.argv[1:]])
    stopped = f"stopped. Finished cells are kept; to go on, repeat: {command}"
    with telling(console, stopped=stopped):
        if name != ALL and name not in tables:
            raise TrainError(
                f"making the table {name!r}: there is none; there are {', '.join(tables)}, {ALL}."
            )
        modes = MODES if mode is None else (known_mode(mode),)
        refuse_file(out, doing="making tables in")
        if save is not None:
            refuse_file(save.parent, doing="writing tables into")
        usual = [key for key, table in tables.items() if table.data is None]
        chosen = {key: tables[key] for key in (usual if name == ALL else [name])}
        plans = {
            key: plan_table(table, data=data, like=like, steps=steps, views=views, seeds=seeds)
            for key, table in chosen.items()
        }
        every = [each for plan in plans.values() for each in plan]
        need_tests(every, out)
        tell = partial(console.print, markup=False, highlight=False)
        need_sources(every, out, is_accepted=accept_licence, tell=tell)
        make = partial(
            make_cells, out=out, workers=workers, console=console, is_accepted=accept_licence
        )
        found: dict[str, Any] = {}
        for key, table in chosen.items():
            cells = [make(row, configs) for row, configs in plans[key]]
            found[key] = {"command": command, **record_table(table, cells, modes)}
            show_table(found[key], output_console())
            keep_tables(found, out / RECORD)
        if save is not None:
            save.parent.mkdir(parents=True, exist_ok=True)
            write_aside(save, _text({"command": command, "seeds": seeds, "tables": found}))
        console.print(f"written to {out / RECORD}", markup=False, highlight=False, soft_wrap=True)


def keep_tables(found: dict[str, Any], path: Path) -> None:
    """Write tables into a file, beside those that it has already by other names.

    Raises:
        TrainError: what is there is no file of tables.
        OSError: it cannot be written.
    """
    earlier: dict[str, Any] = {}
    if path.is_file():
        try:
            earlier = dict(json.loads(path.read_text(encoding="utf-8"))["tables"])
        except (ValueError, KeyError, TypeError) as exc:
            raise TrainError(
                f"adding tables to {path}: it holds none ({exc!r}). Move it away, or choose "
                "another --out."
            ) from exc
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, _text({"tables": {**earlier, **found}}))


def plan_table(
    table: PaperTable,
    *,
    data: str | None,
    like: str | None,
    steps: int | None,
    views: int = 1,
    seeds: int,
) -> list[tuple[Row, list[TrainConfig]]]:
    """Each row of a table with the recipes of its cells, one a seed; see `recipe`.

    Raises:
        TrainError: a row has no recipe.
    """
    cell = partial(recipe, data=data or table.data, like=like, steps=steps, views=views)
    try:
        return [(row, [cell(row.preset, seed=seed) for seed in range(seeds)]) for row in table.rows]
    except ValueError as exc:
        raise TrainError(f"planning the table {table.title!r}: {exc}") from exc


def known_mode(text: str) -> DecodingMode:
    """The decoding of this name.

    Raises:
        TrainError: there is none.
    """
    for known in MODES:
        if text == known:
            return known
    raise TrainError(f"--mode {text!r}: allowed are {', '.join(MODES)}.")


def _text(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=2) + "\n").encode()


def recipe(
    preset: str,
    *,
    data: str | None = None,
    like: str | None = None,
    steps: int | None = None,
    views: int = 1,
    seed: int = 0,
) -> TrainConfig:
    """The configuration of one cell.

    Args:
        preset: what the row compares.
        data: dataset in place of the preset's.
        like: preset that everything but heads, frame and losses comes from.
        steps: in place of the preset's.
        views: how often a stored clip is shown before it leaves the memory; rendered ones are
            shown as often as the preset says.
        seed: of the run.

    Raises:
        ValueError: there is no such preset.
    """
    own = load_preset(preset)
    config = own
    if like is not None:
        base = load_preset(like)
        model = _like(base.model, own.model)
        loss = own.loss
        if not loss.haversine_km:  # which spreads labels in its own way
            loss = replace(loss, label_smoothing=base.loss.label_smoothing)
        config = replace(
            base,
            preset=preset,
            describes=own.describes,
            model=model,
            loss=loss,
            selection_decoding=own.selection_decoding,  # that suits its classifiers
        )
        if config.model.text != "none" or config.model.classifier == "cosine":
            config = replace(config, texts="names")  # there may be no text encoder at hand
    changes: dict[str, Any] = {"data": data or config.data, "seed": seed}
    if steps is not None:
        changes |= {"steps": steps, "epochs": None}
    if changes["data"] != "rendered":
        changes["views"] = views
    return replace(config, **changes)


def _like(base: ModelConfig, own: ModelConfig) -> ModelConfig:
    """The network that a row compares, of the size and with the aids of another preset.

    Aids to fast training that its kind does not take are left out; and a single picture is seen
    whole, for the fifth of a picture's tokens that is enough of a clip shows next to nothing.
    """
    takes, plain = find_kind(own.kind).takes, ModelConfig(size=base.size)
    left_out = [] if "warm_start" in takes else ["warm_start"]
    if "keep_tokens" not in takes or own.still != "none":
        left_out += ["keep_tokens", "last_keep_tokens", "last_share"]
    return replace(
        base,
        kind=own.kind,
        scene=own.scene,
        text=own.text,
        still=own.still,
        attention_input=own.attention_input,
        classifier=own.classifier,
        coordinates=own.coordinates,
        hierarchy=own.hierarchy,
        options={**(base.options if base.kind == own.kind else {}), **own.options},
        **{name: getattr(plain, name) for name in left_out},
    )


if __name__ == "__main__":
    app()
