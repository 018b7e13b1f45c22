"""What would a new model change here? The newest studies of this box are read by both models and the drafts compared.

    python -m edge.care.update.shadow

One child does the reading, so that a candidate which crashes or hangs takes nothing with it. It is handed one study at
a time, as a line of JSON on its standard input, and answers each with one word: "same", "changed" or "skipped". Nothing
is written to the store, and at most one study is in memory.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Final

import edge
from edge.board import Board
from edge.bundle import Bundle, load_bundle
from edge.closed import build
from edge.errors import BundleError, RadboxError, StorageError, UpdateError
from edge.reading.backends import open_encoder
from edge.reading.backends.setup import Setup, board_setup
from edge.reading.decode_child import START_TIMEOUT_S, Decoder
from edge.reading.decode_study import MOST_IMAGES, decode_study
from edge.reading.decoding import Decoding, board_decoding
from edge.reading.pipeline import Reader
from edge.reading.radiograph import Study
from edge.report.schema import Report
from edge.slots import Slots
from edge.store import Store

TOTAL_S: Final = 600.0  # after that, what was compared so far is the answer
STUDY_S: Final = 120.0  # for the two models to read one study, beside the time to decode it
LOAD_S: Final = 300.0  # for the two models to be opened
POLL_S: Final = 0.2
PAGE: Final = 50  # studies asked of the store at a time
READY, ALONE = "ready", "alone"  # alone: the model in use does not open, only the candidate
SAME, CHANGED, SKIPPED = "same", "changed", "skipped"
PR_SET_PDEATHSIG: Final = 1
_FAILED: Final = "update.self-test"


@dataclass(frozen=True)
class Model:
    """A verified bundle by its folder and the sha256 of its manifest."""

    folder: str
    manifest_sha256: str


@dataclass(frozen=True)
class Task:
    """First line to the child: both models, and how the worker of this board reads."""

    active: Model
    candidate: Model
    backends: tuple[str, ...]
    setup: Setup
    decoding: Decoding
    decode_timeout_s: float
    decode_memory_bytes: int


def compare(
    board: Board,
    store: Store,
    candidate: Bundle,
    limit: int,
    *,
    stopped: Callable[[], bool] = lambda: False,
    total_s: float = TOTAL_S,
) -> tuple[int, int]:
    """Read the newest `limit` studies that have a draft with the model in use and with `candidate`.

    Returns how many were compared and how many drafts would say something else: another set of stated findings with
    side, zone and certainty, or a refusal. Ends early, with what it has, after `total_s` or once `stopped()`.
    (0, 0) where no model in use works. Raises UpdateError (update.self-test) if the child crashes, hangs or cannot open
    the candidate.
    """
    studies = _studies(board, store, limit)
    first = next(studies, None)
    if first is None:
        return 0, 0
    try:
        _, active, _ = Slots(board.data_dir, board.worker.bundle).open_best()
    except BundleError:  # nothing reads here now, so there is nothing to change
        return 0, 0
    deadline_s = time.monotonic() + total_s
    compared = changed = 0
    with _child(_task(board, active, candidate)) as child:
        if _over(child, LOAD_S, deadline_s, stopped):
            return 0, 0
        if child.expect(READY, ALONE) == ALONE:
            return 0, 0
        for paths in chain([first], studies):
            child.say([str(path) for path in paths])
            allowed_s = STUDY_S + START_TIMEOUT_S + board.worker.decode_timeout_s * min(len(paths), MOST_IMAGES)
            if _over(child, allowed_s, deadline_s, stopped):
                break
            word = child.expect(SAME, CHANGED, SKIPPED)
            compared += word != SKIPPED
            changed += word == CHANGED
    return compared, changed


def _studies(board: Board, store: Store, limit: int) -> Iterator[list[Path]]:
    """The files of each study with a draft, newest first; the first of every SOP Instance UID, as the worker reads."""
    found = offset = 0
    while found < limit and (page := store.studies(limit=PAGE, offset=offset)):
        offset += len(page)
        for summary in page:
            detail = store.study(summary.study_key) if summary.report_json and found < limit else None
            if detail is None:
                continue
            first = {row.sop_instance_uid: row.path for row in reversed(detail.instances)}
            paths = [board.data_dir / path for path in dict.fromkeys(reversed(first.values()))]
            if paths and all(path.is_file() for path in paths):
                found += 1
                yield paths


def _task(board: Board, active: Bundle, candidate: Bundle) -> Task:
    worker = board.worker
    return Task(
        Model(str(active.path.absolute()), active.sha256),
        Model(str(candidate.path.absolute()), candidate.sha256),
        worker.backends,
        board_setup(board),
        board_decoding(board),
        worker.decode_timeout_s,
        worker.decode_memory_bytes,
    )


# --- the child, seen from outside ---


class _Child:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the child has pipes")
        self._process = process
        self._to: IO[bytes] = process.stdin
        self._from: IO[bytes] = process.stdout
        self._line = b""

    def say(self, what: object) -> None:
        """Send one line. A child that is gone is found out by `heard`."""
        try:
            self._to.write(json.dumps(what).encode() + b"\n")
            self._to.flush()
        except BrokenPipeError:
            return

    def heard(self, seconds: float) -> bool:
        """Wait at most `seconds`; True once a whole line, or the end, has come."""
        readable, _, _ = select.select([self._from], [], [], seconds)
        if readable:
            self._line = self._from.readline()
        return bool(readable)

    def expect(self, *words: str) -> str:
        """The word that was heard. Raises UpdateError for anything else."""
        word = self._line.decode(errors="replace").strip()
        if word in words:
            return word
        if word:
            raise UpdateError(f"expected the new model to read studies of this box, got: {word}", code=_FAILED)
        status = self._process.wait(1.0)
        how = f"a crash ({signal.Signals(-status).name})" if status < 0 else f"an end with status {status}"
        raise UpdateError(f"expected the new model to read studies of this box, got {how}", code=_FAILED)


@contextmanager
def _child(task: Task) -> Iterator[_Child]:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.care.update.shadow"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
        bufsize=0,
    )
    try:
        child = _Child(process)
        child.say(asdict(task))
        yield child
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def _over(child: _Child, allowed_s: float, deadline_s: float, stopped: Callable[[], bool]) -> bool:
    """Wait for the child's next word. True if there is no time for it. Raises UpdateError if it hangs."""
    hangs_s = time.monotonic() + allowed_s
    while not child.heard(POLL_S):
        now_s = time.monotonic()
        if now_s > deadline_s or stopped():
            return True
        if now_s > hangs_s:
            message = f"expected the new model to read a study of this box in {allowed_s:.0f} s, got no answer"
            raise UpdateError(message, code=_FAILED)
    return False


