"""The definitions of SwiGLU and of a layer's whole cross-attention in numpy; reference.py has the conventions."""

from __future__ import annotations

import numpy as np

from edge.reading.ops.arrays import F32, f32, finite, head_width
from edge.reading.ops.reference import gated_cross_attention_f32, linear_f32


def swiglu_f32(gate: F32, up: F32) -> F32:
    """Swish_1(gate) * up, Swish_1(g) = g / (1 + e^-g).  Shazeer 2020, arXiv 2002.05202, eq. 5.

    gate = x W + b and up = x V + c of that equation: (count,); returns (count,).
    """
    gate = finite("swiglu_f32", f32("gate", gate, None))
    up = finite("swiglu_f32", f32("up", up, gate.size))
    with np.errstate(all="ignore"):
        power: F32 = np.exp(-gate)
        y: F32 = gate / (np.float32(1.0) + power) * up
    return finite("swiglu_f32", y)


def fused_cross_attention_f32(
    x: F32,
    h: F32,
    a: F32,
    query_weight: F32,
    query_bias: F32,
    keys: F32,
    values: F32,
    bias: F32 | None,
    gate_weight: F32,
    gate_bias: float,
    gate_scale: float,
    out_weight: F32,
    out_bias: F32,
    heads: int,
) -> tuple[F32, F32]:
    """x + W_o (a + g c) + b_o: reference.gated_cross_attention_f32 from the query q = W_q h + b_q to the residual.

    EMRRG, arXiv 2510.16776, fig. 2, with the bias on visual keys of arXiv 2512.16841.  x (residual stream), h (its
    LayerNorm), a (self-attention), query_bias, gate_weight, out_bias: (d,); query_weight, out_weight: (d, d); keys,
    values: (n, d); bias: (n,) or None.  Returns (d,) and the softmax averaged over the heads (n,).
    """
    x = f32("x", x, None)
    width = x.size
    head_width(width, heads)
    h = f32("h", h, width)
    query_weight, query_bias = f32("query_weight", query_weight, width, width), f32("query_bias", query_bias, width)
    out_weight, out_bias = f32("out_weight", out_weight, width, width), f32("out_bias", out_bias, width)
    query = linear_f32(h[None, :], query_weight, query_bias)[0]
    gate = gate_weight, gate_bias, gate_scale
    mixed, attention = gated_cross_attention_f32(f32("a", a, width), query, keys, values, bias, *gate, heads)
    with np.errstate(all="ignore"):
        y = x + linear_f32(mixed[None, :], out_weight, out_bias)[0]
    return finite("fused_cross_attention_f32", y), attention
