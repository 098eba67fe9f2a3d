"""A network of matrix multiplications: one shows whether an engine works, many show its peak.

It is written as ONNX without the package `onnx`, which no scan needs: every engine reads it
through the parser that reads a bundle's model.  N rows, K columns.

Source: field numbers of onnx/onnx.proto (ONNX 1.16, IR version 9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from engines.bundle import Precision

INPUT, OUTPUT = "row", "mean"
_OPSET, _IR_VERSION = 20, 9
_FLOAT, _INT8, _INT64, _FLOAT16 = 1, 3, 7, 10
_KINDS = {"float32": _FLOAT, "int8": _INT8, "int64": _INT64, "float16": _FLOAT16}
_QUANT_STEP = 1 / 32
"""Of activations: they are of size 1, and 127 steps are 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """`mean(relu(... relu((row + start) W) ... W))`, with one W for all layers.

    What goes in and out is one row, so that copying costs nothing beside the multiplications; the
    relu keeps an optimizer from multiplying the matrices with each other.
    """

    rows: int
    width: int
    layers: int
    precision: Precision = "fp32"

    @property
    def macs(self) -> int:
        """Multiplications with an addition in one run."""
        return self.rows * self.width * self.width * self.layers

    def start(self) -> NDArray[np.float32]:
        """What is added to the row.  [N, K]."""
        drawn = np.random.default_rng(0).standard_normal((self.rows, self.width))
        return drawn.astype(np.float32)

    def weights(self) -> NDArray[np.float32]:
        """W, which keeps the size of activations, the relu counted.  [K, K]."""
        drawn = np.random.default_rng(1).standard_normal((self.width, self.width))
        return np.asarray(drawn * np.sqrt(2 / self.width), dtype=np.float32)

    def run_in_numpy(self, row_1K: NDArray[np.float32]) -> NDArray[np.float32]:
        """What an engine must answer; exact but for rounding, and for fp16 and int8 near it."""
        values_NK = row_1K + self.start()
        weights_KK = self.weights()
        for _ in range(self.layers):
            values_NK = np.maximum(values_NK @ weights_KK, 0)
        mean: NDArray[np.float32] = values_NK.mean(axis=0, keepdims=True)
        return mean

    def to_onnx(self) -> bytes:
        """The network: float32 [1, K] `row` -> float32 [1, K] `mean`; typed inside."""
        inner = np.float32 if self.precision == "fp32" else np.float16
        constants: dict[str, NDArray[np.generic]] = {
            "start": self.start().astype(inner),
            "rows": np.array([0], dtype=np.int64),
        }
        nodes = [_node("Cast", ["row"], ["row_inner"], to=_KINDS[np.dtype(inner).name])]
        nodes.append(_node("Add", ["row_inner", "start"], ["values0"]))
        if self.precision == "int8":
            steps_K = np.abs(self.weights()).max(axis=0) / 127
            constants["weights_int8"] = np.rint(self.weights() / steps_K).astype(np.int8)
            constants["weights_step"] = steps_K.astype(inner)
            constants["weights_zero"] = np.zeros(self.width, dtype=np.int8)
            constants["step"] = np.array(_QUANT_STEP, dtype=inner)
            constants["zero"] = np.array(0, dtype=np.int8)
            given = ["weights_int8", "weights_step", "weights_zero"]
            nodes.append(_node("DequantizeLinear", given, ["weights"], axis=1))
        else:
            constants["weights"] = self.weights().astype(inner)
        for layer in range(self.layers):
            nodes += self._layer(f"values{layer}", f"values{layer + 1}")
        nodes.append(_node("Cast", [f"values{self.layers}"], ["values"], to=_FLOAT))
        nodes.append(_node("ReduceMean", ["values", "rows"], [OUTPUT], keepdims=1))
        return _model(nodes, constants, self.width)

    def _layer(self, taken: str, given: str) -> Iterator[bytes]:
        factor = taken
        if self.precision == "int8":
            yield _node("QuantizeLinear", [taken, "step", "zero"], [f"{taken}_int8"])
            yield _node("DequantizeLinear", [f"{taken}_int8", "step", "zero"], [f"{taken}_dq"])
            factor = f"{taken}_dq"
        yield _node("MatMul", [factor, "weights"], [f"{given}_product"])
        yield _node("Relu", [f"{given}_product"], [given])


def _model(nodes: Sequence[bytes], constants: dict[str, NDArray[np.generic]], width: int) -> bytes:
    graph = b"".join(_bytes(1, node) for node in nodes)
    graph += _bytes(2, b"matmuls")
    graph += b"".join(_bytes(5, _tensor(name, value)) for name, value in constants.items())
    graph += _bytes(11, _port(INPUT, width)) + _bytes(12, _port(OUTPUT, width))
    opset = _bytes(1, b"") + _number(2, _OPSET)
    return _number(1, _IR_VERSION) + _bytes(2, b"geotag") + _bytes(7, graph) + _bytes(8, opset)


def _node(kind: str, taken: Sequence[str], given: Sequence[str], **attributes: int) -> bytes:
    record = b"".join(_bytes(1, name.encode()) for name in taken)
    record += b"".join(_bytes(2, name.encode()) for name in given)
    record += _bytes(3, given[0].encode()) + _bytes(4, kind.encode())
    for name, value in attributes.items():
        record += _bytes(5, _bytes(1, name.encode()) + _number(3, value) + _number(20, 2))  # INT
    return record


def _tensor(name: str, value: NDArray[np.generic]) -> bytes:
    record = b"".join(_number(1, size) for size in value.shape)
    record += _number(2, _KINDS[value.dtype.name]) + _bytes(8, name.encode())
    return record + _bytes(9, value.astype(value.dtype.newbyteorder("<")).tobytes())


def _port(name: str, width: int) -> bytes:
    shape = b"".join(_bytes(1, _number(1, size)) for size in (1, width))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, _FLOAT) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    pieces = []
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*pieces, value])
