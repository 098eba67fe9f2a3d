"""The paper's tables, ours beside the published numbers.

    python -m train.tables components --data cityguessr:/data/CityGuessr68k
    python -m train.tables all --like demo --data shards:rendered --seeds 3 --steps 800

Each row is a preset, trained and evaluated once a seed: a cell. Finished cells are taken as they
are, and one that was cut off goes on, so that the command may be stopped and given again at any
time. With `--like` the presets give what the table compares (heads and losses), and another preset
all else (size, optimiser, steps): that is how the tables are tried on a small world.

Shape suffixes: S seeds.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from engines.bundle import LEVELS
from engines.choose import usable_cores
from train.build import open_test
from train.checkpoint import EVALUATION, load_checkpoint
from train.config import TrainConfig, load_preset, tomllib
from train.endings import telling
from train.errors import TrainError
from train.evaluate import evaluate_run
from train.evaluation.report import MODES
from train.files import refuse_file, write_aside
from train.processes import World
from train.resume import load_state
from train.training import train

if TYPE_CHECKING:
    from engines.bundle import DecodingMode
    from train.stills import Looks

TABLES = Path(__file__).with_name("published.toml")
RECORD = "tables.json"
"""In the folder of the cells: all tables that were made of them, by name."""
DIGITS = 4
"""Of a percentage, behind the point, in JSON."""
CELL = "cell.json"
"""The recipe that a cell was made with."""
Z95 = 1.959964
"""Standard deviations of a normal distribution that hold 95 % of it."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table."""

    label: str
    preset: str
    mode: DecodingMode | None = None
    """How it is decoded; None as the table is asked for."""
    still: Looks | None = None
    """Of a model of single pictures: what it is measured on, if not what it was trained on."""
    published: tuple[float, ...] | None = None
    """Top-1 % of city, state, country, continent on CityGuessr68k."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Top-1 % at one level."""

    value: float
    low: float
    high: float
    """95 % interval; see `pool`."""

    def record(self) -> dict[str, float]:
        """For JSON: percentages with no more digits than they are known to."""
        return {name: round(value, DIGITS) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        """As a table shows it."""
        return f"{self.value:.1f} ({self.low:.1f}-{self.high:.1f})"


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
            write_aside(save, _text({"tables": found}))
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


def read_tables() -> dict[str, tuple[str, tuple[Row, ...]]]:
    """Title and rows of every table, by name."""
    record = tomllib.loads(TABLES.read_text(encoding="utf-8"))
    return {
        name: (
            table["title"],
            tuple(
                Row(**{**row, "published": tuple(row["published"]) if "published" in row else None})
                for row in table["rows"]
            ),
        )
        for name, table in record.items()
    }


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
        model = replace(
            base.model,
            scene=own.model.scene,
            text=own.model.text,
            still=own.model.still,
            attention_input=own.model.attention_input,
        )
        loss = replace(own.loss, label_smoothing=base.loss.label_smoothing)
        config = replace(base, preset=preset, describes=own.describes, model=model, loss=loss)
        if config.model.text != "none":
            config = replace(config, texts="names")  # there may be no text encoder at hand
    changes: dict[str, Any] = {"data": data or config.data, "seed": seed}
    if steps is not None:
        changes |= {"steps": steps, "epochs": None}
    if changes["data"] != "rendered":
        changes["views"] = 1  # only rendering costs more than a step
    return replace(config, **changes)


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


def pool(estimates: list[dict[str, float]]) -> Cell:
    """One number of several seeds, each `{"value", "low", "high"}` in shares of 1.

    The interval holds both reasons for chance: which clips are counted, the same for all seeds and
    taken from their intervals, and the seed, from the spread of the values:
    s^2 = s_clips^2 + s_seeds^2 / S, as a normal distribution.
    """
    values_S = 100 * np.array([estimate["value"] for estimate in estimates])
    widths_S = 100 * np.array([estimate["high"] - estimate["low"] for estimate in estimates])
    clips = float(widths_S.mean()) / (2 * Z95)
    seeds = float(values_S.var(ddof=1)) / len(values_S) if len(values_S) > 1 else 0.0
    half = Z95 * float(np.sqrt(clips**2 + seeds))
    mean = float(values_S.mean())
    return Cell(value=mean, low=max(0.0, mean - half), high=min(100.0, mean + half))


def show_table(
    title: str,
    rows: tuple[Row, ...],
    cells: dict[str, list[dict[str, Any]]],
    mode: str,
    console: Console,
) -> dict[str, Any]:
    """Print a table; what it shows, as JSON values.

    Args:
        title: what it compares.
        rows: its lines.
        cells: of each label, the evaluation of every seed.
        mode: decoding of the rows that name none.
        console: where to.
    """
    first = cells[rows[0].label][0]
    seeds = len(cells[rows[0].label])
    heading = (
        f"{title}: top-1 % on {first['clips']} clips of {first['dataset']}, {seeds} seed(s), 95 % "
        "intervals; beside them the paper's numbers on CityGuessr68k"
    )
    table = Table(title=heading)
    table.add_column("")
    for level in LEVELS:
        table.add_column(level, justify="right")
        table.add_column("paper", justify="right", style="dim")
    record: dict[str, Any] = {"title": heading, "rows": []}
    for row in rows:
        decoding = row.mode or mode
        found = [evaluation["metrics"][decoding] for evaluation in cells[row.label]]
        shown = {level: pool([each[level]["top1"] for each in found]) for level in LEVELS}
        published = row.published or (None,) * len(LEVELS)
        texts = [
            part
            for level, paper in zip(LEVELS, published, strict=True)
            for part in (str(shown[level]), "" if paper is None else f"{paper:.1f}")
        ]
        table.add_row(row.label, *texts)
        record["rows"].append(
            {
                "label": row.label,
                "preset": row.preset,
                "decoding": decoding,
                "ours": {level: shown[level].record() for level in LEVELS},
                "conflict_rate": [each["conflict_rate"]["value"] for each in found],
                "published": row.published,
            }
        )
    console.print(table)
    return record


def _is_trained(folder: Path) -> bool:
    """Whether a run has come to its end: its last state is kept, with the steps of the plan."""
    try:
        return load_state(folder).is_finished
    except TrainError:
        return False


if __name__ == "__main__":
    app()
