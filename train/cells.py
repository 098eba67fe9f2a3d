"""Cells of tables: a recipe trained to its end and measured, once a seed, each in a folder.

A finished cell is taken as it is, and one that was cut off goes on: what is compared can be stopped
and asked for again at any time. A folder is named after its recipe, so that no cell is ever taken
for another.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engines.choose import usable_cores
from geotag.device.files import MACHINE
from geotag.device.system import read_cpu
from train.build import clip_frames, open_sources, open_test
from train.checkpoint import EVALUATION, CheckpointError, load_checkpoint
from train.count import cost_of
from train.errors import TrainError
from train.evaluate import evaluate_run
from train.files import write_aside
from train.networks import find_network
from train.processes import World
from train.resume import load_state
from train.training import train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from train.comparison import Row
    from train.config import TrainConfig

CELL = "cell.json"
"""The recipe that a cell was made with."""
MAC_DIGITS = 5
"""Of GMAC, behind the point."""


def need_tests(plan: Sequence[tuple[Row, Sequence[TrainConfig]]], out: Path) -> None:
    """Refuse to train cells that could not be measured.

    Args:
        plan: rows, each with the recipes of its cells.
        out: where the cells lie.

    Raises:
        DatasetError, TrainError: a dataset cannot be opened, or has no clips to test on.
    """
    needed = {
        (config.data, config.splitting): config
        for row, configs in plan
        for config in configs
        if finished(cell_path(row, config, out)) is None
    }
    for config in needed.values():
        tested_on = open_test(config)
        if tested_on is None or not len(tested_on.entries):
            raise TrainError(
                f"making tables on {config.data}: it has no clips to test on, and every cell is an "
                "accuracy on those. Choose a dataset with a test part."
            )


def need_sources(
    plan: Sequence[tuple[Row, Sequence[TrainConfig]]],
    out: Path,
    *,
    is_accepted: bool,
    tell: Callable[[str], None],
) -> None:
    """Fetch what cells begin from, and open what they read: before days of training, not amid them.

    Args:
        plan: rows, each with the recipes of its cells.
        out: where the cells lie.
        is_accepted: fetch weights for non-commercial use alone, too.
        tell: is told what is done.

    Raises:
        DatasetError, TrainError: a dataset or its scenes or texts are missing.
        ConfigError, OutputError, WeightsError: weights cannot be fetched.
    """
    begun = [
        config
        for row, configs in plan
        for config in configs[:1]  # seeds read alike
        if not (cell_path(row, config, out).parent / CELL).is_file()
    ]
    for source in dict.fromkeys(config.pretrained for config in begun if config.pretrained):
        if not Path(source).expanduser().exists():
            find_network(source, with_tokenizer=False, is_accepted=is_accepted, tell=tell)
    for config in begun:
        open_sources(config)


def finished(path: Path) -> dict[str, Any] | None:
    """The evaluation of a cell that was made to its end; None for another, or a damaged one."""
    try:
        evaluation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return evaluation if "cost" in evaluation else None


def make_cells(
    row: Row,
    configs: Sequence[TrainConfig],
    *,
    out: Path,
    workers: int,
    console: Console,
    is_accepted: bool = False,
) -> list[dict[str, Any]]:
    """The evaluations of a row, one a seed; see `cell_of`."""
    return [
        cell_of(row, config, out, workers=workers, console=console, is_accepted=is_accepted)
        for config in configs
    ]


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

    Beside what `train.evaluate` says it has `cost`: parameters, those without heads, and GMAC of
    what is measured, a clip; and `made_on`: the name of the GPU or processor.

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
    if (evaluation := finished(path)) is not None:
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
    try:
        model, _ = load_checkpoint(folder)
    except CheckpointError as exc:
        raise TrainError(f"{exc} For a table: delete the folder, and repeat the command.") from exc
    cost = cost_of(model)
    looks = clip_frames(config.model) if row.still == "every" else 1
    evaluation = evaluate_run(
        model.to(device),
        config,
        workers=workers or usable_cores(),
        console=console,
        command=shlex.join(["python", "-m", "train.tables", *sys.argv[1:]]),
        still=row.still,
    )
    evaluation["cost"] = {
        "parameters": cost.parameters,
        "trunk_parameters": cost.trunk,
        "gmac_per_clip": round(looks * cost.macs / 1e9, MAC_DIGITS),
    }
    evaluation["made_on"] = _name_of(device)
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


def _name_of(device: torch.device) -> str | None:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return read_cpu(MACHINE).name


def _is_trained(folder: Path) -> bool:
    """Whether a run has come to its end: its last state is kept, with the steps of the plan."""
    try:
        return load_state(folder).is_finished
    except TrainError:
        return False
