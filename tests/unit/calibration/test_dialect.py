from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from calibration.dialect import SHOWN, check_dialect, find_breaches, read_graph
from calibration.errors import DialectError
from calibration.half import halve_graph
from calibration.quantize import compact_graph, quantize_graph
from tests.lowered import TINY, clips_of, corrected_graph, draw, kinds_of, model_of, quantized
from train.models.teachers import PLAIN, TeacherConfig
from train.onnx_graph import build_graph, write_graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Nodes = dict[str, onnx.NodeProto]
    Constants = dict[str, NDArray[Any]]
    Change = Callable[[Nodes, Constants], None]

PAIR = ("scale", "zero")
WEIGHT_STEPS = ("w.scale", "w.zero")


def _node(kind: str, reads: tuple[str, ...], out: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, list(reads), [out], name=out, **attributes)


def small_model(
    change: Change = lambda nodes, constants: None, *, opset: int = 20, given: str = "clip"
) -> onnx.ModelProto:
    """Tubelets, one linear layer in int8, the mean, one head; then whatever is changed of it."""
    rng = np.random.default_rng(0)
    constants: Constants = {
        "flat": np.array([0, 8, 12], np.int64),
        "patch.weight": rng.normal(size=(12, 6)).astype(np.float32),
        "scale": np.float32(0.05),
        "zero": np.int8(0),
        "w": rng.integers(-127, 128, (6, 4), np.int8),
        "w.scale": np.full(4, 0.01, np.float32),
        "w.zero": np.zeros(4, np.int8),
        "bias": np.ones(4, np.float32),
        "axis": np.array([1], np.int64),
        "city.weight": rng.normal(size=(4, 3)).astype(np.float32),
    }
    listed = [
        _node("Cast", (given,), "pixels", to=TensorProto.FLOAT),
        _node("Reshape", ("pixels", "flat"), "tubelets"),
        _node("MatMul", ("tubelets", "patch.weight"), "patch"),
        _node("QuantizeLinear", ("patch", *PAIR), "patch.q"),
        _node("DequantizeLinear", ("patch.q", *PAIR), "patch.dq"),
        _node("DequantizeLinear", ("w", *WEIGHT_STEPS), "w.dq", axis=1),
        _node("MatMul", ("patch.dq", "w.dq"), "linear"),
        _node("Add", ("linear", "bias"), "sum"),
        _node("ReduceMean", ("sum", "axis"), "feature", keepdims=0),
        _node("MatMul", ("feature", "city.weight"), "city"),
    ]
    nodes = {node.name: node for node in listed}
    change(nodes, constants)
    graph = helper.make_graph(
        list(nodes.values()),
        "small",
        [helper.make_tensor_value_info(given, TensorProto.UINT8, ["N", 2, 4, 4, 3])],
        [
            helper.make_tensor_value_info("city", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["N", 4]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return model_of(graph, opset)


def listed(model: onnx.ModelProto) -> list[str]:
    return [str(finding) for finding in find_breaches(model)]


# --- changes, each of which breaks one rule ---


def _set(**values: Any) -> Change:  # noqa: ANN401
    """Other constants; `_` in a name is a dot."""
    return lambda _, constants: constants.update(
        {name.replace("_", "."): value for name, value in values.items()}
    )


def _reads(name: str, *inputs: str) -> Change:
    def change(nodes: Nodes, _: Constants) -> None:
        nodes[name].input[:] = inputs

    return change


def _put(after: str, *extra: onnx.NodeProto) -> Change:
    """More nodes behind one, and what read its output reads that of the last of them."""

    def change(nodes: Nodes, _: Constants) -> None:
        kept = list(nodes.items())
        nodes.clear()
        for name, node in kept:
            node.input[:] = [
                extra[-1].output[0] if each == after and after in nodes else each
                for each in node.input
            ]
            nodes[name] = node
            if name == after:
                nodes.update({each.name: each for each in extra})

    return change


def _quantized_head(nodes: Nodes, constants: Constants) -> None:
    constants |= {
        "h": np.ones((4, 3), np.int8),
        "h.scale": np.full(3, 0.1, np.float32),
        "h.zero": np.zeros(3, np.int8),
    }
    head = nodes.pop("city")
    nodes["f.q"] = _node("QuantizeLinear", ("feature", *PAIR), "f.q")
    nodes["f.dq"] = _node("DequantizeLinear", ("f.q", *PAIR), "f.dq")
    nodes["h.dq"] = _node("DequantizeLinear", ("h", "h.scale", "h.zero"), "h.dq", axis=1)
    head.input[:] = ["f.dq", "h.dq"]
    nodes["city"] = head


def _quantized_answer(nodes: Nodes, constants: Constants) -> None:
    _quantized_head(nodes, constants)
    product = nodes.pop("city")
    product.name, product.output[:] = "city.product", ["product"]
    for node in (
        product,
        _node("QuantizeLinear", ("product", *PAIR), "city.q"),
        _node("DequantizeLinear", ("city.q", *PAIR), "city"),
    ):
        nodes[node.name] = node


def _quantized_patch(nodes: Nodes, constants: Constants) -> None:
    constants |= {
        "p": np.ones((12, 6), np.int8),
        "p.scale": np.full(6, 0.1, np.float32),
        "p.zero": np.zeros(6, np.int8),
    }
    _put(
        "tubelets",
        _node("QuantizeLinear", ("tubelets", *PAIR), "t.q"),
        _node("DequantizeLinear", ("t.q", *PAIR), "t.dq"),
        _node("DequantizeLinear", ("p", "p.scale", "p.zero"), "p.dq", axis=1),
    )(nodes, constants)
    nodes["patch"].input[:] = ["t.dq", "p.dq"]


def _attention_product(nodes: Nodes, _: Constants) -> None:
    """Tokens times themselves, turned."""
    feature, city = nodes.pop("feature"), nodes.pop("city")
    for node in (
        _node("QuantizeLinear", ("sum", *PAIR), "sum.q"),
        _node("DequantizeLinear", ("sum.q", *PAIR), "sum.dq"),
        _node("Transpose", ("sum",), "turned", perm=[0, 2, 1]),
        _node("QuantizeLinear", ("turned", *PAIR), "turned.q"),
        _node("DequantizeLinear", ("turned.q", *PAIR), "turned.dq"),
        _node("MatMul", ("turned.dq", "sum.dq"), "scores"),
    ):
        nodes[node.name] = node
    feature.input[0] = "scores"
    nodes |= {"feature": feature, "city": city}


def _packed(nodes: Nodes, constants: Constants) -> None:
    constants["parts"] = np.array([2, 2], np.int64)
    feature, city = nodes.pop("feature"), nodes.pop("city")
    nodes["cut"] = helper.make_node("Split", ["sum", "parts"], ["one", "two"], name="cut", axis=2)
    nodes["joined"] = _node("Concat", ("two", "one"), "joined", axis=2)
    feature.input[0] = "joined"
    nodes |= {"feature": feature, "city": city}


def _quantized_sum(nodes: Nodes, constants: Constants) -> None:
    _put(
        "linear",
        _node("QuantizeLinear", ("linear", *PAIR), "linear.q"),
        _node("DequantizeLinear", ("linear.q", *PAIR), "linear.dq"),
    )(nodes, constants)


def _second_pair(nodes: Nodes, constants: Constants) -> None:
    constants["finer"] = np.float32(0.01)
    _put(
        "w.dq",
        _node("QuantizeLinear", ("patch", "finer", "zero"), "again.q"),
        _node("DequantizeLinear", ("again.q", "finer", "zero"), "again.dq"),
        _node("MatMul", ("again.dq", "w.dq"), "second"),
        nodes["w.dq"],
    )(nodes, constants)


def _computed_scale(nodes: Nodes, constants: Constants) -> None:
    constants["all"] = np.array([0, 1, 2], np.int64)
    _put("patch", _node("ReduceMax", ("patch", "all"), "largest", keepdims=0), nodes["patch"])(
        nodes, constants
    )
    for name in ("patch.q", "patch.dq"):
        nodes[name].input[1] = "largest"


def _other_step(nodes: Nodes, constants: Constants) -> None:
    constants["other"] = np.float32(0.06)
    nodes["patch.dq"].input[1] = "other"


def _in_domain(nodes: Nodes, _: Constants) -> None:
    nodes["sum"].domain = "com.microsoft"


def _of_kind(name: str, kind: str) -> Change:
    def change(nodes: Nodes, _: Constants) -> None:
        nodes[name].op_type = kind

    return change


BROKEN: list[tuple[str, Change, str, str]] = [
    ("uint8", _set(zero=np.uint8(0)), "patch.q", "zero point is uint8; it must be"),
    ("zero point", _set(zero=np.int8(3)), "patch.q", "zero point is 3; it must be 0"),
    ("no zero point", _reads("patch.q", "patch", "scale"), "patch.q", "without a zero point"),
    (
        "scale of each channel",
        _set(scale=np.full(6, 0.05, np.float32), zero=np.zeros(6, np.int8)),
        "patch.q",
        "takes one scale, not one for each channel",
    ),
    (
        "one scale of a weight",
        _set(w_scale=np.float32(0.01), w_zero=np.int8(0)),
        "w.dq",
        "scales [] along axis 1 of a weight [6, 4]; needed is one for each output channel: [4]",
    ),
    (
        "scales along the inputs",
        _set(w_scale=np.full(6, 0.01, np.float32), w_zero=np.zeros(6, np.int8)),
        "w.dq",
        "scales [6] along axis 1 of a weight [6, 4]",
    ),
    (
        "wrong axis",
        lambda nodes, _: nodes["w.dq"].attribute[0].CopyFrom(helper.make_attribute("axis", 0)),
        "w.dq",
        "scales [4] along axis 0 of a weight [6, 4]",
    ),
    ("-128", _set(w=np.full((6, 4), -128, np.int8)), "w.dq", "the weight holds -128; the smallest"),
    (
        "weight uint8",
        _set(w=np.ones((6, 4), np.uint8), w_zero=np.zeros(4, np.uint8)),
        "w.dq",
        "the weight is uint8; it must be int8",
    ),
    ("packed", _packed, "linear", "Split cuts it up: TensorRT then multiplies in floats"),
    ("attention", _attention_product, "scores", "a product of two tensors (attention) must not"),
    ("sum", _quantized_sum, "linear.dq", "Add reads it; Q/DQ belongs to the products"),
    ("head", _quantized_head, "city", "a head must not be quantized"),
    ("head, and its answer", _quantized_answer, "city.product", "a head must not be quantized"),
    ("patch", _quantized_patch, "patch", "the patch embedding must not be quantized"),
    ("scale of 0", _set(scale=np.float32(0)), "patch.q", "its scale is not a positive number"),
    ("negative scale", _set(scale=np.float32(-1)), "patch.dq", "its scale is not a positive"),
    ("scale of NaN", _set(scale=np.float32("nan")), "patch.q", "its scale is not a positive"),
    (
        "infinite scale",
        _set(w_scale=np.array([1, 1, 1, np.inf], np.float32)),
        "w.dq",
        "its scale is not a positive",
    ),
    (
        "scale too small for float16",
        _set(scale=np.float16(3e-5)),
        "patch.q",
        "its float16 scale 3e-05 is below 6.1e-05",
    ),
    ("scale of float64", _set(scale=np.float64(0.1)), "patch.q", "its scale is float64; it must"),
    ("computed scale", _computed_scale, "patch.q", "its scale is computed; it must be a constant"),
    ("another step back", _other_step, "patch.q", "patch.dq takes it back with another scale"),
    ("two pairs", _second_pair, "again.q", "patch is quantized 2 times; layers share one"),
    ("one side", _reads("linear", "patch.dq", "city.weight"), "linear", "only one of its inputs"),
    ("sides turned", _reads("linear", "w.dq", "patch.dq"), "w.dq", "a weight is the second input"),
    ("DQ of a float", _reads("patch.dq", "patch", *PAIR), "patch.dq", "neither a constant nor a Q"),
    ("Attention", _of_kind("sum", "Attention"), "sum", "Attention: not every TensorRT has it"),
    ("QLinearMatMul", _of_kind("linear", "QLinearMatMul"), "linear", "QLinearMatMul: use MatMul"),
    ("dynamic", _of_kind("patch.q", "DynamicQuantizeLinear"), "patch.q", "calibrate"),
    ("Gemm", _of_kind("linear", "Gemm"), "w.dq", "Gemm reads it"),
    ("other domain", _in_domain, "sum", "com.microsoft is no domain of plain ONNX"),
]


def test_a_graph_that_keeps_all_rules_passes() -> None:
    model = small_model()
    onnx.checker.check_model(model, full_check=True)
    assert listed(model) == []
    check_dialect(model, doing="reading")


@pytest.mark.parametrize(
    ("change", "node", "said"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_what_breaks_a_rule_is_found_at_its_node(change: Change, node: str, said: str) -> None:
    found = listed(small_model(change))
    assert any(each.startswith(f"{node}: ") and said in each for each in found), found


@pytest.mark.parametrize("opset", [13, 19, 21, 23])
def test_another_opset_is_found(opset: int) -> None:
    assert listed(small_model(opset=opset)) == [f"the model: opset {opset}, needed is 20"]


def test_another_input_is_found() -> None:
    assert listed(small_model(given="video")) == [
        "the model: inputs ['video'], needed is one: clip"
    ]


def test_input_and_outputs_of_other_kinds_are_found() -> None:
    model = small_model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert [each.partition(":")[0] for each in listed(model)] == ["clip", "feature"]


def test_a_node_without_a_name_is_told_by_what_it_gives() -> None:
    model = small_model(_set(zero=np.int8(1)))
    for node in model.graph.node:
        node.name = ""
    assert listed(model)[0].startswith("QuantizeLinear -> patch.q: ")


def test_constants_may_be_nodes() -> None:
    def change(nodes: Nodes, constants: Constants) -> None:
        kept = dict(nodes)
        nodes.clear()
        for name in (*PAIR, *WEIGHT_STEPS, "w"):
            value = numpy_helper.from_array(np.asarray(constants.pop(name)))
            nodes[name] = helper.make_node("Constant", [], [name], name=name, value=value)
        nodes |= kept

    assert listed(small_model(change)) == []
    again = small_model(
        lambda nodes, held: (_set(zero=np.int8(1))(nodes, held), change(nodes, held))
    )
    assert listed(again)[0] == "patch.q: its zero point is 1; it must be 0"


def test_the_error_lists_a_few_and_counts_the_rest() -> None:
    model = small_model(_set(zero=np.int8(1), scale=np.float32(-1), w_scale=np.zeros(3)))
    found = listed(model)
    assert len(found) > SHOWN
    with pytest.raises(DialectError, match="reading mine: the graph is outside") as caught:
        check_dialect(model, doing="reading mine")
    lines = str(caught.value).splitlines()
    assert lines[1 : SHOWN + 1] == [f"  {each}" for each in found[:SHOWN]]
    assert lines[SHOWN + 1] == f"  and {len(found) - SHOWN} more"
    assert "signed int8, zero point 0" in lines[-1]


# --- files ---


@pytest.mark.parametrize("content", [b"", b"no network", None])
def test_a_file_that_is_no_network_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DialectError, match=r"reading .*mine\.onnx: "):
        read_graph(path)


def test_a_graph_that_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    model = small_model(_set(bias=np.ones(5, np.float32)))  # to be added to 4 channels
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DialectError, match="no valid ONNX model"):
        read_graph(path)


# --- what an export writes ---


@pytest.mark.parametrize(
    "teachers",
    [TeacherConfig(scene="none"), PLAIN, TeacherConfig(scene="attention")],
    ids=["no scene", "linear", "attention"],
)
def test_every_graph_of_an_export_passes(teachers: TeacherConfig) -> None:
    model = draw(teachers=teachers)
    held = quantized(model)
    graph = corrected_graph(held)
    forms = {
        "fp32": build_graph(model),
        "fp16": halve_graph(graph, float32_from=["feature"]),
        "fp16 pixels": halve_graph(graph, float32_from=["feature"], pixels="float16"),
    }
    for weights in ("dq", "qdq"):
        typed = quantize_graph(graph, held.state, weights=weights)
        forms[f"int8 {weights}"] = compact_graph(typed)
        forms[f"int8.fp16 {weights}"] = halve_graph(typed, float32_from=["feature"])
    for name, form in forms.items():
        assert listed(model_of(form)) == [], name


# --- what other tools write ---


class _Clips(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._left = iter(clips_of(TINY, 8)[:, np.newaxis])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        clip = next(self._left, None)
        return None if clip is None else {"clip": clip}


def quantized_by_onnxruntime(folder: Path, **options: Any) -> onnx.ModelProto:  # noqa: ANN401
    write_graph(build_graph(draw()), folder / "model.onnx")
    quantize_static(folder / "model.onnx", folder / "own.onnx", _Clips(), **options)
    return read_graph(folder / "own.onnx")


LINEARS = ("query.matmul", "key", "value.matmul", "proj.matmul", "fc1.matmul", "fc2.matmul")
PLAIN_OPTIONS: dict[str, Any] = {
    "quant_format": QuantFormat.QDQ,
    "activation_type": QuantType.QInt8,
    "weight_type": QuantType.QInt8,
    "per_channel": True,
    "nodes_to_quantize": [
        f"blocks.{number}.{name}" for number in range(TINY.depth) for name in LINEARS
    ],
    "extra_options": {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": ["MatMul"],
        "AddQDQPairToWeight": False,
        "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
    },
}


@pytest.mark.filterwarnings("ignore:Please consider to run pre-processing")
def test_onnx_runtimes_own_quantization_passes_where_it_is_told_how(tmp_path: Path) -> None:
    model = quantized_by_onnxruntime(tmp_path, **PLAIN_OPTIONS)
    assert kinds_of(model.graph).count("QuantizeLinear") == 4 * TINY.depth
    assert listed(model) == []


@pytest.mark.filterwarnings("ignore:Please consider to run pre-processing")
def test_onnx_runtimes_own_quantization_fails_as_it_is(tmp_path: Path) -> None:
    found = listed(quantized_by_onnxruntime(tmp_path))
    for said in ("patch embedding must not", "head must not", "(attention) must not", "Add reads"):
        assert any(said in each for each in found), said
