"""The board's `worker.kernels = "cuda"`: the GPU's kernels, run on this CPU behind the shim, and the CPU's own."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from edge.errors import BackendError
from edge.reading.backends import cuda_decoder, cuda_kernels, cuda_probe
from edge.reading.backends.cuda_decoder import CudaSession
from edge.reading.backends.cuda_kernels import CudaKernels, GuardedKernels, GuardedSession
from edge.reading.backends.cuda_proof import ERRORS, prove
from edge.reading.backends.cuda_weights import Storage, restored, storage_for, store_quantised
from edge.reading.decoder import Decoder, DecoderConfig
from edge.reading.ops import Guarded, Kernels, WholeSession, load_kernels, reference
from edge.reading.ops.automaton import Automaton
from edge.reading.ops.native import NativeKernels
from edge.reading.ops.native_session import NativeSession
from edge.reading.ops.reference_quantised import dequantised, quantise_decoder
from edge.reading.ops.shape import DecoderShape
from tools.cuda.decoder_cases import SMALL, random_weights
from tools.cuda.rig import Rig
from tools.cuda.shim_device import build_shim, open_shim

TOKENS = np.random.default_rng(4).standard_normal((67, SMALL.channels)).astype(np.float32)
BIAS = np.abs(np.random.default_rng(3).standard_normal((SMALL.layers, 67))).astype(np.float32)
WEIGHTS = random_weights(SMALL)


@pytest.fixture(scope="module")
def program():
    return build_shim()


@pytest.fixture
def rig(program) -> Iterator[Rig]:
    device = open_shim(program)
    yield Rig(device, device.load(b""))
    device.close()


@pytest.fixture
def gpu(rig) -> CudaKernels:
    return CudaKernels(rig.device, rig.kernels, "shim")


@pytest.fixture
def guarded(gpu) -> GuardedKernels:
    return GuardedKernels(NativeKernels(), gpu)


def following(*tokens: int) -> Automaton:
    """A grammar that says exactly these."""
    allowed = np.zeros((len(tokens) + 1, SMALL.vocabulary), np.uint8)
    allowed[np.arange(len(tokens)), tokens] = 1
    after = np.repeat(np.arange(1, len(tokens) + 2, dtype=np.int32)[:, None], SMALL.vocabulary, axis=1)
    return Automaton(allowed, after, start=0, final=len(tokens))


def faulty(monkeypatch, name: str, code: str, message: str = "expected this, got that", calls: int = 0) -> None:
    """CudaSession.`name` fails with `code` after so many calls that do not."""
    real, made = getattr(CudaSession, name), []

    def call(self, *arguments, **keywords):
        made.append(name)
        if len(made) > calls:
            raise BackendError(message, code=code)
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(CudaSession, name, call)


@pytest.mark.parametrize("storage", ["f16", "i8"])
@pytest.mark.parametrize("shape", [SMALL, cuda_probe.SMALL], ids=["odd", "even"])
def test_decoders_are_proved_right(gpu, shape, storage):
    assert 0 < prove(gpu, shape, storage) < ERRORS[storage]


@pytest.mark.parametrize("storage", ["f16", "i8"])
def test_a_wrong_result_is_noticed(gpu, storage, monkeypatch):
    monkeypatch.setattr(cuda_decoder, "EPSILON", 0.3)  # of every LayerNorm
    with pytest.raises(BackendError, match=r"expected the GPU's decoder within 0.0\d of its definition, got") as error:
        prove(gpu, SMALL, storage)
    assert error.value.code == "kernels.wrong-result"


def test_results_that_are_not_numbers_are_wrong(gpu, monkeypatch):
    @dataclass
    class Broken:
        gpu: CudaKernels

        def decoder(self, shape, weights):
            session = self.gpu.decoder(shape, weights)
            nothing = np.full(shape.vocabulary, np.nan, np.float32), np.zeros((2, 70), np.float32)
            monkeypatch.setattr(session, "step", lambda token: nothing)
            return session

        def quantised_decoder(self, shape, weights):
            return self.gpu.quantised_decoder(shape, weights)

    with pytest.raises(BackendError) as error:
        prove(Broken(gpu), SMALL, "f16")
    assert error.value.code == "kernels.wrong-result"


@pytest.mark.parametrize(("precision", "storage"), [("q8", "i8"), ("q4", "f16")])
def test_quantised_weights_keep_their_numbers(gpu, precision, storage: Storage):
    quantised = quantise_decoder(SMALL, WEIGHTS, precision)
    assert storage_for(quantised) == storage
    for matrix in quantised.matrices.values():
        kept, wanted = restored(store_quantised(matrix, storage), matrix.shape[1]), dequantised(matrix)
        np.testing.assert_allclose(kept, wanted, rtol=0, atol=np.abs(wanted).max() * 2.0**-11)
    weights = {**quantised.floats, **{name: dequantised(matrix) for name, matrix in quantised.matrices.items()}}
    session, expected = gpu.quantised_decoder(SMALL, quantised), reference.decoder(SMALL, weights)
    session.begin(TOKENS, BIAS)
    expected.begin(TOKENS, BIAS)
    for token in (1, 3, 2):
        for got, wanted in zip(session.step(token), expected.step(token), strict=True):
            assert np.abs(got - wanted).max() / np.abs(wanted).max() < ERRORS[storage]


def test_a_whole_sequence_is_what_the_steps_say(gpu):
    session = gpu.decoder(SMALL, WEIGHTS)
    session.begin(TOKENS, BIAS)
    said = session.generate(following(4, 2, 6), 1)
    assert (said.tokens.tolist(), said.ended) == ([4, 2, 6], True)
    session.begin(TOKENS, BIAS)
    for number, token in enumerate((1, 4, 2)):
        logits, maps = session.step(token)
        np.testing.assert_array_equal(said.attention[number], maps)
        np.testing.assert_allclose(said.log_probabilities[number], 0.0, atol=1e-6)
        assert np.isfinite(logits).all()


def test_a_sequence_ends_with_its_capacity(gpu):
    session = gpu.decoder(SMALL, WEIGHTS)
    session.begin(TOKENS, BIAS)
    said = session.generate(following(4, 2, 6), 1, keep_attention=False, capacity=2)
    assert (said.tokens.tolist(), said.ended, said.attention.size) == ([4, 2], False, 0)


def test_a_grammar_of_another_vocabulary_is_refused(gpu):
    session = gpu.decoder(SMALL, WEIGHTS)
    session.begin(TOKENS, BIAS)
    other = Automaton(np.ones((2, 5), np.uint8), np.ones((2, 5), np.int32), 0, 1)
    with pytest.raises(BackendError) as error:
        session.generate(other, 1)
    assert error.value.code == "kernels.bad-argument"


def test_sessions_that_are_gone_give_their_memory_back(gpu, rig, monkeypatch):
    freed: list[int] = []
    free = rig.device.free

    def note(address):
        freed.append(address)
        free(address)

    monkeypatch.setattr(rig.device, "free", note)
    session = gpu.decoder(SMALL, WEIGHTS)
    session.begin(TOKENS, BIAS)
    session.step(1)
    del session
    assert freed == []
    rig.device.allocate(8)
    assert len(freed) == 2  # the image's memory and the weights


def test_a_closed_device_is_refused_before_its_memory_is_touched(gpu, rig):
    session = gpu.decoder(SMALL, WEIGHTS)
    session.begin(TOKENS, BIAS)
    session.choose(1, np.ones(SMALL.vocabulary, np.bool_))
    rig.device.close()
    for call in (lambda: session.step(1), session.last, lambda: session.begin(TOKENS, BIAS)):
        with pytest.raises(BackendError) as error:
            call()
        assert error.value.code == "cuda.closed"


def test_the_guarded_set_is_whole(guarded):
    operators: Kernels = guarded
    session = operators.decoder(SMALL, WEIGHTS)
    assert isinstance(session, WholeSession)
    assert (operators.name, guarded.fault, guarded.fault_code, guarded.usable()) == ("cuda", "", "", True)
    assert guarded.described() == "shim 0 (compute capability 0.0, driver of CUDA 0.0) through shim, shim"
    masks = np.ones((3, 4, 4), np.float32)
    np.testing.assert_array_equal(
        operators.anatomical_bias_f32(masks, (1.0,), 1.0), NativeKernels().anatomical_bias_f32(masks, (1.0,), 1.0)
    )
    assert operators.masked_argmax_f32(np.ones(3, np.float32), np.array([False, True, True]))[0] == 1


Use = Callable[[GuardedSession | NativeSession], Any]
STEPS: Use = lambda session: [session.step(token)[0] for token in (1, 4, 2)]  # noqa: E731
SEQUENCE: Use = lambda session: session.generate(following(4, 2, 6), 1).log_probabilities  # noqa: E731


def on_cpu(use: Use, precision: str = "") -> Any:
    """What the CPU's own set says."""
    kernels = NativeKernels()
    if precision:
        session = kernels.quantised_decoder(SMALL, quantise_decoder(SMALL, WEIGHTS, precision))
    else:
        session = kernels.decoder(SMALL, WEIGHTS)
    session.begin(TOKENS, BIAS)
    return use(session)


