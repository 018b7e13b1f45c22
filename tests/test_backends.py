"""Backends on the shipped bundle: the golden case, order of preference, and what happens when one fails."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle, load_bundle
from edge.errors import BackendError
from edge.reading.backends import OUTPUTS, load_backend, open_encoder, probe_in_child
from edge.reading.backends.golden import check_golden
from edge.reading.backends.setup import Setup


@pytest.fixture(scope="module")
def bundle(root: Path) -> Bundle:
    """The shipped bundle."""
    return load_bundle(next((root / "models" / "bundles").glob("*/manifest.json")).parent)


@pytest.mark.parametrize("name", ["tflite", "onnxruntime"])
@pytest.mark.requirement("READ-07")
def test_a_backend_passes_the_golden_case(bundle: Bundle, name: str) -> None:
    encoder = load_backend(name, bundle, Setup(threads=1))
    errors = check_golden(encoder.run, encoder.emission, bundle)
    assert set(errors) == set(bundle.manifest.golden.tolerance) == set(OUTPUTS)


@pytest.mark.parametrize("name", ["tflite", "onnxruntime"])
def test_outputs_have_their_shapes_and_repeat_exactly(bundle: Bundle, name: str) -> None:
    encoder = load_backend(name, bundle, Setup(threads=2))
    x = np.random.default_rng(0).uniform(-1, 1, (1, 1, 256, 256)).astype(np.float32)
    first, second = encoder.run(x), encoder.run(x)
    shapes = {k: v.shape for k, v in first.items()}
    assert shapes == {
        "tokens": (1, 256, 128), "findings": (1, 14), "population": (1, 1), "chest": (1, 1),
        "masks": (1, 3, 16, 16), "embedding": (1, 128), "maps": (1, 14, 16, 16),
    }  # fmt: skip
    for key, value in first.items():
        assert value.dtype == np.float32
        assert np.array_equal(value, second[key])


def test_null_never_passes(bundle: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        check_golden(load_backend("null", bundle, Setup(threads=1)).run, "tflite", bundle)
    assert caught.value.code == "backend.golden"


def test_the_first_that_passes_is_used_and_the_rest_is_told(bundle: Bundle) -> None:
    opened = open_encoder(bundle, ("null", "tflite"), Setup())
    assert opened.encoder.name == "tflite"
    assert [(name, error.code) for name, error in opened.passed_over] == [("null", "backend.golden")]


def test_no_backend_is_an_error_that_names_each_reason(bundle: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        open_encoder(bundle, ("null",), Setup())
    assert caught.value.code == "backend.none"
    assert "null" in caught.value.message


def test_an_unknown_name_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        load_backend("os", bundle, Setup(threads=1))
    assert caught.value.code == "backend.unknown"


def test_a_damaged_model_file_is_an_error_not_a_crash(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "b"))
    for name in ("encoder.tflite", "encoder.onnx"):
        (folder / name).write_bytes(b"not a model" * 100)
    damaged = dataclasses.replace(bundle, path=folder)
    for name in ("tflite", "onnxruntime"):
        with pytest.raises(BackendError) as caught:
            load_backend(name, damaged, Setup(threads=1))
        assert caught.value.code == "backend.load"


def test_the_probe_speaks_through_its_exit_code_and_last_line(bundle: Bundle) -> None:
    probe_in_child("tflite", bundle, Setup())
    with pytest.raises(BackendError) as caught:
        probe_in_child("null", bundle, Setup())
    assert caught.value.code == "backend.golden"


def test_a_child_that_dies_or_hangs_is_told_apart(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run

    def instead(program: str) -> None:
        def run(_command: list[str], **options: object) -> object:
            return real(["/bin/sh", "-c", program], **options)  # type: ignore[call-overload]

        monkeypatch.setattr("edge.reading.backends.subprocess.run", run)

    instead("kill -ABRT $$")
    with pytest.raises(BackendError) as caught:
        probe_in_child("tflite", bundle, Setup())
    assert caught.value.code == "backend.crashed"
    instead("exec sleep 5")
    with pytest.raises(BackendError) as caught:
        probe_in_child("tflite", bundle, Setup(), timeout_s=0.2)
    assert caught.value.code == "backend.hung"


@pytest.mark.requirement("READ-07")
def test_wrong_numbers_fail_the_golden_case(bundle: Bundle) -> None:
    encoder = load_backend("tflite", bundle, Setup(threads=1))

    def skewed(x: np.ndarray) -> dict[str, np.ndarray]:
        return {**encoder.run(x), "findings": encoder.run(x)["findings"] + 0.5}

    with pytest.raises(BackendError) as caught:
        check_golden(skewed, "tflite", bundle)
    assert "findings" in caught.value.message
