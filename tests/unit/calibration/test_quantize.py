from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.errors import CalibrationError
from calibration.half import halve_graph
from calibration.quantize import (
    SMALLEST_SCALE,
    QuantizedFamily,
    QuantizedLinear,
    QuantizedState,
    compact_graph,
    quantize_graph,
    quantize_weight,
    usable_scale,
)
from tests.lowered import (
    TINY,
    assert_near,
    clips_of,
    constants_of,
    corrected_graph,
    draw,
    kinds_of,
    model_of,
    quantized,
    run,
)
from tests.tolerances import HALF_WEIGHTS, INT8_FORM
from train.models.videomae import VideoMAEConfig
from train.onnx_graph import build_graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.recipe import Quantized
    from train.models.geolocator import Geolocator


@pytest.fixture(scope="module")
def held() -> Quantized[Geolocator]:
    return quantized(draw())


@pytest.fixture(scope="module")
def graph(held: Quantized[Geolocator]) -> onnx.GraphProto:
    """In float32, what the state of `held` belongs into."""
    return corrected_graph(held)


# --- scales and weights ---


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (1.0, 1.0),
        (0.1, 1639 / 2**14),  # float16 has 1638 / 2^14, which is less, and this one
        (2.0**-14, 2.0**-14),
        (1e-7, 2.0**-14),
        (0.0, 2.0**-14),
        (65504.0, 65504.0),
    ],
)
def test_a_scale_is_the_next_one_that_float16_holds_and_that_is_normal(
    wanted: float, given: float
) -> None:
    found = usable_scale(wanted)
    assert found.dtype == np.float32
    assert float(found) == pytest.approx(given, rel=1e-7)
    assert float(found) >= wanted
    assert float(np.float16(found)) == float(found)


def test_a_scale_beyond_float16_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"scale of 7e\+04: the largest is 65504"):
        usable_scale([1.0, 7e4])


def test_weights_by_hand() -> None:
    # Columns are output channels. 1 / 127 is no float16: the next is 1033 / 2^17 = 0.0078812.
    weight_IO = np.array([[1.0, -0.5], [-1.0, 0.25], [0.0, 0.05]], np.float32)
    held = quantize_weight(weight_IO, np.array([1 / 127, 0.1]))
    assert held.scales_O.tolist() == [1033 / 2**17, 1639 / 2**14]
    # 1 / 0.0078812 = 126.88; -0.5, 0.25 and 0.05 in steps of 0.10004 are -4.998, 2.499, 0.4998.
    assert held.weight_IO.tolist() == [[127, -5], [-127, 2], [0, 0]]
    assert held.weight_IO.dtype == np.int8


def test_halves_are_rounded_to_even_and_minus_128_is_not_used() -> None:
    weight_IO = np.array([[0.5], [1.5], [2.5], [-0.5], [-400.0], [400.0]])
    held = quantize_weight(weight_IO, np.array([1.0]))
    assert held.weight_IO.ravel().tolist() == [0, 2, 2, 0, -127, 127]


def test_weights_are_what_onnx_runtime_quantizes_them_to() -> None:
    weight_IO = np.random.default_rng(0).normal(size=(48, 20)).astype(np.float32)
    # Nine tenths of the range: some weights are clipped. ONNX Runtime clips to -128 as well.
    held = quantize_weight(weight_IO, 0.9 * np.abs(weight_IO).max(axis=0) / 127)
    found, back = _runtime_steps(weight_IO, held.scales_O)
    np.testing.assert_array_equal(held.weight_IO, np.maximum(found, -127))
    inside = found > -128
    dequantized = held.weight_IO.astype(np.float32) * held.scales_O
    np.testing.assert_array_equal(dequantized[inside], back[inside])


