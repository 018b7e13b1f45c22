"""The living definition of every operator, in numpy: papers, equations, shapes. kernels/ computes the same numbers.

Arrays are C-contiguous float32 unless said otherwise; d = width, dh = d / heads, n = image tokens, ffn = hidden width.
Statistics (LayerNorm, softmax sums, blur) are taken in float64 and rounded once. Every function returns finite numbers
or raises BackendError: `kernels.not-finite` (NaN, infinity or overflow), `kernels.nothing-allowed` (all keys or tokens
masked out), `kernels.bad-argument` (dtype, shape, layout, bounds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError
from edge.reading.ops.arrays import BAD_ARGUMENT, F32, NOTHING_ALLOWED, Weights, f32, finite, head_width
from edge.reading.ops.shape import DecoderShape

EPSILON = 1e-5
FLAT_RANGE = 1e-6
"""A map whose values differ by less than this has no shape to rescale: it becomes zeros."""

ROOT_TWO_OVER_PI = np.float32(np.sqrt(2.0 / np.pi))

name = "numpy"


def layer_norm_f32(x: F32, weight: F32, bias: F32, epsilon: float = EPSILON) -> F32:
    """LayerNorm per row: (x - mean) / sqrt(var + epsilon) * weight + bias, biased variance.

    Ba et al. 2016, arXiv 1607.06450, eq. 3-4.  x: (rows, d); weight, bias: (d,); returns (rows, d).
    """
    x = f32("x", x, None, None)
    width = x.shape[1]
    weight, bias = f32("weight", weight, width), f32("bias", bias, width)
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        centred = wide - wide.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + epsilon)
        return finite("layer_norm_f32", (centred / deviation).astype(np.float32) * weight + bias)


def linear_f32(x: F32, weight: F32, bias: F32 | None) -> F32:
    """y = x W^T + b in torch's layout.

    x: (rows, inputs); weight: (outputs, inputs); bias: (outputs,) or None; returns (rows, outputs).
    """
    x = f32("x", x, None, None)
    weight = f32("weight", weight, None, x.shape[1])
    with np.errstate(all="ignore"):
        y: F32 = x @ weight.T
        if bias is not None:
            y = y + f32("bias", bias, weight.shape[0])
    return finite("linear_f32", y)


def gelu_tanh_f32(x: F32) -> F32:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).  Hendrycks & Gimpel 2016, arXiv 1606.08415, sec. 2.

    x: (count,); returns (count,).
    """
    x = f32("x", x, None)
    with np.errstate(all="ignore"):
        inner: F32 = ROOT_TWO_OVER_PI * (x + np.float32(0.044715) * x * x * x)
        share: F32 = (np.tanh(inner) + np.float32(1.0)) * np.float32(0.5)
        return finite("gelu_tanh_f32", x * share)


def _softmax(operation: str, scores: F32, bias: F32 | None) -> F32:
    """softmax(scores + bias) over the last axis; a bias of -inf hides its key.  scores: (heads, n); bias: (n,)."""
    finite(operation, scores)
    if bias is not None:
        if np.isnan(bias).any() or np.isposinf(bias).any():
            finite(operation, bias)
        if np.isneginf(bias).all():
            raise BackendError(
                f"expected at least one visible key in {operation}, got a bias of -inf on all", code=NOTHING_ALLOWED
            )
        scores = scores + bias
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    total = weights.sum(axis=-1, keepdims=True, dtype=np.float64)
    shares: F32 = weights * (1.0 / total).astype(np.float32)
    return shares


def _heads(rows: F32, heads: int) -> F32:
    """(rows, d) -> (heads, rows, dh)"""
    return rows.reshape(rows.shape[0], heads, -1).transpose(1, 0, 2)


