"""Service `worker`: claims a study, reads it, stores the draft. No network.

Without a model that passes its checks it says so on the page and waits: images keep coming in, and the queue is read
when a model works again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from edge import durable
from edge.board import Board
from edge.errors import BackendError, BundleError, DicomError, RadboxError, StorageError
from edge.reading.decode_child import Decoder
from edge.reading.display import DRAFT_MARK, NOT_READ_MARK, display_png
from edge.reading.load import load_reader
from edge.reading.pipeline import Reader, Reading
from edge.reading.radiograph import Radiograph, Refusal, Study
from edge.reading.stages import StageClock
from edge.report.schema import Report
from edge.report.serial import to_json
from edge.service import Stop, notify
from edge.store import Store, database_key, open_store
from edge.store_rows import ClaimedStudy

RETRY_MODEL_S = 30.0
MOST_IMAGES = 8  # of one study that are held for reading
OTHER_MODALITY_RUN = 3  # that many images in a row of another modality: the rest of the study is not decoded
_log = logging.getLogger("worker")


def run(board: Board, stop: Stop) -> None:
    """Serve until `stop`. Raises StoreError when the database cannot be opened."""
    with closing(open_store(board.data_dir, key=database_key())) as store, _decoder(board) as decoder:
        for study_key in store.requeue_stale(board.worker.max_attempts):
            _log.warning("study %d was being read when the worker stopped; it waits again", study_key)
        notify("READY=1")
        while not stop.is_set():
            reader = _open_reader(board, store)
            if reader is None:
                stop.wait(RETRY_MODEL_S)
                continue
            _serve(board, store, decoder, reader, stop)


def _decoder(board: Board) -> Decoder:
    return Decoder(timeout_s=board.worker.decode_timeout_s, memory_bytes=board.worker.decode_memory_bytes)


def _open_reader(board: Board, store: Store) -> Reader | None:
    """The reader, or None with the reason on the page."""
    try:
        loaded = load_reader(board)
    except (BundleError, BackendError) as error:
        _log.error("AI paused: %s %s", error.code, error.message)
        store.set_service("worker", "paused", error.code, f"AI paused, images safe. {error.message}")
        return None
    name = loaded.reader.encoder.name
    if loaded.passed_over:
        missed, reason = loaded.passed_over[0]
        message = f"Running on {name}, not on {missed}: {reason.message}"
        store.set_service("worker", "degraded", reason.code, message)
    else:
        store.set_service("worker", "ok", "worker.ready", f"Reading with {name}.")
    _log.info("reading with %s, model %s", name, loaded.reader.bundle.manifest.version)
    return loaded.reader


def _serve(board: Board, store: Store, decoder: Decoder, reader: Reader, stop: Stop) -> None:
    """Read study after study; returns when stopped or when the backend failed and must be opened again."""
    decoder.start()
    while not stop.is_set():
        claimed = store.claim_next("worker")
        if claimed is None:
            stop.wait(board.worker.poll_s)
            continue
        try:
            read_claimed(board, store, decoder, reader, claimed)
        except BackendError as error:
            _log.error("study %d: %s", claimed.study_key, error.code)
            store.fail(claimed.study_key, error.code, error.message, True, board.worker.max_attempts)
            return
        except StorageError as error:
            _log.error("study %d: %s", claimed.study_key, error.code)
            store.fail(claimed.study_key, error.code, error.message, True, board.worker.max_attempts)
            stop.wait(RETRY_MODEL_S)
        except RadboxError as error:
            _log.error("study %d: %s", claimed.study_key, error.code)
            store.fail(claimed.study_key, error.code, error.message, False)


def read_claimed(board: Board, store: Store, decoder: Decoder, reader: Reader, claimed: ClaimedStudy) -> None:
    """Decode, read, render and store one study. Raises BackendError, StorageError, ReportError."""
    clock = StageClock(lambda: notify("WATCHDOG=1"))
    began_s = time.monotonic()
    clock.stage("decode")
    study = _decode(board, decoder, claimed)
    reading = reader.read(study, clock.stage)
    clock.stage("render")
    rendered = _render(board, claimed, study, reading)
    report_json = to_json(reading.outcome) if isinstance(reading.outcome, Report) else ""
    timings_s = {"receive": claimed.instances[-1].receive_s, **clock.stop()}
    if claimed.same_boot:
        timings_s["waiting"] = max(0.0, began_s - claimed.last_received_monotonic_s)
    timings_s["total"] = time.monotonic() - began_s
    if isinstance(reading.outcome, Refusal):
        store.finish_refused(claimed.study_key, reading.outcome.code, reading.outcome.message, timings_s, rendered)
    else:
        store.finish_draft(claimed.study_key, report_json, rendered, timings_s)
    _log.info("study %d read in %.2f s", claimed.study_key, timings_s["total"])


def _decode(board: Board, decoder: Decoder, claimed: ClaimedStudy) -> Study:
    radiographs: list[Radiograph] = []
    refusals: list[Refusal] = []
    for path in _paths(board, claimed):
        try:
            radiographs.extend(decoder.read(path)[: MOST_IMAGES - len(radiographs)])
        except DicomError as error:
            refusals.append(Refusal(error.code, f"The image could not be read: {error.message}."))
        if len(radiographs) >= MOST_IMAGES or _all_other(radiographs):
            break
    return Study(tuple(radiographs), tuple(refusals))


def _paths(board: Board, claimed: ClaimedStudy) -> Iterator[Path]:
    return (board.data_dir / instance.path for instance in claimed.instances)


def _all_other(radiographs: list[Radiograph]) -> bool:
    """A CT or MR study of hundreds of slices is not decoded to the end only to be refused."""
    return len(radiographs) >= OTHER_MODALITY_RUN and all(r.modality in ("CT", "MR", "PT", "NM") for r in radiographs)


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
