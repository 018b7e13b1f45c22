"""The definition of the int8 and int4 operators in numpy: every rounding, every scale. kernels/ computes the same.

Sums of products are exact integers, so that only the float epilogues (a handful of roundings) may differ between this
file and kernels/. Rounding is to the nearest, ties to even. Symmetric "absmax" quantisation, Dettmers et al. 2022,
arXiv 2208.07339, sec. 2: q = round(127 x / max|x|); one constant per row of activations ("token-wise") and per row or
group of 32 of weights ("group-wise"), as in ZeroQuant, Yao et al. 2022, arXiv 2206.01861.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError
from edge.reading.ops.arrays import BAD_ARGUMENT, F32, NOTHING_ALLOWED, Weights, describe, f32, finite, head_width
from edge.reading.ops.quantised import (
    GREATEST_SUMMED,
    GROUP,
    Matrix,
    MatrixQ4,
    MatrixQ8,
    QuantisedWeights,
    matrix_names,
    once_per_image,
)
from edge.reading.ops.shape import DecoderShape

LEAST_SCALED = np.float32(1e-30)
"""A row or group of no greater magnitude than this becomes zeros of scale 0."""

ONE_127TH = np.float32(1.0) / np.float32(127.0)


def _absmax(x: F32) -> tuple[NDArray[np.int8], F32]:
    """(..., width) -> int8 (..., width) and scales (...)."""
    magnitude: F32 = np.abs(x).max(axis=-1)
    scaled = magnitude >= LEAST_SCALED
    with np.errstate(all="ignore"):
        inverse = np.where(scaled, np.float32(127.0) / magnitude, np.float32(0.0)).astype(np.float32)
        values: NDArray[np.int8] = np.rint(x * inverse[..., None]).astype(np.int8)
    return values, np.where(scaled, magnitude * ONE_127TH, np.float32(0.0)).astype(np.float32)


def quantise_q8(x: F32) -> tuple[NDArray[np.int8], F32]:
    """Per row: values = rint(x * (127 / m)), scale = m * (1/127), m the row's greatest magnitude.

    x: (rows, width); returns int8 (rows, width) and f32 (rows,).
    """
    return _absmax(finite("quantise_q8", f32("x", x, None, None)))


def _groups(x: NDArray[Any]) -> NDArray[Any]:
    """(rows, columns) -> (rows, ceil(columns / 32), 32), zeros after the last column."""
    rows, columns = x.shape
    padded = np.zeros((rows, -(-columns // GROUP) * GROUP), x.dtype)
    padded[:, :columns] = x
    return padded.reshape(rows, -1, GROUP)


def quantise_weights_q8(weight: F32) -> MatrixQ8:
    """A scale per row.  weight: (rows, columns)."""
    return MatrixQ8(*quantise_q8(weight))


def quantise_weights_q4(weight: F32) -> MatrixQ4:
    """Round to nearest, a binary16 scale per row and group of 32: the value of greatest magnitude becomes -8.

    weight: (rows, columns). Loses too much for a decoder without training for it: GPTQ or quantisation-aware training
    give the same MatrixQ4 with better numbers.
    """
    groups = _groups(finite("quantise_weights_q4", f32("weight", weight, None, None)))
    extreme = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[..., None], axis=-1)
    with np.errstate(over="ignore"):
        scales = (extreme[..., 0] / np.float32(-8.0)).astype(np.float16)
    finite("quantise_weights_q4", scales.astype(np.float32))
    with np.errstate(all="ignore"):
        inverse = np.where(scales != 0, np.float32(1.0) / scales.astype(np.float32), np.float32(0.0))
        nibbles = np.clip(np.rint(groups * inverse[..., None]) + 8, 0, 15).astype(np.uint8)
    flat = nibbles.reshape(weight.shape[0], -1)[:, : -(-weight.shape[1] // 2) * 2]
    return MatrixQ4(np.ascontiguousarray(flat[:, 0::2] | flat[:, 1::2] << 4), scales, weight.shape[1])


def unpacked(matrix: MatrixQ4) -> NDArray[np.int8]:
    """The nibbles less 8: (rows, columns)."""
    both = np.stack([matrix.values & 15, matrix.values >> 4], axis=-1).reshape(matrix.shape[0], -1)
    values: NDArray[np.int8] = both[:, : matrix.columns].astype(np.int8) - np.int8(8)
    return values


def dequantised(matrix: Matrix) -> F32:
    """W as float32: (rows, columns)."""
    if isinstance(matrix, MatrixQ8):
        return matrix.values.astype(np.float32) * matrix.scales[:, None]
    scales = np.repeat(matrix.scales.astype(np.float32), GROUP, axis=1)[:, : matrix.columns]
    return unpacked(matrix).astype(np.float32) * scales


def _fused(a: F32, b: F32, c: F32) -> F32:
    """a * b + c in one rounding (two, the first to 53 bits: rarely another result)."""
    return (a.astype(np.float64) * b + c).astype(np.float32)


def linear_q8(x: F32, matrix: MatrixQ8, bias: F32 | None) -> F32:
    """y[t, r] = fma(sum_k q[t, k] W[r, k], scale_W[r] * scale_x[t], b[r]); the sum is an exact integer.

    x: (rows, inputs); returns (rows, outputs).
    """
    x = f32("x", x, None, matrix.shape[1])
    check_summed("inputs", matrix.shape[1])
    int8("values", matrix.values, *matrix.shape)
    values, scales = _absmax(finite("linear_q8", x))
    dots = (values.astype(np.int32) @ matrix.values.T.astype(np.int32)).astype(np.float32)
    with np.errstate(all="ignore"):
        added = np.zeros(matrix.shape[0], np.float32) if bias is None else f32("bias", bias, matrix.shape[0])
        return finite("linear_q8", _fused(dots, matrix.scales * scales[:, None], added))


def linear_q4(x: F32, matrix: MatrixQ4, bias: F32 | None) -> F32:
    """x quantised per group of 32; y = b + sum over groups, in order, by fma, of dot_g (scale_W[r, g] scale_x[t, g]).

    x: (rows, inputs); returns (rows, outputs).
    """
    x = f32("x", x, None, matrix.shape[1])
    values, scales = _absmax(_groups(finite("linear_q4", x)))
    weights = _groups(unpacked(matrix))
    y = np.zeros((x.shape[0], matrix.shape[0]), np.float32)
    with np.errstate(all="ignore"):
        for g in range(scales.shape[1]):
            dots = (values[:, g].astype(np.int32) @ weights[:, g].T.astype(np.int32)).astype(np.float32)
            y = _fused(dots, matrix.scales[:, g].astype(np.float32) * scales[:, g, None], y)
        return finite("linear_q4", y if bias is None else y + f32("bias", bias, matrix.shape[0]))


def linear_quantised(x: F32, matrix: Matrix, bias: F32 | None) -> F32:
    """linear_q8 or linear_q4, by the matrix."""
    return linear_q8(x, matrix, bias) if isinstance(matrix, MatrixQ8) else linear_q4(x, matrix, bias)


def check_summed(name: str, count: int) -> None:
    """BackendError `kernels.bad-argument` if `count` products of int8 may not fit into a sum of 32 bits."""
    if count > GREATEST_SUMMED:
        raise BackendError(
            f"expected {name} of at most {GREATEST_SUMMED} int8 to a sum, got {count}", code=BAD_ARGUMENT
        )


def int8(name: str, array: NDArray[Any], *shape: int) -> NDArray[np.int8]:
    """`array` itself if it is a C-contiguous int8 array of `shape`."""
    if isinstance(array, np.ndarray) and array.dtype == np.int8 and array.flags.c_contiguous and array.shape == shape:
        if (array == -128).any():
            raise BackendError(f"expected {name} of -127 to 127, got -128", code=BAD_ARGUMENT)
        return array
    raise BackendError(
        f"expected {name} as a contiguous int8 array of shape {shape}, got {describe(array)}", code=BAD_ARGUMENT
    )


def _scores(query: F32, keys: NDArray[np.int8], key_scales: F32, heads: int) -> F32:
    """(heads, tokens): (q . k) * (scale_k * (scale_q / sqrt(dh))), q in int8 per head."""
    dh = head_width(query.size, heads)
    values, scales = _absmax(query.reshape(heads, dh))
    dots = np.einsum("hd,thd->ht", values.astype(np.int32), keys.reshape(-1, heads, dh).astype(np.int32))
    root = np.float32(1.0) / np.sqrt(np.float32(dh))
    scores: F32 = dots.astype(np.float32) * (key_scales.T * (scales * root)[:, None])
    return scores


def self_attention_q8(
    query: F32, keys: NDArray[np.int8], key_scales: F32, values: NDArray[np.int8], value_scales: F32, heads: int
) -> F32:
    """softmax(q K^T / sqrt(dh)) V per head over int8 rows, the last of which is the token's own.

    e = exp(s - max s);  p = e * scale_v, quantised with one scale per head;  y = (p V) * (scale_p / sum e).
    query: (d,); keys, values: (tokens, d) int8; key_scales, value_scales: (tokens, heads); returns (d,).
    """
    width = f32("query", query, None).size
    dh = head_width(width, heads)
    tokens = f32("key_scales", key_scales, None, heads).shape[0]
    check_summed("tokens and width", max(tokens, width))
    keys, values = int8("keys", keys, tokens, width), int8("values", values, tokens, width)
    value_scales = f32("value_scales", value_scales, tokens, heads)
    operation = "self_attention_q8"
    for array in (query, key_scales, value_scales):
        finite(operation, array)
    with np.errstate(all="ignore"):
        scores = finite(operation, _scores(query, keys, key_scales, heads))
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares, scales = _absmax(powers * value_scales.T)
        mixed = np.einsum("ht,thd->hd", shares.astype(np.int32), values.reshape(-1, heads, dh).astype(np.int32))
        factor = scales / powers.sum(axis=1, dtype=np.float64).astype(np.float32)
        return finite(operation, (mixed.astype(np.float32) * factor[:, None]).reshape(width))


def gated_cross_attention_q8(
    a: F32,
    query: F32,
    keys: NDArray[np.int8],
    key_scales: F32,
    values: NDArray[np.int8],
    value_scales: F32,
    bias: F32 | None,
    gate_weight: F32,
    gate_bias: float,
    gate_scale: float,
    heads: int,
) -> tuple[F32, F32]:
    """reference.gated_cross_attention_f32 over int8 keys and values, the softmax in 1/127 of its greatest.

    p = rint(127 exp(s - max s)), 0..127;  c = (p V) * (scale_v / sum p): the shares used add up to exactly one.
    a, query, gate_weight: (d,); keys, values: (n, d) int8; key_scales: (n, heads); value_scales: (d,); bias: (n,) or
    None. Returns (d,) and the shares averaged over the heads (n,).
    """
    width = f32("a", a, None).size
    dh = head_width(width, heads)
    query, gate_weight = f32("query", query, width), f32("gate_weight", gate_weight, width)
    count = f32("key_scales", key_scales, None, heads).shape[0]
    check_summed("tokens and width", max(count, width))
    keys, values = int8("keys", keys, count, width), int8("values", values, count, width)
    value_scales = f32("value_scales", value_scales, width)
    operation = "gated_cross_attention_q8"
    for array in (query, key_scales, value_scales):
        finite(operation, array)
    with np.errstate(all="ignore"):
        scores = finite(operation, _scores(query, keys, key_scales, heads))
        if bias is not None:
            bias = f32("bias", bias, count)
            if np.isnan(bias).any() or np.isposinf(bias).any():
                finite(operation, bias)
            if np.isneginf(bias).all():
                raise BackendError(
                    f"expected at least one visible key in {operation}, got a bias of -inf on all", code=NOTHING_ALLOWED
                )
            scores = scores + bias
        shares = np.rint(np.exp(scores - scores.max(axis=1, keepdims=True)) * np.float32(127.0)).astype(np.int32)
        sums = shares.sum(axis=1).astype(np.float32)
        mixed = np.einsum("ht,thd->hd", shares, values.reshape(-1, heads, dh).astype(np.int32)).astype(np.float32)
        c = (mixed * (value_scales.reshape(heads, dh) * (np.float32(1.0) / sums)[:, None])).reshape(width)
        gate = np.tanh(gate_weight @ a + np.float32(gate_bias)) * np.float32(gate_scale)
        return finite(operation, a + gate * c), (shares / sums[:, None]).mean(axis=0).astype(np.float32)


def quantise_decoder(shape: DecoderShape, weights: Weights, precision: str) -> QuantisedWeights:
    """Checked float weights (shape.check_weights) in "q8", or in "q4" with the once-per-image matrices in int8."""
    matrices: dict[str, Matrix] = {}
    for matrix_name in matrix_names(shape):
        four = precision == "q4" and not once_per_image(matrix_name)
        matrices[matrix_name] = (quantise_weights_q4 if four else quantise_weights_q8)(weights[matrix_name])
    return QuantisedWeights({n: array for n, array in weights.items() if n not in matrices}, matrices)
