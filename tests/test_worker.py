"""The worker on a real store: drafts, refusals, a paused reader that catches up, and bad input that loses nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge import durable
from edge.board import Board, load_board
from edge.reading import worker
from edge.report.serial import from_json
from edge.service import Stop
from edge.simulate.objects import encode_file, phantom_dataset
from edge.simulate.phantom import PhantomOptions, make_phantom
from edge.store import Store, open_store
from edge.store_rows import InstanceFacts, StudyFacts

WAIT_S = 60.0


@pytest.fixture
def board(root: Path, tmp_path: Path) -> Board:
    """The simulated board with a data folder and a copy of the bundle of its own."""
    plain = load_board(root / "board_configs" / "sim.toml")
    bundle = Path(shutil.copytree(root / "models" / "bundles" / "chest", tmp_path / "bundle"))
    changed = dataclasses.replace(plain.worker, bundle=bundle, poll_s=0.05, threads=1)
    return dataclasses.replace(plain, data_dir=tmp_path / "data", worker=changed)


@pytest.fixture
def store(board: Board) -> Iterator[Store]:
    with closing(open_store(board.data_dir)) as opened:
        yield opened


@contextmanager
def _working(board: Board) -> Iterator[None]:
    """The worker in a thread of this process."""
    stop = Stop(signals=False)
    thread = threading.Thread(target=worker.run, args=(board, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(WAIT_S)
    assert not thread.is_alive()


def _put(board: Board, store: Store, content: bytes, study_uid: str, sop_uid: str) -> int:
    """What the receiver does: file durable, row, study complete."""
    digest = hashlib.sha256(content).hexdigest()
    path = Path("spool/objects") / digest[:2] / f"{digest}.dcm"
    durable.make_directory(board.data_dir / path.parent)
    durable.write_file(board.data_dir / path, content)
    study = StudyFacts(study_uid, "P1", "SEEDED^NAME", "", "", "DX", "")
    facts = InstanceFacts(
        sop_uid, "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.1.2.1", digest, len(content), str(path), "TEST",
        time.monotonic(), 0.01,
    )  # fmt: skip
    assert store.add_instance(study, facts) == "stored"
    key = store.study_key(study_uid)
    assert key is not None
    store.complete_study(key)
    return key


def _phantom(seed: int) -> tuple[bytes, str, str]:
    dataset = phantom_dataset(make_phantom(PhantomOptions(seed=seed, size=512, detail="fast")))
    return encode_file(dataset), str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID)


def _wait(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not found():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def _state(store: Store, key: int) -> str:
    detail = store.study(key)
    assert detail is not None
    return detail.state


def test_a_study_becomes_a_draft_with_its_image_marked(board: Board, store: Store) -> None:
    key = _put(board, store, *_phantom(1))
    with _working(board):
        _wait(lambda: _state(store, key) == "draft")
    detail = store.study(key)
    assert detail is not None
    assert from_json(detail.report_json).model.backend == "tflite"
    assert {"receive", "decode", "prepare", "encode", "generate", "render", "total"} <= set(detail.timings_s)
    image = cv2.imread(str(board.data_dir / detail.rendered / "image.png"), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    assert image.shape == (512, 512)
    assert (image[:24] == 255).sum() > 100  # the letters of the mark
    (row,) = [row for row in store.services() if row.name == "worker"]
    assert (row.state, row.code) == ("ok", "worker.ready")


def test_the_same_study_gives_the_same_report(board: Board, store: Store) -> None:
    content, study, sop = _phantom(2)
    first = _put(board, store, content, study, sop)
    second = _put(board, store, content, study + ".1", sop + ".1")
    with _working(board):
        _wait(lambda: _state(store, first) == _state(store, second) == "draft")
    one, other = store.study(first), store.study(second)
    assert one is not None
    assert other is not None
    assert one.report_json == other.report_json


@pytest.mark.parametrize("spoil", ["encoder.tflite", "manifest.sig"])
def test_a_bad_bundle_pauses_reading_and_the_queue_catches_up(
    board: Board, store: Store, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    monkeypatch.setattr(worker, "RETRY_MODEL_S", 0.2)
    file = board.worker.bundle / spoil
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    key = _put(board, store, *_phantom(3))
    with _working(board):
        _wait(lambda: any(row.state == "paused" for row in store.services()))
        (row,) = [row for row in store.services() if row.name == "worker"]
        assert row.code == ("bundle.hash" if spoil == "encoder.tflite" else "bundle.signature")
        assert "images safe" in row.message
        assert _state(store, key) == "queued"
        file.write_bytes(kept)
        _wait(lambda: _state(store, key) == "draft")


def test_no_backend_pauses_reading(board: Board, store: Store) -> None:
    paused = dataclasses.replace(board, worker=dataclasses.replace(board.worker, backends=("null",)))
    key = _put(board, store, *_phantom(3))
    with _working(paused):
        _wait(lambda: any(row.code == "backend.none" for row in store.services()))
    assert _state(store, key) == "queued"


def test_a_fall_back_is_told(board: Board, store: Store) -> None:
    fallen = dataclasses.replace(board, worker=dataclasses.replace(board.worker, backends=("null", "onnxruntime")))
    key = _put(board, store, *_phantom(4))
    with _working(fallen):
        _wait(lambda: _state(store, key) == "draft")
    (row,) = [row for row in store.services() if row.name == "worker"]
    assert row.state == "degraded"
    assert "onnxruntime" in row.message


def test_bytes_that_are_no_image_are_refused_and_the_next_study_is_read(board: Board, store: Store) -> None:
    broken = _put(board, store, b"\0" * 128 + b"DICM" + b"\x07" * 500, "1.2.3", "1.2.3.4")
    good = _put(board, store, *_phantom(5))
    with _working(board):
        _wait(lambda: _state(store, good) == "draft")
    detail = store.study(broken)
    assert detail is not None
    assert detail.state == "refused"
    assert detail.code.startswith("dicom.")


def test_a_study_that_a_dead_worker_left_is_read_once(board: Board, store: Store) -> None:
    key = _put(board, store, *_phantom(6))
    claimed = store.claim_next("dead")
    assert claimed is not None
    with _working(board):
        _wait(lambda: _state(store, key) == "draft")
    detail = store.study(key)
    assert detail is not None
    assert detail.attempt == claimed.attempt + 1
    assert detail.superseded_reports == ()


def test_a_missing_file_fails_the_study_after_its_tries_and_blocks_nothing(
    board: Board, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RETRY_MODEL_S", 0.05)
    content, study, sop = _phantom(7)
    lost = _put(board, store, content, study, sop)
    (instance,) = store.study(lost).instances  # type: ignore[union-attr]
    (board.data_dir / instance.path).unlink()
    good = _put(board, store, *_phantom(8))
    with _working(board):
        _wait(lambda: _state(store, good) == "draft" and _state(store, lost) == "failed")
    detail = store.study(lost)
    assert detail is not None
    assert detail.code == "storage.failed"
    assert detail.attempt == board.worker.max_attempts


def test_noise_is_refused_in_words(board: Board, store: Store) -> None:
    pixels = np.random.default_rng(0).random((400, 400)).astype(np.float32)
    phantom = make_phantom(PhantomOptions(seed=9, size=400, detail="fast"))
    dataset = phantom_dataset(dataclasses.replace(phantom, pixels=pixels))
    key = _put(board, store, encode_file(dataset), str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID))
    with _working(board):
        _wait(lambda: _state(store, key) == "refused")
    detail = store.study(key)
    assert detail is not None
    assert detail.code.startswith("gate.")
    assert detail.message
