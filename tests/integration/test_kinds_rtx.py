"""What TensorRT makes of the traced graphs, for cards that are not here; nothing is run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from calibration.half import halve_graph
from engines.tensorrt_api import load_backend
from tests.integration.test_tensorrt_rtx import compile_graph
from tests.kinds import CLASSES, SMALL, loud_graph, make_loud
from train.graphs import graph_of, wide_starts
from train.models.kinds import find_kind
from train.onnx_graph import write_graph

if TYPE_CHECKING:
    from pathlib import Path

    from engines.tensorrt_api import Backend

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def backend() -> Backend:
    return load_backend("tensorrt-rtx")


@pytest.mark.parametrize("name", [name for name in SMALL if name != "videomae"])
def test_every_traced_kind_compiles_in_both_precisions(
    name: str, backend: Backend, tmp_path: Path
) -> None:
    graph = loud_graph(name)
    write_graph(graph, tmp_path / "fp32.onnx")
    half = halve_graph(graph, float32_from=wide_starts(graph), pixels="float16")
    write_graph(half, tmp_path / "fp16.onnx")
    for precision in ("fp32", "fp16"):
        assert compile_graph(backend, tmp_path / f"{precision}.onnx", "SM86", max_batch=2)


def test_published_windows_of_swin_compile_in_both_precisions(
    backend: Backend, tmp_path: Path
) -> None:
    # Windows of 7, shifted and not, a stage of one window, and merging, as Swin-B has them.
    kind = find_kind("geodecoder")
    swin: dict[str, Any] = {"encoder": "swin", "swin_depths": (2, 1), "swin_heads": (1, 2)}
    shape = replace(kind.sizes["tiny"], frames=1, image_px=56, depth=1, **swin)
    graph = graph_of(make_loud(kind.model(shape, CLASSES)).eval())
    write_graph(graph, tmp_path / "fp32.onnx")
    half = halve_graph(graph, float32_from=wide_starts(graph), pixels="float16")
    write_graph(half, tmp_path / "fp16.onnx")
    for precision in ("fp32", "fp16"):
        assert compile_graph(backend, tmp_path / f"{precision}.onnx", "SM86", max_batch=2)


@pytest.mark.parametrize("name", ["timesformer", "vit"])
def test_traced_attention_is_one_kernel_in_float16(
    name: str, backend: Backend, tmp_path: Path
) -> None:
    kind = find_kind(name)
    shape = replace(kind.sizes["tiny"], depth=1)
    graph = graph_of(make_loud(kind.model(shape, CLASSES)).eval())
    half = halve_graph(graph, float32_from=wide_starts(graph), pixels="float16")
    write_graph(half, tmp_path / "fp16.onnx")
    layers = compile_graph(backend, tmp_path / "fp16.onnx", "SM86")
    attentions = [node for node in graph.node if node.op_type == "Softmax"]
    assert len([layer for layer in layers if layer.is_attention]) == len(attentions)
    assert not [layer.name for layer in layers if "reformat" in layer.name.lower()]
