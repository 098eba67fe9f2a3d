"""What does a training step cost, against a bare loop, and on a GPU against the released recipe?

    python benchmarks/training.py                  # tiny on a CPU, small on a GPU
    python benchmarks/training.py --size small --batch 64 --device cuda --save NAME

All ways learn from the same random clips, held in memory, in turn, in one run:

* `step`: `train.loop.Learner.step`, which is what `python -m train.fit` does for a batch.
* `bare`: forward, the same losses, backward and optimiser in a dozen lines of torch, in the same
  number format, compiled where `step` is. Asked for: `step` takes at most 1.1 of its time.
* On a GPU also `eager`: the released code's way (float32, `VideoMAEModel` of transformers with
  eager attention, Adam, nothing compiled). Asked for: `step` is 8 times as fast.
  And the peak of bf16 matrix products as measured here, with the share of it that `step` reaches.

Exit status 1 if a figure misses what is asked for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from benchmarks.record import machine, save
from engines.bundle import LEVELS
from train.config import change_config, load_preset
from train.data.clips import class_counts, rendered_hierarchy
from train.data.loading import Batch
from train.loop import Learner
from train.losses import Targets, loss_sums
from train.models.geolocator import Geolocator
from train.models.teachers import TeacherConfig
from train.models.videomae import SIZES
from train.optim import make_optimiser
from train.processes import World
from train.texts import name_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from train.config import TrainConfig

MOST_STEP_TO_BARE, LEAST_STEP_TO_EAGER = 1.1, 8.0
WARM_UP = 3
"""Rounds before timing: compilation, allocation."""
PEAK_SIDE = 8192
"""Of the square matrices whose product measures the peak."""


def main() -> int:
    """Measure, print a table and the JSON line.  -> the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=sorted(SIZES))
    parser.add_argument("--batch", type=int, help="clips of a step")
    parser.add_argument("--repeats", type=int, default=10, help="rounds timed")
    parser.add_argument("--save", help="also keep the JSON as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    is_gpu = device.type == "cuda"
    size = arguments.size or ("small" if is_gpu else "tiny")
    config = change_config(
        load_preset("paper"),
        model_size=size,
        batch=arguments.batch or (64 if is_gpu else 8),
        pretrained="",
        data="rendered",
    )
    world = World(rank=0, size=1, device=device)
    shape = SIZES[size]
    clip_shape = (shape.frames, shape.image_px, shape.image_px, 3)
    batch = random_batch(config.batch, clip_shape, 24)
    ways = {"step": our_step(config, world, batch), "bare": bare_step(config, world, batch)}
    if is_gpu:
        ways["eager"] = released_step(config, device, batch)
    seconds = time_in_turn(ways, arguments.repeats, device)
    report: dict[str, Any] = {
        "size": size,
        "batch": config.batch,
        "clips_per_s": {name: round(config.batch / value, 2) for name, value in seconds.items()},
        "step_to_bare": round(seconds["step"] / seconds["bare"], 4),
    }
    if is_gpu:
        flops = 3 * 2 * multiply_adds(config) * config.batch  # backward costs twice the forward
        peak = measure_peak(device)
        report |= {
            "faster_than_eager": round(seconds["eager"] / seconds["step"], 2),
            "peak_tflops": round(peak / 1e12, 1),
            "share_of_peak": round(flops / seconds["step"] / peak, 4),
        }
    report["missed"] = missed(report)
    report |= machine("torch", "transformers", gpu=gpu_name(device))
    print(json.dumps({key: report[key] for key in list(report)[:8]}, indent=2))
    if arguments.save:
        save(report, arguments.save)
    print(json.dumps(report))
    return 1 if report["missed"] else 0


def missed(report: dict[str, Any]) -> list[str]:
    """What is not as it is asked for."""
    wrong = []
    if report["step_to_bare"] > MOST_STEP_TO_BARE:
        wrong.append(f"step_to_bare {report['step_to_bare']}")
    if report.get("faster_than_eager", LEAST_STEP_TO_EAGER) < LEAST_STEP_TO_EAGER:
        wrong.append(f"faster_than_eager {report['faster_than_eager']}")
    return wrong


def random_batch(count: int, clip_shape: Sequence[int], cities: int) -> Batch:
    """Clips of noise, each with a city and a scene.

    Args:
        count: of clips.
        clip_shape: (T, H, W, 3).
        cities: how many there are.
    """
    generator = torch.Generator().manual_seed(0)
    scene_N = torch.randint(16, (count,), generator=generator)
    return Batch(
        clip_NTHWC=torch.randint(
            0, 256, (count, *clip_shape), dtype=torch.uint8, generator=generator
        ),
        city_N=torch.randint(cities, (count,), generator=generator),
        scene_NS=F.one_hot(scene_N, 16).float(),
        scene_N=scene_N,
        positions_N=torch.arange(count),
    )


def new_model(config: TrainConfig) -> Geolocator:
    """A network with random weights, the same each time."""
    torch.manual_seed(0)
    return Geolocator(
        SIZES[config.model.size],
        class_counts(rendered_hierarchy()),
        teachers=TeacherConfig(scene="attention", text_width=512),
    )


def our_step(config: TrainConfig, world: World, batch: Batch) -> Callable[[], None]:
    """What train.fit does for a batch."""
    tree = rendered_hierarchy()
    learner = Learner(
        new_model(config),
        config,
        world,
        hierarchy=tree,
        steps=10_000,
        texts_KE=name_table(tree),
        compiled=world.is_gpu,
    )
    held = batch.to(world.device)
    return lambda: learner.step(held, 1000)


def bare_step(config: TrainConfig, world: World, batch: Batch) -> Callable[[], None]:
    """Forward, losses, backward, optimiser, and nothing else."""
    tree, held = rendered_hierarchy(), batch.to(world.device)
    model = new_model(config).to(world.device).train()
    network = torch.compile(model) if world.is_gpu else model
    optimiser = make_optimiser(model, config.optimiser, fused=world.is_gpu)
    targets = Targets(
        labels={
            level: torch.from_numpy(tree.ancestors[level]).to(world.device)[held.city_N]
            for level in LEVELS
        },
        scene_NS=held.scene_NS,
        scene_N=held.scene_N,
        text_NE=torch.from_numpy(name_table(tree)).to(world.device)[held.city_N],
    )

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(world.device.type, torch.bfloat16, enabled=world.is_gpu):
            outputs = network(held.clip_NTHWC)
        outputs = {name: value.float() for name, value in outputs.items()}
        loss = torch.stack(list(loss_sums(outputs, targets, config.loss).values())).sum()
        (loss / config.batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
        optimiser.step()

    return step


def released_step(config: TrainConfig, device: torch.device, batch: Batch) -> Callable[[], None]:
    """As the released code trains: float32, transformers' own attention, Adam, not compiled."""
    from transformers import VideoMAEConfig, VideoMAEModel

    shape = SIZES[config.model.size]
    encoder = VideoMAEModel(
        VideoMAEConfig(
            hidden_size=shape.width,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            intermediate_size=shape.mlp_width,
            num_frames=shape.frames,
            image_size=shape.image_px,
            attn_implementation="eager",
        )
    )
    counts = class_counts(rendered_hierarchy())
    heads = torch.nn.ModuleList(torch.nn.Linear(shape.width, counts[level]) for level in LEVELS)
    model = torch.nn.ModuleDict({"encoder": encoder, "heads": heads}).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    # The released loader hands over floats in [0, 1], frames before channels.
    pixels = (batch.clip_NTHWC.to(device).float() / 255).permute(0, 1, 4, 2, 3).contiguous()
    tree = rendered_hierarchy()
    labels = [torch.from_numpy(tree.ancestors[level])[batch.city_N].to(device) for level in LEVELS]

    def step() -> None:
        optimiser.zero_grad()
        feature_ND = encoder(pixels).last_hidden_state.mean(1)
        terms = [F.cross_entropy(h(feature_ND), ids) for h, ids in zip(heads, labels, strict=True)]
        torch.stack(terms).sum().backward()
        optimiser.step()

    return step


def time_in_turn(
    ways: dict[str, Callable[[], None]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each way, the ways taking turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM_UP + repeats):
        for name, way in ways.items():
            wait_for(device)
            started_s = time.perf_counter()
            way()
            wait_for(device)
            if number >= WARM_UP:
                times[name].append(time.perf_counter() - started_s)
    return {name: statistics.median(found) for name, found in times.items()}


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def multiply_adds(config: TrainConfig) -> int:
    """Of one clip, forward through the encoder: products with weights, and of attention."""
    shape = SIZES[config.model.size]
    tokens, width = shape.tokens, shape.width
    block = tokens * (4 * width**2 + 2 * width * shape.mlp_width) + 2 * tokens**2 * width
    return shape.depth * block + tokens * shape.token_values * width


def measure_peak(device: torch.device) -> float:
    """Operations a second of a large bf16 matrix product, best of ten."""
    one = torch.randn(PEAK_SIDE, PEAK_SIDE, device=device, dtype=torch.bfloat16)
    best_s = min(
        time_in_turn({"product": lambda: one @ one}, 1, device)["product"] for _ in range(10)
    )
    return 2 * PEAK_SIDE**3 / best_s


def gpu_name(device: torch.device) -> str | None:
    """Of the GPU that is used, if one is."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


if __name__ == "__main__":
    sys.exit(main())
