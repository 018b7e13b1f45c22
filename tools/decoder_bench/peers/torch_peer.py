"""PyTorch: our own network, eager in float32 and with int8 Linear layers, and compiled. Needs torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from tools.decoder_bench.contestant import TURN, Contestant, NotInstalled
from tools.decoder_bench.sizes import FIRST, Model


def _network(torch: Any, model: Model) -> Any:
    """One step over static caches, as a module; the image's keys and values are buffers."""
    nn, functional = torch.nn, torch.nn.functional
    shape, n = model.size.shape, model.size.image_tokens
    d, heads, dh = shape.width, shape.heads, shape.width // shape.heads

    class Layer(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
            self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.up, self.down = nn.Linear(d, shape.ffn), nn.Linear(shape.ffn, d)
            self.gate = nn.Parameter(torch.randn(d) / d**0.5)
            for name in ("cross_key", "cross_value"):
                self.register_buffer(name, torch.randn(1, heads, n, dh))
            for name in ("keys", "values"):
                self.register_buffer(name, torch.zeros(1, heads, shape.positions, dh))
            self.register_buffer("bias", torch.rand(1, n))

        def forward(self, x: Any, at: Any, visible: Any) -> Any:
            query, key, value = (part.view(1, heads, 1, dh) for part in self.qkv(self.norm1(x)).chunk(3, -1))
            self.keys.index_copy_(2, at, key)
            self.values.index_copy_(2, at, value)
            attention = functional.scaled_dot_product_attention
            a = attention(query, self.keys, self.values, attn_mask=visible).reshape(1, d)
            c = attention(query, self.cross_key, self.cross_value, attn_mask=self.bias).reshape(1, d)
            x = x + self.out(a + torch.tanh((a * self.gate).sum()) * c)
            return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Network(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.position = nn.Embedding(shape.vocabulary, d), nn.Embedding(shape.positions, d)
            self.layers = nn.ModuleList(Layer() for _ in range(shape.layers))
            self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, shape.vocabulary)

        def forward(self, token: Any, at: Any) -> Any:
            x = self.embed(token) + self.position(at)
            visible = (torch.arange(shape.positions) <= at)[None]
            for layer in self.layers:
                x = layer(x, at, visible)
            return self.head(self.norm(x))

    return Network().eval()


class Torch:
    """A step function over static caches: going back is another position."""

    turn = TURN

    def __init__(self, torch: Any, step: Any, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self._torch, self._step, self._position = torch, step, FIRST
        for _ in range(3):
            self.token()

    def rewind(self) -> None:
        self._position = FIRST

    def token(self) -> None:
        with self._torch.inference_mode():
            at = self._torch.tensor([self._position])
            self._step(at, at)
        self._position += 1


def contestants(model: Model, threads: int) -> Iterator[Contestant]:
    try:
        import torch
    except ImportError as error:
        raise NotInstalled("torch") from error
    torch.set_num_threads(threads)
    version = torch.__version__
    network = _network(torch, model)
    yield Torch(torch, network, f"PyTorch {version} eager float32", "float")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(torch.ao.quantization, "quantize_dynamic"):
            int8 = torch.ao.quantization.quantize_dynamic(_network(torch, model), {torch.nn.Linear})
            yield Torch(torch, int8, f"PyTorch {version} eager int8 dynamic", "int8")
        compiled = torch.compile(_network(torch, model), dynamic=False)
        yield Torch(torch, compiled, f"PyTorch {version} compiled float32", "float")
