r"""How do all systems of the comparison do on the rendered world, at the same small budget?

    python -m train.pack rendered --out rendered --clips 4000 --frames 16 --image-px 112 \
        --quality 92
    python benchmarks/leaderboard.py --data shards:rendered --save leaderboard_NAME
    python benchmarks/comparison_page.py    # writes docs/comparison.md from what was saved

Every system of the tables `sota`, `image-video` and `additions` is trained at the size and with
the aids of the preset `demo`: as many steps, clips a step and clips seen for all, three seeds each.
Each run is a cell, as of `python -m train.tables`: the script may be stopped at any time and given
again, and goes on where it was. Cells can be made beside each other, each process bound to cores
of its own, or threads wait for each other and steps take ten times as long:
`taskset -c 0 python benchmarks/leaderboard.py --presets planet,isns ...`.

Then one network of each is exported, and all are measured side by side, in turn, with OpenVINO:
ratios of latency hold where absolute times drift.

Exit status 1 if a system does not do much better than the constant answer that is right most often:
at every level it is to leave at most MOST_MISSED of what that misses.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.record import machine, save
from engines.bundle import LEVELS, read_bundle
from engines.choose import inference_threads, usable_cores
from engines.openvino_cpu import OpenvinoEngine
from geotag.errors import GeotagError
from train.build import clip_frames, open_part
from train.cells import cell_path, make_cells, need_tests
from train.comparison import DIGITS, PaperTable, Row, read_tables, record_row
from train.config import load_preset
from train.count import cost_of, lay_out_preset
from train.data.city_tree import cityguessr_tree
from train.data.clips import class_counts
from train.data.dataset import Sample, View
from train.errors import TrainError
from train.evaluation.sets import spread
from train.export import export_bundle
from train.latency import noise_clip, time_in_turns
from train.losses import NO_SCENE
from train.models.kinds import sized_shape
from train.plain_facts import plain_command
from train.tables import plan_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from train.config import TrainConfig

    Plan = Sequence[tuple[Row, Sequence[TrainConfig]]]

TABLES = ("sota", "image-video", "additions")
SCRIPT = "benchmarks/leaderboard.py"
LIKE = "demo"
STEPS = 1000
"""After 400, GeoDecoder on Swin still answered little better than a constant. A cell takes three to
ten minutes on a quiet core, TimeSformer half an hour and the album of PlaNet three quarters; on an
H200 two to four, ten beside each other on 16 cores."""
VIEWS = 2
"""How often a clip is shown once it is read: reading takes a third of a step of one view."""
MAIN = "paper"
"""Preset that latencies are told as multiples of; the first one where it is not ranked."""
SHOWN = "codependent"
"""Decoding by which a system is judged: the paper's."""
MOST_MISSED = 0.8
TURNS = 40
"""Of measuring latency, after one that warms up."""


