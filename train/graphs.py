"""The ONNX graph of any network, written by hand or traced, and where its float16 form widens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.models.kinds import find_kind

if TYPE_CHECKING:
    import onnx

    from train.models.base import GeoModel

FEATURE = "feature"
"""Output from which on float16 graphs compute in float32."""


def graph_of(model: GeoModel) -> onnx.GraphProto:
    """One input, `clip` uint8 [N, T, H, W, 3], and the outputs that the model names, float32.

    Args:
        model: in evaluation mode, on the CPU.

    Raises:
        ExportError: the tracer is not installed, or the network cannot be traced.
    """
    write = find_kind(model.kind).graph
    if write is not None:
        return write(model)
    from train.onnx_trace import trace

    return trace(model)


def wide_starts(graph: onnx.GraphProto) -> list[str]:
    """Nodes from which on a float16 graph stays float32: the feature, and what no feature reaches.

    Lengths too, wherever they stand: the largest sum of squares that float16 holds is 65504.
    Nodes carry the name of their first output, as `graph_of` gives them.
    """
    starts, reached = [], {FEATURE}
    for node in graph.node:
        if reached & set(node.input):
            reached.update(node.output)
        elif node.op_type == "ReduceL2":
            starts.append(node.name)
    for port in graph.output:
        if port.name == FEATURE or port.name not in reached:
            starts.append(port.name)
    return starts
