"""How good a model is: accuracy per level, decoding mode and sampling policy; calibration.

    python -m train.evaluate --checkpoint runs/demo

Shape suffixes: N clips, K classes of a level.
"""

from __future__ import annotations

import itertools
import json
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from engines.bundle import LEVELS, DecodingMode, Level
from engines.choose import usable_cores
from geotag.places.hierarchy import Decoded, Hierarchy, decode
from train.checkpoint import CheckpointError, load_checkpoint
from train.config import EvaluatedPolicy, TrainConfig, load_preset
from train.data.clips import RenderedClips, rendered_hierarchy
from train.data.dataset import View
from train.data.loading import reading_batches
from train.data.world import SCENE_GROUPS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from train.models.geolocator import Geolocator

MODES: tuple[DecodingMode, ...] = get_args(DecodingMode)
WANTED_PRECISION = 0.9
"""A level is claimed where, on validation clips, claims are right this often."""
BATCH = 32
TABLE_COLUMNS = 100
"""Width of the printed tables, also where the output is a file."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Scores and truth of N clips."""

    logits: dict[Level, NDArray[np.float32]]
    """[N, K] per level."""
    labels: dict[Level, NDArray[np.intp]]
    """[N] per level."""
    scene_top1: float


@app.command()
def main(
    checkpoint: Annotated[Path, typer.Option(help="Run folder that train.fit wrote.")],
    val_clips: Annotated[
        int | None, typer.Option(min=1, help="Clips that calibrate. Default: the preset's.")
    ] = None,
    test_clips: Annotated[
        int | None, typer.Option(min=1, help="Clips that are counted. Default: the preset's.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Rendering processes.")] = None,
) -> None:
    """Evaluate a run on rendered test drives, calibrate it, and write evaluation.json into it."""
    try:
        model, facts = load_checkpoint(checkpoint)
    except CheckpointError as exc:
        raise typer.BadParameter(str(exc)) from exc
    config = load_preset(
        str(facts["training"]["preset"]),
        val_clips=val_clips,
        test_clips=test_clips,
        seed=int(facts["training"]["seed"]),
    )
    count = usable_cores() if workers is None else workers
    evaluation = evaluate_run(
        model,
        config,
        workers=count,
        console=Console(stderr=True),
        command=shlex.join(["python", "-m", "train.evaluate", *sys.argv[1:]]),
    )
    text = json.dumps(evaluation, indent=2) + "\n"
    (checkpoint / "evaluation.json").write_text(text, encoding="utf-8")
    show_evaluation(evaluation, Console(width=TABLE_COLUMNS))


