"""What an export lowers a network to, and whether everything that runs it says the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import openvino
import pytest
import torch
from rich.console import Console

from calibration.errors import CalibrationError, DialectError
from calibration.half import rounded_graph
from calibration.quantize import quantize_graph
from engines import openvino_cpu
from engines.bundle import GRAPHS, TENSORRT_GRAPHS, InputSpec, describe_file
from engines.openvino_cpu import OpenvinoEngine
from geotag.wish import PrecisionWish
from tests.fakes import make_bundle
from tests.lowered import (
    CLASSES,
    TINY,
    Pool,
    assert_near,
    calibration_set,
    clips_of,
    constants_of,
    corrected_graph,
    draw,
    fake_quantized,
    kinds_of,
    model_of,
    one_thread,
    run,
    tell_apart,
    torch_scores,
)
from tests.tolerances import (
    ENGINE_INT8,
    FP16_GRAPH,
    FP32_LOGIT,
    INT8_ALONE,
    INT8_BFLOAT16,
    INT8_FLOAT32,
)
from train.models.videomae import SIZES
from train.onnx_graph import build_graph, write_graph
from train.precisions import Lowered, lower

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from engines.bundle import Bundle, Precision
    from tests.lowered import Scores
    from train.models.geolocator import Geolocator
    from train.models.videomae import VideoMAEConfig

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@dataclass(frozen=True)
class Made:
    """A network with its files of every precision."""

    model: Geolocator
    bundle: Bundle
    lowered: Lowered
    clips: NDArray[np.uint8]

    def graph(self, name: str) -> onnx.ModelProto:
        return onnx.load(self.bundle.file(name))

    def openvino(self, precision: Precision) -> tuple[str, Scores]:
        engine = OpenvinoEngine(self.bundle, threads=1, precision=precision)
        return engine.name, engine.infer(self.clips)


def make(folder: Path, config: VideoMAEConfig, wish: PrecisionWish, *, calibrating: int) -> Made:
    model = draw(config)
    base = make_bundle(folder)
    write_graph(build_graph(model), folder / GRAPHS["fp32"])
    lowered = lower(model, folder, wish, calibration_set(config, calibrating), console=QUIET)
    manifest = replace(
        base.manifest,
        input=InputSpec(frames=config.frames, height_px=config.image_px, width_px=config.image_px),
        outputs={**CLASSES, "feature": config.width},
        files={name: describe_file(folder / name) for name in (GRAPHS["fp32"], *lowered.files)},
    )
    return Made(
        model=model,
        bundle=replace(base, manifest=manifest),
        lowered=lowered,
        clips=clips_of(config, 4, seed=7),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The size `tiny`, calibrated on clips of its kind."""
    folder = tmp_path_factory.mktemp("made") / "bundle"
    wish = PrecisionWish(precision="int8")
    return make(folder, SIZES["tiny"], wish, calibrating=3)


# --- torch = ONNX Runtime = OpenVINO ---


def test_float32_is_the_same_everywhere(made: Made) -> None:
    wanted = torch_scores(made.model, made.clips)
    runtime = run(made.graph(GRAPHS["fp32"]).graph, made.clips)
    name, found = made.openvino("fp32")
    assert name == "openvino-cpu-fp32"
    for scores in (runtime, found):
        for output, values in wanted.items():
            np.testing.assert_allclose(scores[output], values, rtol=0, atol=FP32_LOGIT)


def test_float16_is_near_float32_everywhere(made: Made) -> None:
    wanted = torch_scores(made.model, made.clips)
    held = made.graph(GRAPHS["fp16"])
    assert_near(run(held.graph, made.clips), wanted, FP16_GRAPH)
    assert_near(run(rounded_graph(held), made.clips), wanted, FP16_GRAPH)
    name, found = made.openvino("fp16")
    assert name == "openvino-cpu-fp16"
    assert_near(found, wanted, FP16_GRAPH)


@pytest.mark.parametrize("name", ["blocks.0.qkv", "blocks.1.proj", "blocks.2.fc1", "blocks.3.fc2"])
def test_one_family_in_int8_is_the_same_everywhere(name: str, made: Made) -> None:
    """Nothing is rounded twice, so nothing that fell to the other of two steps goes on to fall."""
    held = made.lowered.quantized
    assert held is not None
    alone = replace(held, state=held.state.without(set(held.state.families) - {name}))
    graph = quantize_graph(corrected_graph(alone), alone.state)
    wanted = run(graph, made.clips)
    assert_near(torch_scores(fake_quantized(alone), made.clips), wanted, INT8_ALONE)
    assert_near(_openvino(graph, made.clips), wanted, INT8_ALONE)


def _openvino(graph: onnx.GraphProto, clips_NTHWC: NDArray[np.uint8]) -> Scores:
    core = openvino.Core()
    network = core.read_model(model_of(graph).SerializeToString())
    network.reshape(list(clips_NTHWC.shape))
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {port.any_name: values for port, values in compiled({"clip": clips_NTHWC}).items()}


