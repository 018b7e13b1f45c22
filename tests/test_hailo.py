"""Hailo: the adapter against the recorded API of HailoRT, on a stand-in that computes the bundle's network."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.accelerators import Accelerators
from edge.reading.backends import OUTPUTS, load_backend, open_encoder
from edge.reading.backends import hailo as adapter
from edge.reading.backends.golden import check_golden
from edge.reading.backends.setup import Setup
from edge.reading.patience import Patience
from edge.reading.voice import Voice
from edge.store import open_store
from tests import npu_hailort
from tests.npu_bundle import ROOT, bundle_with, shipped
from tests.npu_contract import Usage, differences, record
from tests.worker_process import WAIT_S, worker_board

SHAPES = {
    "tokens": [16, 16, 128], "findings": [14], "population": [1], "chest": [1, 1, 1], "masks": [16, 16, 3],
    "embedding": [1, 1, 128], "maps": [16, 16, 14],
}  # fmt: skip
KNOWN = {
    "hailo": "hailo_platform", "self._hailo": "hailo_platform", "device": "VDevice", "model": "InferModel",
    "stream": "InferModel.InferStream", "model.inputs": "list InferModel.InferStream",
    "self._configured": "ConfiguredInferModel", "bindings": "Bindings",
}  # fmt: skip


def hef(arch: str = "hailo8l", picture: tuple[int, ...] = (256, 256, 1), **changed: Any) -> bytes:
    """A HEF of the stand-in. changed: name of OUTPUTS -> [shape, name in the ONNX file], None leaves it out."""
    outputs = {name: [SHAPES[name], name] for name in OUTPUTS} | changed
    named = {f"chest/conv{60 - i}": outputs[name] for i, name in enumerate(OUTPUTS) if outputs[name]}
    return json.dumps({"arch": arch, "input": picture, "outputs": named}).encode()


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The stand-in is installed, for this process and its children; its device works."""
    site = npu_hailort.install(tmp_path / "site")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    monkeypatch.setenv("NPU_DEVICE", str(tmp_path / "device.json"))
    npu_hailort.tell()
    yield tmp_path / "device.json"
    for name in [name for name in sys.modules if name.startswith("hailo_platform")]:
        del sys.modules[name]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The shipped one with an encoder.hef."""
    return bundle_with(tmp_path, "hef", hef())


def refused(bundle: Bundle) -> BackendError:
    with pytest.raises(BackendError) as caught:
        adapter.load(bundle, Setup())
    return caught.value


# --- the contract ---


def test_the_adapter_uses_only_what_the_record_names() -> None:
    usage = Usage(record("hailort")["types"], KNOWN).of(Path(adapter.__file__).read_text())
    assert usage.wrong == []
    assert {"VDevice.create_infer_model", "ConfiguredInferModel.run", "Bindings.InferStream.set_buffer"} <= usage.used


def test_a_use_beside_the_record_is_found() -> None:
    def wrong(source: str) -> list[str]:
        return Usage(record("hailort")["types"], KNOWN).of(source).wrong

    assert wrong("device.configure(hef)") == ["VDevice has no configure"]
    assert "missing a required argument" in wrong("self._configured.run([bindings])")[0]
    assert wrong("bindings.input().write(image)") == ["Bindings.InferStream has no write"]


def test_the_stand_in_is_the_recorded_api_and_nothing_else() -> None:
    assert list(differences(record("hailort")["types"], npu_hailort.CLASSES)) == []
    assert set(record("hailort")["types"]["FormatType"]["attributes"]) == {t.name for t in npu_hailort.FormatType}


def test_every_status_that_has_words_is_one_of_hailort() -> None:
    assert set(adapter.STATUSES) | {adapter.OUT_OF_DEVICES} <= set(record("hailort")["statuses"].values())


# --- reading ---


@pytest.mark.requirement("READ-07")
def test_the_golden_case_passes_and_outputs_have_their_shapes(device: Path, bundle: Bundle) -> None:
    opened = open_encoder(bundle, ("hailo",), Setup())
    assert (opened.encoder.name, opened.encoder.emission, opened.passed_over) == ("hailo", "hef", ())
    x = np.random.default_rng(0).uniform(-1, 1, (1, 1, 256, 256)).astype(np.float32)
    expected = load_backend("onnxruntime", bundle, Setup()).run(
        np.round((x + 1) * 127.5).astype(np.float32) / 127.5 - 1
    )
    outputs = opened.encoder.run(x)
    assert list(outputs) == list(OUTPUTS)
    for name, values in outputs.items():
        assert values.shape == expected[name].shape
        assert values.dtype == np.float32
        assert values.flags.c_contiguous
        assert np.abs(values - expected[name]).max() < 2e-3 * max(1.0, float(np.abs(expected[name]).max()))


def test_the_device_is_held_until_it_is_closed(device: Path, bundle: Bundle) -> None:
    encoder = adapter.load(bundle, Setup())
    assert npu_hailort.held_by() == str(os.getpid())
    assert refused(bundle).code == "backend.busy"
    encoder.close()
    encoder.close()
    assert npu_hailort.held_by() == ""
    with pytest.raises(BackendError, match="stopped answering"):
        encoder.run(np.zeros((1, 1, 256, 256), np.float32))


def test_an_encoder_that_nobody_has_any_more_gives_the_device_back(device: Path, bundle: Bundle) -> None:
    adapter.load(bundle, Setup())
    gc.collect()
    assert npu_hailort.held_by() == ""


# --- what goes wrong ---


def test_a_bundle_without_the_file_says_who_makes_it(device: Path, tmp_path: Path) -> None:
    error = refused(shipped())
    assert error.code == "backend.no-model"
    assert "encoder.hef" in error.message
    assert "Dataflow Compiler" in error.message
    assert npu_hailort.held_by() == ""
    assert "golden outputs" in refused(bundle_with(tmp_path, "hef", hef(), golden=False)).message


def test_without_the_package_or_with_two_versions_of_it(
    device: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = device.parent / "site" / "hailo_platform" / "__init__.py"
    package.write_text("raise ImportError('_pyhailort version (4.20.0) does not match pyhailort version (4.23.0)')\n")
    assert refused(bundle).code == "backend.version"
    monkeypatch.setitem(sys.modules, "hailo_platform", None)
    assert refused(bundle).code == "backend.absent"


@pytest.mark.parametrize(
    ("stage", "status", "code", "words"),
    [
        ("create", 64, "backend.absent", "driver"),
        ("create", 73, "backend.busy", "Another program"),
        ("create", 97, "backend.busy", "Another program"),
        ("create", 76, "backend.version", "versions"),
        ("create", 16, "backend.version", "versions"),
        ("create", 86, "backend.version", "versions"),
        ("create", 8, "backend.load", "status 8"),
        ("load", 26, "backend.load", "damaged"),
        ("load", 91, "backend.load", "damaged"),
        ("load", 92, "backend.load", "older Dataflow Compiler"),
        ("load", 75, "backend.wrong-chip", "chip"),
        ("configure", 93, "backend.wrong-chip", "another chip"),
        ("configure", 36, "backend.lost", "stopped answering"),
        ("configure", 62, "backend.lost", "stopped answering"),
    ],
)
def test_what_hailort_refuses_has_a_code_and_the_device_is_free_again(
    device: Path, bundle: Bundle, stage: str, status: int, code: str, words: str
) -> None:
    npu_hailort.tell(fail={stage: status})
    error = refused(bundle)
    assert error.code == code
    assert words in error.message
    gc.collect()
    assert npu_hailort.held_by() == ""


def test_a_device_that_another_process_holds_is_told_from_none(device: Path, bundle: Bundle) -> None:
    device.with_suffix(".holder").write_text("1")
    assert refused(bundle).code == "backend.busy"
    npu_hailort.tell(devices=[])
    assert refused(bundle).code == "backend.absent"
    npu_hailort.tell(fail={"create": 74, "scan": 8})
    assert refused(bundle).code == "backend.absent"


def test_a_hef_for_another_chip_and_a_damaged_one(device: Path, tmp_path: Path) -> None:
    other = bundle_with(tmp_path / "a", "hef", hef("hailo10h"))
    assert refused(other).code == "backend.wrong-chip"
    assert refused(bundle_with(tmp_path / "b", "hef", b"not a HEF")).code == "backend.load"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (hef(picture=(256, 256, 3)), "one input of 256 x 256 x 1"),
        (hef(chest=None), "7 outputs"),
        (hef(maps=[[16, 16, 3], "masks"]), "maps of (16, 16, 14)"),
        (hef(masks=[[3, 16, 16], "masks"]), "masks of (16, 16, 3)"),
    ],
)
def test_a_hef_of_another_network_is_refused(device: Path, tmp_path: Path, content: bytes, words: str) -> None:
    error = refused(bundle_with(tmp_path, "hef", content))
    assert error.code == "backend.model"
    assert words in error.message
    gc.collect()
    assert npu_hailort.held_by() == ""


def test_outputs_in_the_wrong_order_fail_the_golden_case(device: Path, tmp_path: Path) -> None:
    swapped = hef(population=[[1], "chest"], chest=[[1], "population"])
    encoder = adapter.load(bundle_with(tmp_path, "hef", swapped), Setup())
    with pytest.raises(BackendError, match="population"):
        check_golden(encoder.run, encoder.emission, shipped_with_hef(tmp_path))


def shipped_with_hef(tmp_path: Path) -> Bundle:
    """A second good one, for its golden case."""
    return bundle_with(tmp_path / "good", "hef", hef())


@pytest.mark.parametrize(
    ("status", "code"), [(4, "backend.run"), (36, "backend.lost"), (62, "backend.lost"), (8, "backend.run")]
)
def test_a_device_that_is_lost_in_the_middle_is_given_back_and_found_again(
    device: Path, bundle: Bundle, status: int, code: str
) -> None:
    encoder = adapter.load(bundle, Setup())
    x = np.zeros((1, 1, 256, 256), np.float32)
    first = encoder.run(x)
    npu_hailort.tell(fail={"run": status, "release": status})
    with pytest.raises(BackendError) as caught:
        encoder.run(x)
    assert caught.value.code == code
    del caught
    gc.collect()
    assert npu_hailort.held_by() == ""
    npu_hailort.tell()
    again = adapter.load(bundle, Setup()).run(x)
    assert all(np.array_equal(first[name], again[name]) for name in OUTPUTS)


@pytest.mark.requirement("KEEP-03")
def test_the_box_reads_on_and_goes_back_when_the_device_answers_again(
    device: Path, bundle: Bundle, tmp_path: Path
) -> None:
    board = worker_board(tmp_path / "data", backends=("hailo", "tflite"), bundle=bundle.path)
    with closing(open_store(board.data_dir)) as store:
        accelerators = Accelerators(board, store, Voice(store, 10), Patience(probe_first_s=0.0))
        encoder = open_encoder(bundle, accelerators.may_open(), Setup(), probe=False).encoder
        accelerators.opened(encoder.name, ())
        npu_hailort.tell(fail={"run": 62, "create": 62})
        for step in ("retry", "restart", "next"):
            with pytest.raises(BackendError) as caught:
                encoder.run(np.zeros((1, 1, 256, 256), np.float32))
            assert accelerators.failed("hailo", caught.value) == step
        accelerators.opened("tflite", ())
        assert accelerators.may_open() == ("tflite",)
        assert accelerators.fault() == ("hailo", adapter.LOST)
        del caught, encoder
        gc.collect()
        npu_hailort.tell()
        end_s = time.monotonic() + WAIT_S
        while not accelerators.look(bundle):
            assert time.monotonic() < end_s
            time.sleep(0.05)
        assert accelerators.may_open() == ("hailo", "tflite")
        assert open_encoder(bundle, accelerators.may_open(), Setup(), probe=False).encoder.name == "hailo"
        accelerators.close()
