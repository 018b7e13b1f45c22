"""The worker's model: opened with the backends that may read, and what the page says of it."""

from __future__ import annotations

import dataclasses
import logging
from typing import Protocol

from edge.board import Board
from edge.errors import BackendError, BundleError
from edge.reading.accelerators import Accelerators
from edge.reading.deadline import Deadline
from edge.reading.load import Loaded, OnBackend, OnSlot
from edge.reading.notes import Notes
from edge.reading.patience import Patience
from edge.reading.pipeline import Reader
from edge.reading.probation import Probation, spoken_name
from edge.reading.voice import PAUSED, Voice
from edge.service import Stop, notify

AGAIN = "The box tries again by itself."
NO_BACKEND = "backend.none"
DECODER = "worker.decoder-on-cpu"
_log = logging.getLogger("worker")


class Load(Protocol):
    """`edge.reading.load.load_reader`."""

    def __call__(self, board: Board, on_slot: OnSlot, *, on_backend: OnBackend, probe_timeout_s: float) -> Loaded:
        """Raises BundleError, BackendError."""
        ...


class Opener:
    """Opens the reader again and again in the life of a worker; each step noted and under its deadline."""

    def __init__(
        self,
        board: Board,
        stop: Stop,
        deadline: Deadline,
        notes: Notes,
        voice: Voice,
        probation: Probation,
        accelerators: Accelerators,
        patience: Patience,
    ) -> None:
        self._board = board
        self._stop = stop
        self._deadline = deadline
        self._notes = notes
        self._voice = voice
        self._probation = probation
        self._accelerators = accelerators
        self._patience = patience
        self._refusals: list[tuple[str, BackendError]] = []
        self._decoder_fault = ""

    def open(self, load: Load) -> Reader | None:
        """The reader, or None with the reason on the page."""
        names = self._accelerators.may_open()
        if not names and self._probation.outdated():  # another model is another chance for every backend
            names = self._board.worker.backends
        if not names:
            self._say_paused(NO_BACKEND, self._accelerators.faults())
            return None
        board = dataclasses.replace(self._board, worker=dataclasses.replace(self._board.worker, backends=names))
        while True:
            loaded = self._load(load, board)
            if loaded is None:
                return None
            if self._probation.loaded(loaded) or self._stop.is_set():
                self._accelerators.opened(loaded.reader.encoder.name, loaded.passed_over)
                self._tell(loaded)
                return loaded.reader

    def _load(self, load: Load, board: Board) -> Loaded | None:
        self._probation.loading()
        loaded = None
        try:
            loaded = load(
                board, self._on_slot, on_backend=self._on_backend, probe_timeout_s=self._patience.probe_timeout_s
            )
        except (BundleError, BackendError) as error:
            _log.error("AI paused: %s %s", error.code, error.message)
            self._accelerators.none_opened(self._refusals)
            self._say_paused(error.code, self._accelerators.faults() if self._refusals else error.message)
        self._deadline.disarm()
        self._notes.idle()
        return loaded

    def _on_slot(self, _slot: str) -> None:
        """A model is tried: first its files are checked."""
        self._refusals = []
        self._on_step("", self._patience.load_limit_s)

    def _on_backend(self, name: str, refused: BackendError | None) -> None:
        if refused:
            self._refusals.append((name, refused))
        else:
            self._on_step(name, self._patience.open_s())

    def _on_step(self, backend: str, limit_s: float) -> None:
        notify("WATCHDOG=1")
        self._voice.alive()
        self._notes.loading(backend, limit_s)
        self._deadline.arm(limit_s)

    def _say_paused(self, code: str, reason: str) -> None:
        again = f" {AGAIN}" if code == NO_BACKEND else ""
        self._voice.say("paused", code, f"{PAUSED} {reason}{again}")

    def look(self, reader: Reader) -> None:
        """After a study: say so when the decoder has lost its accelerator meanwhile."""
        if reader.decoder_fault != self._decoder_fault:
            self._note_decoder(reader)
            self._say_decoder(reader)

    def _note_decoder(self, reader: Reader) -> None:
        self._decoder_fault = reader.decoder_fault
        if reader.decoder_fault:
            self._voice.event(DECODER, reader.decoder_fault)

    def _say_decoder(self, reader: Reader) -> None:
        self._voice.say("degraded", DECODER, f"{reader.decoder_fault} Drafts are made, more slowly.")

    def _tell(self, loaded: Loaded) -> None:
        reader, model = loaded.reader, spoken_name(loaded.reader.bundle)
        backend, fault = reader.encoder.name, self._accelerators.fault()
        self._note_decoder(reader)
        if loaded.slots_passed_over:
            reason = loaded.slots_passed_over[0][1]
            message = f"Running on the earlier model {model}. {reason.message}"
            self._voice.say("degraded", "worker.earlier-model", message)
        elif fault:
            message = f"Running on {backend}, not on {fault[0]}: {fault[1]} {AGAIN}"
            self._voice.say("degraded", "worker.other-backend", message)
        elif reader.decoder_fault:
            self._say_decoder(reader)
        else:
            self._voice.say("ok", "worker.ready", f"Reading with {backend}, model {model}.")
        _log.info("reading with %s, model %s", backend, model)