def self_attention_step_f32(
    query: F32, key: F32, value: F32, cache_keys: F32, cache_values: F32, position: int, heads: int
) -> F32:
    """One causal step: key and value become row `position` of the caches, the query attends to rows 0..position.

    Vaswani et al. 2017, arXiv 1706.03762, eq. 1 and sec. 3.2.2-3.2.3.  query, key, value: (d,);
    cache_keys, cache_values: (positions, d), written in place; returns the concatenated heads (d,).
    """
    query = f32("query", query, None)
    width = query.shape[0]
    dh = head_width(width, heads)
    key, value = f32("key", key, width), f32("value", value, width)
    cache_keys = f32("cache_keys", cache_keys, None, width)
    cache_values = f32("cache_values", cache_values, cache_keys.shape[0], width)
    if not 0 <= position < cache_keys.shape[0]:
        raise BackendError(f"expected a position of 0 to {cache_keys.shape[0] - 1}, got {position}", code=BAD_ARGUMENT)
    cache_keys[position], cache_values[position] = key, value
    operation, length = "self_attention_step_f32", position + 1
    with np.errstate(all="ignore"):
        scores = (_heads(cache_keys[:length], heads) @ query.reshape(heads, dh, 1))[..., 0] / np.float32(np.sqrt(dh))
        weights = _softmax(operation, scores, None)
        mixed = weights[:, None, :] @ _heads(cache_values[:length], heads)
    return finite(operation, mixed.reshape(width))


def gated_cross_attention_f32(
    a: F32,
    query: F32,
    keys: F32,
    values: F32,
    bias: F32 | None,
    gate_weight: F32,
    gate_bias: float,
    gate_scale: float,
    heads: int,
) -> tuple[F32, F32]:
    """a + g c; c = softmax(q K^T / sqrt(dh) + bias) V per head; g = tanh(gate_weight . a + gate_bias) gate_scale.

    The hybrid decoder layer of EMRRG, arXiv 2510.16776, fig. 2 (the query is the self-attention's, the gate a scalar
    per token with a learned scale that starts at zero); the bias on visual keys is that of arXiv 2512.16841.
    a, query, gate_weight: (d,); keys, values: (n, d); bias: (n,), the same for all heads, or None.
    Returns (d,) and the softmax averaged over the heads (n,).
    """
    a = f32("a", a, None)
    width = a.shape[0]
    dh = head_width(width, heads)
    query, gate_weight = f32("query", query, width), f32("gate_weight", gate_weight, width)
    keys = f32("keys", keys, None, width)
    values = f32("values", values, keys.shape[0], width)
    bias = None if bias is None else f32("bias", bias, keys.shape[0])
    operation = "gated_cross_attention_f32"
    with np.errstate(all="ignore"):
        scores = (_heads(keys, heads) @ query.reshape(heads, dh, 1))[..., 0] / np.float32(np.sqrt(dh))
        weights = _softmax(operation, scores, bias)
        c = (weights[:, None, :] @ _heads(values, heads)).reshape(width)
        gate = np.tanh(gate_weight @ a + np.float32(gate_bias)) * np.float32(gate_scale)
        return finite(operation, a + gate * c), weights.mean(axis=0)


