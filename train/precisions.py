"""From one float32 network to the graphs of the precisions that were asked for.

The graphs are written, checked and listed; whether they may be shipped is another matter
(`train.judging`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
from rich.progress import Progress

from calibration.dialect import check_dialect, read_graph
from calibration.errors import CalibrationError, DialectError
from calibration.half import halve_graph
from calibration.quantize import QuantizedState, compact_graph, quantize_graph
from calibration.ranges import LARGE, observe
from calibration.recipe import quantize_model
from engines.bundle import GRAPHS, TENSORRT_GRAPHS
from train.graphs import FEATURE, graph_of, wide_starts
from train.models.kinds import find_kind
from train.onnx_graph import write_graph

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from calibration.ranges import Observed
    from calibration.recipe import FamilyReport, Quantized
    from geotag.wish import PrecisionWish
    from train.calibration_clips import CalibrationSet
    from train.clip_pools import ClipPool
    from train.models.base import GeoModel

MAX_ERROR = 0.003
"""Squared error of a family's outputs, as a share of their variance (25 dB), beyond which it stays
in floating point. What trained networks show is below 0.001; a few outliers behind a GELU, which
no scale can be folded into, cost 0.004 to 0.013 in every block and change one answer in fifty."""
_BATCH = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lowered:
    """What was written."""

    files: dict[str, str]
    """File -> its precision, in the order of a bundle."""
    recipe: dict[str, Any]
    """How each family was quantized, for the bundle's record; empty without int8."""
    quantized: Quantized[GeoModel] | None
    """What int8 was made from; None where there is none, or somebody brought it."""
    skipped: tuple[str, ...]
    """Families that stay in floating point."""
    notes: tuple[str, ...]


def lower(
    model: GeoModel,
    folder: Path,
    wish: PrecisionWish,
    clips: CalibrationSet,
    *,
    console: Console,
) -> Lowered:
    """Write the graphs of float16 and int8 into a folder.

    Args:
        model: in float32, as it was trained.
        folder: of the bundle.
        wish: what is asked for; not fp32 alone.
        clips: to calibrate on.
        console: where progress is shown.

    Raises:
        CalibrationError: activations that fit neither, a layer to skip that is not there, or
            footage that cannot be read any more.
        DialectError: a graph that somebody brings is outside the dialect.
    """
    named, brought = check_wish(model, wish)
    observed = _observe(model, clips.calibration, console)
    notes = []
    too_large = observed.too_large()
    if too_large:
        notes.append(_overflow(too_large))
        if wish.precision == "fp16":
            raise CalibrationError(f"making the float16 model: {notes[0]}")
    files: dict[str, str] = {}
    graph = graph_of(model)
    if not too_large:
        half = halve_graph(graph, float32_from=wide_starts(graph), pixels=wish.pixels)
        write_graph(half, folder / GRAPHS["fp16"])
        files[GRAPHS["fp16"]] = "fp16"
    if wish.precision != "int8":
        return Lowered(files=files, recipe={}, quantized=None, skipped=(), notes=tuple(notes))
    quantized, skipped = None, named
    if brought is None:
        quantized = _quantize(model, observed, console)
        skipped = _skipped(named, quantized.reports)
        notes += _unquantizable(named, skipped)
        state = quantized.state.without(set(skipped))
        write_int8(quantized, state, folder, wish, has_half=not too_large)
    else:
        check_dialect(brought, doing=f"taking {wish.own_graph}")
        _write_brought(brought.graph, folder, wish, has_half=not too_large, notes=notes)
    for name in (GRAPHS["int8"], TENSORRT_GRAPHS["int8"]):
        if (folder / name).exists():
            files[name] = "int8"
    return Lowered(
        files=files,
        recipe=_record(quantized, skipped, model),
        quantized=quantized,
        skipped=skipped,
        notes=tuple(notes),
    )


def check_wish(
    model: GeoModel, wish: PrecisionWish
) -> tuple[tuple[str, ...], onnx.ModelProto | None]:
    """What a wish names: families to skip one by one, and the graph that somebody brings.

    Cheap, to be asked before minutes of looking at clips.

    Raises:
        CalibrationError: a layer to skip that is not there, or int8 of a kind that has none.
        DialectError: a graph that will not do.
    """
    needs_families = wish.precision == "int8" and wish.own_graph is None
    if (needs_families or wish.skipped) and not model.families():
        raise CalibrationError(
            f"making the int8 model: {find_kind(model.kind).title} has no int8, its layers are not "
            "named for it. Export it with --precision fp16 or fp32, or give a quantized graph with "
            "--int8-onnx."
        )
    brought = None if wish.own_graph is None else _brought(wish.own_graph, model)
    return _named(model, wish.skipped), brought


def write_int8(
    quantized: Quantized[GeoModel],
    state: QuantizedState,
    folder: Path,
    wish: PrecisionWish,
    *,
    has_half: bool,
) -> None:
    """Write the two files of one state: between float32 operations, and between float16 ones."""
    kept = {linear for family in state.families.values() for linear in family.linears}
    graph = graph_of(quantized.corrected(kept))
    write_graph(compact_graph(quantize_graph(graph, state)), folder / GRAPHS["int8"])
    if has_half:
        typed = quantize_graph(graph, state, weights=wish.weights)
        half = halve_graph(typed, float32_from=wide_starts(graph), pixels=wish.pixels)
        write_graph(half, folder / TENSORRT_GRAPHS["int8"])


