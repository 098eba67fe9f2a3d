"""What do smaller precisions cost the demo model, on clips that neither training nor export saw?

    python benchmarks/int8.py                  # about ten minutes on two cores
    python benchmarks/int8.py --clips 200      # quicker and coarser

The demo bundle is exported with `--precision int8` and the usual 512 calibrating clips; then test
drives of the rendered world go through every precision. Exit status 1 if int8 names another city
than float32 for more than 1 % of the clips, or loses 0.3 points of city accuracy or more.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.record import machine, save
from engines.bundle import GRAPHS, LEVELS, Bundle, read_bundle
from engines.choose import usable_cores
from geotag.places.hierarchy import read_hierarchy
from geotag.wish import PrecisionWish
from train.calibration_clips import ClipPool
from train.clip_pools import look_at
from train.data.clips import RenderedClips
from train.data.dataset import SamplingRange, View
from train.export import export_bundle
from train.judging import judge_precisions, open_runtime

DEMO = Path(__file__).parents[1] / "geotag" / "demo_bundle"
MOST_CHANGED, MOST_LOST = 0.01, 0.003
SEED = 11
"""Of the test drives; those of the published accuracies have others."""
RELATIVE_CLIPS = 16


def main() -> int:
    """Export, judge, print the JSON line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=2000, help="test clips")
    parser.add_argument("--save", help="also keep the JSON as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        started_s = time.perf_counter()
        report = export_bundle(DEMO, out, wish=PrecisionWish(precision="int8"), console=console)
        export_s = time.perf_counter() - started_s
        print(report)
        bundle = read_bundle(out)
        pool = test_pool(bundle, arguments.clips, console)
        judged = judge_precisions(bundle, pool, max_drop=MOST_LOST, console=console)
        relative = largest_differences(bundle, pool)
        sizes = {name: bundle.manifest.files[file].size_bytes for name, file in GRAPHS.items()}
    figures: dict[str, Any] = {"export_s": round(export_s, 1), "bytes": sizes}
    for precision, verdict in judged.verdicts.items():
        record = verdict.record()
        accuracy, drop = verdict.accuracy, verdict.drop
        if accuracy is None or drop is None:
            raise RuntimeError("rendered clips are labelled")
        figures[precision] = {
            **record,
            "city_top1_interval": [round(accuracy["city"].low, 4), round(accuracy["city"].high, 4)],
            "judged_by": judged.engines[precision],
            "largest_difference_of_logits": relative[precision],
        }
    report_json = {
        **figures,
        "world": "rendered test drives, spans and policies mixed as in training",
        **machine("numpy", "openvino", "onnxruntime", "torch"),
    }
    if arguments.save:
        save(report_json, arguments.save)
    print(json.dumps(report_json))
    int8 = judged.verdicts["int8"]
    lost = int8.drop.value if int8.drop else 0.0
    return int(1 - int8.agreement["city"] > MOST_CHANGED or lost >= MOST_LOST)


def test_pool(bundle: Bundle, clips: int, console: Console) -> ClipPool:
    """Clips of test drives, labelled."""
    spec, sampling = bundle.manifest.input, bundle.manifest.sampling
    dataset = RenderedClips(
        split="test",
        clips=clips,
        sampling=SamplingRange(
            min_span_s=sampling.min_span_s,
            max_span_s=sampling.max_span_s,
            max_keyframe_gap_s=sampling.max_keyframe_gap_s,
        ),
        seed=SEED,
    )
    view = View(frames=spec.frames, image_px=spec.height_px, resize=spec.resize, seed=SEED)
    workers = usable_cores()
    looks, bad = look_at(
        dataset, view, range(clips), workers=workers, console=console, title="looking at test clips"
    )
    hierarchy = read_hierarchy(bundle.file("places.csv"))
    names = [place.name for place in hierarchy.places["city"]]
    theirs = [place.name for place in dataset.hierarchy.places["city"]]
    cities = [names.index(theirs[dataset.entries[look.number].city_id]) for look in looks]
    return ClipPool(
        dataset=dataset,
        view=view,
        looks=tuple(looks),
        city_ids=np.array(cities, np.intp),
        bad=tuple(bad),
        workers=workers,
    )


def largest_differences(bundle: Bundle, pool: ClipPool) -> dict[str, float]:
    """Largest difference of a logit from float32, as a share of the largest logit of float32."""
    clips_NTHWC = next(pool.batches(RELATIVE_CLIPS)).clips_NTHWC
    scores = {}
    for precision in bundle.precisions:
        engine = open_runtime(bundle, precision)
        found = engine.infer(clips_NTHWC)
        scores[precision] = np.concatenate([found[level] for level in LEVELS], axis=1)
        engine.close()
    largest = np.abs(scores["fp32"]).max()
    return {
        precision: float(f"{np.abs(found - scores['fp32']).max() / largest:.3g}")
        for precision, found in scores.items()
    }


if __name__ == "__main__":
    sys.exit(main())
