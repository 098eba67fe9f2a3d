"""The paper's tables, ours beside the published numbers.

    python -m train.tables components --data cityguessr:/data/CityGuessr68k
    python -m train.tables all --like demo --data shards:rendered --seeds 3 --steps 800

Each row is a preset, trained and evaluated once a seed: a cell. Finished cells are taken as they
are, and one that was cut off goes on, so that the command may be stopped and given again at any
time. With `--like` the presets give what the table compares (heads and losses), and another preset
all else (size, optimiser, steps): that is how the tables are tried on a small world.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from engines.choose import usable_cores
from train.build import open_test
from train.checkpoint import EVALUATION, load_checkpoint
from train.comparison import Row, read_tables, show_table
from train.config import ModelConfig, TrainConfig, load_preset
from train.endings import telling
from train.errors import TrainError
from train.evaluate import evaluate_run
from train.evaluation.report import MODES
from train.files import refuse_file, write_aside
from train.models.kinds import find_kind
from train.processes import World
from train.resume import load_state
from train.training import train

RECORD = "tables.json"
"""In the folder of the cells: all tables that were made of them, by name."""
CELL = "cell.json"
"""The recipe that a cell was made with."""

app = typer.Typer(add_completion=False)


@app.command()
def main(
    name: Annotated[str, typer.Argument(help="components, hierarchy, image-video or all.")],
    data: Annotated[
        str | None, typer.Option(help="Dataset, as for train.fit. Default: the presets' own.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="Preset that gives everything but heads and losses, such as demo."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of each run.")] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="Decoding of all rows that name none of their own: without, independent, "
            "codependent, trace_only or marginal."
        ),
    ] = "codependent",
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
        if name != "all" and name not in tables:
            raise TrainError(
                f"making the table {name!r}: there is none; there are {', '.join(tables)}, all."
            )
        if mode not in MODES:
            raise TrainError(f"--mode {mode!r}: allowed are {', '.join(MODES)}.")
        refuse_file(out, doing="making tables in")
        if save is not None:
            refuse_file(save.parent, doing="writing tables into")
        chosen = list(tables) if name == "all" else [name]
        recipes = {
            (row.preset, seed): _cell_recipe(row, data=data, like=like, steps=steps, seed=seed)
            for table in chosen
            for row in tables[table][1]
            for seed in range(seeds)
        }
        needed = {
            (config.data, config.splitting): config
            for table in chosen
            for row in tables[table][1]
            for config in (recipes[row.preset, seed] for seed in range(seeds))
            if not cell_path(row, config, out).is_file()
        }
        for config in needed.values():
            need_test(config)
        found: dict[str, Any] = {}
        for table in chosen:
            title, rows = tables[table]
            cells = {
                row.label: [
                    cell_of(
                        row,
                        recipes[row.preset, seed],
                        out,
                        workers=workers,
                        console=console,
                        is_accepted=accept_licence,
                    )
                    for seed in range(seeds)
                ]
                for row in rows
            }
            made = {"command": command, "seeds": seeds}
            found[table] = made | show_table(title, rows, cells, mode, Console(width=110))
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


def need_test(config: TrainConfig) -> None:
    """Refuse to train cells that could not be measured.

    Raises:
        DatasetError, TrainError: the dataset cannot be opened, or has no clips to test on.
    """
    tested_on = open_test(config)
    if tested_on is None or not len(tested_on.entries):
        raise TrainError(
            f"making tables on {config.data}: it has no clips to test on, and every cell is an "
            "accuracy on those. Choose a dataset with a test part."
        )


def _cell_recipe(row: Row, **changes: Any) -> TrainConfig:  # noqa: ANN401
    try:
        return recipe(row.preset, **changes)
    except ValueError as exc:
        raise TrainError(f"the recipe of the row {row.label!r}: {exc}") from exc


def _text(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=2) + "\n").encode()


def recipe(
    preset: str,
    *,
    data: str | None = None,
    like: str | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> TrainConfig:
    """The configuration of one cell.

    Args:
        preset: what the row compares.
        data: dataset in place of the preset's.
        like: preset that everything but heads, frame and losses comes from.
        steps: in place of the preset's.
        seed: of the run.

    Raises:
        ValueError: there is no such preset.
    """
    own = load_preset(preset)
    config = own
    if like is not None:
        base = load_preset(like)
        model = _like(base.model, own.model)
        loss = replace(own.loss, label_smoothing=base.loss.label_smoothing)
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
        changes["views"] = 1  # only rendering costs more than a step
    return replace(config, **changes)


def _like(base: ModelConfig, own: ModelConfig) -> ModelConfig:
    """The network that a row compares, of the size and with the aids of another preset.

    Aids to fast training that its kind does not take are left out.
    """
    takes, plain = find_kind(own.kind).takes, ModelConfig(size=base.size)
    left_out = [] if "warm_start" in takes else ["warm_start"]
    if "keep_tokens" not in takes:
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


def cell_of(
    row: Row,
    config: TrainConfig,
    out: Path,
    *,
    workers: int,
    console: Console,
    is_accepted: bool = False,
) -> dict[str, Any]:
    """The evaluation of one cell: read where it is finished, else trained to its end and measured.

    Args:
        row: of a table.
        config: its recipe.
        out: where the cells lie.
        workers: reading processes.
        console: where progress is shown.
        is_accepted: fetch weights for non-commercial use alone, too.

    Raises:
        GeotagError: the dataset or the recipe cannot be used.
    """
    path = cell_path(row, config, out)
    folder = path.parent
    if path.is_file():
        evaluation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return evaluation
    folder.mkdir(parents=True, exist_ok=True)
    write_aside(folder / CELL, (_recipe_text(config) + "\n").encode())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not _is_trained(folder):
        train(
            config,
            folder,
            world=World(rank=0, size=1, device=device),
            workers=workers,
            compiled=device.type == "cuda",
            console=console,
            is_accepted=is_accepted,
        )
    model, _ = load_checkpoint(folder)
    evaluation = evaluate_run(
        model.to(device),
        config,
        workers=workers or usable_cores(),
        console=console,
        command=shlex.join(["python", "-m", "train.tables", *sys.argv[1:]]),
        still=row.still,
    )
    write_aside(path, (json.dumps(evaluation, indent=2) + "\n").encode())
    return evaluation


def cell_path(row: Row, config: TrainConfig, out: Path) -> Path:
    """Where the evaluation of a cell lies once it is finished."""
    digest = sha256(_recipe_text(config).encode()).hexdigest()[:8]
    suffix = f"-{row.still}" if row.still else ""
    name = EVALUATION.replace(".json", f"{suffix}.json")
    return out / f"{config.preset}-seed{config.seed}-{digest}" / name


def _recipe_text(config: TrainConfig) -> str:
    return json.dumps(asdict(config), sort_keys=True)


def _is_trained(folder: Path) -> bool:
    """Whether a run has come to its end: its last state is kept, with the steps of the plan."""
    try:
        return load_state(folder).is_finished
    except TrainError:
        return False


if __name__ == "__main__":
    app()
