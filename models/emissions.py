"""The files of a bundle against each other: every backend must say the same, for one calibration serves them all.

    python -m models.emissions CACHE_DIR BUNDLE_DIR [--write]

Findings of the adults of the validation part (NIH): mean AUROC, expected calibration error after the bundle's Platt
scaling, and how far each file's logits lie from those of encoder.tflite, to which scaling and thresholds were fitted.
--write makes the ONNX files anew from the bundle's int8 weights, with their golden outputs, and signs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import load_file, save_file

from edge.bundle import Manifest, parse_manifest
from edge.report.grammar import FINDINGS
from models.data import load
from models.export import POPULATION_TOLERANCE, run_onnx, run_tflite
from models.export_tensorrt import check, int8_half, outputs_of
from models.metrics import auroc
from models.quantisers import quantised_inputs_only
from models.sign import write_manifest

LEAST_POSITIVES = 5
BINS = 10


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """ECE with bins of equal mass (Guo et al. 2017, eq. 3; Nixon et al. 2019)."""
    order = np.array_split(np.argsort(probabilities), BINS)
    gaps = [len(rows) * abs(labels[rows].mean() - probabilities[rows].mean()) for rows in order if len(rows)]
    return float(sum(gaps) / len(labels))


def findings_of(bundle: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """File -> logits (M, 14), each through the runtime that a box would use."""
    found = {
        "encoder.tflite": run_tflite(bundle / "encoder.tflite", images)["findings"],
        "encoder.onnx": run_onnx(bundle / "encoder.onnx", images)["findings"],
    }
    if (bundle / "encoder.int8.onnx").exists():
        found["encoder.int8.onnx"] = outputs_of(bundle / "encoder.int8.onnx", images[:, None])["findings"]
    return found


def table(cache: Path, bundle: Path, manifest: Manifest) -> str:
    """Markdown."""
    part = load(cache, "nih").part("val")
    adults = part.child == 0
    labels, logits = part.labels[adults], findings_of(bundle, part.images[adults])
    columns = [i for i in range(len(FINDINGS)) if (labels[:, i] == 1).sum() >= LEAST_POSITIVES]
    lines = [
        f"{adults.sum()} images, {len(columns)} findings with at least {LEAST_POSITIVES} positives",
        "",
        "| file | bytes | mean AUROC | mean ECE | logits above tflite's: mean | greatest of a finding | least |",
        "|" + "---|" * 7,
    ]
    for name, values in logits.items():
        specs = [manifest.findings[FINDINGS[i]]["adult"] for i in columns]
        scaled = [
            1 / (1 + np.exp(-(s.slope * values[:, i] + s.intercept))) for s, i in zip(specs, columns, strict=True)
        ]
        areas = np.mean([auroc(labels[:, i], values[:, i]) for i in columns])
        errors = np.mean([calibration_error(labels[:, i] == 1, p) for i, p in zip(columns, scaled, strict=True)])
        shift = (values - logits["encoder.tflite"]).mean(axis=0)
        size = (bundle / name).stat().st_size
        shifts = " | ".join(f"{one:+.2f}" for one in (shift.mean(), shift.max(), shift.min()))
        lines.append(f"| {name} | {size} | {areas:.3f} | {errors:.3f} | {shifts} |")
    return "\n".join(lines)


def write(bundle: Path, manifest: Manifest) -> None:
    """encoder.onnx for ONNX Runtime, encoder.int8.onnx for TensorRT, the golden outputs of both; signs."""
    golden = load_file(bundle / "golden.safetensors")
    model = quantised_inputs_only(onnx.load(str(bundle / "encoder.onnx")))
    faults = check(model)
    if faults:
        raise SystemExit(f"encoder.onnx: {'; '.join(faults[:3])}")
    onnx.save(model, str(bundle / "encoder.onnx"))
    onnx.save(int8_half(model), str(bundle / "encoder.int8.onnx"))
    made = {
        "onnx": run_onnx(bundle / "encoder.onnx", golden["input"][:, 0]),
        "int8": outputs_of(bundle / "encoder.int8.onnx", golden["input"]),
    }
    golden |= {f"{emission}.{name}": values for emission, outputs in made.items() for name, values in outputs.items()}
    save_file(golden, bundle / "golden.safetensors")
    tolerance = manifest.golden.tolerance | {"population": POPULATION_TOLERANCE}
    write_manifest(replace(manifest, golden=replace(manifest.golden, tolerance=tolerance)), bundle)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cache", "bundle"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    manifest = parse_manifest((options.bundle / "manifest.json").read_bytes())
    if options.write:
        write(options.bundle, manifest)
    print(table(options.cache, options.bundle, manifest))


if __name__ == "__main__":
    main()
