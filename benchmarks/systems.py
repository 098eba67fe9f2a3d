"""What does each system of the comparison cost in training and in answering, at its full size?

    python benchmarks/systems.py                        # tiny networks on a CPU, full size on a GPU
    python benchmarks/systems.py --batch 32 --save NAME
    python benchmarks/systems.py --presets paper,timesformer --compile

Every preset of the tables `sota` and `image-video` takes steps as `python -m train.fit` does, with
random weights and random clips that lie in memory: on a GPU in bfloat16, with classifiers of the
classes of CityGuessr68k. Then it answers without learning, in the same number format. What reading
videos costs is not in here: see `benchmarks/loading.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from rich.console import Console
from rich.table import Table

from benchmarks.record import machine, save
from train.build import shape_of, teachers_of
from train.comparison import read_tables
from train.config import load_preset
from train.count import cost_of
from train.data.city_tree import cityguessr_tree
from train.data.clips import class_counts
from train.data.loading import Batch
from train.loop import Learner
from train.models.kinds import find_kind
from train.place_texts import TEXT_WIDTH, label_width_of
from train.processes import World
from train.texts import name_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from train.config import TrainConfig
    from train.models.base import GeoModel

TABLES = ("sota", "image-video")
TRAINING_CLIPS = 54_614
"""Of CityGuessr68k's official split, to say how long an epoch is."""
WARM_UP, TURNS = 3, 8
SCENES = 16


def main() -> int:
    """Measure, print a table and the JSON line.  -> the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--presets", help="some of the systems alone, with commas")
    parser.add_argument("--batch", type=int, help="clips of a step")
    parser.add_argument("--full", action="store_true", help="full size on a CPU, too")
    parser.add_argument("--compile", action="store_true", help="with torch.compile, as train.fit")
    parser.add_argument("--save", help="also keep the JSON as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    is_full = arguments.full or device.type == "cuda"
    names = arguments.presets.split(",") if arguments.presets else presets_compared()
    rows = []
    for name in names:
        config = load_preset(name)
        if not is_full:
            config = replace(config, model=replace(config.model, size="tiny"))
        config = replace(config, batch=arguments.batch or (32 if is_full else 2))
        rows.append(measure(name, config, device, compiled=arguments.compile))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    report = {
        "size": "full" if is_full else "tiny",
        "format": "bfloat16" if device.type == "cuda" else "float32",
        "compiled": arguments.compile,
        "rows": rows,
        **machine("torch", gpu=gpu_name(device)),
    }
    show(rows)
    if arguments.save:
        save(report, arguments.save)
    print(json.dumps(report))
    return 0


def presets_compared() -> list[str]:
    """Presets of the tables, each once; some train the same network in the same way."""
    tables = read_tables()
    rows = [row for name in TABLES for row in tables[name].rows if row.still is None]
    return list(dict.fromkeys(row.preset for row in rows))


def measure(
    name: str, config: TrainConfig, device: torch.device, *, compiled: bool
) -> dict[str, Any]:
    """Clips a second of one system, in training and in answering.

    Args:
        name: its preset.
        config: the recipe, with the size that is measured.
        device: where.
        compiled: with torch.compile.
    """
    tree = cityguessr_tree().hierarchy
    model = new_model(config, device)
    cost = cost_of(model)
    learner = Learner(
        model,
        config,
        World(rank=0, size=1, device=device),
        hierarchy=tree,
        steps=10_000,
        texts_KE=name_table(tree) if config.loss.text_weight else None,
        compiled=compiled,
    )
    batch = random_batch(config, model.clip_shape, len(tree.ancestors["city"])).to(device)
    is_gpu = device.type == "cuda"
    if is_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    step_s = median_s(lambda: learner.step(batch, 1000), device)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if is_gpu else None

    def answer() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=is_gpu):
            model(batch.clip_NTHWC)

    model.eval()
    answer_s = median_s(answer, device)
    clips_per_s = config.batch / step_s
    return {
        "preset": name,
        "kind": config.model.kind,
        "clip": list(model.clip_shape),
        "parameters": cost.parameters,
        "gmac_per_clip": round(cost.macs / 1e9, 2),
        "batch": config.batch,
        "training_clips_per_s": round(clips_per_s, 1),
        "epoch_min": round(TRAINING_CLIPS / clips_per_s / 60, 1),
        "training_peak_gib": None if peak is None else round(peak, 1),
        "answering_clips_per_s": round(config.batch / answer_s, 1),
    }


def new_model(config: TrainConfig, device: torch.device) -> GeoModel:
    """The network of a recipe for the classes of CityGuessr68k, with random weights."""
    torch.manual_seed(0)
    teachers = teachers_of(
        config.model,
        text_width=0 if config.model.text == "none" else TEXT_WIDTH,
        label_width=label_width_of(config.model),
    )
    model: GeoModel = find_kind(config.model.kind).model(
        shape_of(config.model), class_counts(cityguessr_tree().hierarchy), teachers=teachers
    )
    return model.to(device)


def random_batch(config: TrainConfig, clip_shape: Sequence[int], cities: int) -> Batch:
    """Clips of noise, each with a city and a scene."""
    generator = torch.Generator().manual_seed(0)
    sides = (config.batch, *clip_shape)
    scene_N = torch.randint(SCENES, (config.batch,), generator=generator)
    return Batch(
        clip_NTHWC=torch.randint(0, 256, sides, dtype=torch.uint8, generator=generator),
        city_N=torch.randint(cities, (config.batch,), generator=generator),
        scene_NS=F.one_hot(scene_N, SCENES).float(),
        scene_N=scene_N,
        positions_N=torch.arange(config.batch),
    )


def median_s(work: Callable[[], None], device: torch.device) -> float:
    """Median seconds of some work, once it is warm."""
    times = []
    for turn in range(WARM_UP + TURNS):
        wait_for(device)
        started_s = time.perf_counter()
        work()
        wait_for(device)
        if turn >= WARM_UP:
            times.append(time.perf_counter() - started_s)
    return statistics.median(times)


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gpu_name(device: torch.device) -> str | None:
    """Of the GPU that is used, if one is."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A table for people."""
    table = Table(
        "system", "GMAC", "training clips/s", "epoch, min", "peak GiB", "answering clips/s"
    )
    for row in rows:
        table.add_row(
            row["preset"],
            f"{row['gmac_per_clip']:.1f}",
            f"{row['training_clips_per_s']:.1f}",
            f"{row['epoch_min']:.0f}",
            "" if row["training_peak_gib"] is None else f"{row['training_peak_gib']:.1f}",
            f"{row['answering_clips_per_s']:.1f}",
        )
    Console(stderr=True, width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
