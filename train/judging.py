"""What smaller precisions of a model answer, beside float32 on the same clips.

float32 and int8 run as a scan on a CPU runs them, through OpenVINO. float16 runs through ONNX
Runtime with every tensor rounded to float16, as on a GPU; that takes longer than float32, so fewer
clips are judged.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
from rich.progress import Progress

from calibration.gate import Verdict, judge
from calibration.half import rounded_graph
from engines.base import EngineUnavailableError
from engines.bundle import GRAPHS, LEVELS
from engines.choose import inference_threads, usable_cores
from engines.openvino_cpu import OpenvinoEngine
from geotag.places.hierarchy import decode, read_hierarchy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.console import Console

    from engines.base import Engine
    from engines.bundle import Bundle, Level, Precision
    from geotag.places.hierarchy import Hierarchy
    from train.clip_pools import ClipPool

    Answers = dict[Level, NDArray[np.intp]]

HALF_CLIPS = 64
"""Clips that float16 is judged by."""
SENSITIVITY_CLIPS = 16
_BATCH = 4
_KINDS = {
    "tensor(uint8)": np.uint8,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
}
"""Of pixels, as ONNX Runtime calls them."""


class RuntimeEngine:
    """A graph of a bundle in ONNX Runtime; satisfies `engines.base.Engine`."""

    def __init__(
        self, bundle: Bundle, *, threads: int, precision: Precision, rounds: bool = False
    ) -> None:
        """Load a graph.

        Args:
            bundle: a model folder.
            threads: processor cores for one inference.
            precision: one of `bundle.precisions`.
            rounds: every tensor to float16, in a float16 graph; left to itself ONNX Runtime
                computes such a graph in float32.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.name = f"onnxruntime-cpu-{precision}"
        self._outputs = list(bundle.manifest.outputs)
        path = bundle.file(GRAPHS[precision])
        graph: Path | bytes = path
        if rounds:
            held = onnx.load(path)
            held.graph.CopyFrom(rounded_graph(held))
            graph = held.SerializeToString()
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def infer(self, clips_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run N clips, one by one.  uint8 [N, T, H, W, 3] -> every output, float32 [N, K]."""
        kind = _KINDS[self._session.get_inputs()[0].type]
        rows = [
            self._session.run(self._outputs, {"clip": clip_THWC[np.newaxis].astype(kind)})
            for clip_THWC in clips_NTHWC
        ]
        return {
            name: np.concatenate([row[place] for row in rows])
            for place, name in enumerate(self._outputs)
        }

    def close(self) -> None:
        """Nothing is to be released."""


def open_runtime(bundle: Bundle, precision: Precision) -> Engine:
    """What a precision is judged by: see the top of this module."""
    threads = inference_threads(usable_cores())
    if precision != "fp16":
        try:
            return OpenvinoEngine(bundle, threads=threads, precision=precision)
        except EngineUnavailableError:
            pass  # export needs no OpenVINO; a scan on a CPU does
    return RuntimeEngine(bundle, threads=threads, precision=precision, rounds=precision == "fp16")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Each precision beside float32."""

    verdicts: dict[Precision, Verdict]
    """Of the smaller ones."""
    engines: dict[Precision, str]
    """What ran each."""


def judge_precisions(
    bundle: Bundle, pool: ClipPool, *, max_drop: float, console: Console
) -> Judged:
    """Run held-out clips through every precision of a bundle.

    Args:
        bundle: with more than fp32.
        pool: held-out clips.
        max_drop: largest fall of city accuracy that passes, as a share.
        console: where progress is shown.

    Raises:
        EngineError: a graph does not run.
        CalibrationError: footage cannot be read any more.
    """
    hierarchy = read_hierarchy(bundle.file("places.csv"))
    engines = {precision: open_runtime(bundle, precision) for precision in bundle.precisions}
    limits = {"fp16": min(HALF_CLIPS, pool.count)}
    found: dict[Precision, list[Answers]] = defaultdict(list)
    seen = 0
    with Progress(console=console) as progress:
        task = progress.add_task("judging by held-out clips", total=pool.count)
        for batch in pool.batches(_BATCH):
            for precision, engine in engines.items():
                wanted = max(0, min(limits.get(precision, pool.count) - seen, len(batch)))
                if wanted:
                    scores = engine.infer(batch.clips_NTHWC[:wanted])
                    found[precision].append(_answers(scores, hierarchy))
            seen += len(batch)
            progress.advance(task, len(batch))
    names = {precision: engine.name for precision, engine in engines.items()}
    for engine in engines.values():
        engine.close()
    answers = {precision: _join(parts) for precision, parts in found.items()}
    truth = None if pool.city_ids is None else _truth(pool.city_ids, hierarchy)
    groups = [look.group for look in pool.looks]
    return Judged(
        verdicts={
            precision: _judge(given, answers["fp32"], truth, groups, max_drop)
            for precision, given in answers.items()
            if precision != "fp32"
        },
        engines=names,
    )


def _judge(
    given: Answers,
    reference: Answers,
    truth: Answers | None,
    groups: Sequence[str],
    max_drop: float,
) -> Verdict:
    count = len(given["city"])
    return judge(
        given,
        {level: values[:count] for level, values in reference.items()},
        None if truth is None else {level: values[:count] for level, values in truth.items()},
        max_drop=max_drop,
        groups=groups[:count],
    )


def _answers(scores: Mapping[str, NDArray[np.float32]], hierarchy: Hierarchy) -> Answers:
    return decode({level: scores[level] for level in LEVELS}, hierarchy, "codependent").labels


def _join(parts: Sequence[Answers]) -> Answers:
    return {level: np.concatenate([part[level] for part in parts]) for level in LEVELS}


def _truth(city_ids: NDArray[np.intp], hierarchy: Hierarchy) -> Answers:
    return {
        level: np.where(city_ids >= 0, hierarchy.ancestors[level][city_ids], -1) for level in LEVELS
    }


def sensitivity(
    reference: Engine,
    candidates: Iterator[tuple[str, Engine]],
    pool: ClipPool,
    *,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """How far each candidate's features are from those of float32, on a few held-out clips.

    Args:
        reference: float32.
        candidates: names with engines in which one family of layers alone is int8.
        pool: held-out clips.
        advance: told after each candidate.

    Returns:
        Name -> root mean square difference of the feature, as a share of its standard deviation;
        the largest first.
    """
    clips = next(pool.batches(min(SENSITIVITY_CLIPS, pool.count))).clips_NTHWC
    wanted_ND = reference.infer(clips)["feature"]
    spread = float(wanted_ND.std()) or 1.0
    found = {}
    for name, engine in candidates:
        with closing(engine):
            off_ND = engine.infer(clips)["feature"] - wanted_ND
        found[name] = float(np.sqrt(np.mean(np.square(off_ND)))) / spread
        advance()
    return dict(sorted(found.items(), key=lambda item: -item[1]))
