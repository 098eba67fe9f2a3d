"""A graph that cuts bytes becomes one that casts them first, and computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from engines.base import EngineBuildError
from engines.onnx_input import with_cast_first

CLIPS = np.arange(256, dtype=np.uint8).reshape(2, 128)


def model_of(kind: int = TensorProto.UINT8, *, name: str = "clip") -> bytes:
    """Cut, then cast: what no cast receives at once."""
    nodes = [
        helper.make_node("Reshape", [name, "shape"], ["cut"], name="cut"),
        helper.make_node("Cast", ["cut"], ["values"], to=TensorProto.FLOAT, name="values"),
    ]
    graph = helper.make_graph(
        nodes,
        "cut",
        [helper.make_tensor_value_info(name, kind, ["N", 128])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["N", 64, 2])],
        [helper.make_tensor("shape", TensorProto.INT64, [3], [-1, 64, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())


def run(model: bytes) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return np.asarray(session.run(None, {given.name: CLIPS})[0])


@pytest.mark.parametrize("name", ["clip", "clip_bytes", "Bild · 画像 " * 20])
def test_every_byte_keeps_its_value(name: str) -> None:
    before, after = model_of(name=name), with_cast_first(model_of(name=name))
    onnx.checker.check_model(onnx.load_from_string(after), full_check=True)
    np.testing.assert_array_equal(run(after), run(before))
    first = onnx.load_from_string(after).graph.node[0]
    assert (first.op_type, list(first.input), list(first.output)) == (
        "Cast",
        [f"{name}_bytes"],
        [name],
    )


def test_another_type_of_input_is_left_alone() -> None:
    model = model_of(TensorProto.FLOAT16)
    assert with_cast_first(model) is model


@pytest.mark.parametrize("damage", [b"", b"not a model", b"\xff" * 40, model_of()[:60]])
def test_what_is_no_model_is_refused(damage: bytes) -> None:
    with pytest.raises(EngineBuildError, match=f"a graph of {len(damage)} bytes: it is not an ONN"):
        with_cast_first(damage)