def evaluate_run(
    model: Geolocator, config: TrainConfig, *, workers: int, console: Console, command: str
) -> dict[str, Any]:
    """Calibrate on validation drives, count on test drives.  -> what evaluation.json holds.

    `command` is what a reader types to get these numbers.
    """
    hierarchy = rendered_hierarchy()

    def run(split: str, clips: int, policy: EvaluatedPolicy | None) -> Predictions:
        samples = RenderedClips(
            split=split,  # type: ignore[arg-type]
            clips=clips,
            sampling=config.sampling,
            # Each policy looks at drives of its own.
            seed=0 if policy is None else 1 + config.policies.index(policy),
        )
        view = View(
            frames=model.config.frames,
            image_px=model.config.image_px,
            policy=policy and policy.policy,
            span_s=policy and policy.span_s,
        )
        name = split if policy is None else f"{split}, {policy.policy} {policy.span_s:g} s"
        return predict(model, samples, view, workers=workers, console=console, title=name)

    calibration = calibrate(run("val", config.val_clips, None), hierarchy)
    each = max(1, config.test_clips // len(config.policies))
    per_policy = [(policy, run("test", each, policy)) for policy in config.policies]
    everything = _join([predictions for _, predictions in per_policy])
    return {
        "data": config.data,
        "split": "test",
        "clips": len(everything.labels["city"]),
        "modes": {
            mode: top1(_decode(everything, hierarchy, mode, calibration[mode]), everything.labels)
            for mode in MODES
        },
        "conflict_rate": {
            mode: conflict_rate(_decode(everything, hierarchy, mode, calibration[mode]), hierarchy)
            for mode in MODES
        },
        "scene_top1": everything.scene_top1,
        "policies": [
            _policy_record(policy, predictions, hierarchy, calibration["marginal"])
            for policy, predictions in per_policy
        ],
        "calibration": calibration,
        "command": command,
    }


def predict(
    model: Geolocator,
    samples: RenderedClips,
    view: View,
    *,
    workers: int,
    console: Console,
    title: str,
) -> Predictions:
    """Scores of every sample, in order."""
    loader = reading_batches(samples, view, size=BATCH, scenes=len(SCENE_GROUPS), workers=workers)
    torch.set_num_threads(max(1, usable_cores() - workers))
    logits: dict[Level, list[NDArray[np.float32]]] = {level: [] for level in LEVELS}
    labels: dict[Level, list[NDArray[np.intp]]] = {level: [] for level in LEVELS}
    scenes_right = 0
    total = -(-len(samples.entries) // BATCH)
    with torch.inference_mode():
        for batch in track(loader, description=f"evaluating {title}", console=console, total=total):
            outputs = model(batch.clip_NTHWC)
            for level in LEVELS:
                logits[level].append(outputs[level].numpy())
                labels[level].append(samples.hierarchy.ancestors[level][batch.city_N.numpy()])
            if "scene" in outputs:
                scenes_right += int((outputs["scene"].argmax(1) == batch.scene_N).sum())
    return Predictions(
        logits={level: np.concatenate(logits[level]) for level in LEVELS},
        labels={level: np.concatenate(labels[level]) for level in LEVELS},
        scene_top1=scenes_right / len(samples.entries),
    )


def top1(decoded: Decoded, labels: dict[Level, NDArray[np.intp]]) -> dict[Level, float]:
    """Share of right answers per level, 0 to 1."""
    return {level: float((decoded.labels[level] == labels[level]).mean()) for level in LEVELS}


def conflict_rate(decoded: Decoded, hierarchy: Hierarchy) -> float:
    """Share of clips whose answers contradict the tree somewhere, such as a city elsewhere."""
    conflict = np.zeros(len(decoded.labels["city"]), dtype=bool)
    for fine, coarse in itertools.pairwise(LEVELS):
        above = hierarchy.parents[fine][decoded.labels[fine]]
        conflict |= above != decoded.labels[coarse]
    return float(conflict.mean())


def calibrate(
    predictions: Predictions, hierarchy: Hierarchy
) -> dict[str, dict[str, dict[str, float]]]:
    """Temperature and claim threshold per decoding mode and level, on validation clips.

    Modes that multiply levels take one temperature for all of them, the one with the least
    negative log-likelihood of the true city; the other modes one per level (Guo et al., ICML 2017).
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    for mode in MODES:
        if mode in ("without", "trace_only"):
            temperatures = {
                level: _best_temperature(predictions, hierarchy, mode, (level,)) for level in LEVELS
            }
        else:
            shared = _best_temperature(predictions, hierarchy, mode, LEVELS)
            temperatures = dict.fromkeys(LEVELS, shared)
        decoded = decode(predictions.logits, hierarchy, mode, temperatures)
        result[mode] = {
            level: {
                "temperature": round(temperatures[level], 4),
                "threshold_prob": claim_threshold(
                    decoded.probs[level].max(axis=1),
                    decoded.probs[level].argmax(axis=1) == predictions.labels[level],
                ),
            }
            for level in LEVELS
        }
    return result


def claim_threshold(confidence_N: NDArray[np.float64], right_N: NDArray[np.bool_]) -> float:
    """Lowest confidence, in steps of 0.05, from which claims are right WANTED_PRECISION often."""
    for threshold in np.arange(0.3, 0.96, 0.05):
        claimed = confidence_N >= threshold
        if not claimed.any() or right_N[claimed].mean() >= WANTED_PRECISION:
            return round(float(threshold), 2)
    return 0.95


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % confidence interval of a share.  Source: Wilson 1927, z = 1.96."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def show_evaluation(evaluation: dict[str, Any], console: Console) -> None:
    """Print the tables: levels by decoding mode, then sampling policies."""
    count = evaluation["clips"]
    title = f"top-1 % on {count} {evaluation['data']} {evaluation['split']} clips, one clip each"
    table = Table(title=title)
    table.add_column("decoding")
    for level in LEVELS:
        table.add_column(level, justify="right")
    table.add_column("conflicts", justify="right")
    for mode, row in evaluation["modes"].items():
        cells = [_with_interval(row[level], count) for level in LEVELS]
        table.add_row(mode, *cells, f"{100 * evaluation['conflict_rate'][mode]:.1f}")
    console.print(table)
    table = Table(title="by sampling policy (marginal decoding)")
    for name in ("policy", "span s", "city", "country", "clips"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for row in evaluation["policies"]:
        shares = [
            _with_interval(row[f"{level}_top1"], row["clips"]) for level in ("city", "country")
        ]
        table.add_row(row["policy"], f"{row['span_s']:g}", *shares, str(row["clips"]))
    console.print(table)


def _with_interval(share: float, count: int) -> str:
    low, high = wilson_interval(share, count)
    return f"{100 * share:.1f} ({100 * low:.0f}-{100 * high:.0f})"


def _policy_record(
    policy: EvaluatedPolicy,
    predictions: Predictions,
    hierarchy: Hierarchy,
    calibration: dict[str, dict[str, float]],
) -> dict[str, Any]:
    shares = top1(_decode(predictions, hierarchy, "marginal", calibration), predictions.labels)
    return {
        "policy": policy.policy,
        "span_s": policy.span_s,
        **{f"{level}_top1": shares[level] for level in LEVELS},
        "clips": len(predictions.labels["city"]),
    }


def _decode(
    predictions: Predictions,
    hierarchy: Hierarchy,
    mode: DecodingMode,
    calibration: dict[str, dict[str, float]],
) -> Decoded:
    temperatures = {level: calibration[level]["temperature"] for level in LEVELS}
    return decode(predictions.logits, hierarchy, mode, temperatures)


def _best_temperature(
    predictions: Predictions, hierarchy: Hierarchy, mode: DecodingMode, levels: tuple[Level, ...]
) -> float:
    """Least NLL of the finest of `levels` over a logarithmic grid from 1/4 to 8."""
    target = levels[0]
    rows = np.arange(len(predictions.labels[target]))

    def loss(temperature: float) -> float:
        decoded = decode(predictions.logits, hierarchy, mode, dict.fromkeys(levels, temperature))
        truth = decoded.probs[target][rows, predictions.labels[target]]
        return float(-np.log(np.maximum(truth, 1e-12)).mean())

    return float(min(np.geomspace(0.25, 8.0, 61), key=loss))


def _join(parts: list[Predictions]) -> Predictions:
    counts = [len(part.labels["city"]) for part in parts]
    return Predictions(
        logits={level: np.concatenate([p.logits[level] for p in parts]) for level in LEVELS},
        labels={level: np.concatenate([p.labels[level] for p in parts]) for level in LEVELS},
        scene_top1=float(np.average([p.scene_top1 for p in parts], weights=counts)),
    )


if __name__ == "__main__":
    app()
