"""The float16 graph, for TensorRT: types are part of the graph, no runtime chooses them.

LayerNormalization stays one node, whose statistics TensorRT computes in float32; in parts its
squares overflow float16. From the mean over the tokens on (the feature, the heads, the scene
attention) everything stays float32: it costs nothing there, and the answers are the sums of many
small numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geotag.wish import PixelForm

LARGEST_HALF = 65504.0
_MOVING = ("Reshape", "Transpose")
"""Operations that round nothing."""


def halve_graph(
    graph: onnx.GraphProto, *, float32_from: Iterable[str], pixels: PixelForm = "uint8"
) -> onnx.GraphProto:
    """Turn a float32 graph into one that computes in float16.

    Constants become float16, as do the scales of Q/DQ, which `calibration.quantize` chose so that
    they are the same numbers; casts to float32 become casts to float16. Inputs and outputs keep
    their types.

    Args:
        graph: float32, its nodes in an order in which they can be computed.
        float32_from: names of nodes that stay float32, with all that depends on them.
        pixels: what the input takes; float16 for a TensorRT that does not take bytes, which it
            holds exactly.

    Raises:
        CalibrationError: such a node is not there, an output would be float16, or a constant is
            too large for float16.
    """
    starts = set(float32_from)
    if missing := sorted(starts - {node.name for node in graph.node}):
        raise CalibrationError(f"making the float16 graph: it has no node {missing[0]}.")
    constants = {held.name: held for held in graph.initializer}
    wide: set[str] = set()
    """Tensors that stay float32."""
    halves: dict[str, onnx.TensorProto] = {}
    widened: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        is_wide = node.name in starts or any(name in wide for name in node.input)
        if is_wide:
            wide.update(node.output)
            nodes += _widen(node, constants, wide, widened)
        else:
            nodes.append(_narrow(node, constants, halves))
    if narrow := [port.name for port in graph.output if port.name not in wide]:
        raise CalibrationError(
            f"making the float16 graph: its output {narrow[0]} would be float16; every output "
            "must depend on a node that stays float32."
        )
    used = {name for node in nodes for name in node.input}
    kept = [held for name, held in constants.items() if name in used]
    halved = helper.make_graph(
        nodes, graph.name, graph.input, graph.output, [*kept, *halves.values()]
    )
    if pixels == "float16":
        for port in halved.input:
            port.type.tensor_type.elem_type = TensorProto.FLOAT16
    return halved


def rounded_graph(model: onnx.ModelProto) -> onnx.GraphProto:
    """A float16 graph in float32, with each result rounded to float16, as a GPU computes it.

    ONNX Runtime has few float16 kernels for processors. It runs a float16 graph in float32 and
    leaves out the rounding in between, so that not even an overflow shows; casts that stand in the
    graph itself it keeps.

    Args:
        model: as `halve_graph` made it.

    Returns:
        A graph whose input is float32 where it was float16.
    """
    kinds = {
        port.name: port.type.tensor_type.elem_type
        for port in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for attribute in copy.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
        nodes.append(copy)
        is_half = kinds.get(node.output[0]) == TensorProto.FLOAT16
        if is_half and node.op_type not in _MOVING:
            name = node.output[0]
            copy.output[0], half = f"{name}.exact", f"{name}.rounded"
            nodes.append(helper.make_node("Cast", [copy.output[0]], [half], to=TensorProto.FLOAT16))
            nodes.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    constants = [_full(held) for held in model.graph.initializer]
    graph = helper.make_graph(
        nodes, model.graph.name, model.graph.input, model.graph.output, constants
    )
    for port in graph.input:
        if port.type.tensor_type.elem_type == TensorProto.FLOAT16:
            port.type.tensor_type.elem_type = TensorProto.FLOAT
    return graph


def _full(held: onnx.TensorProto) -> onnx.TensorProto:
    if held.data_type != TensorProto.FLOAT16:
        return held
    return numpy_helper.from_array(numpy_helper.to_array(held).astype(np.float32), held.name)


def _widen(
    node: onnx.NodeProto,
    constants: dict[str, onnx.TensorProto],
    wide: set[str],
    widened: set[str],
) -> list[onnx.NodeProto]:
    """A node that stays float32, behind casts of what it reads from the float16 part."""
    casts, inputs = [], []
    for name in node.input:
        if not name or name in constants or name in wide:
            inputs.append(name)
            continue
        cast = f"{name}.float32"
        inputs.append(cast)
        if cast not in widened:
            widened.add(cast)
            casts.append(helper.make_node("Cast", [name], [cast], name=cast, to=TensorProto.FLOAT))
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = inputs
    return [*casts, copy]


def _narrow(
    node: onnx.NodeProto,
    constants: dict[str, onnx.TensorProto],
    halves: dict[str, onnx.TensorProto],
) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for place, name in enumerate(node.input):
        held = constants.get(name)
        if held is not None and held.data_type == TensorProto.FLOAT:
            copy.input[place] = f"{name}.half"
            if copy.input[place] not in halves:
                halves[copy.input[place]] = _half(held)
    if node.op_type == "Cast":
        for attribute in copy.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    return copy


def _half(held: onnx.TensorProto) -> onnx.TensorProto:
    values = numpy_helper.to_array(held)
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= LARGEST_HALF:
        raise CalibrationError(
            f"making the float16 graph: {held.name} holds {largest:.3g}, more than float16's "
            f"{LARGEST_HALF:.0f}. Export with --precision fp32."
        )
    return numpy_helper.from_array(values.astype(np.float16), f"{held.name}.half")
