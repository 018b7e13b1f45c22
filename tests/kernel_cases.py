"""Random cases of every operator with numpy's results, in a file that kernels/cases.cpp runs where no Python is.

`python -m tests.kernel_cases FILE`. The operators, shapes and scales of tests/test_ops*.py: odd lengths, one token,
masked-out rows, extreme values, and every array once with a NaN and once with an infinity, which has to be refused.

Integers are little-endian. The file: "RBXCASE3", then cases. A case: operator, the expected radbox_status (u32),
then a list of inputs and one of outputs, each a u32 count and values. A value: u32 kind (0 int64, 1 float32, 2 int8,
3 uint8, 4 uint16, 5 int32, 6 text), f32 tolerance of an output (greatest difference over greatest value; 0: the same
bits), u64 element count, the elements. What an operator writes to is an input too if it reads it (the caches).
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

OK, BAD_ARGUMENT, NOT_FINITE, NOTHING_ALLOWED = range(4)
"""radbox_status of kernels.h."""

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
    for scale, rows, inputs, outputs in ((1.0, 1, 1, 1), (1e15, 2, 7, 5), (1e-30, 3, 33, 9), (1.0, 1, 128, 30)):
        x, weight, bias = random(g, rows, inputs, scale=scale), random(g, outputs, inputs), random(g, outputs)
        y = reference.linear_f32(x, weight, bias)
        yield "linear_f32", [x, weight, bias, rows, inputs, outputs], [(y, FLOAT)]
    for scale in (1e-30, 1.0, 20.0, 1e30):
        x = random(g, 77, scale=scale)
        yield "gelu_tanh_f32", [x, 77], [(reference.gelu_tanh_f32(x), FLOAT)]
        up = random(g, 77)
        yield "swiglu_f32", [x, up, 77], [(numpy_kernels.swiglu_f32(x, up), FLOAT)]
    yield from attention_cases(g)
    for height, width, sigma in ((1, 1, 9.0), (1, 5, 0.35), (3, 2, 2.2), (16, 16, 1.1), (5, 9, 0.0)):
        grid, masks = random(g, height, width), np.abs(np.tanh(random(g, 3, height, width)))
        blurred = reference.gaussian_blur_f32(grid, sigma)
        yield "gaussian_blur_f32", [grid, height, width, sigma], [(blurred, FLOAT)]
        sigmas = np.array([2.2, sigma], np.float32)
        bias = reference.anatomical_bias_f32(masks, (2.2, sigma), 0.8)
        yield "anatomical_bias_f32", [masks, 3, height, width, sigmas, 2, 0.8], [(bias, FLOAT)]
    for height, width, channels, states in ((1, 1, 1, 1), (3, 2, 5, 4), (4, 5, 33, 16)):
        scan = scan_arrays(g, height * width, channels, states)
        x, delta, a, b, c, d = scan
        y = numpy_kernels.selective_scan_f32(x, delta, a, b, c, d, height, width)
        yield "selective_scan_f32", [*scan, height, width, channels, states], [(y, FLOAT)]
    for vocabulary in (1, 30, 257):
        logits, allowed = np.round(random(g, vocabulary), 1), g.random(vocabulary) < 0.5  # with ties
        allowed[vocabulary // 2] = True
        token, log = reference.masked_argmax_f32(logits, allowed)
        said = [(np.array([token], np.int32), EXACT), (np.array([log], np.float32), FLOAT)]
        yield "masked_argmax_f32", [logits, allowed.astype(np.uint8), vocabulary], said
        k = min(8, vocabulary)
        tokens, logs = reference.masked_top_k_f32(logits, allowed, k)
        found = int((tokens >= 0).sum())
        best = [(tokens[:found], EXACT), (logs[:found], FLOAT)]
        yield "masked_top_k_f32", [logits, allowed.astype(np.uint8), vocabulary, found], best


def attention_cases(g: np.random.Generator) -> Iterator[Case]:
    for width, heads, tokens in ((1, 1, 1), (15, 5, 7), (33, 3, 40), (128, 4, 256)):
        keys, values = random(g, 2, 9, width)
        for position in (0, 4, 8):
            query, key, value = random(g, 3, width)
            y = reference.self_attention_step_f32(query, key, value, keys.copy(), values.copy(), position, heads)
            arrays = [query, key, value, keys, values, position, 9, width, heads]
            yield "self_attention_step_f32", arrays, [(y, FLOAT)]
        a, query, gate = random(g, 3, width)
        keys, values, bias = random(g, tokens, width), random(g, tokens, width), random(g, tokens)
        bias[1::3] = -np.inf
        y, shares = reference.gated_cross_attention_f32(a, query, keys, values, bias, gate, 0.3, 0.7, heads)
        arrays = [a, query, keys, values, bias, gate, 0.3, 0.7, tokens, width, heads]
        yield "gated_cross_attention_f32", arrays, [(y, FLOAT), (shares, FLOAT)]
        x, h, query_bias, out_bias = random(g, 4, width)
        query_weight, out_weight = random(g, 2, width, width, scale=width**-0.5)
        y, shares = numpy_kernels.fused_cross_attention_f32(
            x, h, a, query_weight, query_bias, keys, values, bias, gate, 0.3, 0.7, out_weight, out_bias, heads
        )
        given = [x, h, a, query_weight, query_bias, keys, values, bias, gate, out_weight, out_bias, 0.3, 0.7]
        yield "fused_cross_attention_f32", [*given, tokens, width, heads], [(y, FLOAT), (shares, FLOAT)]


def refused_cases(cases: list[Case]) -> Iterator[tuple[Case, int]]:
    """Each operator's second case with one bad number in one array, and with all of its bias or its tokens hidden."""
    seen: dict[str, int] = {}
    for name, inputs, outputs in cases:
        seen[name] = seen.get(name, 0) + 1
        if seen[name] != 2:
            continue
        for at, array in enumerate(inputs):
            if not isinstance(array, np.ndarray):
                continue
            for poisoned in poisons(array):
                changed = (name, [*inputs[:at], poisoned, *inputs[at + 1 :]], outputs)
                deviations = name == "anatomical_bias_f32" and array.size == 2
                if array.dtype == np.int8 or deviations:
                    yield changed, BAD_ARGUMENT
                elif (name == "self_attention_step_f32" and array.ndim == 2) or is_gate(name, at, poisoned):
                    continue  # the caches' last row is not read; tanh(inf) is 1: finite, and right
                elif array.dtype == np.uint8:
                    continue  # nibbles and grammars hold any byte
                else:
                    yield changed, NOT_FINITE
        hidden = {"gated_cross_attention_f32": 4, "gated_cross_attention_q8": 6, "fused_cross_attention_f32": 7}
        if name in hidden:
            none = np.full_like(inputs[hidden[name]], -np.inf)
            yield (name, [*inputs[: hidden[name]], none, *inputs[hidden[name] + 1 :]], outputs), NOTHING_ALLOWED
        if name.startswith("masked_"):
            yield (name, [inputs[0], np.zeros_like(inputs[1]), *inputs[2:]], outputs), NOTHING_ALLOWED


