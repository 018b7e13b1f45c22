"""The same trials on tflite-runtime 2.14, in the environment of `tools/setup_tflite_runtime`; skipped without it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.reading.backends.setup import Setup
from tests.delegate_library import RIGHT, build_null_delegate, shipped_bundle, with_delegate
from tests.delegate_models import dense, make_bundle, make_remainders_bundle


@pytest.fixture(scope="module")
def python(root: Path) -> Path:
    """Its interpreter (`RADBOX_TFLITE_RUNTIME` names another)."""
    path = Path(os.environ.get("RADBOX_TFLITE_RUNTIME", root / "build" / "tflite-runtime" / "bin" / "python"))
    if not path.exists():
        pytest.skip("no environment with tflite-runtime: tools/setup_tflite_runtime makes it")
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The null delegate."""
    return build_null_delegate(tmp_path_factory.mktemp("delegate"))


def trial(python: Path, root: Path, bundle: Bundle, setup: Setup) -> tuple[dict[str, Any], str]:
    """What the child said last, and its standard error."""
    program = [str(python), "-m", "edge.reading.backends.delegate_child"]
    command = [*program, str(bundle.path), bundle.sha256, setup.to_json(), "60"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100, check=False)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said, done.stderr


def test_a_delegate_earns_its_place_there_too(python: Path, root: Path, library: Path, tmp_path: Path) -> None:
    plain = make_remainders_bundle(shipped_bundle(root), tmp_path / "plain")
    verdict = trial(python, root, plain, with_delegate(library, RIGHT))[0]["verdict"]
    assert (verdict["code"], verdict["nodes"], verdict["of"]) == ("", 128, 128)
    verdict = trial(python, root, plain, with_delegate(library, "ops=custom", name="ethosu"))[0]["verdict"]
    assert (verdict["code"], verdict["nodes"], verdict["of"]) == ("", 64, 64)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("refuse", "delegate.refused"),
        ("prepare-error", "delegate.not-applied"),
        ("kernel-error", "delegate.not-applied"),
        ("invoke-error", "delegate.run-failed"),
        ("wrong", "delegate.wrong-numbers"),
    ],
)
def test_faults_are_told_apart_there_too(python: Path, root: Path, library: Path, fault: str, code: str) -> None:
    said, noise = trial(python, root, shipped_bundle(root), with_delegate(library, f"fault={fault}"))
    assert said["code"] == code
    assert "Error" not in noise


def test_nodes_are_counted_alike(python: Path, root: Path, library: Path) -> None:
    said, _ = trial(python, root, shipped_bundle(root), with_delegate(library, "fault=take-nothing"))
    assert said["verdict"]["code"] == "delegate.takes-nothing"
    said, _ = trial(python, root, shipped_bundle(root), with_delegate(library))
    assert (said["verdict"]["nodes"], said["verdict"]["of"]) == (17, 195)
    said, _ = trial(python, root, shipped_bundle(root), Setup(backend="tflite"))
    assert 0 < said["verdict"]["nodes"] < 195 / 2, "it does not give int8 to XNNPACK"


def test_a_model_that_it_computes_wrongly_is_refused(python: Path, root: Path, tmp_path: Path) -> None:
    shipped = shipped_bundle(root)
    pixels = {"input": np.zeros((1, 1, 256, 256), np.uint8)}
    bundle = make_bundle(shipped, tmp_path / "dynamic", {"encoder.tflite": dense("int8")}, pixels)
    said, _ = trial(python, root, bundle, Setup(backend="tflite"))
    assert said["code"] == "backend.model"
    assert "dynamic-range" in said["message"]
