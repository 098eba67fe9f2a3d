"""The image side of a CLIP-like network, and its places, as one graph.

Frames are encoded one by one; a frame's embedding meets the mean text embedding of every place,
times the logit scale, as one linear layer a level. A clip's answer is the mean of its frames'
log-probabilities: the frames as experts whose opinions are multiplied, tempered so that more
frames do not make it surer (geometric mean; Genest and Zidek, Statistical Science 1986).

Shape suffixes: N clips, T frames, F = N * T, P tokens, D width, E width of an embedding,
K classes, C = 3 colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from engines.bundle import OUTPUTS
from train.errors import ExportError
from train.models.heads import HEADS
from train.onnx_graph import AttentionShape, Graph, attention

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from train.zeroshot.checkpoint import Checkpoint

    Floats = NDArray[np.float32]

MOST_BYTES = 2**31 - 1
"""A protobuf file is no larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tower:
    """What the nodes of the image side depend on."""

    graph: Graph
    family: str
    image_px: int
    patch_px: int
    shape: AttentionShape
    depth: int
    epsilon: float
    activation: str


def build_zero_shot_graph(
    checkpoint: Checkpoint, texts: Mapping[str, Floats], *, frames: int
) -> onnx.GraphProto:
    """The whole graph: `clip` uint8 [N, T, H, W, C] to logits of every head and `feature`.

    The per-frame logits of a head are the tensor `<head>.frames`, [F, K].

    Args:
        checkpoint: the network.
        texts: mean text embeddings of each head's classes, [K, E], each of length 1.
        frames: T.

    Raises:
        ExportError: an activation that is not known, or a graph above MOST_BYTES.
    """
    weights = {
        name: value.detach().cpu().numpy() for name, value in checkpoint.model.state_dict().items()
    }
    size = sum(value.nbytes for name, value in weights.items() if name.startswith("vision_model"))
    size += sum(text.nbytes for text in texts.values())
    if size > MOST_BYTES:
        raise ExportError(
            f"exporting the network: its image side and places take {size / 1e9:.1f} GB, and an "
            "ONNX file holds 2.1 GB. Take a smaller network or fewer places."
        )
    tower = _tower(checkpoint, Graph(weights))
    graph = tower.graph
    tokens = _tokens(tower, checkpoint)
    for number in range(tower.depth):
        tokens = _block(tower, tokens, number)
    embedding = _pooled(tower, tokens)
    length = graph.op("ReduceL2", embedding, _axes(graph, -1), out="embedding.length", keepdims=1)
    embedding = graph.op("Div", embedding, length, out="embedding")
    bias = graph.constant("logit_bias", [checkpoint.logit_bias])
    for head in HEADS:
        weight = graph.constant(f"{head}.weight", texts[head].T * checkpoint.logit_scale)
        logits = graph.op("MatMul", embedding, weight, out=f"{head}.matmul")
        logits = graph.op("Add", logits, bias, out=f"{head}.frames")
        logs = graph.op("LogSoftmax", logits, out=f"{head}.logs", axis=-1)
        _mean_over_frames(graph, logs, (frames, len(texts[head])), out=head)
    width = texts[HEADS[0]].shape[1]
    _mean_over_frames(graph, embedding, (frames, width), out="feature")
    widths = {**{head: len(texts[head]) for head in HEADS}, "feature": width}
    image_px = tower.image_px
    clip = helper.make_tensor_value_info(
        "clip", TensorProto.UINT8, ("N", frames, image_px, image_px, 3)
    )
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", widths[name]])
        for name in OUTPUTS
    ]
    return helper.make_graph(
        graph.nodes, "zero-shot", [clip], outputs, list(graph.constants.values())
    )


def _tower(checkpoint: Checkpoint, graph: Graph) -> _Tower:
    config = checkpoint.model.config.vision_config
    if int(getattr(config, "num_channels", 3)) != 3:
        raise ExportError(f"exporting the network: it takes {config.num_channels} colours, not 3.")
    rows = int(config.image_size) // int(config.patch_size)
    return _Tower(
        graph=graph,
        family=checkpoint.family,
        image_px=int(config.image_size),
        patch_px=int(config.patch_size),
        shape=AttentionShape(
            tokens=rows * rows + (checkpoint.family == "clip"),
            width=int(config.hidden_size),
            heads=int(config.num_attention_heads),
        ),
        depth=int(config.num_hidden_layers),
        epsilon=float(config.layer_norm_eps),
        activation=str(config.hidden_act),
    )


