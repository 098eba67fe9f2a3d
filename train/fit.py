"""Train a model.

    python -m train.fit                  # the demo model, from nothing, on a CPU
    python -m train.fit --steps 20       # a smoke run
    python -m train.fit --help

A run folder holds the weights (`model.safetensors`), a readable `checkpoint.json`, the class tree
(`places.csv`), one line per logged step (`metrics.jsonl`) and the evaluation (`evaluation.json`).
`geotag export --checkpoint RUN --out BUNDLE` turns it into a bundle.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import shlex
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from engines.bundle import LEVELS
from engines.choose import usable_cores
from train.checkpoint import save_checkpoint
from train.config import TrainConfig, load_preset
from train.data.clips import (
    RenderedClips,
    class_counts,
    rendered_hierarchy,
    rendered_places_csv,
)
from train.evaluate import TABLE_COLUMNS, evaluate_run, show_evaluation
from train.losses import geo_loss
from train.models.geolocator import Geolocator
from train.models.videomae import SIZES
from train.warmstart import StandardisedHeads, start_from_components, widen_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    Batch = tuple[Tensor, dict[str, Tensor]]

LOG_EVERY = 10
"""Steps between two lines of metrics.jsonl."""
START_CLIPS = 64
"""Clips whose principal components the patch embedding starts from."""
REPLAY_POOL = 1024
"""Clips that wait for their second view: 0.6 GB at 16x112x112."""

app = typer.Typer(add_completion=False)


@app.command()
def main(
    preset: Annotated[str, typer.Option(help="Recipe from train/presets, without .toml.")] = "demo",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; must not exist yet. Default: runs/PRESET, or the next free."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; few for a smoke run.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Clips per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, clips and order.")] = None,
    val_clips: Annotated[
        int | None, typer.Option(min=1, help="Clips that calibrate the confidences.")
    ] = None,
    test_clips: Annotated[
        int | None, typer.Option(min=1, help="Clips of the evaluation at the end.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that render clips. Default: half the cores."),
    ] = None,
) -> None:
    """Train a model on rendered drives and evaluate it on drives it has never seen."""
    console = Console(stderr=True)
    try:
        if steps is not None:  # a smoke run ends with a smoke evaluation
            usual = load_preset(preset)
            val_clips = val_clips or min(usual.val_clips, 8 * steps)
            test_clips = test_clips or min(usual.test_clips, 8 * steps)
        config = load_preset(
            preset,
            steps=steps,
            batch=batch,
            lr=lr,
            seed=seed,
            val_clips=val_clips,
            test_clips=test_clips,
        )
        run = new_run_folder(out, preset)
    except (ValueError, OSError) as exc:
        raise typer.BadParameter(str(exc)) from exc
    count = max(1, usable_cores() // 2) if workers is None else workers
    console.print(
        f"training [b]{config.preset}[/b] ({config.size}, {config.data} drives, "
        f"{config.steps} steps of {config.batch} clips) into {run}"
    )
    started_s = time.monotonic()
    try:
        model = fit(config, run, workers=count, console=console)
    except FloatingPointError as exc:
        console.print(f"error: {exc}")
        raise typer.Exit(1) from exc
    evaluation = evaluate_run(
        model,
        config,
        # Scoring a clip is quicker than rendering it: here every core renders.
        workers=usable_cores() if workers is None else workers,
        console=console,
        command=shlex.join(["python", "-m", "train.fit", *sys.argv[1:]]),
    )
    (run / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n", encoding="utf-8")
    show_evaluation(evaluation, Console(width=TABLE_COLUMNS))
    minutes = (time.monotonic() - started_s) / 60
    console.print(
        f"done in {minutes:.1f} min. Next: geotag export --checkpoint {run} --out bundles/{preset}"
    )


def new_run_folder(out: Path | None, preset: str) -> Path:
    """Create the folder of a run; never one that exists already.

    Raises:
        FileExistsError: `out` was given and holds something.
    """
    if out is None:
        out = Path("runs") / preset
        number = 2
        while out.exists():
            out = Path("runs") / f"{preset}-{number}"
            number += 1
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not an empty folder; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    return out


def fit(config: TrainConfig, run: Path, *, workers: int, console: Console) -> Geolocator:
    """Train from nothing; writes the checkpoint and `metrics.jsonl` into `run`.

    Raises:
        FloatingPointError: the loss is no longer a number; the text says what to try.
    """
    seed_everything(config.seed)
    # Threads of one matrix product wait for each other: on a core that renders, all would wait.
    torch.set_num_threads(max(1, usable_cores() - workers))
    hierarchy = rendered_hierarchy()
    architecture = SIZES[config.size]
    model = Geolocator(architecture, class_counts(hierarchy))
    clips = RenderedClips(
        split="train",
        clips=fresh_batches(config) * config.batch,
        frames=architecture.frames,
        image_px=architecture.image_px,
        sampling=config.sampling,
        hierarchy=hierarchy,
        seed=config.seed,
    )
    loader = DataLoader(clips, batch_size=config.batch, num_workers=workers)
    widen_weights(model.encoder)
    start_from_components(model, torch.stack([clips[index][0] for index in range(START_CLIPS)]))
    learner = StandardisedHeads(model).train()
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=config.lr, betas=config.betas
    )
    with (run / "metrics.jsonl").open("w", encoding="utf-8") as metrics:
        batches = replay(loader, views=config.views, seed=config.seed)
        for step, (pixels, labels) in enumerate(_with_progress(batches, config, console)):
            record = train_step(learner, optimizer, pixels, labels, step=step, config=config)
            if step % LOG_EVERY == 0 or step == config.steps - 1:
                metrics.write(json.dumps(record) + "\n")
                metrics.flush()
    learner.eval()
    learner.fold()
    save_checkpoint(run, model, places_csv=rendered_places_csv(), facts=training_facts(config))
    return model


def fresh_batches(config: TrainConfig) -> int:
    """Batches to render so that `steps` of them are seen, each clip `views` times."""
    return -(-config.steps // config.views)


def replay(loader: Iterable[Batch], *, views: int, seed: int) -> Iterator[Batch]:
    """Show every clip of a loader `views` times, its repeats later and among other clips.

    Rendering a clip costs more than a training step on it, and with half of the tokens dropped a
    second view is not the same view. At most REPLAY_POOL clips wait in memory.
    """
    rng = np.random.default_rng(seed)
    pool: list[tuple[Tensor, dict[str, Tensor]]] = []
    for pixels, labels in loader:
        yield pixels, labels
        for index in range(len(pixels)):
            # A copy: a slice would keep its whole batch in memory.
            clip = pixels[index].clone(), {name: labels[name][index] for name in labels}
            pool.extend([clip] * (views - 1))
        while len(pool) > REPLAY_POOL:
            yield _draw(pool, len(pixels), rng)
    while pool:
        yield _draw(pool, min(len(pixels), len(pool)), rng)


def _draw(
    pool: list[tuple[Tensor, dict[str, Tensor]]], count: int, rng: np.random.Generator
) -> Batch:
    """Take `count` random clips out of the pool."""
    taken = [pool.pop(int(rng.integers(len(pool)))) for _ in range(count)]
    return (
        torch.stack([pixels for pixels, _ in taken]),
        {name: torch.stack([labels[name] for _, labels in taken]) for name in taken[0][1]},
    )


def train_step(
    learner: StandardisedHeads,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    labels: dict[str, Tensor],
    *,
    step: int,
    config: TrainConfig,
) -> dict[str, float]:
    """One optimiser step on one batch; returns what `metrics.jsonl` records."""
    lr = learning_rate(step, config)
    for group in optimizer.param_groups:
        group["lr"] = lr
    early = step < (1 - config.last_share) * config.steps
    outputs = learner(pixels, keep_tokens=config.keep_tokens if early else config.last_keep_tokens)
    loss = geo_loss(
        outputs,
        labels,
        scene_weight=config.scene_weight,
        label_smoothing=config.label_smoothing,
    )
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss.item()} at step {step}: lower --lr (now {config.lr:g})"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(learner.parameters(), config.clip_norm)
    optimizer.step()
    record = {"step": step, "loss": loss.item(), "lr": lr, "grad_norm": float(norm)}
    for level in LEVELS:
        right_N = outputs[level].argmax(1) == labels[level]
        record[level] = float(right_N.float().mean())
    return record


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to `min_lr_share` of the peak."""
    warmup = max(1, round(config.warmup_share * config.steps))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    low = config.min_lr_share
    return config.lr * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, biases and norms do not (common practice since BERT)."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def seed_everything(seed: int) -> None:
    """Seed every random source that training touches."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def training_facts(config: TrainConfig) -> dict[str, Any]:
    """What `checkpoint.json` and later the bundle say about how the weights came to be."""
    return {**asdict(config), "commit": _git_commit(), "torch": torch.__version__}


def _git_commit() -> str | None:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None


def _with_progress(
    batches: Iterable[Batch], config: TrainConfig, console: Console
) -> Iterator[Batch]:
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps,"),
        TextColumn("{task.fields[speed]:.1f} clips/s,"),
        TimeRemainingColumn(),
    )
    started_s = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=config.steps, speed=0.0)
        for done, batch in enumerate(itertools.islice(batches, config.steps), start=1):
            yield batch
            speed = done * config.batch / (time.monotonic() - started_s)
            progress.update(task, advance=1, speed=speed)


if __name__ == "__main__":
    app()
