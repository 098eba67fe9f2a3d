"""The graphs that a bundle gives TensorRT, of networks with drawn weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from calibration.half import halve_graph
from calibration.quantize import (
    QuantizedFamily,
    QuantizedState,
    quantize_graph,
    quantize_weight,
)
from engines.bundle import TENSORRT_GRAPHS
from tests.networks import make
from train.models.geolocator import PLAIN
from train.models.videomae import SIZES
from train.onnx_graph import build_graph, write_graph

if TYPE_CHECKING:
    from pathlib import Path

    from engines.bundle import Precision
    from train.models.teachers import TeacherConfig
    from train.models.videomae import SizeName

CLASSES = {"city": 166, "state": 157, "country": 91, "continent": 6, "scene": 16}
FAMILIES = (("query", "key", "value"), ("proj",), ("fc1",), ("fc2",))
"""Linear layers of a block that read one tensor."""


def write_tensorrt_graphs(
    folder: Path, size: SizeName, teachers: TeacherConfig = PLAIN
) -> dict[Precision, Path]:
    """The file of each precision; scales are plausible, not calibrated."""
    model, _ = make(SIZES[size], CLASSES, teachers)
    graph = build_graph(model)
    quantized = quantize_graph(graph, _state(graph, model.config.depth))
    made = {
        "fp32": graph,
        "fp16": halve_graph(graph, float32_from=["feature"]),
        "int8": halve_graph(quantized, float32_from=["feature"]),
    }
    for precision, of_precision in made.items():
        write_graph(of_precision, folder / TENSORRT_GRAPHS[precision])  # type: ignore[index]
    return {name: folder / TENSORRT_GRAPHS[name] for name in TENSORRT_GRAPHS}


def _state(graph: onnx.GraphProto, depth: int) -> QuantizedState:
    weights = {held.name: numpy_helper.to_array(held) for held in graph.initializer}
    families = {}
    for number in range(depth):
        for family in FAMILIES:
            names = [f"blocks.{number}.{linear}" for linear in family]
            linears = {}
            for name in names:
                weight_IO = weights[f"{name}.weight"]
                linears[name] = quantize_weight(weight_IO, np.abs(weight_IO).max(axis=0) / 127)
            families[names[0]] = QuantizedFamily(scale=0.03, linears=linears)
    return QuantizedState(families=families)