def _tokens(tower: _Tower, checkpoint: Checkpoint) -> str:
    """Bytes to tokens.  `clip` uint8 [N, T, H, W, C] -> float32 [F, P, D].

    Cut while still bytes, a quarter of the memory to move; then normalised, value by value.
    """
    graph, patch, spec = tower.graph, tower.patch_px, checkpoint.picture
    rows, source = tower.image_px // patch, "vision_model.embeddings"
    side = (-1, tower.image_px, tower.image_px, 3)
    pixels = graph.reshape("clip", side, out="pictures")
    if rows * patch != tower.image_px:  # what is over is not looked at
        start = graph.constant("cut.start", [0, 0], np.int64)
        end = graph.constant("cut.end", [rows * patch] * 2, np.int64)
        axes = graph.constant("cut.axes", [1, 2], np.int64)
        pixels = graph.op("Slice", pixels, start, end, axes, out="pictures.cut")
    pixels = graph.reshape(pixels, (-1, rows, patch, rows, patch * 3), out="patch.cut")
    pixels = graph.op("Transpose", pixels, out="patch.transposed", perm=[0, 1, 3, 2, 4])
    values = patch * patch * 3
    pixels = graph.reshape(pixels, (-1, rows * rows, values), out="patch.bytes")
    pixels = graph.op("Cast", pixels, out="patch.pixels", to=TensorProto.FLOAT)
    mean, std = np.array(spec.mean), np.array(spec.std)
    scale = graph.constant("patch.scale", np.tile(spec.scale / std, patch * patch))
    shift = graph.constant("patch.shift", np.tile(-mean / std, patch * patch))
    pixels = graph.op("Mul", pixels, scale, out="patch.scaled")
    pixels = graph.op("Add", pixels, shift, out="patch.normalised")
    kernel = graph.weights[f"{source}.patch_embedding.weight"]  # [D, C, patch, patch]
    graph.weights["patch.weight"] = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), values)
    bias = graph.weights.get(f"{source}.patch_embedding.bias")
    if bias is not None:
        graph.weights["patch.bias"] = bias
    tokens = graph.linear(pixels, "patch", out="patch")
    positions = graph.weights[f"{source}.position_embedding.weight"]
    if tower.family == "siglip":
        return graph.op("Add", tokens, graph.constant("positions", positions), out="tokens")
    # The class token is the same for every picture: room is made, and its sum laid into it.
    first = graph.weights[f"{source}.class_embedding"] + positions[0]
    pads = graph.constant("class.pads", [0, 1, 0, 0, 0, 0], np.int64)
    tokens = graph.op("Pad", tokens, pads, out="class.room")
    placed = graph.constant("positions", np.concatenate([first[np.newaxis], positions[1:]]))
    tokens = graph.op("Add", tokens, placed, out="placed")
    return graph.norm(tokens, "vision_model.pre_layrnorm", tower.epsilon, out="tokens")


def _block(tower: _Tower, tokens: str, number: int) -> str:
    """One transformer block.  [F, P, D] -> [F, P, D]."""
    graph, name = tower.graph, f"blocks.{number}"
    source = f"vision_model.encoder.layers.{number}"
    normed = graph.norm(tokens, f"{source}.layer_norm1", tower.epsilon, out=f"{name}.norm1")
    parts = {
        part: graph.linear(normed, f"{source}.self_attn.{short}_proj", out=f"{name}.{part}")
        for part, short in (("query", "q"), ("key", "k"), ("value", "v"))
    }
    mixed = attention(graph, parts, tower.shape, name, tower.shape.tokens)
    projected = graph.linear(mixed, f"{source}.self_attn.out_proj", out=f"{name}.proj")
    tokens = graph.op("Add", tokens, projected, out=f"{name}.attended")
    normed = graph.norm(tokens, f"{source}.layer_norm2", tower.epsilon, out=f"{name}.norm2")
    hidden = _mlp(tower, normed, f"{source}.mlp", name)
    return graph.op("Add", tokens, hidden, out=f"{name}.out")


