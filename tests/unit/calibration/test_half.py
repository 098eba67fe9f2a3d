from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from calibration.errors import CalibrationError
from calibration.half import halve_graph, rounded_graph
from calibration.ranges import LARGE
from tests.lowered import (
    CITIES,
    TINY,
    assert_near,
    clips_of,
    constants_of,
    draw,
    kinds_of,
    model_of,
    observed,
    run,
)
from tests.tolerances import FP16_GRAPH
from train.models.teachers import PLAIN, TeacherConfig
from train.onnx_graph import build_graph

if TYPE_CHECKING:
    from geotag.wish import PixelForm


@pytest.mark.parametrize(
    "teachers",
    [TeacherConfig(scene="none"), PLAIN, TeacherConfig(scene="attention")],
    ids=["no scene", "linear", "attention"],
)
def test_float16_answers_nearly_as_float32(teachers: TeacherConfig) -> None:
    graph = build_graph(draw(teachers=teachers))
    half = halve_graph(graph, float32_from=["feature"])
    onnx.checker.check_model(model_of(half), full_check=True)
    clips = clips_of(TINY, 8)
    found = run(rounded_graph(model_of(half)), clips)
    assert {scores.dtype for scores in found.values()} == {np.dtype(np.float32)}
    assert found["city"].shape == (8, CITIES)
    assert_near(found, run(graph, clips), FP16_GRAPH)


def test_norms_stay_one_node_and_what_follows_the_mean_stays_float32() -> None:
    graph = build_graph(draw())
    half = halve_graph(graph, float32_from=["feature"])
    before, after = kinds_of(graph), kinds_of(half)
    assert after.count("LayerNormalization") == before.count("LayerNormalization")
    assert after.count("Cast") == before.count("Cast") + 1  # the tokens, on their way to the mean
    assert len(after) == len(before) + 1
    constants = constants_of(half)
    for name in ("city.weight", "continent.bias"):
        assert constants[name].dtype == np.float32
    for name, value in constants.items():
        if not name.startswith(("city", "state", "country", "continent", "scene")):
            assert value.dtype in (np.float16, np.int64), name
    assert {port.type.tensor_type.elem_type for port in half.output} == {TensorProto.FLOAT}


def test_inputs_keep_their_type() -> None:
    half = halve_graph(build_graph(draw()), float32_from=["feature"])
    assert half.input[0].type.tensor_type.elem_type == TensorProto.UINT8


def test_a_weight_that_float16_cannot_hold_is_named() -> None:
    model = draw()
    with torch.no_grad():
        model.encoder.blocks[1].fc1.weight[3, 4] = 7e4
    said = r"blocks\.1\.fc1\.weight holds 7e\+04, more than float16's 65504\. Export with --prec"
    with pytest.raises(CalibrationError, match=said):
        halve_graph(build_graph(model), float32_from=["feature"])


def test_a_weight_that_is_no_number_is_named() -> None:
    model = draw()
    with torch.no_grad():
        model.encoder.blocks[0].norm1.weight[0] = float("nan")
    with pytest.raises(CalibrationError, match=r"blocks\.0\.norm1\.weight holds nan"):
        halve_graph(build_graph(model), float32_from=["feature"])


def test_a_node_that_is_not_there_is_named() -> None:
    with pytest.raises(CalibrationError, match="it has no node middle"):
        halve_graph(build_graph(draw()), float32_from=["middle"])


def test_an_output_that_would_be_float16_is_named() -> None:
    with pytest.raises(CalibrationError, match="its output city would be float16"):
        halve_graph(build_graph(draw()), float32_from=["continent"])


def _branches(factor: float) -> onnx.GraphProto:
    """A product that two float32 nodes read."""
    nodes = [
        helper.make_node("Cast", ["clip"], ["x"], name="x", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "factor"], ["scaled"], name="scaled"),
        helper.make_node("Abs", ["scaled"], ["one"], name="one"),
        helper.make_node("Neg", ["scaled"], ["two"], name="two"),
    ]
    return helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("clip", TensorProto.UINT8, [4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("one", "two")],
        [numpy_helper.from_array(np.float32([factor]), "factor")],
    )


def test_what_two_float32_nodes_read_is_cast_once() -> None:
    half = halve_graph(_branches(1 / 3), float32_from=["one", "two"])
    assert kinds_of(half) == ["Cast", "Mul", "Cast", "Abs", "Neg"]


def test_a_rounded_graph_gives_what_float16_gives() -> None:
    clip = np.array([0, 1, 7, 255], np.uint8)
    half = halve_graph(_branches(1 / 3), float32_from=["one", "two"])
    wanted = (clip.astype(np.float16) * np.float16(1 / 3)).astype(np.float32)
    found = run(rounded_graph(model_of(half)), clip)
    np.testing.assert_array_equal(found["one"], wanted)
    np.testing.assert_array_equal(found["two"], -wanted)
    too_far = halve_graph(_branches(1000), float32_from=["one", "two"])
    assert run(rounded_graph(model_of(too_far)), clip)["one"].tolist() == [0, 1000, 7000, np.inf]


@pytest.mark.parametrize("pixels", ["uint8", "float16"])
def test_a_rounded_network_is_what_torch_computes_in_float16(pixels: PixelForm) -> None:
    model = draw()
    clips = clips_of(TINY, 8)
    half = halve_graph(build_graph(model), float32_from=["feature"], pixels=pixels)
    given = clips if pixels == "uint8" else clips.astype(np.float32)
    found = run(rounded_graph(model_of(half)), given)["feature"]
    with torch.inference_mode():
        tubelets = model.normalise(model.encoder.tubelets(torch.from_numpy(clips)).half())
        wanted = model.encoder.half().encode(tubelets.half()).float().mean(dim=1).numpy()
    exact = run(build_graph(draw()), clips)["feature"]
    off = [float(np.abs(each - exact).max() / np.abs(exact).max()) for each in (found, wanted)]
    assert max(off) <= FP16_GRAPH
    # Both round at about the same places: their errors are of one size, and not nothing.
    assert 0.3 < off[0] / off[1] < 3


def test_layers_whose_values_come_near_the_end_of_float16_are_found() -> None:
    model = draw()
    assert observed(model, 8).too_large() == {}
    with torch.no_grad():
        model.encoder.blocks[0].proj.bias[5] = 4e4
    found = observed(model, 8).too_large()
    # The sum that it goes into is what the next norm reads.
    assert found["encoder.blocks.0.proj"] > LARGE
    assert found["encoder.blocks.0.norm2"] > LARGE
    assert "encoder.blocks.0.fc1" not in found
