"""The INT8 graph: one dialect of QuantizeLinear and DequantizeLinear that every runtime reads.

Signed int8 with zero point 0. One static scale for each tensor that linear layers read; one scale
for each output channel of a weight, which is stored as int8 behind a DequantizeLinear. Layers that
read the same tensor share its pair. Nothing else is quantized: no attention products, residuals,
norms, activation functions, patch embedding or heads. `calibration.dialect` checks all of that.

Both files of a model are made from one state: int8 between float32 operations for CPUs, between
float16 operations for TensorRT. Their int8 weights and their scales are the same numbers.

Shape suffixes: I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibration.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geotag.wish import WeightForm

LARGEST = 127
"""Of an int8; -128 is not used: it has no positive counterpart, and overflows on old CPUs."""
SMALLEST_SCALE = 2.0**-14
"""Smallest normal float16, 6.1e-5: a smaller scale would be subnormal there, or nothing at all."""
_LARGE = 1 << 16
"""Values from which a constant is worth storing in half its size."""
_Scale = NDArray[np.float32] | np.float32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedLinear:
    """The weight of one linear layer: `weight_IO` times its `scales_O` is what it stands for."""

    weight_IO: NDArray[np.int8]
    scales_O: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedFamily:
    """Linear layers that read one tensor, and the scale of that tensor."""

    scale: float
    linears: Mapping[str, QuantizedLinear]
    """By the name that their weight has in the graph, without `.weight`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedState:
    """All that turns a graph into its INT8 form."""

    families: Mapping[str, QuantizedFamily] = field(default_factory=dict)

    def without(self, names: set[str]) -> QuantizedState:
        """The same, with some families left in floating point."""
        kept = {name: held for name, held in self.families.items() if name not in names}
        return QuantizedState(families=kept)


def usable_scale(scale: Any) -> NDArray[np.float32]:  # noqa: ANN401 - a number or an array
    """The next larger scale that float16 holds as well, so that both files mean the same."""
    wanted = np.maximum(np.asarray(scale, np.float64), SMALLEST_SCALE)
    with np.errstate(over="ignore"):
        near = wanted.astype(np.float16)
        near = np.where(near < wanted, np.nextafter(near, np.float16(np.inf)), near)
    if not np.isfinite(near).all():
        raise CalibrationError(
            f"quantizing with a scale of {float(np.max(wanted)):.3g}: the largest is 65504, that "
            "of float16. Activations this large come from a run that diverged; train again."
        )
    return near.astype(np.float32)


def quantize_weight(
    weight_IO: NDArray[np.floating[Any]], scales_O: NDArray[np.floating[Any]]
) -> QuantizedLinear:
    """Round a weight to int8, each output channel by its own scale, half to even."""
    scales = usable_scale(scales_O)
    rounded = np.rint(weight_IO.astype(np.float64) / scales)
    return QuantizedLinear(
        weight_IO=np.clip(rounded, -LARGEST, LARGEST).astype(np.int8), scales_O=scales
    )


def quantize_graph(
    graph: onnx.GraphProto, state: QuantizedState, *, weights: WeightForm = "dq"
) -> onnx.GraphProto:
    """Put Q/DQ around the linear layers of a state; the rest of the graph stays as it is.

    Args:
        graph: float32, with linear layers as MatMul of a tensor and an initialiser `NAME.weight`.
        state: what is quantized, and how.
        weights: `dq`: int8 weights behind DequantizeLinear; `qdq`: float weights behind a pair, for
            a TensorRT that does not take the first. It then rounds them, to the same numbers.

    Raises:
        CalibrationError: a layer of the state is not in the graph, has another shape, or reads
            another tensor than its family.
    """
    rewriting = _Rewriting(
        products={node.input[1]: node for node in graph.node if node.op_type == "MatMul"},
        constants={held.name: held for held in graph.initializer},
    )
    for name, family in state.families.items():
        rewriting.quantize(name, family, weights)
    nodes = []
    for node in graph.node:
        nodes += rewriting.before.get(node.name, [])
        nodes.append(rewriting.replaced.get(node.name, node))
    constants = list(rewriting.constants.values())
    return helper.make_graph(nodes, graph.name, graph.input, graph.output, constants)


