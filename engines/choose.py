"""Which engine runs here, in which precision, and on how many cores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import (
    BundleError,
    Engine,
    EngineBuildError,
    EngineChoice,
    EngineName,
    EngineUnavailableError,
)
from engines.bundle import GRAPHS, PRECISIONS, TENSORRT_GRAPHS

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.bundle import Bundle, Precision
    from engines.tensorrt_api import BackendName

ORDER: tuple[EngineName, ...] = ("tensorrt", "tensorrt-rtx", "openvino")
"""In which `auto` tries them."""


def open_engine(
    bundle: Bundle,
    *,
    engine: EngineName = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[Engine, EngineChoice]:
    """Compile the bundle's model with the asked engine, or with the best one here.

    Args:
        bundle: a verified model folder.
        engine: `auto` takes the first of `ORDER` that works here; a name never falls back.
        precision: None takes the fastest that the bundle has for the engine: int8, which an export
            keeps only where it is as accurate, else fp16 on a GPU, else fp32. On a processor
            without instructions for int8, fp32.
        threads: cores for one inference on the processor; None decides from the machine.
        say: is told, line by line, of a compilation that takes minutes.

    Raises:
        EngineUnavailableError: no engine, or not the one asked for, works here.
        EngineBuildError: the engine asked for is here and cannot compile the model.
        BundleError: the bundle has no graph of that precision for the engine.
        EngineMismatchError: the model is not what its bundle says.
    """
    names = ORDER if engine == "auto" else (engine,)
    if precision is not None and not any(_has(bundle, name, precision) for name in names):
        has = ", ".join(kind for kind in PRECISIONS if any(_has(bundle, n, kind) for n in names))
        raise BundleError(
            f"opening {bundle.label} in {precision}: the bundle has no graph of {precision} for "
            f"{' or '.join(names)}. It has {has}; choose one of these with --precision, or make it "
            f"with `geotag export --precision {precision}`."
        )
    if engine != "auto":
        return _open(engine, bundle, precision, threads, say)
    skipped: list[tuple[str, str]] = []
    texts = []
    for name in ORDER:
        if precision is not None and not _has(bundle, name, precision):
            skipped.append((name, f"no graph of {precision} for it"))
            texts.append(f"\n  {name}: the bundle has no graph of {precision} for it")
            continue
        try:
            opened, choice = _open(name, bundle, precision, threads, say)
        except (EngineUnavailableError, EngineBuildError) as exc:
            skipped.append((name, getattr(exc, "reason", str(exc))))
            texts.append(f"\n  {name}: {exc}")
            continue
        return opened, EngineChoice(
            name=choice.name,
            threads=choice.threads,
            device=choice.device,
            notes=choice.notes,
            skipped=tuple(skipped),
        )
    raise EngineUnavailableError(
        f"opening {bundle.label}: no engine works here.{''.join(texts)}", reason="none works here"
    )


_INT8_INSTRUCTIONS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""Flags of /proc/cpuinfo. Without one of them OpenVINO's int8 is slower than its float32: 1.2 times
with AVX2 alone (VideoMAE-S, docs/decisions/0011)."""


def has_fast_int8(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies int8 quicker than float32; True where nothing says so."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    flags = {
        flag
        for line in text.splitlines()
        if line.partition(":")[0].strip().lower() in ("flags", "features")
        for flag in line.partition(":")[2].split()
    }
    return not flags or bool(flags & _INT8_INSTRUCTIONS)


def best_precision(bundle: Bundle, engine: EngineName) -> Precision:
    """What an engine runs where nothing is asked for."""
    wanted: tuple[Precision, ...] = ("int8", "fp16")
    if engine == "openvino":
        wanted = ("int8",) if has_fast_int8() else ()
    return next((kind for kind in wanted if _has(bundle, engine, kind)), "fp32")


def _has(bundle: Bundle, engine: EngineName, precision: Precision) -> bool:
    graphs = GRAPHS if engine == "openvino" else TENSORRT_GRAPHS
    return graphs[precision] in bundle.manifest.files


def _open(
    name: EngineName,
    bundle: Bundle,
    precision: Precision | None,
    threads: int | None,
    say: Callable[[str], None] | None,
) -> tuple[Engine, EngineChoice]:
    precision = precision or best_precision(bundle, name)
    if name == "tensorrt" or name == "tensorrt-rtx":
        return _open_tensorrt(name, bundle, precision, say)
    from engines.openvino_cpu import OpenvinoEngine  # loads numpy: `geotag --help` need not wait

    count = threads or inference_threads(usable_cores())
    opened = OpenvinoEngine(bundle, threads=count, precision=precision)
    return opened, EngineChoice(name=opened.name, threads=count)


def _open_tensorrt(
    name: BackendName, bundle: Bundle, precision: Precision, say: Callable[[str], None] | None
) -> tuple[Engine, EngineChoice]:
    from engines.build import plan_for
    from engines.cuda import load_cuda
    from engines.tensorrt_api import check_installed, load_backend
    from engines.tensorrt_gpu import TensorrtEngine

    check_installed(name)
    cuda = load_cuda()  # before the library is loaded: without a GPU that were for nothing
    backend = load_backend(name)
    plan = plan_for(bundle, precision, backend=backend, cuda=cuda, say=say)
    opened = TensorrtEngine(bundle, plan, precision=precision, backend=backend, cuda=cuda)
    return opened, EngineChoice(
        name=opened.name, threads=1, device=cuda.device.name, notes=opened.notes
    )


def usable_cores() -> int:
    """Cores that this process may use: its affinity mask where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def inference_threads(cores: int) -> int:
    """How many of the cores one inference takes, so that decoding keeps one.

    On one or two cores inference takes them all: decoding is then done by the time the network
    runs or shares the second core, and an idle core would cost more (docs/decisions/0003).
    """
    return cores if cores <= 2 else cores - 1
