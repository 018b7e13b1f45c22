"""The definition of the selective scan in numpy: the mixer of the Mamba encoder, over a grid in four directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError
from edge.reading.ops.arrays import BAD_ARGUMENT, F32, NOT_FINITE, f32, finite

DIRECTIONS = 4
GREATEST_STATES = 64
GREATEST_DECAY = 88.0
"""delta A beyond it counts as an overflow: e to a greater power is no float32."""


def scan_order(height: int, width: int) -> NDArray[np.int64]:
    """(4, height * width): tokens, row-major, in the order of rows forward, backward, columns forward, backward."""
    rows = np.arange(height * width).reshape(height, width)
    columns = rows.T.ravel()
    return np.stack([rows.ravel(), rows.ravel()[::-1], columns, columns[::-1]])


def check_scan(x: F32, delta: F32, a: F32, b: F32, c: F32, d: F32, height: int, width: int) -> tuple[int, int]:
    """Channels and states, or BackendError `kernels.bad-argument`."""
    tokens = height * width
    channels = f32("x", x, DIRECTIONS, tokens, None).shape[2]
    states = f32("a", a, DIRECTIONS, channels, None).shape[2]
    f32("delta", delta, DIRECTIONS, tokens, channels)
    f32("b", b, DIRECTIONS, tokens, states)
    f32("c", c, DIRECTIONS, tokens, states)
    f32("d", d, DIRECTIONS, channels)
    if states > GREATEST_STATES:
        raise BackendError(f"expected states of 1 to {GREATEST_STATES}, got {states}", code=BAD_ARGUMENT)
    return channels, states


def selective_scan_f32(x: F32, delta: F32, a: F32, b: F32, c: F32, d: F32, height: int, width: int) -> F32:
    """Per direction s_t = exp(delta_t A) s_(t-1) + delta_t B_t x_t, y_t = C_t . s_t + D x_t; the four averaged.

    Gu & Dao 2023, arXiv 2312.00752, eq. 2, discretised as in their code (zero-order hold for A, Euler's step for B);
    four directions with parameters of their own, averaged: MambaXray-VL's scan (arXiv 2410.00379). Tokens are numbered
    row-major whatever the direction. x, delta (after softplus): (4, n, channels); a: (4, channels, states), negative in
    practice; b, c: (4, n, states); d: (4, channels); n = height * width. States in float64. Returns (n, channels).
    """
    channels, states = check_scan(x, delta, a, b, c, d, height, width)
    for array in (x, delta, a, b, c, d):
        finite("selective_scan_f32", array)
    sums = np.zeros((height * width, channels))
    with np.errstate(all="ignore"):
        for k, order in enumerate(scan_order(height, width)):
            state = np.zeros((channels, states))
            for t in order:
                step, read = delta[k, t].astype(np.float64)[:, None], x[k, t].astype(np.float64)[:, None]
                if float((step * a[k]).max()) > GREATEST_DECAY:
                    raise BackendError(
                        f"expected delta A of at most {GREATEST_DECAY:g} in selective_scan_f32, got more",
                        code=NOT_FINITE,
                    )
                state = np.exp(step * a[k]) * state + step * read * b[k, t]
                sums[t] += state @ c[k, t] + d[k] * read[:, 0]
        return finite("selective_scan_f32", (sums / DIRECTIONS).astype(np.float32))