def test_int8_in_torch_is_int8_in_onnx_runtime(made: Made) -> None:
    assert made.lowered.quantized is not None
    simulated = torch_scores(fake_quantized(made.lowered.quantized), made.clips)
    found = run(made.graph(GRAPHS["int8"]).graph, made.clips)
    assert_near(found, simulated, INT8_FLOAT32)


class WithoutBfloat16:
    """OpenVINO on another processor."""

    def __init__(self) -> None:
        self._core = openvino.Core()

    def get_property(self, device: str, name: str) -> list[str]:
        return [each for each in self._core.get_property(device, name) if each != "BF16"]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._core, name)


def test_int8_in_openvino_is_int8_in_onnx_runtime(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_cpu, "shared_core", WithoutBfloat16)
    wanted = run(made.graph(GRAPHS["int8"]).graph, made.clips)
    name, found = made.openvino("int8")
    assert name == "openvino-cpu-int8"
    assert_near(found, wanted, INT8_FLOAT32)


def test_int8_between_bfloat16_is_near_int8_between_float32(made: Made) -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    name, found = made.openvino("int8")
    assert name == "openvino-cpu-int8-bf16"
    assert_near(found, run(made.graph(GRAPHS["int8"]).graph, made.clips), INT8_BFLOAT16)


def test_int8_between_float16_is_near_int8_between_float32(made: Made) -> None:
    held = made.graph(TENSORRT_GRAPHS["int8"])
    wanted = run(made.graph(GRAPHS["int8"]).graph, made.clips)
    assert_near(run(rounded_graph(held), made.clips), wanted, ENGINE_INT8)


def test_both_int8_files_hold_the_same_int8(made: Made) -> None:
    stored = [
        {
            name: value
            for name, value in constants_of(made.graph(file).graph).items()
            if value.dtype == np.int8
        }
        for file in (GRAPHS["int8"], TENSORRT_GRAPHS["int8"])
    ]
    assert set(stored[0]) == set(stored[1])
    assert sum(value.ndim == 2 for value in stored[0].values()) == 6 * SIZES["tiny"].depth
    for name, value in stored[0].items():
        np.testing.assert_array_equal(value, stored[1][name])


def test_int8_is_small(made: Made) -> None:
    sizes = {name: made.bundle.file(name).stat().st_size for name in GRAPHS.values()}
    assert sizes[GRAPHS["int8"]] < 0.35 * sizes[GRAPHS["fp32"]]
    assert sizes[GRAPHS["fp16"]] < 0.55 * sizes[GRAPHS["fp32"]]


# --- what is written ---


def lowered(folder: Path, model: Geolocator, **wishes: Any) -> Lowered:  # noqa: ANN401
    wish = PrecisionWish(**{"precision": "int8", **wishes})
    return lower(model, folder, wish, calibration_set(TINY, 64), console=QUIET)


def test_each_precision_brings_the_larger_ones(tmp_path: Path) -> None:
    model = draw()
    found = lowered(tmp_path, model, precision="fp16")
    assert found.files == {"model.fp16.onnx": "fp16"}
    assert (found.recipe, found.quantized) == ({}, None)
    found = lowered(tmp_path, model)
    assert found.files == {
        "model.fp16.onnx": "fp16",
        "model.int8.onnx": "int8",
        "model.int8.fp16.onnx": "int8",
    }
    assert found.recipe["made_by"] == "geotag"
    assert set(found.recipe["families"]) == {family.name for family in model.families()}
    assert found.recipe["in_floating_point"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(found.files)


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        (("blocks.1.fc2",), ("blocks.1.fc2",)),
        (("blocks.0",), tuple(f"blocks.0.{name}" for name in ("qkv", "proj", "fc1", "fc2"))),
        (("blocks.1.qkv", "blocks.0.fc1"), ("blocks.0.fc1", "blocks.1.qkv")),
    ],
)
def test_layers_that_are_named_stay_in_floating_point(
    asked: tuple[str, ...], left: tuple[str, ...], tmp_path: Path
) -> None:
    found = lowered(tmp_path, draw(), skipped=asked)
    assert found.skipped == left
    assert found.recipe["in_floating_point"] == list(left)
    assert not set(left) & set(found.recipe["families"])
    graph = onnx.load(tmp_path / "model.int8.onnx").graph
    assert kinds_of(graph).count("QuantizeLinear") == 4 * TINY.depth - len(left)
    assert found.notes == ()


@pytest.mark.parametrize("name", ["blocks.7.fc1", "blocks.1.fc", "fc2", "block", ""])
def test_a_layer_that_is_not_there_is_told_before_any_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError) as caught:
        lowered(tmp_path, draw(), skipped=(name,))
    assert str(caught.value) == (
        f"leaving {name} in floating point: there is no such layer. Allowed are blocks.0.qkv to "
        "blocks.1.fc2, and blocks as a whole, such as blocks.0."
    )
    assert not any(tmp_path.iterdir())


# --- what float16 cannot hold ---


def _loud_residual() -> Geolocator:
    """A sum that grows to forty thousand, and a norm that makes nothing of it."""
    model = draw()
    with torch.no_grad():
        model.encoder.blocks[0].proj.bias[3] = 4e4
        model.encoder.blocks[1].fc2.bias[3] = -4e4
    tell_apart(model)
    return model


