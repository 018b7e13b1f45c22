"""Service `worker`: claims a study, reads it, stores the draft. No network.

Without a model that passes its checks it says so on the page and waits: images keep coming in, and the queue is read
when a model works again. A model on trial is judged here (`edge.reading.probation`), a backend that fails too
(`edge.reading.accelerators`); a study that kills the worker goes behind all others and is set aside after its attempts
(`edge.store_readings`). What ended a worker is told by the next one (`edge.reading.notes`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import closing

from edge import durable
from edge.board import Board
from edge.errors import (
    BackendError,
    DecodeError,
    RadboxError,
    ReportError,
    StorageError,
    StorageFullError,
    StoreError,
)
from edge.reading.accelerators import Accelerators
from edge.reading.deadline import Deadline
from edge.reading.decode_child import Decoder
from edge.reading.escalation import RUNGS
from edge.reading.load import load_reader
from edge.reading.notes import Notes
from edge.reading.one_study import ON_BACKEND, OneStudy
from edge.reading.opener import Opener
from edge.reading.patience import Patience
from edge.reading.pipeline import Reader
from edge.reading.probation import Probation
from edge.reading.renderings import sweep_renderings
from edge.reading.voice import PAUSED, Voice
from edge.reading.wishes import Wishes
from edge.service import Stop, notify, start_afresh
from edge.store import Store, database_key, open_store
from edge.store_rows import ClaimedStudy

NO_LIMIT = 2**31
STEP_S = 1.0  # of a wait: as often systemd hears that it is a wait
BOX = Patience()
_log = logging.getLogger("worker")


def run(board: Board, stop: Stop, patience: Patience = BOX) -> None:
    """Serve until `stop`. Raises StoreError when the database cannot be opened."""
    if not board.data_dir.is_dir():
        durable.make_directory(board.data_dir)
    with Notes(board.data_dir) as notes:
        notify("READY=1")
        with closing(_store(board, stop, notes, patience)) as store, _decoder(board) as decoder:
            again = _Worker(board, store, decoder, stop, notes, patience).run()
    if again:
        _log.warning("the worker starts afresh: its backend failed twice")
        start_afresh()
    notify("STOPPING=1")


def _store(board: Board, stop: Stop, notes: Notes, patience: Patience) -> Store:
    """The store; where it does not open, this worker's end comes no sooner than another start would be in order."""
    try:
        return open_store(board.data_dir, key=database_key())
    except (StoreError, StorageError):
        _rest(stop, patience.start_pause_s(notes.deaths))
        raise


def _decoder(board: Board) -> Decoder:
    return Decoder(timeout_s=board.worker.decode_timeout_s, memory_bytes=board.worker.decode_memory_bytes)


def _rest(stop: Stop, seconds: float, each_step: Callable[[], bool] = lambda: False) -> None:
    """Wait on purpose, and say so to systemd; ends early when stopped or when `each_step` says so."""
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0 and not each_step():
        notify("WATCHDOG=1")
        if stop.wait(min(STEP_S, left_s)):
            return


