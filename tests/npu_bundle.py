"""The shipped bundle with a compiled file for an NPU added to it, as docs/npu.md has it done."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from safetensors.numpy import load_file, save_file

from edge.bundle import Bundle, load_bundle
from edge.reading.backends import OUTPUTS

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "models" / "bundles" / "chest"


def shipped() -> Bundle:
    """As it is in the repository."""
    return load_bundle(SHIPPED)


def bundle_with(folder: Path, emission: str, content: bytes, *, golden: bool = True) -> Bundle:
    """A copy in `folder` with encoder.<emission>. golden: with its golden outputs, here those of the ONNX file."""
    path = Path(shutil.copytree(SHIPPED, folder / "bundle"))
    (path / f"encoder.{emission}").write_bytes(content)
    if golden:
        tensors = load_file(path / "golden.safetensors")
        of_it = {f"{emission}.{name}": tensors[f"onnx.{name}"] for name in OUTPUTS}
        save_file({**tensors, **of_it}, path / "golden.safetensors")
    manifest = json.loads((path / "manifest.json").read_text())
    for name in ("golden.safetensors", f"encoder.{emission}"):
        manifest["files"][name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    document = json.dumps(manifest).encode()
    (path / "manifest.json").write_bytes(document)
    return load_bundle(path, trusted_manifest_sha256=hashlib.sha256(document).hexdigest())
