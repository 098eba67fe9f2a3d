"""Train a model.

    python -m train.fit                            # the demo model, from nothing, on a CPU
    python -m train.fit --steps 20                 # a smoke run
    python -m train.fit --preset geotag --data cityguessr:/data/CityGuessr68k
    torchrun --nproc-per-node 8 -m train.fit --preset geotag --data shards:/data/packed
    python -m train.fit --resume runs/geotag       # go on with a run that stopped
    python -m train.fit --help

A run folder holds the weights (`model.safetensors`), a readable `checkpoint.json`, the class tree
(`places.csv`), one line per logged step (`metrics.jsonl`), the samples that could not be read
(`bad_samples.csv`), the state to go on from (`last/`) and the evaluation (`evaluation.json`).
`geotag export --checkpoint RUN --out BUNDLE` turns it into a bundle.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console

from engines.choose import usable_cores
from geotag.errors import OutputError
from train.build import open_test
from train.checkpoint import load_checkpoint
from train.config import change_config, load_preset
from train.endings import telling
from train.errors import TrainError
from train.evaluate import (
    TABLE_COLUMNS,
    evaluate_run,
    show_evaluation,
    write_evaluation,
)
from train.evaluation.opened import evaluation_elsewhere
from train.files import refuse_file
from train.processes import join_world
from train.resume import FOLDER, STATE, load_state
from train.training import METRICS, train

if TYPE_CHECKING:
    from collections.abc import Iterator

    from train.config import TrainConfig
    from train.processes import World

CLIPS_A_STEP = 8
"""Of a run whose steps are given: so many clips calibrate and so many are counted, at most."""

app = typer.Typer(add_completion=False)


@app.command()
def main(
    preset: Annotated[
        str | None,
        typer.Option(help="Name of a recipe in train/presets, or your own .toml. Default: demo."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="rendered, cityguessr:FOLDER, msls:FOLDER, manifest:FILE or shards:FOLDER. "
            "Default: the preset's."
        ),
    ] = None,
    splitting: Annotated[
        str | None,
        typer.Option(help="Of CityGuessr68k: official, blocks or drives. Default: the preset's."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; must not exist yet. Default: runs/PRESET, or the next free."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with this run folder, with the recipe that it was begun with."),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            help="Hub id or folder of published weights of the preset's kind of network; of "
            "VideoMAE also a .pth; of isns also a run of planet; none to start from nothing."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Of the network, where nothing is pretrained: tiny, small, base or another that "
            "`python -m train.count` lists for its kind."
        ),
    ] = None,
    num_heads: Annotated[
        str | None,
        typer.Option(help="Of pretrained attention: corrected, config or a number."),
    ] = None,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Fetch weights for non-commercial use alone, too."),
    ] = False,
    texts: Annotated[
        str | None, typer.Option(help="File of train.texts, or names: embeddings of place names.")
    ] = None,
    scenes: Annotated[
        str | None, typer.Option(help="File of train.scenes: scene labels of the dataset.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; few for a smoke run.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the dataset, in place of steps.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Clips per step, all processes together.")
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            min=1, help="Pieces of a step: less memory, the same (but for batch normalisation)."
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, clips and order.")] = None,
    val_clips: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Clips that choose weights and calibrate. Default: the preset's; with --steps, at "
            "most 8 a step.",
        ),
    ] = None,
    test_clips: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Clips of the evaluation at the end. Default: the preset's; with --steps, at most "
            "8 a step.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read clips. Default: half the cores."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="torch.compile. Default: on a GPU."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write events for TensorBoard.")
    ] = False,
) -> None:
    """Train a model and evaluate it on clips that it has never seen."""
    console = Console(stderr=True)
    heads = int(num_heads) if num_heads is not None and num_heads.isdecimal() else num_heads
    recipe: dict[str, Any] = {
        "data": data,
        "splitting": splitting,
        "pretrained": "" if pretrained == "none" else pretrained,
        "texts": texts,
        "scenes": scenes,
        "steps": steps,
        "epochs": epochs,
        "batch": batch,
        "accumulate": accumulate,
        "model_size": size,
        "model_num_heads": heads,
        "optimiser_lr": lr,
        "seed": seed,
        "val_clips": val_clips,
        "test_clips": test_clips,
    }
    started_s, run = time.monotonic(), resume
    with telling(console, stopped=lambda: _after_a_stop(run)):
        with join_world(device) as world:
            if resume is not None:
                config, run = _go_on(resume, preset, out, recipe), resume
            else:
                config = _recipe(preset or "demo", recipe)
                run = _run_folder(out, config.preset, world)
            with _leaving_no_stub(run):
                train(
                    config,
                    run,
                    world=world,
                    workers=_reading_workers(world) if workers is None else workers,
                    compiled=world.is_gpu if compiled is None else compiled,
                    tensorboard=tensorboard,
                    is_accepted=accept_licence,
                    console=console,
                )
        if world.is_first:
            is_measured = _evaluate(config, run, world, workers=workers, console=console)
            export = f" Next: geotag export --checkpoint {run} --out bundles/{run.name}"
            console.print(
                f"done in {_told_s(time.monotonic() - started_s)}.{export if is_measured else ''}",
                markup=False,
                soft_wrap=True,
            )


def _reading_workers(world: World) -> int:
    """Half of the cores read, shared by the processes of this machine."""
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, usable_cores() // 2 // beside)


def _after_a_stop(run: Path | None) -> str:
    """What a person who stopped a run is told."""
    if run is not None and (run / FOLDER / STATE).is_file():
        return f"stopped. Go on with: python -m train.fit --resume {run}"
    return "stopped before anything was learned"


def _told_s(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.1f} min"


@contextlib.contextmanager
def _leaving_no_stub(run: Path) -> Iterator[None]:
    """Give the name of a run free again that ends before anything of it is worth keeping."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # something is in it
            lines = run / METRICS
            if lines.is_file() and not lines.stat().st_size:
                lines.unlink()
            run.rmdir()
        raise


