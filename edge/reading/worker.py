"""Service `worker`: claims a study, reads it, stores the draft. No network.

Without a model that passes its checks it says so on the page and waits: images keep coming in, and the queue is read
when a model works again. A model on trial is judged here (`edge.reading.probation`); a study that kills the worker goes
behind all others and is set aside after its attempts (`edge.store_readings`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from edge import durable
from edge.board import Board
from edge.errors import (
    BackendError,
    BundleError,
    DecodeError,
    RadboxError,
    ReportError,
    StorageError,
    StorageFullError,
)
from edge.reading.backends import PROBE_TIMEOUT_S
from edge.reading.deadline import Deadline
from edge.reading.decode_child import START_TIMEOUT_S, Decoder
from edge.reading.decode_study import decode_study
from edge.reading.display import DRAFT_MARK, NOT_READ_MARK, display_png
from edge.reading.load import Loaded, load_reader
from edge.reading.pipeline import Reader, Reading
from edge.reading.probation import Probation, spoken_name
from edge.reading.radiograph import Refusal, Study
from edge.reading.renderings import sweep_renderings
from edge.reading.stages import StageClock
from edge.report.schema import Report
from edge.report.serial import to_json
from edge.service import Stop, notify
from edge.store import ServiceState, Store, database_key, open_store
from edge.store_rows import ClaimedStudy

RETRY_MODEL_S = 30.0
SIGN_OF_LIFE_S = 10.0
STAGE_LIMIT_S = 60.0  # a stage that takes longer hangs; three times the model's own budget where that is more
LOAD_LIMIT_S = 60.0  # for the files of one model, beside its backends' own limits
NO_LIMIT = 2**31
_log = logging.getLogger("worker")


def run(board: Board, stop: Stop) -> None:
    """Serve until `stop`. Raises StoreError when the database cannot be opened."""
    with closing(open_store(board.data_dir, key=database_key())) as store, _decoder(board) as decoder:
        _Worker(board, store, decoder, stop).run()


def _decoder(board: Board) -> Decoder:
    return Decoder(timeout_s=board.worker.decode_timeout_s, memory_bytes=board.worker.decode_memory_bytes)


class _Worker:
    def __init__(self, board: Board, store: Store, decoder: Decoder, stop: Stop) -> None:
        self._board = board
        self._store = store
        self._decoder = decoder
        self._stop = stop
        self._probation = Probation(board, store)
        self._deadline = Deadline()
        self._said: tuple[ServiceState, str, str] = ("ok", "worker.starting", "Starting.")
        self._said_s = float("-inf")

    def run(self) -> None:
        """See `run`."""
        notify("READY=1")
        self._start()
        while not self._stop.is_set():
            reader = self._open_reader()
            if reader is None:
                self._stop.wait(RETRY_MODEL_S)
                continue
            self._serve(reader)

    def _start(self) -> None:
        """Settle what an earlier worker left; a full disk keeps it waiting, not dying."""
        while not self._stop.is_set():
            try:
                waiting = self._probation.start()
            except StorageError as error:
                _log.error("%s: the queue cannot be taken up yet", error.code)
                self._stop.wait(RETRY_MODEL_S)
                continue
            for study_key in waiting:
                _log.warning("study %d was being read when the worker stopped; it waits again", study_key)
            self._sweep()
            return

    def _sweep(self) -> None:
        try:
            swept = sweep_renderings(self._board.data_dir, self._store.rendered_folders())
        except StorageError as error:
            _log.error("%s: pictures without a report stay until the next start", error.code)
        else:
            if swept:
                _log.info("%d folders of pictures without a report deleted", swept)

    # --- the model ---

    def _open_reader(self) -> Reader | None:
        """The reader, or None with the reason on the page."""
        while True:
            self._probation.loading()
            try:
                loaded = load_reader(self._board, self._on_slot)
            except (BundleError, BackendError) as error:
                _log.error("AI paused: %s %s", error.code, error.message)
                self._say("paused", error.code, f"AI paused, images safe. {error.message}")
                return None
            finally:
                self._deadline.disarm()
            if self._probation.loaded(loaded) or self._stop.is_set():
                self._tell(loaded)
                return loaded.reader

    def _on_slot(self, _slot: str) -> None:
        notify("WATCHDOG=1")
        self._alive()
        self._deadline.arm(LOAD_LIMIT_S + 1.5 * PROBE_TIMEOUT_S * len(self._board.worker.backends))

    def _tell(self, loaded: Loaded) -> None:
        reader, model = loaded.reader, spoken_name(loaded.reader.bundle)
        if loaded.slots_passed_over:
            reason = loaded.slots_passed_over[0][1]
            self._say("degraded", "worker.earlier-model", f"Running on the earlier model {model}. {reason.message}")
        elif loaded.passed_over:
            missed, fault = loaded.passed_over[0]
            message = f"Running on {reader.encoder.name}, not on {missed}: {fault.message}"
            self._say("degraded", fault.code, message)
        else:
            self._say("ok", "worker.ready", f"Reading with {reader.encoder.name}, model {model}.")
        _log.info("reading with %s, model %s", reader.encoder.name, model)

    # --- signs of life ---

    def _say(self, state: ServiceState, code: str, message: str) -> None:
        self._said = (state, code, message)
        self._said_s = time.monotonic()
        try:
            self._store.set_service("worker", state, code, message)
        except StorageError as error:
            _log.error("%s: the worker's state could not be told", error.code)

    def _alive(self) -> None:
        """Say the same again, now and then: a page that hears nothing assumes the worst."""
        if time.monotonic() - self._said_s >= SIGN_OF_LIFE_S:
            self._say(*self._said)

    # --- studies ---

    def _serve(self, reader: Reader) -> None:
        """Read study after study; returns when stopped or when a model must be opened again."""
        with contextlib.suppress(DecodeError):  # it died while it started; the first file starts another
            self._decoder.start()
        while not self._stop.is_set():
            self._alive()
            if self._probation.outdated():
                return
            try:
                claimed = self._store.claim_next(self._probation.slot)
            except StorageError as error:
                _log.error("%s: no study can be claimed", error.code)
                self._stop.wait(RETRY_MODEL_S)
                continue
            if claimed is None:
                notify("WATCHDOG=1")
                self._stop.wait(self._board.worker.poll_s)
            elif not self._read(reader, claimed):
                return

    def _read(self, reader: Reader, claimed: ClaimedStudy) -> bool:
        """Read one study and settle it whatever happens; False when the model must be opened again."""
        try:
            self._read_claimed(reader, claimed)
        except RadboxError as error:
            _log.error("study %d: %s", claimed.study_key, error.code)
            self._deadline.disarm()
            return self._settle(claimed.study_key, error)
        finally:
            self._deadline.disarm()
        return True

    def _settle(self, study_key: int, error: RadboxError) -> bool:
        """Let a study that broke wait again or set it aside; False when the model must be opened again."""
        of_model = isinstance(error, BackendError | ReportError)
        spared = of_model and self._probation.on_trial
        retry = spared or isinstance(error, BackendError | StorageError)
        attempts = NO_LIMIT if spared else self._board.worker.max_attempts

        def settle() -> None:
            if isinstance(error, StorageFullError):
                self._store.give_back(study_key)
            else:
                self._store.fail(study_key, error.code, error.message, retry, attempts)

        self._insist(settle)
        if of_model:
            self._probation.failed()
        if isinstance(error, StorageError):
            self._stop.wait(RETRY_MODEL_S)
        return not isinstance(error, BackendError)

    def _insist(self, write: Callable[[], None]) -> None:
        """Write as soon as the disk takes it."""
        while True:
            try:
                return write()
            except StorageError as error:
                _log.error("%s: tried again in %.0f s", error.code, RETRY_MODEL_S)
                if self._stop.wait(RETRY_MODEL_S):
                    return None

    def _read_claimed(self, reader: Reader, claimed: ClaimedStudy) -> None:
        """Decode, read, render and store one study. Raises BackendError, StorageError, ReportError, StoreError."""
        clock = StageClock(self._moved)
        began_s = time.monotonic()

        def stage(name: str) -> None:
            self._deadline.arm(self._limit_s(name))
            clock.stage(name)

        stage("decode")  # a study without a file takes its time too
        paths = [self._board.data_dir / instance.path for instance in claimed.instances]
        study = decode_study(self._decoder, paths, lambda: stage("decode"))
        reading = reader.read(study, stage)
        stage("render")
        rendered = _render(self._board, claimed, study, reading)
        report_json = to_json(reading.outcome) if isinstance(reading.outcome, Report) else ""
        timings_s = {"receive": claimed.instances[-1].receive_s, **clock.stop()}
        if claimed.same_boot:
            timings_s["waiting"] = max(0.0, began_s - claimed.last_received_monotonic_s)
        timings_s["total"] = time.monotonic() - began_s
        key = claimed.study_key
        if isinstance(reading.outcome, Refusal):
            self._store.finish_refused(key, reading.outcome.code, reading.outcome.message, timings_s, rendered)
        else:
            self._store.finish_draft(key, report_json, rendered, timings_s)
        _log.info("study %d read in %.2f s", key, timings_s["total"])
        self._probation.read(timings_s, len(study.radiographs))

    def _moved(self) -> None:
        notify("WATCHDOG=1")
        self._alive()

    def _limit_s(self, stage: str) -> float:
        """How long a stage may take before the worker is ended; decoding has a limit of its own for each file."""
        if stage == "decode":
            return self._board.worker.decode_timeout_s + START_TIMEOUT_S + STAGE_LIMIT_S
        budget = self._probation.budget
        return max(STAGE_LIMIT_S, 3 * budget.p95_s if budget else 0.0)


def _render(board: Board, claimed: ClaimedStudy, study: Study, reading: Reading) -> str:
    """Write image.png; returns its folder relative to the data folder, "" when there is no image to show."""
    if not study.radiographs:
        return ""
    refused = isinstance(reading.outcome, Refusal)
    shown = study.radiographs[reading.reference or 0]
    folder = Path("rendered") / str(claimed.study_key) / str(claimed.attempt)
    durable.make_directory(board.data_dir / folder)
    durable.write_file(
        board.data_dir / folder / "image.png", display_png(shown, NOT_READ_MARK if refused else DRAFT_MARK)
    )
    return str(folder)
