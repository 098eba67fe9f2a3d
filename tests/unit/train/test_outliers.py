"""Networks of the shape of `small` in which a few channels are a hundred times as large as others.

The weights behind such a channel are as much smaller, so that it matters neither more nor less than
any other: clipping it loses it, and a range that holds it leaves a step or two to all the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import openvino
import pytest
import torch
from rich.console import Console

from calibration.quantize import quantize_graph
from calibration.ranges import observe
from calibration.recipe import NAIVE, quantize_model
from engines.bundle import GRAPHS
from geotag.wish import PrecisionWish
from tests.lowered import (
    CITIES,
    batches,
    calibration_set,
    clips_of,
    corrected_graph,
    draw,
    kinds_of,
    model_of,
    one_thread,
    tell_apart,
)
from train.models.videomae import SIZES
from train.onnx_graph import build_graph
from train.precisions import Lowered, lower

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from train.models.geolocator import Geolocator
    from train.models.videomae import VideoMAEConfig

SHORT = replace(SIZES["small"], frames=4, image_px=64, depth=2)
"""`small` with 32 tokens and two blocks."""
FACTOR, CHANNELS = 100.0, 4
KINDS = ("norms", "values", "GELU")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def _enlarge(source: nn.Module, readers: Sequence[nn.Module]) -> None:
    """Make some channels larger, and what reads them smaller."""
    with torch.no_grad():
        chosen = torch.randperm(len(source.bias))[:CHANNELS]
        source.weight[chosen] *= FACTOR
        source.bias[chosen] *= FACTOR
        for linear in readers:
            linear.weight[:, chosen] /= FACTOR


def with_outliers(config: VideoMAEConfig, kinds: Sequence[str]) -> Geolocator:
    model = draw(config)
    for block in model.encoder.blocks:
        if "norms" in kinds:
            _enlarge(block.norm1, (block.query, block.key, block.value))
            _enlarge(block.norm2, (block.fc1,))
        if "values" in kinds:
            _enlarge(block.value, (block.proj,))
        if "GELU" in kinds:
            _enlarge(block.fc1, (block.fc2,))
    tell_apart(model)
    return model


@dataclass(frozen=True)
class Outcome:
    agreement: float
    naive_agreement: float
    answers: int
    """Different ones of float32."""
    lowered: Lowered
    pairs: int
    """Tensors that are quantized."""


def compare(model: Geolocator, folder: Path, *, calibrating: int, judging: int) -> Outcome:
    """Cities of float32, of what an export writes, and of the largest values as ranges."""
    config = model.config
    lowered = lower(
        model,
        folder,
        PrecisionWish(precision="int8"),
        calibration_set(config, calibrating),
        console=Console(quiet=True),
    )
    graph = onnx.load(folder / GRAPHS["int8"]).graph
    seen = observe(
        model, model.families(), batches(clips_of(config, calibrating), 4), clips=calibrating
    )
    naive = quantize_model(model, model.families(), seen, recipe=NAIVE)
    clips = clips_of(config, judging, seed=5)
    wanted, found, other = (
        _cities(each, clips)
        for each in (build_graph(model), graph, quantize_graph(corrected_graph(naive), naive.state))
    )
    return Outcome(
        agreement=float((found == wanted).mean()),
        naive_agreement=float((other == wanted).mean()),
        answers=len(set(wanted.tolist())),
        lowered=lowered,
        pairs=kinds_of(graph).count("QuantizeLinear"),
    )


def _cities(graph: onnx.GraphProto, clips_NTHWC: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Through OpenVINO, which multiplies in int8; what is between is float32."""
    core = openvino.Core()
    network = core.read_model(model_of(graph).SerializeToString())
    network.reshape([1, *clips_NTHWC.shape[1:]])
    run = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array([run({"clip": clip[np.newaxis]})["city"].argmax() for clip in clips_NTHWC])


@pytest.mark.parametrize("kind", KINDS)
def test_outliers_change_next_to_no_answer(kind: str, tmp_path: Path) -> None:
    model = with_outliers(SHORT, [kind])
    found = compare(model, tmp_path, calibrating=24, judging=240)
    assert found.answers > CITIES / 2
    assert found.agreement >= 0.98
    assert found.naive_agreement < 0.9
    # Behind a norm or the values they are folded away; behind a GELU nothing can be.
    last = tuple(f"blocks.{number}.fc2" for number in range(SHORT.depth))
    assert found.lowered.skipped == (last if kind == "GELU" else ())
    assert found.pairs == (3 if kind == "GELU" else 4) * SHORT.depth
    told = " ".join(found.lowered.notes)
    assert ("blocks.0.fc2, blocks.1.fc2 stay in floating point" in told) == (kind == "GELU")


@pytest.mark.slow
def test_a_whole_small_with_all_of_them_keeps_its_answers(tmp_path: Path) -> None:
    model = with_outliers(SIZES["small"], KINDS)
    found = compare(model, tmp_path, calibrating=8, judging=200)
    assert found.answers > CITIES / 2
    assert found.agreement >= 0.98
    assert found.naive_agreement < 0.9
