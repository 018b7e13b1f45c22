"""The quantised decoder composed of the operators in reference_quantised.py: what the fused step is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError
from edge.reading.ops.arrays import BAD_ARGUMENT, F32, f32
from edge.reading.ops.quantised import QuantisedWeights
from edge.reading.ops.reference import gelu_tanh_f32, layer_norm_f32
from edge.reading.ops.reference_quantised import (
    gated_cross_attention_q8,
    linear_quantised,
    quantise_q8,
    self_attention_q8,
)
from edge.reading.ops.shape import DecoderShape


@dataclass(frozen=True)
class CrossKeys:
    """One layer's image: keys, values (n, d) int8; key_scales (n, heads); value_scales (d,)."""

    keys: NDArray[np.int8]
    key_scales: F32
    values: NDArray[np.int8]
    value_scales: F32


@dataclass(frozen=True)
class TextCache:
    """One layer's text: keys, values (positions, d) int8; key_scales, value_scales (positions, heads)."""

    keys: NDArray[np.int8]
    key_scales: F32
    values: NDArray[np.int8]
    value_scales: F32

    @classmethod
    def empty(cls, shape: DecoderShape) -> TextCache:
        rows, heads = (shape.positions, shape.width), (shape.positions, shape.heads)
        return cls(
            np.zeros(rows, np.int8), np.zeros(heads, np.float32), np.zeros(rows, np.int8), np.zeros(heads, np.float32)
        )


class QuantisedSession:
    """`begin` on an image, then `step` token by token. Equations of reference.decode_step, operators in int8 and int4.

    The self-attention cache is int8 with a scale per token and head; the image's keys have one per token and head, its
    values one per channel.
    """

    def __init__(self, shape: DecoderShape, weights: QuantisedWeights) -> None:
        self._shape, self._weights = shape, weights
        self._image: list[CrossKeys] = []
        self._bias: F32 = np.empty((0, 0), np.float32)
        self._caches: list[TextCache] = []
        self._length = 0

    def begin(self, tokens: F32, bias: F32) -> None:
        """tokens: (n, channels); bias: (layers, n)."""
        self._image = []
        tokens = f32("tokens", tokens, None, self._shape.channels)
        self._bias = f32("bias", bias, self._shape.layers, tokens.shape[0])
        vis = self._linear("vis", tokens)
        layers = [self._cross_keys(self._linear(f"{p}kv", self._norm(f"{p}norm1", vis))) for p in self._prefixes()]
        self._image, self._caches, self._length = layers, [TextCache.empty(self._shape) for _ in layers], 0

    def step(self, token: int) -> tuple[F32, F32]:
        """Logits (vocabulary,) and cross-attention maps (layers, n)."""
        if not self._image:
            raise BackendError("expected begin before a step, got none", code="kernels.wrong-state")
        if not 0 <= token < self._shape.vocabulary:
            raise BackendError(f"expected a token of 0 to {self._shape.vocabulary - 1}, got {token}", code=BAD_ARGUMENT)
        if self._length == self._shape.positions:
            raise BackendError(
                f"expected at most {self._shape.positions} steps, got one more", code="kernels.wrong-state"
            )
        floats = self._weights.floats
        x = (floats["embed.weight"][token] + floats["position.weight"][self._length])[None, :]
        maps = []
        for layer in range(self._shape.layers):
            x, attention = self._layer(layer, x)
            maps.append(attention)
        logits = self._linear("head", self._norm("norm", x))[0]
        self._length += 1
        return logits, np.stack(maps)

    def _prefixes(self) -> list[str]:
        return [f"layers.{layer}." for layer in range(self._shape.layers)]

    def _linear(self, name: str, x: F32) -> F32:
        return linear_quantised(x, self._weights.matrices[f"{name}.weight"], self._weights.floats[f"{name}.bias"])

    def _norm(self, name: str, x: F32) -> F32:
        return layer_norm_f32(x, self._weights.floats[f"{name}.weight"], self._weights.floats[f"{name}.bias"])

    def _cross_keys(self, kv: F32) -> CrossKeys:
        """kv: (n, 2 d), keys then values."""
        heads, width = self._shape.heads, self._shape.width
        keys, key_scales = quantise_q8(np.ascontiguousarray(kv[:, :width]).reshape(-1, width // heads))
        values, value_scales = quantise_q8(np.ascontiguousarray(kv[:, width:].T))
        return CrossKeys(
            keys.reshape(-1, width), key_scales.reshape(-1, heads), np.ascontiguousarray(values.T), value_scales
        )

    def _layer(self, layer: int, x: F32) -> tuple[F32, F32]:
        p, heads, floats = f"layers.{layer}.", self._shape.heads, self._weights.floats
        h = self._norm(p + "norm1", x)
        query, key, value = (self._linear(p + matrix, h)[0] for matrix in "qkv")
        cache, at = self._caches[layer], self._length
        for row, rows, scales in ((key, cache.keys, cache.key_scales), (value, cache.values, cache.value_scales)):
            quantised, scales[at] = quantise_q8(row.reshape(heads, -1))
            rows[at] = quantised.reshape(-1)
        text = slice(0, at + 1)
        a = self_attention_q8(
            query, cache.keys[text], cache.key_scales[text], cache.values[text], cache.value_scales[text], heads
        )
        image = self._image[layer]
        mixed, attention = gated_cross_attention_q8(
            a,
            query,
            image.keys,
            image.key_scales,
            image.values,
            image.value_scales,
            self._bias[layer],
            floats[p + "gate.weight"][0],
            float(floats[p + "gate.bias"][0]),
            float(floats[p + "gate_scale"][0]),
            heads,
        )
        x = x + self._linear(p + "out", mixed[None, :])
        hidden = gelu_tanh_f32(self._linear(p + "up", self._norm(p + "norm2", x))[0])
        return x + self._linear(p + "down", hidden[None, :]), attention
