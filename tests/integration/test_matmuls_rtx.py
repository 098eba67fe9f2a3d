"""TensorRT's parser and compiler take the network that `geotag bench` finds a GPU's peak with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from engines.bundle import PRECISIONS, Precision
from engines.matmuls import Chain
from engines.tensorrt_api import load_backend
from engines.tensorrt_build import BuildOptions, build_plan

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("tensorrt_rtx")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_its_products_are_computed_in_their_precision(tmp_path: Path, precision: Precision) -> None:
    graph = tmp_path / "matmuls.onnx"
    graph.write_bytes(Chain(rows=256, width=256, layers=3, precision=precision).to_onnx())
    log: list[str] = []
    plan = build_plan(
        load_backend("tensorrt-rtx"),
        graph,
        BuildOptions(targets=("SM86", "SM89")),
        hear=lambda _, line: log.append(line),
    )
    assert len(plan) > 10_000
    layers = "\n".join(log).rpartition("Layers:")[2]
    products = re.findall(r"LayerType: gemm, Inputs: \[ \{.*?Datatype: (\w+)", layers)
    wanted = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}[precision]
    assert products == [wanted] * 3
