"""The whole network and its losses once more, in plain NumPy and float64, to hold ours against.

Written from the description of the method and of the published checkpoints, not from our modules:
no torch, no shared function, loops where they are clearer. Weights of the encoder carry the names
and layouts that published VideoMAE checkpoints have, those of the rest the names of our state.

Shape suffixes: N clips, T frames, H and W pixels, C = 3 colours, P tokens, D width, K classes of
one level, M classes of all levels, S scene groups, E width of a text's embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Weights = Mapping[str, Array]

LEVELS = ("city", "state", "country", "continent")
NORM_EPS = 1e-12
ATTENTION_HEADS = 2
PUBLISHED_BLOCK = {
    "layernorm_before.weight": "D",
    "layernorm_before.bias": "D",
    "attention.attention.query.weight": "DD",
    "attention.attention.q_bias": "D",
    "attention.attention.key.weight": "DD",
    "attention.attention.value.weight": "DD",
    "attention.attention.v_bias": "D",
    "attention.output.dense.weight": "DD",
    "attention.output.dense.bias": "D",
    "layernorm_after.weight": "D",
    "layernorm_after.bias": "D",
    "intermediate.dense.weight": "FD",
    "intermediate.dense.bias": "F",
    "output.dense.weight": "DF",
    "output.dense.bias": "D",
}
"""Tensors of one block of a published encoder; D is the width, F that of the hidden layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What an encoder's weights do not say by themselves."""

    tubelet_frames: int
    patch_px: int
    heads: int


# --- the encoder ---


