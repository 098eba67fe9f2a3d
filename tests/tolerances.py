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

ENGINE_FP32 = 1e-3
"""A score, as a share of the largest of its output, between an engine in float32 and ONNX Runtime.

Source: OpenVINO measured 7e-7 (tiny); TensorRT sums in another order, without TF32, which would be
1e-3. Not measured on a GPU."""

ENGINE_FP16 = 1e-2
"""The same for the float16 graph against float32.

Source: what an export allows; OpenVINO and ONNX Runtime measured 1.1e-3. Not measured on a GPU."""

ENGINE_INT8 = 2e-2
"""The same for int8 between shorter floats, against int8 between float32.

Source: OpenVINO (bfloat16) measured 6e-3, ONNX Runtime on TensorRT's graph (float16) 4.4e-3: a
value at the edge of two steps may fall to either. Not measured on a GPU."""

INT8_FORM = 1e-5
"""An output, as a share of its largest, between int8 weights and floats that are rounded to them.

Source: the same numbers are multiplied, maybe in another order. Measured 0."""

HALF_WEIGHTS = 2e-3
"""An output, as a share of its largest, between large weights stored as float16 and as float32.

Source: each weight is off by 2^-12 of itself at most; measured 5e-4 through one block."""

FP16_GRAPH = 1e-2
"""An output, as a share of its largest, between float32 and float16 with every tensor rounded.

Source: what an export must keep; float16 has 11 bits (5e-4). Measured 1e-3 through two blocks."""

FOLDED = 1e-5
"""An output, as a share of its largest, between a network and the same with scales folded into it.

Source: products and quotients of float32 (6e-8) through two blocks; measured 1e-6."""

INT8_ALONE = 1e-4
"""An output, as a share of its largest, between int8 in torch, ONNX Runtime and OpenVINO where one
family of layers is int8 and all between is float32.

Source: sums in another order put a value at the edge of two steps into either. Measured
3e-5 (tiny)."""

INT8_FLOAT32 = 5e-3
"""The same where all families are int8: what falls to the other step moves what is rounded after.

Source: half the distance of int8 from float32 at most, which is 1e-2. Measured 2e-3 through four
blocks, also between ONNX Runtime with and without its optimizer (1e-3)."""

INT8_BFLOAT16 = 5e-2
"""The same with bfloat16 between the int8 products.

Source: bfloat16 has 8 bits (4e-3), rounded after every operation. Measured 5e-3 (tiny)."""
