"""A GPU that is none: its memory is ours, and its streams do their work when they are waited for.

`FakeGpu.library` stands for a loaded libcudart, function by function.
"""

# The functions have CUDA's names, and take what ctypes makes.
# ruff: noqa: ANN401, N802

from __future__ import annotations

import ctypes
from collections import defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS = {
    1: b"invalid argument",
    2: b"out of memory",
    35: b"CUDA driver version is insufficient for CUDA runtime version",
    100: b"no CUDA-capable device is detected",
    700: b"an illegal memory access was encountered",
    900: b"operation not permitted when stream is capturing",
}


@dataclass
class FakeGpu:
    """What the library pretends to find, and what was done with it."""

    name: str = "Fake Orin"
    capability: tuple[int, int] = (8, 7)
    is_integrated: bool = True
    driver: int = 12060
    memory_bytes: int = 1 << 30
    count_error: int = 0
    captures: bool = True
    """Whether work can be recorded into a graph."""
    fault: int = 0
    """Error that the next wait for a stream gives."""
    held: dict[int, Any] = field(default_factory=dict)
    """Memory of device and host by address."""
    queues: dict[int, list[Callable[[], None]]] = field(default_factory=lambda: defaultdict(list))
    recordings: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    graphs: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    launches: int = 0
    numbers: int = 1000

    def submit(self, stream: int, work: Callable[[], None]) -> None:
        """Queue work, or record it."""
        assert stream in self.queues, "work for a stream that does not exist"
        self.recordings.get(stream, self.queues[stream]).append(work)

    def check(self, address: int, size: int) -> None:
        """Whether all of it is memory that somebody has allocated."""
        for start, buffer in self.held.items():
            if start <= address and address + size <= start + ctypes.sizeof(buffer):
                return
        raise AssertionError(f"{size} bytes at {address} were not allocated")

    @property
    def library(self) -> SimpleNamespace:
        """As `ctypes.CDLL` would give it."""
        names = [name for name in dir(self) if name.startswith("_cuda")]
        functions = {name[1:]: _plain(getattr(self, name)) for name in names}
        return SimpleNamespace(**functions)

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    def _cudaGetErrorString(self, code: ctypes.c_int) -> bytes:
        return WORDS.get(code.value, b"unknown error")

    def _cudaGetDeviceCount(self, count: Any) -> int:
        count.contents.value = 1
        return self.count_error

    def _cudaDriverGetVersion(self, version: Any) -> int:
        version.contents.value = self.driver
        return 0

    def _cudaRuntimeGetVersion(self, version: Any) -> int:
        version.contents.value = 12060
        return 0

    def _cudaGetDeviceProperties_v2(self, properties: Any, device: ctypes.c_int) -> int:
        properties.raw = self.name.encode() + b"\0garbage"
        return 0

    def _cudaDeviceGetAttribute(self, value: Any, number: ctypes.c_int, device: Any) -> int:
        facts = {16: 8, 18: int(self.is_integrated), 75: self.capability[0], 76: self.capability[1]}
        value.contents.value = facts[number.value]
        return 0

    def _cudaMemGetInfo(self, free: Any, total: Any) -> int:
        free.contents.value = self.memory_bytes - self._used()
        total.contents.value = self.memory_bytes
        return 0

    def _used(self) -> int:
        return sum(ctypes.sizeof(buffer) for buffer in self.held.values())

    def _cudaMalloc(self, address: Any, size: ctypes.c_size_t) -> int:
        if self._used() + size.value > self.memory_bytes:
            return 2
        buffer = (ctypes.c_uint8 * size.value)(*[0xEE] * min(size.value, 64))
        address.contents.value = ctypes.addressof(buffer)
        self.held[ctypes.addressof(buffer)] = buffer
        return 0

    def _cudaHostAlloc(self, address: Any, size: ctypes.c_size_t, flags: ctypes.c_uint) -> int:
        return self._cudaMalloc(address, size)

    def _cudaFree(self, address: ctypes.c_void_p) -> int:
        return 1 if self.held.pop(address.value or 0, None) is None else 0

    _cudaFreeHost = _cudaFree

    def _cudaMemcpyAsync(self, to: Any, source: Any, size: Any, kind: Any, stream: Any) -> int:
        self.check(to.value, size.value)
        self.check(source.value, size.value)
        self.submit(stream.value, lambda: ctypes.memmove(to.value, source.value, size.value))
        return 0

    def _cudaStreamCreateWithFlags(self, stream: Any, flags: ctypes.c_uint) -> int:
        assert flags.value == 1, "a stream that waits for the default stream"
        stream.contents.value = self._number()
        self.queues[stream.contents.value] = []
        return 0

    def _cudaStreamSynchronize(self, stream: ctypes.c_void_p) -> int:
        if self.fault:
            return self.fault
        queue = self.queues[stream.value or 0]
        while queue:
            queue.pop(0)()
        return 0

    def _cudaStreamDestroy(self, stream: ctypes.c_void_p) -> int:
        del self.queues[stream.value or 0]
        return 0

    def _cudaStreamBeginCapture(self, stream: ctypes.c_void_p, mode: ctypes.c_int) -> int:
        if not self.captures:
            return 900
        self.recordings[stream.value or 0] = []
        return 0

    def _cudaStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:
        graph.contents.value = self._number()
        self.graphs[graph.contents.value] = self.recordings.pop(stream.value or 0)
        return 0

    def _cudaGraphInstantiateWithFlags(self, ready: Any, graph: ctypes.c_void_p, flags: Any) -> int:
        ready.contents.value = self._number()
        self.graphs[ready.contents.value] = list(self.graphs[graph.value or 0])
        return 0

    def _cudaGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        del self.graphs[graph.value or 0]
        return 0

    _cudaGraphExecDestroy = _cudaGraphDestroy

    def _cudaGraphLaunch(self, graph: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        self.launches += 1
        self.queues[stream.value or 0] += self.graphs[graph.value or 0]
        return 0


def _plain(method: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes attributes such as `restype`."""

    def function(*arguments: Any) -> Any:
        return method(*arguments)

    return function
