"""How many multiplications with an addition (MAC) one clip costs: what a speed is a share of."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from engines.base import EngineUnavailableError
from engines.bundle import GRAPHS
from engines.openvino_core import shared_core

if TYPE_CHECKING:
    from pathlib import Path

    from engines.bundle import Bundle

RECORDED = "gmac_per_clip"
"""Of `training` in bundle.json: what the export counted, in thousand millions."""

_UNCOUNTED = frozenset(
    ("Einsum", "ConvolutionBackpropData", "GRUSequence", "LSTMSequence", "RNNSequence")
)
"""Operations that multiply, of which none of our graphs has any."""


def macs_per_clip(bundle: Bundle) -> tuple[float, str] | None:
    """MACs of one clip, and where the number comes from; None where nothing here can tell.

    The precision makes no difference: every graph of a bundle does the same multiplications.
    """
    recorded = bundle.manifest.training.get(RECORDED)
    if isinstance(recorded, int | float) and recorded > 0:
        return recorded * 1e9, "bundle.json"
    counted = count_macs(bundle.file(GRAPHS["fp32"]), clip_shape=_clip_shape(bundle))
    return None if counted is None else (float(counted), "counted in the graph")


def count_macs(path: Path, *, clip_shape: tuple[int, ...]) -> int | None:
    """MACs of the matrix multiplications and convolutions of a graph; None if it has others.

    OpenVINO works out the shapes; where it is not installed, or cannot read the graph, the answer
    is None too.
    """
    try:
        model = shared_core().read_model(path)
        model.reshape({model.inputs[0]: [1, *clip_shape]})
        kinds = {op.get_type_name() for op in model.get_ops()}
        if kinds & _UNCOUNTED:
            return None
        return sum(_macs_of(op) for op in model.get_ops())
    except (RuntimeError, EngineUnavailableError):
        return None


def _macs_of(op: Any) -> int:  # noqa: ANN401 - openvino has no types
    kind = op.get_type_name()
    if kind == "MatMul":
        first = tuple(op.input_value(0).get_shape())
        is_turned = bool(op.get_attributes()["transpose_a"]) and len(first) > 1
        return int(prod(op.get_output_shape(0)) * first[-2 if is_turned else -1])
    if kind in ("Convolution", "GroupConvolution"):
        weights = tuple(op.input_value(1).get_shape())  # [(groups,) out, in, ...]
        taps = weights[1:] if kind == "Convolution" else weights[2:]
        return int(prod(op.get_output_shape(0)) * prod(taps))
    return 0


def _clip_shape(bundle: Bundle) -> tuple[int, int, int, int]:
    given = bundle.manifest.input
    return given.frames, given.height_px, given.width_px, 3
