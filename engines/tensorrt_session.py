"""A TensorRT plan in memory, ready to run: buffers, stream, and a CUDA graph where it pays.

Shape suffixes: N rows of a batch.
"""

from __future__ import annotations

import ctypes
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.base import EngineError, EngineMismatchError
from engines.tensorrt_api import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from engines.cuda import Cuda
    from engines.tensorrt_api import Backend

_TYPES: dict[str, type[np.generic]] = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8}
"""Of the tensors that our graphs take and give, by TensorRT's name."""
_TRIALS = 5
_WORTH = 0.99
"""A CUDA graph must take less than this share of the time without it; else it is not worth what
it keeps in memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tensor:
    """One input or output, with its memory on both sides."""

    name: str
    rows: NDArray[Any]
    """Pinned memory of the host, [most N, ...]."""
    device: int
    """Address on the device."""
    is_input: bool

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return self.rows.nbytes // max(len(self.rows), 1)


class Session:
    """A loaded plan; for one thread.  All memory is allocated when it is made."""

    def __init__(
        self, plan: bytes, *, backend: Backend, cuda: Cuda, doing: str, jit: Path | None = None
    ) -> None:
        """Load a plan and run it once on zeros.

        Args:
            plan: what this very version of TensorRT built for this GPU.
            backend: which TensorRT.
            cuda: the GPU.
            doing: what is being done, for the text of an error.
            jit: file that keeps what TensorRT-RTX compiles on loading.

        Raises:
            EngineError: TensorRT or CUDA refuses; their own words.
        """
        self.notes: list[str] = []
        """What was settled on loading."""
        self.tensors: dict[str, Tensor] = {}
        """By name; none after `close`."""
        self._cuda = cuda
        self._stream = 0
        self._count = 0
        self._graph: int | None = None
        self._wants_graph = False
        self._has_own_graphs = False
        self._context: Any = None
        self._owned: list[Any] = []
        self._attempt = Attempt(backend, doing, advice=_REFUSED)
        self._stack = ExitStack()
        try:
            self._load(plan, backend, jit)
            self._settle_graph()
        except BaseException:
            self.close()
            raise

    @property
    def most(self) -> int:
        """Rows that one run takes at most."""
        return len(next(iter(self.tensors.values())).rows)

    def run(self, count: int) -> None:
        """Run the first `count` rows of the inputs; the outputs are then in their rows.

        Raises:
            EngineError: TensorRT or CUDA fails, or the session was closed.
        """
        if not self.tensors:
            raise EngineError(f"{self._attempt.doing}: the engine was closed; open it again.")
        if count != self._count:
            self._resize(count)
        elif self._wants_graph and self._graph is None:
            self._graph = self._record(count)
        if self._graph is None:
            self._enqueue(count)
        else:
            self._cuda.launch(self._graph, self._stream)
        self._cuda.synchronize(self._stream)

    def close(self) -> None:
        """Release everything; calling twice is harmless."""
        self.tensors = {}
        with suppress(EngineError):  # after an error of the GPU freeing fails as well
            self._stack.close()

    def _load(self, plan: bytes, backend: Backend, jit: Path | None) -> None:
        attempt, trt = self._attempt, backend.module
        self._stream = self._cuda.create_stream()
        self._stack.callback(self._cuda.destroy_stream, self._stream)
        self._stack.callback(self._drop_graph)
        runtime = attempt.made(trt.Runtime, attempt.logger)
        engine = attempt.made(runtime.deserialize_cuda_engine, plan)
        self._context, keep = self._make_context(trt, engine, jit)
        # TensorRT wants what was made last to go first.
        self._stack.callback(self._forget)
        self._owned = [runtime, engine]
        for index in range(engine.num_io_tensors):
            tensor = self._allocate(trt, engine, str(engine.get_tensor_name(index)))
            self.tensors[tensor.name] = tensor
            attempt.made(self._context.set_tensor_address, tensor.name, tensor.device)
        self.run(1)
        keep()

    def _make_context(
        self,
        trt: Any,  # noqa: ANN401
        engine: Any,  # noqa: ANN401
        jit: Path | None,
    ) -> tuple[Any, Callable[[], None]]:
        """An execution context, and what keeps the kernels that were compiled for it."""
        made = self._attempt.made
        # From 10.16 on TensorRT has such a configuration too, with nothing in it for us.
        create = getattr(engine, "create_runtime_config", None)
        config: Any = None if create is None else made(create)
        if not hasattr(config, "cuda_graph_strategy"):
            return made(engine.create_execution_context), _nothing
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._has_own_graphs = True
        if jit is None or not hasattr(config, "create_runtime_cache"):
            return made(engine.create_execution_context, config), _nothing
        cache = made(config.create_runtime_cache)
        before = jit.read_bytes() if jit.is_file() else b""
        if before:
            cache.deserialize(before)  # a foreign one is refused, and compiled anew
        made(config.set_runtime_cache, cache)

        def keep() -> None:
            from engines.plans import write_whole

            after = bytes(cache.serialize())
            if after == before:
                return
            try:
                write_whole(jit, after)
            except OSError as exc:
                self.notes.append(f"compiled kernels could not be kept ({exc.strerror or exc})")

        return made(engine.create_execution_context, config), keep

    def _allocate(self, trt: Any, engine: Any, name: str) -> Tensor:  # noqa: ANN401
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        kind = _TYPES.get(str(engine.get_tensor_dtype(name).name))
        first, *shape = tuple(engine.get_tensor_shape(name))
        if kind is None or -1 in shape or first not in (-1, 1):
            raise EngineMismatchError(
                f"{self._attempt.doing}: its tensor {name} is {engine.get_tensor_dtype(name)} "
                f"{[first, *shape]}; what can be run is {', '.join(_TYPES)} of one row or of any "
                "number, each of a fixed size. Export the bundle again."
            )
        most = 1 if first == 1 else self._most_rows(trt, engine)
        size = int(np.prod([most, *shape])) * np.dtype(kind).itemsize
        device = self._cuda.allocate(size)
        self._stack.callback(self._cuda.free, device)
        host = self._cuda.allocate_host(size)
        self._stack.callback(self._cuda.free_host, host)
        pinned = (ctypes.c_uint8 * size).from_address(host)
        rows: NDArray[Any] = np.ctypeslib.as_array(pinned).view(kind).reshape(most, *shape)
        rows[:] = 0
        return Tensor(name=name, rows=rows, device=device, is_input=is_input)

    def _most_rows(self, trt: Any, engine: Any) -> int:  # noqa: ANN401
        names = [str(engine.get_tensor_name(index)) for index in range(engine.num_io_tensors)]
        given = next(
            name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        )
        most, *_ = engine.get_tensor_profile_shape(given, 0)[2]
        return int(most)

    def _resize(self, count: int) -> None:
        """Tell TensorRT the number of rows; a graph recorded for another number is void."""
        self._drop_graph()
        for tensor in self.tensors.values():
            if tensor.is_input:
                shape = (count, *tensor.rows.shape[1:])
                self._attempt.made(self._context.set_input_shape, tensor.name, shape)
        self._count = count

    def _enqueue(self, count: int) -> None:
        """Copy there, run, copy back: in this order, and not waited for."""
        tensors = self.tensors.values()
        for tensor in tensors:
            if tensor.is_input:
                self._cuda.copy_to_device(
                    tensor.device, _address(tensor), count * tensor.row_bytes, self._stream
                )
        self._attempt.made(self._context.execute_async_v3, self._stream)
        for tensor in tensors:
            if not tensor.is_input:
                self._cuda.copy_to_host(
                    _address(tensor), tensor.device, count * tensor.row_bytes, self._stream
                )

    def _record(self, count: int) -> int:
        with self._cuda.capture(self._stream) as recorded:
            self._enqueue(count)
        return recorded[0]

    def _drop_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._cuda.destroy_graph(graph)

    def _settle_graph(self) -> None:
        """Find out whether a CUDA graph is faster here, and say so."""
        if self._has_own_graphs:
            self.notes.append("CUDA graphs by TensorRT")
            return
        without_ms = self._median_ms()
        self._wants_graph = True
        try:
            self.run(self._count)
            with_ms = self._median_ms()
        except EngineError as exc:
            self._wants_graph = False
            self._graph = None
            self._attempt.forget()
            self.notes.append(f"no CUDA graph ({exc})")
            return
        self._wants_graph = with_ms < _WORTH * without_ms
        if not self._wants_graph:
            self._drop_graph()
        self.notes.append("CUDA graph" if self._wants_graph else "no CUDA graph (no faster)")

    def _median_ms(self) -> float:
        times = []
        for _ in range(_TRIALS):
            started_s = time.perf_counter()
            self.run(self._count)
            times.append((time.perf_counter() - started_s) * 1e3)
        return float(np.median(times))

    def _forget(self) -> None:
        self._context = None
        while self._owned:
            self._owned.pop()


_REFUSED = (
    "A plan runs only with the TensorRT that built it, on the GPU it was built for; remove the "
    "folder `plans` in geotag's cache (`geotag doctor` says where) and run again to build it anew."
)


def _address(tensor: Tensor) -> int:
    return int(tensor.rows.ctypes.data)


def _nothing() -> None:
    """There is nothing to keep."""
