"""Random cases of every operator with numpy's results, in a file that kernels/cases.cpp runs where no Python is.

`python -m tests.kernel_cases FILE`. Integers are little-endian. The file: "RBXCASE2", then cases. A case: operator,
then a list of inputs and one of outputs, each a u32 count and values. A value: u32 kind (0 int64, 1 float32, 2 int8,
3 uint8, 4 uint16, 5 int32, 6 text), f32 tolerance of an output (greatest difference over greatest value; 0: the same
bits), u64 element count, the elements.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import BackendError
from edge.reading.ops import numpy_kernels, reference
from edge.reading.ops.native import NativeKernels
from edge.reading.ops.quantised import MatrixQ8, QuantisedWeights
from edge.reading.ops.reference_quantised import (
    quantise_decoder,
    quantise_q8,
    quantise_weights_q4,
    quantise_weights_q8,
)
from edge.reading.ops.shape import DecoderShape

KINDS = ("int64", "float32", "int8", "uint8", "uint16", "int32")
FLOAT, EXACT, ROUNDED = 1e-5, 0.0, 1e-6
SHARES = 2e-2  # a share on the edge between two of its 127 steps may round either way

Case = tuple[str, list[Any], list[tuple[Any, float]]]


def random(generator: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (generator.standard_normal(shape) * scale).astype(np.float32)


def random_weights(shape: DecoderShape, generator: np.random.Generator) -> dict[str, np.ndarray]:
    weights = {}
    for name, size in shape.weight_shapes().items():
        scale = 1.0 / np.sqrt(size[-1]) if len(size) == 2 else 0.3
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        weights[name] = (mean + generator.standard_normal(size) * scale).astype(np.float32)
    return weights


def scan_arrays(g: np.random.Generator, tokens: int, channels: int, states: int) -> list[Any]:
    """x, delta, a, b, c, d of a selective scan as a Mamba block would give them."""
    x, delta = random(g, 4, tokens, channels), np.logaddexp(0, random(g, 4, tokens, channels))
    b, c = random(g, 4, tokens, states), random(g, 4, tokens, states)
    return [x, delta, -np.exp(random(g, 4, channels, states)), b, c, random(g, 4, channels)]


def float_cases(g: np.random.Generator) -> Iterator[Case]:
    for rows, width in ((1, 1), (3, 7), (2, 33), (1, 128)):
        for scale in (1e-30, 1.0, 1e15):
            x, weight, bias = random(g, rows, width, scale=scale), random(g, width), random(g, width)
            y = reference.layer_norm_f32(x, weight, bias)
            yield "layer_norm_f32", [x, weight, bias, rows, width], [(y, FLOAT)]
    for rows, inputs, outputs in ((1, 1, 1), (2, 7, 5), (3, 33, 9), (1, 128, 30)):
        x, weight, bias = random(g, rows, inputs), random(g, outputs, inputs), random(g, outputs)
        y = reference.linear_f32(x, weight, bias)
        yield "linear_f32", [x, weight, bias, rows, inputs, outputs], [(y, FLOAT)]
    for scale in (1e-30, 1.0, 20.0, 1e30):
        x = random(g, 77, scale=scale)
        yield "gelu_tanh_f32", [x, 77], [(reference.gelu_tanh_f32(x), FLOAT)]
    for width, heads, tokens in ((1, 1, 1), (15, 5, 7), (33, 3, 40), (128, 4, 256)):
        a, query, gate = random(g, 3, width)
        keys, values, bias = random(g, tokens, width), random(g, tokens, width), random(g, tokens)
        bias[1::3] = -np.inf
        y, shares = reference.gated_cross_attention_f32(a, query, keys, values, bias, gate, 0.3, 0.7, heads)
        arrays = [a, query, keys, values, bias, gate, 0.3, 0.7, tokens, width, heads]
        yield "gated_cross_attention_f32", arrays, [(y, FLOAT), (shares, FLOAT)]
    for height, width, channels, states in ((1, 1, 1, 1), (3, 2, 5, 4), (4, 5, 33, 16)):
        scan = scan_arrays(g, height * width, channels, states)
        x, delta, a, b, c, d = scan
        y = numpy_kernels.selective_scan_f32(x, delta, a, b, c, d, height, width)
        yield "selective_scan_f32", [*scan, height, width, channels, states], [(y, FLOAT)]
    for vocabulary in (1, 30, 257):
        logits, allowed = random(g, vocabulary), g.random(vocabulary) < 0.5
        allowed[vocabulary // 2] = True
        token, log = reference.masked_argmax_f32(logits, allowed)
        said = [(np.array([token], np.int32), EXACT), (np.array([log], np.float32), FLOAT)]
        yield "masked_argmax_f32", [logits, allowed.astype(np.uint8), vocabulary], said


def quantised_cases(g: np.random.Generator) -> Iterator[Case]:
    for rows, width in ((1, 1), (3, 7), (2, 48), (1, 400)):
        for scale in (1e-33, 1e-6, 1.0, 1e30):
            x = random(g, rows, width, scale=scale)
            values, scales = quantise_q8(x)
            yield "quantise_q8", [x, rows, width], [(values, EXACT), (scales, EXACT)]
    for rows, inputs, outputs in ((1, 1, 1), (2, 7, 33), (9, 64, 40), (1, 400, 96), (5, 129, 31)):
        x, weight, bias = random(g, rows, inputs), random(g, outputs, inputs), random(g, outputs)
        q8, q4 = quantise_weights_q8(weight), quantise_weights_q4(weight)
        q8.values[:, 0], q8.values[0] = -127, 127
        sizes = [rows, inputs, outputs]
        y = numpy_kernels.linear_q8(x, q8, bias)
        yield "linear_q8", [x, q8.values, q8.scales, bias, *sizes], [(y, ROUNDED)]
        y = numpy_kernels.linear_q4(x, q4, bias)
        yield "linear_q4", [x, q4.values, q4.scales.view(np.uint16), bias, *sizes], [(y, ROUNDED)]
    for width, heads, tokens in ((1, 1, 1), (15, 5, 7), (33, 3, 40), (128, 4, 256), (64, 1, 33)):
        a, query, gate = random(g, 3, width)
        both = [quantise_q8(random(g, tokens * heads, width // heads)) for _ in range(2)]
        keys, values = (bytes_.reshape(tokens, width) for bytes_, _ in both)
        key_scales, token_scales = (scales.reshape(tokens, heads) for _, scales in both)
        y = numpy_kernels.self_attention_q8(query, keys, key_scales, values, token_scales, heads)
        arrays = [query, keys, key_scales, values, token_scales, tokens, width, heads]
        yield "self_attention_q8", arrays, [(y, SHARES)]
        channel_scales, bias = np.abs(random(g, width)), random(g, tokens)
        bias[1::3] = -np.inf
        y, shares = numpy_kernels.gated_cross_attention_q8(
            a, query, keys, key_scales, values, channel_scales, bias, gate, 0.3, 0.7, heads
        )
        arrays = [a, query, keys, key_scales, values, channel_scales, bias, gate, 0.3, 0.7, tokens, width, heads]
        yield "gated_cross_attention_q8", arrays, [(y, SHARES), (shares, SHARES)]


SHAPES = (
    (DecoderShape(30, 128, 3, 4, 384, 8, 128), 256),
    (DecoderShape(33, 40, 2, 5, 70, 6, 17), 37),
    (DecoderShape(11, 96, 1, 1, 33, 40, 9), 1),
)


def decoder_cases(g: np.random.Generator, exact: NativeKernels | None) -> Iterator[Case]:
    """Logits of a few steps: numpy's within a tolerance, and the bits of another CPU's kernels where there are any."""
    for shape, tokens_count in SHAPES:
        weights = random_weights(shape, g)
        tokens, bias = random(g, tokens_count, shape.channels), random(g, shape.layers, tokens_count)
        fed = g.integers(0, shape.vocabulary, min(shape.positions, 34)).astype(np.int32)
        for precision in ("q8", "q4"):
            quantised = quantise_decoder(shape, weights, precision)
            expected = [(run(numpy_kernels, shape, quantised, tokens, bias, fed), SHARES)]
            if exact is not None:
                expected.append((run(exact, shape, quantised, tokens, bias, fed), EXACT))
            sizes = [
                shape.vocabulary,
                shape.width,
                shape.layers,
                shape.heads,
                shape.ffn,
                shape.positions,
                shape.channels,
            ]
            yield "decoder", [*sizes, tokens, bias, tokens_count, fed, *flattened(quantised)], expected


def run(kernels: Any, shape: DecoderShape, weights: QuantisedWeights, tokens: Any, bias: Any, fed: Any) -> np.ndarray:
    session = kernels.quantised_decoder(shape, weights)
    session.begin(tokens, bias)
    return np.stack([session.step(int(token))[0] for token in fed])


def flattened(weights: QuantisedWeights) -> Iterator[Any]:
    """Per tensor: its name, rows, columns, values, scales (none: empty)."""
    for name, array in weights.floats.items():
        yield from (name, array.shape[0], array.size // array.shape[0], array, np.empty(0, np.float32))
    for name, matrix in weights.matrices.items():
        scales = matrix.scales if isinstance(matrix, MatrixQ8) else matrix.scales.view(np.uint16)
        yield from (name, *matrix.shape, matrix.values, scales)


def write_value(value: Any, tolerance: float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<IfQ", len(KINDS), tolerance, len(value)) + value.encode()
    if isinstance(value, int):
        value = np.array([value], np.int64)
    elif isinstance(value, float):
        value = np.array([value], np.float32)
    return struct.pack("<IfQ", KINDS.index(value.dtype.name), tolerance, value.size) + value.tobytes()


def write_case(case: Case) -> bytes:
    name, inputs, outputs = case
    parts = [write_value(name, 0.0), struct.pack("<I", len(inputs))]
    parts += [write_value(value, 0.0) for value in inputs]
    parts.append(struct.pack("<I", len(outputs)))
    parts += [write_value(value, tolerance) for value, tolerance in outputs]
    return b"".join(parts)


def main(path: Path) -> None:
    """Write the cases; with the bits of this machine's kernels if their library is built."""
    try:
        exact: NativeKernels | None = NativeKernels()
    except BackendError as error:
        print(f"cases without another CPU's bits: {error.message}", file=sys.stderr)
        exact = None
    g = np.random.default_rng(11)
    cases = [*float_cases(g), *quantised_cases(g), *decoder_cases(g, exact)]
    path.write_bytes(b"RBXCASE2" + b"".join(map(write_case, cases)))
    print(f"{len(cases)} cases, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
