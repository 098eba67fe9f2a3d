"""From an ONNX graph to a TensorRT plan, in this process.

Types live in the graph: networks are strongly typed, and no flag chooses a precision, except
where somebody on JetPack 6 asks for it (`WEAK_TYPING`).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.base import EngineBuildError
from engines.onnx_input import with_cast_first
from engines.plans import write_whole
from engines.tensorrt_api import Attempt

if TYPE_CHECKING:
    from pathlib import Path

    from engines.tensorrt_api import Backend, Hear

WEAK_TYPING = "GEOTAG_TENSORRT_WEAK_TYPING"
"""Environment variable for JetPack 6: flags choose the types of a float32 graph. Strong typing is
in TensorRT 10.3, and NVIDIA calls it complete from 10.12; this goes when JetPack 6 does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a plan depends on besides its graph, its builder and the machine."""

    max_batch: int = 1
    """Clips at a time, from 1 up to this; TensorRT tunes for this many. One is what a scan wants:
    clips come from a decoder that is slower than the network, and a plan for more takes memory for
    all of them (about 30 MB a clip in float16) and tunes for what never comes."""
    targets: tuple[str, ...] = ()
    """TensorRT-RTX: compute capabilities such as SM86; empty means the GPU that is here."""
    type_flags: tuple[str, ...] = ()
    """Flags such as FP16 that let TensorRT choose types, as only versions before 11 can; empty
    keeps the types of the graph."""

    def __post_init__(self) -> None:
        """Refuse a batch of nothing."""
        if self.max_batch < 1:
            raise ValueError(f"max_batch {self.max_batch}: at least 1 clip is needed")


def build_plan(
    backend: Backend,
    graph: Path,
    options: BuildOptions,
    *,
    workspace_bytes: int | None = None,
    timing_cache: Path | None = None,
    hear: Hear | None = None,
) -> bytes:
    """Compile an ONNX file.  Minutes on a Jetson; needs no GPU with TensorRT-RTX and `targets`.

    Args:
        backend: which TensorRT.
        graph: the ONNX file; weights beside it are found.
        options: what the plan is for.
        workspace_bytes: how much memory TensorRT may try kernels with; None is all it finds.
        timing_cache: file that keeps how fast kernels were, to make the next build shorter; not
            for TensorRT-RTX, where it would need a GPU.
        hear: is told every line of TensorRT's log; the plan then carries more about its layers.

    Raises:
        EngineBuildError: TensorRT refuses the graph or cannot compile it; its own words.
    """
    trt = backend.module
    attempt = _attempt(backend, f"compiling {graph.name}", hear)
    builder = attempt.made(trt.Builder, attempt.logger)
    network = attempt.made(builder.create_network, _network_flags(trt, options))
    parser = attempt.made(trt.OnnxParser, network, attempt.logger)
    if not parser.parse(with_cast_first(graph.read_bytes()), str(graph)):
        raise attempt.refusal(
            advice="This version cannot read the graph; export the bundle again with this version "
            "of geotag, or use another --engine."
        )
    config = attempt.made(builder.create_builder_config)
    _configure(backend, config, options, attempt)
    if workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    if hear is not None:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _add_profile(builder, config, network, options.max_batch)
    keeps_times = timing_cache is not None and not backend.is_rtx
    if timing_cache is not None and keeps_times:
        _use_timing_cache(config, timing_cache)
    plan = attempt.made(builder.build_serialized_network, network, config)
    if timing_cache is not None and keeps_times:
        with contextlib.suppress(OSError):  # the next build takes longer, no more
            write_whole(timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def build_one_layer(backend: Backend) -> bytes:
    """A plan that gives max(0, x) of `x` float32 [1, 8] as `y`: whether building works.

    Raises:
        EngineBuildError: TensorRT cannot build for the GPU that is here.
    """
    trt, options = backend.module, BuildOptions()
    attempt = _attempt(backend, "compiling one layer", None)
    builder = attempt.made(trt.Builder, attempt.logger)
    network = attempt.made(builder.create_network, _network_flags(trt, options))
    given = attempt.made(network.add_input, "x", trt.float32, (1, 8))
    made = attempt.made(network.add_activation, given, trt.ActivationType.RELU).get_output(0)
    made.name = "y"
    network.mark_output(made)
    config = attempt.made(builder.create_builder_config)
    _configure(backend, config, options, attempt)
    return bytes(attempt.made(builder.build_serialized_network, network, config))


def _attempt(backend: Backend, doing: str, hear: Hear | None) -> Attempt:
    return Attempt(
        backend,
        f"{doing} with {backend.name} {backend.version}",
        kind=EngineBuildError,
        advice="Is this TensorRT made for this GPU and its driver? `geotag doctor` tries it.",
        hear=hear,
    )


def _network_flags(trt: Any, options: BuildOptions) -> int:  # noqa: ANN401
    # The number behind the name differs: 1 in TensorRT 10, 0 in 11, where types are always strong.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None or options.type_flags else 1 << int(flag)


def _configure(
    backend: Backend,
    config: Any,  # noqa: ANN401
    options: BuildOptions,
    attempt: Attempt,
) -> None:
    trt = backend.module
    if hasattr(trt.BuilderFlag, "TF32"):
        # It would round what is declared float32, the yardstick of the other precisions.
        config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(config, "set_compute_capability"):
        targets = options.targets or ("CURRENT",)
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            known = getattr(trt.ComputeCapability, target, None)
            if known is None or not config.set_compute_capability(known, index):
                listed = ", ".join(trt.ComputeCapability.__members__)
                raise EngineBuildError(f"{attempt.doing}: no target {target}; known are {listed}.")
    for name in options.type_flags:
        if not hasattr(trt.BuilderFlag, name):
            raise EngineBuildError(
                f"{attempt.doing}: {WEAK_TYPING} is set, and this version has no flag {name} any "
                "more: its types are always those of the graph. Unset it."
            )
        config.set_flag(getattr(trt.BuilderFlag, name))


def _add_profile(builder: Any, config: Any, network: Any, max_batch: int) -> None:  # noqa: ANN401
    given = network.get_input(0)
    rows, *shape = tuple(given.shape)
    if rows != -1:
        return  # the graph itself fixes how many clips it takes
    profile = builder.create_optimization_profile()
    most = (max_batch, *shape)
    profile.set_shape(given.name, (1, *shape), most, most)
    config.add_optimization_profile(profile)


def _use_timing_cache(config: Any, path: Path) -> None:  # noqa: ANN401
    """Take up what an earlier build measured; what is damaged or foreign is measured anew."""
    try:
        kept = path.read_bytes()
    except OSError:
        kept = b""
    cache = config.create_timing_cache(kept)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
