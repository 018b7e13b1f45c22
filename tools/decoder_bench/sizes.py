"""The two decoders of the benchmark, their random weights, and what one token has to read and compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.reading.ops.quantised import QuantisedWeights, matrix_names, once_per_image
from edge.reading.ops.reference_quantised import quantise_decoder
from edge.reading.ops.shape import DecoderShape

TOKENS = 64
FIRST, LAST = 24, 40
"""Positions at which a token is timed: the middle of a report of 64."""


@dataclass(frozen=True)
class Size:
    """A decoder and the image tokens that it attends to."""

    name: str
    shape: DecoderShape
    image_tokens: int


SIZES = {
    "S": Size("S", DecoderShape(4096, 256, 6, 8, 1024, 128, 256), 196),
    "M": Size("M", DecoderShape(8192, 512, 12, 8, 2048, 128, 512), 400),
}


@dataclass(frozen=True)
class Model:
    """A size with weights and an image; every contestant gets these numbers or as many of its own."""

    size: Size
    weights: dict[str, np.ndarray]
    tokens: np.ndarray
    bias: np.ndarray

    def quantised(self, precision: str) -> QuantisedWeights:
        return quantise_decoder(self.size.shape, self.weights, precision)


def random_model(size: Size) -> Model:
    """Weights that keep activations near 1: speed does not depend on them."""
    generator = np.random.default_rng(0)
    weights = {}
    for name, shape in size.shape.weight_shapes().items():
        scale = 1.0 / np.sqrt(shape[-1]) if len(shape) == 2 else 0.3
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        weights[name] = np.float32(mean) + generator.standard_normal(shape, np.float32) * np.float32(scale)
    tokens = generator.standard_normal((size.image_tokens, size.shape.channels), np.float32)
    return Model(size, weights, tokens, generator.random((size.shape.layers, size.image_tokens), np.float32))


def weights_per_token(shape: DecoderShape) -> int:
    """Matrix elements that one token goes through."""
    shapes = shape.weight_shapes()
    return sum(int(np.prod(shapes[name])) for name in matrix_names(shape) if not once_per_image(name))


def bytes_per_token(size: Size, precision: str, position: int = (FIRST + LAST) // 2) -> int:
    """Weights with their scales and biases, int8 keys and values of the image and of the text so far."""
    shape = size.shape
    shapes = shape.weight_shapes()
    total = 0
    for name in matrix_names(shape):
        if not once_per_image(name):
            rows, columns = shapes[name]
            total += rows * (columns + 8 if precision == "q8" else columns // 32 * 18 + 4)
    return total + 2 * shape.layers * shape.width * (size.image_tokens + position)
