"""The plan of a bundle for the GPU of this machine: the kept one, or a new one.

Building takes minutes and gigabytes, so it happens in a process of its own
(`engines.build_process`). What is built is kept (`engines.plans`); after an update of JetPack,
TensorRT or the driver the kept plan no longer fits, and the bundle's graph is compiled anew, which
needs no network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import BundleError, EngineError
from engines.build_process import build_aside
from engines.bundle import GRAPHS, TENSORRT_GRAPHS, Bundle, Precision
from engines.plans import BuildFacts, KeptPlan, PlanFolder, PlanKey, cache_folder, explained
from engines.tensorrt_build import WEAK_TYPING, BuildOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.build_process import Say
    from engines.cuda import Cuda, Device
    from engines.tensorrt_api import Backend

    MakePlan = Callable[[Path], bytes]

ONNX_BUILDER = "onnx"

_SPARE_BYTES = 64 << 20
"""Beyond the plan and its copy, for caches and records."""
_FREE_SHARE = 4
"""On a Jetson kernels may try a quarter of what is free: the rest of the computer needs it too."""


def plan_for(
    bundle: Bundle,
    precision: Precision,
    *,
    backend: Backend,
    cuda: Cuda,
    max_batch: int = 1,
    say: Say | None = None,
    cache: Path | None = None,
) -> KeptPlan:
    """The plan that runs a bundle here; built if there is none that fits.

    Args:
        bundle: a verified model folder.
        precision: one that the bundle has for TensorRT.
        backend: which TensorRT.
        cuda: the GPU.
        max_batch: most clips at a time.
        say: is told that a build begins, goes on, and has ended.
        cache: where plans are kept; None is `engines.plans.cache_folder`.

    Raises:
        BundleError: the bundle has no such graph for TensorRT.
        EngineUnavailableError: this TensorRT has no code for this GPU.
        EngineBuildError: TensorRT refuses the graph, runs out of memory, or its process ended.
        EngineError: the disk is full or the cache cannot be written.
    """
    backend.check_runs_on(cuda.device)
    options = _options(precision, max_batch)
    graph = graph_of(bundle, precision, weakly_typed=bool(options.type_flags))
    key = plan_key(bundle, graph, precision, options, backend=backend, device=cuda.device)
    cache = cache or cache_folder()
    timing = cache / f"timing-{backend.name}-{_timing_name(key)}"

    def make(out: Path) -> bytes:
        return build_aside(
            bundle.file(graph),
            out,
            backend=backend,
            options=options,
            workspace_bytes=_workspace(cuda),
            timing_cache=timing,
            doing=f"compiling {bundle.label} {precision} for {cuda.device.name}",
            say=say or _say_nothing,
        )

    return _find_or_make(bundle, key, make, cache=cache, say=say or _say_nothing)


def plan_from(
    bundle: Bundle,
    precision: Precision,
    make: Callable[[], bytes],
    *,
    builder: str,
    backend: Backend,
    cuda: Cuda,
    max_batch: int = 1,
    say: Say | None = None,
    cache: Path | None = None,
) -> KeptPlan:
    """The same for a plan that another builder makes from the network that the bundle came from.

    Args:
        bundle: the bundle that the network was exported to.
        precision: of the plan.
        make: builds it, in this process.
        builder: its name and versions, such as `torch-tensorrt 2.12.0, torch 2.12.0`.
        backend: the TensorRT that will run the plan; its version must be that of the builder.
        cuda: the GPU.
        max_batch: most clips at a time.
        say: is told that a build begins and has ended.
        cache: where plans are kept; None is `engines.plans.cache_folder`.

    Raises:
        EngineError: as `plan_for`, and whatever `make` raises.
    """
    graph = graph_of(bundle, precision)
    options = BuildOptions(max_batch=max_batch)
    key = plan_key(
        bundle, graph, precision, options, backend=backend, device=cuda.device, builder=builder
    )
    return _find_or_make(
        bundle, key, lambda _: make(), cache=cache or cache_folder(), say=say or _say_nothing
    )


def graph_of(bundle: Bundle, precision: Precision, *, weakly_typed: bool = False) -> str:
    """Name of the file that TensorRT compiles.

    Raises:
        BundleError: the bundle has none of that precision.
    """
    name = TENSORRT_GRAPHS[precision]
    if weakly_typed:
        name = GRAPHS[precision if precision == "int8" else "fp32"]
    if name in bundle.manifest.files:
        return name
    has = [kind for kind, file in TENSORRT_GRAPHS.items() if file in bundle.manifest.files]
    raise BundleError(
        f"opening {bundle.label} with TensorRT in {precision}: the bundle has no {name}. It has "
        f"{', '.join(has)}; choose one of these with --precision, or export it again with "
        f"`geotag export --precision {precision}`."
    )


def plan_key(
    bundle: Bundle,
    graph: str,
    precision: Precision,
    options: BuildOptions,
    *,
    backend: Backend,
    device: Device,
    builder: str = ONNX_BUILDER,
    root: Path = Path("/"),
) -> PlanKey:
    """What a plan for this machine depends on.

    Args:
        bundle: the model folder.
        graph: name of its file that is compiled.
        precision: that of the file.
        options: of the builder.
        backend: which TensorRT.
        device: the GPU.
        builder: what compiles.
        root: of the file system that tells versions.
    """
    files = bundle.manifest.files
    beside = [files[name].sha256 for name in (graph, f"{graph}.data") if name in files]
    return PlanKey(
        graph_sha256=hashlib.sha256("".join(beside).encode()).hexdigest(),
        precision=precision,
        max_batch=options.max_batch,
        targets=options.targets,
        type_flags=options.type_flags,
        backend=backend.name,
        backend_version=backend.version,
        builder=builder,
        device=device.name,
        capability="{}.{}".format(*device.capability),
        multiprocessors=device.multiprocessors,
        driver=f"{device.driver} {_read_line(root / 'sys/module/nvidia/version') or ''}".strip(),
        l4t=_read_line(root / "etc/nv_tegra_release"),
    )


def _options(precision: Precision, max_batch: int) -> BuildOptions:
    flags: dict[Precision, tuple[str, ...]] = {"fp16": ("FP16",), "int8": ("FP16", "INT8")}
    weakly = os.environ.get(WEAK_TYPING) == "1"
    return BuildOptions(max_batch=max_batch, type_flags=flags.get(precision, ()) if weakly else ())


def _find_or_make(
    bundle: Bundle, key: PlanKey, make: MakePlan, *, cache: Path, say: Say
) -> KeptPlan:
    name = re.sub(r"[^\w.-]", "_", bundle.manifest.name)
    plans = PlanFolder(cache / "plans" / f"{name}-{key.precision}-{key.backend}")
    found = plans.find(key)
    if found is not None:
        return found
    with plans.reserved():
        found = plans.find(key)  # another process may have built it meanwhile
        if found is not None:
            return found
        _check_space(bundle.file(graph_of(bundle, "fp32")), plans.path)
        say(
            f"compiling {bundle.label} {key.precision} with {key.backend} {key.backend_version} "
            f"for {key.device}; it takes minutes, once"
        )
        started_s = time.monotonic()
        content = make(plans.path)
        seconds = time.monotonic() - started_s
        facts = BuildFacts(
            bundle=bundle.label, seconds=round(seconds, 1), power_mode=_power_mode(Path("/"))
        )
        kept = plans.keep(key, content, facts)
        say(f"compiled in {seconds:.0f} s, {len(content) / 1e6:.0f} MB in {kept.folder}")
        return kept


def _check_space(graph: Path, folder: Path) -> None:
    """Refuse before minutes of work what would end at a full disk."""
    with explained(f"looking for space in {folder}"):
        needed = 2 * graph.stat().st_size + _SPARE_BYTES
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise EngineError(
            f"keeping a plan in {folder}: {free / 1e6:.0f} MB are free, {needed / 1e6:.0f} MB are "
            "needed. Free some space, or name another folder with GEOTAG_CACHE."
        )


def _workspace(cuda: Cuda) -> int | None:
    return cuda.memory()[0] // _FREE_SHARE if cuda.device.is_integrated else None


def _timing_name(key: PlanKey) -> str:
    """Of what kernel times depend on: the graph is no part of it, so that bundles share them."""
    parts = (key.backend_version, key.device, key.multiprocessors, key.driver, key.l4t)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _power_mode(root: Path) -> str | None:
    """The number of a Jetson's power mode, as nvpmodel keeps it; None elsewhere."""
    return _read_line(root / "var/lib/nvpmodel/status")


def _read_line(path: Path) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return lines[0].strip() if lines else None


def _say_nothing(line: str) -> None:
    """Nobody asked."""
