"""How far two computations of the same thing may lie apart: every number, and where it is from."""

from __future__ import annotations

FP32_LOGIT = 1e-4
"""A logit, float32, between torch, ONNX Runtime and OpenVINO.

Source: the limit at which `train.export` refuses its own graph. Measured on logits of -10 to
10: 2e-6 (tiny) and 1e-5 (small); the rest is room for other processors."""

FP32_TOKEN = 1e-5
"""A token of the encoder, as a share of the largest one, between our encoder and transformers'.

Source: float32 has 24 bits (6e-8); sums over 1,568 tokens and 12 blocks in another order measured
2e-6."""

PROBABILITY = 1e-9
"""A probability, float64, between `geotag.places.hierarchy` and the textbook formula.

Source: sums of a few hundred numbers of at most 1 at 2e-16 each."""