def _evaluate(
    config: TrainConfig, run: Path, world: World, *, workers: int | None, console: Console
) -> bool:
    """Measure the best weights, and write what export needs; False with nothing to measure on."""
    tested_on = open_test(config)
    if tested_on is None or not len(tested_on.entries):
        console.print(
            "not evaluated: the dataset has no test part. Measure the model on other footage, "
            f"which geotag export then takes: {evaluation_elsewhere(run)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return False
    model, _ = load_checkpoint(run)
    # Rendering a clip is slower than scoring it, and a GPU needs no core: there every core reads.
    is_free = config.data == "rendered" or world.is_gpu
    evaluation = evaluate_run(
        model.to(world.device),
        config,
        workers=(usable_cores() if is_free else _reading_workers(world))
        if workers is None
        else workers,
        console=console,
        command=shlex.join(["python", "-m", "train.fit", *sys.argv[1:]]),
    )
    write_evaluation(evaluation, run, plots=False)
    show_evaluation(evaluation, Console(width=TABLE_COLUMNS))
    return True


def new_run_folder(out: Path | None, preset: str) -> Path:
    """Create the folder of a run; never one that exists already.

    Raises:
        TrainError: `out` was given and holds something.
        OutputError: it cannot be made.
    """
    if out is not None:
        refuse_file(out, doing="training into")
    if out is None:
        out = Path("runs") / preset
        number = 2
        while out.exists() and any(out.iterdir()):
            out = Path("runs") / f"{preset}-{number}"
            number += 1
    elif out.exists() and any(out.iterdir()):
        is_run = (out / FOLDER / STATE).is_file()
        raise TrainError(
            f"training into {out}: it is not empty. Choose another --out"
            + (f", or go on with the run in it: --resume {out}" if is_run else ".")
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"training into {out}: {exc}. Choose another --out.") from exc
    return out


def _recipe(preset: str, changes: dict[str, Any]) -> TrainConfig:
    """The preset with the flags that were given.

    Raises:
        TrainError: there is no such preset, or a value cannot be.
    """
    try:
        return _changed_preset(preset, changes)
    except ValueError as exc:
        raise TrainError(f"the recipe of this run: {exc}") from exc


def _changed_preset(preset: str, changes: dict[str, Any]) -> TrainConfig:
    if changes["steps"] is not None:  # a smoke run ends with a smoke evaluation
        usual = load_preset(preset)
        for name in ("val_clips", "test_clips"):
            if changes[name] is None:
                changes[name] = min(getattr(usual, name), CLIPS_A_STEP * changes["steps"])
    return load_preset(preset, **changes)


def _run_folder(out: Path | None, preset: str, world: World) -> Path:
    """The folder that the first process makes; the others hear of it."""
    names: list[str | None] = [None]
    if world.is_first:
        names = [str(new_run_folder(out, preset))]
    if world.size > 1:
        torch.distributed.broadcast_object_list(names, src=0)
    return Path(str(names[0]))


def _go_on(run: Path, preset: str | None, out: Path | None, changes: dict[str, Any]) -> TrainConfig:
    """The recipe of a run that goes on."""
    config = load_state(run).config
    given = {name: value for name, value in changes.items() if value is not None}
    # Where files lie may have changed, and how a step is cut up; a lower rate is what a run that
    # diverged needs. All else is what the run was begun with.
    free = ("data", "texts", "scenes", "accumulate", "optimiser_lr")
    changed = {name: given.pop(name) for name in free if name in given}
    refused = sorted(name.replace("_", "-") for name in given)
    refused += ["preset"] if preset is not None else []
    refused += ["out"] if out is not None else []
    if refused:
        raise TrainError(
            f"going on with {run}: it keeps the recipe that it was begun with; leave out "
            f"{', '.join(f'--{name}' for name in refused)}. Allowed are --data, --texts and "
            "--scenes for files that were moved, --accumulate, and --lr for a run that diverged."
        )
    try:
        return change_config(config, **changed)
    except ValueError as exc:
        raise TrainError(f"going on with {run}: {exc}") from exc


if __name__ == "__main__":
    app()
