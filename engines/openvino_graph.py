"""Networks rewritten for OpenVINO, once they are read: the same arithmetic in another form."""

from __future__ import annotations

from typing import Any

import numpy as np

EMBEDDING = "embedding"
"""Tensor that divides a network of images and texts: before it the images, after it the places."""


def divide(model: Any) -> list[Any]:  # noqa: ANN401 - openvino has no types
    """The network, or its image side and its places where the graph names what is between."""
    import openvino

    found = [op for op in model.get_ops() if op.get_friendly_name() == EMBEDDING]
    if not found:
        return [model]
    between = found[0].output(0)
    given = openvino.opset13.parameter(between.get_shape(), np.float32, name=EMBEDDING)
    given.output(0).set_names({EMBEDDING})
    for use in between.get_target_inputs():
        use.replace_source_output(given.output(0))
    images = openvino.Model([between], model.get_parameters(), "images")
    return [images, openvino.Model(list(model.results), [given], "places")]


def take_bytes(model: Any) -> Any:  # noqa: ANN401
    """Let a network whose pixels are float16, for a TensorRT that takes no bytes, take bytes."""
    import openvino

    if [port.element_type for port in model.inputs] != [openvino.Type.f16]:
        return model
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8)
    return steps.build()


def shorten_for_bfloat16(model: Any) -> None:  # noqa: ANN401
    """Write what keeps OpenVINO 2026.4 from computing in bfloat16 throughout in another way.

    It leaves all that follows the last product in float32, and after a chain of residual sums that
    are averaged in the end, this is the whole chain: every block then converts it there and back.
    With the average as a product the chain is bfloat16 like everything else. Keys are transposed by
    the product that reads them instead of beforehand. Together they save an eighth of a clip's time
    (VideoMAE-S, AMX); the answers of int8 differ from float32 by as much as before.
    """
    for node in model.get_ops():
        if node.get_type_name() == "ReduceMean" and len(node.input_value(0).get_shape()) == 3:
            _average_by_product(node)
        if node.get_type_name() == "MatMul":
            _transpose_in_product(node)


def _average_by_product(node: Any) -> None:  # noqa: ANN401
    """Mean over the tokens, [N, P, D] -> [N, D], as 1/P [1, 1, P] times them."""
    from openvino import opset13 as op

    tokens = node.input_value(0)
    axes = node.input_value(1).get_node()
    if axes.get_type_name() != "Constant" or axes.data.ravel().tolist() != [1]:
        return
    count = tokens.get_shape()[1]
    shares = op.constant(np.full((1, 1, count), 1 / count, np.float32))
    mean = op.matmul(shares, tokens, False, False)
    mean = op.reshape(mean, op.constant(np.array(node.get_output_shape(0), np.int64)), False)
    mean.set_friendly_name(node.get_friendly_name())
    _replace(node, mean)


def _transpose_in_product(node: Any) -> None:  # noqa: ANN401
    """Queries times keys that were turned by Transpose (0, 2, 3, 1), and maybe scaled."""
    from openvino import opset13 as op

    scaled = node.input_value(1).get_node()
    scale = None
    turned = scaled
    if scaled.get_type_name() == "Multiply":
        scale = scaled.input_value(1).get_node()
        turned = scaled.input_value(0).get_node()
        if scale.get_type_name() != "Constant" or scale.data.size != 1:
            return
    if turned.get_type_name() != "Transpose":
        return
    order = turned.input_value(1).get_node()
    if order.get_type_name() != "Constant" or order.data.tolist() != [0, 2, 3, 1]:
        return
    keys = op.transpose(turned.input_value(0), op.constant(np.array([0, 2, 1, 3])))
    if scale is not None:
        keys = op.multiply(keys, scale)
    product = op.matmul(node.input_value(0), keys, False, True)
    product.set_friendly_name(node.get_friendly_name())
    _replace(node, product)


def _replace(old: Any, new: Any) -> None:  # noqa: ANN401
    """Let everybody read another node's output, under the old names."""
    names = old.output(0).get_names()
    for use in list(old.output(0).get_target_inputs()):
        use.replace_source_output(new.output(0))
    new.output(0).set_names(names)
