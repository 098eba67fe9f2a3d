"""How fast is the network, by engine, precision and batch, against torch in its usual forms?

    python benchmarks/engine.py                          # CPU, `small` with drawn weights
    python benchmarks/engine.py --bundle geotag/demo_bundle
    python benchmarks/engine.py --device cuda --batches 1,8,32

All ways run in turn, round by round, on the same clips of noise; medians are compared. A network
with drawn weights has every precision, with plausible scales instead of calibrated ones: times are
those of a trained one, differences from float32 are only told to show that all compute the same.
With `--bundle` the engines run that bundle, and torch, which has no network then, is left out.

On a CPU: OpenVINO in each precision, our network in eager torch, and transformers' VideoMAE with
the same weights, in its usual form (sdpa) and with its own attention (eager). With
`--device cuda`: every TensorRT that works here, and our network in torch in float32, bfloat16 and
float16, eager, compiled, in a CUDA graph, and through torch-tensorrt where it is installed. What
is not here is listed with the reason.

`share_of_peak` is the speed of the network's multiplications over the fastest large matrix product
of the same precision in the same rounds and runtime. Exit status 1 if int8 of a `small` network
misses what is asked for on a CPU: 0.45 of its float32 and 0.20 of eager torch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch

from benchmarks.engine_torch import Network, torch_networks, torch_products
from benchmarks.record import machine, save
from engines.base import EngineError
from engines.build import plan_for
from engines.bundle import GRAPHS, TENSORRT_GRAPHS, read_bundle
from engines.choose import open_engine, usable_cores
from engines.cuda import load_cuda
from engines.macs import macs_per_clip
from engines.matmuls import Chain
from engines.probes import open_chain
from engines.tensorrt_api import load_backend
from engines.tensorrt_gpu import TensorrtEngine
from geotag.bench import PEAK_SHAPES
from tests.graphs import write_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.base import Engine
    from engines.bundle import Bundle, Precision
    from train.models.geolocator import Geolocator

LEAST_GMAC = 50.0
"""`small` has 57: smaller networks spend their time elsewhere."""
MOST_TO_FP32, MOST_TO_TORCH = 0.45, 0.20
"""Of the latency of OpenVINO in float32, and of eager torch: what int8 may take on a CPU."""
PACKAGES = ("numpy", "onnxruntime", "openvino", "torch", "transformers")


@dataclass(slots=True, kw_only=True)
class Peak:
    """Products of large matrices, timed in the same rounds as what they are the measure of."""

    products: list[tuple[float, Callable[[], object]]]
    """MACs, and what multiplies; which size is the fastest depends on the machine."""
    tmac_per_s: float = 0.0
    """The fastest that was seen."""

    def try_again(self) -> None:
        """Time each once more."""
        for macs, run in self.products:
            started_s = time.perf_counter()
            run()
            speed = macs / (time.perf_counter() - started_s) / 1e12
            self.tmac_per_s = max(self.tmac_per_s, speed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to run the network on one batch."""

    name: str
    precision: str
    batch: int
    run: Callable[[], dict[str, NDArray[np.float32]]]
    taken_s: list[float] = field(default_factory=list)

    def row(
        self, gmac: float, peaks: dict[str, float], wanted: NDArray[np.float32]
    ) -> dict[str, Any]:
        """What was measured of it."""
        times_ms = np.sort(self.taken_s) * 1e3
        median_ms = float(np.median(times_ms))
        speed = gmac * self.batch / median_ms  # TMAC/s
        runtime = self.name.split(" ")[0].replace("transformers", "torch")
        peak = peaks.get(f"{runtime} {self.precision}")
        found = self.run()["city"]
        return {
            "name": self.name,
            "precision": self.precision,
            "batch": self.batch,
            "median_ms": round(median_ms, 3),
            "p5_ms": round(float(np.percentile(times_ms, 5)), 3),
            "p95_ms": round(float(np.percentile(times_ms, 95)), 3),
            "clips_per_s": round(self.batch / median_ms * 1e3, 3),
            "tmac_per_s": round(speed, 4),
            "share_of_peak": round(speed / peak.tmac_per_s, 3) if peak else None,
            "difference": float(f"{np.abs(found - wanted).max() / np.abs(wanted).max():.2g}"),
        }


