"""The attention kernels against numpy (see cases.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.reading.backends.cuda_launches import HeadRows, head_storage
from edge.reading.backends.cuda_weights import Storage
from tools.cuda.rig import (
    GUARD,
    NOT_FINITE,
    NOTHING_ALLOWED,
    OK,
    Array,
    Rig,
    close,
    matrix,
    random,
    softmax,
    store_keys,
)


class Attention:
    """One layer's attention: its random inputs, and what must come out."""

    def __init__(
        self,
        storage: Storage,
        heads: int,
        dh: int,
        image_tokens: int,
        position: int,
        *,
        hidden: str = "some",
        scale: float = 1.0,
        positions: int = 5,
    ) -> None:
        self.storage, self.heads, self.dh, self.n = storage, heads, dh, image_tokens
        self.width, self.position, self.positions, self.per_slice = heads * dh, position, positions, 64
        self.slice_count = -(-image_tokens // self.per_slice)
        self.slice_floats = head_storage(dh) + 2
        self.qkv = random(1, 3, self.width, scale=scale)
        self.cache = random(2, 2, heads, positions, dh)
        self.image = random(3, 2, heads, image_tokens, dh, scale=scale)
        self.bias = random(4, image_tokens)
        if hidden == "some" and image_tokens > 1:
            self.bias[np.random.default_rng(5).random(image_tokens) < 0.4] = -np.inf
            self.bias[-1] = 0.5
        if hidden == "all":
            self.bias[:] = -np.inf

    def run(self, rig: Rig, state: np.uint64) -> None:
        self.own = self._put(rig, store_keys(self.cache, self.storage))
        image = self._put(rig, store_keys(self.image, self.storage))
        qkv, bias = rig.put(self.qkv), rig.put(self.bias)
        self.a = rig.put(np.full(self.width + 1, GUARD))
        self.slices = rig.put(np.full((self.heads, self.slice_count, self.slice_floats), GUARD))
        self.scores = rig.put(np.full((self.heads, self.n), GUARD))
        outputs = self.a, self.slices, self.scores, state
        launch = rig.launches(keys=self.storage).attend
        launch(qkv, self.width, self.heads, self.own, self.positions, image, bias, self.n, self.per_slice, *outputs)

    def _put(self, rig: Rig, stored: tuple[Array, Array, Array]) -> HeadRows:
        rows, scales, _ = stored
        return HeadRows(*(rig.put(part) for part in (rows[0], rows[1], scales[0], scales[1])))

    def query(self) -> Array:
        return self.qkv[0].reshape(self.heads, self.dh).astype(np.float64)

    def mixed(self) -> tuple[Array, Array]:
        """Self-attention's result (width,) and cross-attention's (heads, dh), shares (heads, n) with it."""
        cache = self.cache.copy()
        cache[:, :, self.position] = self.qkv[1:].reshape(2, self.heads, self.dh)
        _, _, (keys, values) = store_keys(cache, self.storage)
        scores = np.einsum("hd,htd->ht", self.query(), keys[:, : self.position + 1]) / np.sqrt(self.dh)
        a = np.einsum("ht,htd->hd", softmax(scores), values[:, : self.position + 1])
        _, _, (keys, values) = store_keys(self.image, self.storage)
        self.shares = softmax(np.einsum("hd,htd->ht", self.query(), keys) / np.sqrt(self.dh) + self.bias)
        return a.reshape(-1), np.einsum("ht,htd->hd", self.shares, values)

    def merged(self, rig: Rig) -> Array:
        """The slices put together: (heads, dh)."""
        parts = rig.get(self.slices, (self.heads, self.slice_count, self.slice_floats)).astype(np.float64)
        with np.errstate(invalid="ignore"):
            shares = np.exp(parts[..., 0] - parts[..., 0].max(axis=1, keepdims=True))
        total = (shares[..., None] * parts[..., 1:]).sum(axis=1)
        merged: Array = (total[:, 1:] / total[:, :1])[:, : self.dh]
        return merged


def attend(rig: Rig, storage: Storage, heads: int, dh: int, n: int, position: int, **kind: Any) -> None:
    layer = Attention(storage, heads, dh, n, position, **kind)
    state = rig.state(position=position)
    layer.run(rig, state)
    assert rig.status(state) == OK
    a, c = layer.mixed()
    got = rig.get(layer.a, layer.width + 1)
    assert got[-1] == GUARD
    close(got[:-1], a, 1e-4)
    close(layer.merged(rig), c, 1e-4)
    for part, address in enumerate(layer.own[:2]):  # the new row, and no other
        cache = layer.cache[part].copy()
        cache[:, position] = layer.qkv[1 + part].reshape(heads, dh)
        stored, _, _ = store_keys(cache, storage)
        kept = rig.get(address, stored.shape, stored.dtype)
        others = np.arange(layer.positions) != position
        np.testing.assert_array_equal(kept[:, others], stored[:, others])
        close(kept[:, position].astype(np.float32), stored[:, position].astype(np.float64), 1 / 127)


def attention_maps(rig: Rig, storage: Storage, heads: int, dh: int, n: int) -> None:
    layer = Attention(storage, heads, dh, n, 0)
    layer.run(rig, rig.state())
    layer.mixed()
    maps = rig.put(np.full(n + 1, GUARD))
    rig.launches().attention_maps(layer.slices, layer.slice_count, layer.scores, 1, heads, dh, n, maps)
    got = rig.get(maps, n + 1)
    assert got[-1] == GUARD
    close(got[:-1], layer.shares.mean(axis=0), 1e-4)


def gate_project(rig: Rig, storage: Storage, heads: int, dh: int, n: int) -> None:
    """After `attend`: x += W_o (a + g c) + b_o."""
    layer, state = Attention("f16", heads, dh, n, 1), rig.state(position=1)
    layer.run(rig, state)
    a, c = layer.mixed()
    gate_weight, pair, x = random(8, layer.width), np.array([0.3, 0.8], np.float32), random(9, layer.width)
    weight, bias, addresses = matrix(rig, storage, layer.width, layer.width)
    out = rig.put(np.append(x, GUARD))
    launch, gate, d = rig.launches(storage).gate_project, (rig.put(gate_weight), rig.put(pair)), layer.width
    launch(layer.a, layer.slices, layer.slice_count, *gate, addresses, d, dh, out, state)
    assert rig.status(state) == OK
    g = np.tanh(gate_weight @ a + pair[0]) * pair[1]
    got = rig.get(out, layer.width + 1)
    assert got[-1] == GUARD
    close(got[:-1], x + weight @ (a + g * c.reshape(-1)) + bias, 1e-4)


def hidden_keys(rig: Rig) -> None:
    """No visible key: a status, found where the slices meet."""
    layer, state = Attention("f16", 2, 16, 70, 0, hidden="all"), rig.state()
    layer.run(rig, state)
    assert rig.status(state) == OK
    _, _, addresses = matrix(rig, "f16", 32, 32)
    gate = rig.put(random(8, 32)), rig.put(np.ones(2, np.float32))
    x = rig.put(np.zeros(32, np.float32))
    rig.launches().gate_project(layer.a, layer.slices, layer.slice_count, *gate, addresses, 32, 16, x, state)
    assert rig.status(state) == NOTHING_ALLOWED


def bad_attention(rig: Rig, storage: Storage, where: str, value: float) -> None:
    """NaN or infinity in a query, key, value or bias; +inf is no bias; what float16 cannot hold."""
    layer, state = Attention(storage, 2, 16, 70, 0), rig.state()
    if where == "bias":
        layer.bias[33] = value
    else:
        layer.qkv[("query", "key", "value").index(where), 19] = value
    layer.run(rig, state)
    assert rig.status(state) == NOT_FINITE
