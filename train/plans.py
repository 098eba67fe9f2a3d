"""TensorRT plans at export: made where TensorRT and its GPU are, and judged like any other engine.

A plan runs only where it was built, so it lies in the cache of this machine and not in the bundle:
elsewhere it is built on first use, from the bundle's graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.base import EngineUnavailableError
from engines.build import plan_for, plan_from
from engines.cuda import load_cuda
from engines.tensorrt_api import MODULES, check_installed, load_backend
from train.torch_tensorrt import build_plan, describe_builder, load_torch_tensorrt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engines.build_process import Say
    from engines.bundle import Bundle, Precision
    from engines.cuda import Cuda
    from engines.plans import KeptPlan
    from engines.tensorrt_api import Backend
    from geotag.wish import Builder
    from train.models.base import GeoModel


@dataclass(frozen=True, slots=True, kw_only=True)
class MadePlan:
    """One plan of this machine."""

    engine: str
    """As `--engine` and `--precision` choose it, and its tag names it: tensorrt-10.3-fp16."""
    precision: Precision
    builder: str
    size_bytes: int
    seconds: float
    """It took, now or when it was built."""
    folder: Path


def make_plans(
    bundle: Bundle,
    precisions: Sequence[Precision],
    *,
    builder: Builder = "onnx",
    model: GeoModel | None = None,
    say: Say | None = None,
    cache: Path | None = None,
) -> tuple[tuple[MadePlan, ...], str | None]:
    """Compile a bundle for the GPU of this machine, one plan for each precision.

    Args:
        bundle: what was exported, in its place: plans are found again by its files.
        precisions: which of the bundle's.
        builder: `onnx` compiles the bundle's graphs; `torch-tensorrt` the network itself.
        model: the network, which torch-tensorrt takes.
        say: is told, line by line, of what takes minutes.
        cache: where plans are kept; None is the usual folder.

    Returns:
        What was made; and, if nothing was because TensorRT is not here, why.

    Raises:
        EngineUnavailableError: torch-tensorrt was asked for and is not here.
        EngineError: as `engines.build.plan_for`.
    """
    if builder == "torch-tensorrt":
        load_torch_tensorrt()  # asked for by name: it is there, or an error says why not
        cuda, backend = load_cuda(), load_backend("tensorrt")
    else:
        try:
            cuda, backend = _find_tensorrt()
        except EngineUnavailableError as exc:
            return (), f"no TensorRT plan ({exc.reason}); built on first use where there is one"
    made = []
    for precision in precisions:
        if builder == "torch-tensorrt":
            kept = _with_torch(bundle, precision, model, backend, cuda, say, cache)
        else:
            kept = plan_for(
                bundle,
                precision,
                backend=backend,
                cuda=cuda,
                only_ours=True,
                say=say,
                cache=cache,
            )
        made.append(
            MadePlan(
                engine=f"{backend.label}-{precision}",
                precision=precision,
                builder=kept.builder,
                size_bytes=len(kept.content),
                seconds=kept.facts.seconds,
                folder=kept.folder,
            )
        )
    return tuple(made), None


def _find_tensorrt() -> tuple[Cuda, Backend]:
    """The first TensorRT that is here and has a GPU; the reason of the first that has not."""
    reasons = []
    for name in MODULES:
        try:
            check_installed(name)
            cuda = load_cuda()
            backend = load_backend(name)
            backend.check_runs_on(cuda.device)
        except EngineUnavailableError as exc:
            reasons.append(exc)
            continue
        return cuda, backend
    # One that is installed and has no GPU says more than one that is not installed.
    raise max(reasons, key=lambda exc: exc.reason != "not installed")


def _with_torch(
    bundle: Bundle,
    precision: Precision,
    model: GeoModel | None,
    backend: Backend,
    cuda: Cuda,
    say: Say | None,
    cache: Path | None,
) -> KeptPlan:
    if model is None:
        raise ValueError("torch-tensorrt compiles a network, and was given none")
    outputs = tuple(bundle.manifest.outputs)
    network = model
    return plan_from(
        bundle,
        precision,
        lambda: build_plan(network, outputs, precision),
        builder=describe_builder(),
        outputs=outputs,
        backend=backend,
        cuda=cuda,
        say=say,
        cache=cache,
    )
