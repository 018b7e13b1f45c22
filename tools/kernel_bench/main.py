"""tools/bench kernels [--json] [--quick] [--sizes S,M] [--seconds 1] [--kernels NAMES] [--operators NAMES].

One thread. Microseconds of one call from Python; GB/s and GMAC/s of what it reads and multiplies.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from edge.bench.versions import machine, software
from edge.reading.ops.native import NativeKernels
from tools.decoder_bench.roofline import Reading, load
from tools.decoder_bench.sampling import Measured, measure
from tools.decoder_bench.sizes import SIZES, random_model
from tools.kernel_bench.contestants import Repeated, ours, peers
from tools.kernel_bench.operators import Operator, operators
from tools.kernel_bench.steps import Step, Work, steps

LEAST_BYTES = 1 << 18  # below that a reading of the limit is mostly the way into the call
INTEGER = ("_q8", "_q4")


def main(arguments: list[str]) -> int:
    """Print the figures as text or JSON."""
    options = _options(arguments)
    library, torch = load(), _torch()
    products_per_s = library.roofline_int8_products_per_s()
    sets = _sets(options.kernels)
    result: dict[str, Any] = {
        "machine": asdict(machine()),
        "software": {**software(), **({"torch": torch.__version__} if torch else {})},
        "load_before": os.getloadavg()[0],
        "int8_products_per_s": products_per_s,
        "not_installed": [] if torch else ["torch"],
        "operators": [],
    }
    for size in options.sizes:
        for operator, taking_part in _work(size, sets, torch, options.operators):
            row = _measured(operator, size, taking_part, library, products_per_s, options.seconds)
            result["operators"].append(row)
            if not options.json:
                print(line(row), flush=True)
    result["load_after"] = os.getloadavg()[0]
    if options.json:
        print(json.dumps(result, indent=1))
    elif result["not_installed"]:
        print(f"not installed, not measured: {', '.join(result['not_installed'])}")
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench kernels", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="three turns of each: to see that it works")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=["S", "M"])
    parser.add_argument("--seconds", type=float, default=1.0, help="per operator and shape")
    parser.add_argument(
        "--kernels", type=lambda text: text.split(","), help="sets by name (default: all that run here)"
    )
    parser.add_argument("--operators", type=lambda text: text.split(","), help="by name (default: all)")
    options = parser.parse_args(arguments)
    if unknown := set(options.sizes) - SIZES.keys():
        parser.error(f"expected sizes of {', '.join(SIZES)}, got {', '.join(sorted(unknown))}")
    options.seconds = 0.0 if options.quick else options.seconds
    return options


def _torch() -> Any:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    torch.set_num_threads(1)
    return torch


def _sets(names: Sequence[str] | None) -> list[NativeKernels]:
    """Those named, else all that this CPU runs, best first."""
    runnable = NativeKernels("reference").runnable()
    return [NativeKernels(name) for name in (names or runnable)]


def _work(
    size: str, sets: list[NativeKernels], torch: Any, names: Sequence[str] | None
) -> Iterator[tuple[Operator | Work, Sequence[Repeated | Step]]]:
    """Steps of the decoder first, then the single operators; names: only these."""
    if not names or any(name.startswith("decoder_step") for name in names):
        yield from ((work, taking_part) for work, taking_part in steps(random_model(SIZES[size]), sets))
    for operator in operators(SIZES[size]):
        if not names or operator.name in names:
            yield operator, [*(ours(operator, kernels) for kernels in sets), *peers(operator, torch)]


def _measured(
    operator: Operator | Work,
    size: str,
    taking_part: Sequence[Repeated | Step],
    library: Any,
    products_per_s: float,
    seconds: float,
) -> dict[str, Any]:
    has_limit = operator.bytes >= LEAST_BYTES and not operator.packs
    reading = [Reading(library, "limit", operator.bytes, 1)] if has_limit else []
    found = measure([*taking_part, *reading], seconds)
    limit_s = _limit_s(operator, found[-1], products_per_s) if has_limit else None
    return {
        "operator": operator.name,
        "size": size,
        "shape": operator.shape,
        "bytes": operator.bytes,
        "products": operator.products,
        "packs_in_each_call": operator.packs,
        "limit_us": None if limit_s is None else round(1e6 * limit_s, 3),
        "contestants": [_row(operator, one, at, limit_s) for one, at in zip(taking_part, found, strict=False)],
    }


def _limit_s(operator: Operator | Work, limit: Measured, products_per_s: float) -> float | None:
    """The slower of reading its bytes and, in integers, of its products; None where every reading was preempted."""
    if not limit.samples:
        return None
    multiplied = operator.name.endswith(INTEGER) and products_per_s
    return max(limit.median_s, operator.products / products_per_s if multiplied else 0.0)


def _row(operator: Operator | Work, one: Repeated | Step, found: Measured, limit_s: float | None) -> dict[str, Any]:
    call_s = found.median_s / one.repeats
    counted = found.samples > 0
    return {
        "name": one.name,
        "us": round(1e6 * call_s, 3) if counted else None,
        "gb_per_s": round(operator.bytes / call_s / 1e9, 2) if counted else None,
        "gmac_per_s": round(operator.products / call_s / 1e9, 2) if counted and operator.products else None,
        "limit_fraction": round(limit_s / call_s, 3) if counted and limit_s else None,
        "samples": found.samples,
        "discarded": found.discarded,
    }


def line(row: dict[str, Any]) -> str:
    """One operator for a terminal: microseconds of a call."""
    note = " (packs its weights in each call)" if row["packs_in_each_call"] else ""
    limit = f", limit {row['limit_us']:.2f} us" if row["limit_us"] else ""
    lines = [f"{row['size']} {row['operator']} {row['shape']}{limit}{note}"]
    for one in row["contestants"]:
        if one["us"] is None:
            lines.append(f"  {one['name']:24s} every sample was preempted")
            continue
        share = f", {one['limit_fraction']:.0%} of the limit" if one["limit_fraction"] else ""
        rate = f"{one['gmac_per_s']:8.2f} GMAC/s" if one["gmac_per_s"] is not None else " " * 15
        lines.append(f"  {one['name']:24s} {one['us']:10.2f} us {one['gb_per_s']:8.2f} GB/s {rate}{share}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
