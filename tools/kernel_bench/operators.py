"""The single operators with random arguments at the decoders' shapes, and what one call has to read and multiply.

Each call goes through Python and ctypes, which cost 5 to 10 us: it is the decoder's step (`steps.py`) that a box runs.

`call(kernels)`: one call of a set of ours, or of numpy's definitions, which have the same functions. `torch`: the same
work in PyTorch, made only where it is installed; None where PyTorch has no such operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.reading.ops.reference_quantised import quantise_q8, quantise_weights_q4, quantise_weights_q8
from tools.decoder_bench.sizes import Size

TEXT_TOKENS = 32  # in the cache: the middle of a report
GRID = (14, 14)
STATES = 16
MASKS = 3
SIGMA = (2.2, 1.1, 0.35)
F32 = 4

Torch = Callable[[Any], Callable[[], Any]]  # torch -> one call


@dataclass(frozen=True)
class Operator:
    """bytes: read once in a call; products: multiplications. packs: the call packs its weights anew, so that it says
    nothing about a decoder, which keeps them packed."""

    name: str
    shape: str
    call: Callable[[Any], Any]
    bytes: int
    products: int
    torch: Torch | None = None
    packs: bool = False


def operators(size: Size) -> Iterator[Operator]:
    """All of them at one decoder's shapes."""
    generator = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    shape = size.shape
    yield from _rows(floats, shape.width, shape.ffn)
    for outputs, inputs in ((shape.width, shape.width), (shape.ffn, shape.width), (shape.vocabulary, shape.width)):
        yield from _linear(floats, outputs, inputs)
    yield from _attention(floats, shape.width, shape.heads, size.image_tokens, shape.positions)
    yield from _choice(floats, generator, shape.vocabulary)
    yield from _image(floats, generator, shape.width)


def _tensors(torch: Any, *arrays: np.ndarray) -> list[Any]:
    return [torch.from_numpy(array) for array in arrays]


def _rows(floats: Any, width: int, ffn: int) -> Iterator[Operator]:
    x, weight, bias, wide = floats(1, width), floats(width), floats(width), floats(ffn)

    def norm(torch: Any) -> Callable[[], Any]:
        a, w, b = _tensors(torch, x, weight, bias)
        return lambda: torch.nn.functional.layer_norm(a, (width,), w, b, 1e-5)

    def gelu(torch: Any) -> Callable[[], Any]:
        (a,) = _tensors(torch, wide)
        return lambda: torch.nn.functional.gelu(a, approximate="tanh")

    yield Operator(
        "layer_norm_f32", f"{width}", lambda k: k.layer_norm_f32(x, weight, bias), 3 * F32 * width, 2 * width, norm
    )
    yield Operator("gelu_tanh_f32", f"{ffn}", lambda k: k.gelu_tanh_f32(wide), F32 * ffn, 0, gelu)
    gate, up = floats(ffn), floats(ffn)

    def swiglu(torch: Any) -> Callable[[], Any]:
        g, u = _tensors(torch, gate, up)
        return lambda: torch.nn.functional.silu(g) * u

    yield Operator("swiglu_f32", f"{ffn}", lambda k: k.swiglu_f32(gate, up), 2 * F32 * ffn, 2 * ffn, swiglu)
    yield Operator("quantise_q8", f"{width}", lambda k: k.quantise_q8(x), F32 * width, width)


def _linear(floats: Any, outputs: int, inputs: int) -> Iterator[Operator]:
    x, weight, bias = floats(1, inputs), floats(outputs, inputs), floats(outputs)
    q8, q4 = quantise_weights_q8(weight), quantise_weights_q4(weight)
    shape, products = f"{outputs} x {inputs}", outputs * inputs

    def linear(torch: Any) -> Callable[[], Any]:
        a, w, b = _tensors(torch, x, weight, bias)
        return lambda: torch.nn.functional.linear(a, w, b)

    yield Operator("linear_f32", shape, lambda k: k.linear_f32(x, weight, bias), F32 * products, products, linear)
    yield Operator(
        "linear_q8", shape, lambda k: k.linear_q8(x, q8, bias), products + 8 * outputs, products, None, packs=True
    )
    yield Operator(
        "linear_q4", shape, lambda k: k.linear_q4(x, q4, bias), products * 18 // 32, products, None, packs=True
    )


