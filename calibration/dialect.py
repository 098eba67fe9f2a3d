"""Whether every runtime reads a graph, and runs it as fast as it could.

Each rule is a thing that one of OpenVINO, ONNX Runtime, TensorRT 10.3 to 11 and TensorRT-RTX
rejects, or takes and silently computes in floating point. It is checked of every graph that an
export writes, and of a quantized ONNX file that somebody brings.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from calibration.errors import DialectError
from calibration.quantize import LARGEST, SMALLEST_SCALE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

OPSET = 20
"""First with Gelu, last that TensorRT 10.3 reads whole."""
INPUT = "clip"
SHOWN = 5
"""Findings that an error lists."""
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_FORBIDDEN = {
    "Attention": "not every TensorRT has it; write MatMul, Softmax, MatMul",
    "DynamicQuantizeLinear": "TensorRT has no scales that are found while running; calibrate",
    "MatMulInteger": "use MatMul between DequantizeLinear",
    "QLinearMatMul": "use MatMul between DequantizeLinear",
    "QLinearConv": "use Conv between DequantizeLinear, or leave it in floating point",
    "ConvInteger": "use Conv between DequantizeLinear, or leave it in floating point",
}
_SLICING = ("Split", "Slice", "Gather")
_CARRYING = ("Add", "Reshape", "Transpose")
"""Operations between a packed product and where it is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One breach of a rule."""

    node: str
    rule: str

    def __str__(self) -> str:
        """`node: what is wrong with it`."""
        return f"{self.node}: {self.rule}"


@dataclass(slots=True, kw_only=True)
class _View:
    """A graph with the ways through it."""

    graph: onnx.GraphProto
    makers: dict[str, onnx.NodeProto]
    users: dict[str, list[onnx.NodeProto]]
    constants: dict[str, onnx.TensorProto]
    values: dict[str, NDArray[Any]] = field(default_factory=dict)

    def constant(self, name: str) -> NDArray[Any] | None:
        """Value of a constant: an initialiser, or a Constant node; None for what is computed."""
        if name not in self.values:
            if name in self.constants:
                self.values[name] = numpy_helper.to_array(self.constants[name])
            elif name in self.makers and self.makers[name].op_type == "Constant":
                for attribute in self.makers[name].attribute:
                    if attribute.name == "value":
                        self.values[name] = numpy_helper.to_array(attribute.t)
        return self.values.get(name)

    def kind_of(self, name: str) -> str:
        """Operation that a tensor comes from; empty for inputs and constants."""
        return str(self.makers[name].op_type) if name in self.makers else ""

    def quantized_weight(self, name: str) -> NDArray[Any] | None:
        """What stands behind a DequantizeLinear, and a QuantizeLinear before it; None if not."""
        if self.kind_of(name) != "DequantizeLinear":
            return None
        read = self.makers[name].input[0]
        if self.kind_of(read) == "QuantizeLinear":
            read = self.makers[read].input[0]
        return self.constant(read)


def check_dialect(model: onnx.ModelProto, *, doing: str) -> None:
    """Refuse a graph outside the dialect.

    Raises:
        DialectError: it lists the first SHOWN nodes, each with what is wrong.
    """
    found = find_breaches(model)
    if not found:
        return
    listed = "".join(f"\n  {finding}" for finding in found[:SHOWN])
    more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    raise DialectError(
        f"{doing}: the graph is outside the dialect that all runtimes share:{listed}{more}\n"
        "Quantize with signed int8, zero point 0, one scale for each tensor that linear layers "
        "read, one for each output channel of a weight, and nothing else; or leave it to geotag "
        "export."
    )


def read_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file that somebody brings.

    Raises:
        DialectError: it cannot be read, is no ONNX, or breaks the rules of ONNX itself.
    """
    try:
        model = onnx.load(path)
        if found := list(_opset(model)):  # the checker would speak of operations it does not know
            raise DialectError(f"reading {path}: {found[0]}. Export or convert it again.")
        onnx.checker.check_model(model, full_check=True)
    except DialectError:
        raise
    except OSError as exc:
        raise DialectError(f"reading {path}: {exc}. Give an ONNX file.") from exc
    except Exception as exc:  # protobuf's DecodeError has no public home; the checker has its own
        raise DialectError(
            f"reading {path}: it is no valid ONNX model ({str(exc).strip().splitlines()[0]}). "
            "Export it again."
        ) from exc
    return model


