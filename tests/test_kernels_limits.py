"""A second reader's list: sums at the edge of 32 bits, powers that hide an overflow, memory and threads that run out,
forks. Every set of kernels and numpy's definition answer alike."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from edge.errors import BackendError
from edge.reading.ops import numpy_kernels
from edge.reading.ops.native import NativeKernels
from edge.reading.ops.quantised import GREATEST_SUMMED, MatrixQ8
from edge.reading.ops.reference_quantised import quantise_decoder
from edge.reading.ops.shape import DecoderShape
from tests.kernel_cases import random_weights
from tests.kernel_sets import SETS, chosen

SMALL = DecoderShape(30, 40, 2, 5, 70, 40, 17)
WIDE = DecoderShape(vocabulary=4, width=64, layers=8, heads=64, ffn=4, positions=GREATEST_SUMMED, channels=1)
"""One channel a head: as much cache per weight as there can be, 3.5 GB."""


@pytest.fixture(scope="module", autouse=True)
def built(root):
    subprocess.run([root / "tools" / "build_kernels"], check=True)


@pytest.fixture(params=SETS)
def native(request) -> NativeKernels:
    return chosen(request.param)


@pytest.fixture(params=["numpy", *SETS])
def kernels(request):
    return numpy_kernels if request.param == "numpy" else chosen(request.param)


def code_of(call) -> str:
    with pytest.raises(BackendError, match=r"expected .* got") as caught:
        call()
    return caught.value.code


def test_the_longest_sum_is_exact_and_a_longer_one_is_refused(kernels):
    x = np.ones((1, GREATEST_SUMMED + 1), np.float32)
    values = np.full((1, GREATEST_SUMMED + 1), -127, np.int8)
    one = np.ones(1, np.float32)
    longest = MatrixQ8(np.ascontiguousarray(values[:, 1:]), one)
    y = kernels.linear_q8(np.ascontiguousarray(x[:, 1:]), longest, None)
    assert float(y[0, 0]) == pytest.approx(-127.0 * GREATEST_SUMMED, rel=1e-6)
    assert code_of(lambda: kernels.linear_q8(x, MatrixQ8(values, one), None)) == "kernels.bad-argument"


def test_minus_128_is_no_weight_and_no_key(kernels):
    ones, scales = np.ones(4, np.float32), np.ones((3, 2), np.float32)
    good, bad = np.ones((3, 4), np.int8), np.full((3, 4), -128, np.int8)
    calls = [
        lambda: kernels.linear_q8(np.ones((1, 4), np.float32), MatrixQ8(bad, np.ones(3, np.float32)), None),
        lambda: kernels.self_attention_q8(ones, bad, scales, good, scales, 2),
        lambda: kernels.self_attention_q8(ones, good, scales, bad, scales, 2),
        lambda: kernels.gated_cross_attention_q8(ones, ones, bad, scales, good, ones, None, ones, 0.0, 1.0, 2),
    ]
    assert [code_of(call) for call in calls] == ["kernels.bad-argument"] * 4


def test_minus_128_is_no_weight_of_a_decoder(native):
    weights = quantise_decoder(SMALL, random_weights(SMALL, np.random.default_rng(0)), "q8")
    head = weights.matrices["head.weight"]
    head.values[0, 0] = -128
    assert code_of(lambda: native.quantised_decoder(SMALL, weights)) == "kernels.bad-argument"


def test_scores_that_overflow_are_an_error(kernels):
    """The powers of the softmax are bounded, which would turn an infinite score into a plausible share."""
    ones, many = np.ones(4, np.float32), np.full(3, 3e38, np.float32)
    great, keys = np.full(4, 1e19, np.float32), np.full((3, 4), 1e19, np.float32)
    rows, scales = np.full((3, 4), 127, np.int8), np.full((3, 2), 3e36, np.float32)
    rows[0] = 0  # an infinite factor times no product is not a number
    unit = np.ones((3, 2), np.float32)
    calls = [
        lambda: kernels.gated_cross_attention_f32(ones, great, keys, keys, many, ones, 0.0, 1.0, 2),
        lambda: kernels.self_attention_q8(great, rows, scales, rows, unit, 2),
        lambda: kernels.gated_cross_attention_q8(ones, great, rows, scales, rows, ones, None, ones, 0.0, 1.0, 2),
    ]
    assert [code_of(call) for call in calls] == ["kernels.not-finite"] * 3


@pytest.mark.parametrize("poisoned", ["layers.1.up.weight", "layers.0.k.weight", "layers.1.q.weight", "head.weight"])
def test_an_overflow_inside_the_fused_step_is_an_error(kernels, poisoned):
    weights = quantise_decoder(SMALL, random_weights(SMALL, np.random.default_rng(0)), "q8")
    weights.matrices[poisoned].scales[:] = 3e37
    session = kernels.quantised_decoder(SMALL, weights)
    session.begin(np.ones((9, 17), np.float32), np.zeros((2, 9), np.float32))
    assert code_of(lambda: [session.step(token) for token in range(4)]) == "kernels.not-finite"


def test_equal_numbers_have_no_spread_however_great(kernels):
    bias = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
    y = kernels.layer_norm_f32(np.full((1, 4), 2.0**100, np.float32), np.ones(4, np.float32), bias)
    np.testing.assert_array_equal(y[0], bias)


def test_denormal_numbers_give_the_same_bits_everywhere():
    generator = np.random.default_rng(3)
    x = (generator.standard_normal((4, 33)) * 1e-40).astype(np.float32)
    weight = generator.standard_normal((5, 33)).astype(np.float32)
    results = []
    for name in chosen("reference").runnable():
        kernels = chosen(name)
        values, scales = kernels.quantise_q8(x)
        results.append([values, scales, kernels.linear_q8(x, MatrixQ8(*kernels.quantise_q8(weight)), None)])
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(got, expected)


def test_a_scan_that_grows_without_bound_is_an_error(kernels):
    one, wide = np.ones((4, 1, 1), np.float32), np.full((4, 1, 1), 89.0, np.float32)
    skip = np.zeros((4, 1), np.float32)
    assert code_of(lambda: kernels.selective_scan_f32(one, one, wide, one, one, skip, 1, 1)) == "kernels.not-finite"


def test_top_k_of_a_whole_ascending_vocabulary(native):
    logits = np.arange(1 << 17, dtype=np.float32)
    tokens, _ = native.masked_top_k_f32(logits, np.ones(logits.size, np.bool_), logits.size)
    np.testing.assert_array_equal(tokens, np.arange(logits.size)[::-1])


def test_differences_of_logits_that_overflow_are_an_error(kernels):
    logits, allowed = np.array([3e38, -3e38], np.float32), np.ones(2, np.bool_)
    assert kernels.masked_argmax_f32(logits, allowed) == (0, 0.0)
    assert code_of(lambda: kernels.masked_top_k_f32(logits, allowed, 2)) == "kernels.not-finite"


@pytest.mark.parametrize("scale", [1e-30, 1.0, 20.0, 1e30])
def test_swiglu_matches_numpy(native, scale):
    generator = np.random.default_rng(4)
    gate = (generator.standard_normal(385) * scale).astype(np.float32)
    up = generator.standard_normal(385).astype(np.float32)
    expected = numpy_kernels.swiglu_f32(gate, up)
    assert np.abs(native.swiglu_f32(gate, up) - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1e-30)


def test_known_swiglu(kernels):
    up = np.array([2, 2, 2, 2], np.float32)
    y = kernels.swiglu_f32(np.array([0, 1, -1, 100], np.float32), up)
    assert y == pytest.approx([0.0, 1.4621172, -0.5378828, 200.0], abs=1e-5)
    for poison in (np.nan, np.inf, -np.inf):
        bad = np.array([1, poison, 1, 1], np.float32)
        assert code_of(lambda bad=bad: kernels.swiglu_f32(bad, up)) == "kernels.not-finite"
        assert code_of(lambda bad=bad: kernels.swiglu_f32(up, bad)) == "kernels.not-finite"


@pytest.mark.parametrize(("width", "heads", "tokens"), [(1, 1, 1), (15, 5, 7), (33, 3, 40), (128, 4, 256)])
def test_the_fused_cross_attention_is_the_layers_own(native, width, heads, tokens):
    generator = np.random.default_rng(5)

    def random(*shape):
        return generator.standard_normal(shape).astype(np.float32)

    x, h, a, query_bias, gate, out_bias = random(6, width)
    query, out = random(2, width, width) / np.float32(np.sqrt(width))
    hidden = random(tokens)
    hidden[1::3] = -np.inf
    for bias in (None, random(tokens), hidden):
        image = random(tokens, width), random(tokens, width), bias
        arguments = x, h, a, query, query_bias, *image, gate, 0.3, 0.7, out, out_bias, heads
        (got, got_map), (expected, expected_map) = (
            k.fused_cross_attention_f32(*arguments) for k in (native, numpy_kernels)
        )
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
        assert got_map == pytest.approx(expected_map, abs=1e-6)
        # The operators one by one
        asked = native.linear_f32(h[None], query, query_bias)[0]
        mixed, _ = native.gated_cross_attention_f32(a, asked, *image, gate, 0.3, 0.7, heads)
        composed = x + native.linear_f32(mixed[None], out, out_bias)[0]
        np.testing.assert_array_equal(got, composed)
    poisoned = [np.full_like(x, np.nan), *arguments[1:]]
    assert code_of(lambda: native.fused_cross_attention_f32(*poisoned)) == "kernels.not-finite"


def test_memory_that_is_not_there_is_an_error_and_the_decoder_goes_on(native):
    weights = quantise_decoder(WIDE, random_weights(WIDE, np.random.default_rng(0)), "q8")
    assert code_of(lambda: native.quantised_decoder(WIDE, weights)) == "kernels.out-of-memory"
    short = DecoderShape(**{**vars(WIDE), "positions": 8})
    session = native.quantised_decoder(
        short, quantise_decoder(short, random_weights(short, np.random.default_rng(0)), "q8")
    )
    great = np.ones((GREATEST_SUMMED, 1), np.float32), np.zeros((8, GREATEST_SUMMED), np.float32)
    small = np.ones((3, 1), np.float32), np.zeros((8, 3), np.float32)
    for _ in range(2):  # the same size again finds nothing half made
        assert code_of(lambda: session.begin(*great)) == "kernels.out-of-memory"
        assert code_of(lambda: session.step(0)) == "kernels.wrong-state"
        session.begin(*small)
        assert np.isfinite(session.step(0)[0]).all()


def steps(session, count: int = 12) -> np.ndarray:
    generator = np.random.default_rng(9)
    session.begin(generator.standard_normal((37, 17), np.float32), generator.standard_normal((2, 37), np.float32))
    return np.stack([session.step(token)[0] for token in range(count)])


def test_many_threads_and_two_decoders_at_once_give_the_same_bits(native):
    weights = quantise_decoder(SMALL, random_weights(SMALL, np.random.default_rng(0)), "q8")
    expected = steps(native.quantised_decoder(SMALL, weights))
    found: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def decode(caller: int) -> None:
        session = native.quantised_decoder(SMALL, weights, threads=16 if caller == 0 else 3)
        found[caller] += [steps(session) for _ in range(5)]

    callers = [threading.Thread(target=decode, args=(caller,)) for caller in found]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for logits in found[0] + found[1]:
        np.testing.assert_array_equal(logits, expected)


def run(root: Path, program: str) -> str:
    before = """
        import os, resource
        import numpy as np
        from edge.errors import BackendError
        from tests.test_kernels_limits import NativeKernels, SMALL, quantise_decoder, random_weights, steps
        native = NativeKernels()
        weights = quantise_decoder(SMALL, random_weights(SMALL, np.random.default_rng(0)), "q8")
    """
    text = textwrap.dedent(before) + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", text], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fork_decodes_alone_and_ends_without_harm(root):
    """The child has the decoder but not its threads, and must neither wait for them nor touch what they left."""
    program = """
        session = native.quantised_decoder(SMALL, weights, threads=3)
        expected = steps(session)
        child = os.fork()
        if child == 0:
            same = (steps(session) == expected).all()
            del session
            own = (steps(native.quantised_decoder(SMALL, weights, threads=3)) == expected).all()
            os._exit(0 if same and own else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (steps(session) == expected).all()
        print("both")
    """
    assert run(root, program).strip() == "both"


def test_threads_that_the_system_does_not_give_are_an_error(root):
    program = """
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), resource.RLIM_INFINITY))
        try:
            native.quantised_decoder(SMALL, weights, threads=16)
        except BackendError as error:
            print(error.code, error.message)
        print(steps(native.quantised_decoder(SMALL, weights)).shape)
    """
    said = run(root, program)
    assert said.startswith("kernels.out-of-memory expected the system to give the kernels their threads, got")
    assert "(12, 30)" in said
