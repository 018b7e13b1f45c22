"""tools/bench encoder [--json] [--quick] [--threads 1,2] [--seconds 20] [--bundle DIR]."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge.bench.versions import machine, software
from edge.bundle import Bundle, load_bundle
from tools.decoder_bench.sampling import measure
from tools.encoder_bench.contestants import EMISSIONS, contestants, vendor_ms

ROOT = Path(__file__).resolve().parents[2]
RIVALS = {
    "radbox tflite": "LiteRT's own benchmark (CompiledModel)",
    "radbox onnxruntime": "ONNX Runtime, bound",
}


def main(arguments: list[str]) -> int:
    """Print the figures as text or JSON."""
    options = _options(arguments)
    bundle = load_bundle(options.bundle)
    missing: set[str] = set()
    result: dict[str, Any] = {
        "machine": asdict(machine()),
        "software": software(),
        "model": f"{bundle.manifest.id} {bundle.manifest.version}",
        "load_before": os.getloadavg()[0],
        "runs": [_run(bundle, threads, options, missing) for threads in options.threads],
    }
    result["not_installed"] = sorted(missing)
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result, indent=1) if options.json else table(result))
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench encoder", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="half a second per run: to see that it works")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="per thread count")
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "bundles" / "chest")
    options = parser.parse_args(arguments)
    options.seconds = 0.5 if options.quick else options.seconds
    options.vendor_runs = 5 if options.quick else 100
    return options


def _run(bundle: Bundle, threads: int, options: argparse.Namespace, missing: set[str]) -> dict[str, Any]:
    taking_part = list(contestants(bundle, threads, missing))
    measured = measure(taking_part, options.seconds)
    rows: dict[str, dict[str, Any]] = {
        one.name: {
            "file": one.kind,
            "median_ms": round(1000 * found.median_s, 3),
            "fast_ms": round(1000 * found.fast_s, 3),
            "samples": found.samples,
        }
        for one, found in zip(taking_part, measured, strict=True)
    }
    ratios = {
        ours: round(rows[ours]["median_ms"] / rows[rival]["median_ms"], 3)
        for ours, rival in RIVALS.items()
        if ours in rows and rival in rows
    }
    tool_ms = vendor_ms(bundle, threads, options.vendor_runs)
    return {"threads": threads, "contestants": rows, "time_against_its_runtime": ratios, "vendor_tool_ms": tool_ms}


def table(result: dict[str, Any]) -> str:
    """Lines for a terminal."""
    machine_of, load = result["machine"], (result["load_before"], result["load_after"])
    lines = [f"{machine_of['processor']}, {machine_of['cores']} cores, load {load[0]:.1f} to {load[1]:.1f}"]
    for run in result["runs"]:
        threads = run["threads"]
        lines.append(f"{threads} thread{'s' if threads > 1 else ''}: ms per image, median (fast decile)")
        for file in EMISSIONS.values():
            for name, row in run["contestants"].items():
                if row["file"] == file:
                    lines.append(
                        f"  {file:15s} {name:42s} {row['median_ms']:8.2f} ({row['fast_ms']:.2f})  {row['samples']} runs"
                    )
        for name, ratio in run["time_against_its_runtime"].items():
            lines.append(f"  {name}: {ratio:.3f} times the time of {RIVALS[name]}")
        if run["vendor_tool_ms"] is not None:
            lines.append(f"  LiteRT's tool in a process of its own, afterwards: {run['vendor_tool_ms']:.2f} ms")
    if result["not_installed"]:
        lines.append(f"not installed, not measured: {'; '.join(result['not_installed'])}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
