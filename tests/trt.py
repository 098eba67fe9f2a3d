"""TensorRT in three recorded forms, 10.3, 11.4 and RTX 1.7: what each has, and nothing more.

What a form lacks raises AttributeError, a wrong call raises TypeError, as the bindings do. Networks
are really computed, by ONNX Runtime, from the memory that the addresses point to.

What 10.3 and 11.4 have is from NVIDIA's documentation of those versions, for neither runs without a
GPU; what RTX has, from tensorrt_rtx 1.7.1 itself. Constants that nothing here reads are left out.
"""

# Bindings are not typed, their logger is not Python's, and a library prints what it likes.
# ruff: noqa: ANN401, G004, T201

from __future__ import annotations

import ctypes
import enum
import json
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from tests.gpu import FakeGpu

Form = Literal["10.3", "11.4", "rtx"]
VERSIONS: dict[Form, str] = {"10.3": "10.3.0", "11.4": "11.4.0.106", "rtx": "1.7.1.116"}
ROOT = Path(__file__).parents[1]
MAGIC = b"FAKEPLAN"
_SIZES = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8}


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    UINT8 = 5


@dataclass
class Trouble:
    """What goes wrong."""

    at: str = ""
    """builder, build, kill, sleep, file_size, deserialize, context, execute."""
    words: str = ""
    log: str = ""
    """File that each build adds a line to."""