def test_float16_is_refused_where_values_come_near_its_end(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError) as caught:
        lowered(tmp_path, _loud_residual(), precision="fp16")
    text = str(caught.value)
    assert text.startswith("making the float16 model: values of 4e+04 pass through encoder.blocks.")
    assert "float16 ends at 65504" in text
    assert not any(tmp_path.iterdir())


def test_int8_for_processors_is_written_all_the_same(tmp_path: Path) -> None:
    model = _loud_residual()
    found = lowered(tmp_path, model)
    assert found.files == {"model.int8.onnx": "int8"}
    assert any("no file is written for it above 30000" in note for note in found.notes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.int8.onnx"]
    clips = clips_of(TINY, 40, seed=7)
    cities = [
        scores["city"].argmax(axis=1)
        for scores in (
            run(onnx.load(tmp_path / "model.int8.onnx").graph, clips),
            torch_scores(model, clips),
        )
    ]
    assert (cities[0] == cities[1]).mean() >= 0.9


# --- a graph of somebody else ---


def _change(folder: Path, **wishes: Any) -> tuple[Geolocator, Path]:  # noqa: ANN401
    """Our own int8 graph as somebody else might bring it."""
    model = draw()
    lowered(folder, model, **wishes)
    path = (folder / "model.int8.onnx").rename(folder.parent / "own.onnx")
    for left in folder.iterdir():
        left.unlink()
    return model, path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bundle").mkdir()
    return tmp_path / "bundle"


def test_a_graph_that_somebody_brings_is_taken(folder: Path) -> None:
    model, path = _change(folder)
    found = lowered(folder, model, own_graph=path)
    assert set(found.files) == {*GRAPHS.values(), "model.int8.fp16.onnx"} - {"model.onnx"}
    assert (found.recipe, found.quantized) == ({"made_by": "a graph that was brought"}, None)
    clips = clips_of(TINY, 3)
    taken = run(onnx.load(folder / "model.int8.onnx").graph, clips)
    for name, values in run(onnx.load(path).graph, clips).items():
        np.testing.assert_array_equal(taken[name], values)
    half = onnx.load(folder / "model.int8.fp16.onnx")
    assert_near(run(rounded_graph(half), clips), taken, ENGINE_INT8)


def test_a_graph_without_names_or_with_constants_as_nodes_is_taken(folder: Path) -> None:
    model, path = _change(folder)
    held = onnx.load(path)
    for node in held.graph.node:
        node.name = ""
    nodes = [
        onnx.helper.make_node("Constant", [], [each.name], value=each)
        for each in held.graph.initializer
    ]
    graph = onnx.helper.make_graph(
        [*nodes, *held.graph.node], "own", held.graph.input, held.graph.output
    )
    path.write_bytes(model_of(graph).SerializeToString())
    found = lowered(folder, model, own_graph=path)
    clips = clips_of(TINY, 3)
    taken = run(onnx.load(folder / "model.int8.onnx").graph, clips)
    assert_near(taken, run(graph, clips), INT8_FLOAT32)
    # For TensorRT it is made, or a note says why not; never half of one.
    if "model.int8.fp16.onnx" in found.files:
        half = onnx.load(folder / "model.int8.fp16.onnx")
        assert_near(run(rounded_graph(half), clips), taken, ENGINE_INT8)
    else:
        assert any("no int8 file for TensorRT was made" in note for note in found.notes)
        assert not (folder / "model.int8.fp16.onnx").exists()


def _broken(path: Path, change: str) -> None:
    held = onnx.load(path)
    graph = held.graph
    if change == "zero point":
        for each in graph.initializer:
            if each.name == "zero[]":
                each.CopyFrom(onnx.numpy_helper.from_array(np.array(1, np.int8), each.name))
    if change == "opset":
        held.opset_import[0].version = 21
    if change == "outputs":
        del graph.output[0]
    if change == "frames":
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    if change == "batch":
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    if change == "pixels":
        graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    path.write_bytes(held.SerializeToString())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("zero point", r"blocks\.0\.norm1\.quantized: its zero point is 1; it must be 0"),
        ("opset", "the model: opset 21, needed is 20"),
        ("outputs", "its outputs are .* those of the checkpoint are"),
        ("frames", r"clip is \[N, 8, 32, 32, 3\], that of the checkpoint is \[N, 4, 32, 32, 3\]"),
        ("batch", r"clip is \[1, 4, 32, 32, 3\], that of the checkpoint is \[N, 4, 32, 32, 3\]"),
        ("pixels", "its input is not uint8"),
    ],
)
def test_a_graph_that_will_not_do_is_told_before_any_work(
    change: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = _change(folder)
    _broken(path, change)

    def refuse(*_: object) -> None:
        raise AssertionError("clips were read")

    monkeypatch.setattr(Pool, "batches", refuse)
    with pytest.raises(DialectError, match=rf"(?s)(taking|reading) .*own\.onnx: .*{said}"):
        lowered(folder, model, own_graph=path)
    assert not any(folder.iterdir())