def _runtime_steps(
    values: NDArray[np.float32], scales_O: NDArray[np.float32]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """QuantizeLinear along axis 1, and DequantizeLinear of it."""
    constants = {"scale": scales_O, "zero": np.zeros(len(scales_O), np.int8)}
    given = ["scale", "zero"]
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", *given], ["q"], axis=1),
            helper.make_node("DequantizeLinear", ["q", *given], ["back"], axis=1),
        ],
        "steps",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, values.shape)],
        [
            helper.make_tensor_value_info("q", TensorProto.INT8, values.shape),
            helper.make_tensor_value_info("back", TensorProto.FLOAT, values.shape),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    session = onnxruntime.InferenceSession(
        model_of(graph).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found, back = session.run(["q", "back"], {"x": values})
    return found, back


# --- where Q/DQ is, and where it is not ---


def test_a_block_has_four_pairs_for_tensors_and_six_for_weights(
    held: Quantized[Geolocator], graph: onnx.GraphProto
) -> None:
    found = quantize_graph(graph, held.state)
    before, after = Counter(kinds_of(graph)), Counter(kinds_of(found))
    assert after["QuantizeLinear"] == 4 * TINY.depth
    assert after["DequantizeLinear"] == (4 + 6) * TINY.depth
    for name in ("QuantizeLinear", "DequantizeLinear"):
        del after[name]
    assert after == before


def test_only_linear_layers_of_the_blocks_multiply_what_was_quantized(
    held: Quantized[Geolocator], graph: onnx.GraphProto
) -> None:
    found = quantize_graph(graph, held.state)
    makers = {name: node for node in found.node for name in node.output}
    quantized_products = [
        node.name
        for node in found.node
        if node.op_type == "MatMul"
        and any(
            name in makers and makers[name].op_type == "DequantizeLinear" for name in node.input
        )
    ]
    assert sorted(quantized_products) == sorted(
        f"blocks.{number}.{linear}"
        for number in range(TINY.depth)
        for linear in (
            "query.matmul",
            "key",
            "value.matmul",
            "proj.matmul",
            "fc1.matmul",
            "fc2.matmul",
        )
    )
    # Nothing but such a product reads a tensor that went through Q/DQ.
    for node in found.node:
        reads = {makers[name].op_type for name in node.input if name in makers}
        if "DequantizeLinear" in reads:
            assert (node.op_type, reads) == ("MatMul", {"DequantizeLinear"})


def test_query_key_and_value_are_three_products_of_one_pair(
    held: Quantized[Geolocator], graph: onnx.GraphProto
) -> None:
    found = quantize_graph(graph, held.state)
    products = {node.name: node for node in found.node if node.op_type == "MatMul"}
    three = [products[f"blocks.1.{name}"] for name in ("query.matmul", "key", "value.matmul")]
    assert len({node.input[0] for node in three}) == 1
    assert len({node.input[1] for node in three}) == 3
    users = [node for node in found.node if "blocks.1.norm1" in node.input]
    assert [node.op_type for node in users] == ["QuantizeLinear"]


def test_zero_points_are_int8_zeros_and_weights_stand_along_axis_1(
    held: Quantized[Geolocator], graph: onnx.GraphProto
) -> None:
    found = quantize_graph(graph, held.state)
    constants = constants_of(found)
    for node in found.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = (constants[name] for name in node.input[1:])
        assert (scale.dtype, zero.dtype) == (np.float32, np.int8)
        assert scale.shape == zero.shape
        assert not zero.any()
        if node.input[0] in constants:
            weight = constants[node.input[0]]
            assert weight.dtype == np.int8
            assert scale.shape == weight.shape[1:]
            assert helper.get_node_attr_value(node, "axis") == 1
        else:
            assert scale.shape == ()


def test_layers_left_out_are_what_they_were(
    held: Quantized[Geolocator], graph: onnx.GraphProto
) -> None:
    left = {"blocks.0.qkv", "blocks.1.fc2"}
    found = quantize_graph(graph, held.state.without(left))
    assert kinds_of(found).count("QuantizeLinear") == 4 * TINY.depth - 2
    before, after = constants_of(graph), constants_of(found)
    for name in ("blocks.0.query", "blocks.0.key", "blocks.0.value", "blocks.1.fc2"):
        np.testing.assert_array_equal(after[f"{name}.weight"], before[f"{name}.weight"])
    everything = quantize_graph(graph, QuantizedState())
    assert [node.name for node in everything.node] == [node.name for node in graph.node]


# --- the two files ---


def _steps(graph: onnx.GraphProto, kind: type[Any]) -> dict[str, tuple[Any, Any]]:
    """Scale of every Q and DQ, and the int8 that a DQ reads, by the name of the node."""
    constants = constants_of(graph)
    found = {}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = constants[node.input[1]]
            assert scale.dtype == kind
            found[node.name] = (scale.astype(np.float64), constants.get(node.input[0]))
    return found


def test_both_files_hold_the_same_int8_and_the_same_scales(
    held: Quantized[Geolocator], graph: onnx.GraphProto
) -> None:
    typed = quantize_graph(graph, held.state)
    for_cpu = _steps(compact_graph(typed), np.float32)
    for_gpu = _steps(halve_graph(typed, float32_from=["feature"]), np.float16)
    assert set(for_cpu) == set(for_gpu)
    assert sum(weight is not None for _, weight in for_cpu.values()) == 6 * TINY.depth
    for name, (scale, weight) in for_cpu.items():
        np.testing.assert_array_equal(scale, for_gpu[name][0], err_msg=name)
        assert scale.min() >= SMALLEST_SCALE == 2.0**-14
        if weight is not None:
            assert weight.dtype == np.int8
            np.testing.assert_array_equal(weight, for_gpu[name][1], err_msg=name)


def test_weights_that_a_runtime_rounds_itself_give_the_same_answers(
    held: Quantized[Geolocator], graph: onnx.GraphProto
) -> None:
    clips = clips_of(TINY, 6, seed=3)
    stored = quantize_graph(graph, held.state, weights="dq")
    rounded = quantize_graph(graph, held.state, weights="qdq")
    assert kinds_of(rounded).count("QuantizeLinear") == (4 + 6) * TINY.depth
    assert not any(
        value.dtype == np.int8 and value.any() for value in constants_of(rounded).values()
    )
    assert_near(run(rounded, clips), run(stored, clips), INT8_FORM)
    halves = [halve_graph(each, float32_from=["feature"]) for each in (stored, rounded)]
    assert_near(run(halves[1], clips), run(halves[0], clips), INT8_FORM)


def test_a_file_that_takes_float16_pixels_answers_the_same_clips_alike(
    held: Quantized[Geolocator], graph: onnx.GraphProto
) -> None:
    clips = clips_of(TINY, 4, seed=3)
    typed = quantize_graph(graph, held.state)
    of_bytes = halve_graph(typed, float32_from=["feature"])
    of_halves = halve_graph(typed, float32_from=["feature"], pixels="float16")
    (port,) = of_halves.input
    assert port.type.tensor_type.elem_type == TensorProto.FLOAT16
    onnx.checker.check_model(model_of(of_halves), full_check=True)
    found, wanted = run(of_halves, clips.astype(np.float16)), run(of_bytes, clips)
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])