def make_module(
    form: Form, gpu: FakeGpu | None = None, trouble: Trouble | None = None, version: str = ""
) -> ModuleType:
    """A module in one of the forms.

    Args:
        form: which.
        gpu: runs what is enqueued; None where only a builder is wanted.
        trouble: what goes wrong.
        version: in place of the usual one.
    """
    name = "tensorrt_rtx" if form == "rtx" else "tensorrt"
    made = ModuleType(name)
    made.__dict__.update(
        __version__=version or VERSIONS[form],
        ILogger=ILogger,
        DataType=DataType,
        float32=DataType.FLOAT,
        TensorIOMode=enum.IntEnum("TensorIOMode", {"NONE": 0, "INPUT": 1, "OUTPUT": 2}),
        MemoryPoolType=enum.IntEnum("MemoryPoolType", {"WORKSPACE": 0, "TACTIC_DRAM": 4}),
        ProfilingVerbosity=enum.IntEnum("ProfilingVerbosity", {"LAYER_NAMES_ONLY": 0}),
        ActivationType=enum.IntEnum("ActivationType", {"RELU": 0}),
        NetworkDefinitionCreationFlag=enum.IntEnum("NetworkDefinitionCreationFlag", _FLAGS[form]),
        BuilderFlag=enum.IntEnum(
            "BuilderFlag",
            {"FP16": 0, "INT8": 1, "TF32": 7, "REFIT": 4}
            if form == "10.3"
            else {"TF32": 7, "REFIT": 4},
        ),
    )
    if form == "rtx":
        names = ("NONE", "CURRENT", "SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
        made.__dict__["ComputeCapability"] = enum.IntEnum("ComputeCapability", names)
        made.__dict__["CudaGraphStrategy"] = enum.IntEnum(
            "CudaGraphStrategy", {"DISABLED": 0, "WHOLE_GRAPH_CAPTURE": 1}
        )
    parts = _Parts(form, made, gpu, trouble or Trouble())
    made.__dict__.update(Builder=parts.builder, Runtime=parts.runtime, OnnxParser=parts.parser)
    return made


def write_module(
    folder: Path, form: Form, trouble: Trouble | None = None, version: str = ""
) -> None:
    """Let other processes that look into `folder` import such a module."""
    name = "tensorrt_rtx" if form == "rtx" else "tensorrt"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(
        f"import sys\nsys.path.append({str(ROOT)!r})\n"
        "from tests.trt import Trouble, make_module\n"
        f"sys.modules[__name__] = make_module({form!r}, None, {trouble or Trouble()!r}, "
        f"{version!r})\n",
        encoding="utf-8",
    )


_FLAGS: dict[Form, dict[str, int]] = {
    "10.3": {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1, "PREFER_AOT_PYTHON_PLUGINS": 2},
    "11.4": {"STRONGLY_TYPED": 0},
    "rtx": {"STRONGLY_TYPED": 0},
}


class ILogger:
    """Base of what listens."""

    Severity = Severity

    def __init__(self) -> None:
        self.is_made = True

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class _Parts:
    """The classes of one module, which know each other."""

    def __init__(self, form: Form, module: Any, gpu: FakeGpu | None, trouble: Trouble) -> None:
        self.form, self.module, self.gpu, self.trouble = form, module, gpu, trouble

    def fails(self, at: str, logger: ILogger) -> bool:
        if self.trouble.at != at:
            return False
        for line in filter(None, self.trouble.words.split("|")):
            logger.log(Severity.ERROR, line)
        return True

    def builder(self, logger: ILogger) -> Any:
        assert logger.is_made
        if self.fails("builder", logger):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return _Builder(self, logger)

    def runtime(self, logger: ILogger) -> Any:
        assert logger.is_made
        return _Runtime(self, logger)

    def parser(self, network: _Network, logger: ILogger) -> Any:
        return _Parser(self, network, logger)


class _Builder:
    def __init__(self, parts: _Parts, logger: ILogger) -> None:
        self._parts, self._logger = parts, logger

    def create_network(self, flags: int = 0) -> _Network:
        _is(flags, int)
        return _Network(flags)

    def create_builder_config(self) -> Any:
        return (_RtxConfig if self._parts.form == "rtx" else _Config)(self._logger)

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> memoryview | None:
        parts, logger, trouble = self._parts, self._logger, self._parts.trouble
        if trouble.log:
            with Path(trouble.log).open("a", encoding="utf-8") as log:
                log.write(f"{os.getpid()}\n")
        logger.log(Severity.INFO, "building")
        if trouble.at == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble.at == "sleep":
            time.sleep(600)
        if trouble.at == "exit":
            print("a library prints on standard output")
            print("terminate called after throwing", file=sys.stderr, flush=True)
            os._exit(134)
        if trouble.at == "file_size":  # a full disk looks much the same
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        if parts.fails("build", logger):
            return None
        strong = parts.module.NetworkDefinitionCreationFlag["STRONGLY_TYPED"]
        is_strong = parts.form != "10.3" or bool(network.flags & 1 << int(strong))
        if is_strong and config.type_flags:
            logger.log(Severity.ERROR, "precision flags cannot be set with strongly typed networks")
            return None
        if network.rows == -1 and not config.profiles:
            logger.log(Severity.ERROR, "Network has dynamic or shape inputs, but no profile")
            return None
        header = {
            "version": parts.module.__version__,
            "typing": "strong" if is_strong else "+".join(config.type_flags),
            "most": config.profiles[0] if config.profiles else network.rows,
            "workspace": config.workspace,
            "targets": config.targets,
            "relu": network.relu,
        }
        return memoryview(MAGIC + json.dumps(header).encode() + b"\n" + network.onnx)


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags, self.onnx, self.relu = flags, b"", False
        self.inputs: list[Any] = []

    @property
    def rows(self) -> int:
        return int(self.inputs[0].shape[0])

    def get_input(self, index: int) -> Any:
        return self.inputs[index]

    def add_input(self, name: str, dtype: DataType, shape: tuple[int, ...]) -> Any:
        self.inputs.append(SimpleNamespace(name=name, shape=shape, dtype=dtype))
        return self.inputs[-1]

    def add_activation(self, given: Any, kind: Any) -> Any:
        self.relu = True
        return SimpleNamespace(get_output=lambda index: SimpleNamespace(name="out"))

    def mark_output(self, tensor: Any) -> None:
        """Every tensor that is made is an output."""


class _Parser:
    """Reads ONNX, and refuses bytes that no cast receives, as the real one does."""

    def __init__(self, parts: _Parts, network: _Network, logger: ILogger) -> None:
        self._parts, self._network, self._logger = parts, network, logger

    def parse(self, model: bytes, path: str | None = None) -> bool:
        import onnx

        _is(model, bytes)
        if self._parts.fails("parse", self._logger):
            return False
        proto = onnx.load_from_string(model)
        (given,) = proto.graph.input
        kind = given.type.tensor_type
        if kind.elem_type == onnx.TensorProto.UINT8:
            for node in proto.graph.node:
                if given.name in node.input and node.op_type != "Cast":
                    self._logger.log(
                        Severity.ERROR, f"{node.name}: first input has type UInt8 but must have ..."
                    )
                    return False
        shape = tuple(axis.dim_value or -1 for axis in kind.shape.dim)
        self._network.add_input(given.name, DataType.FLOAT, shape)
        self._network.onnx = model
        return True


class _Profile:
    most = 0

    def set_shape(
        self, name: str, least: tuple[int, ...], best: tuple[int, ...], most: tuple[int, ...]
    ) -> None:
        assert least <= best <= most
        self.most = most[0]


class _Config:
    """What every form has."""

    profiling_verbosity = 0
    builder_optimization_level = 3

    def __init__(self, logger: ILogger) -> None:
        self.profiles: list[int] = []
        self.type_flags: list[str] = []
        self.workspace: int | None = None
        self.targets: list[str] = []
        self._cache: _TimingCache | None = None

    def set_flag(self, flag: Any) -> None:
        if flag.name in ("FP16", "INT8"):
            self.type_flags.append(flag.name)

    def clear_flag(self, flag: Any) -> None:
        assert flag.name == "TF32"

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        _is(size, int)
        self.workspace = size

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile.most)
        return len(self.profiles) - 1

    def create_timing_cache(self, blob: bytes) -> _TimingCache | None:
        _is(blob, bytes)
        return None if blob and not blob.startswith(b"timing") else _TimingCache(blob)

    def set_timing_cache(self, cache: _TimingCache, ignore_mismatch: bool) -> bool:
        _is(cache, _TimingCache)
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache


