"""Which engines work here: each builds and runs a network of one layer.

That an engine's package can be imported proves little: a TensorRT without code for this GPU is
imported without complaint. A library made for another machine may also take its process down, so
each is tried in a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import EngineError, EngineReport, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from engines.matmuls import Chain

_ROOT = Path(__file__).resolve().parents[1]
_PROBES: dict[str, tuple[str, tuple[str, ...]]] = {
    "openvino": ("engines.openvino_chain", ()),
    "tensorrt": ("engines.tensorrt_gpu", ("tensorrt",)),
    "tensorrt-rtx": ("engines.tensorrt_gpu", ("tensorrt-rtx",)),
}
"""Engine -> module and arguments of its `probe`, loaded in the process that tries it only."""
PROBED = tuple(_PROBES)
_PROGRAM = "import sys; from engines.probes import main; main(sys.argv[1])"
_PATIENCE_S = 180.0
"""The first build of TensorRT reads a gigabyte of kernels, from a card perhaps."""
_MOST_DIFFERENCE = 1e-3
"""Of what one layer gives, whose values are of size 1; TF32 on a GPU stays within it."""


def probe_apart(name: str, *, timeout_s: float = _PATIENCE_S) -> EngineReport:
    """Try an engine in a process of its own.

    Args:
        name: one of PROBED.
        timeout_s: how long it may take.

    Raises:
        EngineUnavailableError: it does not work here, with the reason.
    """
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, name],
            cwd=_ROOT,  # whatever the user's folder holds is not imported
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise EngineUnavailableError(f"one layer was not done within {timeout_s:g} s") from exc
    except OSError as exc:
        raise EngineUnavailableError(f"no process can be started to try it: {exc}") from exc
    try:
        answer = json.loads(done.stdout.decode("utf-8", errors="replace").splitlines()[-1])
    except (ValueError, IndexError):
        raise EngineUnavailableError(_how_it_ended(done)) from None
    if "reason" in answer:
        raise EngineUnavailableError(str(answer["reason"]))
    return EngineReport(**answer)


def probe(name: str) -> EngineReport:
    """Try an engine in this process.  Raises EngineUnavailableError."""
    module, arguments = _PROBES[name]
    found = import_module(module).probe(*arguments)
    assert isinstance(found, EngineReport)
    return found


def open_chain(
    name: str, chain: Chain, *, threads: int
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Compile a chain of multiplications with an engine, to be run again and again.

    Args:
        name: one of PROBED.
        chain: what to run: float32 [1, K] -> float32 [1, K].
        threads: processor cores, where the engine runs on them.

    Raises:
        EngineError: the engine is not here, or does not compile it.
    """
    if name == "openvino":
        from engines import openvino_chain

        return openvino_chain.open_chain(chain, threads=threads)
    from engines import tensorrt_chain

    return tensorrt_chain.open_chain("tensorrt" if name == "tensorrt" else "tensorrt-rtx", chain)


def check_chain(chain: Chain, run: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
    """Run a compiled chain once and compare its answer with numpy's.

    Raises:
        EngineError: it is another one.
    """
    import numpy as np

    row_1K = np.linspace(-1, 1, chain.width, dtype=np.float32)[np.newaxis]
    difference = float(np.abs(run(row_1K) - chain.run_in_numpy(row_1K)).max())
    if not difference < _MOST_DIFFERENCE:
        raise EngineError(
            f"a network of one layer runs, but its answer is off by {difference:g}: the library "
            "and this machine do not fit together"
        )


def _how_it_ended(done: subprocess.CompletedProcess[bytes]) -> str:
    words = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
    last = f": {words[-1]}" if words else ""
    if done.returncode < 0:
        try:
            number = signal.Signals(-done.returncode).name
        except ValueError:
            number = f"signal {-done.returncode}"
        return f"its library took the process down ({number}){last}"
    return f"trying it ended with exit code {done.returncode}{last}"


def main(name: str) -> None:
    """Be the process that tries one engine: the last line it prints is the answer as JSON."""
    try:
        answer: dict[str, str] = asdict(probe(name))
    except EngineError as exc:
        answer = {"reason": str(exc)}
    except Exception as exc:  # noqa: BLE001 - a library that fails in its own way is no bug of ours
        answer = {"reason": f"{type(exc).__name__}: {exc}"}
    sys.stdout.write(json.dumps(answer) + "\n")
