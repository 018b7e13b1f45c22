"""Child process: load a delegate, see that it takes nodes, computes right and is faster than the CPU; say so.

    python -m edge.reading.backends.delegate_child BUNDLE_DIR MANIFEST_SHA256 SETUP LIMIT_S

Says one JSON object a line, {"phase": ...}, then {"verdict": ...} or {"code": ..., "message": ...}. Makers' libraries
print on standard output, so that is turned away first and the old one used for the lines alone.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from edge.bundle import Bundle, load_bundle
from edge.errors import BackendError, RadboxError
from edge.reading.backends import Encoder, delegates, tflite
from edge.reading.backends.delegate_trial import LOADING, RUNNING
from edge.reading.backends.delegate_verdict import Verdict
from edge.reading.backends.golden import check_golden
from edge.reading.backends.own_output import own_output
from edge.reading.backends.setup import Setup, setup_from_json
from edge.reading.radiograph import F32

WARM_UPS = 2
MOST_ROUNDS = 25
LEAST_ROUNDS = 4
MEASURING_SHARE = 0.3  # of the time limit, after which LEAST_ROUNDS are enough
LEAST_TIMES = 1.1  # the CPU's speed in the median: less is not worth a device that can fail
LEAST_WINS = 0.75  # of the rounds: on a busy box medians of equals differ too
OVERTIME_S = 5  # after which a child whose parent is gone ends by itself


class Trial:
    """Says what it does on the descriptor `out`."""

    def __init__(self, out: int, bundle: Bundle, setup: Setup, limit_s: float) -> None:
        self._out = out
        self._bundle = bundle
        self._setup = setup
        self._limit_s = limit_s

    def run(self) -> Verdict:
        """The whole trial. Raises BackendError for what is neither "takes nothing" nor "not faster".

        Backend tflite is only loaded: what it says is what XNNPACK takes.
        """
        say(self._out, {"phase": LOADING})
        if self._setup.backend not in delegates.DELEGATES:
            alone = tflite.load(self._bundle, self._setup).nodes
            return Verdict("", "", alone.nodes, alone.of, 0.0, 0.0)
        try:
            encoder, nodes = delegates.open_delegate(self._bundle, self._setup)
        except BackendError as error:
            if error.code != "delegate.takes-nothing":
                raise
            return Verdict(error.code, error.message, 0, 0, 0.0, 0.0)
        say(self._out, {"phase": RUNNING})
        self._check(encoder)
        rounds = self._measure(encoder, tflite.load(self._bundle, self._setup))
        delegate_ms, cpu_ms = (statistics.median(times) for times in zip(*rounds, strict=True))
        if is_faster(rounds):
            return Verdict("", "", nodes.nodes, nodes.of, delegate_ms, cpu_ms)
        pace = f"{delegate_ms:.1f} ms for an image, on the CPU {cpu_ms:.1f} ms"
        message = f"It takes {nodes.nodes} of {nodes.of} nodes but is not clearly faster: {pace}."
        return Verdict("delegate.not-faster", message, nodes.nodes, nodes.of, delegate_ms, cpu_ms)

    def _check(self, encoder: Encoder) -> None:
        """Raises BackendError: delegate.run-failed, delegate.wrong-numbers."""
        codes = {"backend.run": "delegate.run-failed", "backend.golden": "delegate.wrong-numbers"}
        try:
            check_golden(encoder.run, encoder.emission, self._bundle)
        except BackendError as error:
            raise BackendError(error.message, code=codes.get(error.code, error.code)) from error

    def _measure(self, delegate: Encoder, cpu: Encoder) -> list[tuple[float, float]]:
        """Milliseconds of one image with both, in turn, so that what else the box does meets both alike."""
        size = self._bundle.manifest.input_size
        x: F32 = np.linspace(-1.0, 1.0, size * size, dtype=np.float32).reshape(1, 1, size, size)
        for _ in range(WARM_UPS):
            delegate.run(x)
            cpu.run(x)
        end_s = time.monotonic() + MEASURING_SHARE * self._limit_s
        rounds: list[tuple[float, float]] = []
        while len(rounds) < LEAST_ROUNDS or (len(rounds) < MOST_ROUNDS and time.monotonic() < end_s):
            rounds.append((_run_ms(delegate, x), _run_ms(cpu, x)))
        return rounds


def is_faster(rounds: Sequence[tuple[float, float]]) -> bool:
    """True if the first of each pair of times is clearly the shorter one: in the median, and in most pairs."""
    ours, others = (statistics.median(times) for times in zip(*rounds, strict=True))
    wins = sum(our < other for our, other in rounds)
    return others >= LEAST_TIMES * ours and wins >= LEAST_WINS * len(rounds)


def _run_ms(encoder: Encoder, x: F32) -> float:
    start_s = time.perf_counter()
    encoder.run(x)
    return 1e3 * (time.perf_counter() - start_s)


def say(out: int, said: object) -> None:
    """One line on the descriptor `out`."""
    os.write(out, json.dumps(said).encode() + b"\n")


def main(bundle_path: str, manifest_sha256: str, setup: str, limit_s: str) -> int:
    """See the module docstring."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = own_output()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whose action ends even a library that hangs
    signal.alarm(math.ceil(float(limit_s)) + OVERTIME_S)
    try:
        bundle = load_bundle(Path(bundle_path), trusted_manifest_sha256=manifest_sha256)
        verdict = Trial(out, bundle, setup_from_json(setup), float(limit_s)).run()
    except RadboxError as error:
        say(out, {"code": error.code, "message": error.message})
        return 1
    say(out, {"verdict": asdict(verdict)})
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
