"""`tools/compile_rknn`: the float ONNX file -> encoder.rknn for the RK3588, its golden outputs, and how far it is off.

Rockchip's simulator computes the golden outputs; the float network in ONNX Runtime is what they are held against.
Source: rknn/api/rknn.py of rknn-toolkit2 2.5.0 (config, load_onnx, build, export_rknn, init_runtime, inference).
Runs in an environment of its own (requirements/rknn.txt), so it imports nothing of edge.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from safetensors.numpy import load_file, save_file

from tools.npu.agreement import agreement, too_far

TARGET = "rk3588"
LEAST_DB = 30.0
F32 = npt.NDArray[np.float32]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if the file was written and is near enough; 1 if it is too far off (written all the same)."""
    parser = argparse.ArgumentParser("compile_rknn", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("onnx", type=Path, metavar="FLOAT_ONNX", help="from tools.npu.float_onnx")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_DIR", help="whose golden inputs are used")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--precision", choices=("fp16", "int8"), default="fp16")
    parser.add_argument("--calibration", type=Path, metavar="NPY", help="(N, 256, 256) uint8 pictures, for int8")
    parser.add_argument("--least-db", type=float, default=LEAST_DB, help="of each output (default: %(default)s)")
    options = parser.parse_args(arguments)
    if (options.precision == "int8") != (options.calibration is not None):
        parser.error("expected --calibration with --precision int8, and only then")
    inputs = signed(load_file(options.bundle / "golden.safetensors")["input"])
    reference = run_float(options.onnx, inputs)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "encoder.rknn"
    got = run_compiled(options.onnx, file, inputs, list(reference), options.calibration)
    save_file({f"rknn.{name}": values for name, values in got.items()}, options.out / "golden.safetensors")
    figures = agreement(reference, got)
    report = {"target": TARGET, "precision": options.precision, "bytes": file.stat().st_size, "sqnr_db": figures}
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    for name, figure in figures.items():
        print(f"{name:12} {figure:6.1f} dB")
    if far := too_far(figures, options.least_db):
        least = f"{options.least_db:g} dB"
        print(f"compile_rknn: expected at least {least}, got less for {', '.join(far)}", file=sys.stderr)
        return 1
    return 0


def signed(images: npt.NDArray[np.uint8]) -> F32:
    """(N, 1, H, W) uint8 -> float32 in [-1, 1], as the reader has it."""
    return images.astype(np.float32) / 127.5 - 1.0


def run_float(path: Path, inputs: F32) -> dict[str, F32]:
    """Every output of the float network."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = [session.run(None, {"image": x[None]}) for x in inputs]
    names = [output.name for output in session.get_outputs()]
    return {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(names)}


def run_compiled(onnx: Path, file: Path, inputs: F32, names: Sequence[str], calibration: Path | None) -> dict[str, F32]:
    """Compile to `file` and let the simulator compute the inputs. calibration: pictures for int8, None for float16."""
    rknn = importlib.import_module("rknn.api").RKNN(verbose=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            done(rknn.config(target_platform=TARGET), "config")
            done(rknn.load_onnx(model=str(onnx)), "load_onnx")
            quantise = {"dataset": dataset(calibration, Path(folder))} if calibration else {}
            done(rknn.build(do_quantization=calibration is not None, **quantise), "build")
        done(rknn.export_rknn(str(file)), "export_rknn")
        done(rknn.init_runtime(), "init_runtime")
        rows = [rknn.inference(inputs=[x[None]], data_format=["nchw"]) for x in inputs]
    finally:
        rknn.release()
    return {name: np.concatenate([row[i] for row in rows]).astype(np.float32) for i, name in enumerate(names)}


def dataset(calibration: Path, folder: Path) -> str:
    """The toolkit's list of files, one picture each."""
    paths = []
    for number, image in enumerate(np.load(calibration)):
        paths.append(folder / f"{number}.npy")
        np.save(paths[-1], signed(image[None, None]))
    listed = folder / "dataset.txt"
    listed.write_text("".join(f"{path}\n" for path in paths))
    return str(listed)


def done(status: Any, step: str) -> None:
    """Stop where the toolkit says it failed."""
    if status != 0:
        raise SystemExit(f"compile_rknn: {step} failed with {status}")


if __name__ == "__main__":
    sys.exit(main())
