"""The worker on a real store: drafts, refusals, a paused reader that catches up, and bad input that loses nothing."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.board import Board, load_board
from edge.errors import StorageFullError
from edge.reading import worker
from edge.reading.patience import Patience
from edge.report.serial import from_json
from edge.service import Stop
from edge.simulate.objects import encode_file, phantom_dataset
from edge.simulate.phantom import PhantomOptions, make_phantom
from edge.slots import Slots
from edge.store import Store, open_store
from tests.update_box import VERSION
from tests.worker_process import PAUSE, WAIT_S, load_obedient, put, put_picture, state, wait


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
def _working(board: Board, **waits: float) -> Iterator[None]:
    """The worker in a thread of this process. waits: its `Patience`."""
    stop = Stop(signals=False)
    thread = threading.Thread(target=worker.run, args=(board, stop, Patience(**waits)))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(WAIT_S)
    assert not thread.is_alive()


def _phantom(seed: int) -> tuple[bytes, str, str]:
    dataset = phantom_dataset(make_phantom(PhantomOptions(seed=seed, size=512, detail="fast")))
    return encode_file(dataset), str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID)


@pytest.mark.requirement("READ-04")
def test_a_study_becomes_a_draft_with_its_image_marked(board: Board, store: Store) -> None:
    key = put(board, store, *_phantom(1))
    with _working(board):
        wait(lambda: state(store, key) == "draft")
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
    assert row.message == f"Reading with tflite, model chest-xray-pyramid {VERSION}."


def test_the_same_study_gives_the_same_report(board: Board, store: Store) -> None:
    content, study, sop = _phantom(2)
    first = put(board, store, content, study, sop)
    second = put(board, store, content, study + ".1", sop + ".1")
    with _working(board):
        wait(lambda: state(store, first) == state(store, second) == "draft")
    one, other = store.study(first), store.study(second)
    assert one is not None
    assert other is not None
    assert one.report_json == other.report_json


@pytest.mark.parametrize("spoil", ["encoder.tflite", "manifest.sig"])
def test_a_bad_bundle_pauses_reading_and_the_queue_catches_up(board: Board, store: Store, spoil: str) -> None:
    file = board.worker.bundle / spoil
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    key = put(board, store, *_phantom(3))
    with _working(board, retry_model_s=0.2):
        wait(lambda: any(row.state == "paused" for row in store.services()))
        (row,) = [row for row in store.services() if row.name == "worker"]
        assert row.code == ("bundle.hash" if spoil == "encoder.tflite" else "bundle.signature")
        assert "images safe" in row.message
        assert state(store, key) == "queued"
        file.write_bytes(kept)
        wait(lambda: state(store, key) == "draft")


def test_no_backend_pauses_reading(board: Board, store: Store) -> None:
    paused = dataclasses.replace(board, worker=dataclasses.replace(board.worker, backends=("null",)))
    key = put(board, store, *_phantom(3))
    with _working(paused):
        wait(lambda: any(row.code == "backend.none" for row in store.services()))
    assert state(store, key) == "queued"


def test_a_fall_back_is_told(board: Board, store: Store) -> None:
    fallen = dataclasses.replace(board, worker=dataclasses.replace(board.worker, backends=("null", "onnxruntime")))
    key = put(board, store, *_phantom(4))
    with _working(fallen):
        wait(lambda: state(store, key) == "draft")
    (row,) = [row for row in store.services() if row.name == "worker"]
    assert row.state == "degraded"
    assert "onnxruntime" in row.message


def test_an_earlier_model_is_told_on_the_page_and_as_an_event(board: Board, store: Store) -> None:
    Slots(board.data_dir, board.worker.bundle).change(lambda state: dataclasses.replace(state, active="a" * 64))
    key = put(board, store, *_phantom(4))
    with _working(board):
        wait(lambda: state(store, key) == "draft")
    (row,) = [row for row in store.services() if row.name == "worker"]
    assert (row.state, row.code) == ("degraded", "worker.earlier-model")
    assert row.message.startswith(
        f"Running on the earlier model chest-xray-pyramid {VERSION}. The model's signed metadata"
    )
    assert [event.code for event in store.events()] == ["bundle.missing"]


def test_bytes_that_are_no_image_are_refused_and_the_next_study_is_read(board: Board, store: Store) -> None:
    broken = put(board, store, b"\0" * 128 + b"DICM" + b"\x07" * 500, "1.2.3", "1.2.3.4")
    good = put(board, store, *_phantom(5))
    with _working(board):
        wait(lambda: state(store, good) == "draft")
    detail = store.study(broken)
    assert detail is not None
    assert detail.state == "refused"
    assert detail.code.startswith("dicom.")


@pytest.mark.requirement("READ-05")
def test_a_study_that_a_dead_worker_left_is_read_once(board: Board, store: Store) -> None:
    key = put(board, store, *_phantom(6))
    claimed = store.claim_next("dead")
    assert claimed is not None
    with _working(board):
        wait(lambda: state(store, key) == "draft")
    detail = store.study(key)
    assert detail is not None
    assert detail.attempt == claimed.attempt + 1
    assert detail.superseded_reports == ()


def test_a_missing_file_fails_the_study_after_its_tries_and_blocks_nothing(board: Board, store: Store) -> None:
    content, study, sop = _phantom(7)
    lost = put(board, store, content, study, sop)
    (instance,) = store.study(lost).instances  # type: ignore[union-attr]
    (board.data_dir / instance.path).unlink()
    good = put(board, store, *_phantom(8))
    with _working(board, retry_model_s=0.05):
        wait(lambda: state(store, good) == "draft" and state(store, lost) == "failed")
    detail = store.study(lost)
    assert detail is not None
    assert detail.code == "storage.failed"
    assert detail.attempt == board.worker.max_attempts


@pytest.mark.requirement("READ-01")
def test_noise_is_refused_in_words(board: Board, store: Store) -> None:
    pixels = np.random.default_rng(0).random((400, 400)).astype(np.float32)
    phantom = make_phantom(PhantomOptions(seed=9, size=400, detail="fast"))
    dataset = phantom_dataset(dataclasses.replace(phantom, pixels=pixels))
    key = put(board, store, encode_file(dataset), str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID))
    with _working(board):
        wait(lambda: state(store, key) == "refused")
    detail = store.study(key)
    assert detail is not None
    assert detail.code.startswith("gate.")
    assert detail.message


def test_a_worker_with_nothing_to_do_gives_signs_of_life(
    board: Board, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "load_reader", load_obedient({}))
    seen: set[float] = set()

    def signs() -> int:
        seen.update(row.monotonic_s for row in store.services() if row.code == "worker.ready")
        return len(seen)

    with _working(board, sign_of_life_s=0.1):
        wait(lambda: signs() >= 3)


def test_a_paused_worker_gives_signs_of_life(board: Board, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "load_reader", load_obedient({}))
    (board.data_dir / PAUSE).touch()
    seen: set[float] = set()

    def signs() -> int:
        seen.update(row.monotonic_s for row in store.services() if row.state == "paused")
        return len(seen)

    with _working(board, retry_model_s=0.1):
        wait(lambda: signs() >= 3)


def test_a_full_disk_costs_no_study_an_attempt(board: Board, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft cannot be written, and for a while not even that the study waits again, nor the next claim."""
    monkeypatch.setattr(worker, "load_reader", load_obedient({}))
    refusals = {"finish_draft": 5, "give_back": 2, "claim_next": 2}

    def full_at_first(name: str) -> None:
        works = getattr(Store, name)

        def call(*arguments: object) -> object:
            if refusals[name]:
                refusals[name] -= 1
                raise StorageFullError("expected room for a database row, got a full disk")
            return works(*arguments)

        monkeypatch.setattr(Store, name, call)

    for name in refusals:
        full_at_first(name)
    key = put_picture(board, store, 1)
    with _working(board, retry_model_s=0.02):
        wait(lambda: state(store, key) == "draft")
    assert set(refusals.values()) == {0}
    detail = store.study(key)
    assert detail is not None
    assert detail.attempt == 6


def test_the_queue_is_taken_up_once_the_disk_takes_rows(
    board: Board, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "load_reader", load_obedient({}))
    key = put_picture(board, store, 1)
    assert store.claim_next("factory") is not None
    refusals = [StorageFullError("expected room for a database row, got a full disk")] * 3
    works = Store.requeue_stale

    def requeue_stale(*arguments: object) -> object:
        if refusals:
            raise refusals.pop()
        return works(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "requeue_stale", requeue_stale)
    with _working(board, retry_model_s=0.02):
        wait(lambda: state(store, key) == "draft")
