"""Any network as an ONNX graph, traced by torch and cleaned.

What torch writes holds the paths and lines of the program that made it, and names that mean little.
What is kept is the arithmetic: constants as initialisers, nodes named after what they put out,
attention as the two products and a softmax that runtimes fuse.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from calibration.dialect import INPUT, OPSET
from train.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from train.models.base import GeoModel

_NOISY = ("torch.onnx", "onnxscript", "onnx_ir")
"""Loggers that tell of their own internals."""
MOST_CLIPS = 2**20
"""Of one call, as far as torch is told: without a bound torch 2.6 finds one of its own, and fails.
The graph says nothing of it."""


def trace(model: GeoModel) -> onnx.GraphProto:
    """A network as a graph; the same weights give the same graph.

    Args:
        model: in evaluation mode; what it gives beside `model.outputs` is left out.

    Raises:
        ExportError: onnxscript is not installed, or torch cannot trace the network.
    """
    outputs = model.outputs
    # Two clips: of one alone torch would take it that there is never more.
    clips = torch.zeros((2, *model.clip_shape), dtype=torch.uint8)
    network = _Ordered(model.folded()).eval()
    from torch._dynamo.exc import UserError  # torch 2.6 has it nowhere else

    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                (clips.to(model.mean.device),),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim("N", min=1, max=MOST_CLIPS)},),
                custom_translation_table=_translations(),
                verbose=False,
            )
    except ImportError as exc:
        raise ExportError(
            f"writing {type(model).__name__} as ONNX: {exc}. Install it with "
            "`pip install '.[cpu,models]'` in geotag's source folder."
        ) from exc
    except (torch.onnx.OnnxExporterError, UserError) as exc:
        raise ExportError(
            f"writing {type(model).__name__} as ONNX: torch {torch.__version__} cannot trace it "
            f"({exc}). Sizes that depend on the number of clips must be taken from `.shape`, not "
            "from `len`, and no `if` may ask a tensor; what was traced before may need the torch "
            "that it was traced with (2.6 traces no batch norm)."
        ) from exc
    assert program is not None
    return _clean(program.model_proto.graph, model)


class _Ordered(nn.Module):
    """A network whose answers come by their place."""

    def __init__(self, model: GeoModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, clip_NTHWC: Tensor) -> tuple[Tensor, ...]:
        found = self.model(clip_NTHWC)
        return tuple(found[name] for name in self.model.outputs)


def _translations() -> dict[Any, Any]:
    """Attention without a mask: the key is turned once, and its sizes are not worked out anew."""
    from onnxscript import opset20 as op

    def attention(
        query: Any,  # noqa: ANN401 - onnxscript's tensors have no types
        key: Any,  # noqa: ANN401
        value: Any,  # noqa: ANN401
        attn_mask: Any = None,  # noqa: ANN401
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:  # noqa: ANN401
        plain = attn_mask is None and not is_causal and not enable_gqa and len(key.shape) == 4
        if not plain:
            raise ExportError(
                "writing attention as ONNX: known is that of four axes [N, heads, P, D] without a "
                "mask. Write another as products and a softmax."
            )
        root = (scale or query.shape[-1] ** -0.5) ** 0.5
        turned = op.Transpose(key, perm=[0, 1, 3, 2])
        scores = op.MatMul(op.Mul(query, root), op.Mul(turned, root))
        return op.MatMul(op.Softmax(scores, axis=-1), value)

    return {torch.ops.aten.scaled_dot_product_attention.default: attention}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter has to say of itself."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _clean(graph: onnx.GraphProto, model: GeoModel) -> onnx.GraphProto:
    """The arithmetic alone, under names that stay."""
    held = list(graph.initializer)
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constant = node.attribute[0].t
            constant.name = node.output[0]
            held.append(constant)
        else:
            nodes.append(node)
    ports = {port.name for port in (*graph.input, *graph.output)}
    names = _names(nodes, ports)
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        node.name = node.output[0]
        node.doc_string = ""
        del node.metadata_props[:]
    for constant in held:
        constant.doc_string = ""
        del constant.metadata_props[:]
    clip = ("N", *model.clip_shape)
    return helper.make_graph(
        nodes,
        "geolocator",
        [helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, clip)],
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", model.widths[name]])
            for name in model.outputs
        ],
        held,
    )


def _names(nodes: list[onnx.NodeProto], ports: set[str]) -> dict[str, str]:
    """What is computed is named after its operation and place: `MatMul.12`."""
    return {
        name: f"{node.op_type}.{number}" + (f".{place}" if place else "")
        for number, node in enumerate(nodes)
        for place, name in enumerate(node.output)
        if name and name not in ports
    }
