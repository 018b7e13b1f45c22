"""A model on trial: good cases, slow ones, deaths and power cuts, and the worker that changes models by itself."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from edge import durable, trust
from edge.board import Board
from edge.errors import BackendError, BundleError, StorageFullError
from edge.reading import worker
from edge.reading.load import Loaded
from edge.reading.probation import Probation
from edge.service import Stop
from edge.slots import FACTORY, STARTING, Outcome, Slots, activate, roll_back
from edge.store import Store, open_store
from edge.trust import Budget
from tests.update_stick import Organisation, make_organisation, small_bundle
from tests.worker_process import (
    BREAKS,
    KILLS,
    WAIT_S,
    load_obedient,
    put_picture,
    state,
    wait,
    worker_board,
    worker_process,
)
from tools.update.release import Release

NEW = "a" * 64
FAST = {"prepare": 0.1, "encode": 0.2, "generate": 0.1}


@pytest.fixture
def board(tmp_path: Path) -> Board:
    plain = worker_board(tmp_path / "data")
    return dataclasses.replace(plain, update=dataclasses.replace(plain.update, probation_cases=3))


@pytest.fixture
def store(board: Board) -> Iterator[Store]:
    with closing(open_store(board.data_dir)) as opened:
        yield opened


@pytest.fixture
def slots(board: Board) -> Slots:
    """The box runs NEW on trial; nothing lies in its folder."""
    slots = Slots(board.data_dir, board.worker.bundle)
    slots.change(lambda state: activate(state, NEW))
    return slots


def loaded(slot: str = NEW, passed_over: tuple[tuple[str, BundleError | BackendError], ...] = ()) -> Loaded:
    return dataclasses.replace(
        load_obedient({})(worker_board(Path("nowhere"))), slot=slot, slots_passed_over=passed_over
    )


@pytest.fixture
def probation(board: Board, store: Store, slots: Slots) -> Probation:
    """Of a worker that has just loaded NEW."""
    probation = Probation(board, store)
    probation.start()
    probation.loading()
    assert probation.loaded(loaded())
    return probation


def codes(store: Store) -> list[str]:
    return [event.code for event in store.events()]


def signed_slot(board: Board, office: Organisation, budgets: dict[str, Budget], bundle: Path) -> str:
    """A slot with true signed metadata; its name."""
    release = Release(id="tiny", label="0.9.0", version=1, budgets=budgets)
    targets = office.targets(bundle, release)
    slot = trust.verify_targets(office.root, targets).slot
    shutil.copytree(bundle, board.data_dir / "slots" / slot)
    (board.data_dir / "slots" / slot / "targets.json").write_bytes(targets)
    return slot


def another_boot(board: Board) -> None:
    """What was claimed was claimed before a power cut."""
    with closing(apsw.Connection(str(board.data_dir / "radbox.sqlite3"))) as connection:
        connection.execute("UPDATE study SET claimed_boot_id = 'before'")


# --- what counts ---


@pytest.mark.requirement("UPD-03")
def test_good_cases_end_the_trial_and_the_outcome_is_told(slots: Slots, store: Store, probation: Probation) -> None:
    for good in (1, 2):
        probation.read(FAST, 1)
        trial = slots.read().trial
        assert trial is not None
        assert (trial.good, probation.on_trial) == (good, True)
    probation.read(FAST, 1)
    after = slots.read()
    assert (after.active, after.trial, probation.on_trial) == (NEW, None, False)
    assert after.last == Outcome("update.committed", "The model read 3 studies here without a fault and is now in use.")
    assert codes(store) == ["update.committed"]
    probation.read(FAST, 1)
    assert slots.read() == after
    assert not probation.outdated()


def test_a_study_that_never_reached_the_model_says_nothing(slots: Slots, probation: Probation) -> None:
    before = slots.read()
    probation.read({"decode": 0.1, "prepare": 0.1}, 1)
    assert slots.read() == before


@pytest.mark.requirement("UPD-04")
def test_slow_cases_roll_back_by_the_budget_of_this_board(
    board: Board, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = make_organisation(tmp_path)
    monkeypatch.setattr(trust, "factory_root", lambda: office.root)
    budgets = {"sim": Budget(1.0, 1 << 30), "*": Budget(0.001, 1 << 30)}
    slot = signed_slot(board, office, budgets, small_bundle(tmp_path / "tiny"))
    slots = Slots(board.data_dir, board.worker.bundle)
    slots.change(lambda state: activate(state, slot))
    probation = Probation(board, store)
    probation.loading()
    assert probation.loaded(loaded(slot))
    assert probation.budget == budgets["sim"]
    probation.read({"encode": 0.9, "decode": 30.0, "waiting": 900.0, "render": 2.0, "total": 33.0}, 1)
    probation.read({"prepare": 1.0, "encode": 2.4, "generate": 0.1}, 4)  # four images
    trial = slots.read().trial
    assert trial is not None
    assert (trial.good, trial.slow) == (2, 0)
    for _ in range(board.update.slow_limit):
        assert not probation.outdated()
        probation.read({"encode": 0.9, "generate": 0.2}, 1)
    after = slots.read()
    assert (after.active, after.failed, after.trial) == (FACTORY, (slot,), None)
    assert codes(store) == ["update.rolled-back-slow"]
    assert probation.outdated()


def test_a_death_of_this_boot_counts_and_the_study_is_read_afresh(
    board: Board, store: Store, slots: Slots, probation: Probation
) -> None:
    key = put_picture(board, store, 1)
    for crashes in (1, 2):
        claimed = store.claim_next(probation.slot)
        assert claimed is not None
        following = Probation(board, store)
        assert following.start() == [key]
        trial = slots.read().trial
        assert (trial.crashes if trial else 2) == crashes
    assert slots.read().active == FACTORY
    assert codes(store) == ["update.rolled-back-crash"]
    for _ in range(board.worker.max_attempts):
        assert state(store, key) == "queued", "all attempts are there again"
        assert store.claim_next(FACTORY) is not None
        Probation(board, store).start()
    assert state(store, key) == "failed"


def test_a_power_cut_is_never_a_death(board: Board, store: Store, slots: Slots, probation: Probation) -> None:
    before = slots.read()
    key = put_picture(board, store, 1)
    for _ in range(10):
        assert store.claim_next(probation.slot) is not None
        another_boot(board)
        assert Probation(board, store).start() == [key]
    path = board.data_dir / STARTING
    for _ in range(10):
        following = Probation(board, store)
        following.loading()
        path.write_text(path.read_text().replace(path.read_text().split()[0], "another-boot"))
    assert slots.read() == before
    assert codes(store) == []


def test_deaths_under_the_model_before_are_not_held_against_the_new_one(
    board: Board, store: Store, slots: Slots
) -> None:
    key = put_picture(board, store, 1)
    before = slots.read()
    assert store.claim_next(FACTORY) is not None
    assert Probation(board, store).start() == [key]
    assert slots.read() == before


def test_no_study_is_set_aside_for_a_model_on_trial(board: Board, store: Store, slots: Slots) -> None:
    patient = dataclasses.replace(board, update=dataclasses.replace(board.update, crash_limit=10))
    key = put_picture(board, store, 1)
    for _ in range(9):
        assert store.claim_next(NEW) is not None
        assert Probation(patient, store).start() == [key]
    assert slots.read().active == NEW
    assert store.claim_next(NEW) is not None
    assert Probation(patient, store).start() == [key]
    assert slots.read().active == FACTORY


def test_a_death_while_loading_counts(board: Board, store: Store, slots: Slots) -> None:
    for _ in range(2):  # the first only leaves its mark
        Probation(board, store).loading()
    trial = slots.read().trial
    assert trial is not None
    assert trial.crashes == 1
    probation = Probation(board, store)
    probation.loading()
    assert slots.read().active == FACTORY
    assert probation.loaded(loaded(FACTORY))
    assert not (board.data_dir / STARTING).exists()
    assert not probation.outdated()
    assert codes(store) == ["update.rolled-back-crash"]


def test_a_model_that_no_backend_runs_counts_and_a_damaged_one_does_not(
    board: Board, store: Store, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    probation = Probation(board, store)
    refused = loaded(FACTORY, ((NEW, BackendError("No backend can run the model.", code="backend.none")),))
    damaged = loaded(FACTORY, ((NEW, BundleError("The model's file 'x' is damaged.", code="bundle.hash")),))
    before = slots.read()
    assert probation.loaded(damaged)
    assert slots.read() == before
    assert not probation.loaded(refused), "once more"
    assert probation.loaded(refused), "the box has gone back"
    assert slots.read().active == FACTORY
    assert codes(store) == ["update.rolled-back-crash", "backend.none", "backend.none", "bundle.hash"]


def test_a_repaired_model_is_noticed(board: Board, store: Store, slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.reading.probation.LOOK_AGAIN_S", 0.0)
    probation = Probation(board, store)
    probation.loading()
    probation.loaded(loaded(FACTORY, ((NEW, BundleError("The model's file 'x' is damaged.")),)))
    assert not probation.outdated()
    monkeypatch.setattr(Slots, "open", lambda *_: None)
    assert probation.outdated()


def test_a_change_from_outside_is_noticed(slots: Slots, probation: Probation) -> None:
    assert not probation.outdated()
    slots.change(lambda state: dataclasses.replace(state, snapshot_version=7))
    assert not probation.outdated(), "another model only"
    slots.change(lambda state: roll_back(state, Outcome("update.rolled-back-person", "Asked for.")))
    assert probation.outdated()
    probation.read(FAST, 1)
    assert slots.read().trial is None


def test_a_full_disk_stops_no_reading(
    slots: Slots, store: Store, probation: Probation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageFullError("expected room for a file, got: No space left on device")

    before = slots.read()
    monkeypatch.setattr(durable, "write_file", full)
    probation.read(FAST, 1)
    probation.failed()
    assert slots.read() == before


# --- the worker ---


@contextmanager
def working(board: Board) -> Iterator[None]:
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


def test_models_change_between_studies_without_a_restart(
    board: Board, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "load_reader", load_obedient({}))
    slots = Slots(board.data_dir, board.worker.bundle)
    with working(board):
        first = put_picture(board, store, 1)
        wait(lambda: state(store, first) == "draft")
        slots.change(lambda state: activate(state, NEW))
        keys = [put_picture(board, store, number) for number in (2, 3, 4)]
        wait(lambda: slots.read().trial is None)
        slots.change(lambda state: roll_back(state, Outcome("update.rolled-back-person", "Asked for.")))
        last = put_picture(board, store, 5)
        wait(lambda: state(store, last) == "draft")
    details = [store.study(key) for key in (first, *keys, last)]
    assert [detail and f'"{FACTORY}"' in detail.report_json for detail in details] == [True, False, False, False, True]
    assert "update.committed" in codes(store)


def test_a_model_that_breaks_on_studies_is_rolled_back_and_they_are_read(
    board: Board, store: Store, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "load_reader", load_obedient({"harmless": "f"}))
    key = put_picture(board, store, 1, BREAKS)
    with working(board):
        wait(lambda: state(store, key) == "draft")
    assert slots.read().failed == (NEW,)
    detail = store.study(key)
    assert detail is not None
    assert f'"{FACTORY}"' in detail.report_json


@pytest.mark.requirement("UPD-04")
def test_a_model_that_kills_the_worker_is_rolled_back_and_the_study_is_read(
    board: Board, store: Store, slots: Slots
) -> None:
    poison = put_picture(board, store, 1, KILLS, urgency=1)
    other = put_picture(board, store, 2)
    with worker_process(board.data_dir, harmless="f") as process:
        process.keep(lambda: state(store, poison) == state(store, other) == "draft")
        process.stop()
    after = slots.read()
    assert (after.active, after.failed, after.trial) == (FACTORY, (NEW,), None)
    assert after.last == Outcome(
        "update.rolled-back-crash", "The new model stopped the reader 2 times; the box went back to the model before."
    )
    assert len(process.deaths) == 2
    assert "update.rolled-back-crash" in codes(store)


def test_a_model_that_dies_while_loading_is_rolled_back(board: Board, store: Store, slots: Slots) -> None:
    key = put_picture(board, store, 1)
    with worker_process(board.data_dir, dies_loading="a") as process:
        process.keep(lambda: state(store, key) == "draft")
        process.stop()
    assert slots.read().failed == (NEW,)
    assert len(process.deaths) == 2
