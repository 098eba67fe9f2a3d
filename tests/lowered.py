"""Small networks whose answers differ from clip to clip, and what calibration makes of them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from calibration.ranges import observe
from calibration.recipe import quantize_model
from train.calibration_clips import CalibrationSet
from train.models.geolocator import Geolocator
from train.models.teachers import PLAIN
from train.models.videomae import VideoMAEConfig
from train.onnx_graph import IR_VERSION, build_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from calibration.ranges import Observed
    from calibration.recipe import Quantized, Recipe
    from train.models.teachers import TeacherConfig

    Scores = dict[str, NDArray[np.float32]]

TINY = VideoMAEConfig(frames=4, image_px=32, width=32, depth=2, heads=2, mlp_width=64)
CITIES = 24
CLASSES = {"city": CITIES, "state": 5, "country": 4, "continent": 3, "scene": 16}


def clips_of(config: VideoMAEConfig, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Coarse patches of colour, each clip its own, under noise that changes with every frame."""
    side = config.image_px // 4
    shape = (config.frames, config.image_px, config.image_px, 3)
    clips_NTHWC = np.empty((count, *shape), np.uint8)
    for number, clip_THWC in enumerate(clips_NTHWC):
        rng = np.random.default_rng([seed, number])
        colours = rng.uniform(0, 255, (4, 4, 3)).repeat(side, axis=0).repeat(side, axis=1)
        clip_THWC[:] = np.clip(colours + rng.normal(0, 20, shape), 0, 255)
    return clips_NTHWC


def draw(config: VideoMAEConfig = TINY, teachers: TeacherConfig = PLAIN) -> Geolocator:
    """A network with weights large enough for uneven attention."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:  # all weights are replaced
        patch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
        model = Geolocator(config, CLASSES, teachers=teachers).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name:
                value.add_(0.1 * torch.randn_like(value))
            elif value.ndim > 1:
                value.normal_(std=1.2 * value.shape[1] ** -0.5)
            else:
                value.normal_(std=0.1)
    return model


def tell_apart(model: Geolocator) -> None:
    """Let its cities be clips: the city of a clip is the one whose feature is most like its own.

    Untrained, a network answers nearly every clip with the same city.
    """
    with torch.inference_mode():
        features_ND = torch.cat(
            [
                model.features(torch.from_numpy(clips))
                for clips in batches(clips_of(model.config, 64, seed=98))
            ]
        )
    mean_D = features_ND.mean(dim=0)
    apart_KD = torch.nn.functional.normalize(features_ND[:CITIES] - mean_D)
    with torch.no_grad():
        model.heads["city"].weight.copy_(apart_KD)
        model.heads["city"].bias.copy_(-(apart_KD @ mean_D))


def observed(model: Geolocator, count: int = 256, *, rows: int = 512) -> Observed:
    return observe(
        model, model.families(), batches(clips_of(model.config, count)), clips=count, rows=rows
    )


def batches(clips_NTHWC: NDArray[np.uint8], size: int = 16) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(clips_NTHWC), size):
        yield clips_NTHWC[start : start + size]


def quantized(model: Geolocator, recipe: Recipe | None = None) -> Quantized[Geolocator]:
    return quantize_model(model, model.families(), observed(model), recipe=recipe)


def corrected_graph(held: Quantized[Geolocator]) -> onnx.GraphProto:
    """The float32 graph that a state belongs into."""
    linears = {name for family in held.state.families.values() for name in family.linears}
    return build_graph(held.corrected(linears))


def model_of(graph: onnx.GraphProto, opset: int = 20) -> onnx.ModelProto:
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION
    )


def run(graph: onnx.GraphProto, clips_NTHWC: NDArray[Any]) -> Scores:
    """Every output, from ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a second thread waits, where there is little to do
    session = onnxruntime.InferenceSession(
        model_of(graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [port.name for port in graph.output]
    return dict(zip(names, session.run(names, {"clip": clips_NTHWC}), strict=True))


def torch_scores(model: Geolocator, clips_NTHWC: NDArray[np.uint8]) -> Scores:
    with torch.inference_mode():
        found = model(torch.from_numpy(clips_NTHWC))
    return {name: value.numpy() for name, value in found.items()}


def constants_of(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    return {held.name: numpy_helper.to_array(held) for held in graph.initializer}


def kinds_of(graph: onnx.GraphProto) -> list[str]:
    return [node.op_type for node in graph.node]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one core: many small products wait longer for a busy second than they take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_near(found: Scores, wanted: Scores, share: float) -> None:
    """Each output differs by at most a share of its largest value."""
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        off = float(np.abs(found[name] - values).max() / np.abs(values).max())
        assert off <= share, f"{name}: {off:.2e}"


def fake_quantized(held: Quantized[Geolocator]) -> Geolocator:
    """The int8 network in torch, in floats: tensors and weights rounded to what int8 stands for."""
    linears = {name for family in held.state.families.values() for name in family.linears}
    model = held.corrected(linears)
    modules = dict(model.named_modules())
    for family in held.state.families.values():
        for name, weight in family.linears.items():
            linear = modules[f"encoder.{name}"]
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(weight.weight_IO * weight.scales_O).T)
            linear.register_forward_pre_hook(_rounding(family.scale))
    return model


def _rounding(scale: float) -> Callable[[torch.nn.Module, tuple[torch.Tensor]], torch.Tensor]:
    def rounded(_: torch.nn.Module, given: tuple[torch.Tensor]) -> torch.Tensor:
        return (given[0] / scale).round().clamp(-128, 127) * scale

    return rounded


@dataclass(frozen=True)
class Batch:
    clips_NTHWC: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.clips_NTHWC)


@dataclass(frozen=True)
class Look:
    group: str


@dataclass(frozen=True)
class Pool:
    """Stands for `train.clip_pools.ClipPool`: clips that are in memory already."""

    clips_NTHWC: NDArray[np.uint8]
    city_ids: NDArray[np.intp] | None = None

    @property
    def count(self) -> int:
        return len(self.clips_NTHWC)

    @property
    def looks(self) -> tuple[Look, ...]:
        return tuple(Look(group=f"drive {number}") for number in range(self.count))

    def batches(self, size: int) -> Iterator[Batch]:
        return map(Batch, batches(self.clips_NTHWC, size))


def calibration_set(
    config: VideoMAEConfig,
    count: int,
    *,
    judging: int = 32,
    city_ids: NDArray[np.intp] | None = None,
) -> CalibrationSet:
    """Clips in memory, to calibrate on and to judge by."""
    calibrating: Any = Pool(clips_of(config, count))
    held_out: Any = Pool(clips_of(config, judging, seed=5), city_ids)
    return CalibrationSet(
        calibration=calibrating,
        held_out=held_out,
        source="made",
        notes=(),
        listing="clip,city,scene,light,use\n",
    )