@pytest.mark.parametrize("precision", ["", "q8", "q4"])
@pytest.mark.parametrize(("name", "calls", "use"), [("begin", 1, STEPS), ("step", 5, STEPS), ("generate", 0, SEQUENCE)])
def test_a_gpu_that_fails_at_work_leaves_the_image_to_the_cpu(guarded, monkeypatch, precision, name, calls, use):
    """begin and step are called by the proof too: once, and three times."""
    faulty(monkeypatch, name, "cuda.fault", calls=calls)
    if precision:
        session = guarded.quantised_decoder(SMALL, quantise_decoder(SMALL, WEIGHTS, precision), threads=1)
    else:
        session = guarded.decoder(SMALL, WEIGHTS)
    assert guarded.name == "cuda"
    session.begin(TOKENS, BIAS)
    got = use(session)
    assert (guarded.name, guarded.fault) == (NativeKernels().name, "expected this, got that")
    assert guarded.fault_code == "cuda.fault"
    assert not guarded.usable()
    wanted = on_cpu(use, precision)
    np.testing.assert_array_equal(got[-1], wanted[-1])  # the last is the CPU's, after the same tokens
    session.begin(TOKENS, BIAS)
    np.testing.assert_array_equal(use(session), wanted)


@pytest.mark.parametrize("code", ["cuda.out-of-memory", "kernels.wrong-result", "kernels.bad-argument"])
def test_a_model_that_the_gpu_cannot_take_is_the_cpus(guarded, monkeypatch, code):
    faulty(monkeypatch, "__init__", code, calls=1)
    session = guarded.decoder(SMALL, WEIGHTS)
    assert (guarded.name, guarded.fault_code) == (NativeKernels().name, code)
    session.begin(TOKENS, BIAS)
    np.testing.assert_array_equal(STEPS(session), on_cpu(STEPS))


