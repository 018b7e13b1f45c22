"""tools/bench decoder [--json] [--quick] [--sizes S,M] [--threads 1,2] [--seconds 20] [--kernels NAME] [--no-peers]."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import logging
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.decoder_bench.contestant import Contestant, NotInstalled
from tools.decoder_bench.ours import BEAMS, KINDS, Beams, Ours, call_overhead_s, generated_tokens_per_s
from tools.decoder_bench.roofline import Reading, load
from tools.decoder_bench.sampling import Measured, measure
from tools.decoder_bench.sizes import SIZES, Model, bytes_per_token, random_model, weights_per_token

PEERS = ("onnxruntime_peer", "ctranslate2_peer", "llama_peer", "torch_peer")


def main(arguments: list[str]) -> int:
    """Print the figures, as text or JSON. A peer that is not installed is named, and what it would have been is not."""
    options = _options(arguments)
    library = load()
    products_per_s = library.roofline_int8_products_per_s()
    result: dict[str, Any] = {"machine": _machine(), "int8_products_per_s": products_per_s, "runs": []}
    missing: set[str] = set()
    for size in options.sizes:
        model = random_model(SIZES[size])
        for threads in options.threads:
            limits: list[Contestant] = [
                Reading(library, f"read {precision}", bytes_per_token(model.size, precision), threads)
                for precision in KINDS
            ]
            ours = {precision: Ours(model, precision, threads, options.kernels) for precision in KINDS}
            peers = [] if options.no_peers else list(_peers(model, threads, missing))
            measured = _run([*limits, *ours.values()], peers, threads, options.seconds)
            result["runs"].append(_run_result(model, threads, ours, measured, products_per_s))
            for precision, decoder in ours.items():
                result["runs"][-1]["ours"][KINDS[precision]]["beams"] = _beams(decoder, options.seconds / 4)
            if not options.json:
                _print_run(result["runs"][-1])
    result["not_installed"] = sorted(missing)
    result["machine"]["load_after"] = os.getloadavg()
    if options.json:
        print(json.dumps(result, indent=1))
    elif missing:
        print(f"not installed, not measured: {'; '.join(sorted(missing))}")
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench decoder", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="two seconds per run: to see that it works")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=["S", "M"])
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="per size and thread count")
    parser.add_argument("--kernels", help="a set of ours by name; else the best")
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args(arguments)
    if unknown := set(options.sizes) - SIZES.keys():
        parser.error(f"expected sizes of {', '.join(SIZES)}, got {', '.join(sorted(unknown))}")
    options.seconds = 2.0 if options.quick else options.seconds
    return options


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg(),
        "python": platform.python_version(),
    }


def _peers(model: Model, threads: int, missing: set[str]) -> Iterator[Contestant]:
    for name in PEERS:
        try:
            yield from importlib.import_module(f"tools.decoder_bench.peers.{name}").contestants(model, threads)
        except NotInstalled as error:
            missing.add(str(error))


def _run(ours: list[Contestant], peers: list[Contestant], threads: int, seconds: float) -> dict[str, Any]:
    """One thread: all in turns. More: ours against one peer at a time, so that no third one's threads are about."""
    groups = [peers] if threads == 1 or not peers else [[peer] for peer in peers]
    best: dict[str, tuple[Contestant, Measured]] = {}
    for group in groups:
        contestants = [*ours, *group]
        for contestant, measured in zip(contestants, measure(contestants, seconds / len(groups)), strict=True):
            before = best.get(contestant.name)
            if before is None or measured.samples > before[1].samples:
                best[contestant.name] = (contestant, measured)
    return best


def _beams(ours: Ours, seconds: float) -> dict[int, float]:
    """Beams of one image -> what a token of all of them costs, in tokens of one; in turns of their own."""
    contestants: list[Contestant] = [ours, *(Beams(ours, count) for count in BEAMS)]
    one, *several = measure(contestants, seconds)
    return {count: round(beams.median_s / one.median_s, 2) for count, beams in zip(BEAMS, several, strict=True)}


def _run_result(
    model: Model, threads: int, ours: dict[str, Ours], measured: dict[str, Any], products_per_s: float
) -> dict[str, Any]:
    rows = [
        {
            "name": name,
            "kind": contestant.kind,
            "tokens_per_s": round(1.0 / result.median_s, 1),
            "fast_decile_tokens_per_s": round(1.0 / result.fast_s, 1),
            **dataclasses.asdict(result),
        }
        for name, (contestant, result) in measured.items()
        if contestant.kind != "limit"
    ]
    run: dict[str, Any] = {"size": model.size.name, "threads": threads, "contestants": rows, "ours": {}}
    for precision, decoder in ours.items():
        kind = KINDS[precision]
        own = measured[decoder.name][1].median_s
        peers = [row for row in rows if row["kind"] == kind and row["name"] != decoder.name]
        rival = max(peers, key=lambda row: row["tokens_per_s"], default=None)
        working_set = bytes_per_token(model.size, precision)
        read_s = measured[f"read {precision}"][1].median_s
        limit_s = max(read_s, weights_per_token(model.size.shape) / (products_per_s * threads))
        run["ours"][kind] = {
            "tokens_per_s": round(1.0 / own, 1),
            "best_peer": rival and rival["name"],
            "ratio": rival and round(1.0 / own / rival["tokens_per_s"], 2),
            "bytes_per_token": working_set,
            "limit_gb_per_s": round(working_set / read_s / 1e9, 1),
            "limit_tokens_per_s": round(1.0 / limit_s, 1),
            "limit_fraction": round(limit_s / own, 3),
            "call_overhead_fraction": round(call_overhead_s(decoder) / own, 4),
            "generate_tokens_per_s": round(generated_tokens_per_s(decoder, model), 1),
        }
    return run


def _print_run(run: dict[str, Any]) -> None:
    print(f"{run['size']}, {run['threads']} thread{'s' if run['threads'] > 1 else ''}: tokens/s, median (fast decile)")
    for row in sorted(run["contestants"], key=lambda row: -row["tokens_per_s"]):
        counted = f"{row['samples']} samples, {row['discarded']} discarded"
        print(f"  {row['name']:44s} {row['tokens_per_s']:9.0f} ({row['fast_decile_tokens_per_s']:.0f})  {counted}")
    for kind, own in run["ours"].items():
        against = f"{own['ratio']} x {own['best_peer']}" if own["best_peer"] else "no peer"
        print(
            f"  {kind}: {against}; {own['limit_fraction']:.0%} of the limit of {own['limit_tokens_per_s']:.0f} "
            f"tokens/s ({own['bytes_per_token'] / 1e6:.1f} MB at {own['limit_gb_per_s']} GB/s); call overhead "
            f"{own['call_overhead_fraction']:.1%}; one call per report {own['generate_tokens_per_s']:.0f} tokens/s; "
            f"beams cost {', '.join(f'{cost} x for {count}' for count, cost in own['beams'].items())}"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    logging.disable(logging.INFO)  # peers report every step of a conversion
    sys.exit(main(sys.argv[1:]))
