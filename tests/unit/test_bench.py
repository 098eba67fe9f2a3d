import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.base import EngineChoice, EngineError, EngineUnavailableError
from engines.bundle import Bundle, FileRecord, read_bundle
from engines.choose import open_engine
from engines.matmuls import Chain
from geotag import bench, bundles
from geotag.bench import Effort, measure
from geotag.bench_report import HEAD, BenchReport, describe_bench, table_rows
from geotag.cli import main
from tests.fakes import FakeEngine
from tests.machines import LAPTOP, ORIN_NANO, make_machine
from tests.process import geotag_environ

QUICK = Effort(warmup_runs=2, min_runs=5, min_s=0.0, most_s=10.0, peak_runs=2)


class Stopwatch:
    """A clock that goes on only while an engine runs."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class TimedEngine(FakeEngine):
    """Takes as long as it is told, on the stopwatch."""

    def __init__(
        self, bundle: Bundle, name: str, times_s: Sequence[float], clock: Stopwatch, log: list[str]
    ) -> None:
        super().__init__(bundle)
        self.name = name
        self._times_s = times_s
        self._clock = clock
        self._log = log

    def infer(self, clips_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        self._clock.now_s += self._times_s[self.calls % len(self._times_s)]
        self._log.append(self.name)
        return super().infer(clips_NTHWC)


class Machine:
    """Opens timed engines by name; what has no times is not here."""

    def __init__(self, times_s: dict[str, Sequence[float]]) -> None:
        self.times_s = times_s
        self.clock = Stopwatch()
        self.log: list[str] = []
        self.opened: list[TimedEngine] = []
        self.asked: list[tuple[str, str | None]] = []
        self.chains: list[tuple[str, int, Chain]] = []
        self.warm: set[Chain] = set()

    def open_engine(
        self, bundle: Bundle, *, engine: str = "auto", precision: str | None = None, **_: object
    ) -> tuple[TimedEngine, EngineChoice]:
        self.asked.append((engine, precision))
        name = "openvino" if engine == "auto" else engine
        full = f"{name}-{precision or 'fp32'}"
        full += "-bf16" * (full == "openvino-int8")  # as on a processor that has bfloat16
        if not any(known.startswith(f"{name}-f") for known in self.times_s):
            raise EngineUnavailableError(f"starting {name}: not here.", reason="not installed")
        if full not in self.times_s:
            raise EngineError(f"compiling for {full}: no.")
        opened = TimedEngine(bundle, full, self.times_s[full], self.clock, self.log)
        self.opened.append(opened)
        return opened, EngineChoice(name=full, threads=2)

    def open_chain(self, name: str, chain: Chain, *, threads: int) -> Callable[..., object]:
        """A million million products a second, fewer of small matrices, and a first lie."""
        self.chains.append((name, threads, chain))

        def run_chain(row: NDArray[np.float32]) -> NDArray[np.float32]:
            slow = {768: 1.25, 2048: 1.0, 4096: 1.0}[chain.width]
            first = 1 if chain in self.warm else 0.01
            self.warm.add(chain)
            self.clock.now_s += slow * first * chain.macs / 1e12
            return row

        return run_chain


def with_precisions(bundle: Bundle, *names: str) -> Bundle:
    """The bundle, as if it had more graphs, and said what a clip costs."""
    more = {name: FileRecord(sha256="", size_bytes=0) for name in names}
    files = bundle.manifest.files | more
    training: dict[str, str | int | float | None] = {"gmac_per_clip": 2.0}
    manifest = replace(bundle.manifest, files=files, training=training)
    return replace(bundle, manifest=manifest)


def run(bundle: Bundle, machine: Machine, tmp_path: Path, **options: object) -> BenchReport:
    options = {"effort": QUICK, "root": tmp_path, "clock": machine.clock} | options
    options["open_chain"] = machine.open_chain
    return measure(bundle, machine.open_engine, **options)


def test_the_numbers_are_those_of_the_clock(bundle: Bundle, tmp_path: Path) -> None:
    """20 runs of 10 ms, but one in ten takes 50 ms and one 8 ms; warm-up counts for nothing."""
    times_s = [0.010] * 8 + [0.050, 0.008]
    machine = Machine({"tensorrt-fp16": [9.0, 9.0, *times_s, *times_s, 9.0]})
    effort = replace(QUICK, min_runs=20)
    (found,) = run(
        with_precisions(bundle),
        machine,
        tmp_path,
        engine="tensorrt",
        precision="fp16",
        batch=4,
        effort=effort,
    ).measurements
    assert (found.engine, found.precision, found.runs) == ("tensorrt-fp16", "fp16", 20)
    assert found.median_ms == pytest.approx(10.0)
    assert found.min_ms == pytest.approx(8.0)
    assert found.p95_ms == pytest.approx(50.0)  # the 19th of 20
    assert found.clips_a_second == pytest.approx(400.0)
    assert found.gmacs_a_second == pytest.approx(4 * 2.0 / 0.010)


def test_where_no_data_sheet_tells_the_peak_it_is_measured_with_the_same_engine(
    bundle: Bundle, tmp_path: Path
) -> None:
    """2 GMAC in 10 ms are 200 GMAC/s, a fifth of the 1,000 that the machine multiplies."""
    machine = Machine({"openvino-int8-bf16": [0.01], "openvino-fp32": [0.01]})
    report = run(with_precisions(bundle), machine, tmp_path, engine="openvino", precision="int8")
    (found,) = report.measurements
    assert found.share_of_peak == pytest.approx(0.2)
    for name, threads, chain in machine.chains:
        assert (name, threads, chain.precision) == ("openvino", 2, "int8")
    assert found.peak is not None
    assert "int8 matrices of 2048 x 2048, the best of 4 runs" in found.peak.how
    row = dict(zip(HEAD, table_rows(report)[0], strict=True))
    assert row["share of peak"] == "20% of the measured peak"


def test_a_peak_that_cannot_be_measured_leaves_the_share_unknown(
    bundle: Bundle, tmp_path: Path
) -> None:
    machine = Machine({"openvino-fp32": [0.01]})

    def refuse(*_: object, **__: object) -> Callable[..., object]:
        raise EngineError("out of memory")

    report = measure(
        with_precisions(bundle),
        machine.open_engine,
        effort=QUICK,
        root=tmp_path,
        clock=machine.clock,
        open_chain=refuse,  # type: ignore[arg-type]
    )
    row = dict(zip(HEAD, table_rows(report)[0], strict=True))
    assert (row["GMAC/s"], row["share of peak"]) == ("200", "unknown")


def test_on_an_orin_the_share_is_of_the_peak_at_the_present_clock(
    bundle: Bundle, tmp_path: Path
) -> None:
    """8 multiprocessors x 1,024 x 612 MHz = 5,013 GMAC/s; 2 GMAC in 1 ms is 39.9 % of it."""
    machine = Machine({"tensorrt-fp16": [0.001]})
    root = make_machine(tmp_path, ORIN_NANO)
    report = run(with_precisions(bundle), machine, root, engine="tensorrt", precision="fp16")
    (found,) = report.measurements
    assert found.share_of_peak == pytest.approx(2e9 / 0.001 / (8 * 1024 * 612e6))
    assert (found.gpu_mhz, found.cpu_mhz) == (612.0, 1728.0)
    row = dict(zip(HEAD, table_rows(report)[0], strict=True))
    assert row["share of peak"] == "40% of the dense peak"
    assert row["clock"] == "612 MHz (GPU)"
    assert row["power mode"] == "MAXN_SUPER (mode 2)"
    text = describe_bench(report)
    assert "5,014 GMAC/s, 8 multiprocessors x 1,024 fp16 MAC at 612 MHz" in text
    assert "heat      83 °C before, 83 °C after" in text
    assert "at work" not in text


def test_a_card_is_asked_for_its_clock(bundle: Bundle, tmp_path: Path) -> None:
    machine = Machine({"tensorrt-fp16": [0.001]})
    root = make_machine(tmp_path, LAPTOP)
    report = run(with_precisions(bundle), machine, root, engine="tensorrt", precision="fp16")
    row = dict(zip(HEAD, table_rows(report)[0], strict=True))
    assert row["clock"] == "2100 MHz (GPU)"
    assert row["power mode"] == "none"
    assert "other programs are at work (load 3.2 when this began)" in describe_bench(report)


def test_everything_here_is_measured_in_turn(bundle: Bundle, tmp_path: Path) -> None:
    machine = Machine(
        {"openvino-fp32": [0.02], "openvino-int8-bf16": [0.01], "tensorrt-fp32": [0.001]}
    )
    report = run(with_precisions(bundle, "model.int8.onnx"), machine, tmp_path, engine="all")
    names = ["openvino-fp32", "openvino-int8-bf16", "tensorrt-fp32"]
    assert [found.engine for found in report.measurements] == names
    assert machine.log[6:] == names * 5
    assert report.skipped == (
        ("tensorrt int8", "compiling for tensorrt-int8: no."),
        ("tensorrt-rtx", "not installed"),
    )
    text = describe_bench(report)
    assert "not here  tensorrt-rtx: not installed" in text
    assert "no network of this kind reaches the int8 peak" in text
    assert all(opened.is_closed for opened in machine.opened)


def test_a_precision_can_be_chosen_for_all(bundle: Bundle, tmp_path: Path) -> None:
    machine = Machine({"openvino-fp32": [0.02], "openvino-int8-bf16": [0.01]})
    report = run(bundle, machine, tmp_path, engine="all", precision="int8")
    assert [found.engine for found in report.measurements] == ["openvino-int8-bf16"]


def test_auto_asks_for_what_a_scan_would_take(bundle: Bundle, tmp_path: Path) -> None:
    machine = Machine({"openvino-fp32": [0.02]})
    run(bundle, machine, tmp_path)
    assert machine.asked == [("auto", None)]


def test_where_nothing_runs_every_reason_is_told(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match=r"tensorrt-rtx: not installed\. `geotag doc"):
        run(bundle, Machine({}), tmp_path, engine="all")
    with pytest.raises(EngineUnavailableError, match="starting tensorrt: not here"):
        run(bundle, Machine({}), tmp_path, engine="tensorrt")


def test_engines_are_closed_whatever_happens(bundle: Bundle, tmp_path: Path) -> None:
    machine = Machine({"openvino-fp32": [0.02]})

    def broken_engine(*given: object, **options: object) -> tuple[TimedEngine, EngineChoice]:
        opened, choice = machine.open_engine(*given, **options)
        opened._fail_after = 3
        return opened, choice

    with pytest.raises(EngineError, match="it broke"):
        measure(bundle, broken_engine, effort=QUICK, root=tmp_path)
    assert machine.opened[0].is_closed


def test_a_slow_machine_is_not_measured_for_hours(bundle: Bundle, tmp_path: Path) -> None:
    machine = Machine({"tensorrt-fp32": [60.0]})
    effort = replace(QUICK, min_runs=20, most_s=30.0)
    (found,) = run(bundle, machine, tmp_path, engine="tensorrt", effort=effort).measurements
    assert found.runs == 3


def test_without_a_count_the_share_is_unknown(bundle: Bundle, tmp_path: Path) -> None:
    """A bundle that does not say, with a graph that OpenVINO cannot read."""
    report = run(bundle, Machine({"openvino-fp32": [0.02]}), tmp_path)
    row = dict(zip(HEAD, table_rows(report)[0], strict=True))
    assert (row["GMAC/s"], row["share of peak"]) == ("unknown", "unknown")
    assert "GMAC a clip unknown" in describe_bench(report)


@pytest.fixture
def real(onnx_bundle: Path) -> BenchReport:
    pytest.importorskip("openvino")
    return measure(read_bundle(onnx_bundle), open_engine, effort=QUICK)


def test_a_processors_peak_is_measured_in_the_same_run(real: BenchReport) -> None:
    (found,) = real.measurements
    assert found.peak is not None
    assert found.peak.is_measured
    assert re.search(r"fp32 matrices of (768|2048) x \1, the best of 4 runs", found.peak.how)
    assert found.peak.macs_a_second > 1e9
    assert found.share_of_peak is not None
    assert 0 < found.share_of_peak < 1
    assert json.loads(json.dumps(real.to_json()))["measurements"][0]["runs"] == found.runs


def test_the_command_measures_the_demo_where_no_model_is_chosen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, onnx_bundle: Path
) -> None:
    monkeypatch.setattr(bundles, "demo_folder", lambda: onnx_bundle)
    monkeypatch.setitem(bench.PEAK_SHAPES, "cpu", ((64, 1),))
    machine = Machine({"openvino-fp32": [0.02]})
    assert main(["bench", "--batch", "2"], open_engine=machine.open_engine) == 0
    told = capsys.readouterr()
    assert "no model is chosen: this measures the small one of the demo." in told.err
    assert "openvino-fp32   2" in told.out
    assert main(["bench", "--json"], open_engine=machine.open_engine) == 0
    assert json.loads(capsys.readouterr().out)["measurements"][0]["batch"] == 1


@pytest.mark.parametrize("flag", [("--engine", "gpu"), ("--precision", "int4"), ("--batch", "0")])
def test_what_cannot_be_asked_for_is_refused(
    flag: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *flag]) == 2
    assert flag[0] in capsys.readouterr().err


def test_nothing_is_written(tmp_path: Path, onnx_bundle: Path) -> None:
    home = {name: str(tmp_path / "home") for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    command = [sys.executable, "-m", "geotag", "bench", "--bundle", str(onnx_bundle)]
    before = sorted(path.name for path in onnx_bundle.iterdir())
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        command,
        cwd=tmp_path / "here",
        env=geotag_environ() | home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert not list((tmp_path / "here").iterdir())
    assert sorted(path.name for path in onnx_bundle.iterdir()) == before
