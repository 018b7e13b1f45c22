"""Backends: tensor in, tensors out. One file each, found by the name in the board file, imported lazily.

A backend is used only after it passed the bundle's golden case, first in a child process (a runtime that aborts on
load must not take the worker with it), then in this one. The board lists backends in order of preference; every one
that is passed over is reported with its reason.
"""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends.golden import check_golden
from edge.reading.backends.setup import Setup
from edge.reading.radiograph import F32

MODULES: Final[Mapping[str, str]] = {
    "tflite": "tflite",
    "onnxruntime": "onnxruntime",
    "null": "null",
    "simulated-npu": "simulated",
    "tensorrt": "tensorrt",
    "edgetpu": "delegates",
    "vx": "delegates",
    "ethosu": "delegates",
    "teflon": "delegates",
    "qnn": "delegates",
    "armnn": "delegates",
    "hailo": "hailo",
    "rknn": "rknn",
}
"""Name in the board file -> module of this folder."""
KNOWN = tuple(MODULES)
# In the order of the exported files; a name is never moved.
OUTPUTS = ("tokens", "findings", "population", "chest", "masks", "embedding", "maps")
PROBE_TIMEOUT_S = 120.0


class Encoder(Protocol):
    """What a backend file's `load(bundle, setup)` returns."""

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


def load_backend(name: str, bundle: Bundle, setup: Setup) -> Encoder:
    """Import backend `name` and load the bundle's encoder. Raises BackendError (backend.unknown, .absent, .load)."""
    if name not in KNOWN:
        raise BackendError(f"Expected a backend out of {', '.join(KNOWN)}, got {name!r}.", code="backend.unknown")
    module = importlib.import_module(f"edge.reading.backends.{MODULES[name]}")
    encoder: Encoder = module.load(bundle, dataclasses.replace(setup, backend=name))
    return encoder


def _nobody(_name: str, _error: BackendError | None) -> None:
    """Default for `on_backend`: nobody is told."""


def open_encoder(
    bundle: Bundle,
    names: Sequence[str],
    setup: Setup,
    *,
    probe: bool = True,
    probe_timeout_s: float = PROBE_TIMEOUT_S,
    on_backend: Callable[[str, BackendError | None], None] = _nobody,
) -> Opened:
    """Open the first of `names` that passes the golden case. Raises BackendError (backend.none) when none does.

    on_backend: told (name, None) before a backend is tried, and (name, why) when it was passed over.
    """
    passed_over: list[tuple[str, BackendError]] = []
    for name in names:
        on_backend(name, None)
        try:
            if probe:
                probe_in_child(name, bundle, setup, probe_timeout_s)
            encoder = load_backend(name, bundle, setup)
            check_golden(encoder.run, encoder.emission, bundle)
        except BackendError as error:
            # A kept error keeps its frames, and in them an encoder whose device one process alone may hold.
            traceback.clear_frames(error.__traceback__)
            passed_over.append((name, error))
            on_backend(name, error)
            continue
        return Opened(encoder, tuple(passed_over))
    reasons = "; ".join(f"{name}: {error.message}" for name, error in passed_over)
    raise BackendError(f"No backend can run the model. {reasons}", code="backend.none")


def probe_in_child(name: str, bundle: Bundle, setup: Setup, timeout_s: float = PROBE_TIMEOUT_S) -> None:
    """Load and run the golden case in a child. Raises BackendError if the child fails, dies or hangs."""
    command = _probe_command(name, bundle, setup)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise _hung(name, timeout_s) from error
    _check_child(name, done.returncode, done.stdout)


class Probe:
    """`probe_in_child` without waiting for it: a child that is looked at now and then while studies are read."""

    def __init__(self, name: str, bundle: Bundle, setup: Setup, timeout_s: float) -> None:
        self.name = name
        self._timeout_s = timeout_s
        self._end_s = time.monotonic() + timeout_s
        self._child = subprocess.Popen(
            _probe_command(name, bundle, setup),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def passed(self) -> bool:
        """True once it passed, False while it runs. Raises BackendError if the child failed, died or hung."""
        if self._child.poll() is None:
            if time.monotonic() < self._end_s:
                return False
            self.kill()
            raise _hung(self.name, self._timeout_s)
        said, _ = self._child.communicate()
        _check_child(self.name, self._child.returncode, said)
        return True

    def kill(self) -> None:
        """End the child; harmless a second time."""
        self._child.kill()
        self._child.communicate()


def _probe_command(name: str, bundle: Bundle, setup: Setup) -> list[str]:
    program = [sys.executable, "-m", "edge.reading.backends.probe"]
    return [*program, name, str(bundle.path), bundle.sha256, setup.to_json()]


def _hung(name: str, timeout_s: float) -> BackendError:
    return BackendError(f"Backend {name} did not finish loading in {timeout_s:.0f} s.", code="backend.hung")


def _check_child(name: str, returncode: int, said: str) -> None:
    """Raise BackendError unless the child ended well."""
    if returncode < 0:
        raise BackendError(f"Backend {name} died while loading (signal {-returncode}).", code="backend.crashed")
    if returncode:
        code, _, message = (said.strip().splitlines() or ["backend.failed "])[-1].partition(" ")
        raise BackendError(message or f"Backend {name} failed to load.", code=code)