def _rescaled(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = cells.max() - cells.min()
    if spread <= FLAT_RANGE:
        return np.zeros_like(cells)
    rescaled: NDArray[np.float64] = (cells - cells.min()) / spread
    return rescaled


def _blurred(grid: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    if not 0.0 <= sigma <= 1024.0:
        raise BackendError(f"expected sigma of 0 to 1024 grid cells, got {sigma}", code=BAD_ARGUMENT)
    radius = int(np.ceil(3.0 * sigma))
    if radius == 0:
        return grid
    taps = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    taps /= taps.sum()
    for axis in (1, 0):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (radius, radius)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(grid, padding, "reflect"), taps.size, axis)
        grid = windows @ taps
    return grid


def gaussian_blur_f32(grid: F32, sigma: float) -> F32:
    """Separable Gaussian of `sigma` grid cells, radius ceil(3 sigma), reflect padding without repeating the edge cell.

    grid: (height, width); returns the same shape. sigma 0 is the identity.
    """
    grid = finite("gaussian_blur_f32", f32("grid", grid, None, None))
    return _blurred(grid.astype(np.float64), float(np.float32(sigma))).astype(np.float32)


def anatomical_bias_f32(masks: F32, sigma: tuple[float, ...], strength: float) -> F32:
    """Layer-wise bias on visual keys: strength * minmax(blur(minmax(max over masks), sigma_l)), coarse to fine.

    The mask schedule of layer-wise anatomical attention, arXiv 2512.16841; unlike its code the bias is added in every
    decoding step, with the cache too.  masks: (count, height, width) in [0, 1]; sigma: one per layer in grid cells;
    returns (layers, height * width) in [0, strength].
    """
    masks = finite("anatomical_bias_f32", f32("masks", masks, None, None, None))
    sharp = _rescaled(masks.max(axis=0).astype(np.float64))
    layers = [_rescaled(_blurred(sharp, float(np.float32(s)))) for s in sigma]
    return (np.stack(layers).reshape(len(layers), -1) * float(np.float32(strength))).astype(np.float32)


def masked_argmax_f32(logits: F32, allowed: NDArray[np.bool_]) -> tuple[int, float]:
    """The allowed token of the greatest logit (lowest index on a tie) and its log-probability among the allowed ones.

    logits: (vocabulary,); allowed: (vocabulary,) bool.
    """
    logits = finite("masked_argmax_f32", f32("logits", logits, None))
    check_allowed(allowed, logits.shape[0])
    if not allowed.any():
        raise BackendError("expected at least one allowed token, got none", code=NOTHING_ALLOWED)
    candidates = np.where(allowed, logits.astype(np.float64), -np.inf)
    token = int(candidates.argmax())
    return token, float(np.float32(-np.log(np.exp(candidates - candidates[token]).sum())))


def masked_top_k_f32(logits: F32, allowed: NDArray[np.bool_], k: int) -> tuple[NDArray[np.int32], F32]:
    """The k allowed tokens of the greatest logits, best first (lowest index on a tie), and their log-probabilities.

    logits, allowed: as masked_argmax_f32; returns (k,) int32 and (k,) f32, -1 and -inf where fewer are allowed.
    """
    logits = finite("masked_top_k_f32", f32("logits", logits, None))
    check_allowed(allowed, logits.shape[0])
    check_k(k, logits.shape[0])
    _, log_probability = masked_argmax_f32(logits, allowed)
    candidates = np.where(allowed, logits.astype(np.float64), -np.inf)
    order = np.argsort(-candidates, kind="stable")[:k]
    logs = log_probability + candidates[order] - candidates.max()
    with np.errstate(over="ignore"):
        finite("masked_top_k_f32", logs[np.isfinite(logs)].astype(np.float32))
    return np.where(np.isneginf(logs), -1, order).astype(np.int32), logs.astype(np.float32)


def check_k(k: int, vocabulary: int) -> None:
    """BackendError `kernels.bad-argument` unless 1 <= k <= vocabulary."""
    if not 1 <= k <= vocabulary:
        raise BackendError(f"expected k of 1 to {vocabulary}, got {k}", code=BAD_ARGUMENT)


def check_allowed(allowed: NDArray[Any], vocabulary: int) -> None:
    """BackendError `kernels.bad-argument` unless `allowed` is a bool array (vocabulary,)."""
    if allowed.dtype != np.bool_ or allowed.shape != (vocabulary,):
        raise BackendError(
            f"expected allowed as a bool array of shape ({vocabulary},), got {allowed.dtype} of {allowed.shape}",
            code=BAD_ARGUMENT,
        )


@dataclass
class DecoderState:
    """What the steps of one image share.

    keys, values: (layers, positions, d); cross_keys, cross_values: (layers, n, d); bias: (layers, n).
    """

    keys: F32
    values: F32
    cross_keys: F32
    cross_values: F32
    bias: F32
    length: int = 0


def decoder_begin(shape: DecoderShape, weights: Weights, tokens: F32, bias: F32) -> DecoderState:
    """Cross keys and values of every layer, once per image; empty self-attention caches.

    tokens: (n, channels); bias: (layers, n).  vis = tokens W_vis^T + b_vis; [K_l | V_l] = W_kv LN1_l(vis).
    """
    tokens = f32("tokens", tokens, None, shape.channels)
    bias = f32("bias", bias, shape.layers, tokens.shape[0])
    vis = linear_f32(tokens, weights["vis.weight"], weights["vis.bias"])
    pairs = []
    for p in (f"layers.{layer}." for layer in range(shape.layers)):
        v = layer_norm_f32(vis, weights[p + "norm1.weight"], weights[p + "norm1.bias"])
        pairs.append(linear_f32(v, weights[p + "kv.weight"], weights[p + "kv.bias"]))
    both = np.stack(pairs)
    cache = np.zeros((2, shape.layers, shape.positions, shape.width), np.float32)
    cross_keys, cross_values = (np.ascontiguousarray(half) for half in np.split(both, 2, axis=-1))
    return DecoderState(cache[0], cache[1], cross_keys, cross_values, bias)


def decode_step(shape: DecoderShape, weights: Weights, state: DecoderState, token: int) -> tuple[F32, F32]:
    """Feed one token; the logits of the next (vocabulary,) and every layer's cross-attention map (layers, n).

    Pre-LN hybrid decoder (EMRRG, arXiv 2510.16776, fig. 2).  x = embed[token] + position[t]; per layer
    h = LN1(x);  q, k, u = W_q h, W_k h, W_v h;  a = self-attention;  x += W_o (a + g c) + b_o;
    x += W_down gelu(W_up LN2(x) + b_up) + b_down.  Logits = W_head LN(x) + b_head.
    Advances `state` by one position unless it raises.
    """
    if not 0 <= token < shape.vocabulary:
        raise BackendError(f"expected a token of 0 to {shape.vocabulary - 1}, got {token}", code=BAD_ARGUMENT)
    if state.length == shape.positions:
        raise BackendError(f"expected at most {shape.positions} steps, got one more", code="kernels.wrong-state")
    x = (weights["embed.weight"][token] + weights["position.weight"][state.length])[None, :]
    maps = []
    for layer in range(shape.layers):
        x, attention = _layer_step(shape, weights, state, layer, x)
        maps.append(attention)
    h = layer_norm_f32(x, weights["norm.weight"], weights["norm.bias"])
    logits = linear_f32(h, weights["head.weight"], weights["head.bias"])[0]
    state.length += 1
    return logits, np.stack(maps)


def _layer_step(shape: DecoderShape, weights: Weights, state: DecoderState, layer: int, x: F32) -> tuple[F32, F32]:
    p = f"layers.{layer}."
    h = layer_norm_f32(x, weights[p + "norm1.weight"], weights[p + "norm1.bias"])
    query, key, value = (linear_f32(h, weights[f"{p}{m}.weight"], weights[f"{p}{m}.bias"])[0] for m in "qkv")
    a = self_attention_step_f32(query, key, value, state.keys[layer], state.values[layer], state.length, shape.heads)
    mixed, attention = gated_cross_attention_f32(
        a,
        query,
        state.cross_keys[layer],
        state.cross_values[layer],
        state.bias[layer],
        weights[p + "gate.weight"][0],
        float(weights[p + "gate.bias"][0]),
        float(weights[p + "gate_scale"][0]),
        shape.heads,
    )
    x = x + linear_f32(mixed[None, :], weights[p + "out.weight"], weights[p + "out.bias"])
    h = layer_norm_f32(x, weights[p + "norm2.weight"], weights[p + "norm2.bias"])
    hidden = gelu_tanh_f32(linear_f32(h, weights[p + "up.weight"], weights[p + "up.bias"])[0])
    return x + linear_f32(hidden[None, :], weights[p + "down.weight"], weights[p + "down.bias"]), attention


class Session:
    """The decoder's state as an object: `begin` on an image, then `step` token by token."""

    def __init__(self, shape: DecoderShape, weights: Weights) -> None:
        self._shape, self._weights = shape, weights
        self._state: DecoderState | None = None

    def begin(self, tokens: F32, bias: F32) -> None:
        """tokens: (n, channels); bias: (layers, n)."""
        self._state = None
        self._state = decoder_begin(self._shape, self._weights, tokens, bias)

    def step(self, token: int) -> tuple[F32, F32]:
        """Logits (vocabulary,) and cross-attention maps (layers, n)."""
        if self._state is None:
            raise BackendError("expected begin before a step, got none", code="kernels.wrong-state")
        return decode_step(self._shape, self._weights, self._state, token)


def decoder(shape: DecoderShape, weights: Weights) -> Session:
    """A session over checked weights (shape.check_weights)."""
    return Session(shape, weights)
