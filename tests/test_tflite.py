"""The TFLite runtimes: what each may run, how much XNNPACK takes, threads, and errors in plain words."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends import load_backend, tflite
from edge.reading.backends.setup import Setup
from edge.reading.backends.tflite_file import Quantisation, quantisation
from tests.delegate_library import shipped_bundle
from tests.delegate_models import dense, make_remainders_bundle, remainders

STATIC = Quantisation(dynamic_range=False, short=False, blockwise=False)


@pytest.fixture(scope="module")
def bundle(root: Path) -> Bundle:
    """The bundle of this release."""
    return shipped_bundle(root)


def legacy() -> tflite.Runtime:
    """As tflite-runtime 2.14 is found."""
    return tflite.Runtime("tflite-runtime", "2.14.0", None, legacy=True)


# --- what is in a file ---


def test_the_shipped_encoder_may_run_on_both(bundle: Bundle) -> None:
    path = bundle.file(tflite.MODEL)
    assert quantisation(path.read_bytes()) == STATIC
    tflite.check_file(legacy(), path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (remainders(), STATIC),
        (dense("float32"), STATIC),
        (dense("int8"), dataclasses.replace(STATIC, dynamic_range=True)),
        (dense("int4"), dataclasses.replace(STATIC, short=True)),
        (dense("int4", blockwise=True), dataclasses.replace(STATIC, short=True, blockwise=True)),
    ],
)
def test_the_kinds_of_quantisation_are_seen(content: bytes, expected: Quantisation) -> None:
    assert quantisation(content) == expected


@pytest.mark.parametrize(("weights", "words"), [("int8", "dynamic-range"), ("int4", "4-bit or shorter")])
@pytest.mark.requirement("READ-07")
def test_tflite_runtime_is_not_given_what_it_computes_wrongly(tmp_path: Path, weights: str, words: str) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(dense(weights))
    with pytest.raises(BackendError, match=words) as caught:
        tflite.check_file(legacy(), path)
    assert caught.value.code == "backend.model"
    tflite.check_file(dataclasses.replace(legacy(), legacy=False), path)


def test_a_torn_file_is_an_error_for_every_length(tmp_path: Path) -> None:
    whole = dense("int8")
    for size in range(len(whole)):
        try:
            quantisation(whole[:size])
        except ValueError:
            continue
    for at in range(len(whole)):  # each byte flipped: an answer or a ValueError, nothing else
        damaged = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        try:
            quantisation(damaged)
        except ValueError:
            continue
    path = tmp_path / "m.tflite"
    path.write_bytes(whole[:40])
    with pytest.raises(BackendError) as caught:
        tflite.check_file(legacy(), path)
    assert caught.value.code == "backend.load"


# --- the runtimes ---


def test_xnnpack_takes_the_whole_int8_encoder(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    runtime = tflite.find_runtime()
    if runtime.legacy:
        pytest.skip("tflite-runtime does not give int8 to XNNPACK")
    encoder = tflite.load(bundle, Setup(threads=1))
    assert encoder.nodes.nodes >= 0.95 * encoder.nodes.of, encoder.nodes
    assert "XNNPACK" not in caplog.text


def test_a_graph_that_xnnpack_leaves_alone_is_told(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_remainders_bundle(bundle, tmp_path / "plain")
    monkeypatch.setattr(tflite, "XNNPACK_SHARE", 0.6)
    tflite.load(plain, Setup())
    assert "XNNPACK takes only 64 of 128 nodes" in caplog.text


@pytest.mark.parametrize("threads", [1, 10_000])
def test_threads_are_at_least_one_and_at_most_the_cpus(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    runtime = tflite.find_runtime()
    asked: list[int] = []
    real = runtime.interpreter.Interpreter

    def interpreter(num_threads: int, **others: Any) -> Any:
        asked.append(num_threads)
        return real(num_threads=num_threads, **others)

    monkeypatch.setattr(runtime.interpreter, "Interpreter", interpreter)
    path = bundle.file(tflite.MODEL)
    tflite.make_interpreter(runtime, path, threads)
    tflite.make_interpreter(runtime, path, 0)
    assert asked == [min(threads, len(os.sched_getaffinity(0))), 1]


def test_no_runtime_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite, "RUNTIMES", (("LiteRT", "ai-edge-litert", "ai_edge_litert.nothing"),))
    with pytest.raises(BackendError, match="Neither LiteRT") as caught:
        tflite.find_runtime()
    assert caught.value.code == "backend.absent"


def test_the_old_runtime_with_a_new_numpy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite, "RUNTIMES", (("tflite-runtime", "numpy", "json"),))
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(BackendError, match="needs numpy 1") as caught:
        tflite.find_runtime()
    assert caught.value.code == "backend.absent"
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert tflite.find_runtime().legacy
    monkeypatch.setattr(tflite, "RUNTIMES", (("LiteRT", "not-a-distribution", "json"),))
    assert tflite.find_runtime().spoken == "LiteRT of unknown version"


def test_a_picture_of_the_wrong_size_is_an_error(bundle: Bundle) -> None:
    encoder = load_backend("tflite", bundle, Setup())
    with pytest.raises(BackendError) as caught:
        encoder.run(np.zeros((1, 1, 8, 8), np.float32))
    assert caught.value.code == "backend.run"
