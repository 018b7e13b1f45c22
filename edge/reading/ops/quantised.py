"""Decoder weights in int8 and int4: what a bundle or the load-time quantiser hands to the kernels.

The definition of every rounding is in reference_quantised.py; packing is the kernels' own business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import BundleError
from edge.reading.ops.arrays import F32, describe
from edge.reading.ops.shape import DecoderShape

GROUP = 32
"""Inputs of an int4 matrix that share a scale, and the activations' with them."""

GREATEST_SUMMED = 1 << 17
"""Products of int8 in one sum (inputs, width, tokens, positions): 127 * 127 * 2^17 is what 32 bits hold."""

PRECISIONS = ("q8", "q4")


@dataclass(frozen=True)
class MatrixQ8:
    """W[r, k] = values[r, k] * scales[r].  values: (rows, columns) int8, -127..127; scales: (rows,) f32."""

    values: NDArray[np.int8]
    scales: F32

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]


@dataclass(frozen=True)
class MatrixQ4:
    """W[r, k] = (nibble[r, k] - 8) * scales[r, k // 32].

    values: (rows, ceil(columns / 2)) uint8, an even column in the low nibble and the next in the high one;
    scales: (rows, ceil(columns / 32)) float16.
    """

    values: NDArray[np.uint8]
    scales: NDArray[np.float16]
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.columns


Matrix = MatrixQ8 | MatrixQ4


@dataclass(frozen=True)
class QuantisedWeights:
    """`matrices`: every matrix of matrix_names; `floats`: the rest (norms, biases, gates, embeddings), f32."""

    floats: Mapping[str, F32]
    matrices: Mapping[str, Matrix] = field(default_factory=dict)


def matrix_names(shape: DecoderShape) -> tuple[str, ...]:
    """The weights that are quantised; embeddings are looked up, and the gate is one row: they stay float."""
    names = ["vis", "head"]
    for layer in range(shape.layers):
        names += [f"layers.{layer}.{matrix}" for matrix in ("q", "k", "v", "kv", "out", "up", "down")]
    return tuple(f"{name}.weight" for name in names)


def once_per_image(name: str) -> bool:
    """vis and kv run once per image, not once per token: int4 would gain nothing there and stays out of them."""
    return name.endswith(".kv.weight") or name == "vis.weight"


def holds_quantised(tensors: Mapping[str, NDArray[Any]]) -> bool:
    """Whether a decoder file was quantised before it was shipped (its head is int8 or packed int4)."""
    head = tensors.get("head.weight")
    return head is not None and head.dtype in (np.int8, np.uint8)


def from_tensors(shape: DecoderShape, tensors: Mapping[str, NDArray[Any]]) -> QuantisedWeights:
    """A shipped file: matrix `name` as int8 or uint8 nibbles, its scales as `name` + "_scale"; the rest f32.

    Raises BundleError on a missing, unknown, misshapen or non-finite tensor.
    """
    expected = shape.weight_shapes()
    names = matrix_names(shape)
    scale_names = {f"{name}_scale" for name in names}
    if unknown := sorted(tensors.keys() - expected.keys() - scale_names):
        raise BundleError(f"expected decoder tensors of {len(expected)} names, got unknown ones: {', '.join(unknown)}")
    if missing := sorted((expected.keys() | scale_names) - tensors.keys()):
        raise BundleError(f"expected a quantised decoder's tensors, got none named {', '.join(missing)}")
    matrices = {name: _matrix(name, expected[name], tensors[name], tensors[f"{name}_scale"]) for name in names}
    floats = {name: _floats(name, expected[name], tensors[name]) for name in expected.keys() - matrices.keys()}
    return QuantisedWeights(floats, matrices)


def _matrix(name: str, shape: tuple[int, ...], values: NDArray[Any], scales: NDArray[Any]) -> Matrix:
    rows, columns = shape
    groups = -(-columns // GROUP)
    if values.dtype == np.int8 and values.shape == shape and scales.dtype == np.float32 and scales.shape == (rows,):
        _check_finite(f"{name}_scale", scales)
        if (values == -128).any():
            raise BundleError(f"expected {name} of -127 to 127, got -128")
        return MatrixQ8(np.ascontiguousarray(values), np.ascontiguousarray(scales))
    if (
        values.dtype == np.uint8
        and values.shape == (rows, -(-columns // 2))
        and scales.dtype == np.float16
        and scales.shape == (rows, groups)
    ):
        _check_finite(f"{name}_scale", scales)
        return MatrixQ4(np.ascontiguousarray(values), np.ascontiguousarray(scales), columns)
    raise BundleError(
        f"expected {name} as int8 of shape {shape} with float32 scales ({rows},), or as packed nibbles with float16 "
        f"scales ({rows}, {groups}), got {describe(values)} with {describe(scales)}"
    )


def _floats(name: str, shape: tuple[int, ...], array: NDArray[Any]) -> F32:
    if array.dtype != np.float32 or array.shape != shape:
        raise BundleError(f"expected {name} as float32 of shape {shape}, got {describe(array)}")
    _check_finite(name, array)
    return np.ascontiguousarray(array)


def _check_finite(name: str, array: NDArray[Any]) -> None:
    if not np.isfinite(array).all():
        raise BundleError(f"expected finite numbers in {name}, got NaN or infinity")
