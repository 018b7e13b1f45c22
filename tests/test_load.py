"""Which model runs: the active one, else the one before, else the factory's; the box never halts while one works."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge import trust
from edge.board import Board
from edge.errors import BackendError, BundleError
from edge.reading import load
from edge.reading.load import candidates, load_reader
from edge.slots import FACTORY, FACTORY_STATE, Slots, activate
from tests.slot_store import add_slot
from tests.update_box import VERSION
from tests.update_stick import Organisation, make_organisation
from tests.worker_process import worker_board


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Organisation:
    """Who signs; the box is built with its root."""
    made = make_organisation(tmp_path)
    monkeypatch.setattr(trust, "factory_root", lambda: made.root)
    return made


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return worker_board(tmp_path / "data", backends=("tflite",))


@pytest.fixture
def two(board: Board, office: Organisation) -> tuple[str, str]:
    """Version 3 is active, version 2 was before; neither is on trial."""
    slots = Slots(board.data_dir, board.worker.bundle)
    before, active = add_slot(board, office, 2), add_slot(board, office, 3)
    slots.change(lambda state: dataclasses.replace(state, active=active, previous=before))
    return active, before


def test_a_box_without_updates_runs_the_factory_model(board: Board) -> None:
    loaded = load_reader(board)
    assert (loaded.slot, loaded.slots_passed_over, loaded.passed_over) == (FACTORY, (), ())
    assert not (board.data_dir / "update").exists(), "reading changes nothing"


def test_a_signed_slot_runs_without_a_signature_of_its_manifest(board: Board, two: tuple[str, str]) -> None:
    tried: list[str] = []
    loaded = load_reader(board, tried.append)
    assert (loaded.slot, loaded.slots_passed_over, tried) == (two[0], (), [two[0]])
    assert loaded.reader.bundle.manifest.version == "0.3.0"


def test_damaged_models_are_passed_over_one_after_another(board: Board, two: tuple[str, str]) -> None:
    active, before = two
    damaged = board.data_dir / "slots" / active / "decoder.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    loaded = load_reader(board)
    assert loaded.slot == before
    ((slot, reason),) = loaded.slots_passed_over
    assert (slot, reason.code) == (active, "bundle.hash")
    shutil.rmtree(board.data_dir / "slots" / before)
    loaded = load_reader(board)
    assert (loaded.slot, loaded.reader.bundle.manifest.version) == (FACTORY, VERSION)
    assert [slot for slot, _ in loaded.slots_passed_over] == [active, before]


def test_a_model_that_no_backend_runs_is_passed_over(board: Board, office: Organisation, two: tuple[str, str]) -> None:
    golden = json.loads((board.worker.bundle / "manifest.json").read_text())["golden"]
    strict = {"golden": {**golden, "tolerance": dict.fromkeys(golden["tolerance"], -1.0)}}
    picky = add_slot(board, office, 4, strict)
    Slots(board.data_dir, board.worker.bundle).change(lambda state: activate(state, picky))
    loaded = load_reader(board)
    assert loaded.slot == two[0]
    ((slot, reason),) = loaded.slots_passed_over
    assert (slot, type(reason), reason.code) == (picky, BackendError, "backend.none")


def test_a_storage_that_gives_no_bytes_is_passed_over(
    board: Board, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = Slots.open

    def broken(slots: Slots, slot: str) -> Any:
        if slot == two[0]:
            raise OSError(5, "Input/output error")
        return opens(slots, slot)

    monkeypatch.setattr(Slots, "open", broken)
    loaded = load_reader(board)
    assert [(slot, reason.code) for slot, reason in loaded.slots_passed_over] == [(two[0], "bundle.unreadable")]


def test_a_damaged_state_is_told_and_the_factory_model_runs(board: Board, two: tuple[str, str]) -> None:
    (board.data_dir / "update" / "state.json").write_text("{")
    loaded = load_reader(board)
    assert loaded.slot == FACTORY
    ((slot, reason),) = loaded.slots_passed_over
    assert (slot, reason.code) == (load.STATE, "update.state-damaged")


def test_nothing_works(board: Board, two: tuple[str, str], tmp_path: Path) -> None:
    shutil.rmtree(board.data_dir / "slots")
    alone = dataclasses.replace(board, worker=dataclasses.replace(board.worker, bundle=tmp_path / "nowhere"))
    with pytest.raises(BundleError) as caught:
        load_reader(alone)
    assert caught.value.code == "bundle.missing"


def test_order() -> None:
    assert candidates(FACTORY_STATE) == (FACTORY,)
    assert candidates(dataclasses.replace(FACTORY_STATE, previous="b" * 64)) == (FACTORY, "b" * 64)
    assert candidates(dataclasses.replace(FACTORY_STATE, active="a" * 64)) == ("a" * 64, FACTORY)