def main() -> int:
    """Measure; exit status 1 if a figure misses what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="small")
    parser.add_argument("--bundle", type=Path, help="a model folder, in place of drawn weights")
    parser.add_argument("--batches", default="1", help="clips at a time, with commas")
    parser.add_argument("--repeats", type=int, default=15, help="rounds timed")
    parser.add_argument("--save", help="also keep the JSON as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    skipped: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        model, bundle = None, None
        if arguments.bundle is None:
            model, bundle = write_bundle(Path(folder) / "bundle", arguments.size)
        else:
            bundle = read_bundle(arguments.bundle)
        counted = macs_per_clip(bundle)
        gmac = counted[0] / 1e9 if counted else 0.0
        peaks = open_peaks(arguments.device, bundle, skipped)
        for batch in map(int, arguments.batches.split(",")):
            rows += measure(arguments, model, bundle, batch, gmac, peaks, skipped)
    report: dict[str, Any] = {
        "bundle": bundle.label,
        "device": arguments.device,
        "gmac_per_clip": round(gmac, 2),
        "rows": rows,
        "peaks_tmac_per_s": {name: round(peak.tmac_per_s, 3) for name, peak in peaks.items()},
        "ratios": ratios(rows),
        "skipped": skipped,
    }
    is_judged = arguments.device == "cpu" and gmac > LEAST_GMAC
    report["missed"] = missed(report["ratios"]) if is_judged else []
    if not rows:
        report["missed"] = [f"nothing runs on {arguments.device} here"]
    report |= machine(*PACKAGES, rounds=arguments.repeats, gpu=gpu_name(arguments.device))
    show(report)
    if arguments.save:
        save(report, arguments.save)
    print(json.dumps(report))
    return 1 if report["missed"] else 0


def measure(
    arguments: argparse.Namespace,
    model: Geolocator | None,
    bundle: Bundle,
    batch: int,
    gmac: float,
    peaks: dict[str, Peak],
    skipped: dict[str, str],
) -> list[dict[str, Any]]:
    """Every way on one batch, in turn."""
    spec = bundle.manifest.input
    shape = (batch, spec.frames, spec.height_px, spec.width_px, 3)
    clips = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with ExitStack() as stack:
        ways = list(engine_ways(arguments.device, bundle, clips, stack, skipped))
        if model is not None:
            networks = torch_networks(model, arguments.device, clips, skipped)
            ways += [as_way(network, batch) for network in networks]
        for way in ways:
            for _ in range(3):
                way.run()
        for _ in range(arguments.repeats):
            for way in ways:
                started_s = time.perf_counter()
                way.run()
                way.taken_s.append(time.perf_counter() - started_s)
            for peak in peaks.values():
                peak.try_again()
        wanted = reference(bundle, clips)
        return [way.row(gmac, peaks, wanted) for way in ways]


def as_way(network: Network, batch: int) -> Way:
    """A torch network among the others."""
    return Way(name=network.name, precision=network.precision, batch=batch, run=network.run)


def engine_ways(
    device: str,
    bundle: Bundle,
    clips: NDArray[np.uint8],
    stack: ExitStack,
    skipped: dict[str, str],
) -> Iterator[Way]:
    """Our engines, in every precision that the bundle has for them."""
    for name in ("openvino",) if device == "cpu" else ("tensorrt", "tensorrt-rtx"):
        graphs = GRAPHS if name == "openvino" else TENSORRT_GRAPHS
        for precision, graph in graphs.items():
            if graph not in bundle.manifest.files:
                continue
            try:
                engine = opened(name, bundle, precision, len(clips))
            except EngineError as exc:
                skipped[f"{name} {precision}"] = str(exc)
                continue
            stack.callback(engine.close)
            yield Way(
                name=name,
                precision=precision,
                batch=len(clips),
                run=partial(engine.infer, clips),
            )


def opened(name: str, bundle: Bundle, precision: Precision, batch: int) -> Engine:
    """An engine for a batch; a plan of TensorRT is made for that many clips."""
    if name == "openvino":
        return open_engine(bundle, engine="openvino", precision=precision, threads=usable_cores())[
            0
        ]
    backend, cuda = load_backend("tensorrt" if name == "tensorrt" else "tensorrt-rtx"), load_cuda()
    plan = plan_for(bundle, precision, backend=backend, cuda=cuda, max_batch=batch, say=print)
    return TensorrtEngine(bundle, plan, precision=precision, backend=backend, cuda=cuda)


def open_peaks(device: str, bundle: Bundle, skipped: dict[str, str]) -> dict[str, Peak]:
    """Large matrices, by runtime and precision."""
    found: dict[str, Peak] = {}
    shapes = PEAK_SHAPES["cpu" if device == "cpu" else "gpu"]
    for name in ("openvino",) if device == "cpu" else ("tensorrt", "tensorrt-rtx"):
        for precision in bundle.precisions:
            products = []
            for width, layers in shapes:
                chain = Chain(rows=width, width=width, layers=layers, precision=precision)
                try:
                    run = open_chain(name, chain, threads=usable_cores())
                except EngineError as exc:
                    skipped[f"peak of {name} {precision}"] = str(exc)
                    break
                products.append((chain.macs, partial(run, np.ones((1, width), np.float32))))
            if products:
                found[f"{name} {precision}"] = Peak(products=products)
    widths = [width for width, _ in shapes]
    for precision, torch_ones in torch_products(device, widths).items():
        found[f"torch {precision}"] = Peak(products=torch_ones)
    return found


def reference(bundle: Bundle, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """City scores of ONNX Runtime in float32."""
    session = onnxruntime.InferenceSession(
        bundle.file("model.onnx"), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["city"], {"clip": clips})[0])


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Latency of int8 at the smallest batch, as a share of that of others there."""
    least = min((row["batch"] for row in rows), default=0)
    found = {}
    times = {
        f"{row['name']} {row['precision']}": row["median_ms"]
        for row in rows
        if row["batch"] == least
    }
    for name, median_ms in times.items():
        if not name.endswith("int8"):
            continue
        for other, other_ms in times.items():
            if other != name:
                found[f"{name} / {other}"] = round(median_ms / other_ms, 3)
    return found


