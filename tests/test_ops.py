"""Every operator: the native kernels against numpy's definition, and the definition against known values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.errors import BackendError, ConfigError
from edge.reading.ops import load_kernels, numpy_kernels, reference
from edge.reading.ops.native import ABI_VERSION, LIBRARY, NativeKernels
from edge.reading.ops.reference_scan import scan_order
from tests.kernel_cases import scan_arrays
from tests.kernel_sets import SETS, chosen

TOLERANCE = 1e-5
WIDTHS_AND_HEADS = [(1, 1), (3, 1), (8, 2), (15, 5), (33, 3), (128, 4)]


@pytest.fixture(scope="module")
def built(root: Path) -> None:
    subprocess.run([root / "tools" / "build_kernels"], check=True)


@pytest.fixture(params=SETS)
def native(request, built) -> NativeKernels:
    return chosen(request.param)


@pytest.fixture(params=["numpy", *SETS])
def kernels(request, built):
    return numpy_kernels if request.param == "numpy" else chosen(request.param)


def random(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    """Normalised error: the greatest difference relative to the greatest expected value."""
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    scale = max(float(np.abs(expected).max()), 1e-30)
    assert float(np.abs(got.astype(np.float64) - expected).max()) / scale <= TOLERANCE


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e15])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (1, 7), (3, 128), (17, 33)])
def test_layer_norm_matches_numpy(native, rows, width, scale):
    arguments = random(1, rows, width, scale=scale), random(2, width), random(3, width)
    assert_same(native.layer_norm_f32(*arguments), reference.layer_norm_f32(*arguments))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e15])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (1, 128, 30), (5, 7, 3), (256, 33, 9), (2, 384, 5)])
def test_linear_matches_numpy(native, rows, inputs, outputs, scale):
    x, weight, bias = random(1, rows, inputs, scale=scale), random(2, outputs, inputs), random(3, outputs)
    assert_same(native.linear_f32(x, weight, bias), reference.linear_f32(x, weight, bias))
    assert_same(native.linear_f32(x, weight, None), reference.linear_f32(x, weight, None))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 20.0, 1e30])
def test_gelu_matches_numpy(native, scale):
    x = random(1, 385, scale=scale)
    assert_same(native.gelu_tanh_f32(x), reference.gelu_tanh_f32(x))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize(("width", "heads"), WIDTHS_AND_HEADS)
def test_self_attention_matches_numpy_at_every_position(native, width, heads, scale):
    positions = 9
    keys, values, native_keys, native_values = np.zeros((4, positions, width), np.float32)
    for position in range(positions):
        query, key, value = random(position, 3, width, scale=scale)
        expected = reference.self_attention_step_f32(query, key, value, keys, values, position, heads)
        got = native.self_attention_step_f32(query, key, value, native_keys, native_values, position, heads)
        assert_same(got, expected)
    np.testing.assert_array_equal(native_keys, keys)
    np.testing.assert_array_equal(native_values, values)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("image_tokens", [1, 5, 256])
@pytest.mark.parametrize(("width", "heads"), WIDTHS_AND_HEADS)
@pytest.mark.requirement("READ-07")
def test_cross_attention_matches_numpy(native, width, heads, image_tokens, scale):
    a, query, gate = random(1, 3, width, scale=scale)
    keys, values = random(2, 2, image_tokens, width, scale=scale)
    hidden = random(3, image_tokens)
    hidden[1::3] = -np.inf
    for bias in (None, random(4, image_tokens), hidden):
        arguments = a, query, keys, values, bias, gate, 0.3, 0.7, heads
        (got, got_map), (expected, expected_map) = (
            k.gated_cross_attention_f32(*arguments) for k in (native, reference)
        )
        assert_same(got, expected)
        assert_same(got_map, expected_map)
        assert float(got_map.sum()) == pytest.approx(1.0, abs=1e-5)
    assert (got_map[1::3] == 0).all()


@pytest.mark.parametrize("sigma", [0.0, 0.35, 1.1, 2.2, 9.0])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (3, 2), (16, 16)])
def test_blur_matches_numpy_and_keeps_a_flat_map(native, height, width, sigma):
    grid = random(1, height, width)
    assert_same(native.gaussian_blur_f32(grid, sigma), reference.gaussian_blur_f32(grid, sigma))
    flat = np.full((height, width), 0.25, np.float32)
    assert_same(native.gaussian_blur_f32(flat, sigma), flat)


@pytest.mark.parametrize(("count", "height", "width"), [(1, 1, 1), (3, 16, 16), (2, 5, 9)])
def test_anatomical_bias_matches_numpy(native, count, height, width):
    masks = np.abs(np.tanh(random(1, count, height, width)))
    arguments = masks, (2.2, 1.1, 0.35), 0.8
    assert_same(native.anatomical_bias_f32(*arguments), reference.anatomical_bias_f32(*arguments))


def test_anatomical_bias_grows_sharper_from_layer_to_layer(kernels):
    masks = np.zeros((3, 16, 16), np.float32)
    masks[0, 4:12, 2:6] = masks[1, 4:12, 10:14] = 0.9
    bias = kernels.anatomical_bias_f32(masks, (2.2, 1.1, 0.35), 1.0).reshape(3, 16, 16)
    assert (bias.min(axis=(1, 2)) == 0).all()
    assert bias.max(axis=(1, 2)) == pytest.approx(1.0)
    steepest = np.abs(np.diff(bias, axis=2)).max(axis=(1, 2))
    assert steepest[0] < steepest[1] < steepest[2]
    assert bias[2, 8, 4] > 0.99
    assert bias[2, 8, 8] < 0.01


def test_a_mask_without_shape_gives_no_bias(kernels):
    masks = np.full((3, 16, 16), 0.4, np.float32)
    assert not kernels.anatomical_bias_f32(masks, (2.2, 0.0), 1.0).any()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize(
    ("height", "width", "channels", "states"), [(1, 1, 1, 1), (1, 7, 3, 2), (5, 3, 17, 16), (14, 14, 48, 8)]
)
def test_selective_scan_matches_numpy(native, height, width, channels, states, scale):
    arrays = scan_arrays(np.random.default_rng(2), height * width, channels, states)
    arrays[0] *= np.float32(scale)
    arguments = *arrays, height, width
    assert_same(native.selective_scan_f32(*arguments), numpy_kernels.selective_scan_f32(*arguments))


def test_selective_scan_goes_in_four_directions(kernels):
    """An impulse in the middle, no decay: each direction carries it to the tokens after it, each in its own order."""
    height, width = 3, 4
    order = scan_order(height, width)
    impulse = 5
    x, ones = np.zeros((4, 12, 1), np.float32), np.ones((4, 12, 1), np.float32)
    x[:, impulse] = 4.0
    zeros = np.zeros((4, 1, 1), np.float32)
    y = kernels.selective_scan_f32(x, ones, zeros, ones, ones, np.zeros((4, 1), np.float32), height, width)
    expected = np.zeros(12)
    for direction in order:
        expected[direction[list(direction).index(impulse) :]] += 1.0
    np.testing.assert_allclose(y[:, 0], expected)


@pytest.mark.parametrize(("vocabulary", "k"), [(1, 1), (30, 5), (30, 30), (257, 8)])
def test_masked_top_k_matches_numpy(native, vocabulary, k):
    for seed in range(20):
        logits = np.round(random(seed, vocabulary), 1)  # with ties
        allowed = np.random.default_rng(seed).random(vocabulary) < 0.4
        allowed[seed % vocabulary] = True
        tokens, logs = native.masked_top_k_f32(logits, allowed, k)
        expected_tokens, expected_logs = reference.masked_top_k_f32(logits, allowed, k)
        np.testing.assert_array_equal(tokens, expected_tokens)
        np.testing.assert_allclose(logs, expected_logs, atol=1e-5)
        assert tokens[0] == native.masked_argmax_f32(logits, allowed)[0]


@pytest.mark.parametrize("vocabulary", [1, 2, 30, 257])
def test_masked_argmax_matches_numpy(native, vocabulary):
    for seed in range(20):
        logits, scale = random(seed, vocabulary), 10.0 ** (seed % 4)
        allowed = np.random.default_rng(seed).random(vocabulary) < 0.4
        allowed[seed % vocabulary] = True
        token, log_probability = native.masked_argmax_f32(logits * np.float32(scale), allowed)
        expected = reference.masked_argmax_f32(logits * np.float32(scale), allowed)
        assert allowed[token]
        assert (token, log_probability) == (expected[0], pytest.approx(expected[1], abs=1e-5))


def test_masked_argmax_ties_go_to_the_lowest_and_share_the_probability(kernels):
    token, log_probability = kernels.masked_argmax_f32(
        np.array([9, 2, 2, 1e38], np.float32), np.array([False, True, True, False])
    )
    assert token == 1
    assert log_probability == pytest.approx(-np.log(2.0))


def test_known_values(kernels):
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    x = np.array([1, 2, 3, 4], np.float32)
    assert kernels.layer_norm_f32(x[None], ones, zeros)[0] == pytest.approx(
        [-1.3416, -0.4472, 0.4472, 1.3416], abs=1e-4
    )
    # Table values of GELU's tanh form at -1, 0, 1, 3.
    gelu = kernels.gelu_tanh_f32(np.array([-1, 0, 1, 3], np.float32))
    assert gelu == pytest.approx([-0.158808, 0.0, 0.841192, 2.996363], abs=1e-5)
    caches = np.zeros((2, 3, 4), np.float32)
    alone = kernels.self_attention_step_f32(ones, ones, x, *caches, 0, 2)
    assert alone == pytest.approx(x)  # one key: its value comes through whole
    impulse = np.zeros((9, 9), np.float32)
    impulse[4, 4] = 1.0
    blurred = kernels.gaussian_blur_f32(impulse, 1.0)
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-6)
    assert blurred[4, 5] / blurred[4, 4] == pytest.approx(np.exp(-0.5), abs=1e-6)


def test_layer_norm_of_the_greatest_floats_does_not_overflow(kernels):
    x = np.array([[3e38, -3e38, 1e38, 0]], np.float32)
    y = kernels.layer_norm_f32(x, np.ones(4, np.float32), np.zeros(4, np.float32))
    assert float(np.square(y).mean()) == pytest.approx(1.0, abs=1e-4)


def calls_with_poison(kernels, poison: float):
    """Each operator with one bad number in each array that it reads."""
    ones, eye = np.ones(4, np.float32), np.ones((3, 4), np.float32)

    def bad(shape):
        array = np.ones(shape, np.float32)
        array.flat[-1] = poison
        return array

    caches = np.zeros((2, 3, 4), np.float32)
    cross = {"a": ones, "query": ones, "keys": eye, "values": eye, "bias": np.ones(3, np.float32), "gate_weight": ones}
    yield lambda: kernels.layer_norm_f32(bad((3, 4)), ones, ones)
    yield lambda: kernels.layer_norm_f32(eye, bad(4), ones)
    yield lambda: kernels.layer_norm_f32(eye, ones, bad(4))
    yield lambda: kernels.linear_f32(bad((3, 4)), eye, None)
    yield lambda: kernels.linear_f32(eye, bad((3, 4)), None)
    yield lambda: kernels.linear_f32(eye, eye, bad(3))
    yield lambda: kernels.gelu_tanh_f32(bad(4))
    for at in range(3):
        arrays = [bad(4) if index == at else ones for index in range(3)]
        yield lambda arrays=arrays: kernels.self_attention_step_f32(*arrays, *caches, 0, 2)
    for name, array in cross.items():
        poisoned = {**cross, name: bad(array.shape)}
        if not (name == "gate_weight" and np.isinf(poison)):  # tanh(inf) is 1: finite, and right
            yield lambda poisoned=poisoned: kernels.gated_cross_attention_f32(
                **poisoned, gate_bias=0.0, gate_scale=1.0, heads=2
            )
    yield lambda: kernels.gated_cross_attention_f32(**cross, gate_bias=0.0, gate_scale=poison, heads=2)
    yield lambda: kernels.gaussian_blur_f32(bad((3, 4)), 1.0)
    yield lambda: kernels.anatomical_bias_f32(bad((2, 3, 4)), (1.0,), 1.0)
    yield lambda: kernels.masked_argmax_f32(bad(4), np.array([True, True, False, False]))
    scan = scan_arrays(np.random.default_rng(0), 6, 3, 2)
    for at, array in enumerate(scan):
        poisoned_scan = [*scan[:at], bad(array.shape), *scan[at + 1 :]]
        yield lambda poisoned_scan=poisoned_scan: kernels.selective_scan_f32(*poisoned_scan, 2, 3)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nan_and_infinity_are_errors_never_numbers(kernels, poison):
    calls = list(calls_with_poison(kernels, poison))
    assert len(calls) >= 19
    for call in calls:
        with pytest.raises(BackendError) as caught:
            call()
        assert caught.value.code == "kernels.not-finite"


def test_nothing_to_attend_to_and_nothing_to_say_are_errors(kernels):
    ones, eye = np.ones(4, np.float32), np.ones((3, 4), np.float32)
    hidden = np.full(3, -np.inf, np.float32)
    with pytest.raises(BackendError, match="-inf on all") as caught:
        kernels.gated_cross_attention_f32(ones, ones, eye, eye, hidden, ones, 0.0, 1.0, 2)
    assert caught.value.code == "kernels.nothing-allowed"
    with pytest.raises(BackendError, match="at least one allowed token") as caught:
        kernels.masked_argmax_f32(ones, np.zeros(4, np.bool_))
    assert caught.value.code == "kernels.nothing-allowed"


def test_wrong_dtype_shape_layout_and_bounds_name_what_was_expected(kernels):
    ones, eye = np.ones(4, np.float32), np.ones((3, 4), np.float32)
    caches = np.zeros((2, 3, 4), np.float32)
    wrong = {
        "float64": lambda: kernels.gelu_tanh_f32(np.ones(4)),
        r"shape \(3, 4\)": lambda: kernels.gelu_tanh_f32(eye),
        "not contiguous": lambda: kernels.linear_f32(eye.T, eye, None),
        r"shape \(any, 4\)": lambda: kernels.linear_f32(eye, np.ones((4, 3), np.float32), None),
        r"bias .* shape \(4\)": lambda: kernels.layer_norm_f32(eye, ones, np.ones(3, np.float32)),
        r"\(0,\)": lambda: kernels.gelu_tanh_f32(np.ones(0, np.float32)),
        "position of 0 to 2": lambda: kernels.self_attention_step_f32(ones, ones, ones, *caches, 3, 2),
        "heads that divide": lambda: kernels.self_attention_step_f32(ones, ones, ones, *caches, 0, 3),
        "sigma of 0 to 1024": lambda: kernels.gaussian_blur_f32(eye, float("nan")),
        "bool array": lambda: kernels.masked_argmax_f32(ones, np.ones(4, np.uint8)),
        "k of 1 to 4": lambda: kernels.masked_top_k_f32(ones, np.ones(4, np.bool_), 5),
    }
    for sentence, call in wrong.items():
        with pytest.raises(BackendError, match=sentence) as caught:
            call()
        assert caught.value.code == "kernels.bad-argument"


def test_the_choice_of_kernels(native, monkeypatch):
    monkeypatch.delenv("RADBOX_KERNELS", raising=False)
    assert load_kernels("numpy").name == "numpy"
    assert load_kernels("reference").name == "reference"
    assert load_kernels("auto").name in native.known()
    with pytest.raises(ConfigError, match="got 'fast'"):
        load_kernels("fast")
    assert load_kernels("auto").name == native.runnable()[0]
    with pytest.raises(BackendError, match=r'one of: .*reference.* got "avx9000"') as caught:
        NativeKernels("avx9000")
    assert caught.value.code == "kernels.unknown"
    for name in set(native.known()) - set(native.runnable()):
        with pytest.raises(
            BackendError, match=rf'that this CPU runs \(.*reference\), got "{name}", which need'
        ) as caught:
            NativeKernels(name)
        assert caught.value.code == "kernels.unsupported"


def test_a_set_for_another_cpu_is_replaced_by_the_reference_and_named(built, monkeypatch, caplog):
    """A board file, or an environment, that came from another box."""
    monkeypatch.delenv("RADBOX_KERNELS", raising=False)
    foreign = sorted(set(NativeKernels().known()) - set(NativeKernels().runnable()))[0]
    for choice, environment in ((foreign, None), ("auto", foreign)):
        if environment:
            monkeypatch.setenv("RADBOX_KERNELS", environment)
        caplog.clear()
        kernels = load_kernels(choice)
        assert isinstance(kernels, NativeKernels)
        assert (kernels.name, kernels.refused) == ("reference", foreign)
        assert foreign in caplog.text
    monkeypatch.delenv("RADBOX_KERNELS")
    kernels = load_kernels("auto")
    assert isinstance(kernels, NativeKernels)
    assert kernels.refused == ""


def test_the_environment_forces_the_kernels(native, root):
    program = "from edge.reading.ops import load_kernels; print(load_kernels('auto').name)"

    def run(name):
        environment = {**os.environ, "RADBOX_KERNELS": name}
        return subprocess.run(
            [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True
        )

    assert run("reference").stdout.strip() == "reference"
    refused = run("avx9000")
    assert refused.returncode != 0
    assert 'got "avx9000"' in refused.stderr


def test_a_missing_library_is_an_error_that_names_the_build_command(monkeypatch, tmp_path):
    monkeypatch.setenv("RADBOX_KERNELS_LIBRARY", str(tmp_path / LIBRARY))
    with pytest.raises(BackendError, match="tools/build_kernels") as caught:
        load_kernels("auto")
    assert caught.value.code == "kernels.missing"
    assert load_kernels("numpy").name == "numpy"


def test_a_file_that_is_no_library_is_refused(monkeypatch, tmp_path):
    (tmp_path / LIBRARY).write_bytes(b"not ELF")
    monkeypatch.setenv("RADBOX_KERNELS_LIBRARY", str(tmp_path / LIBRARY))
    with pytest.raises(BackendError) as caught:
        load_kernels("reference")
    assert caught.value.code == "kernels.not-loadable"


def test_a_library_of_another_abi_is_refused(monkeypatch, tmp_path):
    library = tmp_path / LIBRARY
    source = f'extern "C" int radbox_abi_version() {{ return {ABI_VERSION + 1}; }}'
    subprocess.run(["c++", "-shared", "-fPIC", "-x", "c++", "-", "-o", library], input=source, text=True, check=True)
    monkeypatch.setenv("RADBOX_KERNELS_LIBRARY", str(library))
    with pytest.raises(BackendError, match=f"version {ABI_VERSION}, got {ABI_VERSION + 1}") as caught:
        load_kernels("auto")
    assert caught.value.code == "kernels.abi-version"
