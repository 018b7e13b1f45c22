"""What rounding costs: each ONNX file against the float32 checkpoint, on the bundle's golden inputs, by SQNR.

    python -m tools.tensorrt.numbers

ONNX Runtime computes, its optimiser off, so this judges the files and not TensorRT's kernels. float32.safetensors holds
what the checkpoint said (models.export_tensorrt wrote it). Inputs are phantoms and drawn pictures: the figures say how
far two roundings of one model are apart, not how well it reads.

SQNR = 10 log10(sum(reference^2) / sum((reference - got)^2)) in dB, over all golden cases of an output.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import load_file

from models.export_tensorrt import outputs_of
from tools.tensorrt.files import BUNDLE, model_files

REFERENCE: Final = Path(__file__).with_name("float32.safetensors")
# Least SQNR of any output, dB. fp16: float16 has 11 bits, and 64 convolutions add up.
LEAST_DB: Final = {"encoder.fp16.onnx": 35.0, "encoder.int8.onnx": 6.0, "encoder.onnx": 6.0}


def sqnr_db(reference: np.ndarray, got: np.ndarray) -> float:
    """See the module docstring; inf where they are equal."""
    exact = reference.astype(np.float64)
    noise = float(((exact - got) ** 2).sum())
    return float(10 * np.log10((exact**2).sum() / noise)) if noise else float("inf")


def golden_error(reference: np.ndarray, got: np.ndarray) -> float:
    """As edge.reading.backends.golden: the worst case's mean |got - expected| over the spread of the expected."""
    worst = max(float(np.abs(got[i] - reference[i]).mean()) for i in range(len(reference)))
    return worst / max(float(reference.std()), 1e-6)


def compare(name: str, path: Path, reference: dict[str, Any], images: np.ndarray) -> bool:
    """Print one file's figures; True if every output is above the file's bar."""
    outputs = outputs_of(path, images)
    levels = {output: sqnr_db(values, outputs[output]) for output, values in reference.items()}
    least, bar = min(levels.values()), LEAST_DB[name]
    figures = ", ".join(
        f"{output} {level:.1f} dB ({golden_error(reference[output], outputs[output]):.3f})"
        for output, level in levels.items()
    )
    print(f"{'ok' if least >= bar else 'FAIL':4s}  {name}: least {least:.1f} dB, bar {bar:.0f} dB: {figures}")
    return least >= bar


def tell_of_rounding(outputs: dict[str, np.ndarray], golden: dict[str, Any]) -> None:
    """encoder.onnx by ONNX Runtime without its optimiser, against the golden outputs, made with it: two right answers.

    Where they differ by more than the bundle's tolerance, TensorRT's third answer may fail the golden case, too.
    """
    errors = {output: golden_error(golden[f"onnx.{output}"], values) for output, values in outputs.items()}
    print("encoder.onnx, golden error between two correct runs: ", end="")
    print(", ".join(f"{output} {error:.3f}" for output, error in sorted(errors.items())))


def main() -> int:
    """See the module docstring. 1 where a file is below its bar."""
    reference = load_file(REFERENCE)
    golden = load_file(BUNDLE / "golden.safetensors")
    images = golden["input"]
    print("SQNR against float32, and in brackets the golden error, whose tolerance decides whether int8 is kept")
    with tempfile.TemporaryDirectory() as folder:
        results = [compare(name, path, reference, images) for name, path in model_files(Path(folder)).items()]
    tell_of_rounding(outputs_of(BUNDLE / "encoder.onnx", images), golden)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