def main() -> int:
    """Make what is not made yet, measure, print the JSON line.  -> the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="shards:FOLDER, of the rendered world")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each run")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each system")
    parser.add_argument("--presets", help="some of the systems alone, by preset, with commas")
    parser.add_argument("--workers", type=int, default=0, help="processes that read clips")
    parser.add_argument("--out", type=Path, default=Path("runs/leaderboard"), help="the cells")
    parser.add_argument(
        "--save",
        metavar="NAME",
        help="also keep the JSON as benchmarks/results/NAME.json; the page is written of the last "
        "that begins with leaderboard_",
    )
    arguments = parser.parse_args()
    console = Console(stderr=True)
    try:
        wanted = arguments.presets and set(arguments.presets.split(","))
        table = PaperTable(title="Leaderboard", rows=rows_of(wanted))
        rows = plan_table(
            table,
            data=arguments.data,
            like=LIKE,
            steps=arguments.steps,
            views=VIEWS,
            seeds=arguments.seeds,
        )
        plan = distinct(rows)
        report = measure(plan, arguments.out, workers=arguments.workers, console=console)
        report["same_runs"] = same_runs(rows)
    except GeotagError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        print("stopped. What is finished is kept; to go on, repeat the command.", file=sys.stderr)
        return 130
    if arguments.save:
        save(report, arguments.save)
    show(report, console)
    print(json.dumps(report))
    return int(bool(report["missed"]))


def show(report: Mapping[str, Any], console: Console) -> None:
    """The ranking for people, and what failed."""
    table = Table("top-1 %", *LEVELS, "conflicts %", "ms a clip", title=report["measured_on"])
    for row in report["rows"]:
        found = row["decodings"]
        values = [found[SHOWN][level]["value"] for level in LEVELS]
        numbers = [*values, found["without"]["conflicts"]["value"], row["latency_ms"]]
        table.add_row(row["label"], *(f"{number:.1f}" for number in numbers))
    console.print(table)
    if report["missed"]:
        console.print("not much better than a constant answer, at the low end of the interval:")
    for line in report["missed"]:
        console.print(line, markup=False, highlight=False)


def rows_of(presets: set[str] | None = None) -> tuple[Row, ...]:
    """Every system of the tables once.

    Args:
        presets: those that are wanted; None for all.

    Raises:
        TrainError: one of them is in none of the tables.
    """
    tables = read_tables()
    rows = [row for name in TABLES if name in tables for row in tables[name].rows]
    if unknown := sorted((presets or set()) - (known := {row.preset for row in rows})):
        raise TrainError(
            f"ranking {', '.join(unknown)}: the tables have {', '.join(sorted(known))}."
        )
    found = {(row.preset, row.still): row for row in reversed(rows)}  # the first label counts
    return tuple(
        row
        for row in dict.fromkeys(found[row.preset, row.still] for row in rows)
        if presets is None or row.preset in presets
    )


def distinct(plan: Plan) -> Plan:
    """Rows that differ in what is done: some presets differ in size and optimiser alone."""
    return [rows[0] for rows in _alike(plan)]


def same_runs(plan: Plan) -> list[list[str]]:
    """Presets that are one run here, the one that is shown first; none that is alone."""
    return [[row.preset for row, _ in rows] for rows in _alike(plan) if len(rows) > 1]


def _alike(plan: Plan) -> list[list[tuple[Row, Sequence[TrainConfig]]]]:
    found: dict[tuple[Any, ...], list[tuple[Row, Sequence[TrainConfig]]]] = {}
    for row, configs in plan:
        done = replace(configs[0], preset="", describes="")
        found.setdefault((repr(done), row.still), []).append((row, configs))
    return list(found.values())


def measure(plan: Plan, out: Path, *, workers: int, console: Console) -> dict[str, Any]:
    """All that is to be said of some systems, as JSON values.

    Args:
        plan: rows, each with the recipes of its cells.
        out: where the cells and the bundles lie.
        workers: processes that read clips.
        console: where progress is shown.
    """
    need_tests(plan, out)
    cells = [
        make_cells(row, configs, out=out, workers=workers, console=console) for row, configs in plan
    ]
    records = [
        {**record_row(row, each), **describe(row, configs[0], each)}
        for (row, configs), each in zip(plan, cells, strict=True)
    ]
    runs = {
        cell_path(row, config, out).parent: evaluation
        for (row, configs), each in zip(plan, cells, strict=True)
        for config, evaluation in zip(configs, each, strict=True)
    }
    config = plan[0][1][0]
    floor = floor_of(config)
    threads = inference_threads(usable_cores())
    for record, median_s in zip(
        records, latencies_s(plan, out, threads=threads, console=console), strict=True
    ):
        record["latency_ms"] = round(1e3 * median_s, 3)
    main = next((each for each in records if each["preset"] == MAIN), records[0])
    for record in records:
        record["latency_to_main"] = round(record["latency_ms"] / main["latency_ms"], 3)
    return {
        "shows": "Mechanisms of tiny networks on procedural drives; nothing about real footage.",
        "data": "python -m train.pack rendered --out rendered --clips 4000 --frames 16 "
        "--image-px 112 --quality 92",
        "measured_on": f"{cells[0][0]['clips']} clips of {cells[0][0]['dataset']}",
        "budget": {
            "like": LIKE,
            "steps": config.steps,
            "batch": config.batch,
            "views": config.views,
            "clips_seen": (config.steps or 0) * config.batch,
        },
        "seeds": len(cells[0]),
        "made_on": made_on(list(runs.values())),
        "scenes": scenes_of(config),
        "floor": floor,
        "main": main["preset"],
        "latency": {"engine": "OpenVINO, float32, one clip", "threads": threads, "turns": TURNS},
        "rows": records,
        "missed": missed(records, floor),
        **machine("numpy", "openvino", "torch"),
        "command": " ".join(["python", SCRIPT, plain_command(shlex.join(sys.argv[1:]))]).rstrip(),
    }


def made_on(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many runs were made on each GPU or processor, by name."""
    return dict(sorted(Counter(str(each.get("made_on")) for each in evaluations).items()))


