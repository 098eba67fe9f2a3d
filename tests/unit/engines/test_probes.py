"""An engine is tried in a process of its own: whatever happens there becomes a reason."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines import probes
from engines.base import EngineUnavailableError
from engines.matmuls import Chain
from engines.openvino_chain import open_chain, probe
from engines.probes import check_chain, probe_apart


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets what the process does in place of trying an engine."""
    return lambda program: monkeypatch.setattr(probes, "_PROGRAM", program)


def test_openvino_builds_and_runs_one_layer() -> None:
    pytest.importorskip("openvino")
    found = probe_apart("openvino")
    assert found.version.startswith("20")
    assert found.device
    assert "FP32" in found.detail


def test_the_process_that_asks_loads_no_engine() -> None:
    program = (
        "import sys; from engines.probes import probe_apart; probe_apart('openvino');"
        "print(sorted({'openvino', 'numpy'} & set(sys.modules)))"
    )
    pytest.importorskip("openvino")
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (
            "import os, signal, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0));"
            "os.kill(os.getpid(), signal.SIGILL)",
            r"^its library took the process down \(SIGILL\)$",
        ),
        ("import sys; sys.exit('no such kernel')", "ended with exit code 1: no such kernel"),
        ("raise ImportError('libcudart.so.12')", "exit code 1: ImportError: libcudart.so.12"),
        ('print(\'{"reason": "SM 87 is not supported"}\')', "^SM 87 is not supported$"),
        ("print('hello')", "exit code 0"),
        ("pass", "exit code 0"),
    ],
)
def test_what_goes_wrong_there_is_told(
    child: Callable[[str], None], program: str, reason: str
) -> None:
    child(program)
    with pytest.raises(EngineUnavailableError, match=reason):
        probe_apart("openvino")


def test_a_library_may_print_before_the_answer(child: Callable[[str], None]) -> None:
    child(
        "print('[TRT] loaded');"
        'print(\'{"version": "10.3", "device": "Orin", "detail": "CUDA 12.6"}\')'
    )
    assert probe_apart("openvino").version == "10.3"


def test_what_hangs_is_given_up(child: Callable[[str], None]) -> None:
    child("import time; time.sleep(60)")
    with pytest.raises(EngineUnavailableError, match=r"not done within 0\.5 s"):
        probe_apart("openvino", timeout_s=0.5)


def test_a_file_in_the_users_folder_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    assert probe_apart("openvino").version


def test_an_engine_that_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineUnavailableError, match=r"^not installed.*pip install '\.\[cpu\]'"):
        probe()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_openvino_multiplies_as_numpy_does(precision: str) -> None:
    pytest.importorskip("openvino")
    chain = Chain(rows=16, width=48, layers=2, precision=precision)  # type: ignore[arg-type]
    run = open_chain(chain, threads=1)
    if precision == "fp32":
        check_chain(chain, run)
    row = np.ones((1, 48), dtype=np.float32)
    assert np.allclose(run(row), chain.run_in_numpy(row), atol=5e-3)
    assert np.array_equal(run(row), run(row))
