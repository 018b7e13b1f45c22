"""One study from claim to row: decode, read, render, store; each stage noted and under its deadline."""

from __future__ import annotations

import time
from pathlib import Path

from edge import durable
from edge.board import Board
from edge.reading.deadline import Deadline
from edge.reading.decode_child import Decoder
from edge.reading.decode_study import decode_study
from edge.reading.display import DRAFT_MARK, NOT_READ_MARK, display_png
from edge.reading.notes import Notes
from edge.reading.patience import Patience
from edge.reading.pipeline import Reader, Reading
from edge.reading.probation import Probation
from edge.reading.radiograph import Refusal, Study
from edge.reading.stages import StageClock
from edge.reading.voice import Voice
from edge.report.schema import Report
from edge.report.serial import to_json
from edge.service import notify
from edge.store import Store
from edge.store_rows import ClaimedStudy

ON_BACKEND = "encode"  # the stage in which a backend is at work


class OneStudy:
    """Reads claimed studies, one after another, with whatever reader is given."""

    def __init__(
        self,
        board: Board,
        store: Store,
        decoder: Decoder,
        deadline: Deadline,
        notes: Notes,
        voice: Voice,
        probation: Probation,
        patience: Patience,
    ) -> None:
        self._board = board
        self._store = store
        self._decoder = decoder
        self._deadline = deadline
        self._notes = notes
        self._voice = voice
        self._probation = probation
        self._patience = patience

    def read(self, reader: Reader, claimed: ClaimedStudy) -> dict[str, float]:
        """Read and store one study; returns its timings in seconds, by stage.

        Raises BackendError, StorageError, ReportError, StoreError.
        """
        clock = StageClock(self._moved)
        began_s = time.monotonic()

        def stage(name: str) -> None:
            limit_s = self._limit_s(name)
            self._notes.reading(name, reader.encoder.name if name == ON_BACKEND else "", claimed.study_key, limit_s)
            self._deadline.arm(limit_s)
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
        self._probation.read(timings_s, len(study.radiographs))
        return timings_s

    def _moved(self) -> None:
        notify("WATCHDOG=1")
        self._voice.alive()

    def _limit_s(self, stage: str) -> float:
        """How long a stage may take before the worker is ended."""
        if stage == "decode":
            return self._patience.decode_s(self._board.worker.decode_timeout_s)
        budget = self._probation.budget
        return self._patience.stage_s(budget.p95_s if budget else None)


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
