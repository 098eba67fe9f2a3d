"""The few calls of the CUDA runtime that an engine needs, by ctypes.

A binding package would have to match JetPack 6 (CUDA 12.6, Python 3.10) and JetPack 7 (13.2, 3.12)
at once; these functions have had one form since CUDA 11.4. The library is whichever copy is here:
of the system, of JetPack, or of a pip package that TensorRT or torch brought along.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.base import EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    Address = int

SONAMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12")
FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/aarch64-linux/lib")
"""Where JetPack and NVIDIA's installers put it; not every image tells the loader."""

# Of cudaDeviceAttr in driver_types.h.
_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76
_TO_DEVICE, _TO_HOST = 1, 2
"""cudaMemcpyKind."""
_NON_BLOCKING = 1
"""cudaStreamNonBlocking: no waiting for the default stream."""
_RELAXED = 2
"""cudaStreamCaptureModeRelaxed: other threads, such as decoders, may call CUDA meanwhile."""
_OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation."""
_PROPERTIES_BYTES = 1 << 14
"""Of cudaDeviceProp, with room: 1,032 bytes in CUDA 12, and its first field is the name."""
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU, as far as a compiled model depends on it."""

    name: str
    capability: tuple[int, int]
    """Compute capability: (8, 7) is Orin."""
    multiprocessors: int
    is_integrated: bool
    """Shares its memory with the processor, as every Jetson does."""
    driver: int
    """Highest CUDA version of the driver, 1000 x major + 10 x minor."""
    runtime: int
    """Version of the CUDA runtime in use, written likewise."""

    def __str__(self) -> str:
        """Name and size."""
        major, minor = self.capability
        return f"{self.name} (sm_{major}{minor}, {self.multiprocessors} multiprocessors)"