class _RtxConfig(_Config):
    """Targets, and no timing cache without a GPU."""

    def __init__(self, logger: ILogger) -> None:
        super().__init__(logger)
        self.num_compute_capabilities = 0

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        if index >= self.num_compute_capabilities:
            return False
        self.targets.append(capability.name)
        return True

    def create_timing_cache(self, blob: bytes) -> Any:
        raise RuntimeError("a timing cache needs a GPU while building ahead of time")


class _TimingCache:
    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    def serialize(self) -> memoryview:
        return memoryview(self._blob + b"timing")


class _Runtime:
    def __init__(self, parts: _Parts, logger: ILogger) -> None:
        self._parts, self._logger = parts, logger

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        _is(plan, bytes)
        parts, logger = self._parts, self._logger
        if parts.fails("deserialize", logger):
            return None
        if not plan.startswith(MAGIC):
            logger.log(Severity.ERROR, "Serialization assertion failed. Magic tag does not match")
            return None
        header, onnx = plan[len(MAGIC) :].split(b"\n", 1)
        facts = json.loads(header)
        if facts["version"] != parts.module.__version__:
            logger.log(
                Severity.ERROR,
                "The engine plan file is not compatible with this version of TensorRT, expecting "
                f"library version {parts.module.__version__} got {facts['version']}",
            )
            return None
        kinds = {"10.3": _Engine, "11.4": _EngineWithConfig, "rtx": _RtxEngine}
        return kinds[parts.form](parts, logger, facts, onnx)


class _Engine:
    """Version 10.3: no runtime configuration."""

    def __init__(self, parts: _Parts, logger: ILogger, facts: dict[str, Any], onnx: bytes) -> None:
        self.parts, self.logger, self.facts = parts, logger, facts
        self.session = None if facts["relu"] else _session(onnx)
        self.tensors = _tensors(self.session)

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode = self.parts.module.TensorIOMode
        return mode.INPUT if self.tensors[name][0] else mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.tensors[name][1]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][2]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        _, *rest = self.tensors[name][2]
        return [(1, *rest), (self.facts["most"], *rest), (self.facts["most"], *rest)]

    def create_execution_context(self) -> Any:
        return None if self.parts.fails("context", self.logger) else _Context(self)


