"""Add a compiled file and its golden outputs to a bundle, and sign it again.

    .venv/bin/python -m tools.npu.add BUNDLE_DIR FILE GOLDEN

FILE: .rknn or .hef. GOLDEN: a safetensors file with `rknn.tokens` ... or `hef.tokens` ..., what the compiler's
simulator says of the bundle's golden inputs. The key is that of models/sign.py (RADBOX_SIGNING_KEY).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors.numpy import load_file, save_file

from edge.bundle import parse_manifest
from edge.reading.backends import OUTPUTS
from models.sign import write_manifest

EMISSIONS = ("hef", "rknn")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser("tools.npu.add", description=__doc__)
    for name in ("bundle", "file", "golden"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args(arguments)
    add(options.bundle, options.file, options.golden)


def add(bundle: Path, file: Path, golden: Path) -> None:
    """See the module docstring. Stops before anything is written if a name or shape is not right."""
    emission = file.suffix.removeprefix(".")
    if emission not in EMISSIONS:
        raise SystemExit(f"add: expected a file ending in .hef or .rknn, got {file.name}")
    tensors, added = load_file(bundle / "golden.safetensors"), load_file(golden)
    for name in OUTPUTS:
        expected, got = tensors[f"onnx.{name}"].shape, getattr(added.get(f"{emission}.{name}"), "shape", None)
        if got != expected:
            raise SystemExit(f"add: expected {emission}.{name} of shape {expected} in {golden.name}, got {got}")
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    shutil.copyfile(file, bundle / f"encoder.{emission}")
    kept = {name: values for name, values in tensors.items() if not name.startswith(f"{emission}.")}
    new = {f"{emission}.{name}": added[f"{emission}.{name}"] for name in OUTPUTS}
    save_file({**kept, **new}, bundle / "golden.safetensors")
    write_manifest(manifest, bundle)


if __name__ == "__main__":
    main()