class Cuda:
    """The CUDA runtime on the first device; errors carry its own words."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 - a loaded library has no type
        """Take a loaded libcudart.

        Raises:
            EngineError: there is no device that this library can use; CUDA's own words.
        """
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p
        count = ctypes.c_int()
        self._call("looking for a GPU", "cudaGetDeviceCount", ctypes.pointer(count))
        if count.value < 1:
            raise EngineError("looking for a GPU: CUDA finds none.")
        self.device = self._describe()

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the device; on a Jetson, of the whole computer."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call(
            "asking for free memory", "cudaMemGetInfo", ctypes.pointer(free), ctypes.pointer(total)
        )
        return free.value, total.value

    def allocate(self, size_bytes: int) -> Address:
        """Memory of the device."""
        address = ctypes.c_void_p()
        self._call(
            f"allocating {size_bytes:,} bytes on the device",
            "cudaMalloc",
            ctypes.pointer(address),
            ctypes.c_size_t(size_bytes),
        )
        return address.value or 0

    def free(self, address: Address) -> None:
        """Give memory of the device back."""
        self._call("freeing memory", "cudaFree", ctypes.c_void_p(address))

    def allocate_host(self, size_bytes: int) -> Address:
        """Memory of the host that stays in place, so that copies to and from it overlap."""
        address = ctypes.c_void_p()
        self._call(
            f"pinning {size_bytes:,} bytes",
            "cudaHostAlloc",
            ctypes.pointer(address),
            ctypes.c_size_t(size_bytes),
            ctypes.c_uint(0),
        )
        return address.value or 0

    def free_host(self, address: Address) -> None:
        """Give pinned memory back."""
        self._call("freeing pinned memory", "cudaFreeHost", ctypes.c_void_p(address))

    def copy_to_device(self, to: Address, source: Address, size_bytes: int, stream: int) -> None:
        """Copy from the host, in the order of a stream."""
        self._copy(to, source, size_bytes, _TO_DEVICE, stream)

    def copy_to_host(self, to: Address, source: Address, size_bytes: int, stream: int) -> None:
        """Copy from the device, in the order of a stream."""
        self._copy(to, source, size_bytes, _TO_HOST, stream)

    def create_stream(self) -> int:
        """A queue of work that waits for no other."""
        stream = ctypes.c_void_p()
        self._call(
            "creating a stream",
            "cudaStreamCreateWithFlags",
            ctypes.pointer(stream),
            ctypes.c_uint(_NON_BLOCKING),
        )
        return stream.value or 0

    def synchronize(self, stream: int) -> None:
        """Wait for all work of a stream; errors of that work appear here."""
        self._call("waiting for the GPU", "cudaStreamSynchronize", ctypes.c_void_p(stream))

    def destroy_stream(self, stream: int) -> None:
        """End a stream."""
        self._call("ending a stream", "cudaStreamDestroy", ctypes.c_void_p(stream))

    @contextlib.contextmanager
    def capture(self, stream: int) -> Iterator[list[int]]:
        """Record the work given to a stream instead of doing it.

        Yields:
            A list that holds the graph, ready for `launch`, once the block has ended well.
        """
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        recorded: list[int] = []
        self._call(
            "recording a CUDA graph",
            "cudaStreamBeginCapture",
            ctypes.c_void_p(stream),
            ctypes.c_int(_RELAXED),
        )
        try:
            yield recorded
        except BaseException:
            with contextlib.suppress(EngineError):  # a stream left recording would be unusable
                self._end_capture(stream, graph)
            raise
        self._end_capture(stream, graph)
        try:
            self._call(
                "preparing a CUDA graph",
                "cudaGraphInstantiateWithFlags",
                ctypes.pointer(ready),
                graph,
                ctypes.c_ulonglong(0),
            )
        finally:
            self._call("freeing a CUDA graph", "cudaGraphDestroy", graph)
        recorded.append(ready.value or 0)

    def launch(self, graph: int, stream: int) -> None:
        """Do recorded work once more."""
        self._call(
            "launching a CUDA graph",
            "cudaGraphLaunch",
            ctypes.c_void_p(graph),
            ctypes.c_void_p(stream),
        )

    def destroy_graph(self, graph: int) -> None:
        """Free recorded work."""
        self._call("freeing a CUDA graph", "cudaGraphExecDestroy", ctypes.c_void_p(graph))

    def _end_capture(self, stream: int, graph: ctypes.c_void_p) -> None:
        self._call(
            "recording a CUDA graph",
            "cudaStreamEndCapture",
            ctypes.c_void_p(stream),
            ctypes.pointer(graph),
        )

    def _copy(self, to: Address, source: Address, size_bytes: int, kind: int, stream: int) -> None:
        self._call(
            f"copying {size_bytes:,} bytes",
            "cudaMemcpyAsync",
            ctypes.c_void_p(to),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size_bytes),
            ctypes.c_int(kind),
            ctypes.c_void_p(stream),
        )

    def _describe(self) -> Device:
        driver, runtime = ctypes.c_int(), ctypes.c_int()
        self._call(
            "asking for the driver's version", "cudaDriverGetVersion", ctypes.pointer(driver)
        )
        self._call("asking for CUDA's version", "cudaRuntimeGetVersion", ctypes.pointer(runtime))
        return Device(
            name=self._name(),
            capability=(self._attribute(_MAJOR), self._attribute(_MINOR)),
            multiprocessors=self._attribute(_MULTIPROCESSORS),
            is_integrated=bool(self._attribute(_INTEGRATED)),
            driver=driver.value,
            runtime=runtime.value,
        )

    def _name(self) -> str:
        # CUDA 12 has the present layout under _v2; the name comes first in every one.
        is_new = hasattr(self._library, "cudaGetDeviceProperties_v2")
        function = "cudaGetDeviceProperties_v2" if is_new else "cudaGetDeviceProperties"
        properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        self._call("asking for the GPU's name", function, properties, ctypes.c_int(0))
        return properties.raw[:_NAME_BYTES].split(b"\0", 1)[0].decode("utf-8", "replace")

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call(
            f"asking for the GPU's attribute {number}",
            "cudaDeviceGetAttribute",
            ctypes.pointer(value),
            ctypes.c_int(number),
            ctypes.c_int(0),
        )
        return value.value

    def _call(self, doing: str, function: str, *arguments: Any) -> None:  # noqa: ANN401
        code = getattr(self._library, function)(*arguments)
        if code == 0:
            return
        words = (self._library.cudaGetErrorString(ctypes.c_int(code)) or b"").decode()
        advice = " Close other programs that use the GPU, or free memory." * (
            code == _OUT_OF_MEMORY
        )
        raise EngineError(f"{doing}: CUDA says {words or 'nothing'} (error {code}).{advice}")


def load_cuda() -> Cuda:
    """The CUDA runtime of this machine, and its first GPU.

    Raises:
        EngineUnavailableError: there is no such library, or none that finds a GPU.
    """
    refusals: dict[str, str] = {}
    for path in _candidates():
        try:
            return Cuda(ctypes.CDLL(path))
        except (OSError, AttributeError):  # not there, for another machine, or not complete
            continue
        except EngineError as exc:
            # A copy that is newer than the driver says so; an older one may still fit.
            refusals.setdefault(str(exc), path)
    if refusals:
        said = " ".join(f"{words} ({path})" for words, path in refusals.items())
        raise EngineUnavailableError(
            f"{said} Is there an NVIDIA GPU, and is its driver installed (`nvidia-smi`)? A "
            "container must be given it, for example with `--runtime nvidia`.",
            reason="no NVIDIA GPU that CUDA can use",
        )
    raise EngineUnavailableError(
        f"looking for the CUDA runtime: none of {', '.join(SONAMES)} is here. It comes with "
        "JetPack, or with `pip install nvidia-cuda-runtime`.",
        reason="no CUDA runtime",
    )


def _candidates() -> Iterator[str]:
    yield from SONAMES
    yield from (f"{folder}/{soname}" for folder in FOLDERS for soname in SONAMES)
    with contextlib.suppress(ImportError, ValueError):
        found = importlib.util.find_spec("nvidia")  # pip's packages of CUDA's parts share it
        for folder in (found.submodule_search_locations or ()) if found else ():
            for path in sorted(Path(folder).glob("*/lib/libcudart.so*"), reverse=True):
                yield os.fspath(path)
