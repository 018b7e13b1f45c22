"""The golden case: known inputs whose outputs a backend must reproduce within the bundle's tolerances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.radiograph import F32
from edge.reading.weights import read_tensors


def check_golden(run: Callable[[F32], dict[str, F32]], emission: str, bundle: Bundle) -> dict[str, float]:
    """Run every golden input; returns the largest error of each output, normalised by the output's spread.

    emission: which of the bundle's files the backend runs (tflite, onnx): each has its own expected outputs, taken from
    that very file when it was exported, so that only the runtime is judged here and not the rounding of the file.

    error = mean |got - expected| / std(expected over all golden cases). Raises BackendError (backend.golden) when an
    output is missing, has another shape, is not finite or is further off than the bundle's tolerance.
    """
    golden = read_tensors(bundle.file("golden.safetensors"))
    inputs = golden["input"].astype(np.float32) / 127.5 - 1.0
    worst: dict[str, float] = {}
    for case in range(bundle.manifest.golden.cases):
        outputs = run(inputs[case : case + 1])
        for name, tolerance in bundle.manifest.golden.tolerance.items():
            error = _error(name, outputs, golden.get(f"{emission}.{name}"), case)
            worst[name] = max(worst.get(name, 0.0), error)
            if error > tolerance:
                raise BackendError(
                    f"The model's output {name!r} is off by {error:.3f} on the golden case, "
                    f"expected at most {tolerance:.3f}.",
                    code="backend.golden",
                )
    return worst


def _error(name: str, outputs: dict[str, F32], expected: F32 | None, case: int) -> float:
    if expected is None:
        raise BackendError(
            f"The model has no golden case for this backend's file (output {name!r}).", code="backend.no-model"
        )
    if name not in outputs or outputs[name].shape[1:] != expected.shape[1:]:
        raise BackendError(f"The model gives no output {name!r} of the right shape.", code="backend.golden")
    got = outputs[name][0]
    if not np.isfinite(got).all():
        raise BackendError(f"The model's output {name!r} is not finite on the golden case.", code="backend.golden")
    spread = max(float(expected.std()), 1e-6)
    return float(np.abs(got - expected[case]).mean()) / spread
