"""A box whose board says `worker.kernels = "cuda"`: what the worker's row and `radbox selftest` say of its decoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge.board import Board, load_board
from edge.care import selftest
from edge.errors import BackendError
from edge.reading.backends import cuda_kernels
from edge.reading.backends.cuda_kernels import CudaKernels, GuardedKernels
from edge.reading.load import Loaded
from edge.reading.opener import DECODER, Opener
from edge.reading.ops.native import NativeKernels
from edge.reading.pipeline import Reader
from tools.cuda.shim_device import build_shim, open_shim

NO_GPU = BackendError("No CUDA device can be used.", code="cuda.no-device")


class Voice:
    """Writes down what is said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []
        self.events: list[tuple[str, str]] = []

    def say(self, state: str, code: str, message: str) -> None:
        self.said.append((state, code, message))

    def event(self, code: str, message: str) -> None:
        self.events.append((code, message))


def reader_with(fault: str) -> Any:
    manifest = SimpleNamespace(id="chest", version="1")
    encoder = SimpleNamespace(name="tensorrt")
    return SimpleNamespace(bundle=SimpleNamespace(manifest=manifest), encoder=encoder, decoder_fault=fault)


@pytest.fixture
def voice() -> Voice:
    return Voice()


@pytest.fixture
def opener(voice) -> Opener:
    no_fault = SimpleNamespace(fault=lambda: None)
    parts = [None] * 8
    parts[4], parts[6] = cast(Any, voice), cast(Any, no_fault)
    return Opener(*cast(Any, parts))


def test_a_decoder_on_the_cpu_is_told_when_the_model_opens(opener, voice):
    opener._tell(Loaded(reader_with("The CPU decodes (avx2): no GPU."), ()))
    assert voice.said == [("degraded", DECODER, "The CPU decodes (avx2): no GPU. Drafts are made, more slowly.")]
    assert voice.events == [(DECODER, "The CPU decodes (avx2): no GPU.")]


def test_a_decoder_that_loses_its_gpu_at_work_is_told_once(opener, voice):
    reader = reader_with("")
    opener._tell(Loaded(reader, ()))
    opener.look(reader)
    assert [state for state, _, _ in voice.said] == ["ok"]
    reader.decoder_fault = "The CPU decodes (avx2): a fault."
    opener.look(reader)
    opener.look(reader)
    assert [state for state, _, _ in voice.said] == ["ok", "degraded"]
    assert len(voice.events) == 1


def test_an_earlier_model_is_the_graver_news(opener, voice):
    error = BackendError("The model is damaged.", code="bundle.damaged")
    reader = reader_with("The CPU decodes (avx2): no GPU.")
    opener._tell(Loaded(reader, (), slots_passed_over=(("a", error),)))
    opener.look(reader)
    assert [code for _, code, _ in voice.said] == ["worker.earlier-model"]
    assert len(voice.events) == 1


def test_a_reader_says_which_set_decodes_and_why():
    decoder = SimpleNamespace(kernels="avx2", fault="No CUDA device can be used.")
    fault = cast(property, Reader.__dict__["decoder_fault"]).fget
    assert fault is not None
    assert fault(SimpleNamespace(_decoder=decoder)) == "The CPU decodes (avx2): No CUDA device can be used."
    decoder.fault = ""
    assert fault(SimpleNamespace(_decoder=decoder)) == ""


@pytest.fixture
def cuda_board(root: Path) -> Board:
    board = load_board(root / "board_configs" / "sim.toml")
    return replace(board, worker=replace(board.worker, kernels="cuda"))


def test_selftest_proves_the_gpus_decoder(cuda_board, monkeypatch):
    device = open_shim(build_shim())
    gpu = CudaKernels(device, device.load(b""))
    monkeypatch.setattr(cuda_kernels, "load", lambda: GuardedKernels(NativeKernels(), gpu))
    step = next(selftest.run(cuda_board))
    device.close()
    assert (step.name, step.passed) == ("kernels", True), step.message
    assert step.message.startswith("'cuda' within")


def test_selftest_says_that_the_cpu_decodes_and_passes(cuda_board, monkeypatch):
    monkeypatch.setattr(cuda_kernels, "load", lambda: GuardedKernels(NativeKernels(), None, NO_GPU))
    step = next(selftest.run(cuda_board))
    assert (step.passed, step.needed, step.code) == (False, False, selftest.ON_CPU)
    assert step.message.endswith("computes in place of 'cuda': No CUDA device can be used.")
