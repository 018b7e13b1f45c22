"""The decoder over a whole prefix at once, without caches: the second, independent way to the same logits.

Tests hold it against `decode_step`; a bias, a position or a cache row that only one of the two sees shows up here.
"""

from __future__ import annotations

import numpy as np

from edge.reading.ops.arrays import F32, Weights, finite
from edge.reading.ops.reference import gelu_tanh_f32, layer_norm_f32, linear_f32
from edge.reading.ops.shape import DecoderShape


def sequence_logits(shape: DecoderShape, weights: Weights, tokens: F32, bias: F32, prefix: tuple[int, ...]) -> F32:
    """Logits after every token of `prefix`: (T, vocabulary).

    Equations of reference.decode_step with queries of all T positions in one matrix and a causal mask.
    tokens: (n, channels); bias: (layers, n); prefix: T token numbers.
    """
    vis = _linear(weights, "vis", tokens)
    x = weights["embed.weight"][list(prefix)] + weights["position.weight"][: len(prefix)]
    causal = np.where(np.tri(len(prefix), dtype=np.bool_), np.float32(0.0), np.float32(-np.inf))
    for layer in range(shape.layers):
        p = f"layers.{layer}."
        h, v = _norm(weights, p + "norm1", x), _norm(weights, p + "norm1", vis)
        query, key, value = (_linear(weights, p + matrix, h) for matrix in "qkv")
        visual_key, visual_value = np.split(_linear(weights, p + "kv", v), 2, axis=1)
        a = _attention(shape, query, key, value, causal)
        c = _attention(shape, query, visual_key, visual_value, bias[layer])
        gate = np.tanh(_linear(weights, p + "gate", a)) * weights[p + "gate_scale"]
        x = x + _linear(weights, p + "out", np.ascontiguousarray(a + gate * c))
        hidden = _linear(weights, p + "up", _norm(weights, p + "norm2", x))
        x = x + _linear(weights, p + "down", gelu_tanh_f32(hidden.ravel()).reshape(hidden.shape))
    return finite("sequence_logits", _linear(weights, "head", _norm(weights, "norm", x)))


def _linear(weights: Weights, name: str, x: F32) -> F32:
    return linear_f32(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(weights: Weights, name: str, x: F32) -> F32:
    return layer_norm_f32(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _attention(shape: DecoderShape, query: F32, key: F32, value: F32, added: F32) -> F32:
    """Multi-head attention; query: (T, d); key, value: (S, d); added to the scores: (T, S) or (S,)."""
    heads = []
    for rows in np.split(np.arange(shape.width), shape.heads):
        scores = query[:, rows] @ key[:, rows].T / np.float32(np.sqrt(rows.size)) + added
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append((shares / shares.sum(axis=1, keepdims=True)) @ value[:, rows])
    return np.concatenate(heads, axis=1)
