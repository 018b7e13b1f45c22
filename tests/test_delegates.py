"""Delegates earn their place: a real library that fails in every way, and one that really computes."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.board import load_board
from edge.bundle import Bundle
from edge.doctor import _model as examine_model
from edge.errors import BackendError
from edge.reading.backends import MODULES, delegates, load_backend, open_encoder, probe_in_child, tflite
from edge.reading.backends.delegate_child import is_faster
from edge.reading.backends.delegate_library import LONGEST_FOREIGN_TEXT, Library, foreign
from edge.reading.backends.delegate_nodes import Taken, count
from edge.reading.backends.delegate_trial import try_out
from edge.reading.backends.delegate_verdict import Verdict
from edge.reading.backends.golden import check_golden
from edge.reading.backends.setup import Setup
from tests.delegate_library import RIGHT, build_null_delegate, compiler, shipped_bundle, with_delegate
from tests.delegate_models import make_remainders_bundle, remainders_of


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The null delegate."""
    return build_null_delegate(tmp_path_factory.mktemp("delegate"))


@pytest.fixture(scope="module")
def shipped(root: Path) -> Bundle:
    """The bundle of this release."""
    return shipped_bundle(root)


@pytest.fixture(scope="module")
def plain(shipped: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that the null delegate can compute as a whole, and much faster than the CPU's runtime."""
    return make_remainders_bundle(shipped, tmp_path_factory.mktemp("bundle") / "plain")


def refused(bundle: Bundle, setup: Setup) -> BackendError:
    with pytest.raises(BackendError) as caught:
        load_backend(setup.backend, bundle, setup)
    assert "\n" not in caught.value.message
    return caught.value


# --- what earns its place ---


@pytest.mark.requirement("READ-07")
def test_a_delegate_that_computes_right_and_faster_reads(plain: Bundle, library: Path) -> None:
    native = ctypes.CDLL(str(library))
    encoder = load_backend("vx", plain, with_delegate(library, RIGHT))
    assert encoder.name == "vx"
    assert encoder.emission == "tflite"
    before = native.null_delegate_invoked()
    x = np.random.default_rng(3).uniform(-1, 1, (1, 1, 256, 256)).astype(np.float32)
    outputs = encoder.run(x)
    assert native.null_delegate_invoked() == before + 1
    for name, expected in remainders_of(x).items():
        assert np.abs(outputs[name] - expected).mean() < 1e-3, name
    live = native.null_delegate_live()
    del encoder
    gc.collect()
    assert native.null_delegate_live() == live - 1, "the delegate goes with its encoder"


def test_the_verdict_says_what_was_measured(plain: Bundle, library: Path) -> None:
    verdict = delegates.judge(plain, with_delegate(library, RIGHT))
    assert (verdict.code, verdict.nodes, verdict.of) == ("", 128, 128)
    assert verdict.cpu_ms > 1.1 * verdict.delegate_ms > 0
    assert Verdict("", "", 7, 9, 2.0, 5.0).words == "takes 7 of 9 nodes, 2.5 times the CPU's speed"


def test_the_nodes_taken_are_those_that_the_delegate_says_it_took(shipped: Bundle, library: Path) -> None:
    encoder, nodes = delegates.open_delegate(shipped, with_delegate(library))
    claimed = ctypes.CDLL(str(library)).null_delegate_claimed()
    assert (nodes.nodes, nodes.of) == (claimed, 195) == (17, 195)
    assert encoder.nodes.nodes > nodes.nodes, "XNNPACK takes of the rest"
    assert nodes.partitions > 1


def test_faster_means_clearly_and_most_of_the_time() -> None:
    assert is_faster([(1.0, 2.0)] * 4)
    assert not is_faster([(1.0, 1.05)] * 25), "too little"
    assert not is_faster([(1.0, 3.0)] * 13 + [(3.0, 1.0)] * 12), "by chance"
    assert not is_faster([(2.0, 1.0)] * 4)


def test_nodes_are_counted_between_the_borders_of_the_partitions() -> None:
    def node(name: str, inputs: list[int], outputs: list[int]) -> dict[str, object]:
        return {"op_name": name, "inputs": np.array(inputs), "outputs": np.array(outputs)}

    chain = [node("ADD", [i, 90], [i + 1]) for i in range(5)]
    assert count(chain) == Taken(0, 5, 0)
    assert count([*chain, node("DELEGATE", [1, 90], [3])]) == Taken(2, 5, 1)
    assert count([*chain, node("DELEGATE", [0, 90], [1]), node("DELEGATE", [3, 90], [5])]) == Taken(3, 5, 2)
    assert count([*chain, node("SPLIT", [5, -1], [6, 7]), node("DELEGATE", [4, 90], [6, 7])]) == Taken(2, 6, 1)


# --- every failure, told apart ---

FAULTS = {
    "refuse": ("delegate.refused", "no accelerator on this machine"),
    "refuse-silently": ("delegate.refused", "no reason given"),
    "take-nothing": ("delegate.takes-nothing", "none of the model's 195 nodes"),
    "prepare-error": ("delegate.not-applied", "refused the model"),
    "kernel-error": ("delegate.not-applied", "failed to prepare"),
    "crash-create": ("delegate.crashed-loading", "signal 11"),
    "crash-prepare": ("delegate.crashed-loading", "signal 11"),
    "exit": ("delegate.crashed-loading", "exit status 0"),
    "crash-invoke": ("delegate.crashed-running", "signal 11"),
    "invoke-error": ("delegate.run-failed", "failed while running"),
    "wrong": ("delegate.wrong-numbers", "golden case"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.requirement("READ-07", "KEEP-03")
def test_every_fault_has_its_code_and_words(shipped: Bundle, library: Path, fault: str) -> None:
    code, words = FAULTS[fault]
    error = refused(shipped, with_delegate(library, f"fault={fault}"))
    assert error.code == code
    assert words in error.message


def test_a_delegate_that_is_right_but_no_faster_counts_as_absent(plain: Bundle, library: Path) -> None:
    error = refused(plain, with_delegate(library, RIGHT, "fault=slow"))
    assert error.code == "delegate.not-faster"
    assert "takes 128 of 128 nodes but is not clearly faster" in error.message


@pytest.mark.parametrize(("fault", "phase"), [("hang-create", "loading"), ("hang-invoke", "running")])
@pytest.mark.requirement("KEEP-01")
def test_a_hang_is_ended(shipped: Bundle, library: Path, fault: str, phase: str) -> None:
    for timeout_s in (3.0, 12.0, 48.0):  # on a slow machine it has not come to the hang in three seconds
        with pytest.raises(BackendError) as caught:
            try_out(shipped, with_delegate(library, f"fault={fault}"), timeout_s)
        if caught.value.code == f"delegate.hung-{phase}":
            break
    assert caught.value.code == f"delegate.hung-{phase}"
    assert f"hung while {phase}" in caught.value.message


def test_a_child_whose_parent_is_gone_ends_by_itself(shipped: Bundle, library: Path, root: Path) -> None:
    setup = with_delegate(library, "fault=hang-create").to_json()
    command = [sys.executable, "-m", "edge.reading.backends.delegate_child", str(shipped.path), shipped.sha256, setup]
    done = subprocess.run([*command, "-4"], cwd=root, stdout=subprocess.DEVNULL, timeout=60, check=False)
    assert done.returncode == -signal.SIGALRM


def test_a_library_that_cannot_be_one_is_told_without_noise(
    library: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "libtext.so"
    text.write_text("not a library\n")
    source = tmp_path / "other.c"
    source.write_text("int other(void) { return 1; }\n")
    subprocess.run([compiler(), "-shared", "-fPIC", "-o", str(tmp_path / "libother.so"), str(source)], check=True)
    for path, words in ((text, "cannot be loaded"), (tmp_path / "libother.so", "tflite_plugin_create_delegate")):
        with pytest.raises(BackendError, match=words) as caught:
            Library(path)
        assert caught.value.code == "delegate.not-loadable"
    runtime = tflite.find_runtime()
    with pytest.raises(BackendError, match="no accelerator on this machine"):
        Library(library).create(runtime, {"fault": "refuse"})
    with pytest.raises(BackendError, match="unknown option"):
        Library(library).create(runtime, {"speed": "high"})
    gc.collect()
    assert "Error" not in capfd.readouterr().err


def test_a_makers_words_are_cut_and_made_one_line() -> None:
    assert foreign("  one\n\ttwo\x1b[31m\0 three ") == "one two [31m three"
    assert len(foreign("x" * 1000)) == LONGEST_FOREIGN_TEXT + len(" ...")


# --- what a delegate needs ---


def test_every_delegate_is_a_backend_with_its_makers_document() -> None:
    assert {name for name, module in MODULES.items() if module == "delegates"} == set(delegates.DELEGATES)
    for delegate in delegates.DELEGATES.values():
        assert delegate.libraries
        assert delegate.source
        assert delegate.model.endswith(".tflite")


@pytest.mark.parametrize("name", list(delegates.DELEGATES))
def test_a_board_without_the_driver_or_the_file_says_so(shipped: Bundle, name: str) -> None:
    if delegates.DELEGATES[name].model != tflite.MODEL:
        error = refused(shipped, Setup(backend=name))
        assert error.code == "delegate.no-model"
        assert delegates.DELEGATES[name].model in error.message
    with pytest.raises(BackendError) as caught:
        delegates.find_library(Setup(backend=name, library="/nowhere/lib.so"))
    assert caught.value.code == "delegate.library-missing"
    assert "/nowhere/lib.so" in caught.value.message


def test_a_compiled_model_is_run_from_its_own_file(plain: Bundle, library: Path) -> None:
    path = delegates.model_of(plain, "ethosu")
    assert path.name == "encoder.vela.tflite"
    with pytest.raises(BackendError) as caught:
        tflite.allocate(tflite.make_interpreter(tflite.find_runtime(), path, 1))
    assert caught.value.code == "backend.load", "no runtime knows its operators"
    encoder, nodes = delegates.open_delegate(plain, with_delegate(library, "ops=custom", name="ethosu"))
    assert nodes == Taken(64, 64, 1)
    check_golden(encoder.run, encoder.emission, plain)
    error = refused(plain, with_delegate(library, "ops=custom", "fault=take-nothing", name="ethosu"))
    assert error.code == "delegate.takes-nothing"


def test_the_board_chooses_library_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libQnnTFLiteDelegate.so").touch()
    monkeypatch.setattr(delegates, "FOLDERS", (str(tmp_path / "none"), str(tmp_path)))
    assert delegates.find_library(Setup(backend="qnn")) == tmp_path / "libQnnTFLiteDelegate.so"
    assert delegates.options_of(Setup(backend="qnn")) == {"backend_type": "htp"}
    changed = Setup(backend="qnn", options=("backend_type = gpu", "library_path=/opt/a=b:c.so"))
    assert delegates.options_of(changed) == {"backend_type": "gpu", "library_path": "/opt/a=b:c.so"}
    several = Setup(backend="vx", options=("qnn:backend_type=gpu", "vx:device_id=1", "quiet=1"))
    assert delegates.options_of(several) == {"device_id": "1", "quiet": "1"}


# --- with the rest of the box ---


@pytest.mark.requirement("KEEP-03")
def test_the_next_backend_of_the_board_reads_and_the_reason_is_told(shipped: Bundle, library: Path) -> None:
    opened = open_encoder(shipped, ("vx", "tflite"), with_delegate(library, "fault=crash-create"))
    assert opened.encoder.name == "tflite"
    assert [(name, error.code) for name, error in opened.passed_over] == [("vx", "delegate.crashed-loading")]


def test_a_good_delegate_is_preferred(plain: Bundle, library: Path, tmp_path: Path) -> None:
    opened = open_encoder(plain, ("vx", "tflite"), with_delegate(library, RIGHT, cache=tmp_path / "accelerator"))
    assert opened.encoder.name == "vx"
    assert opened.passed_over == ()


def test_the_probe_in_a_child_tells_the_same(shipped: Bundle, library: Path) -> None:
    with pytest.raises(BackendError) as caught:
        probe_in_child("teflon", shipped, with_delegate(library, "fault=refuse", name="teflon"))
    assert caught.value.code == "delegate.refused"


def test_what_is_not_worth_it_is_not_praised(shipped: Bundle, library: Path) -> None:
    with pytest.raises(BackendError) as caught:
        delegates.worth(shipped, with_delegate(library, "fault=take-nothing"))
    assert caught.value.code == "delegate.takes-nothing"
    assert delegates.worth(shipped, Setup(backend="onnxruntime")) == ""


def test_doctor_says_what_each_is_worth(
    root: Path, plain: Bundle, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = load_board(root / "board_configs" / "sim.toml")
    options = ("ethosu:ops=custom", "edgetpu:unknown=1")
    accelerator = dataclasses.replace(board.accelerator, library=str(library), options=options)
    worker = dataclasses.replace(board.worker, backends=("ethosu", "edgetpu", "tflite"))
    board = dataclasses.replace(board, data_dir=tmp_path, accelerator=accelerator, worker=worker)
    monkeypatch.setattr("edge.doctor.load_bundle", lambda _path: plain)
    checks = [check for check in examine_model(board) if check.name == "backend"]
    assert [(check.verdict, check.code) for check in checks] == [("ok", ""), ("warn", "delegate.no-model"), ("ok", "")]
    assert checks[0].message.startswith("ethosu: passes the golden case, takes 64 of 64 nodes, ")
    assert checks[0].message.endswith(" times the CPU's speed")
    assert checks[2].message == "tflite: passes the golden case, XNNPACK takes 64 of 128 nodes"
