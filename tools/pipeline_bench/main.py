"""tools/bench pipeline [--json] [--quick] [--threads 1,2] [--seconds 20] [--backend NAME] [--bundle DIR] [--file F]."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edge.bench.plan import HEIGHT, WIDTH
from edge.bench.versions import machine, software
from edge.bundle import Bundle, load_bundle
from edge.simulate.objects import phantom_dataset, save_file
from edge.simulate.phantom import Lesion, PhantomOptions, make_phantom
from tools.decoder_bench.sampling import measure
from tools.pipeline_bench.readers import STAGES, FromFile, composed, ours

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = ("f32", "q8", "q4")


def main(arguments: list[str]) -> int:
    """Print the figures as text or JSON."""
    options = _options(arguments)
    bundle = load_bundle(options.bundle)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        file = options.file or _phantom(Path(folder, "phantom.dcm"), options.quick)
        runs = [_run(bundle, threads, file, options) for threads in options.threads]
    result: dict[str, Any] = {
        "machine": asdict(machine()),
        "software": software(),
        "model": f"{bundle.manifest.id} {bundle.manifest.version}",
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "runs": runs,
    }
    print(json.dumps(result, indent=1) if options.json else table(result))
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench pipeline", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--quick", action="store_true", help="a small image, half a second per run: to see that it works"
    )
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="per thread count")
    parser.add_argument("--backend", choices=("tflite", "onnxruntime"), default="tflite")
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "bundles" / "chest")
    parser.add_argument("--file", type=Path, help="a DICOM file of one image (default: a computed thorax, full size)")
    options = parser.parse_args(arguments)
    options.seconds = 0.5 if options.quick else options.seconds
    return options


def _phantom(path: Path, small: bool) -> Path:
    size = (HEIGHT // 4, WIDTH // 4) if small else (HEIGHT, WIDTH)
    lesion = Lesion("effusion", "left", "lower", 0.8)
    save_file(phantom_dataset(make_phantom(PhantomOptions(seed=1, size=size, lesion=lesion))), path)
    return path


def _run(bundle: Bundle, threads: int, file: Path, options: argparse.Namespace) -> dict[str, Any]:
    readers = [ours(bundle, options.backend, precision, threads, file) for precision in PRECISIONS]
    readers += [composed(bundle, options.backend, kernels, threads, file) for kernels in ("reference", "numpy")]
    measured = measure(readers, options.seconds)
    rows: dict[str, dict[str, Any]] = {
        reader.name: {
            "median_ms": round(1000 * found.median_s, 3),
            "fast_ms": round(1000 * found.fast_s, 3),
            "samples": found.samples,
            "stages_ms": _stages_ms(reader),
        }
        for reader, found in zip(readers, measured, strict=True)
    }
    first, *_, usual = rows
    ratio = round(rows[usual]["median_ms"] / rows[first]["median_ms"], 2)
    return {"threads": threads, "readers": rows, "usual_parts_over_ours": ratio}


def _stages_ms(reader: FromFile) -> dict[str, float]:
    """Median of each stage, the first reading left out."""
    taken = reader.stages[1:] or reader.stages
    return {name: round(1000 * float(np.median([one[name] for one in taken])), 3) for name in STAGES}


def table(result: dict[str, Any]) -> str:
    """Lines for a terminal."""
    machine_of, load = result["machine"], (result["load_before"], result["load_after"])
    lines = [f"{machine_of['processor']}, {machine_of['cores']} cores, load {load[0]:.1f} to {load[1]:.1f}"]
    for run in result["runs"]:
        threads = run["threads"]
        lines.append(f"{threads} thread{'s' if threads > 1 else ''}: ms from file to report, median (fast decile)")
        lines.append(" " * 46 + "whole".rjust(14) + "".join(f"{name:>9s}" for name in STAGES))
        for name, row in run["readers"].items():
            whole = f"{row['median_ms']:.1f} ({row['fast_ms']:.1f})"
            lines.append(f"  {name:44s}{whole:>14s}" + "".join(f"{row['stages_ms'][one]:9.2f}" for one in STAGES))
        lines.append(f"  the usual parts take {run['usual_parts_over_ours']:.2f} times ours")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
