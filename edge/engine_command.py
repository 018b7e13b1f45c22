"""`radbox engine build|status|clear`: the TensorRT engine of this box, built with progress, shown, removed.

The engine is that of the model at work. `build` is for a person who does not want to wait for the box, which builds by
itself at the lowest priority; Ctrl-C cancels. Run it as the user of the worker: what it keeps must be the worker's.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

from edge.board import Board
from edge.bundle import Bundle
from edge.errors import StorageError
from edge.reading.backends.setup import Setup, board_setup
from edge.reading.backends.tensorrt_cache import Cache, Choice, Trial, storage_refusal
from edge.reading.backends.tensorrt_engine import box_facts_of, make
from edge.reading.backends.tensorrt_key import choice_key, plan_specs
from edge.slots import Slots

Action = Literal["build", "status", "clear"]
WIDTH: Final = 78  # of a line of progress


def main(board: Board, action: Action, as_json: bool) -> int:
    """0 when there is an engine (build, status) or it was removed; 1 when there is none. Raises RadboxError."""
    setup = dataclasses.replace(board_setup(board), backend="tensorrt")
    if action == "clear":
        return _clear(Cache(Path(setup.cache)), as_json)
    _slot, bundle, _passed_over = Slots(board.data_dir, board.worker.bundle).open_best()
    if action == "build":
        progress = Progress(sys.stderr.isatty())
        try:
            choice: Choice | None = make(bundle, setup, progress.told, again=True)
        finally:
            progress.end()
    else:
        choice = kept_choice(bundle, setup)
    _show(choice, as_json)
    return 0 if choice is not None and choice.kept else 1


def kept_choice(bundle: Bundle, setup: Setup) -> Choice | None:
    """What was decided for this bundle, board and box. Raises BackendError where TensorRT or the GPU is missing."""
    cache = Cache(Path(setup.cache))
    choice = cache.choice(choice_key(bundle, setup, plan_specs(bundle, setup, box_facts_of(bundle, setup))))
    trial = choice.trial() if choice is not None else None
    gone = trial is not None and cache.plan(trial) is None
    return None if gone else choice


def told_of(choice: Choice) -> list[str]:
    """The decision in words: the box, which plan and why, and each plan's figures, as measured when it was built."""
    facts = choice.facts
    system = f", L4T {facts.l4t}" if facts.l4t else ""
    box = f"TensorRT {facts.tensorrt}, compute capability {facts.capability} ({facts.gpu}){system}"
    return [box, f"kept: {choice.kept or 'none'}: {choice.why}", *(told_of_trial(trial) for trial in choice.trials)]


def told_of_trial(trial: Trial) -> str:
    """One plan: times and largest golden error, or what is wrong with it."""
    name = f"{trial.precision} ({trial.file})"
    if trial.code:
        return f"{name}: {trial.message} [{trial.code}]"
    worst = max(trial.errors, key=trial.errors.__getitem__)
    return (
        f"{name}: median {trial.p50_s * 1e3:.2f} ms, 95th percentile {trial.p95_s * 1e3:.2f} ms, "
        f"largest golden error {trial.errors[worst]:.4f} ({worst}), CUDA graph: {trial.graph}"
    )


def _show(choice: Choice | None, as_json: bool) -> None:
    if as_json:
        _print(json.dumps(asdict(choice) if choice else {"kept": ""}, indent=1))
        return
    for line in told_of(choice) if choice else ["not built: run 'radbox engine build', or leave it to the box"]:
        _print(line)


def _clear(cache: Cache, as_json: bool) -> int:
    try:
        freed = cache.clear()
    except StorageError as error:
        raise storage_refusal(error) from error
    _print(json.dumps({"freed_bytes": freed}) if as_json else f"removed {freed} bytes of engines")
    return 0


class Progress:
    """On a terminal one line that changes, elsewhere one line for each phase."""

    def __init__(self, on_terminal: bool) -> None:
        self._on_terminal = on_terminal
        self._last: Any = None

    def told(self, phase: str, done: int, of: int) -> None:
        """See `edge.reading.backends.tensorrt_children.Report`."""
        if self._on_terminal:
            line = f"{phase}: {done} of {of}"
            sys.stderr.write(f"\r{line:{WIDTH}.{WIDTH}}")
        elif phase != self._last:
            sys.stderr.write(f"{phase}\n")
        self._last = phase
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._on_terminal and self._last is not None:
            sys.stderr.write("\n")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
