"""RKNN: the adapter against the recorded API of rknn-toolkit-lite2, on a stand-in that computes the network."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.accelerators import Accelerators
from edge.reading.backends import OUTPUTS, load_backend, open_encoder
from edge.reading.backends import rknn as adapter
from edge.reading.backends.golden import check_golden
from edge.reading.backends.setup import Setup
from edge.reading.patience import Patience
from edge.reading.voice import Voice
from edge.store import open_store
from tests import npu_rknnlite
from tests.npu_bundle import ROOT, bundle_with, shipped
from tests.npu_contract import Usage, differences, record
from tests.worker_process import WAIT_S, worker_board

KNOWN = {"api": "rknnlite.api", "lite": "RKNNLite", "self._lite": "RKNNLite", "runtime": "RKNNRuntime"}


def compiled(chip: str = "rk3588", outputs: tuple[str, ...] = OUTPUTS) -> bytes:
    """An encoder.rknn of the stand-in."""
    return json.dumps({"chip": chip, "outputs": outputs}).encode()


@pytest.fixture
def npu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The stand-in is installed, for this process and its children; its NPU works, its driver is there."""
    site = npu_rknnlite.install(tmp_path / "site")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    monkeypatch.setenv("NPU_DEVICE", str(tmp_path / "npu.json"))
    monkeypatch.setattr(adapter, "DRIVER", tmp_path)
    npu_rknnlite.tell()
    yield tmp_path / "npu.json"
    for name in [name for name in sys.modules if name.startswith("rknnlite")]:
        del sys.modules[name]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The shipped one with an encoder.rknn."""
    return bundle_with(tmp_path, "rknn", compiled())


def refused(bundle: Bundle, setup: Setup | None = None) -> BackendError:
    with pytest.raises(BackendError) as caught:
        adapter.load(bundle, setup or Setup())
    return caught.value


# --- the contract ---


def test_the_adapter_uses_only_what_the_record_names() -> None:
    usage = Usage(record("rknnlite")["types"], KNOWN).of(Path(adapter.__file__).read_text())
    assert usage.wrong == []
    assert {"RKNNLite.init_runtime", "RKNNRuntime.run", "RKNNRuntime.get_outputs"} <= usage.used
    assert "RKNNLite.inference" not in record("rknnlite")["types"]  # it hides a failed run


def test_the_stand_in_is_the_recorded_api_and_nothing_else() -> None:
    assert list(differences(record("rknnlite")["types"], npu_rknnlite.CLASSES)) == []
    recorded = record("rknnlite")
    assert {name: getattr(npu_rknnlite.RKNNLite, name) for name in recorded["cores"]} == recorded["cores"]
    assert set(adapter.CORES.values()) == set(recorded["cores"])


def test_every_return_code_has_words() -> None:
    codes = {name: code for name, code in record("rknnlite")["codes"].items() if name != "source"}
    assert {name: code for name, (code, *_) in adapter.CODES.items()} == codes


# --- reading ---


@pytest.mark.requirement("READ-07")
def test_the_golden_case_passes_and_outputs_have_their_shapes(npu: Path, bundle: Bundle) -> None:
    encoder = load_backend("rknn", bundle, Setup())
    assert (encoder.name, encoder.emission) == ("rknn", "rknn")
    assert max(check_golden(encoder.run, encoder.emission, bundle).values()) < 0.1
    x = np.random.default_rng(0).uniform(-1, 1, (1, 1, 256, 256)).astype(np.float32)
    expected = load_backend("onnxruntime", bundle, Setup()).run(x.astype(np.float16).astype(np.float32))
    outputs = encoder.run(x)
    assert list(outputs) == list(OUTPUTS)
    for name, values in outputs.items():
        assert values.dtype == np.float32
        assert np.array_equal(values, expected[name])


@pytest.mark.parametrize(("option", "mask"), [("auto", 0), ("2", 4), ("0_1", 3), ("0_1_2", 7)])
def test_the_board_chooses_the_cores(npu: Path, bundle: Bundle, option: str, mask: int) -> None:
    encoder = adapter.load(bundle, Setup(options=("other=1", f"rknn:core_mask={option}")))
    assert npu.with_suffix(".holder").read_text() == str(mask)
    encoder.close()
    encoder.close()
    assert not npu.with_suffix(".holder").exists()
    with pytest.raises(BackendError, match="stopped answering"):
        encoder.run(np.zeros((1, 1, 256, 256), np.float32))


def test_cores_that_do_not_exist(npu: Path, bundle: Bundle) -> None:
    error = refused(bundle, Setup(options=("core_mask=3",)))
    assert (error.code, "0_1_2" in error.message) == ("backend.option", True)
    npu_rknnlite.tell(codes={"mask": -5})
    assert refused(bundle).code == "backend.option"


def test_the_names_of_the_log_levels_stay(npu: Path, bundle: Bundle) -> None:
    adapter.load(bundle, Setup())
    assert [logging.getLevelName(number) for number in (10, 20, 30, 40)] == ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert logging.getLogger(adapter.LOGGER).handlers == []


def test_an_encoder_that_nobody_has_any_more_gives_the_npu_back(npu: Path, bundle: Bundle) -> None:
    adapter.load(bundle, Setup())
    assert not npu.with_suffix(".holder").exists()


# --- what goes wrong ---


def test_a_bundle_without_the_file_says_who_makes_it(npu: Path, tmp_path: Path) -> None:
    error = refused(shipped())
    assert error.code == "backend.no-model"
    assert "encoder.rknn" in error.message
    assert "tools/compile_rknn" in error.message
    assert "golden outputs" in refused(bundle_with(tmp_path, "rknn", compiled(), golden=False)).message


def test_without_the_package_the_library_or_the_driver(
    npu: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    npu_rknnlite.tell(library=False)
    assert "librknnrt.so" in refused(bundle).message
    npu_rknnlite.tell(codes={"init": -1})
    monkeypatch.setattr(adapter, "DRIVER", npu.with_name("nowhere"))
    error = refused(bundle)
    assert (error.code, "no RKNPU driver" in error.message) == ("backend.absent", True)
    monkeypatch.setitem(sys.modules, "rknnlite.api", None)
    assert refused(bundle).code == "backend.absent"


@pytest.mark.parametrize(
    ("code", "ours", "words"),
    [
        (-1, "backend.load", "not older than the compiler"),
        (-2, "backend.lost", "no answer"),
        (-3, "backend.lost", "stopped answering"),
        (-4, "backend.memory", "memory"),
        (-6, "backend.load", "damaged"),
        (-10, "backend.version", "one release"),
        (-12, "backend.version", "one release"),
        (-13, "backend.wrong-chip", "another chip"),
    ],
)
def test_what_the_runtime_refuses_has_a_code(npu: Path, bundle: Bundle, code: int, ours: str, words: str) -> None:
    npu_rknnlite.tell(codes={"init": code})
    error = refused(bundle)
    assert (error.code, words in error.message) == (ours, True)
    assert not npu.with_suffix(".holder").exists()


def test_a_library_that_is_older_than_the_package(npu: Path, bundle: Bundle) -> None:
    npu_rknnlite.tell(old=True)
    error = refused(bundle)
    assert (error.code, "older than the package" in error.message) == ("backend.version", True)
    assert not npu.with_suffix(".holder").exists()


def test_a_file_for_another_chip_a_damaged_one_and_none(npu: Path, tmp_path: Path) -> None:
    other = bundle_with(tmp_path / "a", "rknn", compiled("rk3568"))
    assert refused(other).code == "backend.wrong-chip"
    assert refused(bundle_with(tmp_path / "b", "rknn", b"RKNN")).code == "backend.load"
    (other.path / "encoder.rknn").unlink()
    assert refused(other).message == "The file encoder.rknn of the model bundle cannot be read."


@pytest.mark.parametrize("outputs", [OUTPUTS[:6], (*OUTPUTS[:4], "embedding", "masks", "maps")])
def test_a_file_of_another_network_is_refused(npu: Path, tmp_path: Path, outputs: tuple[str, ...]) -> None:
    encoder = adapter.load(bundle_with(tmp_path, "rknn", compiled(outputs=outputs)), Setup())
    with pytest.raises(BackendError) as caught:
        encoder.run(np.zeros((1, 1, 256, 256), np.float32))
    assert caught.value.code == "backend.model"


def test_a_failed_run_never_gives_the_numbers_of_the_picture_before(npu: Path, bundle: Bundle) -> None:
    encoder = adapter.load(bundle, Setup())
    x = np.zeros((1, 1, 256, 256), np.float32)
    encoder.run(x)
    npu_rknnlite.tell(codes={"run": -2})
    assert encoder._lite.rknn_runtime.run() == -2
    assert len(encoder._lite.rknn_runtime.get_outputs()) == len(OUTPUTS)  # those of before
    with pytest.raises(BackendError, match="no answer in time"):
        encoder.run(x + 0.5)


@pytest.mark.parametrize(
    ("stage", "code", "ours"),
    [
        ("inputs", -8, "backend.model"),
        ("run", -1, "backend.run"),
        ("run", -3, "backend.lost"),
        ("run", -7, "backend.lost"),
        ("outputs", -3, "backend.lost"),
        ("outputs", -9, "backend.model"),
    ],
)
def test_an_npu_that_is_lost_in_the_middle_is_given_back_and_found_again(
    npu: Path, bundle: Bundle, stage: str, code: int, ours: str
) -> None:
    encoder = adapter.load(bundle, Setup())
    x = np.zeros((1, 1, 256, 256), np.float32)
    first = encoder.run(x)
    npu_rknnlite.tell(codes={stage: code, "release": code})
    with pytest.raises(BackendError) as caught:
        encoder.run(x)
    assert caught.value.code == ours
    assert not npu.with_suffix(".holder").exists()
    npu_rknnlite.tell()
    again = adapter.load(bundle, Setup()).run(x)
    assert all(np.array_equal(first[name], again[name]) for name in OUTPUTS)


@pytest.mark.requirement("KEEP-03")
def test_the_box_reads_on_and_goes_back_when_the_npu_answers_again(npu: Path, bundle: Bundle, tmp_path: Path) -> None:
    board = worker_board(tmp_path / "data", backends=("rknn", "tflite"), bundle=bundle.path)
    with closing(open_store(board.data_dir)) as store:
        accelerators = Accelerators(board, store, Voice(store, 10), Patience(probe_first_s=0.0))
        encoder = open_encoder(bundle, accelerators.may_open(), Setup()).encoder
        accelerators.opened(encoder.name, ())
        npu_rknnlite.tell(codes={"run": -2})
        for step in ("retry", "restart", "next"):
            with pytest.raises(BackendError) as caught:
                encoder.run(np.zeros((1, 1, 256, 256), np.float32))
            assert accelerators.failed("rknn", caught.value) == step
        accelerators.opened("tflite", ())
        assert accelerators.fault() is not None
        npu_rknnlite.tell()
        end_s = time.monotonic() + WAIT_S
        while not accelerators.look(bundle):
            assert time.monotonic() < end_s
            time.sleep(0.05)
        assert accelerators.may_open() == ("rknn", "tflite")
        accelerators.close()