def compact_graph(graph: onnx.GraphProto) -> onnx.GraphProto:
    """Store large float32 constants as float16, cast back when the model is loaded.

    For the file whose operations are float32: the patch embedding, the positions and the heads are
    most of what is left of its size. Half a step of float16, 2^-12 of a value, is nothing beside
    half a step of int8. Constants that float16 cannot hold stay as they are.
    """
    nodes, constants = [], []
    for held in graph.initializer:
        if held.data_type != TensorProto.FLOAT or np.prod(held.dims) < _LARGE:
            constants.append(held)
            continue
        stored = f"{held.name}.half"
        with np.errstate(over="ignore"):
            values = numpy_helper.to_array(held).astype(np.float16)
        if not np.isfinite(values).all():
            constants.append(held)
            continue
        constants.append(numpy_helper.from_array(values, stored))
        nodes.append(
            helper.make_node("Cast", [stored], [held.name], name=held.name, to=TensorProto.FLOAT)
        )
    return helper.make_graph(
        [*nodes, *graph.node], graph.name, graph.input, graph.output, constants
    )


@dataclass(slots=True, kw_only=True)
class _Rewriting:
    """A graph while Q/DQ is put into it."""

    products: Mapping[str, onnx.NodeProto]
    """Every MatMul by the name of what it multiplies with."""
    constants: dict[str, onnx.TensorProto]
    before: dict[str, list[onnx.NodeProto]] = field(default_factory=lambda: defaultdict(list))
    """What is put before a node."""
    replaced: dict[str, onnx.NodeProto] = field(default_factory=dict)

    def quantize(self, name: str, family: QuantizedFamily, weights: WeightForm) -> None:
        read = _common_input(name, family, self.products)
        scale = np.float32(family.scale)
        for number, (linear, held) in enumerate(family.linears.items()):
            weight = f"{linear}.weight"
            node = self.products[weight]
            _check_shape(linear, held, self.constants[weight])
            before = self.before[node.name]
            if number == 0:  # before the first of those that share it
                before += [self._quantizing(read, scale), self._dequantizing(read, scale)]
            if weights == "dq":
                del self.constants[weight]
                self._keep(f"{weight}.quantized", held.weight_IO)
            else:
                # The products, so that rounding gives back exactly these int8.
                self._keep(weight, held.weight_IO * held.scales_O)
                before.append(self._quantizing(weight, held.scales_O))
            before.append(self._dequantizing(weight, held.scales_O))
            self.replaced[node.name] = helper.make_node(
                "MatMul",
                [f"{read}.dequantized", f"{weight}.dequantized"],
                list(node.output),
                name=node.name,
            )

    def _quantizing(self, read: str, scale: _Scale) -> onnx.NodeProto:
        return _node("QuantizeLinear", [read, *self._steps(read, scale)], read, scale)

    def _dequantizing(self, name: str, scale: _Scale) -> onnx.NodeProto:
        steps = self._steps(name, scale)
        return _node("DequantizeLinear", [f"{name}.quantized", *steps], name, scale)

    def _steps(self, name: str, scale: _Scale) -> tuple[str, str]:
        """Names of a scale and of as many zeros."""
        return (
            self._keep(f"{name}.scale", np.asarray(scale, np.float32)),
            self._keep(f"zero{list(np.shape(scale))}", np.zeros(np.shape(scale), np.int8)),
        )

    def _keep(self, name: str, values: NDArray[Any]) -> str:
        self.constants[name] = numpy_helper.from_array(values, name)
        return name


def _node(kind: str, reads: list[str], name: str, scale: _Scale) -> onnx.NodeProto:
    """A node of Q/DQ: per tensor, or along the output channels, axis 1."""
    out = f"{name}.{'quantized' if kind == 'QuantizeLinear' else 'dequantized'}"
    node: onnx.NodeProto = helper.make_node(kind, reads, [out], name=out)
    if np.ndim(scale):
        node.attribute.append(helper.make_attribute("axis", 1))
    return node


def _common_input(
    name: str, family: QuantizedFamily, products: Mapping[str, onnx.NodeProto]
) -> str:
    missing = [each for each in family.linears if f"{each}.weight" not in products]
    if missing:
        raise CalibrationError(
            f"quantizing {name}: the graph has no MatMul with the weight {missing[0]}.weight. "
            "The state and the graph do not belong together."
        )
    read = sorted({str(products[f"{each}.weight"].input[0]) for each in family.linears})
    if len(read) != 1:
        raise CalibrationError(
            f"quantizing {name}: its layers read {', '.join(read)}; layers of a family must read "
            "one tensor."
        )
    return read[0]


def _check_shape(linear: str, held: QuantizedLinear, weight: onnx.TensorProto) -> None:
    if held.weight_IO.shape != tuple(weight.dims):
        raise CalibrationError(
            f"quantizing {linear}: its weight is {list(weight.dims)} in the graph and "
            f"{list(held.weight_IO.shape)} in the state. The two do not belong together."
        )
