"""Does the new model run on this very box, and within what it promised? Asked in a child that may crash or hang.

The golden case (inside `open_encoder`) says whether the numbers are right; reading one computed thorax several times
with the whole pipeline says how long and how much memory a study takes here.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import edge
from edge.board import Board
from edge.bundle import Bundle, load_bundle
from edge.closed import ClosedError
from edge.closed import build as build_closed
from edge.errors import BackendError, RadboxError, UpdateError
from edge.reading.backends import open_encoder, probe_in_child
from edge.reading.backends.setup import board_setup, setup_from_json
from edge.reading.decoding import board_decoding, decoding_from_json
from edge.reading.pipeline import Reader
from edge.reading.radiograph import Radiograph, Refusal, Study
from edge.simulate.phantom import PhantomOptions, make_phantom
from edge.trust import Budget, Offer

CASES: Final = 20
FEWEST_CASES: Final = 3  # on a slow board, once READING_S is over
READING_S: Final = 120.0
START_S: Final = 300.0  # imports from a slow card, and a runtime that prepares the model
LARGEST_MEMORY_BYTES: Final = 4 << 30  # where the maker named no budget
SPARE_BYTES: Final = 2 << 30  # of address space beside the budget: runtimes reserve more than they use
WATCH_S: Final = 0.05
PR_SET_PDEATHSIG: Final = 1
_FAILED = "update.self-test"


@dataclass(frozen=True)
class SelfTest:
    """p95_s: 95th percentile of the seconds one study took; memory_bytes: peak resident memory; backend: at work."""

    p95_s: float
    memory_bytes: int
    cases: int
    backend: str


def budget_of(offer: Offer, board: str) -> Budget | None:
    """What the maker promises for this board, or for any; None if for neither."""
    return offer.budgets.get(board) or offer.budgets.get("*")


def build(bundle: Bundle, board: Board) -> tuple[str, ...]:
    """Open every backend of the board once, each in a child: backends make here what they need (a TensorRT engine).

    Returns the names that passed the golden case, in the board's order. Raises UpdateError: update.self-test.
    """
    passed, reasons = [], []
    for name in board.worker.backends:
        try:
            probe_in_child(name, bundle, board_setup(board))
            passed.append(name)
        except BackendError as error:
            reasons.append(f"{name}: {error.message}")
    if not passed:
        raise UpdateError(f"expected a backend that runs the model, got none. {' '.join(reasons)}", code=_FAILED)
    return tuple(passed)


def self_test(
    bundle: Bundle, board: Board, backends: Sequence[str], budget: Budget | None, *, timeout_s: float | None = None
) -> SelfTest:
    """Read the built-in picture in a child and hold the result against the budget.

    bundle: verified; backends: what `build` returned; timeout_s: for the whole child (default: what START_S, READING_S
    and the budget allow). Raises UpdateError: update.self-test, update.too-slow, update.too-much-memory.
    """
    limit_bytes = budget.memory_bytes if budget else LARGEST_MEMORY_BYTES
    if timeout_s is None:
        timeout_s = START_S + READING_S + 2 * FEWEST_CASES * (budget.p95_s if budget else 0.0)
    limits = _Limits(timeout_s, limit_bytes)
    command = [sys.executable, "-m", "edge.care.update.selftest", str(bundle.path), bundle.sha256]
    command += [board_setup(board).to_json(), board_decoding(board).to_json(), str(limit_bytes), *backends]
    answer = _run(command, limits)
    try:
        result = build_closed(SelfTest, json.loads(answer), "the self-test")
    except (ValueError, ClosedError) as error:
        raise UpdateError("expected a result of the self-test, got something else", code=_FAILED) from error
    _check_budget(result, budget)
    return result


def p95(values: Sequence[float]) -> float:
    """The 95th percentile by nearest rank: the smallest value that at least 95 % of all do not exceed."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


@dataclass(frozen=True)
class _Limits:
    timeout_s: float
    memory_bytes: int


