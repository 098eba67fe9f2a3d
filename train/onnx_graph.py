"""Networks as ONNX graphs, built node by node rather than traced.

It holds about 20 nodes a block, has the names, layouts and constants that quantization and three
runtimes want, holds no path of the machine that made it, and does not change with the version of
torch.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, P tokens, D width, K classes.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.dialect import OPSET, check_dialect
from engines.bundle import LEVELS
from train.models.geolocator import Geolocator
from train.models.labels import LEAST_LENGTH, FixedLabels
from train.models.nested import LEAST_PROB, SummedLevels
from train.models.teachers import ATTENTION_HEADS, LIFTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, DTypeLike, NDArray

IR_VERSION = 9


def export_onnx(model: Geolocator, path: Path) -> None:
    """Write a model as ONNX; the same weights give the same bytes.

    One input, `clip` uint8 [N, T, H, W, 3]; outputs city, state, country, continent (logits),
    scene (logits, for a model that has a scene head) and feature, float32 [N, K]. Linear weights
    are [in, out], named as in torch. Of the teachers, Self-Cross Attention and the scene head are
    in the graph, the text head is not.
    """
    write_graph(build_graph(model), path)


def write_graph(graph: onnx.GraphProto, path: Path, *, data: str | None = None) -> None:
    """Check a graph and write it as a model; the same graph gives the same bytes.

    Args:
        graph: what to write.
        path: the file.
        data: name of a file beside it that takes the weights, so that a runtime may map them
            instead of reading them into memory twice; None keeps them in the one file.

    Raises:
        DialectError: the graph is not one that every runtime reads.
    """
    proto = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="geotag",
    )
    onnx.checker.check_model(proto, full_check=True)
    check_dialect(proto, doing=f"writing {path.name}")
    if data is None:
        path.write_bytes(proto.SerializeToString(deterministic=True))
        return
    (path.parent / data).unlink(missing_ok=True)  # onnx would append
    onnx.save_model(
        proto,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=data,
        size_threshold=1024,
    )
    shutil.copymode(path, path.parent / data)  # onnx makes it for its owner alone


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """What multi-head attention is cut into."""

    tokens: int
    width: int
    heads: int

    @property
    def head_width(self) -> int:
        """Values of one head."""
        return self.width // self.heads


@dataclass(slots=True)
class Graph:
    """Nodes and constants of a graph that grows."""

    weights: dict[str, np.ndarray]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def op(self, kind: str, *inputs: str, out: str, **attributes: Any) -> str:  # noqa: ANN401
        """Append a node; its output carries its name."""
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def constant(self, name: str, value: ArrayLike, dtype: DTypeLike = np.float32) -> str:
        """Keep a constant, once per name."""
        array: NDArray[Any] = np.ascontiguousarray(value, dtype=dtype)
        self.constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def reshape(self, tokens: str, shape: tuple[int, ...], *, out: str) -> str:
        """Reshape; 0 keeps a size, -1 is worked out."""
        return self.op("Reshape", tokens, self.constant(f"shape.{shape}", shape, np.int64), out=out)

    def linear(self, tokens: str, name: str, *, out: str) -> str:
        """Apply a Linear, with or without bias."""
        bias = self.weights.get(f"{name}.bias")
        weight = self.constant(f"{out}.weight", self.weights[f"{name}.weight"].T)
        if bias is None:
            return self.op("MatMul", tokens, weight, out=out)
        product = self.op("MatMul", tokens, weight, out=f"{out}.matmul")
        return self.op("Add", product, self.constant(f"{out}.bias", bias), out=out)

    def norm(self, tokens: str, name: str, epsilon: float, *, out: str) -> str:
        """Apply a LayerNorm, kept as one node: in parts it overflows float16."""
        scale = self.constant(f"{out}.weight", self.weights[f"{name}.weight"])
        shift = self.constant(f"{out}.bias", self.weights[f"{name}.bias"])
        return self.op("LayerNormalization", tokens, scale, shift, out=out, epsilon=epsilon)


def build_graph(model: Geolocator) -> onnx.GraphProto:
    """The network as a graph: pixels to tokens, blocks, mean, heads."""
    config, model = model.config, model.folded()
    weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    graph = Graph(weights)
    tokens = _tokens(graph, model)
    for number in range(config.depth):
        tokens = _block(graph, model, tokens, f"blocks.{number}")
    axes = graph.constant("token_axis", [1], np.int64)
    feature = graph.op("ReduceMean", tokens, axes, out="feature", keepdims=0)
    for head in model.heads:
        graph.linear(feature, f"heads.{head}", out=head)
    if isinstance(model.labels, FixedLabels):
        unit = _unit(graph, feature)
        for level in model.labels.linears:
            graph.linear(unit, f"labels.linears.{level}", out=level)
    if isinstance(model.nested, SummedLevels):
        _sum_cities(graph, model.nested.levels)
    if model.teachers.config.scene == "attention":
        _scene(graph, model)
    clip = ("N", config.frames, config.image_px, config.image_px, 3)
    return helper.make_graph(
        graph.nodes,
        "geolocator",
        [helper.make_tensor_value_info("clip", TensorProto.UINT8, clip)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", model.widths[name]])
            for name in model.outputs
        ],
        list(graph.constants.values()),
    )


def _tokens(graph: Graph, model: Geolocator) -> str:
    """Bytes to tokens.  `clip` uint8 [N, T, H, W, 3] -> float32 [N, P, D].

    Cut while still bytes, a quarter of the memory to move; then normalised, value by value.
    """
    config = model.config
    _, rows, columns = config.grid
    cut = (-1, config.tubelet_frames, rows, config.patch_px, columns, config.patch_px * 3)
    pixels = graph.reshape("clip", cut, out="patch.cut")
    pixels = graph.op("Transpose", pixels, out="patch.transposed", perm=[0, 2, 4, 1, 3, 5])
    pixels = graph.reshape(pixels, (-1, config.tokens, config.token_values), out="patch.bytes")
    pixels = graph.op("Cast", pixels, out="patch.pixels", to=TensorProto.FLOAT)
    mean, std = model.mean.double().cpu().numpy(), model.std.double().cpu().numpy()
    repeats = config.token_values // 3
    scale = graph.constant("patch.scale", np.tile(1 / (255 * std), repeats))
    shift = graph.constant("patch.shift", np.tile(-mean / std, repeats))
    pixels = graph.op("Mul", pixels, scale, out="patch.scaled")
    pixels = graph.op("Add", pixels, shift, out="patch.normalised")
    tokens = graph.linear(pixels, "encoder.patch", out="patch")
    positions = graph.constant("positions", model.encoder.positions.cpu().numpy())
    return graph.op("Add", tokens, positions, out="tokens")


def _block(graph: Graph, model: Geolocator, tokens: str, name: str) -> str:
    """One transformer block.  [N, P, D] -> [N, P, D]."""
    epsilon, source = model.config.norm_eps, f"encoder.{name}"
    normed = graph.norm(tokens, f"{source}.norm1", epsilon, out=f"{name}.norm1")
    parts = {
        part: graph.linear(normed, f"{source}.{part}", out=f"{name}.{part}")
        for part in ("query", "key", "value")
    }
    config = model.config
    shape = AttentionShape(tokens=config.tokens, width=config.width, heads=config.heads)
    attended = attention(graph, parts, shape, name, config.tokens)
    projected = graph.linear(attended, f"{source}.proj", out=f"{name}.proj")
    tokens = graph.op("Add", tokens, projected, out=f"{name}.attended")
    normed = graph.norm(tokens, f"{source}.norm2", epsilon, out=f"{name}.norm2")
    hidden = graph.linear(normed, f"{source}.fc1", out=f"{name}.fc1")
    hidden = graph.op("Gelu", hidden, out=f"{name}.gelu")
    hidden = graph.linear(hidden, f"{source}.fc2", out=f"{name}.fc2")
    return graph.op("Add", tokens, hidden, out=f"{name}.out")


def _unit(graph: Graph, feature: str) -> str:
    """A feature, scaled and shifted, then of length 1.  [N, D] -> [N, D]."""
    gain = graph.constant("unit.gain", graph.weights["labels.unit.gain"])
    shift = graph.constant("unit.shift", graph.weights["labels.unit.shift"])
    scaled = graph.op("Mul", feature, gain, out="unit.scaled")
    centred = graph.op("Add", scaled, shift, out="unit.centred")
    axes = graph.constant("unit.axis", [-1], np.int64)
    length = graph.op("ReduceL2", centred, axes, out="unit.length", keepdims=1)
    least = graph.constant("unit.least", LEAST_LENGTH)
    length = graph.op("Max", length, least, out="unit.divisor")
    return graph.op("Div", centred, length, out="unit")


def _sum_cities(graph: Graph, levels: Sequence[str]) -> None:
    """Logarithms of sums over cities.  `city` [N, C] -> each coarser level [N, K]."""
    probs = graph.op("Softmax", "city", out="city.shares", axis=-1)
    least = graph.constant("least_prob", LEAST_PROB)
    for level in levels:
        cities = graph.constant(f"{level}.cities", graph.weights[f"nested.membership_{level}"])
        total = graph.op("MatMul", probs, cities, out=f"{level}.sum")
        total = graph.op("Max", total, least, out=f"{level}.least")
        graph.op("Log", total, out=level)


def _scene(graph: Graph, model: Geolocator) -> None:
    """Self-Cross Attention and the scene head, on the scores of all levels.  -> `scene` [N, S].

    Two linear maps in a row are one: what lifts a score and what attention does with it first, and
    what attention ends with and what brings a token back to a number.
    """
    classes = sum(model.classes[level] for level in LEVELS)
    levels: list[str] = list(LEVELS)
    if model.teachers.config.attention_input == "probs":
        levels = [graph.op("Softmax", level, out=f"{level}.probs", axis=-1) for level in LEVELS]
    scores = graph.op("Concat", *levels, out="scene.levels", axis=1)
    tokens = graph.reshape(scores, (0, classes, 1), out="scene.tokens")
    folded = _folded_attention(graph.weights)
    parts = {}
    for part in ("query", "key", "value"):
        graph.weights |= {f"{part}.weight": folded[part][0], f"{part}.bias": folded[part][1]}
        parts[part] = graph.linear(tokens, part, out=f"scene.{part}")
    shape = AttentionShape(tokens=classes, width=LIFTED, heads=ATTENTION_HEADS)
    mixed = attention(graph, parts, shape, "scene", classes)
    graph.weights |= {"back.weight": folded["back"][0], "back.bias": folded["back"][1]}
    back = graph.linear(mixed, "back", out="scene.back")
    hidden = graph.reshape(back, (0, classes), out="scene.attended")
    layers = [name for name in graph.weights if name.startswith("teachers.scene.")]
    names = [name.removesuffix(".weight") for name in layers if name.endswith(".weight")]
    for number, name in enumerate(names):
        is_last = number == len(names) - 1
        hidden = graph.linear(hidden, name, out="scene" if is_last else f"scene.{number}")
        if not is_last:
            hidden = graph.op("Relu", hidden, out=f"scene.{number}.relu")


def _folded_attention(
    weights: Mapping[str, NDArray[np.float32]],
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """(weight [out, in], bias [out]) of query, key, value and back, each two maps in one."""
    held = {
        name.removeprefix("teachers.attention."): value.astype(np.float64)
        for name, value in weights.items()
        if name.startswith("teachers.attention.")
    }
    inner = zip(
        np.split(held["attention.in_proj_weight"], 3),
        np.split(held["attention.in_proj_bias"], 3),
        strict=True,
    )
    folded = {
        part: (weight @ held[f"{part}.weight"], weight @ held[f"{part}.bias"] + bias)
        for part, (weight, bias) in zip(("query", "key", "value"), inner, strict=True)
    }
    back = held["back.weight"]
    folded["back"] = (
        back @ held["attention.out_proj.weight"],
        back @ held["attention.out_proj.bias"] + held["back.bias"],
    )
    return folded


def attention(
    graph: Graph, parts: Mapping[str, str], shape: AttentionShape, name: str, queries: int
) -> str:
    """Attention in the form that TensorRT and OpenVINO fuse.

    Query, key and value are three products (a packed one loses INT8 in TensorRT), and each of
    query and key carries the square root of the scale, so that float16 scores stay in range.

    Args:
        graph: where the nodes go.
        parts: names of "query" [N, queries, D], "key" and "value" [N, P, D].
        shape: of the attention.
        name: what the nodes are named after.
        queries: how many there are.

    Returns:
        The name of the mixed values, [N, queries, D].
    """
    root = graph.constant(f"attention.root_scale.{shape.head_width}", shape.head_width**-0.25)
    split = {}
    for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        out = f"{name}.{part}"
        count = queries if part == "query" else shape.tokens
        values = graph.reshape(
            parts[part], (0, count, shape.heads, shape.head_width), out=f"{out}.split"
        )
        values = graph.op("Transpose", values, out=f"{out}.heads", perm=order)
        if part != "value":
            values = graph.op("Mul", values, root, out=f"{out}.scaled")
        split[part] = values
    scores = graph.op("MatMul", split["query"], split["key"], out=f"{name}.scores")
    shares = graph.op("Softmax", scores, out=f"{name}.shares", axis=-1)
    mixed = graph.op("MatMul", shares, split["value"], out=f"{name}.mixed")
    mixed = graph.op("Transpose", mixed, out=f"{name}.merged", perm=[0, 2, 1, 3])
    return graph.reshape(mixed, (0, queries, shape.width), out=f"{name}.context")