# --- what is stored ---


def test_large_constants_are_stored_in_half_their_size_and_mean_the_same() -> None:
    model = draw(VideoMAEConfig(frames=4, image_px=32, width=64, depth=1, heads=2, mlp_width=2048))
    graph = build_graph(model)
    found = compact_graph(graph)
    stored = constants_of(found)
    large = [name for name, value in constants_of(graph).items() if value.size >= 1 << 16]
    assert large  # the two layers of the MLP, and the tubelets
    for name in large:
        assert stored[f"{name}.half"].dtype == np.float16
        assert name not in stored
    clips = clips_of(model.config, 2)
    sizes = [each.ByteSize() for each in (found, graph)]
    assert sizes[0] < 0.6 * sizes[1]
    assert_near(run(found, clips), run(graph, clips), HALF_WEIGHTS)


def test_a_constant_beyond_float16_stays_as_it_is() -> None:
    weight = np.full((256, 256), 7e4, np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="y")],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 256])],
        [numpy_helper.from_array(weight, "w")],
    )
    found = compact_graph(graph)
    np.testing.assert_array_equal(constants_of(found)["w"], weight)
    assert kinds_of(found) == ["MatMul"]


# --- a state and a graph that do not belong together ---


def _family(*linears: str, shape: tuple[int, int] = (32, 32)) -> QuantizedState:
    weight = QuantizedLinear(
        weight_IO=np.zeros(shape, np.int8), scales_O=np.ones(shape[1], np.float32)
    )
    family = QuantizedFamily(scale=1.0, linears=dict.fromkeys(linears, weight))
    return QuantizedState(families={"mine": family})


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (_family("blocks.9.fc1"), r"quantizing mine: the graph has no MatMul .* blocks\.9\.fc1"),
        (
            _family("blocks.0.query", "blocks.1.key"),
            r"quantizing mine: its layers read blocks\.0\.norm1, blocks\.1\.norm1;",
        ),
        (
            _family("blocks.0.proj", shape=(32, 64)),
            r"quantizing blocks\.0\.proj: its weight is \[32, 32\] in the graph and \[32, 64\]",
        ),
    ],
)
def test_a_state_of_another_network_is_refused(
    state: QuantizedState, said: str, graph: onnx.GraphProto
) -> None:
    with pytest.raises(CalibrationError, match=said):
        quantize_graph(graph, state)


def test_the_scale_of_a_family_is_the_one_in_the_graph(
    held: Quantized[Geolocator], graph: onnx.GraphProto
) -> None:
    name = "blocks.0.fc2"
    family = replace(held.state.families[name], scale=0.25)
    found = quantize_graph(graph, QuantizedState(families={name: family}))
    assert constants_of(found)["blocks.0.gelu.scale"] == 0.25
