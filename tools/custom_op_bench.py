"""Our operators inside a TFLite graph: the delegate's kernels against the operators inside on XNNPACK, same machine.

    python -m tools.custom_op_bench [--threads N] [--rounds N] [--json]

Per shape three loaded graphs take turns, round by round: `delegate` (the composite, computed by the kernels), `inside`
(the same file without the delegate) and `plain` (the same operators, no composite around them). Medians of all rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as runtime

from edge.reading.backends.custom_ops import custom_ops_library, nodes_computed
from edge.reading.ops.native import NativeKernels

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "composites"
SHAPES = ("cross_t1_s256_d128_h4_bias", "cross_t1_s196_d256_h8_bias", "scan_h16_w16_c128_n16")
DECAYS = 2
"""Which input of a scan is A: negative, as in a trained one."""
WARM_UP_ROUNDS = 3


def load(path: Path, threads: int, delegate: Any) -> Any:
    """A graph with random inputs set."""
    delegates = None if delegate is None else [delegate]
    graph = runtime.Interpreter(model_path=str(path), num_threads=threads, experimental_delegates=delegates)
    graph.allocate_tensors()
    generator = np.random.default_rng(0)
    for number, details in enumerate(sorted(graph.get_input_details(), key=lambda d: d["name"])):
        values = generator.standard_normal(details["shape"]).astype(np.float32) * np.float32(0.3)
        if path.name.startswith("scan") and number <= DECAYS:
            values = np.abs(values) * np.float32(-1.0 if number == DECAYS else 1.0)
        graph.set_tensor(details["index"], values)
    return graph


def measure(name: str, threads: int, rounds: int, delegate: Any) -> dict[str, float]:
    """Median milliseconds of one invoke per contestant; stops if the delegate did not compute or results differ."""
    path, plain = FOLDER / f"{name}.tflite", FOLDER / f"{name}_plain.tflite"
    graphs = {
        "delegate": load(path, threads, delegate),
        "inside": load(path, threads, None),
        "plain": load(plain, threads, None),
    }
    taken_ms: dict[str, list[float]] = {contestant: [] for contestant in graphs}
    computed = nodes_computed()
    for number in range(WARM_UP_ROUNDS + rounds):
        for contestant, graph in graphs.items():
            began_s = time.perf_counter()
            graph.invoke()
            if number >= WARM_UP_ROUNDS:
                taken_ms[contestant].append(1e3 * (time.perf_counter() - began_s))
    if nodes_computed() - computed != WARM_UP_ROUNDS + rounds:
        raise SystemExit(f"custom_op_bench: the delegate did not compute {name}")
    outputs = [graph.get_tensor(graph.get_output_details()[0]["index"]) for graph in graphs.values()]
    greatest = float(np.abs(outputs[1]).max())
    if max(float(np.abs(output - outputs[1]).max()) for output in outputs) > 1e-5 * greatest:
        raise SystemExit(f"custom_op_bench: the three graphs of {name} differ")
    return {contestant: statistics.median(values) for contestant, values in taken_ms.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("custom_op_bench", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of the runtime; the delegate's kernels use one")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    loaded = custom_ops_library(runtime)
    if loaded.delegate is None:
        raise SystemExit(f"custom_op_bench: {loaded.reason}")
    load_before = os.getloadavg()[0]
    rows = {name: measure(name, options.threads, options.rounds, loaded.delegate) for name in SHAPES}
    result = {
        "runtime": f"ai-edge-litert {version('ai-edge-litert')}",
        "kernels": NativeKernels().name,
        "threads": options.threads,
        "rounds": options.rounds,
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "median_ms": rows,
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for name, medians in rows.items():
        times = ", ".join(f"{contestant} {value:.4f} ms" for contestant, value in medians.items())
        print(f"{name}: {times}; inside / delegate {medians['inside'] / medians['delegate']:.2f}")
    shown = ("runtime", "kernels", "threads", "rounds", "load_before", "load_after")
    print(", ".join(f"{key} {result[key]}" for key in shown))


if __name__ == "__main__":
    main()
