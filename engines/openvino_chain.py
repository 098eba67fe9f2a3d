"""OpenVINO on a network of matrix multiplications: does it work here, and how fast could it be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engines.base import EngineError, EngineReport, EngineUnavailableError
from engines.matmuls import INPUT, Chain
from engines.openvino_core import shared_core
from engines.probes import check_chain

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def probe() -> EngineReport:
    """Build and run one layer.

    Raises:
        EngineUnavailableError: OpenVINO is not here, or does not work here; with the reason.
    """
    openvino = _import()
    chain = Chain(rows=8, width=64, layers=1)
    try:
        check_chain(chain, open_chain(chain, threads=1))
        core = shared_core()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        device = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
    except (EngineError, RuntimeError) as exc:
        raise EngineUnavailableError(str(exc)) from exc
    kinds = [kind for kind in able if kind in ("FP32", "BF16", "FP16", "INT8")]
    return EngineReport(
        version=str(openvino.__version__).split("-")[0],
        device=device.strip(),
        detail=f"computes in {', '.join(kinds)}",
    )


def open_chain(
    chain: Chain, *, threads: int
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Compile a chain of multiplications, to be run again and again.

    Raises:
        EngineUnavailableError: OpenVINO is not here.
        EngineError: it does not compile the network.
    """
    try:
        core = shared_core()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        is_narrow = chain.precision == "int8" and "BF16" in able  # as OpenvinoEngine has it
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if is_narrow else "f32",
            "ENABLE_CPU_PINNING": False,
            "ENABLE_HYPER_THREADING": False,
        }
        compiled = core.compile_model(core.read_model(chain.to_onnx()), "CPU", settings)
        request = compiled.create_infer_request()
    except RuntimeError as exc:
        raise EngineError(f"compiling a network of one kind with OpenVINO: {exc}") from exc

    def run(row_1K: NDArray[np.float32]) -> NDArray[np.float32]:
        request.infer({INPUT: row_1K})
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)

    return run


def _import() -> Any:  # noqa: ANN401 - openvino has no types
    try:
        import openvino
    except ImportError as exc:
        # A package that is there and cannot be loaded says more than that it is missing.
        why = "" if isinstance(exc, ModuleNotFoundError) and exc.name == "openvino" else f" ({exc})"
        raise EngineUnavailableError(
            f"not installed{why}: pip install '.[cpu]' in geotag's source folder"
        ) from exc
    return openvino