def find_breaches(model: onnx.ModelProto) -> list[Finding]:
    """All that is wrong with a graph, in its order; empty for one inside the dialect."""
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            users[name].append(node)
    view = _View(
        graph=model.graph,
        makers={name: node for node in model.graph.node for name in node.output},
        users=users,
        constants={held.name: held for held in model.graph.initializer},
    )
    found = [*_opset(model), *_ports(view)]
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            found.append(_finding(node, f"{node.domain} is no domain of plain ONNX"))
        if node.op_type in _FORBIDDEN:
            found.append(_finding(node, f"{node.op_type}: {_FORBIDDEN[node.op_type]}"))
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found += _steps(view, node)
        if node.op_type == "QuantizeLinear":
            found += _quantizing(view, node)
        if node.op_type == "DequantizeLinear":
            found += _dequantizing(view, node)
        if node.op_type == "MatMul":
            found += _product(view, node)
    return [*found, *_twice(view), *_places(view)]


def _finding(node: onnx.NodeProto, rule: str) -> Finding:
    return Finding(node=node.name or f"{node.op_type} -> {node.output[0]}", rule=rule)


def _opset(model: onnx.ModelProto) -> Iterator[Finding]:
    found = {entry.domain: entry.version for entry in model.opset_import}
    version = found.get("", found.get("ai.onnx"))
    if version != OPSET:
        yield Finding(node="the model", rule=f"opset {version}, needed is {OPSET}")


def _ports(view: _View) -> Iterator[Finding]:
    inputs = [port for port in view.graph.input if port.name not in view.constants]
    names = [port.name for port in inputs]
    if names != [INPUT]:
        yield Finding(node="the model", rule=f"inputs {names}, needed is one: {INPUT}")
        return
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in (TensorProto.UINT8, TensorProto.FLOAT16) or len(kind.shape.dim) != 5:
        yield Finding(node=INPUT, rule="it must be uint8 [N, T, H, W, 3], or float16 of that shape")
    for port in view.graph.output:
        if port.type.tensor_type.elem_type != TensorProto.FLOAT:
            yield Finding(node=port.name, rule="an output must be float32")


def _steps(view: _View, node: onnx.NodeProto) -> Iterator[Finding]:
    """Scale and zero point of either operation."""
    scale = view.constant(node.input[1])
    if scale is None:
        yield _finding(node, "its scale is computed; it must be a constant")
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield _finding(node, "its scale is not a positive number")
    elif scale.dtype == np.float16 and (scale.astype(np.float64) < SMALLEST_SCALE).any():
        yield _finding(
            node, f"its float16 scale {float(scale.min()):.3g} is below {SMALLEST_SCALE:.2g}"
        )
    elif scale.dtype not in (np.float32, np.float16):
        yield _finding(node, f"its scale is {scale.dtype}; it must be float32 or float16")
    if len(node.input) < 3 or not node.input[2]:
        if node.op_type == "QuantizeLinear":
            yield _finding(node, "without a zero point it gives uint8, which TensorRT rejects")
        return
    zero = view.constant(node.input[2])
    if zero is None or zero.dtype != np.int8:
        kind = "computed" if zero is None else zero.dtype
        yield _finding(node, f"its zero point is {kind}; it must be a constant int8")
    elif zero.any():
        yield _finding(node, f"its zero point is {int(zero.ravel()[0])}; it must be 0")


def _quantizing(view: _View, node: onnx.NodeProto) -> Iterator[Finding]:
    is_weight = view.constant(node.input[0]) is not None
    scale = view.constant(node.input[1])
    if not is_weight and scale is not None and scale.ndim:
        yield _finding(node, "a tensor that is computed takes one scale, not one for each channel")
    for user in view.users[node.output[0]]:
        if user.op_type != "DequantizeLinear":
            yield _finding(node, f"{user.op_type} reads it; only DequantizeLinear may")
        elif list(user.input[1:]) != list(node.input[1:]) and not _same_steps(view, node, user):
            yield _finding(node, f"{user.name} takes it back with another scale or zero point")


def _same_steps(view: _View, one: onnx.NodeProto, other: onnx.NodeProto) -> bool:
    first, second = view.constant(one.input[1]), view.constant(other.input[1])
    return first is not None and second is not None and np.array_equal(first, second)


