"""The GPU's kernels, run on this CPU behind kernels/cuda/shim.h, against numpy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.errors import BackendError
from edge.reading.backends.cuda_decoder import CudaSession
from edge.reading.backends.cuda_kernels import CudaKernels, GuardedKernels
from edge.reading.decoder import Decoder, DecoderConfig
from edge.reading.ops import load_kernels, reference
from edge.reading.ops.native import NativeKernels
from edge.reading.ops.shape import DecoderShape
from tools.cuda.cases import all_cases
from tools.cuda.decoder_cases import BOX, SMALL, as_stored, decode, random_weights
from tools.cuda.rig import Rig
from tools.cuda.shim_device import build_shim, open_shim

CASES = all_cases()


@pytest.fixture(scope="module")
def program():
    return build_shim()


@pytest.fixture
def rig(program) -> Iterator[Rig]:
    device = open_shim(program)
    yield Rig(device, device.load(b""))
    device.close()


@pytest.mark.parametrize("name", CASES)
def test_kernel_matches_numpy(rig, name):
    CASES[name](rig)


@pytest.mark.parametrize("storage", ["f16", "i8"])
def test_decoder_matches_numpy_on_two_images(rig, storage):
    decode(rig.device, rig.kernels, SMALL, storage)


def test_decoder_of_the_box_matches_numpy(rig):
    decode(rig.device, rig.kernels, BOX, "f16", (256,))


@pytest.fixture
def session(rig) -> CudaSession:
    session = CudaSession(rig.device, rig.kernels, SMALL, random_weights(SMALL))
    session.begin(np.ones((3, 19), np.float32), np.zeros((2, 3), np.float32))
    return session


def test_choice_is_the_reference_argmax(session):
    allowed = np.array([False, True, False, True, True, False, True])
    choice = session.choose(2, allowed)
    logits, maps = session.last()
    token, log_probability = reference.masked_argmax_f32(logits, allowed)
    assert choice.token == token
    assert choice.log_probability == pytest.approx(log_probability, abs=1e-5)
    np.testing.assert_allclose(maps.sum(axis=1), 1.0, atol=1e-5)


def test_more_steps_than_positions_are_refused(session):
    for _ in range(SMALL.positions):
        session.step(0)
    with pytest.raises(BackendError) as error:
        session.step(0)
    assert error.value.code == "kernels.wrong-state"


@pytest.mark.parametrize("token", [-1, SMALL.vocabulary])
def test_token_outside_the_vocabulary_is_refused(session, token):
    with pytest.raises(BackendError) as error:
        session.step(token)
    assert error.value.code == "kernels.bad-argument"


def test_failed_step_does_not_advance(session):
    first, _ = session.step(0)
    nothing = np.zeros(SMALL.vocabulary, np.bool_)
    with pytest.raises(BackendError) as error:
        session.choose(1, nothing)
    assert error.value.code == "kernels.nothing-allowed"
    again, _ = session.step(1)
    session.begin(np.ones((3, 19), np.float32), np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(session.step(0)[0], first)
    np.testing.assert_array_equal(session.step(1)[0], again)


def test_image_with_nan_is_refused_and_no_step_follows(session):
    tokens = np.ones((3, 19), np.float32)
    tokens[1, 7] = np.nan
    with pytest.raises(BackendError) as error:
        session.begin(tokens, np.zeros((2, 3), np.float32))
    assert error.value.code == "kernels.not-finite"
    with pytest.raises(BackendError) as error:
        session.step(0)
    assert error.value.code == "kernels.wrong-state"


def test_image_with_every_key_hidden_is_refused(session):
    session.begin(np.ones((3, 19), np.float32), np.full((2, 3), -np.inf, np.float32))
    with pytest.raises(BackendError) as error:
        session.step(0)
    assert error.value.code == "kernels.nothing-allowed"


def test_step_before_begin_is_refused(rig):
    session = CudaSession(rig.device, rig.kernels, SMALL, random_weights(SMALL))
    for call in (lambda: session.step(0), session.last, session.record_step):
        with pytest.raises(BackendError) as error:
            call()
        assert error.value.code == "kernels.wrong-state"


@pytest.mark.parametrize(
    ("tokens", "bias"), [((3, 18), (2, 3)), ((3, 19), (2, 4)), ((0, 19), (2, 0)), ((3, 19), (3, 3))]
)
def test_image_of_another_shape_is_refused(session, tokens, bias):
    with pytest.raises(BackendError) as error:
        session.begin(np.zeros(tokens, np.float32), np.zeros(bias, np.float32))
    assert error.value.code == "kernels.bad-argument"


def test_launch_of_an_unknown_kernel_or_with_other_arguments_says_so(rig):
    state = rig.state()
    with pytest.raises(BackendError, match="expected a kernel that was built"):
        rig.kernels.launch("radbox_absent", (1, 1, 1), 128, 0, [state])
    with pytest.raises(BackendError, match="expected 7 arguments, got 1"):
        rig.kernels.launch("radbox_embed", (1, 1, 1), 128, 0, [state])
    with pytest.raises(BackendError, match="whole warps"):
        rig.kernels.launch("radbox_embed", (1, 1, 1), 100, 0, [state])


class _Say:
    """A grammar of exactly these tokens."""

    def __init__(self, tokens):
        self._tokens = tokens

    def start(self):
        return 0

    def mask(self, state):
        mask = np.zeros(BOX.vocabulary, np.bool_)
        mask[self._tokens[state]] = True
        return mask

    def advance(self, state, token):
        return state + 1

    def ended(self, state):
        return state == len(self._tokens)


@pytest.fixture
def guarded(rig) -> GuardedKernels:
    return GuardedKernels(NativeKernels(), CudaKernels(rig.device, rig.kernels))


IMAGE = (
    np.random.default_rng(4).standard_normal((16, 128)).astype(np.float32),
    np.abs(np.random.default_rng(3).standard_normal((3, 4, 4))).astype(np.float32),
)
SAID = (4, 18, 23, 28, 2)


def test_whole_decoder_runs_on_the_gpu(guarded):
    config, weights = DecoderConfig(), random_weights(BOX)
    gpu = Decoder(config, BOX, weights, guarded)
    got = gpu.generate(*IMAGE, _Say(SAID))
    expected = Decoder(config, BOX, as_stored(weights, "f16"), load_kernels("numpy")).generate(*IMAGE, _Say(SAID))
    assert (gpu.kernels, gpu.fault) == ("cuda", "")
    assert got.tokens == expected.tokens == (1, *SAID)
    np.testing.assert_allclose(got.log_probabilities, expected.log_probabilities, atol=1e-3)
    np.testing.assert_allclose(got.cross_attention[1], expected.cross_attention[1], atol=1e-3)


def test_bench_writes_its_figures_and_says_that_torch_is_absent(tmp_path, root):
    out = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tools.cuda.bench", "--driver", "shim", "--sizes", "tiny"]
    command += ["--tokens", "2", "--rounds", "1", "--cases", "decoder-small", "--out", str(out)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=100)
    report = json.loads(out.read_text())
    assert report["numerics"] == {"shim": {"cases": 2, "failures": {}}}
    assert report["sizes"]["tiny"]["figures"]["ours i8 graph"]["bytes_per_token"] > 0
    assert report["sizes"]["tiny"]["torch"].startswith("absent")
    lines = out.with_suffix(".md").read_text().splitlines()
    assert "Checked through shim: 2 cases, all right." in lines
    assert sum(line.startswith("| tiny | ours") for line in lines) == 6


def test_bench_without_a_gpu_says_so(root):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    done = subprocess.run([root / "tools" / "bench_cuda"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("bench_cuda: cuda.")


def test_vocabulary_of_8192_and_400_image_tokens(rig):
    """The issue's greatest sizes in one step: 1024 blocks of the head, 7 slices of keys, a last one of 16."""
    shape = DecoderShape(vocabulary=8192, width=64, layers=1, heads=1, ffn=64, positions=2, channels=64)
    decode(rig.device, rig.kernels, shape, "i8", (400,))
