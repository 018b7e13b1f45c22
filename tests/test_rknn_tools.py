"""Making encoder.rknn: how far it is off, what is added to a bundle, and the lock of the compiler's environment."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge.bundle import load_bundle
from edge.reading.backends import OUTPUTS
from models import sign
from tests.npu_bundle import ROOT, SHIPPED
from tests.test_tools import locked
from tools.npu.add import add
from tools.npu.agreement import agreement, sqnr_db, too_far
from tools.npu.compile_rknn import dataset, main, run_float, signed


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped one, and a key of its own."""
    monkeypatch.setenv("RADBOX_SIGNING_KEY", str(tmp_path / "signing.key"))
    monkeypatch.setattr(sign, "TRUSTED_KEYS", tmp_path / "trusted_keys.txt")
    return Path(shutil.copytree(SHIPPED, tmp_path / "bundle"))


def golden_of(bundle: Path, emission: str, folder: Path) -> Path:
    """A compiler's golden outputs: here those of the ONNX file."""
    tensors = load_file(bundle / "golden.safetensors")
    path = folder / f"{emission}.safetensors"
    save_file({f"{emission}.{name}": tensors[f"onnx.{name}"] for name in OUTPUTS}, path)
    return path


def test_sqnr_in_decibels() -> None:
    reference = np.array([3.0, 4.0], np.float32)
    assert sqnr_db(reference, np.array([3.0, 4.5], np.float32)) == pytest.approx(20.0)
    assert sqnr_db(reference, reference) == float("inf")
    with pytest.raises(ValueError, match=r"expected outputs of \(2,\), got \(1,\)"):
        sqnr_db(reference, reference[:1])
    figures = agreement({"a": reference, "b": reference}, {"a": reference, "b": reference * np.float32(np.nan)})
    assert too_far(figures, 30.0) == ["b"]


def test_the_float_side_of_the_compiler_is_the_reader_s_own_arithmetic(tmp_path: Path) -> None:
    golden = load_file(SHIPPED / "golden.safetensors")
    outputs = run_float(SHIPPED / "encoder.onnx", signed(golden["input"]))
    assert list(outputs) == list(OUTPUTS)
    assert sqnr_db(golden["onnx.tokens"], outputs["tokens"]) > 20
    np.save(tmp_path / "images.npy", golden["input"][:2, 0])
    listed = Path(dataset(tmp_path / "images.npy", tmp_path)).read_text().splitlines()
    assert np.array_equal(np.load(listed[1]), signed(golden["input"][1:2]))


def test_int8_needs_pictures_and_fp16_none(capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--precision", "int8"], ["--calibration", "x.npy"]):
        with pytest.raises(SystemExit):
            main(["float.onnx", "bundle", "out", *options])
        assert "expected --calibration" in capsys.readouterr().err


@pytest.mark.parametrize("emission", ["rknn", "hef"])
def test_a_file_is_added_signed_and_may_be_replaced(bundle: Path, tmp_path: Path, emission: str) -> None:
    before = load_bundle(SHIPPED)
    for content in (b"first", b"second"):
        (tmp_path / f"made.{emission}").write_bytes(content)
        add(bundle, tmp_path / f"made.{emission}", golden_of(bundle, emission, tmp_path))
    after = load_bundle(bundle, tmp_path / "trusted_keys.txt")
    assert after.file(f"encoder.{emission}").read_bytes() == b"second"
    assert set(after.manifest.files) == {*before.manifest.files, f"encoder.{emission}"}
    assert after.manifest.findings == before.manifest.findings
    golden = load_file(after.file("golden.safetensors"))
    assert len(golden) == len(load_file(before.file("golden.safetensors"))) + len(OUTPUTS)


def test_nothing_is_written_for_a_wrong_name_or_shape(bundle: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    golden = golden_of(bundle, "rknn", tmp_path)
    for name in ("made.onnx", "made.hef"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(SystemExit, match="expected"):
            add(bundle, tmp_path / name, golden)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_the_compiler_s_environment_is_pinned_and_hashed() -> None:
    pins = {name: version for (name, _), version in locked(ROOT, "rknn").items()}
    assert pins["rknn-toolkit2"] == "2.5.0"
    assert {"onnx", "numpy", "torch", "safetensors"} <= set(pins)
    for script in ("tools/compile_rknn", "tools/npu/lock"):
        assert (ROOT / script).read_text().startswith("#!/usr/bin/env bash\n# ")
        subprocess.run(["bash", "-n", ROOT / script], check=True)
