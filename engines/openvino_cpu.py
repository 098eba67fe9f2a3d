"""The bundle's network on a CPU, through OpenVINO.

fp32 and fp16 are computed in float32 (fp16 has its weights rounded: OpenVINO has no float16
arithmetic that every CPU shares). int8 multiplies its linear layers in int8; what lies between them
is bfloat16 where the CPU has instructions for it, else float32 (docs/decisions/0011).

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, K width of an output.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.base import EngineError, EngineMismatchError
from engines.bundle import GRAPHS
from engines.openvino_core import shared_core
from engines.openvino_graph import EMBEDDING, divide, shorten_for_bfloat16, take_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from engines.bundle import Bundle, Manifest, Precision

INPUT = "clip"
_MADV_DONTNEED = 4
"""Of <sys/mman.h> on Linux."""


class OpenvinoEngine:
    """A compiled network; satisfies `engines.base.Engine`.  One `infer` at a time.

    Clips are run one by one: on the two-core machine where it was measured a batch is no faster per
    clip, and its activations would grow with N.
    """

    def __init__(self, bundle: Bundle, *, threads: int, precision: Precision = "fp32") -> None:
        """Read and compile the bundle's graph of a precision; nothing is written to disk.

        Args:
            bundle: a verified model folder.
            threads: processor cores for one inference, 1 or more.
            precision: one of `bundle.precisions`.

        Raises:
            ValueError: no thread at all.
            BundleError: the bundle has no graph of that precision.
            EngineUnavailableError: OpenVINO is not installed or does not start here.
            EngineMismatchError: the model's input or outputs are not those of the manifest.
            EngineError: OpenVINO cannot read or compile the model.
        """
        if threads < 1:
            raise ValueError(
                f"compiling {bundle.label} for {threads} threads: at least 1 is needed"
            )
        bundle.need(precision)
        self._manifest = bundle.manifest
        self._label = bundle.label
        core = shared_core()
        path = bundle.file(GRAPHS[precision])
        self.name = f"openvino-cpu-{precision}"
        if precision == "int8" and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            # A processor may name the instructions, and OpenVINO still lack a kernel for them.
            with contextlib.suppress(EngineError):
                self._requests = _compile(
                    core, path, bundle.manifest, threads=threads, is_narrow=True
                )
                self.name += "-bf16"
                return
        self._requests = _compile(core, path, bundle.manifest, threads=threads, is_narrow=False)

    def infer(self, clips_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run N clips.  uint8 [N, T, H, W, 3] -> every output of the bundle, float32 [N, K].

        Args:
            clips_NTHWC: N may be 0; the arrays then have no rows.

        Raises:
            ValueError: another shape or type of pixels.
            EngineError: the engine is closed, or OpenVINO fails; its own words are kept.
        """
        self._check_clips(clips_NTHWC)
        if not self._requests:
            raise EngineError(f"running {self._label}: the engine was closed; open it again.")
        scores = {
            output: np.empty((len(clips_NTHWC), width), dtype=np.float32)
            for output, width in self._manifest.outputs.items()
        }
        for row, clip_THWC in enumerate(clips_NTHWC):
            try:
                given = {INPUT: np.ascontiguousarray(clip_THWC)[np.newaxis]}
                for request in self._requests:
                    request.infer(given)
                    given = {EMBEDDING: request.get_output_tensor(0).data}
            except RuntimeError as exc:
                raise EngineError(f"running {self._label} with OpenVINO: {exc}") from exc
            for output, scores_NK in scores.items():
                scores_NK[row] = self._requests[-1].get_tensor(output).data[0]
        return scores

    def close(self) -> None:
        """Release the compiled network and its memory; calling twice is harmless."""
        self._requests = []

    def _check_clips(self, clips_NTHWC: NDArray[np.uint8]) -> None:
        expected = _clip_shape(self._manifest)
        if clips_NTHWC.dtype != np.uint8 or clips_NTHWC.shape[1:] != expected:
            raise ValueError(
                f"running {self._label}: it takes uint8 [N, {', '.join(map(str, expected))}], "
                f"was given {clips_NTHWC.dtype} {list(clips_NTHWC.shape)}"
            )


