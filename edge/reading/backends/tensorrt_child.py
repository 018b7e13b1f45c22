"""Child process: whatever touches TensorRT before a plan is known to be good.

    python -m edge.reading.backends.tensorrt_child BUNDLE_DIR MANIFEST_SHA256 SETUP facts
    ... build PRECISION     ONNX file -> plan and timing cache in the cache folder
    ... trial PRECISION     the plan loaded, golden cases compared, timed

What it says is in `tensorrt_children`.
"""

from __future__ import annotations

import hashlib
import sys
import time
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.bundle import Bundle, load_bundle
from edge.errors import BackendError, RadboxError
from edge.reading.backends.cuda_device import open_device
from edge.reading.backends.golden import check_golden
from edge.reading.backends.own_output import own_output
from edge.reading.backends.setup import Setup, setup_from_json
from edge.reading.backends.tensorrt_api import import_tensorrt
from edge.reading.backends.tensorrt_build import Timing, Wanted, build_plan
from edge.reading.backends.tensorrt_cache import Cache
from edge.reading.backends.tensorrt_children import Report, say, told_to_stop
from edge.reading.backends.tensorrt_key import (
    ACCURATE,
    Facts,
    PlanSpec,
    box_facts,
    builder_flags,
    plan_specs,
    timing_key,
)
from edge.reading.backends.tensorrt_run import LoadedPlan, TensorrtEncoder, wants_graph
from edge.reading.weights import read_tensors

WARM_RUNS: Final = 5
TIMED_RUNS: Final = 50


def main(bundle_path: str, manifest_sha256: str, setup_line: str, what: str, precision: str = "") -> int:
    """See the module docstring."""
    out = own_output()
    try:
        bundle = load_bundle(Path(bundle_path), trusted_manifest_sha256=manifest_sha256)
        say(out, answer=_answer(bundle, setup_from_json(setup_line), what, precision, out))
    except RadboxError as error:
        say(out, refused=[error.code, error.message])
        return 1
    return 0


def _answer(bundle: Bundle, setup: Setup, what: str, precision: str, out: int) -> dict[str, Any]:
    trt = import_tensorrt()
    device = open_device()  # first: without a driver TensorRT's own calls crash
    try:
        facts = box_facts(trt.__version__, device.facts)
        if what == "facts":
            return asdict(facts)
        spec = next(spec for spec in plan_specs(bundle, setup, facts) if spec.precision == precision)
        if what == "build":
            return _build(trt, bundle, setup, facts, spec, partial(_tell, out))
        plan = _built(Cache(Path(setup.cache)).plan_path(spec.key))
        loaded = LoadedPlan(trt, device, plan, graph=wants_graph(setup))
        with closing(TensorrtEncoder(loaded, spec.emission, device.close)) as encoder:
            return _trial(encoder, loaded.graph_message, bundle, spec)
    finally:
        device.close()


def _build(trt: Any, bundle: Bundle, setup: Setup, facts: Facts, spec: PlanSpec, report: Report) -> dict[str, Any]:
    cache, began_s = Cache(Path(setup.cache)), time.monotonic()
    timing = Timing(cache.timing(timing_key(facts)))
    path, flags = bundle.file(spec.file), builder_flags(setup)
    plan = build_plan(trt, path, wanted(bundle), flags, timing.use, report, told_to_stop)
    cache.keep_plan(spec.key, plan)
    if after := timing.bytes_after():
        cache.keep_timing(timing_key(facts), after)
    seconds = round(time.monotonic() - began_s, 3)
    return {"sha256": hashlib.sha256(plan).hexdigest(), "size_bytes": len(plan), "build_s": seconds}


def _built(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BackendError("The engine that was built is gone.", code="tensorrt.not-kept") from error


def _tell(out: int, phase: str, done: int, of: int) -> None:
    say(out, step=[phase, done, of])


def wanted(bundle: Bundle) -> Wanted:
    """The encoder's input and outputs by the bundle's manifest; see `edge.reading.backends.Encoder.run`."""
    manifest = bundle.manifest
    size, grid, channels, findings = manifest.input_size, manifest.grid, manifest.channels, len(bundle.findings)
    outputs = {
        "tokens": (1, grid * grid, channels),
        "findings": (1, findings),
        "population": (1, 1),
        "chest": (1, 1),
        "masks": (1, 3, grid, grid),
        "embedding": (1, channels),
        "maps": (1, findings, grid, grid),
    }
    return Wanted({"image": (1, 1, size, size)}, outputs)


def _trial(encoder: TensorrtEncoder, graph: str, bundle: Bundle, spec: PlanSpec) -> dict[str, Any]:
    """Golden cases, accuracy against float16 where the bundle has it, and seconds of one pass."""
    golden = read_tensors(bundle.file("golden.safetensors"))
    require_golden(golden, spec.emission, bundle)
    errors = check_golden(encoder.run, spec.emission, bundle)
    accuracy, accuracy_errors = "", {}
    if spec.precision != ACCURATE and f"{ACCURATE}.tokens" in golden:
        require_golden(golden, ACCURATE, bundle)
        try:
            accuracy_errors = check_golden(encoder.run, ACCURATE, bundle)
        except BackendError as error:
            if error.code != "backend.golden":
                raise
            accuracy = error.message
    image = golden["input"][:1].astype(np.float32) / 127.5 - 1.0
    for _ in range(WARM_RUNS):
        encoder.run(image)
    seconds = []
    for _ in range(TIMED_RUNS):
        began_s = time.perf_counter()
        encoder.run(image)
        seconds.append(time.perf_counter() - began_s)
    p50_s, p95_s = (float(np.percentile(seconds, q)) for q in (50, 95))
    told = {"p50_s": p50_s, "p95_s": p95_s, "graph": graph, "errors": errors}
    return {**told, "accuracy": accuracy, "accuracy_errors": accuracy_errors}


def require_golden(golden: dict[str, Any], emission: str, bundle: Bundle) -> None:
    """Raises BackendError (backend.load) unless the bundle knows what this file of its should say."""
    missing = [name for name in bundle.manifest.golden.tolerance if f"{emission}.{name}" not in golden]
    if missing:
        message = f"The model bundle has no expected outputs for its {emission} file: {', '.join(missing)}."
        raise BackendError(message, code="backend.load")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:6]))
