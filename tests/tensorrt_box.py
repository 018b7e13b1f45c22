"""A machine with a stand-in for TensorRT, pycuda and libcuda: for tests of everything around an engine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge.bundle import Bundle, load_bundle
from tests.update_box import BUNDLE, ROOT

STAND_IN = ROOT / "tests" / "tensorrt_stand_in"
MODE = "RADBOX_STAND_IN"


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From here on the processes that are started find the stand-ins. Skips where there is no C compiler."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for the stand-in of libcuda")
    library = folder / "libcuda.so.1"
    source = STAND_IN / "libcuda.c"
    subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", library, source], check=True)
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(STAND_IN), str(ROOT), before])))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    monkeypatch.delenv(MODE, raising=False)


def chest() -> Bundle:
    """The bundle of the checkout."""
    return load_bundle(BUNDLE)


def bundle_of(folder: Path, change: Callable[[Path], None]) -> Bundle:
    """A copy of the chest bundle with other files, vouched for by its manifest's sha256."""
    shutil.copytree(BUNDLE, folder)
    change(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    names = [path.name for path in folder.iterdir() if not path.name.startswith("manifest.")]
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(names)}
    document = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(document)
    return load_bundle(folder, trusted_manifest_sha256=hashlib.sha256(document).hexdigest())


def two_plans(folder: Path, offset: float = 0.0) -> Bundle:
    """With an "fp16" file whose expected outputs are off by `offset` (the stand-in computes both alike)."""

    def change(path: Path) -> None:
        for old in path.glob("encoder.*.onnx"):
            old.unlink()
        shutil.copy(path / "encoder.onnx", path / "encoder.fp16.onnx")
        golden = load_file(path / "golden.safetensors")
        plain = {name.removeprefix("onnx."): values for name, values in golden.items() if name.startswith("onnx.")}
        moved = {f"fp16.{name}": np.asarray(values + offset, np.float32) for name, values in plain.items()}
        save_file({**golden, **moved}, path / "golden.safetensors")

    return bundle_of(folder, change)


def one_plan(folder: Path) -> Bundle:
    """With encoder.onnx and no other ONNX file."""

    def change(path: Path) -> None:
        for old in path.glob("encoder.*.onnx"):
            old.unlink()

    return bundle_of(folder, change)
