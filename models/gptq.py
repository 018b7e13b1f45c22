"""Rounding a matrix to int4 so that its outputs change least: GPTQ, Frantar et al. 2022, arXiv 2210.17323, Algorithm 1.

Columns are rounded one after another; what a column loses is made up for by those not rounded yet, as the inverse of
the Hessian H = X^T X of the layer's inputs says. Scales belong to groups of 32 columns (`edge.reading.ops.quantised`)
and are chosen when a group is reached, from the weights as they then are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.reading.ops.arrays import F32
from edge.reading.ops.quantised import GROUP, MatrixQ4

F64 = NDArray[np.float64]

DAMPING = 0.01  # share of the mean diagonal added to it, section 4
SHRINKS = np.linspace(1.0, 0.7, 16)  # of the scale that just reaches the greatest weight


def gptq(weight: F32, hessian: F64) -> MatrixQ4:
    """weight: (rows, columns); hessian: (columns, columns), sum over inputs of x x^T. Columns divisible by 32."""
    rows, columns = weight.shape
    if columns % GROUP or hessian.shape != (columns, columns):
        raise ValueError(f"expected columns in groups of {GROUP} and a square Hessian, got {columns}, {hessian.shape}")
    left = weight.astype(np.float64)
    upper = _inverse_upper(hessian)
    importance = 1.0 / np.diag(upper) ** 2
    nibbles = np.zeros((rows, columns), np.uint8)
    scales = np.zeros((rows, columns // GROUP), np.float16)
    for start in range(0, columns, GROUP):
        group = slice(start, start + GROUP)
        scale = _scales(left[:, group], importance[group])
        scales[:, start // GROUP] = scale
        for k in range(start, start + GROUP):
            levels = _levels(left[:, k], scale)
            nibbles[:, k] = levels + 8
            error = (left[:, k] - levels * scale.astype(np.float64)) / upper[k, k]
            left[:, k:] -= error[:, None] * upper[k, k:]
    return MatrixQ4(np.ascontiguousarray(nibbles[:, 0::2] | nibbles[:, 1::2] << 4), scales, columns)


def _inverse_upper(hessian: F64) -> F64:
    """Upper Cholesky factor of the inverse of the damped Hessian; inputs that are always zero count as one."""
    h = hessian.copy()
    h[np.diag_indices_from(h)] = np.where(np.diag(h) == 0, 1.0, np.diag(h))
    h[np.diag_indices_from(h)] += DAMPING * np.diag(h).mean()
    upper: F64 = np.linalg.cholesky(np.linalg.inv(h)).T
    return upper


def _levels(column: F64, scale: NDArray[np.float16]) -> NDArray[np.int8]:
    """Multiples of the scale, -8 to 7."""
    wide = scale.astype(np.float64)
    inverse = np.divide(1.0, wide, out=np.zeros_like(wide), where=wide != 0)
    levels: NDArray[np.int8] = np.clip(np.rint(column * inverse), -8, 7).astype(np.int8)
    return levels


def _scales(group: F64, importance: F64) -> NDArray[np.float16]:
    """(rows, 32) -> a scale per row: of SHRINKS, with the extreme at -8, the one of least weighted squared error."""
    at = np.abs(group).argmax(axis=1)
    extreme = np.take_along_axis(group, at[:, None], axis=1)[:, 0]
    best = np.zeros(len(group), np.float16)
    least = np.full(len(group), np.inf)
    for shrink in SHRINKS:
        scale = (extreme * shrink / -8.0).astype(np.float16)
        rounded = np.stack([_levels(group[:, k], scale) for k in range(group.shape[1])], axis=1)
        error = (((group - rounded * scale.astype(np.float64)[:, None]) ** 2) * importance).sum(axis=1)
        better = error < least
        best, least = np.where(better, scale, best), np.where(better, error, least)
    return best
