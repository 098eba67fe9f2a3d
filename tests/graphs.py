"""Graphs of every precision, of networks with drawn weights, and bundles that hold them."""

from __future__ import annotations

from dataclasses import replace
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
from engines.bundle import (
    GRAPHS,
    LEVELS,
    TENSORRT_GRAPHS,
    InputSpec,
    describe_file,
    read_bundle,
    write_manifest,
)
from tests.fakes import make_bundle
from tests.networks import make
from train.models.teachers import PLAIN
from train.models.videomae import SIZES
from train.onnx_graph import build_graph, write_graph

if TYPE_CHECKING:
    from pathlib import Path

    from engines.bundle import Bundle, Precision
    from train.models.geolocator import Geolocator
    from train.models.teachers import TeacherConfig
    from train.models.videomae import SizeName

CITIES, SCENES = 166, 16
CLASSES = {**dict.fromkeys(LEVELS, CITIES), "scene": SCENES}
FAMILIES = (("query", "key", "value"), ("proj",), ("fc1",), ("fc2",))
"""Linear layers of a block that read one tensor."""


def write_graphs(
    folder: Path, size: SizeName, teachers: TeacherConfig = PLAIN
) -> tuple[Geolocator, dict[Precision, Path]]:
    """The network, and the file of each precision for TensorRT; scales plausible, not calibrated.

    `model.int8.onnx`, which is for processors, lies beside them.
    """
    model, _ = make(SIZES[size], CLASSES, teachers)
    graph = build_graph(model)
    quantized = quantize_graph(graph, _state(graph, model.config.depth))
    write_graph(graph, folder / GRAPHS["fp32"])
    write_graph(quantized, folder / GRAPHS["int8"])
    write_graph(halve_graph(graph, float32_from=["feature"]), folder / TENSORRT_GRAPHS["fp16"])
    write_graph(halve_graph(quantized, float32_from=["feature"]), folder / TENSORRT_GRAPHS["int8"])
    return model, {name: folder / TENSORRT_GRAPHS[name] for name in TENSORRT_GRAPHS}


def write_bundle(folder: Path, size: SizeName) -> tuple[Geolocator, Bundle]:
    """A bundle of such graphs over invented places."""
    made = make_bundle(folder, name=f"drawn-{size}")
    model, _ = write_graphs(folder, size)
    rows = [f"c{i},s{i},n{i},k{i},0,{i / 10}" for i in range(CITIES)]
    header = "city,state,country,continent,lat_deg,lon_deg"
    (folder / "places.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    config = model.config
    names = {*made.manifest.files, *GRAPHS.values(), *TENSORRT_GRAPHS.values()}
    manifest = replace(
        made.manifest,
        input=InputSpec(frames=config.frames, height_px=config.image_px, width_px=config.image_px),
        outputs={**CLASSES, "feature": config.width},
        scenes=tuple(f"scene {number}" for number in range(SCENES)),
        files={name: describe_file(folder / name) for name in sorted(names)},
    )
    write_manifest(folder, manifest)
    return model, read_bundle(folder)


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