def test_what_float16_cannot_hold_is_computed_on_the_cpu_and_the_gpu_stays(guarded, caplog):
    weights = dict(WEIGHTS)
    weights["layers.0.kv.weight"] = WEIGHTS["layers.0.kv.weight"] * np.float32(1e5)
    session = guarded.decoder(SMALL, weights)
    with caplog.at_level(logging.WARNING):
        session.begin(TOKENS, BIAS)
    expected = NativeKernels().decoder(SMALL, weights)
    expected.begin(TOKENS, BIAS)
    np.testing.assert_array_equal(session.step(1)[0], expected.step(1)[0])
    assert "kernels.not-finite: this image is decoded on the CPU" in caplog.text
    assert (guarded.name, guarded.fault) == ("cuda", "")
    session.begin(np.zeros_like(TOKENS), BIAS)
    assert np.isfinite(session.step(1)[0]).all()


def test_what_is_wrong_with_the_input_is_no_fault_of_the_gpu(guarded):
    session = guarded.decoder(SMALL, WEIGHTS)
    bad = TOKENS.copy()
    bad[3, 3] = np.nan
    for tokens, code in ((bad, "kernels.not-finite"), (TOKENS[:, :-1], "kernels.bad-argument")):
        with pytest.raises(BackendError) as error:
            session.begin(np.ascontiguousarray(tokens), BIAS)
        assert error.value.code == code
    session.begin(TOKENS, BIAS)
    for token, code in ((SMALL.vocabulary, "kernels.bad-argument"),):
        with pytest.raises(BackendError) as error:
            session.step(token)
        assert error.value.code == code
    assert guarded.name == "cuda"


