"""Runs on the emulated board: the adapter over the real rknn-toolkit-lite2. Prints what it found as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import Bundle, load_bundle
from edge.errors import BackendError
from edge.reading.backends import rknn
from edge.reading.backends.setup import Setup
from edge.reading.weights import read_tensors


def main(bundle_path: str, manifest_sha256: str, out: str) -> None:
    """Reads the first golden picture, then makes one thing fail after the other."""
    bundle = load_bundle(Path(bundle_path), trusted_manifest_sha256=manifest_sha256)
    x = read_tensors(bundle.file("golden.safetensors"))["input"][:1].astype(np.float32) / 127.5 - 1.0
    found: dict[str, Any] = {"": failure(bundle, x)}
    if not found[""]:
        os.environ["RKNN_CORES"] = "7"
        encoder = rknn.load(bundle, Setup(options=("core_mask=0_1_2",)))
        del os.environ["RKNN_CORES"]
        np.savez(out, **encoder.run(x))  # type: ignore[arg-type]
        found["levels"] = [logging.getLevelName(number) for number in (10, 20, 30, 40)]
        found["hidden"] = hidden(encoder, x)
        encoder.close()
        rknn.DRIVER = Path("/")  # type: ignore[misc]  # as if this machine's kernel had it
        for name in ("INIT", "MASK", "INPUTS", "RUN", "OUTPUTS"):
            for code in (-1, -2, -3, -6, -13):
                os.environ[f"RKNN_{name}"] = str(code)
                found[f"{name} {code}"] = failure(bundle, x)
                del os.environ[f"RKNN_{name}"]
    print(json.dumps(found))


def failure(bundle: Bundle, x: Any) -> str:
    """The code of what goes wrong; "" if nothing does."""
    try:
        encoder = rknn.load(bundle, Setup(options=("core_mask=0",)))
    except BackendError as error:
        return error.code
    try:
        encoder.run(x)
    except BackendError as error:
        return error.code
    return ""


def hidden(encoder: rknn.RknnEncoder, x: Any) -> bool:
    """True if the package's own `inference` hides that a run failed."""
    os.environ["RKNN_RUN"] = "-2"
    try:
        return encoder._lite.inference([x.transpose(0, 2, 3, 1).copy()], "float32", "nhwc") is not None
    finally:
        del os.environ["RKNN_RUN"]


if __name__ == "__main__":
    main(*sys.argv[1:4])
