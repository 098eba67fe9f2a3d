"""The network that finds a GPU's peak, and all of `geotag bench`, on three forms of TensorRT."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from engines import cuda, tensorrt_chain
from engines.bundle import PRECISIONS, Precision, read_bundle
from engines.choose import open_engine
from engines.cuda import Cuda
from engines.matmuls import Chain
from engines.probes import open_chain
from geotag import bench
from geotag.bench import Effort, measure
from tests.gpu import FakeGpu
from tests.machines import LAPTOP, ORIN_NANO, make_machine
from tests.trt import Form, make_module, write_module
from tests.unit.engines.test_choose import with_graphs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK = Effort(warmup_runs=1, min_runs=3, min_s=0.0, peak_runs=2)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Form], None]:
    """Make this a machine with one form of TensorRT and a GPU."""

    def set_up(form: Form) -> None:
        gpu = FakeGpu(capability=(8, 6) if form == "rtx" else (8, 7))
        for name in ("tensorrt", "tensorrt_rtx"):
            monkeypatch.setitem(sys.modules, name, None)
        module = make_module(form, gpu)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        write_module(tmp_path / "lib", form)  # for the process that builds
        monkeypatch.setattr(sys, "path", [str(tmp_path / "lib"), *sys.path])
        for place in (cuda, tensorrt_chain):
            monkeypatch.setattr(place, "load_cuda", lambda: Cuda(gpu.library))
        monkeypatch.setenv("GEOTAG_CACHE", str(tmp_path / "cache"))

    return set_up


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", get_args(Form))
def test_tensorrt_multiplies_as_numpy_does(
    machine: Callable[[Form], None], form: Form, precision: Precision
) -> None:
    machine(form)
    chain = Chain(rows=16, width=48, layers=2, precision=precision)
    run = open_chain("tensorrt-rtx" if form == "rtx" else "tensorrt", chain, threads=1)
    tolerance = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.2}[precision]  # int8 clips at 4
    for row in (np.ones((1, 48), np.float32), np.linspace(-1, 1, 48, dtype=np.float32)[None]):
        assert np.abs(run(row) - chain.run_in_numpy(row)).max() < tolerance


def test_an_orin_is_measured_with_every_precision(
    machine: Callable[[Form], None], onnx_bundle: Path, tmp_path: Path
) -> None:
    machine("10.3")
    root = make_machine(tmp_path / "orin", ORIN_NANO)
    said: list[str] = []
    report = measure(
        with_graphs(read_bundle(onnx_bundle), tmp_path / "more", "model.fp16.onnx"),
        open_engine,
        engine="all",
        say=said.append,
        effort=QUICK,
        root=root,
    )
    found = {each.engine: each for each in report.measurements}
    assert set(found) >= {"openvino-cpu-fp32", "tensorrt-10.3-fp32", "tensorrt-10.3-fp16"}
    half = found["tensorrt-10.3-fp16"]
    assert (half.device, half.gpu_mhz) == ("Fake Orin", 612.0)
    assert half.peak is not None
    assert half.peak.how == "8 multiprocessors x 1,024 fp16 MAC at 612 MHz"
    assert any("compiling" in line for line in said)  # minutes on a Jetson: silence would worry
    assert ("tensorrt-rtx", "not installed") in report.skipped
    assert sorted(path.name for path in (tmp_path / "cache").iterdir())  # kept for the scan


def test_on_a_card_the_peak_is_measured_with_the_same_tensorrt(
    machine: Callable[[Form], None],
    onnx_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine("rtx")
    monkeypatch.setitem(bench.PEAK_SHAPES, "gpu", ((64, 2),))
    root = make_machine(tmp_path / "laptop", LAPTOP)
    report = measure(
        read_bundle(onnx_bundle), open_engine, engine="tensorrt-rtx", effort=QUICK, root=root
    )
    (found,) = report.measurements
    assert found.peak is not None
    assert "fp32 matrices of 64 x 64, the best of 2 runs" in found.peak.how
    assert found.gpu_mhz == 2100.0
