"""How long one clip takes here in each precision of a bundle, measured once for each machine.

A latency belongs to a machine, and measured again it is never quite the same. What was measured of
a graph is therefore kept in the cache: the same export on the same machine gives the same bundle,
byte by byte. `geotag bench` measures anew.

Shape suffixes: T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from engines.base import EngineUnavailableError
from engines.bundle import GRAPHS, sha256_of
from engines.choose import inference_threads, usable_cores
from engines.openvino_cpu import OpenvinoEngine
from engines.plans import write_whole
from geotag.device.files import MACHINE
from geotag.device.system import read_cpu
from geotag.writers.run import versions
from train.judging import RuntimeEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from engines.base import Engine
    from engines.bundle import Bundle, Precision

Key = TypeVar("Key")

TIMED_RUNS = 9
"""Of each precision, in turns; their median is the latency."""


def latencies_ms(bundle: Bundle, *, cache: Path) -> dict[Precision, float]:
    """Milliseconds of one clip in each precision, by what would run it here.

    Args:
        bundle: a model folder.
        cache: folder in which measurements are kept; one that cannot be written keeps nothing.
    """
    kept = cache / "latency" / f"{_key(bundle)}.json"
    try:
        record = json.loads(kept.read_text(encoding="utf-8"))
        return {precision: float(record[precision]) for precision in bundle.precisions}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    engines = {precision: _open(bundle, precision) for precision in bundle.precisions}
    try:
        found = {
            precision: round(1e3 * seconds, 1)
            for precision, seconds in _time(engines, bundle).items()
        }
    finally:
        for engine in engines.values():
            engine.close()
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, json.dumps(found).encode())
    except OSError:
        pass
    return found


def _open(bundle: Bundle, precision: Precision) -> Engine:
    """What would run it here."""
    threads = inference_threads(usable_cores())
    try:
        return OpenvinoEngine(bundle, threads=threads, precision=precision)
    except EngineUnavailableError:
        return RuntimeEngine(bundle, threads=threads, precision=precision)


def _time(engines: Mapping[Precision, Engine], bundle: Bundle) -> dict[Precision, float]:
    """Median seconds of one clip in each engine."""
    clip_THWC = noise_clip(bundle)
    runs = {name: partial(engine.infer, clip_THWC[None]) for name, engine in engines.items()}
    return time_in_turns(runs, TIMED_RUNS)


def noise_clip(bundle: Bundle) -> NDArray[np.uint8]:
    """A clip that a bundle takes: no engine is faster or slower for what it shows."""
    spec = bundle.manifest.input
    shape_THWC = (spec.frames, spec.height_px, spec.width_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape_THWC, dtype=np.uint8)


def time_in_turns(runs: Mapping[Key, Callable[[], object]], turns: int) -> dict[Key, float]:
    """Median seconds of each of some runs.

    Measured in turns, so that whatever else the machine does meets all of them alike.

    Args:
        runs: what is measured.
        turns: how often, after one that warms up.
    """
    taken_s: dict[Key, list[float]] = {name: [] for name in runs}
    for turn in range(turns + 1):
        for name, run in runs.items():
            started_s = time.perf_counter()
            run()
            if turn:
                taken_s[name].append(time.perf_counter() - started_s)
    return {name: statistics.median(values) for name, values in taken_s.items()}


def _key(bundle: Bundle) -> str:
    """Of the graphs, and of all on this machine that makes them quick or slow."""
    facts = {
        "graphs": {name: sha256_of(bundle.file(GRAPHS[name])) for name in bundle.precisions},
        "versions": versions(("openvino", "onnxruntime", "numpy")),
        "cores": usable_cores(),
        "processor": read_cpu(MACHINE).name,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
