"""The bundle's network on an NVIDIA GPU, through TensorRT or TensorRT for RTX.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, K width of an output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engines.base import EngineMismatchError, EngineReport, EngineUnavailableError
from engines.cuda import load_cuda
from engines.tensorrt_api import load_backend
from engines.tensorrt_build import build_one_layer
from engines.tensorrt_session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.bundle import Bundle, Precision
    from engines.cuda import Cuda
    from engines.plans import KeptPlan
    from engines.tensorrt_api import Backend, BackendName


class TensorrtEngine:
    """A loaded plan; satisfies `engines.base.Engine`.  One `infer` at a time."""

    def __init__(
        self,
        bundle: Bundle,
        plan: KeptPlan,
        *,
        precision: Precision,
        backend: Backend,
        cuda: Cuda,
    ) -> None:
        """Load a plan, allocate all memory, and run it once.

        Args:
            bundle: what the plan was built from.
            plan: of `engines.build.plan_for`.
            precision: of the plan.
            backend: which TensorRT.
            cuda: the GPU.

        Raises:
            EngineMismatchError: the plan's input or outputs are not those of the manifest.
            EngineError: TensorRT or CUDA refuses; their own words.
        """
        self.name = f"{backend.label}-{precision}"
        self._manifest = bundle.manifest
        self._label = bundle.label
        self._session = Session(
            plan.content,
            backend=backend,
            cuda=cuda,
            doing=f"running {bundle.label} with {self.name} on {cuda.device.name}",
            jit=plan.jit,
        )
        try:
            self._input = self._check_tensors()
        except EngineMismatchError:
            self._session.close()
            raise

    @property
    def notes(self) -> tuple[str, ...]:
        """What was settled on loading, such as whether a CUDA graph is used."""
        return tuple(self._session.notes)

    def infer(self, clips_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run N clips.  uint8 [N, T, H, W, 3] -> every output of the bundle, float32 [N, K].

        Args:
            clips_NTHWC: N may be 0; the arrays then have no rows.

        Raises:
            ValueError: another shape or type of pixels.
            EngineError: the engine is closed, or TensorRT or CUDA fails; their words are kept.
        """
        self._check_clips(clips_NTHWC)
        scores = {
            output: np.empty((len(clips_NTHWC), width), dtype=np.float32)
            for output, width in self._manifest.outputs.items()
        }
        session = self._session
        first = 0
        while first < len(clips_NTHWC):
            if not session.tensors:
                session.run(0)  # says that it was closed
            part = clips_NTHWC[first : first + session.most]
            session.tensors[self._input].rows[: len(part)] = part
            session.run(len(part))
            for output, scores_NK in scores.items():
                scores_NK[first : first + len(part)] = session.tensors[output].rows[: len(part)]
            first += len(part)
        return scores

    def close(self) -> None:
        """Release the plan and all memory on host and GPU; calling twice is harmless."""
        self._session.close()

    def _check_clips(self, clips_NTHWC: NDArray[np.uint8]) -> None:
        wanted = self._manifest.input
        expected = (wanted.frames, wanted.height_px, wanted.width_px, 3)
        if clips_NTHWC.dtype != np.uint8 or clips_NTHWC.shape[1:] != expected:
            raise ValueError(
                f"running {self._label}: it takes uint8 [N, {', '.join(map(str, expected))}], "
                f"was given {clips_NTHWC.dtype} {list(clips_NTHWC.shape)}"
            )

    def _check_tensors(self) -> str:
        """Compare the plan with what the manifest promises; the name of its input."""
        tensors = self._session.tensors.values()
        wanted = self._manifest.input
        shape = (wanted.frames, wanted.height_px, wanted.width_px, 3)
        inputs = {tensor.name: tensor.rows for tensor in tensors if tensor.is_input}
        outputs = {tensor.name: tensor.rows.shape[1:] for tensor in tensors if not tensor.is_input}
        rows = next(iter(inputs.values()), np.empty(0))
        takes = ", ".join(f"{name} {each.dtype} {each.shape}" for name, each in inputs.items())
        if len(inputs) != 1 or rows.shape[1:] != shape:
            raise EngineMismatchError(
                f"checking the plan of {self._label}: it takes {takes or 'nothing'}, the bundle "
                f"promises clips of {list(shape)}. Export the bundle again."
            )
        promised = {name: (width,) for name, width in self._manifest.outputs.items()}
        if outputs != promised:
            raise EngineMismatchError(
                f"checking the plan of {self._label}: its outputs are {outputs}, the bundle "
                f"promises {promised}. Export the bundle again."
            )
        (name,) = inputs
        return name


def probe(name: BackendName) -> EngineReport:
    """Build and run a network of one layer: an import that works proves little.

    Raises:
        EngineUnavailableError: it does not work here, and why.
        EngineError: it is here and fails.
    """
    backend, cuda = load_backend(name), load_cuda()
    backend.check_runs_on(cuda.device)
    plan = build_one_layer(backend)
    session = Session(plan, backend=backend, cuda=cuda, doing=f"running one layer with {name}")
    try:
        given = np.arange(-4, 4, dtype=np.float32)[np.newaxis]
        session.tensors["x"].rows[:] = given
        session.run(1)
        found = session.tensors["y"].rows.copy()
    finally:
        session.close()
    if not np.array_equal(found, np.maximum(given, 0)):
        raise EngineUnavailableError(
            f"running one layer with {name} {backend.version} on {cuda.device}: it gives wrong "
            f"numbers ({found.tolist()}). Update the driver, or use another --engine.",
            reason="gives wrong numbers",
        )
    device = cuda.device
    versions = f"driver for CUDA {_dotted(device.driver)}, CUDA runtime {_dotted(device.runtime)}"
    return EngineReport(version=backend.version, device=str(device), detail=versions)


def _dotted(version: int) -> str:
    """12060 -> 12.6."""
    return f"{version // 1000}.{version % 1000 // 10}"
