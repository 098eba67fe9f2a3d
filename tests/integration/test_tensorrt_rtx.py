"""What TensorRT makes of our graphs, for cards that are not here.

TensorRT for RTX compiles ahead of time without a GPU and tells the layers that it ends up with. It
shares its compiler with TensorRT, not its kernels: a layer that is not fused here will hardly be
fused on a Jetson, the other way round nothing is proved. Nothing is run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from engines.base import EngineBuildError
from engines.tensorrt_api import load_backend
from engines.tensorrt_build import BuildOptions, build_plan
from tests.graphs import write_graphs
from tests.networks import TAUGHT
from train.models.videomae import SIZES
from train.onnx_graph import write_graph

if TYPE_CHECKING:
    from pathlib import Path

    from engines.bundle import Precision
    from engines.tensorrt_api import Backend
    from train.models.videomae import SizeName

pytest.importorskip("tensorrt_rtx")

TARGETS = ("SM86", "SM89")
BLOCK = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True)
class Layer:
    """A kernel of the compiled network."""

    name: str
    kind: str
    inputs: str
    constants: str
    nodes: str
    """Those of the graph that went into it."""

    @property
    def block(self) -> int | None:
        found = BLOCK.search(self.nodes) or BLOCK.search(self.name)
        return int(found[1]) if found else None

    @property
    def is_attention(self) -> bool:
        return "_gemm_mha_v2" in self.name

    @property
    def is_int8_product(self) -> bool:
        return self.kind == "gemm" and "Int8" in self.inputs and "Int8" in self.constants


@pytest.fixture(scope="module")
def backend() -> Backend:
    return load_backend("tensorrt-rtx")


@pytest.fixture(scope="module", params=["tiny", "small"])
def size(request: pytest.FixtureRequest) -> SizeName:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def graphs(size: SizeName, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    return write_graphs(tmp_path_factory.mktemp(size), size)[1]


def compile_graph(backend: Backend, graph: Path, target: str, max_batch: int = 1) -> list[Layer]:
    """The layers that a graph becomes on a card."""
    lines: list[str] = []

    def hear(severity: str, message: str) -> None:
        lines.extend(message.splitlines())

    options = BuildOptions(targets=(target,), max_batch=max_batch)
    assert build_plan(backend, graph, options, hear=hear)
    return _layers(lines)


def _layers(lines: list[str]) -> list[Layer]:
    """The list that the log ends with."""
    start = max(index for index, line in enumerate(lines) if line.startswith("Layers:"))
    found = []
    for line in lines[start:]:
        parts = re.match(
            r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
            r"Constants: \[(?P<constants>.*?)\], Outputs: \[.*\], TacticName: .*?, StreamId: \d+, "
            r"Metadata: (?P<nodes>.*)",
            line,
        )
        if parts:
            found.append(Layer(**parts.groupdict()))
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_graph_compiles_into_the_kernels_that_it_is_meant_for(
    backend: Backend,
    graphs: dict[Precision, Path],
    size: SizeName,
    precision: Precision,
    target: str,
) -> None:
    layers = compile_graph(backend, graphs[precision], target)
    blocks = set(range(SIZES[size].depth))
    assert {layer.block for layer in layers} >= blocks
    # Nothing is moved about for the sake of a kernel.
    assert not [layer.name for layer in layers if "reformat" in layer.name.lower()]
    attention = [layer for layer in layers if layer.is_attention]
    # In float32 there is no such kernel: scores go through memory, and it is the slow precision.
    assert len(attention) == (0 if precision == "fp32" else len(blocks))
    products = [layer for layer in layers if layer.is_int8_product]
    if precision != "int8":
        assert not products
        return
    # Query, key and value are one product; the projection and the two of the MLP are three.
    per_block = {block: [each for each in products if each.block == block] for block in blocks}
    assert {block: len(found) for block, found in per_block.items()} == dict.fromkeys(blocks, 4)
    # Weights stay int8 up to the product: nothing reads them to make floats of them.
    readers = [layer for layer in layers if "Int8" in layer.constants]
    assert readers == products


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_model_with_scene_attention_compiles(
    backend: Backend, tmp_path: Path, precision: Precision
) -> None:
    _, graphs = write_graphs(tmp_path, "tiny", TAUGHT)
    layers = compile_graph(backend, graphs[precision], "SM86")
    assert any("scene" in layer.nodes for layer in layers)


def test_a_plan_for_many_clips_keeps_its_kernels(
    backend: Backend, graphs: dict[Precision, Path], size: SizeName
) -> None:
    layers = compile_graph(backend, graphs["fp16"], "SM86", max_batch=8)
    assert sum(layer.is_attention for layer in layers) == SIZES[size].depth


def test_weights_beside_the_graph_are_found(
    backend: Backend, graphs: dict[Precision, Path], tmp_path: Path
) -> None:
    import onnx

    graph = onnx.load(graphs["fp32"]).graph
    write_graph(graph, tmp_path / "model.onnx", data="model.onnx.data")
    assert len(compile_graph(backend, tmp_path / "model.onnx", "SM86")) == len(
        compile_graph(backend, graphs["fp32"], "SM86")
    )


def test_a_card_that_it_does_not_know_is_refused(
    backend: Backend, graphs: dict[Precision, Path]
) -> None:
    with pytest.raises(EngineBuildError, match=r"no target SM87; known are .*SM86"):
        build_plan(backend, graphs["fp32"], BuildOptions(targets=("SM87",)))


def test_a_graph_that_it_refuses_is_told_in_its_words(
    backend: Backend, graphs: dict[Precision, Path], tmp_path: Path
) -> None:
    import onnx

    model = onnx.load(graphs["fp32"])
    model.graph.node[-1].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(EngineBuildError, match=r"(?s)NoSuchOperator.*cannot read the graph"):
        build_plan(backend, tmp_path / "model.onnx", BuildOptions(targets=("SM86",)))