def _observe(model: GeoModel, pool: ClipPool, console: Console) -> Observed:
    with Progress(console=console) as progress:
        task = progress.add_task("watching activations", total=pool.count)
        return observe(
            model,
            model.families(),
            (batch.clips_NTHWC for batch in pool.batches(_BATCH)),
            clips=pool.count,
            advance=lambda count: progress.advance(task, count),
        )


def _quantize(model: GeoModel, observed: Observed, console: Console) -> Quantized[GeoModel]:
    families = model.families()
    with Progress(console=console) as progress:
        task = progress.add_task("choosing scales", total=len(families))
        return quantize_model(model, families, observed, advance=lambda: progress.advance(task))


def _named(model: GeoModel, asked: Sequence[str]) -> tuple[str, ...]:
    """Families that were named, one by one or by their block."""
    names = [family.name for family in model.families()]
    found: set[str] = set()
    for name in asked:
        here = [each for each in names if each == name or each.startswith(f"{name}.")]
        if not here:
            raise CalibrationError(
                f"leaving {name} in floating point: there is no such layer. Allowed are "
                f"{names[0]} to {names[-1]}, and blocks as a whole, such as "
                f"{names[0].rpartition('.')[0]}."
            )
        found.update(here)
    return tuple(name for name in names if name in found)


def _skipped(named: Sequence[str], reports: Sequence[FamilyReport]) -> tuple[str, ...]:
    return tuple(
        report.name for report in reports if report.name in named or not report.error <= MAX_ERROR
    )


def _unquantizable(named: Sequence[str], skipped: Sequence[str]) -> list[str]:
    own = [name for name in skipped if name not in named]
    if not own:
        return []
    return [f"{', '.join(own)} stay in floating point: no scale was good enough for them"]


def _overflow(too_large: dict[str, float]) -> str:
    worst = max(too_large, key=lambda name: too_large[name])
    return (
        f"values of {too_large[worst]:.3g} pass through {worst}; float16 ends at 65504, and no "
        f"file is written for it above {LARGE:.0f}. fp32, and int8 on CPUs, are not concerned"
    )


def _record(
    quantized: Quantized[GeoModel] | None, skipped: Sequence[str], model: GeoModel
) -> dict[str, Any]:
    if quantized is None:
        return {"made_by": "a graph that was brought"}
    return {
        "made_by": "geotag",
        "families": {
            report.name: {
                "smoothing": report.exponent,
                "range": report.range,
                "error": float(f"{report.error:.3g}"),
            }
            for report in quantized.reports
            if report.name not in skipped
        },
        "in_floating_point": list(skipped),
    }


def _brought(path: Path, model: GeoModel) -> onnx.ModelProto:
    """A graph that somebody brings, with the outputs that the model has."""
    found = read_graph(path)
    check_dialect(found, doing=f"taking {path}")
    if all(node.op_type != "DequantizeLinear" for node in found.graph.node):
        raise DialectError(
            f"taking {path}: nothing in it is quantized. Quantize the linear layers of its blocks "
            "first, or leave --int8-onnx out and let geotag do it."
        )
    wanted = {name: model.widths[name] for name in model.outputs}
    outputs = {
        port.name: (port.type.tensor_type.shape.dim or [None])[-1] for port in found.graph.output
    }
    widths = {name: 0 if axis is None else axis.dim_value for name, axis in outputs.items()}
    if widths != wanted:
        raise DialectError(
            f"taking {path}: its outputs are {widths}, those of the checkpoint are {wanted}. "
            "Quantize the model.onnx that geotag export writes for it."
        )
    clip = found.graph.input[0].type.tensor_type
    if clip.elem_type != onnx.TensorProto.UINT8:
        raise DialectError(
            f"taking {path}: its input is not uint8. Quantize the model.onnx that geotag export "
            "writes."
        )
    config = model.config
    sizes = [config.frames, config.image_px, config.image_px, 3]
    axes = clip.shape.dim
    if axes[0].dim_value or [axis.dim_value for axis in axes[1:]] != sizes:
        shape = ", ".join(str(axis.dim_value or axis.dim_param or "?") for axis in axes)
        raise DialectError(
            f"taking {path}: its clip is [{shape}], that of the checkpoint is "
            f"[N, {', '.join(map(str, sizes))}]. Quantize the model.onnx that geotag export writes."
        )
    return found


def _write_brought(
    graph: onnx.GraphProto, folder: Path, wish: PrecisionWish, *, has_half: bool, notes: list[str]
) -> None:
    write_graph(graph, folder / GRAPHS["int8"])
    if not has_half:
        return
    named = _without_constant_nodes(graph)
    starts = []
    for number, node in enumerate(named.node):
        node.name = node.name or f"{node.op_type}.{number}"
        if FEATURE in node.output:
            starts.append(node.name)
    try:
        half = halve_graph(named, float32_from=starts, pixels=wish.pixels)
        write_graph(half, folder / TENSORRT_GRAPHS["int8"])
    except (
        CalibrationError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as exc:
        (folder / TENSORRT_GRAPHS["int8"]).unlink(missing_ok=True)
        notes.append(f"no int8 file for TensorRT was made of {wish.own_graph}: {exc}")


def _without_constant_nodes(graph: onnx.GraphProto) -> onnx.GraphProto:
    """The same with constants as initialisers, which is where their type can be changed."""
    nodes, constants = [], list(graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants.append(onnx.TensorProto())
            constants[-1].CopyFrom(node.attribute[0].t)
            constants[-1].name = node.output[0]
        else:
            nodes.append(node)
    return onnx.helper.make_graph(nodes, graph.name, graph.input, graph.output, constants)