def describe(
    row: Row, config: TrainConfig, evaluations: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What a system is in one line, what it learned from, and its cost at its preset's size."""
    preset = load_preset(row.preset)
    network = lay_out_preset(row.preset, class_counts(cityguessr_tree().hierarchy))
    cost = cost_of(network)
    looks = clip_frames(preset.model) if row.still == "every" else 1
    scenes = [each["scene_top1"] for each in evaluations if each.get("scene_top1") is not None]
    every = "; measured on all frames, averaged" if row.still == "every" else ""
    found: dict[str, Any] = {
        "about": preset.describes + every,
        "keep_tokens": config.model.keep_tokens,
        "made_on": made_on(evaluations),
        "full_size": {
            "kind": preset.model.kind,
            "trunk_parameters": cost.trunk,
            "gmac_per_clip": round(looks * cost.macs / 1e9, 2),
        },
    }
    if scenes:
        found["scene_top1"] = round(100 * float(np.mean(scenes)), DIGITS)
    return found


def floor_of(config: TrainConfig) -> dict[str, float]:
    """Top-1 % of the constant answer that is right most often on the clips that are counted."""
    dataset = open_part(config, "test", clips=config.test_clips)
    counted = spread(len(dataset.entries), config.test_clips)
    cities = np.array([dataset.entries[index].city_id for index in counted])
    shares = {
        level: np.bincount(dataset.hierarchy.ancestors[level][cities]).max() / len(cities)
        for level in LEVELS
    }
    return {level: round(100 * float(share), DIGITS) for level, share in shares.items()}


def scenes_of(config: TrainConfig) -> int:
    """How many groups of scenes the clips that are counted show."""
    dataset = open_part(config, "test", clips=config.test_clips)
    shape = sized_shape(config.model.kind, config.model.size, config.model.options)
    view = View(frames=1, image_px=shape.image_px, resize=config.input.resize)
    samples = (
        dataset.read(index, view) for index in spread(len(dataset.entries), config.test_clips)
    )
    return len({each.scene_id for each in samples if isinstance(each, Sample)} - {NO_SCENE})


def latencies_s(plan: Plan, out: Path, *, threads: int, console: Console) -> list[float]:
    """Median seconds of one clip for each row, of the network of its first seed.

    A network of single pictures that is measured on all frames of a clip gets them together.
    """
    with ExitStack() as stack:
        runs = {}
        for number, (row, configs) in enumerate(plan):
            run = cell_path(row, configs[0], out).parent
            place = out / "bundles" / run.name
            if not place.exists():
                console.print(f"exporting {run.name}", highlight=False)
                export_bundle(run, place, name=row.preset, console=console)
            bundle = read_bundle(place)
            engine = OpenvinoEngine(bundle, threads=threads)
            stack.callback(engine.close)
            looks = clip_frames(configs[0].model) if row.still == "every" else 1
            clips = np.repeat(noise_clip(bundle)[None], looks, axis=0)
            runs[number] = partial(engine.infer, clips)
        console.print(f"measuring {len(runs)} networks side by side, {TURNS} turns")
        return list(time_in_turns(runs, TURNS).values())


def missed(records: Sequence[Mapping[str, Any]], floor: Mapping[str, float]) -> list[str]:
    """Systems that are not much better than a constant answer at every level."""
    return [
        f"{record['label']}: {level} {found[level]['low']} %, a constant answer {floor[level]} %"
        for record in records
        for found in [record["decodings"][SHOWN]]
        for level in LEVELS
        if 100 - found[level]["low"] > MOST_MISSED * (100 - floor[level])
    ]


if __name__ == "__main__":
    sys.exit(main())