def _dequantizing(view: _View, node: onnx.NodeProto) -> Iterator[Finding]:
    read, out = node.input[0], node.output[0]
    values = view.constant(read)
    if values is None and view.kind_of(read) != "QuantizeLinear":
        yield _finding(node, "it reads neither a constant nor a QuantizeLinear")
    weight = view.quantized_weight(out)
    place = 0 if weight is None else 1
    for user in view.users[out]:
        if user.op_type != "MatMul":
            yield _finding(
                node, f"{user.op_type} reads it; Q/DQ belongs to the products of linear layers only"
            )
        elif list(user.input)[1 - place] == out or user.input[place] != out:
            yield _finding(node, "a weight is the second input of its MatMul, a tensor the first")
    if weight is not None:
        yield from _weight(view, node, weight, values)


def _weight(
    view: _View, node: onnx.NodeProto, weight: NDArray[Any], values: NDArray[Any] | None
) -> Iterator[Finding]:
    scale = view.constant(node.input[1])
    axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 1)
    if values is not None and values.dtype != np.int8:
        yield _finding(node, f"the weight is {values.dtype}; it must be int8")
    elif values is not None and values.size and values.min() < -LARGEST:
        yield _finding(node, f"the weight holds {values.min()}; the smallest is {-LARGEST}")
    if weight.ndim != 2 or scale is None:
        yield _finding(node, "the weight of a linear layer is a constant with two axes")
    elif scale.shape != weight.shape[1:] or axis not in (1, -1):
        yield _finding(
            node,
            f"scales {list(scale.shape)} along axis {axis} of a weight {list(weight.shape)}; "
            f"needed is one for each output channel: {list(weight.shape[1:])} along axis 1",
        )


def _product(view: _View, node: onnx.NodeProto) -> Iterator[Finding]:
    """Both sides of a product are quantized, or neither; and a packed one is not cut up."""
    sides = [view.kind_of(name) == "DequantizeLinear" for name in node.input]
    if not any(sides):
        return
    if not all(sides):
        yield _finding(node, "only one of its inputs is quantized, so it computes in floats")
    elif view.quantized_weight(node.input[1]) is None:
        yield _finding(node, "a product of two tensors (attention) must not be quantized")
    out, seen = [node.output[0]], 0
    while out and seen < 8:
        users = [user for name in out for user in view.users[name]]
        if cut := next((user for user in users if user.op_type in _SLICING), None):
            yield _finding(
                node,
                f"{cut.op_type} cuts it up: TensorRT then multiplies in floats. Write query, key "
                "and value as three MatMul",
            )
            return
        out = [name for user in users if user.op_type in _CARRYING for name in user.output]
        out, seen = [name for name in out if not _joins(view, name)], seen + 1


def _joins(view: _View, name: str) -> bool:
    """Whether a tensor is the sum of two computed ones: the product has ended in a residual."""
    node = view.makers[name]
    return node.op_type == "Add" and not any(
        view.constant(each) is not None or view.quantized_weight(each) is not None
        for each in node.input
    )


def _twice(view: _View) -> Iterator[Finding]:
    """Layers that read one tensor must share one pair."""
    for name, users in view.users.items():
        pairs = [
            user for user in users if user.op_type == "QuantizeLinear" and user.input[0] == name
        ]
        if len(pairs) > 1:
            yield _finding(pairs[1], f"{name} is quantized {len(pairs)} times; layers share one")


def _places(view: _View) -> Iterator[Finding]:
    """The first linear layer (patch embedding) and the last ones (heads) stay in floats."""
    after: set[str] = set()
    """Tensors with a linear layer before them."""
    outputs = {port.name for port in view.graph.output}
    for node in view.graph.node:
        is_after = any(name in after for name in node.input)
        is_linear = node.op_type in ("MatMul", "Gemm", "Conv")
        if node.op_type == "MatMul" and view.quantized_weight(node.input[1]) is not None:
            if not is_after:
                yield _finding(node, "the patch embedding must not be quantized")
            if outputs & _ends(view, node.output[0]):
                yield _finding(node, "a head must not be quantized")
        if is_linear or is_after:
            after.update(node.output)


def _ends(view: _View, name: str) -> set[str]:
    """A tensor, and what it becomes by adding constants and by being quantized."""
    names, waiting = {name}, [name]
    while waiting:
        for user in view.users[waiting.pop()]:
            is_same = user.op_type in ("QuantizeLinear", "DequantizeLinear")
            if is_same or (user.op_type == "Add" and not _joins(view, user.output[0])):
                names.update(user.output)
                waiting += user.output
    return names