def _environment() -> dict[str, str]:
    package_root = str(Path(edge.__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))}


# --- the child itself ---


def said(reader: Reader, study: Study) -> frozenset[tuple[str, str, str, str]] | str:
    """What a reader says of a study: the stated findings with side, zone and certainty, or why it says nothing."""
    try:
        outcome = reader.read(study).outcome
    except RadboxError as error:
        return error.code
    if isinstance(outcome, Report):
        return frozenset((one.finding, one.side, one.zone, one.certainty) for one in outcome.statements)
    return outcome.code


def _open(model: Model, task: Task) -> Reader:
    bundle = load_bundle(Path(model.folder), trusted_manifest_sha256=model.manifest_sha256)
    return Reader(bundle, open_encoder(bundle, task.backends, task.setup, probe=False).encoder, task.decoding)


def _answer(active: Reader, candidate: Reader, decoder: Decoder, paths: list[Path]) -> str:
    try:
        study = decode_study(decoder, paths)
    except StorageError:  # removed by retention a moment ago
        return SKIPPED
    if not study.radiographs:
        return SKIPPED
    return SAME if said(active, study) == said(candidate, study) else CHANGED


def main() -> int:
    """See the module docstring. A candidate that does not open is answered with a sentence."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(10)
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what a runtime prints is no answer

        def say(word: str) -> None:
            answers.write(word + "\n")
            answers.flush()

        task = build(Task, json.loads(sys.stdin.readline()), "task")
        try:
            candidate = _open(task.candidate, task)
        except RadboxError as error:
            say(error.message)
            return 1
        try:
            active = _open(task.active, task)
        except RadboxError:
            say(ALONE)
            return 0
        say(READY)
        with Decoder(timeout_s=task.decode_timeout_s, memory_bytes=task.decode_memory_bytes) as decoder:
            for line in sys.stdin:
                say(_answer(active, candidate, decoder, [Path(path) for path in json.loads(line)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
