"""The RKNN adapter over the real rknn-toolkit-lite2, emulated; only the NPU's library is ours (npu_librknnrt.c)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.reading.backends import OUTPUTS, load_backend
from edge.reading.backends.setup import Setup
from edge.reading.weights import read_tensors
from tests.npu_bundle import ROOT, bundle_with
from tools.npu import emulated

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(emulated.missing()), reason=emulated.missing())]
CODES = (-1, -2, -3, -6, -13)  # as in npu_emulated_program.py
PROGRAM = ROOT / "tests" / "npu_emulated_program.py"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """With a file that the library does not look into."""
    return bundle_with(tmp_path, "rknn", b"RKNN")


def on_the_board(root: Path, version: str, bundle: Bundle, out: Path, **told: str) -> Mapping[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        done = emulated.run(root, version, PROGRAM, str(bundle.path), bundle.sha256, str(out))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once."""
    return emulated.build_library(ROOT / "tests" / "npu_librknnrt.c", tmp_path_factory.mktemp("library"))


@pytest.mark.parametrize("version", emulated.VERSIONS)
def test_the_real_package_reads_and_fails_as_the_adapter_expects(
    version: str, bundle: Bundle, library: Path, tmp_path: Path
) -> None:
    x = read_tensors(bundle.file("golden.safetensors"))["input"][:1].astype(np.float32) / 127.5 - 1.0
    expected = load_backend("onnxruntime", bundle, Setup()).run(x)
    answer, picture, out = tmp_path / "answer", tmp_path / "picture", tmp_path / "out.npz"
    answer.write_bytes(b"".join(expected[name].tobytes() for name in OUTPUTS))
    root = emulated.board(tmp_path, library)
    told = {"RKNN_ANSWER": str(answer), "RKNN_PICTURE": str(picture)}
    found = on_the_board(root, version, bundle, out, **told)

    assert np.array_equal(np.frombuffer(picture.read_bytes(), np.float32).reshape(256, 256), x[0, 0])
    with np.load(out) as outputs:
        assert sorted(outputs) == sorted(OUTPUTS)
        assert all(np.array_equal(outputs[name], expected[name]) for name in OUTPUTS)
    assert found["levels"] == ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert found["hidden"], "inference reports a failed run now: the adapter may use it again"
    at_init = [found[f"INIT {code}"] for code in CODES]
    assert at_init == ["backend.load", "backend.lost", "backend.lost", "backend.load", "backend.wrong-chip"]
    for name in ("RUN", "INPUTS", "OUTPUTS"):
        of_it = [found[f"{name} {code}"] for code in CODES]
        assert of_it == ["backend.run", "backend.lost", "backend.lost", "backend.load", "backend.wrong-chip"]
    assert {found[f"MASK {code}"] for code in CODES} == {"backend.option"}


def test_without_the_library_and_with_one_that_is_too_old(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("without", "old"):
        (tmp_path / name).mkdir()
    old = emulated.build_library(ROOT / "tests" / "npu_librknnrt.c", tmp_path / "old", "OLD")
    without = emulated.board(tmp_path / "without", None)
    assert on_the_board(without, emulated.VERSIONS[-1], bundle, tmp_path / "out.npz") == {"": "backend.absent"}
    root = emulated.board(tmp_path / "old", old)
    assert on_the_board(root, emulated.VERSIONS[-1], bundle, tmp_path / "out.npz") == {"": "backend.version"}