def poisons(array: np.ndarray) -> Iterator[np.ndarray]:
    """`array` with its last element not a number, and infinite; or -128, which is no int8 of ours."""
    bad: dict[str, tuple[float, ...]] = {
        "float32": (np.nan, np.inf),
        "uint16": (0x7E00, 0x7C00),  # in binary16
        "int8": (-128,),
    }
    for value in bad.get(array.dtype.name, ()):
        poisoned = array.copy()
        poisoned.flat[-1] = value
        yield poisoned


def is_gate(name: str, at: int, poisoned: np.ndarray) -> bool:
    gates = {"gated_cross_attention_f32": 5, "gated_cross_attention_q8": 7, "fused_cross_attention_f32": 8}
    return gates.get(name) == at and bool(np.isinf(poisoned).any())


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


def write_case(case: Case, status: int = OK) -> bytes:
    name, inputs, outputs = case
    parts = [write_value(name, 0.0), struct.pack("<II", status, len(inputs))]
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
    operators = [*float_cases(g), *quantised_cases(g)]
    refused = list(refused_cases(operators))
    written = [*map(write_case, operators), *(write_case(case, status) for case, status in refused)]
    written += map(write_case, decoder_cases(g, exact))
    path.write_bytes(b"RBXCASE3" + b"".join(written))
    print(f"{len(written)} cases, {len(refused)} of them to be refused, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