def _attention(floats: Any, width: int, heads: int, tokens: int, positions: int) -> Iterator[Operator]:
    query, key, value, a, gate = (floats(width) for _ in range(5))
    cache_keys, cache_values = floats(positions, width), floats(positions, width)
    keys, values, bias = floats(tokens, width), floats(tokens, width), floats(tokens)
    at, each = TEXT_TOKENS - 1, width // heads

    def own(torch: Any) -> Callable[[], Any]:
        parts = (query[None], cache_keys[:TEXT_TOKENS], cache_values[:TEXT_TOKENS])
        q, k, v = (one.reshape(-1, heads, each).transpose(0, 1).contiguous() for one in _tensors(torch, *parts))
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)

    def cross(torch: Any) -> Callable[[], Any]:
        q, k, v = (
            one.reshape(-1, heads, each).transpose(0, 1).contiguous()
            for one in _tensors(torch, query[None], keys, values)
        )
        b, s, g = _tensors(torch, bias, a, gate)

        def call() -> Any:
            c = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=b).reshape(width)
            return s + torch.sigmoid(torch.dot(g, s)) * c

        return call

    yield Operator(
        "self_attention_step_f32",
        f"{TEXT_TOKENS} x {width}",
        lambda k: k.self_attention_step_f32(query, key, value, cache_keys, cache_values, at, heads),
        2 * F32 * TEXT_TOKENS * width,
        2 * TEXT_TOKENS * width,
        own,
    )
    yield Operator(
        "gated_cross_attention_f32",
        f"{tokens} x {width}",
        lambda k: k.gated_cross_attention_f32(a, query, keys, values, bias, gate, 0.1, 1.0, heads),
        2 * F32 * tokens * width,
        2 * tokens * width,
        cross,
    )
    yield _fused_cross(floats, width, heads, tokens)
    small = [_by_head(floats(TEXT_TOKENS, width), heads) for _ in range(2)]
    yield Operator(
        "self_attention_q8",
        f"{TEXT_TOKENS} x {width}",
        lambda k: k.self_attention_q8(query, *small[0], *small[1], heads),
        2 * TEXT_TOKENS * width,
        2 * TEXT_TOKENS * width,
    )
    image_keys, (by_channel, channel_scales) = _by_head(keys, heads), quantise_q8(np.ascontiguousarray(values.T))
    image_values = np.ascontiguousarray(by_channel.T)
    yield Operator(
        "gated_cross_attention_q8",
        f"{tokens} x {width}",
        lambda k: k.gated_cross_attention_q8(
            a, query, *image_keys, image_values, channel_scales, bias, gate, 0.1, 1.0, heads
        ),
        2 * tokens * width,
        2 * tokens * width,
        None,
        packs=True,
    )


def _fused_cross(floats: Any, width: int, heads: int, tokens: int) -> Operator:
    x, h, a, query_bias, gate, out_bias = (floats(width) for _ in range(6))
    query_weight, out_weight = floats(width, width), floats(width, width)
    keys, values, bias = floats(tokens, width), floats(tokens, width), floats(tokens)
    numbers = gate, 0.1, 1.0

    def torch_call(torch: Any) -> Callable[[], Any]:
        parts = (x, h, a, query_weight, query_bias, bias, gate, out_weight, out_bias)
        residual, normed, own, wq, bq, b, g, wo, bo = _tensors(torch, *parts)
        k, v = (
            one.reshape(-1, heads, width // heads).transpose(0, 1).contiguous() for one in _tensors(torch, keys, values)
        )
        functional = torch.nn.functional

        def call() -> Any:
            q = functional.linear(normed, wq, bq).reshape(heads, 1, width // heads)
            c = functional.scaled_dot_product_attention(q, k, v, attn_mask=b).reshape(width)
            return residual + functional.linear(own + torch.sigmoid(torch.dot(g, own)) * c, wo, bo)

        return call

    return Operator(
        "fused_cross_attention_f32",
        f"{tokens} x {width}",
        lambda k: k.fused_cross_attention_f32(
            x, h, a, query_weight, query_bias, keys, values, bias, *numbers, out_weight, out_bias, heads
        ),
        F32 * (2 * tokens * width + 2 * width * width),
        2 * tokens * width + 2 * width * width,
        torch_call,
    )


def _by_head(x: np.ndarray, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 (tokens, width) with a scale for each token and head (tokens, heads)."""
    tokens, width = x.shape
    values, scales = quantise_q8(np.ascontiguousarray(x.reshape(tokens * heads, width // heads)))
    return values.reshape(tokens, width), scales.reshape(tokens, heads)


def _choice(floats: Any, generator: np.random.Generator, vocabulary: int) -> Iterator[Operator]:
    logits, allowed = floats(vocabulary), generator.random(vocabulary) < 0.5

    def best(torch: Any) -> Callable[[], Any]:
        a, mask = _tensors(torch, logits, allowed)
        return lambda: torch.log_softmax(a.masked_fill(~mask, float("-inf")), 0).max(0)

    def first(torch: Any) -> Callable[[], Any]:
        a, mask = _tensors(torch, logits, allowed)
        return lambda: torch.log_softmax(a.masked_fill(~mask, float("-inf")), 0).topk(4)

    size, read = f"{vocabulary}", (F32 + 1) * vocabulary
    yield Operator("masked_argmax_f32", size, lambda k: k.masked_argmax_f32(logits, allowed), read, 0, best)
    yield Operator("masked_top_k_f32", f"{size}, k 4", lambda k: k.masked_top_k_f32(logits, allowed, 4), read, 0, first)


def _image(floats: Any, generator: np.random.Generator, channels: int) -> Iterator[Operator]:
    height, width = GRID
    masks = generator.random((MASKS, height, width)).astype(np.float32)
    grid = masks[0]
    yield Operator("gaussian_blur_f32", f"{height} x {width}", lambda k: k.gaussian_blur_f32(grid, 1.1), grid.nbytes, 0)
    yield Operator(
        "anatomical_bias_f32",
        f"{MASKS} x {height} x {width}",
        lambda k: k.anatomical_bias_f32(masks, SIGMA, 1.0),
        masks.nbytes,
        0,
    )
    tokens = height * width
    x, delta = floats(4, tokens, channels), np.abs(floats(4, tokens, channels))
    a, d = -np.abs(floats(4, channels, STATES)), floats(4, channels)
    b, c = floats(4, tokens, STATES), floats(4, tokens, STATES)
    scanned = sum(one.nbytes for one in (x, delta, a, b, c, d))
    yield Operator(
        "selective_scan_f32",
        f"{height} x {width} x {channels}, {STATES} states",
        lambda k: k.selective_scan_f32(x, delta, a, b, c, d, height, width),
        scanned,
        4 * tokens * channels * STATES * 3,
    )
