"""Make the bytes of a clip the first thing that a graph casts, which TensorRT insists on.

Our graphs cut a clip into patches while it is still bytes, a quarter of the memory to move, which
is right for a processor. TensorRT takes uint8 into a network only where a cast receives it at
once ("first input has type UInt8 but must have type Float, Half, ..."). So the graph is given one
node more, and its input another name: clip_bytes -> Cast(float16) -> clip. Whole numbers up to
2,048 are exact in float16, so nothing else changes, and TensorRT fuses the cast with what follows.

Only the few fields of the protobuf on the way are read and written; the `onnx` package is no part
of a scan.
Source: https://protobuf.dev/programming-guides/encoding, onnx.proto of ONNX 1.16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.base import EngineBuildError

if TYPE_CHECKING:
    from collections.abc import Iterator

_UINT8, _FLOAT16 = 2, 10
"""TensorProto.DataType."""
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INPUT = 1, 11
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_ELEMENT = 1, 1
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_KIND, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TYPE = 1, 3, 20
_ATTRIBUTE_IS_INT = 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types."""

Span = tuple[int, int, int, int]
"""(field number, start of the field, start of its content, end) in a message."""


def with_cast_first(model: bytes) -> bytes:
    """A serialized ONNX model whose input of bytes, if it has one, is cast before all else.

    Raises:
        EngineBuildError: the bytes are no ONNX model.
    """
    try:
        graph = _only(model, _MODEL_GRAPH, 0, len(model))
        found = _bytes_input(model, graph)
    except (IndexError, ValueError) as exc:
        raise EngineBuildError(
            f"reading a graph of {len(model):,} bytes: it is not an ONNX model ({exc}). "
            "Export the bundle again."
        ) from exc
    if found is None:
        return model
    (_, before, _, after), name = found
    renamed = b"".join(
        _field(_VALUE_NAME, f"{name}_bytes".encode()) if number == _VALUE_NAME else model[start:end]
        for number, start, _, end in _fields(model, found[0][2], after)
    )
    _, graph_start, graph_from, graph_to = graph
    content = b"".join(
        (
            _field(_GRAPH_NODE, _cast(name)),  # nodes are in the order in which they run
            model[graph_from:before],
            _field(_GRAPH_INPUT, renamed),
            model[after:graph_to],
        )
    )
    return b"".join((model[:graph_start], _field(_MODEL_GRAPH, content), model[graph_to:]))


def _bytes_input(model: bytes, graph: Span) -> tuple[Span, str] | None:
    """The graph's input of type uint8, and its name."""
    for span in _fields(model, graph[2], graph[3]):
        if span[0] != _GRAPH_INPUT:
            continue
        _, _, start, end = _only(model, _VALUE_TYPE, span[2], span[3])
        _, _, start, end = _only(model, _TYPE_TENSOR, start, end)
        _, _, start, _ = _only(model, _TENSOR_ELEMENT, start, end)
        if model[start] == _UINT8:
            _, _, start, end = _only(model, _VALUE_NAME, span[2], span[3])
            return span, model[start:end].decode()
    return None


def _cast(name: str) -> bytes:
    """A NodeProto that casts the bytes to what the graph's nodes know as `name`."""
    attribute = b"".join(
        (
            _field(_ATTRIBUTE_NAME, b"to"),
            _number(_ATTRIBUTE_INT << 3 | _VARINT) + _number(_FLOAT16),
            _number(_ATTRIBUTE_TYPE << 3 | _VARINT) + _number(_ATTRIBUTE_IS_INT),
        )
    )
    return b"".join(
        (
            _field(_NODE_INPUT, f"{name}_bytes".encode()),
            _field(_NODE_OUTPUT, name.encode()),
            _field(_NODE_NAME, f"{name}.cast".encode()),
            _field(_NODE_KIND, b"Cast"),
            _field(_NODE_ATTRIBUTE, attribute),
        )
    )


def _only(model: bytes, wanted: int, start: int, end: int) -> Span:
    """The first field of a number."""
    for span in _fields(model, start, end):
        if span[0] == wanted:
            return span
    raise ValueError(f"field {wanted} is missing")


def _fields(model: bytes, start: int, end: int) -> Iterator[Span]:
    """The fields of the message in [start, end)."""
    while start < end:
        key, content = _read_number(model, start)
        after = content
        match key & 7:
            case 0:  # _VARINT
                _, after = _read_number(model, content)
            case 1:  # _FIXED64
                after = content + 8
            case 2:  # _BYTES
                size, content = _read_number(model, content)
                after = content + size
            case 5:  # _FIXED32
                after = content + 4
            case kind:
                raise ValueError(f"wire type {kind} at byte {start}")
        if after > end:
            raise ValueError(f"a field at byte {start} ends behind its message")
        yield key >> 3, start, content, after
        start = after


def _read_number(model: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    value = shift = 0
    while True:
        byte = model[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(f"a number at byte {at} does not end")


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(content)) + content


def _number(value: int) -> bytes:
    """A varint."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
