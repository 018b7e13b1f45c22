"""What a TFLite file holds, read without any runtime: which kinds of quantisation it uses.

The format is FlatBuffers with the schema `tensorflow/compiler/mlir/lite/schema/schema.fbs` (identifier TFL3); only the
few fields below are looked at, and the slots are those of that schema.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

IDENTIFIER = b"TFL3"

# TensorType
FLOAT32 = 0
WHOLE_BYTES = frozenset({3, 9})  # uint8, int8
SHORT = frozenset({17, 19, 20})  # int4, int2, uint4
BLOCKWISE = 2  # QuantizationDetails.BlockwiseQuantization


@dataclass(frozen=True)
class Quantisation:
    """dynamic_range: an operator takes float32 activations and 8-bit weights. short: a tensor of fewer than 8 bits.
    blockwise: a tensor with a scale for each block.
    """

    dynamic_range: bool
    short: bool
    blockwise: bool


@dataclass(frozen=True)
class _Table:
    """One FlatBuffers table: `at` is where it begins in `content`."""

    content: bytes
    at: int

    def _field(self, slot: int) -> int:
        """Where the field is, 0 if it has its default."""
        vtable = self.at - _unpack("<i", self.content, self.at)
        if 4 + 2 * slot >= _unpack("<H", self.content, vtable):
            return 0
        offset = _unpack("<H", self.content, vtable + 4 + 2 * slot)
        return self.at + offset if offset else 0

    def number(self, slot: int, form: str) -> int:
        """A scalar field; every default looked at here is 0."""
        at = self._field(slot)
        return _unpack(form, self.content, at) if at else 0

    def table(self, slot: int) -> _Table | None:
        """A field that is a table."""
        at = self._field(slot)
        return _Table(self.content, at + _unpack("<I", self.content, at)) if at else None

    def tables(self, slot: int) -> list[_Table]:
        """A field that is a vector of tables."""
        return [_Table(self.content, at + _unpack("<I", self.content, at)) for at in self._vector(slot)]

    def numbers(self, slot: int) -> list[int]:
        """A field that is a vector of 32-bit integers."""
        return [_unpack("<i", self.content, at) for at in self._vector(slot)]

    def _vector(self, slot: int) -> Iterator[int]:
        at = self._field(slot)
        if not at:
            return
        start = at + _unpack("<I", self.content, at)
        length = _unpack("<I", self.content, start)
        if start + 4 + 4 * length > len(self.content):
            raise ValueError("expected a vector inside the TFLite file, got one that ends behind it")
        yield from range(start + 4, start + 4 + 4 * length, 4)


def quantisation(content: bytes) -> Quantisation:
    """The kinds of quantisation in the TFLite file `content`. Raises ValueError if it is none or damaged."""
    if content[4:8] != IDENTIFIER:
        raise ValueError("expected a TFLite file, got something else")
    model = _Table(content, _unpack("<I", content, 0))
    dynamic_range = short = blockwise = False
    for subgraph in model.tables(2):
        types = []
        for tensor in subgraph.tables(0):
            types.append(tensor.number(1, "<b"))
            scales = tensor.table(4)
            blockwise |= scales is not None and scales.number(4, "<B") == BLOCKWISE
        short |= not SHORT.isdisjoint(types)
        for operator in subgraph.tables(3):
            inputs = {types[index] for index in operator.numbers(1) if 0 <= index < len(types)}
            dynamic_range |= FLOAT32 in inputs and not WHOLE_BYTES.isdisjoint(inputs)
    return Quantisation(dynamic_range, short, blockwise)


def _unpack(form: str, content: bytes, at: int) -> int:
    if not 0 <= at <= len(content) - struct.calcsize(form):
        raise ValueError("expected an offset inside the TFLite file, got one outside it")
    value: int = struct.unpack_from(form, content, at)[0]
    return value
