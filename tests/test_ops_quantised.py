"""int8 and int4: every native set against numpy's definition, and the sets against each other bit by bit."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from edge.errors import BackendError, BundleError
from edge.reading.decoder import BOS, FINDING_TOKENS, Decoder, DecoderConfig
from edge.reading.ops import numpy_kernels
from edge.reading.ops.native import NativeKernels
from edge.reading.ops.quantised import MatrixQ4, MatrixQ8, from_tensors
from edge.reading.ops.reference_quantised import (
    dequantised,
    quantise_decoder,
    quantise_q8,
    quantise_weights_q4,
    quantise_weights_q8,
)
from edge.reading.ops.shape import DecoderShape
from tests.kernel_cases import random_weights
from tests.kernel_sets import SETS, chosen
from tests.test_decoder import Findings, random_image

ROUNDED = 1e-6
SMALL = DecoderShape(30, 40, 2, 5, 70, 40, 17)
ODD = DecoderShape(33, 24, 2, 1, 37, 9, 5)
WIDTHS_AND_HEADS = [(1, 1), (15, 5), (33, 3), (64, 1), (128, 4)]


@pytest.fixture(scope="module", autouse=True)
def built(root):
    subprocess.run([root / "tools" / "build_kernels"], check=True)


@pytest.fixture(params=SETS)
def native(request) -> NativeKernels:
    return chosen(request.param)


@pytest.fixture(params=["numpy", *SETS])
def kernels(request):
    return numpy_kernels if request.param == "numpy" else chosen(request.param)


def random(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def error(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    return float(np.abs(got.astype(np.float64) - expected).max() / max(float(np.abs(expected).max()), 1e-30))


@pytest.mark.parametrize("scale", [1e-35, 1e-6, 1.0, 1e30])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 7), (2, 48), (1, 401)])
def test_quantisation_is_numpys_to_the_bit(native, rows, width, scale):
    x = random(1, rows, width, scale=scale)
    x[0, 0] = 0.0
    for got, expected in zip(native.quantise_q8(x), quantise_q8(x), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_known_quantisation(kernels):
    values, scales = kernels.quantise_q8(np.array([[127.0, -127.0, 0.5, 1.5, 2.5, -0.4]], np.float32))
    assert values.tolist() == [[127, -127, 0, 2, 2, 0]]  # halves go to the even number
    assert scales == pytest.approx([1.0])
    one = MatrixQ8(np.array([[1, -127]], np.int8), np.array([0.5], np.float32))
    assert kernels.linear_q8(np.array([[127.0, 1.0]], np.float32), one, None)[0, 0] == pytest.approx(0.5 * (127 - 127))
    four = quantise_weights_q4(np.array([[-8.0, 7.0, 3.4, 0.0]], np.float32))
    np.testing.assert_array_equal(dequantised(four), [[-8, 7, 3, 0]])
    assert kernels.linear_q4(np.array([[127, 127, 0, 0]], np.float32), four, None)[0, 0] == pytest.approx(-127.0)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 1, 1), (2, 7, 33), (3, 32, 32), (9, 65, 40), (1, 400, 96), (8, 129, 31)]
)
def test_linear_matches_numpy(native, rows, inputs, outputs, scale):
    x, weight, bias = random(1, rows, inputs, scale=scale), random(2, outputs, inputs), random(3, outputs)
    q8, q4 = quantise_weights_q8(weight), quantise_weights_q4(weight)
    for added in (None, bias):
        assert error(native.linear_q8(x, q8, added), numpy_kernels.linear_q8(x, q8, added)) <= ROUNDED
        assert error(native.linear_q4(x, q4, added), numpy_kernels.linear_q4(x, q4, added)) <= ROUNDED


def test_the_greatest_sums_do_not_overflow(native):
    inputs = 1 << 14
    x = np.full((2, inputs), 3.0, np.float32)
    x[1] = -x[1]
    full = MatrixQ8(np.full((33, inputs), -127, np.int8), np.ones(33, np.float32))
    assert error(native.linear_q8(x, full, None), numpy_kernels.linear_q8(x, full, None)) <= ROUNDED
    scales = np.ones((33, inputs // 32), np.float16)
    for nibbles in (0x00, 0xFF, 0x0F):
        four = MatrixQ4(np.full((33, inputs // 2), nibbles, np.uint8), scales, inputs)
        assert error(native.linear_q4(x, four, None), numpy_kernels.linear_q4(x, four, None)) <= 1e-5


def test_rounding_to_int8_and_int4_loses_little():
    x, weight = random(1, 4, 512), random(2, 96, 512)
    exact = x @ weight.T
    q8 = numpy_kernels.linear_q8(x, quantise_weights_q8(weight), None)
    q4 = numpy_kernels.linear_q4(x, quantise_weights_q4(weight), None)
    assert np.linalg.norm(q8 - exact) / np.linalg.norm(exact) < 0.015
    assert np.linalg.norm(q4 - exact) / np.linalg.norm(exact) < 0.12


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("tokens", [1, 5, 33, 256])
@pytest.mark.parametrize(("width", "heads"), WIDTHS_AND_HEADS)
def test_attention_matches_numpy(native, width, heads, tokens, scale):
    a, query, gate = random(1, 3, width, scale=scale)
    rows = [quantise_q8(random(seed, tokens * heads, width // heads, scale=scale)) for seed in (2, 3)]
    keys, values = (row[0].reshape(tokens, width) for row in rows)
    key_scales, token_scales = (row[1].reshape(tokens, heads) for row in rows)
    arguments = query, keys, key_scales, values, token_scales, heads
    expected = numpy_kernels.self_attention_q8(*arguments)
    assert error(native.self_attention_q8(*arguments), expected) <= 0.01  # a share may round to its neighbour
    channel_scales = np.abs(random(4, width)) + np.float32(0.1)
    hidden = random(5, tokens)
    hidden[1::3] = -np.inf
    for bias in (None, random(6, tokens), hidden):
        cross = a, query, keys, key_scales, values, channel_scales, bias, gate, 0.3, 0.7, heads
        (got, got_map), (wanted, wanted_map) = (k.gated_cross_attention_q8(*cross) for k in (native, numpy_kernels))
        assert error(got, wanted) <= 0.01
        assert error(got_map, wanted_map) <= 0.01
        assert float(got_map.sum()) == pytest.approx(1.0, abs=1e-5)
    assert (got_map[1::3] == 0).all()


def test_attention_in_int8_is_near_the_float_one():
    width, heads, tokens = 128, 4, 256
    a, query, gate = random(1, 3, width)
    k, v, bias = random(2, tokens, width), random(3, tokens, width), random(4, tokens)
    keys, key_scales = quantise_q8(k.reshape(-1, width // heads))
    values, value_scales = quantise_q8(np.ascontiguousarray(v.T))
    exact, _ = numpy_kernels.gated_cross_attention_f32(a, query, k, v, bias, gate, 0.0, 1.0, heads)
    got, _ = numpy_kernels.gated_cross_attention_q8(
        a,
        query,
        keys.reshape(tokens, width),
        key_scales.reshape(tokens, heads),
        np.ascontiguousarray(values.T),
        value_scales,
        bias,
        gate,
        0.0,
        1.0,
        heads,
    )
    assert np.linalg.norm(got - exact) / np.linalg.norm(exact - a) < 0.05  # of random values, which nearly cancel


def poisoned(poison: float):
    ones, eye, bytes_, scales = (
        np.ones(4, np.float32),
        np.ones((3, 4), np.float32),
        np.ones((3, 4), np.int8),
        np.ones((3, 2)),
    )

    def bad(shape):
        array = np.ones(shape, np.float32)
        array.flat[-1] = poison
        return array

    q8, q4 = quantise_weights_q8(eye), quantise_weights_q4(eye)
    f = scales.astype(np.float32)
    yield lambda k: k.quantise_q8(bad((3, 4)))
    yield lambda k: k.linear_q8(bad((3, 4)), q8, None)
    yield lambda k: k.linear_q8(eye, q8, bad(3))
    yield lambda k: k.linear_q8(eye, MatrixQ8(q8.values, bad(3)), None)
    yield lambda k: k.linear_q4(bad((3, 4)), q4, None)
    yield lambda k: k.linear_q4(eye, q4, bad(3))
    yield lambda k: k.linear_q4(eye, MatrixQ4(q4.values, bad((3, 1)).astype(np.float16), 4), None)
    yield lambda k: k.self_attention_q8(bad(4), bytes_, f, bytes_, f, 2)
    yield lambda k: k.self_attention_q8(ones, bytes_, bad((3, 2)), bytes_, f, 2)
    yield lambda k: k.self_attention_q8(ones, bytes_, f, bytes_, bad((3, 2)), 2)
    cross: list[np.ndarray] = [ones, ones, bytes_, f, bytes_, ones, np.ones(3, np.float32)]
    for index, array in enumerate(cross):
        if array.dtype == np.float32:
            changed = [*cross[:index], bad(array.shape), *cross[index + 1 :]]
            yield lambda k, changed=changed: k.gated_cross_attention_q8(*changed, ones, 0.0, 1.0, 2)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nan_and_infinity_are_errors_never_numbers(kernels, poison):
    calls = list(poisoned(poison))
    assert len(calls) >= 15
    for call in calls:
        with pytest.raises(BackendError) as caught:
            call(kernels)
        assert caught.value.code == "kernels.not-finite"


def test_wrong_dtype_shape_and_nothing_visible_name_what_was_expected(kernels):
    ones, bytes_, f = np.ones(4, np.float32), np.ones((3, 4), np.int8), np.ones((3, 2), np.float32)
    q8 = quantise_weights_q8(np.ones((3, 4), np.float32))
    hidden = np.full(3, -np.inf, np.float32)
    wrong = {
        "float64": lambda: kernels.quantise_q8(np.ones((3, 4))),
        r"shape \(any, 4\)": lambda: kernels.linear_q8(np.ones((3, 5), np.float32), q8, None),
        r"bias .*\(3\)": lambda: kernels.linear_q8(np.ones((3, 4), np.float32), q8, ones),
        r"keys as a contiguous int8 array of shape \(3, 4\)": lambda: kernels.self_attention_q8(
            ones, bytes_.astype(np.uint8), f, bytes_, f, 2
        ),
        "heads that divide": lambda: kernels.self_attention_q8(ones, bytes_, f, bytes_, f, 3),
        "not contiguous": lambda: kernels.self_attention_q8(ones, np.asfortranarray(bytes_), f, bytes_, f, 2),
    }
    for sentence, call in wrong.items():
        with pytest.raises(BackendError, match=sentence) as caught:
            call()
        assert caught.value.code == "kernels.bad-argument"
    with pytest.raises(BackendError, match="-inf on all") as caught:
        kernels.gated_cross_attention_q8(ones, ones, bytes_, f, bytes_, ones, hidden, ones, 0.0, 1.0, 2)
    assert caught.value.code == "kernels.nothing-allowed"


def sequence(kernels, shape, weights, image, fed, **limits):
    session = kernels.quantised_decoder(shape, weights, **limits)
    session.begin(*image)
    steps = [session.step(token) for token in fed]
    return np.stack([logits for logits, _ in steps]), np.stack([maps for _, maps in steps])


def decoder_case(shape: DecoderShape, precision: str, image_tokens: int):
    generator = np.random.default_rng(5)
    weights = quantise_decoder(shape, random_weights(shape, generator), precision)
    image = random(6, image_tokens, shape.channels), random(7, shape.layers, image_tokens)
    return weights, image, generator.integers(0, shape.vocabulary, min(shape.positions, 35)).tolist()


@pytest.mark.parametrize("precision", ["q8", "q4"])
@pytest.mark.parametrize(("shape", "image_tokens"), [(SMALL, 37), (ODD, 1), (ODD, 96)], ids=str)
def test_the_fused_step_is_the_composed_one(native, shape, image_tokens, precision):
    weights, image, fed = decoder_case(shape, precision, image_tokens)
    expected, expected_maps = sequence(numpy_kernels, shape, weights, image, fed)
    got, maps = sequence(native, shape, weights, image, fed)
    errors = [error(one, other) for one, other in zip(got, expected, strict=True)]
    assert np.median(errors) <= 1e-5
    assert max(errors) <= 0.02  # a value on the edge between two of 255 steps went the other way
    assert error(maps, expected_maps) <= 0.05


@pytest.mark.parametrize("precision", ["q8", "q4"])
def test_every_set_and_any_number_of_threads_gives_the_same_bits(precision):
    weights, image, fed = decoder_case(SMALL, precision, 37)
    expected, expected_maps = sequence(chosen("reference"), SMALL, weights, image, fed)
    for name in chosen("reference").runnable():
        for threads in (1, 2, 3):
            got, maps = sequence(chosen(name), SMALL, weights, image, fed, threads=threads)
            np.testing.assert_array_equal(got, expected)
            np.testing.assert_array_equal(maps, expected_maps)


def test_a_batch_gives_the_bits_of_each_sequence_alone(native):
    weights, (tokens, bias), fed = decoder_case(SMALL, "q8", 37)
    images = [(tokens, bias), (tokens[::-1].copy(), bias[:, ::-1].copy())]
    alone = [sequence(native, SMALL, weights, image, fed[:4])[0] for image in images]
    session = native.quantised_decoder(SMALL, weights, threads=2, images=2, sequences=8)
    for image, arrays in enumerate(images):
        session.begin_image(image, *arrays)
    for count in (1, 2, 3, 8):
        for sequence_number in range(count):
            session.start_sequence(sequence_number, sequence_number % 2)
        for at in range(4):
            logits = session.step_batch([fed[at]] * count, list(range(count)))
            for sequence_number in range(count):
                np.testing.assert_array_equal(logits[sequence_number], alone[sequence_number % 2][at])
    session.copy_sequence(1, 5)
    logits = session.step_batch([3, 3], [1, 5])
    np.testing.assert_array_equal(logits[0], logits[1])
    with pytest.raises(BackendError, match="different sequences"):
        session.step_batch([3, 3], [1, 1])
    with pytest.raises(BackendError, match="1 to 8 tokens"):
        session.step_batch([3] * 9, list(range(9)))


def test_q8_is_near_the_float_decoder():
    shape = DecoderShape(30, 128, 3, 4, 384, 64, 128)
    weights = random_weights(shape, np.random.default_rng(1))
    image = random(2, 256, 128), random(3, 3, 256)
    exact = numpy_kernels.decoder(shape, weights)
    exact.begin(*image)
    expected = np.stack([exact.step(token)[0] for token in range(12)])
    got, _ = sequence(numpy_kernels, shape, quantise_decoder(shape, weights, "q8"), image, range(12))
    cosine = (got * expected).sum(axis=1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize("precision", ["q8", "q4"])
def test_a_quantised_decoder_generates_what_its_grammar_allows(kernels, precision):
    config = DecoderConfig(width=24, layers=2, heads=3, ffn=40, bias_sigma=(2.2, 0.35))
    weights = random_weights(config.shape(128), np.random.default_rng(3))
    decoder = Decoder.load(config, weights, kernels.name, precision=precision, threads=2)
    image, grammar = random_image(3), Findings()
    generated = decoder.generate(*image, grammar)
    state = grammar.start()
    for token in generated.tokens[1:]:
        state = grammar.advance(state, token)
    assert grammar.ended(state)
    assert decoder.generate(*image, grammar).tokens == generated.tokens
    for at, attention in generated.cross_attention.items():
        assert generated.tokens[at] in FINDING_TOKENS
        assert attention.sum(axis=1) == pytest.approx(1.0, abs=1e-4)
    prefix = (BOS, 5, 18)
    assert decoder.logits(*image, prefix).shape == (3, 30)


def shipped(shape: DecoderShape, precision: str) -> dict[str, np.ndarray]:
    quantised = quantise_decoder(shape, random_weights(shape, np.random.default_rng(8)), precision)
    tensors: dict[str, np.ndarray] = dict(quantised.floats)
    for name, matrix in quantised.matrices.items():
        tensors[name], tensors[f"{name}_scale"] = matrix.values, matrix.scales
    return tensors


@pytest.mark.parametrize("precision", ["q8", "q4"])
def test_a_decoder_that_was_quantised_before_it_was_shipped(precision):
    config = DecoderConfig(width=24, layers=2, heads=3, ffn=40, bias_sigma=(2.2, 0.35))
    shape = config.shape(128)
    decoder = Decoder.load(config, shipped(shape, precision), SETS[0])
    rounded_here = Decoder.load(config, random_weights(shape, np.random.default_rng(8)), SETS[0], precision=precision)
    image = random_image(3)
    assert decoder.generate(*image, Findings()).tokens == rounded_here.generate(*image, Findings()).tokens


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("head.weight_scale", None, "none named head.weight_scale"),
        ("head.weight_scale", np.full(30, np.nan, np.float32), "finite numbers in head.weight_scale"),
        ("layers.0.up.weight", np.zeros((40, 23), np.int8), "layers.0.up.weight as int8 of shape"),
        ("layers.0.up.weight", np.full((40, 24), -128, np.int8), "-127 to 127, got -128"),
        ("layers.9.up.weight", np.zeros((40, 24), np.int8), "unknown ones: layers.9.up.weight"),
        ("norm.bias", np.zeros(24, np.float16), "norm.bias as float32"),
    ],
)
def test_wrong_quantised_weights_are_refused_by_name(name, change, sentence):
    shape = DecoderConfig(width=24, layers=2, heads=3, ffn=40, bias_sigma=(2.2, 0.35)).shape(128)
    tensors = {**shipped(shape, "q8"), name: change}
    with pytest.raises(BundleError, match=sentence):
        from_tensors(shape, {key: array for key, array in tensors.items() if array is not None})


def test_limits_of_a_decoder_are_checked(native):
    weights, image, _ = decoder_case(ODD, "q8", 3)
    for limits in ({"threads": 0}, {"threads": 17}, {"images": 65}, {"sequences": 0}):
        with pytest.raises(BackendError, match=r"expected .* of 1 to"):
            native.quantised_decoder(ODD, weights, **limits)
    session = native.quantised_decoder(ODD, weights)
    with pytest.raises(BackendError, match="before a step") as caught:
        session.step(1)
    assert caught.value.code == "kernels.wrong-state"
    session.begin(*image)
    for token in range(ODD.positions):
        session.step(token)
    with pytest.raises(BackendError, match="at most 9 steps"):
        session.step(1)