def _compile(
    core: Any,  # noqa: ANN401
    path: Path,
    manifest: Manifest,
    *,
    threads: int,
    is_narrow: bool,
) -> list[Any]:
    """Read, check and compile a model; returns OpenVINO's InferRequests, to be run one by one.

    OpenVINO compiles by copying every weight into an order of its own, and keeps the original: for
    a moment the network is in memory twice. Mapped originals are given back to the system after
    each part, so that tens of thousands of places, compiled last, need no more than that moment.
    """
    try:
        model = take_bytes(core.read_model(path))
        _check_model(model, path, manifest)
        # One fixed shape. With N left open and one thread, OpenVINO 2026.4 loses the errors of
        # its shape inference and returns uninitialised memory.
        model.reshape({INPUT: [1, *_clip_shape(manifest)]})
        if is_narrow:
            shorten_for_bfloat16(model)
        requests = []
        for part in divide(model):
            compiled = core.compile_model(part, "CPU", _settings(threads, is_narrow=is_narrow))
            requests.append(compiled.create_infer_request())
            _give_back(path.with_name(f"{path.name}.data"))
        return requests
    except RuntimeError as exc:
        raise EngineError(f"compiling {path} with OpenVINO: {exc}") from exc


def _give_back(weights: Path) -> None:
    """Let the system drop the pages of a file that OpenVINO has mapped to read; it may read again.

    Where there is no such mapping, or this is not Linux, nothing happens.
    """
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123
            lines = maps.read().splitlines()
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return
    name = os.path.realpath(weights)
    for line in lines:
        fields = line.split(maxsplit=5)
        # Pages that may have been written to would be lost: only what is shared and read-only.
        if len(fields) == 6 and fields[5] == name and fields[1] == "r--s":
            start, end = (int(address, 16) for address in fields[0].split("-"))
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def _settings(threads: int, *, is_narrow: bool) -> dict[str, str | int | bool]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Left to itself it may pick bfloat16 for a network that was measured in float32.
        "INFERENCE_PRECISION_HINT": "bf16" if is_narrow else "f32",
        # Decoding shares the cores: a pinned inference thread would wait behind a decoding one.
        "ENABLE_CPU_PINNING": False,
        "ENABLE_HYPER_THREADING": False,
    }


def _check_model(model: Any, path: Path, manifest: Manifest) -> None:  # noqa: ANN401
    """Compare what the graph takes and gives with what the manifest promises."""
    import openvino

    inputs = {port.any_name: (port.element_type, port.partial_shape) for port in model.inputs}
    shape = (-1, *_clip_shape(manifest))
    if (
        set(inputs) != {INPUT}
        or inputs[INPUT][0] != openvino.Type.u8
        or _sizes(inputs[INPUT][1]) != shape
    ):
        raise EngineMismatchError(
            f"checking {path.name} of {manifest.name}: its inputs are {_describe(inputs)}, the "
            f"bundle promises {INPUT} uint8 {list(shape)}. Export the bundle again."
        )
    outputs = {port.any_name: (port.element_type, port.partial_shape) for port in model.outputs}
    widths = {name: _sizes(found)[-1] for name, (_, found) in outputs.items()}
    if widths != manifest.outputs:
        raise EngineMismatchError(
            f"checking {path.name} of {manifest.name}: its outputs are {_describe(outputs)}, the "
            f"bundle promises the widths {manifest.outputs}. Export the bundle again."
        )


def _sizes(shape: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Sizes of a partial shape; -1 where any size is accepted."""
    return tuple(-1 if axis.is_dynamic else axis.get_length() for axis in shape)


def _describe(ports: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} {kind} {shape}" for name, (kind, shape) in ports.items()) or "none"


def _clip_shape(manifest: Manifest) -> tuple[int, int, int, int]:
    wanted = manifest.input
    return wanted.frames, wanted.height_px, wanted.width_px, 3