def test_step_before_begin_is_refused_on_either(guarded):
    refused = GuardedKernels(NativeKernels(), None, BackendError("none", code="cuda.absent"))
    for kernels in (guarded, refused):
        with pytest.raises(BackendError) as error:
            kernels.decoder(SMALL, WEIGHTS).step(1)
        assert error.value.code == "kernels.wrong-state"


def test_decoder_says_what_computes(monkeypatch):
    error = BackendError("No CUDA device can be used.", code="cuda.no-device")
    config, shape = DecoderConfig(), DecoderShape(30, 128, 3, 4, 384, 64, 128)
    decoder = Decoder(config, shape, random_weights(shape), GuardedKernels(NativeKernels(), None, error))
    assert (decoder.kernels, decoder.fault) == (NativeKernels().name, "No CUDA device can be used.")


# ---- opening --------------------------------------------------------------------------------------------------------


@pytest.fixture
def opening(monkeypatch, rig):
    """`load` with the shim for a GPU; yields what the probe does and how often a GPU was opened."""
    opened = []
    monkeypatch.setattr(cuda_kernels, "_opened", [])
    monkeypatch.setattr(cuda_kernels, "probe", lambda: "shim")

    def open_gpu():
        opened.append(1)
        return CudaKernels(rig.device, rig.kernels)

    monkeypatch.setattr(cuda_kernels, "open_gpu", open_gpu)
    return opened


def test_a_gpu_is_opened_once_in_a_process(opening, rig):
    first, second = load_kernels("cuda"), load_kernels("cuda")
    assert first is second
    assert (first.name, len(opening)) == ("cuda", 1)
    rig.device.close()
    load_kernels("cuda")
    assert len(opening) == 2


def test_without_a_gpu_the_cpu_computes_and_the_reason_is_kept(opening, monkeypatch, caplog):
    def refuse():
        raise BackendError("No CUDA device can be used.", code="cuda.no-device")

    monkeypatch.setattr(cuda_kernels, "probe", refuse)
    with caplog.at_level(logging.WARNING):
        kernels = load_kernels("cuda")
    assert isinstance(kernels, Guarded)
    name = NativeKernels().name
    assert (cast(Kernels, kernels).name, kernels.fault_code) == (name, "cuda.no-device")
    assert kernels.described() == f"{name} operators on the CPU"
    assert "No CUDA device can be used." in caplog.text
    assert opening == []


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "cuda.crashed", "signal 6"),
        (
            "print('cuda.no-device No CUDA device can be used.'); raise SystemExit(1)",
            "cuda.no-device",
            "No CUDA device",
        ),
        ("raise SystemExit(1)", "cuda.crashed", "without a word"),
        ("import threading; threading.Event().wait()", "cuda.hung", "did not answer in 1 s"),
    ],
)
def test_a_child_that_fails_says_why(program, code, words, monkeypatch):
    real = subprocess.run
    monkeypatch.setattr(cuda_kernels, "PROBE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(subprocess, "run", lambda command, **how: real([command[0], "-c", program], **how))
    with pytest.raises(BackendError, match=words) as error:
        cuda_kernels.probe()
    assert error.value.code == code


def test_a_child_says_what_it_found(monkeypatch, gpu, capsys):
    monkeypatch.setattr(cuda_probe, "open_gpu", lambda: gpu)
    assert cuda_probe.main() == 0
    assert capsys.readouterr().out == f"{gpu}\n"


def test_a_child_that_computes_wrongly_says_so(monkeypatch, gpu, capsys):
    monkeypatch.setattr(cuda_probe, "open_gpu", lambda: gpu)
    monkeypatch.setattr(cuda_decoder, "EPSILON", 0.3)
    assert cuda_probe.main() == 1
    assert capsys.readouterr().out.startswith("kernels.wrong-result expected the GPU's decoder within")
