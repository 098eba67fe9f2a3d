"""TensorRT on a network of matrix multiplications: how fast could a model be on this GPU."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.cuda import load_cuda
from engines.matmuls import INPUT, OUTPUT, Chain
from engines.tensorrt_api import load_backend
from engines.tensorrt_build import BuildOptions, build_plan
from engines.tensorrt_session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from engines.tensorrt_api import Backend, BackendName


def open_chain(
    name: BackendName, chain: Chain
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Compile a chain of multiplications, to be run again and again.

    Raises:
        EngineError: TensorRT or a GPU is not here, or refuses.
    """
    backend, cuda = load_backend(name), load_cuda()
    backend.check_runs_on(cuda.device)
    session = Session(
        build_chain(backend, chain),
        backend=backend,
        cuda=cuda,
        doing=f"multiplying matrices with {name} on {cuda.device.name}",
    )

    def run(row_1K: NDArray[np.float32]) -> NDArray[np.float32]:
        session.tensors[INPUT].rows[:] = row_1K
        session.run(1)
        answer: NDArray[np.float32] = session.tensors[OUTPUT].rows.copy()
        return answer

    return run


def build_chain(backend: Backend, chain: Chain, options: BuildOptions | None = None) -> bytes:
    """The plan of a chain.

    Raises:
        EngineBuildError: TensorRT cannot compile it; its own words.
    """
    with tempfile.TemporaryDirectory(prefix="geotag-") as folder:  # the parser wants a file
        graph = Path(folder) / "matmuls.onnx"
        graph.write_bytes(chain.to_onnx())
        return build_plan(backend, graph, options or BuildOptions())
