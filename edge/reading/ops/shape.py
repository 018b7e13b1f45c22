"""The decoder's sizes and, derived from them, the name and shape of every weight in decoder.safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from edge.errors import BundleError
from edge.reading.ops.arrays import F32, describe


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of the hybrid decoder; `channels` is the width of an image token before the vis projection."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    ffn: int
    positions: int
    channels: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                raise BundleError(f"expected the decoder's {field.name} as a whole number above 0, got {value!r}")
        if self.width % self.heads:
            raise BundleError(f"expected decoder heads that divide a width of {self.width}, got {self.heads}")

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, torch's convention: (outputs, inputs)."""
        d, ffn = self.width, self.ffn
        shapes: dict[str, tuple[int, ...]] = {
            **_linear("vis", d, self.channels),
            "embed.weight": (self.vocabulary, d),
            "position.weight": (self.positions, d),
        }
        for p in (f"layers.{layer}." for layer in range(self.layers)):
            shapes |= _norm(p + "norm1", d)
            for matrix in "qkv":
                shapes |= _linear(p + matrix, d, d)
            shapes |= _linear(p + "kv", 2 * d, d) | _linear(p + "gate", 1, d) | {p + "gate_scale": (1,)}
            shapes |= _linear(p + "out", d, d) | _norm(p + "norm2", d)
            shapes |= _linear(p + "up", ffn, d) | _linear(p + "down", d, ffn)
        return shapes | _norm("norm", d) | _linear("head", self.vocabulary, d)

    def check_weights(self, weights: Mapping[str, F32]) -> dict[str, F32]:
        """The weights, contiguous. Raises BundleError on a missing, unknown, misshapen or non-finite one."""
        expected = self.weight_shapes()
        checked: dict[str, F32] = {}
        if missing := sorted(expected.keys() - weights.keys()):
            raise BundleError(f"expected {len(expected)} decoder weights, got none named {', '.join(missing)}")
        if unknown := sorted(weights.keys() - expected.keys()):
            raise BundleError(f"expected {len(expected)} decoder weights, got unknown ones: {', '.join(unknown)}")
        for weight_name, shape in expected.items():
            array = weights[weight_name]
            if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape != shape:
                raise BundleError(f"expected {weight_name} as float32 of shape {shape}, got {describe(array)}")
            if not np.isfinite(array).all():
                raise BundleError(f"expected finite numbers in {weight_name}, got NaN or infinity")
            checked[weight_name] = np.ascontiguousarray(array)
        return checked


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