def _run(command: list[str], limits: _Limits) -> str:
    """The child's last line. It is watched: one that grows too large is ended before it harms the box."""
    deadline_s = time.monotonic() + limits.timeout_s
    peak_bytes = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment()
    ) as child:
        try:
            while True:
                try:
                    output, _ = child.communicate(timeout=WATCH_S)
                    break
                except subprocess.TimeoutExpired:
                    peak_bytes = max(peak_bytes, _peak_bytes(child.pid))
                if peak_bytes > limits.memory_bytes:
                    raise _too_much_memory(peak_bytes, limits.memory_bytes)
                if time.monotonic() > deadline_s:
                    message = f"expected the model to pass its self-test in {limits.timeout_s:.0f} s, got no answer"
                    raise UpdateError(message, code=_FAILED)
        finally:
            child.kill()
    lines = output.strip().splitlines() or [""]
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise UpdateError(f"expected the model to read the built-in picture, got a crash ({name})", code=_FAILED)
    if child.returncode:
        raise UpdateError(f"expected the model to read the built-in picture, got: {lines[-1]}", code=_FAILED)
    return lines[-1]


def _check_budget(result: SelfTest, budget: Budget | None) -> None:
    if budget is None:
        return
    if result.memory_bytes > budget.memory_bytes:
        raise _too_much_memory(result.memory_bytes, budget.memory_bytes)
    if result.p95_s > budget.p95_s:
        message = f"expected a study to be read within {budget.p95_s:g} s, got {result.p95_s:.3f} s"
        raise UpdateError(message, code="update.too-slow")


def _too_much_memory(got_bytes: int, limit_bytes: int) -> UpdateError:
    message = f"expected the model to need at most {limit_bytes >> 20} MiB, got {got_bytes >> 20} MiB"
    return UpdateError(message, code="update.too-much-memory")


def _peak_bytes(pid: int) -> int:
    """Peak resident memory of a process, 0 once it is gone. Not ru_maxrss: that counts the parent before exec."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


def _environment() -> dict[str, str]:
    package_root = str(Path(edge.__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))}


# --- the child ---


def picture() -> Study:
    """The built-in picture: a computed adult chest, the same on every box."""
    phantom = make_phantom(PhantomOptions(seed=1, detail="fast"))
    return Study((Radiograph(phantom.pixels, modality="DX", view="PA", age_years=40.0),))


def _measure(folder: Path, manifest_sha256: str, setup: str, decoding: str, backends: Sequence[str]) -> SelfTest:
    bundle = load_bundle(folder, trusted_manifest_sha256=manifest_sha256)
    encoder = open_encoder(bundle, backends, setup_from_json(setup), probe=False).encoder
    reader = Reader(bundle, encoder, decoding_from_json(decoding))
    study = picture()
    reader.read(study)  # the first one warms caches up
    seconds: list[float] = []
    while len(seconds) < CASES and (len(seconds) < FEWEST_CASES or sum(seconds) < READING_S):
        began_s = time.monotonic()
        outcome = reader.read(study).outcome
        seconds.append(time.monotonic() - began_s)
        if isinstance(outcome, Refusal):
            raise UpdateError(f"the built-in picture was refused ({outcome.code})", code=_FAILED)
    return SelfTest(p95(seconds), _peak_bytes(os.getpid()), len(seconds), encoder.name)


def main(arguments: Sequence[str]) -> int:
    """The child: measure and print one line of JSON, or one sentence and 1."""
    folder, manifest_sha256, setup, decoding, limit_bytes, *backends = arguments
    ceiling = 2 * int(limit_bytes) + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # what a runtime prints is no answer
        try:
            result = _measure(Path(folder), manifest_sha256, setup, decoding, backends)
        except RadboxError as error:
            answer.write(f"{error.message}\n")
            return 1
        except MemoryError:
            answer.write("not enough memory\n")
            return 1
        answer.write(json.dumps(asdict(result)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