def encode(clip_NTHWC: NDArray[np.uint8], weights: Weights, shape: Shape) -> Array:
    """Mean token of every clip, without a norm behind it.  uint8 [N, T, H, W, 3] -> [N, D]."""
    pixels_NTHWC = clip_NTHWC.astype(np.float64) / 255
    pixels_NTHWC = (pixels_NTHWC - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    tokens_NPD = embed(pixels_NTHWC, weights, shape)
    tokens_NPD = tokens_NPD + positions(*tokens_NPD.shape[1:])
    block = 0
    while f"encoder.layer.{block}.output.dense.bias" in weights:
        prefix = f"encoder.layer.{block}."
        mine = {name: weights[prefix + name] for name in PUBLISHED_BLOCK}
        tokens_NPD = np.stack([transform(clip_PD, mine, shape.heads) for clip_PD in tokens_NPD])
        block += 1
    return tokens_NPD.mean(axis=1)


def embed(pixels_NTHWC: Array, weights: Weights, shape: Shape) -> Array:
    """A convolution in three dimensions whose stride is its kernel; tokens by time, row, column."""
    kernel_DCthw = weights["embeddings.patch_embeddings.projection.weight"]
    bias_D = weights["embeddings.patch_embeddings.projection.bias"]
    deep, side = shape.tubelet_frames, shape.patch_px
    frames, height_px, width_px = pixels_NTHWC.shape[1:4]
    cubes_PNthwc = [
        pixels_NTHWC[:, time : time + deep, row : row + side, column : column + side]
        for time in range(0, frames, deep)
        for row in range(0, height_px, side)
        for column in range(0, width_px, side)
    ]
    tokens_NPD = np.einsum("pnthwc,dcthw->npd", cubes_PNthwc, kernel_DCthw, optimize=True)
    return tokens_NPD + bias_D


def positions(tokens: int, width: int) -> Array:
    """Sine at even and cosine at odd columns of position / 10000^(2 floor(column / 2) / width).

    Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017, section 3.5.
    """
    columns = np.arange(width)
    angle_PD = np.arange(tokens)[:, None] / 10000.0 ** (2 * (columns // 2) / width)
    return np.where(columns % 2 == 0, np.sin(angle_PD), np.cos(angle_PD))


def transform(tokens_PD: Array, weights: Weights, heads: int) -> Array:
    """One pre-norm block: attention, then the hidden layer, each added to what came in."""
    normed_PD = layer_norm(
        tokens_PD, weights["layernorm_before.weight"], weights["layernorm_before.bias"]
    )
    own = "attention.attention."
    query_PD = normed_PD @ weights[own + "query.weight"].T + weights[own + "q_bias"]
    key_PD = normed_PD @ weights[own + "key.weight"].T
    value_PD = normed_PD @ weights[own + "value.weight"].T + weights[own + "v_bias"]
    mixed_PD = attend(query_PD, key_PD, value_PD, heads)
    tokens_PD = tokens_PD + affine(mixed_PD, weights, "attention.output.dense")
    normed_PD = layer_norm(
        tokens_PD, weights["layernorm_after.weight"], weights["layernorm_after.bias"]
    )
    hidden_PF = gelu(affine(normed_PD, weights, "intermediate.dense"))
    return tokens_PD + affine(hidden_PF, weights, "output.dense")


def attend(query_PD: Array, key_PD: Array, value_PD: Array, heads: int) -> Array:
    """softmax(q k^T / sqrt(width of a head)) v, head by head over consecutive columns."""
    width = query_PD.shape[1] // heads
    mixed = []
    for head in range(heads):
        mine = slice(head * width, (head + 1) * width)
        scores_PP = query_PD[:, mine] @ key_PD[:, mine].T / math.sqrt(width)
        mixed.append(softmax(scores_PP) @ value_PD[:, mine])
    return np.concatenate(mixed, axis=1)


def layer_norm(tokens_PD: Array, weight_D: Array, bias_D: Array) -> Array:
    """Each token to mean 0 and (biased) variance 1, then scaled and moved."""
    centred_PD = tokens_PD - tokens_PD.mean(axis=1, keepdims=True)
    variance_P1 = (centred_PD**2).mean(axis=1, keepdims=True)
    return centred_PD / np.sqrt(variance_P1 + NORM_EPS) * weight_D + bias_D


def gelu(values: Array) -> Array:
    """x times the standard normal distribution function of x, by erf and not by tanh."""
    scaled = (values.ravel() / math.sqrt(2)).tolist()
    erf = np.fromiter(map(math.erf, scaled), np.float64, count=len(scaled)).reshape(values.shape)
    return values * (1 + erf) / 2


# --- what is made of a feature ---


def answer(
    feature_ND: Array, weights: Weights, *, attention_input: str = "logits"
) -> dict[str, Array]:
    """Logits of the four levels, and what scene and text head say where there are weights."""
    found = {level: affine(feature_ND, weights, f"heads.{level}") for level in LEVELS}
    vectors = [
        softmax(found[level]) if attention_input == "probs" else found[level] for level in LEVELS
    ]
    if "heads.scene.weight" in weights:
        found["scene"] = affine(feature_ND, weights, "heads.scene")
    if "teachers.attention.back.weight" in weights:
        seen_NM = np.concatenate(vectors, axis=1)
        attended_NM = np.stack([cross_attend(seen_M, weights) for seen_M in seen_NM])
        for head in ("scene", "text"):
            if f"teachers.{head}.0.weight" in weights:
                found[head] = feed_forward(attended_NM, weights, f"teachers.{head}")
    return {**found, "feature": feature_ND}


def cross_attend(seen_M: Array, weights: Weights) -> Array:
    """Self-Cross Attention: every class score is a token of one number.  [M] -> [M]."""
    tokens_M1 = seen_M[:, None]
    own = "teachers.attention."
    lifted = [affine(tokens_M1, weights, own + name) for name in ("query", "key", "value")]
    inner_weights = np.split(weights[own + "attention.in_proj_weight"], 3)
    inner_biases = np.split(weights[own + "attention.in_proj_bias"], 3)
    query, key, value = (
        tokens @ weight.T + bias
        for tokens, weight, bias in zip(lifted, inner_weights, inner_biases, strict=True)
    )
    mixed = attend(query, key, value, ATTENTION_HEADS)
    mixed = affine(mixed, weights, own + "attention.out_proj")
    return affine(mixed, weights, own + "back")[:, 0]


def feed_forward(values: Array, weights: Weights, name: str) -> Array:
    """Linear layers with a ReLU between each two; even numbers are the layers'."""
    layer = 0
    while f"{name}.{layer}.weight" in weights:
        if layer:
            values = np.where(values > 0, values, 0)
        values = affine(values, weights, f"{name}.{layer}")
        layer += 2
    return values


def affine(values: Array, weights: Weights, name: str) -> Array:
    """A linear layer: [.., I] -> [.., O] with a weight [O, I]."""
    return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def softmax(scores: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


# --- losses ---


def cross_entropy(logits_NK: Array, target_NK: Array) -> float:
    """-sum of target x log softmax, mean over the clips; targets are distributions."""
    top_N1 = logits_NK.max(axis=1, keepdims=True)
    log_total_N1 = top_N1 + np.log(np.exp(logits_NK - top_N1).sum(axis=1, keepdims=True))
    return float(-(target_NK * (logits_NK - log_total_N1)).sum(axis=1).mean())


def one_hot(ids: Sequence[int] | NDArray[np.integer], classes: int, smoothing: float = 0) -> Array:
    """Certainty of each class, of which a share is spread over all classes alike."""
    certain = np.zeros((len(ids), classes))
    for row, number in enumerate(ids):
        certain[row, number] = 1
    return (1 - smoothing) * certain + smoothing / classes


def place_loss(
    outputs: Mapping[str, Array],
    labels: Mapping[str, NDArray[np.integer]],
    smoothing: float = 0,
) -> float:
    """Sum over the four levels of the mean cross-entropy."""
    return sum(
        cross_entropy(outputs[level], one_hot(labels[level], outputs[level].shape[1], smoothing))
        for level in LEVELS
    )


def alignment_loss(text_NE: Array, wanted_NE: Array) -> float:
    """Cosine of the angle between what was said and what was wanted, negated; mean over clips."""
    cosines = [
        float(said @ wanted) / math.sqrt(float(said @ said)) / math.sqrt(float(wanted @ wanted))
        for said, wanted in zip(text_NE, wanted_NE, strict=True)
    ]
    return -sum(cosines) / len(cosines)


# --- decoding ---


def number_places(
    paths: Sequence[tuple[str, str, str, str]],
) -> tuple[dict[str, int], NDArray[np.intp]]:
    """Count the classes of each level, and say which of each level is above each city.

    Args:
        paths: city, state, country, continent of every city. A class is its whole path upwards;
            classes are numbered by first appearance.

    Returns:
        Number of classes per level, and their ids [cities, 4].
    """
    seen: list[list[tuple[str, ...]]] = [[] for _ in LEVELS]
    for path in paths:
        for depth, known in enumerate(seen):
            if path[depth:] not in known:
                known.append(path[depth:])
    above = [[known.index(path[depth:]) for depth, known in enumerate(seen)] for path in paths]
    return {level: len(known) for level, known in zip(LEVELS, seen, strict=True)}, np.array(above)


def products(scores: Sequence[Array], above: NDArray[np.intp]) -> list[Array]:
    """p'(k) = p(k) p'(parent of k), from the continents downwards, for one clip; not normalised.

    Args:
        scores: logits of one clip, city to continent.
        above: as `number_places` gives it.
    """
    probs = [softmax(level_scores) for level_scores in scores]
    multiplied = [level_probs.copy() for level_probs in probs]
    for depth in (2, 1, 0):
        for number in range(len(probs[depth])):
            some_city = int(np.flatnonzero(above[:, depth] == number)[0])
            parent = above[some_city, depth + 1]
            multiplied[depth][number] = probs[depth][number] * multiplied[depth + 1][parent]
    return multiplied


def decode(scores: Sequence[Array], above: NDArray[np.intp], mode: str) -> list[Array]:
    """Probabilities of one clip at each level, city to continent.

    Of the modes `codependent` and `trace_only` only those of the cities are looked at: the coarser
    answers are what the city lies in.
    """
    flat = [softmax(level_scores) for level_scores in scores]
    multiplied = [level / level.sum() for level in products(scores, above)]
    if mode == "marginal":
        city = multiplied[0]
        multiplied = [
            np.array([city[above[:, depth] == number].sum() for number in range(len(flat[depth]))])
            for depth in range(len(LEVELS))
        ]
    return flat if mode in ("without", "trace_only") else multiplied
