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

FP64_LOGIT = 1e-10
"""A logit, float64, between our network and `tests.reference`.

Source: measured 3e-14 on logits up to 30; the rest is room for other processors."""

FP64_LOSS = 1e-12
"""A loss, float64, between ours and `tests.reference`.

Source: measured 4e-15; sums of a few hundred numbers of at most 10 at 2e-16 each."""

FP64_DERIVATIVE = 1e-6
"""A derivative of a loss along a direction of length 1, float64, between torch and differences.

Source: central differences with a step of 1e-6 of losses near 10 have an error of 1e-9 from
rounding; measured 5e-8 on derivatives up to 10."""