def _mlp(tower: _Tower, tokens: str, source: str, name: str) -> str:
    graph = tower.graph
    hidden = graph.linear(tokens, f"{source}.fc1", out=f"{name}.fc1")
    hidden = _activate(tower, hidden, f"{name}.act")
    return graph.linear(hidden, f"{source}.fc2", out=f"{name}.fc2")


def _activate(tower: _Tower, hidden: str, out: str) -> str:
    """The activations that published weights use."""
    graph = tower.graph
    if tower.activation == "quick_gelu":  # x * sigmoid(1.702 x), as OpenAI trained CLIP
        steep = graph.constant("quick_gelu.slope", [1.702])
        share = graph.op("Mul", hidden, steep, out=f"{out}.steep")
        share = graph.op("Sigmoid", share, out=f"{out}.share")
        return graph.op("Mul", hidden, share, out=out)
    if tower.activation == "gelu":
        return graph.op("Gelu", hidden, out=out)
    if tower.activation in ("gelu_pytorch_tanh", "gelu_new"):
        return graph.op("Gelu", hidden, out=out, approximate="tanh")
    raise ExportError(
        f"exporting the network: its activation is {tower.activation!r}; known are quick_gelu, "
        "gelu, gelu_pytorch_tanh and gelu_new."
    )


def _pooled(tower: _Tower, tokens: str) -> str:
    """One vector a frame.  [F, P, D] -> [F, E]."""
    graph, epsilon = tower.graph, tower.epsilon
    if tower.family == "clip":
        first = graph.constant("class.index", [0], np.int64)
        token = graph.op("Gather", tokens, first, out="class.taken", axis=1)
        token = graph.reshape(token, (-1, tower.shape.width), out="class.out")
        token = graph.norm(token, "vision_model.post_layernorm", epsilon, out="class.norm")
        return graph.linear(token, "visual_projection", out="projected")
    tokens = graph.norm(tokens, "vision_model.post_layernorm", epsilon, out="tokens.norm")
    return _attention_pool(tower, tokens)


def _attention_pool(tower: _Tower, tokens: str) -> str:
    """SigLIP's pooling: one learnt query over all tokens, then an MLP.  [F, P, D] -> [F, D]."""
    graph, source = tower.graph, "vision_model.head"
    packed = graph.weights[f"{source}.attention.in_proj_weight"]
    offsets = graph.weights[f"{source}.attention.in_proj_bias"]
    width = tower.shape.width
    parts = {}
    for number, part in enumerate(("query", "key", "value")):
        rows = slice(number * width, (number + 1) * width)
        graph.weights[f"pool.{part}.weight"] = packed[rows]
        graph.weights[f"pool.{part}.bias"] = offsets[rows]
    # The query is the same for every picture: worked out here, [1, 1, D], and broadcast.
    probe = graph.weights[f"{source}.probe"].reshape(1, width).astype(np.float64)
    query = probe @ packed[:width].T.astype(np.float64) + offsets[:width]
    parts["query"] = graph.constant("pool.query", query.reshape(1, 1, width))
    for part in ("key", "value"):
        parts[part] = graph.linear(tokens, f"pool.{part}", out=f"pool.{part}")
    mixed = attention(graph, parts, tower.shape, "pool", 1)
    mixed = graph.reshape(mixed, (-1, width), out="pool.vector")
    pooled = graph.linear(mixed, f"{source}.attention.out_proj", out="pool.proj")
    normed = graph.norm(pooled, f"{source}.layernorm", tower.epsilon, out="pool.norm")
    hidden = _mlp(tower, normed, f"{source}.mlp", "pool")
    return graph.op("Add", pooled, hidden, out="pool.out")


def _mean_over_frames(graph: Graph, values: str, shape: tuple[int, int], *, out: str) -> str:
    """[F, K] -> [N, K]."""
    values = graph.reshape(values, (-1, *shape), out=f"{out}.clips")
    return graph.op("ReduceMean", values, _axes(graph, 1), out=out, keepdims=0)


def _axes(graph: Graph, axis: int) -> str:
    return graph.constant(f"axis.{axis}", [axis], np.int64)