def missed(found: dict[str, float]) -> list[str]:
    """What is not as it is asked for; nothing where int8 or torch is not measured."""
    asked = {
        "openvino int8 / openvino fp32": MOST_TO_FP32,
        "openvino int8 / torch eager fp32": MOST_TO_TORCH,
    }
    return [f"{name} {found[name]}" for name, most in asked.items() if found.get(name, 0) > most]


def gpu_name(device: str) -> str | None:
    """Of the card that was measured."""
    return torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else None


def show(report: dict[str, Any]) -> None:
    """A table for a person."""
    print(f"{report['bundle']} on {report['gpu'] or report['cpu']}, {report['cores']} cores")
    print(
        f"{'way':38} {'batch':>5} {'ms':>10} {'p95':>10} {'clips/s':>8} {'peak':>6} {'off by':>8}"
    )
    for row in report["rows"]:
        share = "-" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}"
        print(
            f"{row['name'] + ' ' + row['precision']:38} {row['batch']:5} {row['median_ms']:10.1f} "
            f"{row['p95_ms']:10.1f} {row['clips_per_s']:8.2f} {share:>6} {row['difference']:8.1e}"
        )
    for name, ratio in report["ratios"].items():
        print(f"{name}: {ratio:.3f}")
    for name, reason in report["skipped"].items():
        print(f"not {name}: {reason}")
    for text in report["missed"]:
        print(f"MISSED: {text}")


if __name__ == "__main__":
    raise SystemExit(main())
