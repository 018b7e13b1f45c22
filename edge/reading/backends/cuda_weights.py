"""The decoder's weights and the kernels' launches laid out for kernels/cuda: storage types, padding, per-row scales.

A stored row r means scale[r] * stored[r], padded with zeros to PADDING elements. int8: scale = max|row| / 127, rounded
to nearest. f16: the scale is the power of two that brings the row's greatest value into [1, 2): it costs no precision,
and no weight overflows. Weights that come as int8 keep their numbers and scales in both; int4 weights, with a scale per
group of 32, are rounded to float16 (2^-11 of the row's greatest, far below what int4 lost before).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge.reading.ops.arrays import F32, Weights
from edge.reading.ops.quantised import Matrix as QuantisedMatrix
from edge.reading.ops.quantised import MatrixQ8, QuantisedWeights
from edge.reading.ops.reference_quantised import dequantised
from edge.reading.ops.shape import DecoderShape

Storage = Literal["f16", "i8"]
STORAGE_TYPES: Final[dict[Storage, type[np.generic]]] = {"f16": np.float16, "i8": np.int8}

PADDING: Final = 16  # kPadding of portable.h
ALIGNMENT: Final = 256


@dataclass(frozen=True)
class StoredRows:
    """rows: (count, columns padded to PADDING) float16 or int8; scales: (count,) f32."""

    rows: NDArray[Any]
    scales: F32


def store_rows(weight: F32, storage: Storage) -> StoredRows:
    """weight: (count, columns) f32, finite."""
    greatest = np.abs(weight).max(axis=1)
    if storage == "i8":
        scales = np.where(greatest > 0, greatest / np.float32(127), np.float32(1)).astype(np.float32)
        rounded = np.rint(weight / scales[:, None])
    else:
        _, exponents = np.frexp(np.where(greatest > 0, greatest, 1))
        scales = np.ldexp(np.float32(1), np.clip(exponents - 1, -126, 126)).astype(np.float32)
        rounded = weight / scales[:, None]
    return StoredRows(_padded(rounded, storage), scales)


def store_quantised(matrix: QuantisedMatrix, storage: Storage) -> StoredRows:
    """The same numbers: int8 in either storage, int4 in "f16"."""
    if isinstance(matrix, MatrixQ8):
        return StoredRows(_padded(matrix.values, storage), matrix.scales)
    return store_rows(dequantised(matrix), storage)


def storage_for(weights: Weights | QuantisedWeights) -> Storage:
    """int8 where every matrix is int8, else float16."""
    if isinstance(weights, QuantisedWeights) and all(isinstance(m, MatrixQ8) for m in weights.matrices.values()):
        return "i8"
    return "f16"


def _padded(values: NDArray[Any], storage: Storage) -> NDArray[Any]:
    count, columns = values.shape
    rows = np.zeros((count, -(-columns // PADDING) * PADDING), STORAGE_TYPES[storage])
    rows[:, :columns] = values
    return rows


def restored(stored: StoredRows, columns: int) -> F32:
    """What the kernels compute with: (count, columns) f32."""
    return np.ascontiguousarray(stored.rows[:, :columns].astype(np.float32) * stored.scales[:, None])


class Arena:
    """Arrays put one after another, for one allocation and one upload."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, NDArray[Any]]] = []
        self._offsets: dict[str, int] = {}
        self.size_bytes = 0

    def add(self, name: str, array: NDArray[Any]) -> None:
        """`name` is used once."""
        self._offsets[name] = self.size_bytes
        self._parts.append((self.size_bytes, np.ascontiguousarray(array)))
        self.size_bytes += -(-array.nbytes // ALIGNMENT) * ALIGNMENT

    def __getitem__(self, name: str) -> int:
        """Bytes from the start of the arena."""
        return self._offsets[name]

    def forget(self) -> None:
        """Keep the places only, once the contents are on the device."""
        self._parts.clear()

    def contents(self) -> NDArray[np.uint8]:
        """(size_bytes,) with every array in its place."""
        everything = np.zeros(self.size_bytes, np.uint8)
        for offset, array in self._parts:
            everything[offset : offset + array.nbytes] = array.reshape(-1).view(np.uint8)
        return everything


def decoder_arena(shape: DecoderShape, weights: Weights | QuantisedWeights, storage: Storage) -> Arena:
    """Every weight of the decoder under the name of its file, matrices as NAME.rows, NAME.scales and NAME.bias.

    q, k and v of a layer become one matrix `layers.L.qkv`; gate.bias and gate_scale one pair `layers.L.gate.pair`.
    Tables, norms and the gate stay f32: a token reads a row of them.
    """
    arena = Arena()
    floats = weights.floats if isinstance(weights, QuantisedWeights) else weights

    def stored(name: str) -> StoredRows:
        if isinstance(weights, QuantisedWeights):
            return store_quantised(weights.matrices[name], storage)
        return store_rows(weights[name], storage)

    def matrix(name: str, *parts: str) -> None:
        of_parts = [stored(f"{part}.weight") for part in parts]
        arena.add(f"{name}.rows", np.concatenate([part.rows for part in of_parts]))
        arena.add(f"{name}.scales", np.concatenate([part.scales for part in of_parts]))
        arena.add(f"{name}.bias", np.concatenate([floats[f"{part}.bias"] for part in parts]))

    def plain(*names: str) -> None:
        for name in names:
            arena.add(name, floats[name])

    matrix("vis", "vis")
    plain("embed.weight", "position.weight", "norm.weight", "norm.bias")
    for p in (f"layers.{layer}." for layer in range(shape.layers)):
        matrix(f"{p}qkv", *(f"{p}{m}" for m in "qkv"))
        for name in ("kv", "out", "up", "down"):
            matrix(p + name, p + name)
        plain(*(f"{p}norm{n}.{part}" for n in (1, 2) for part in ("weight", "bias")), f"{p}gate.weight")
        arena.add(f"{p}gate.pair", np.concatenate([floats[f"{p}gate.bias"], floats[f"{p}gate_scale"]]))
    matrix("head", "head")
    return arena
