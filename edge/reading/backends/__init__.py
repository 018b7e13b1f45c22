"""Backends: tensor in, tensors out. One file each, found by the name in the board file, imported lazily.

A backend is used only after it passed the bundle's golden case, first in a child process (a runtime that aborts on
load must not take the worker with it), then in this one. The board lists backends in order of preference; every one
that is passed over is reported with its reason.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends.golden import check_golden
from edge.reading.radiograph import F32

KNOWN = ("tflite", "onnxruntime", "null")
# In the order of the exported files; a name is never moved.
OUTPUTS = ("tokens", "findings", "population", "chest", "masks", "embedding", "maps")
PROBE_TIMEOUT_S = 120.0


class Encoder(Protocol):
    """What a backend file's `load(bundle, threads)` returns."""

    name: str
    emission: str  # the file of the bundle it runs: tflite or onnx

    def run(self, x: F32) -> dict[str, F32]:
        """x: (1, 1, H, W) float32 in [-1, 1] -> every name of OUTPUTS as float32, batch axis kept.

        tokens (1, N, C); findings (1, F) logits; population (1, 1) logit; chest (1, 1) logit;
        masks (1, 3, G, G) probabilities; embedding (1, C); maps (1, F, G, G), what each cell adds to a logit.
        Raises BackendError when the runtime fails.
        """
        ...


@dataclass(frozen=True)
class Opened:
    """The first backend that passed, and why those before it did not."""

    encoder: Encoder
    passed_over: tuple[tuple[str, BackendError], ...]


def load_backend(name: str, bundle: Bundle, threads: int) -> Encoder:
    """Import backend `name` and load the bundle's encoder. Raises BackendError (backend.unknown, .absent, .load)."""
    if name not in KNOWN:
        raise BackendError(f"Expected a backend out of {', '.join(KNOWN)}, got {name!r}.", code="backend.unknown")
    module = importlib.import_module(f"edge.reading.backends.{name}")
    encoder: Encoder = module.load(bundle, threads)
    return encoder


def open_encoder(bundle: Bundle, names: Sequence[str], threads: int, *, probe: bool = True) -> Opened:
    """Open the first of `names` that passes the golden case. Raises BackendError (backend.none) when none does."""
    passed_over: list[tuple[str, BackendError]] = []
    for name in names:
        try:
            if probe:
                probe_in_child(name, bundle, threads)
            encoder = load_backend(name, bundle, threads)
            check_golden(encoder.run, encoder.emission, bundle)
        except BackendError as error:
            passed_over.append((name, error))
            continue
        return Opened(encoder, tuple(passed_over))
    reasons = "; ".join(f"{name}: {error.message}" for name, error in passed_over)
    raise BackendError(f"No backend can run the model. {reasons}", code="backend.none")


def probe_in_child(name: str, bundle: Bundle, threads: int, timeout_s: float = PROBE_TIMEOUT_S) -> None:
    """Load and run the golden case in a child. Raises BackendError if the child fails, dies or hangs."""
    command = [sys.executable, "-m", "edge.reading.backends.probe", name, str(bundle.path), str(threads), bundle.sha256]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise BackendError(
            f"Backend {name} did not finish loading in {timeout_s:.0f} s.", code="backend.hung"
        ) from error
    if done.returncode < 0:
        raise BackendError(f"Backend {name} died while loading (signal {-done.returncode}).", code="backend.crashed")
    if done.returncode:
        code, _, message = (done.stdout.strip().splitlines() or ["backend.failed "])[-1].partition(" ")
        raise BackendError(message or f"Backend {name} failed to load.", code=code)