class _Worker:
    def __init__(
        self, board: Board, store: Store, decoder: Decoder, stop: Stop, notes: Notes, patience: Patience
    ) -> None:
        self._board = board
        self._store = store
        self._decoder = decoder
        self._stop = stop
        self._notes = notes
        self._patience = patience
        self._voice = Voice(store, patience.sign_of_life_s)
        self._deadline = Deadline(notes.fileno())
        self._probation = Probation(board, store)
        self._accelerators = Accelerators(board, store, self._voice, patience)
        self._wishes = Wishes(store, patience.wishes_every_s, patience.heat_stale_s)
        self._one_study = OneStudy(board, store, decoder, self._deadline, notes, self._voice, self._probation, patience)
        self._opener = Opener(
            board, stop, self._deadline, notes, self._voice, self._probation, self._accelerators, patience
        )
        self._last_work_s = time.monotonic()
        self._look_s = float("-inf")  # for studies that arrive
        self._again = False

    def run(self) -> bool:
        """See `run`. True if this process is to be started afresh."""
        try:
            self._start()
            while not (self._stop.is_set() or self._again):
                reader = self._opener.open(load_reader)
                if reader is None:
                    _rest(self._stop, self._accelerators.wait_s() or self._patience.retry_model_s, self._look_up)
                else:
                    self._serve(reader)
            return self._again and not self._stop.is_set()
        finally:
            self._accelerators.close()
            self._deadline.close()

    # --- the start ---

    def _start(self) -> None:
        """Tell what ended the worker before, wait if it died at once, settle what it left."""
        death = self._notes.death
        on_trial = self._probation.trial
        if death:
            self._voice.count("worker_deaths")
            self._voice.event(death.code, death.message, death.study_key)
            if death.backend and death.how != "killed" and not on_trial:
                self._accelerators.died(death)  # a death from outside says nothing about the backend
        self._hold_start()
        while not self._stop.is_set():
            try:
                waiting = self._probation.start()
            except StorageError as error:
                _log.error("%s: the queue cannot be taken up yet", error.code)
                _rest(self._stop, self._patience.retry_model_s)
                continue
            for study_key in waiting:
                _log.warning("study %d was being read when the worker stopped; it waits again", study_key)
            self._sweep()
            return

    def _hold_start(self) -> None:
        """Never a storm of restarts: after deaths in a row the next model is opened later and later."""
        deaths, pause_s = self._notes.deaths, self._patience.start_pause_s(self._notes.deaths)
        if pause_s:
            times = "just after it started" if deaths == 1 else f"{deaths} times in a row"
            message = f"{PAUSED} The reader stopped {times}; it starts again in {pause_s:.0f} s."
            self._voice.say("paused", "worker.starts-slowly", message)
            _rest(self._stop, pause_s, self._still_waiting)

    def _still_waiting(self) -> bool:
        self._voice.alive()
        return False

    def _look_up(self) -> bool:
        """During a wait: say that it lasts; True when there is another model to open, or a person wants a try."""
        self._voice.alive()
        return self._probation.outdated() or self._wished()

    def _wished(self) -> bool:
        try:
            wished = self._wishes.try_now()
        except StorageError as error:
            _log.error("%s: what others want of the worker cannot be read", error.code)
            return False
        if wished:
            self._accelerators.try_now()
        return wished

    def _sweep(self) -> None:
        try:
            swept = sweep_renderings(self._board.data_dir, self._store.rendered_folders())
        except StorageError as error:
            _log.error("%s: pictures without a report stay until the next start", error.code)
        else:
            if swept:
                _log.info("%d folders of pictures without a report deleted", swept)

    # --- studies ---

    def _serve(self, reader: Reader) -> None:
        """Read study after study; returns when stopped or when a model must be opened again."""
        began_s = time.monotonic()
        while not self._stop.is_set():
            self._voice.alive()
            self._wished()
            if self._probation.outdated() or self._accelerators.look(reader.bundle):
                return
            if time.monotonic() - began_s > self._patience.steady_s:
                self._notes.settled()
            try:
                heat = self._wishes.heat()
                self._voice.hold_up(heat.said())
                claimed = None if heat.state == "pause" else self._store.claim_next(self._probation.slot)
            except StorageError as error:
                _log.error("%s: no study can be claimed", error.code)
                _rest(self._stop, self._patience.retry_model_s)
                continue
            if claimed is None:
                notify("WATCHDOG=1")
                self._tend_decoder()
                self._stop.wait(self._board.worker.poll_s)
            elif not self._read(reader, claimed):
                return
            elif heat.pause_s:
                _rest(self._stop, heat.pause_s, self._look_up)

    def _tend_decoder(self) -> None:
        """While nothing arrives the decoding child would only hold memory; it is back before a study is whole."""
        now_s = time.monotonic()
        if self._decoder.pid:
            if now_s - self._last_work_s > self._patience.decoder_idle_s:
                self._decoder.close()
        elif now_s >= self._look_s:
            self._look_s = now_s + self._patience.wishes_every_s
            with contextlib.suppress(DecodeError, StorageError):  # the first file starts another; the next claim tells
                if self._store.receiving_studies():
                    self._last_work_s = now_s
                    self._decoder.start()

    def _read(self, reader: Reader, claimed: ClaimedStudy) -> bool:
        """Read one study and settle it whatever happens; False when the model must be opened again."""
        try:
            timings_s = self._one_study.read(reader, claimed)
        except RadboxError as error:
            _log.error("study %d: %s", claimed.study_key, error.code)
            self._at_rest()
            return self._settle(reader, claimed.study_key, error)
        self._at_rest()
        _log.info("study %d read in %.2f s", claimed.study_key, timings_s["total"])
        self._notes.settled()
        self._opener.look(reader)
        if ON_BACKEND in timings_s:
            self._accelerators.read_well(reader.encoder.name)
        return True

    def _at_rest(self) -> None:
        self._deadline.disarm()
        self._notes.idle()
        self._last_work_s = time.monotonic()

    def _settle(self, reader: Reader, study_key: int, error: RadboxError) -> bool:
        """Let a study that broke wait again or set it aside; False when the model must be opened again."""
        of_model = isinstance(error, BackendError | ReportError)
        spared = of_model and self._probation.on_trial
        retry = spared or isinstance(error, BackendError | StorageError)
        attempts = NO_LIMIT if spared else self._board.worker.max_attempts
        if isinstance(error, BackendError) and not spared:
            attempts = max(attempts, RUNGS + 1)  # one for the next backend
            step = self._accelerators.failed(reader.encoder.name, error)
            self._again = step == "restart" and self._deadline.own

        def settle() -> None:
            if isinstance(error, StorageFullError):
                self._store.give_back(study_key)
            else:
                self._store.fail(study_key, error.code, error.message, retry, attempts)

        self._insist(settle)
        if of_model:
            self._probation.failed()
        if isinstance(error, StorageError):
            _rest(self._stop, self._patience.retry_model_s)
        return not isinstance(error, BackendError)

    def _insist(self, write: Callable[[], None]) -> None:
        """Write as soon as the disk takes it."""
        while True:
            try:
                return write()
            except StorageError as error:
                _log.error("%s: tried again in %.0f s", error.code, self._patience.retry_model_s)
                _rest(self._stop, self._patience.retry_model_s)
                if self._stop.is_set():
                    return None