class _EngineWithConfig(_Engine):
    """Version 11: a runtime configuration, without caches or graphs."""

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(set_execution_context_allocation_strategy=lambda strategy: None)

    def create_execution_context(self, config: Any = None) -> Any:
        return super().create_execution_context()


class _RtxEngine(_EngineWithConfig):
    """RTX: kernels compiled on loading, kept in a cache."""

    def create_runtime_config(self) -> Any:
        return _RtxRuntimeConfig()

    def create_execution_context(self, config: Any = None) -> Any:
        made = super().create_execution_context()
        if config.cache is not None:
            config.cache.compiled += 0 if config.cache.blob else 1
            config.cache.blob = b"jit" + config.cache.blob[3:]
        return made


class _RtxRuntimeConfig:
    cuda_graph_strategy: Any = 0
    cache: Any = None

    def create_runtime_cache(self) -> Any:
        return _RuntimeCache()

    def set_runtime_cache(self, cache: _RuntimeCache) -> bool:
        self.cache = cache
        return True


class _RuntimeCache:
    def __init__(self) -> None:
        self.blob, self.compiled = b"", 0

    def deserialize(self, blob: bytes) -> bool:
        if blob.startswith(b"jit"):
            self.blob = bytes(blob)
            return True
        return False

    def serialize(self) -> memoryview:
        return memoryview(self.blob)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._rows = 0
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        _is(shape, tuple)
        self._rows = shape[0]
        return 1 <= self._rows <= self._engine.facts["most"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        _is(address, int)
        self._addresses[name] = address
        return name in self._engine.tensors

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, gpu = self._engine, self._engine.parts.gpu
        assert gpu is not None
        _is(stream_handle, int)
        if engine.parts.fails("execute", engine.logger):
            return False
        if set(self._addresses) != set(engine.tensors) or not self._rows:
            engine.logger.log(Severity.ERROR, "enqueueV3: not all addresses or shapes are set")
            return False
        gpu.submit(stream_handle, self._work(self._rows, dict(self._addresses)))
        return True

    def _work(self, rows: int, addresses: dict[str, int]) -> Any:
        engine = self._engine

        def work() -> None:
            views = {name: self._view(name, address, rows) for name, address in addresses.items()}
            given = {name: view for name, view in views.items() if engine.tensors[name][0]}
            if engine.session is None:
                views["y"][:] = np.maximum(given["x"], 0)
                return
            names = [name for name in views if name not in given]
            found = engine.session.run(names, given)
            for name, values in zip(names, found, strict=True):
                views[name][:] = values

        return work

    def _view(self, name: str, address: int, rows: int) -> Any:
        _, kind, (_, *shape) = self._engine.tensors[name]
        dtype = np.dtype(_SIZES[kind.name])
        size = int(np.prod([rows, *shape])) * dtype.itemsize
        assert self._engine.parts.gpu is not None
        self._engine.parts.gpu.check(address, size)
        memory = (ctypes.c_uint8 * size).from_address(address)
        return np.ctypeslib.as_array(memory).view(dtype).reshape(rows, *shape)


def _session(onnx: bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])


def _tensors(session: Any) -> dict[str, tuple[bool, DataType, tuple[int, ...]]]:
    if session is None:
        return {"x": (True, DataType.FLOAT, (1, 8)), "y": (False, DataType.FLOAT, (1, 8))}
    kinds = {
        "tensor(float)": DataType.FLOAT,
        "tensor(float16)": DataType.HALF,
        "tensor(uint8)": DataType.UINT8,
    }
    found = {}
    for is_input, ports in ((True, session.get_inputs()), (False, session.get_outputs())):
        for port in ports:
            shape = tuple(size if isinstance(size, int) else -1 for size in port.shape)
            found[port.name] = (is_input, kinds[port.type], shape)
    return found


def _is(value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"incompatible function arguments: {value!r} is no {kind.__name__}")
