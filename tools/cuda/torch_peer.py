"""The same decoder in PyTorch, as a user would write it: float16, caches, eager or as a captured graph.

attention: "sdpa" calls scaled_dot_product_attention, "eager" multiplies, adds, takes the softmax, multiplies.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge.reading.ops.arrays import F32
from edge.reading.ops.shape import DecoderShape


class TorchDecoder:
    """One image at work. device: "cuda" or "cpu"; half: float16, else float32."""

    def __init__(
        self, shape: DecoderShape, weights: Mapping[str, F32], attention: str, device: str = "cuda", half: bool = True
    ) -> None:
        self.torch = importlib.import_module("torch")
        self._functional = importlib.import_module("torch.nn.functional")
        self._shape, self._device, self._attention = shape, device, attention
        self._type = self.torch.float16 if half else self.torch.float32
        self._weights = {name: self._tensor(array) for name, array in weights.items()}
        for layer in range(shape.layers):
            p = f"layers.{layer}."
            for part in ("weight", "bias"):  # one product for q, k and v
                parts = [self._weights[f"{p}{m}.{part}"] for m in "qkv"]
                self._weights[f"{p}qkv.{part}"] = self.torch.cat(parts)
        self._token = self.torch.zeros(1, dtype=self.torch.long, device=device)
        self._position = self.torch.zeros(1, dtype=self.torch.long, device=device)
        self._logits: Any = None

    def begin(self, tokens: F32, bias: F32) -> None:
        """tokens: (n, channels); bias: (layers, n)."""
        with self.torch.inference_mode():
            vis = self._linear("vis", self._tensor(tokens))
            self._bias = self._tensor(bias)
            self._image = []
            for layer in range(self._shape.layers):
                p = f"layers.{layer}."
                both = self._linear(f"{p}kv", self._norm(f"{p}norm1", vis))
                keys, values = (self._heads(half).contiguous() for half in both.chunk(2, dim=-1))
                self._image.append((keys, values))
            heads, dh = self._shape.heads, self._shape.width // self._shape.heads
            size = (self._shape.layers, 2, 1, heads, self._shape.positions, dh)
            self._own = self.torch.zeros(size, dtype=self._type, device=self._device)
            self._places = self.torch.arange(self._shape.positions, device=self._device)
            self._position.zero_()

    def step(self, token: int) -> F32:
        """Logits (vocabulary,) after `token`."""
        self._token.fill_(token)
        with self.torch.inference_mode():
            self._decode()
        logits: F32 = self._logits.float().cpu().numpy()
        return logits

    def runner(self, *, graph: bool) -> Callable[[], None]:
        """One step per call on whatever is in the caches, without copies to the host: what is timed."""
        if not graph:
            return self._timed
        stream = self.torch.cuda.Stream()
        with self.torch.cuda.stream(stream), self.torch.inference_mode():
            for _ in range(3):
                self._timed()
            captured = self.torch.cuda.CUDAGraph()
            with self.torch.cuda.graph(captured, stream=stream):
                self._timed()
        stream.synchronize()
        replay: Callable[[], None] = captured.replay
        return replay

    def _timed(self) -> None:
        with self.torch.inference_mode():
            self._decode()
            self._position.remainder_(self._shape.positions)

    def _decode(self) -> None:
        table, positions = self._weights["embed.weight"], self._weights["position.weight"]
        x = table.index_select(0, self._token) + positions.index_select(0, self._position)
        hidden = (self._places > self._position).to(self._type) * -60000.0
        for layer in range(self._shape.layers):
            x = self._layer(layer, x, hidden)
        self._logits = self._linear("head", self._norm("norm", x))[0]
        self._position.add_(1)

    def _layer(self, layer: int, x: Any, hidden: Any) -> Any:
        p, weights = f"layers.{layer}.", self._weights
        query, key, value = self._linear(f"{p}qkv", self._norm(f"{p}norm1", x)).chunk(3, dim=-1)
        keys, values = self._own[layer, 0], self._own[layer, 1]
        keys.index_copy_(2, self._position, self._heads(key))
        values.index_copy_(2, self._position, self._heads(value))
        query = self._heads(query)
        a = self._attend(query, keys, values, hidden)
        c = self._attend(query, *self._image[layer], self._bias[layer])
        gate = self.torch.tanh(self._linear(f"{p}gate", a)) * weights[f"{p}gate_scale"]
        x = x + self._linear(f"{p}out", a + gate * c)
        up = self._functional.gelu(self._linear(f"{p}up", self._norm(f"{p}norm2", x)), approximate="tanh")
        return x + self._linear(f"{p}down", up)

    def _attend(self, query: Any, keys: Any, values: Any, added: Any) -> Any:
        if self._attention == "sdpa":
            mask = added.expand(1, self._shape.heads, 1, -1)
            mixed = self._functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        else:
            scores = query @ keys.transpose(-1, -2) / float(np.sqrt(query.shape[-1])) + added
            mixed = self.torch.softmax(scores, dim=-1) @ values
        return mixed.transpose(1, 2).reshape(1, self._shape.width)

    def _heads(self, rows: Any) -> Any:
        """(rows, d) -> (1, heads, rows, dh)"""
        return rows.reshape(1, rows.shape[0], self._shape.heads, -1).transpose(1, 2)

    def _linear(self, name: str, x: Any) -> Any:
        return self._functional.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, x: Any) -> Any:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return self._functional.layer_norm(x, (self._shape.width,), weight, bias, eps=1e-5)

    def _tensor(self, array: F32) -> Any:
        return self.torch.from_numpy(np.ascontiguousarray(array)).to(self._device, self._type)
