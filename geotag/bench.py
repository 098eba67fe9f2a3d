"""How fast the network of a bundle runs here, and what share of the machine's peak that is.

All that is compared is measured in turn, round by round, in one run: on a machine that warms up or
is shared, numbers measured one after the other compare the hours, not the engines. Nothing is
written, but for the compiled model that TensorRT needs and a scan would cache as well.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from engines.base import EngineError, EngineName, EngineUnavailableError
from engines.bundle import PRECISIONS, Precision
from engines.macs import macs_per_clip
from engines.matmuls import Chain
from engines.probes import PROBED, open_chain
from geotag.bench_report import BenchReport, Measurement
from geotag.device.facts import Clocks, read_clocks, read_device
from geotag.device.files import MACHINE
from geotag.device.gpus import read_gpus
from geotag.device.system import read_load
from geotag.peaks import Peak, known_peak

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from engines.base import Engine, EngineChoice
    from engines.bundle import Bundle
    from geotag.device.facts import Device
    from geotag.runs import OpenEngine

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

    OpenChain = Callable[..., Run]

BenchEngine = EngineName | Literal["all"]
BenchPrecision = Precision | Literal["auto"]

PEAK_SHAPES = {"cpu": ((768, 8), (2048, 3)), "gpu": ((4096, 24),)}
"""Width and number of the matrices, large enough that nothing but multiplying counts. Few cores
are fastest where all fits into their caches, many where there is much to share out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long is measured."""

    warmup_runs: int = 3
    min_runs: int = 20
    min_s: float = 3.0
    """Of each thing that is measured; the network alone counts."""
    most_runs: int = 1000
    """Enough, however short they are."""
    most_s: float = 30.0
    """Then fewer runs must do, but no fewer than three."""
    peak_runs: int = 8


@dataclass(slots=True)
class _Products:
    """Large matrices, multiplied to find the peak."""

    chain: Chain
    run: Run
    taken_s: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Subject:
    """What is being measured."""

    engine: Engine
    choice: EngineChoice
    kind: str
    precision: Precision
    taken_s: list[float] = field(default_factory=list)
    seen: list[Clocks] = field(default_factory=list)
    card_mhz: float | None = None
    products: list[_Products] = field(default_factory=list)
    """Where no data sheet tells the peak."""

    @property
    def is_on_gpu(self) -> bool:
        return self.kind != "openvino"

    def gpu_mhz(self) -> float | None:
        if not self.is_on_gpu:
            return None
        return _median([clocks.gpu_mhz for clocks in self.seen]) or self.card_mhz


def measure(
    bundle: Bundle,
    open_engine: OpenEngine,
    *,
    engine: BenchEngine = "auto",
    precision: BenchPrecision = "auto",
    batch: int = 1,
    say: Callable[[str], None] = lambda _: None,
    effort: Effort | None = None,
    root: Path = MACHINE,
    clock: Callable[[], float] = time.perf_counter,
    open_chain: OpenChain = open_chain,
) -> BenchReport:
    """Measure a bundle's network.

    Args:
        bundle: a verified model folder.
        open_engine: `engines.choose.open_engine`, or what stands for it.
        engine: `all` measures every engine that works here; `auto` the one a scan would take.
        precision: `auto` is every precision of the bundle with `all`, else what a scan would take.
        batch: clips handed over at a time.
        say: is told, line by line, of a compilation that takes minutes.
        effort: how long; None is a few seconds for each.
        root: where the machine's files are.
        clock: seconds that never go back.
        open_chain: `engines.probes.open_chain`, or what stands for it.

    Raises:
        EngineError: nothing of what was asked for runs here.
    """
    effort = effort or Effort()
    device = read_device(root)
    subjects, skipped = _open_all(bundle, open_engine, engine, precision, say)
    before, busy = read_clocks(root), read_load(root)
    try:
        clips = _draw_clips(bundle, batch)
        for subject in subjects:
            for _ in range(effort.warmup_runs):
                subject.engine.infer(clips)
            _prepare_peak(subject, device, open_chain)
        _run_rounds(subjects, clips, effort, root, clock)
        if device.gpus:
            _ask_card(subjects, clips, root)
    finally:
        for subject in subjects:
            subject.engine.close()
    macs = macs_per_clip(bundle)
    jetson = device.jetson
    return BenchReport(
        bundle=bundle.label,
        gmac_per_clip=None if macs is None else round(macs[0] / 1e9, 3),
        gmac_source=None if macs is None else macs[1],
        power_mode=str(jetson.power_mode) if jetson and jetson.power_mode else None,
        device=device,
        load=busy,
        hottest_celsius=(before.hottest_celsius, read_clocks(root).hottest_celsius),
        measurements=tuple(
            _measurement(subject, device, batch, None if macs is None else macs[0])
            for subject in subjects
        ),
        skipped=tuple(skipped),
    )


def _open_all(
    bundle: Bundle,
    open_engine: OpenEngine,
    engine: BenchEngine,
    precision: BenchPrecision,
    say: Callable[[str], None],
) -> tuple[list[_Subject], list[tuple[str, str]]]:
    if engine != "all":
        return [_open(bundle, open_engine, engine, precision, say)], []
    wanted = list(bundle.precisions) if precision == "auto" else [precision]
    subjects: list[_Subject] = []
    skipped: list[tuple[str, str]] = []
    for name in PROBED:
        for kind in wanted:
            try:
                subjects.append(_open(bundle, open_engine, name, kind, say))
            except EngineUnavailableError as exc:
                skipped.append((name, exc.reason))
                break
            except EngineError as exc:
                skipped.append((f"{name} {kind}", str(exc)))
    if not subjects:
        reasons = " ".join(f"{name}: {reason}." for name, reason in skipped)
        raise EngineUnavailableError(
            f"measuring {bundle.label}: no engine runs it here. {reasons} "
            "`geotag doctor` says more."
        )
    return subjects, skipped


def _open(
    bundle: Bundle,
    open_engine: OpenEngine,
    engine: str,
    precision: BenchPrecision,
    say: Callable[[str], None],
) -> _Subject:
    wanted = None if precision == "auto" else precision
    opened, choice = open_engine(bundle, engine=engine, precision=wanted, say=say)
    kind = next((name for name in sorted(PROBED, reverse=True) if opened.name.startswith(name)), "")
    named = opened.name.split("-")  # such as openvino-cpu-int8-bf16
    found = next((name for name in PRECISIONS if name in named), PRECISIONS[0])
    return _Subject(engine=opened, choice=choice, kind=kind, precision=found)


def _draw_clips(bundle: Bundle, batch: int) -> NDArray[np.uint8]:
    """Noise: no engine is faster or slower for what a clip shows."""
    import numpy as np

    given = bundle.manifest.input
    shape = (batch, given.frames, given.height_px, given.width_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _prepare_peak(subject: _Subject, device: Device, open_chain: OpenChain) -> None:
    """Where no data sheet tells the peak, multiply large matrices with the same engine."""
    if subject.is_on_gpu and known_peak(device.jetson, subject.precision, 1.0) is not None:
        return
    for width, layers in PEAK_SHAPES["gpu" if subject.is_on_gpu else "cpu"]:
        chain = Chain(rows=width, width=width, layers=layers, precision=subject.precision)
        try:
            run = open_chain(subject.kind, chain, threads=subject.choice.threads)
            run(_row_for(chain))  # the first time is no measure
        except EngineError:
            continue  # without any, the share is unknown, which the table says
        subject.products.append(_Products(chain=chain, run=run))


def _row_for(chain: Chain) -> NDArray[np.float32]:
    import numpy as np

    return np.ones((1, chain.width), dtype=np.float32)


def _run_rounds(
    subjects: list[_Subject],
    clips: NDArray[np.uint8],
    effort: Effort,
    root: Path,
    clock: Callable[[], float],
) -> None:
    while any(_needs_more(subject, effort) for subject in subjects):
        for subject in subjects:
            started_s = clock()
            subject.engine.infer(clips)
            subject.taken_s.append(clock() - started_s)
            subject.seen.append(read_clocks(root))
            for products in subject.products:
                if len(products.taken_s) < effort.peak_runs:
                    row_1K = _row_for(products.chain)
                    started_s = clock()
                    products.run(row_1K)
                    products.taken_s.append(clock() - started_s)


def _ask_card(subjects: list[_Subject], clips: NDArray[np.uint8], root: Path) -> None:
    """A card falls asleep between two programs: it is asked for its clock right after work."""
    for subject in subjects:
        if subject.is_on_gpu and subject.gpu_mhz() is None:
            subject.engine.infer(clips)
            cards = read_gpus(root, is_jetson=False)
            subject.card_mhz = cards[0].now_mhz if cards else None


def _needs_more(subject: _Subject, effort: Effort) -> bool:
    runs, spent_s = len(subject.taken_s), sum(subject.taken_s)
    if spent_s >= effort.most_s:
        return runs < 3
    return runs < effort.min_runs or (spent_s < effort.min_s and runs < effort.most_runs)


def _measurement(subject: _Subject, device: Device, batch: int, macs: float | None) -> Measurement:
    taken_s = sorted(subject.taken_s)
    median_s = statistics.median(taken_s)
    gpu_mhz = subject.gpu_mhz()
    peak = None
    if subject.is_on_gpu:
        peak = known_peak(
            device.jetson, subject.precision, gpu_mhz, multiprocessors=_multiprocessors()
        )
    if peak is None:
        peak = _measured_peak(subject)
    speed = None if macs is None else macs * batch / median_s
    return Measurement(
        engine=subject.engine.name,
        precision=subject.precision,
        device=subject.choice.device,
        threads=subject.choice.threads,
        batch=batch,
        runs=len(taken_s),
        median_ms=median_s * 1e3,
        min_ms=taken_s[0] * 1e3,
        p95_ms=taken_s[math.ceil(0.95 * len(taken_s)) - 1] * 1e3,
        clips_a_second=batch / median_s,
        gmacs_a_second=None if speed is None else speed / 1e9,
        peak=peak,
        share_of_peak=None if speed is None or peak is None else speed / peak.macs_a_second,
        gpu_mhz=gpu_mhz,
        cpu_mhz=_median([clocks.cpu_mhz for clocks in subject.seen]),
    )


def _measured_peak(subject: _Subject) -> Peak | None:
    best = max(subject.products, key=lambda each: each.chain.macs / min(each.taken_s), default=None)
    if best is None:
        return None
    width = best.chain.width
    return Peak(
        macs_a_second=best.chain.macs / min(best.taken_s),
        is_measured=True,
        how=f"measured in this run: {subject.precision} matrices of {width} x {width}, the best of "
        f"{sum(len(each.taken_s) for each in subject.products)} runs",
    )


def _multiprocessors() -> int | None:
    """Those that are switched on: low power modes of a Jetson leave some out."""
    from engines.cuda import load_cuda

    try:
        return load_cuda().device.multiprocessors
    except EngineError:
        return None


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
