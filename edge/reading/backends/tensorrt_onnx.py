"""What TensorRT's parser lets pass of an ONNX file though it must not.

Seen with the parser of TensorRT-RTX 1.7 (tools/check_tensorrt): quantisers of uint8 with a zero point of 0 pass, though
TensorRT has no uint8 to compute with, and a file that is no model passes for one without anything in it. So the file is
looked at first, as far as that needs: protocol buffers ("Encoding" in their documentation), fields of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.errors import BackendError

MODEL_GRAPH, GRAPH_NODE, GRAPH_INITIALIZER = 7, 1, 5
NODE_INPUT, NODE_OPERATOR, NODE_ATTRIBUTE, ATTRIBUTE_TENSOR = 1, 4, 5, 5
TENSOR_TYPE, UINT8 = 2, 2  # TensorProto.data_type, DataType.UINT8
QUANTISERS: Final = frozenset({b"QuantizeLinear", b"DequantizeLinear"})
WITH_ZERO_POINT: Final = 3  # inputs; ONNX takes uint8 where a QuantizeLinear has no zero point
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5

Field = tuple[int, int, memoryview]
"""(number, value of a varint or 0, bytes of what has a length or nothing)."""


def check_file(path: Path) -> None:
    """Raises BackendError `tensorrt.refused`: no ONNX model, or quantised to uint8."""
    try:
        nodes, tensors = _parts(memoryview(path.read_bytes()))
        graph_found = bool(nodes)
        types = {_type_of(tensor) for tensor in tensors}
        without = any(_without_zero_point(node) for node in nodes)
    except (OSError, ValueError, IndexError) as error:
        raise _refused(path, "it is no ONNX model") from error
    if not graph_found:
        raise _refused(path, "it is no ONNX model")
    if UINT8 in types or without:
        raise _refused(path, "expected symmetric int8, got uint8")


def _refused(path: Path, why: str) -> BackendError:
    return BackendError(f"TensorRT cannot take the model file {path.name}: {why}.", code="tensorrt.refused")


def _parts(model: memoryview) -> tuple[list[memoryview], list[memoryview]]:
    """Nodes, and every constant tensor, those in attributes too."""
    nodes: list[memoryview] = []
    tensors: list[memoryview] = []
    for graph in _all(model, MODEL_GRAPH):
        nodes += _all(graph, GRAPH_NODE)
        tensors += _all(graph, GRAPH_INITIALIZER)
    for node in nodes:
        for attribute in _all(node, NODE_ATTRIBUTE):
            tensors += _all(attribute, ATTRIBUTE_TENSOR)
    return nodes, tensors


def _without_zero_point(node: memoryview) -> bool:
    operator = b"".join(bytes(one) for one in _all(node, NODE_OPERATOR))
    return operator in QUANTISERS and len(_all(node, NODE_INPUT)) < WITH_ZERO_POINT


def _type_of(tensor: memoryview) -> int:
    return next((value for number, value, _content in _fields(tensor) if number == TENSOR_TYPE), 0)


def _all(message: memoryview, wanted: int) -> list[memoryview]:
    return [content for number, _value, content in _fields(message) if number == wanted]


def _fields(message: memoryview) -> Iterator[Field]:
    """Raises ValueError, IndexError for bytes that are no message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, content = 0, message[:0]
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire == _BYTES:
            length, at = _varint(message, at)
            content = message[at : at + length]
            if len(content) != length:
                raise ValueError("expected a field within the message, got one beyond it")
            at += length
        elif wire in (_EIGHT, _FOUR):
            at += 8 if wire == _EIGHT else 4
        else:
            raise ValueError(f"expected a wire type of protocol buffers, got {wire}")
        yield key >> 3, value, content


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("expected a number of at most ten bytes, got a longer one")
