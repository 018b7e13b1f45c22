"""Whole updates on a real box: what is in use afterwards, what was told, and what a cut in the middle leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from edge import durable, durable_names
from edge.care.update import install as steps
from edge.care.update.install import confirm, roll_back_by_person, verify
from edge.care.update.selftest import SelfTest, build, p95, picture, self_test
from edge.errors import UpdateError
from edge.slots import FACTORY, Proposal, Trial, crashed, good_case
from edge.trust import Budget
from tests.update_box import BUNDLE, ID, VERSION, Box, changed_bundle, new_organisation, open_box
from tools.update.receipts import read_receipt

TESTED = SelfTest(0.1, 1 << 20, 20, "tflite")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A new box."""
    with open_box(tmp_path / "data", new_organisation(tmp_path / "keys")) as box:
        yield box


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the steps that load the model; the tests of this file without it do not."""
    monkeypatch.setattr(steps, "build", lambda bundle, board: ("tflite",))
    monkeypatch.setattr(steps, "self_test", lambda bundle, board, backends, budget: TESTED)
    monkeypatch.setattr(steps, "compare", lambda board, store, bundle, limit: (0, 0))


def make_stick(box: Box, path: Path, version: int, bundle: Path = BUNDLE, **options: object) -> str:
    """A stick at `path`; returns the slot of its bundle."""
    top = box.organisation.stick(path, bundle, version, id=ID, **options)  # type: ignore[arg-type]
    (targets,) = top.glob("bundles/*/targets.json")
    return hashlib.sha256(targets.read_bytes()).hexdigest()


@pytest.mark.requirement("UPD-03")
def test_an_update_is_tested_taken_and_told(box: Box, tmp_path: Path) -> None:
    slot = make_stick(box, tmp_path / "stick", 1, label="0.2.0")
    result = box.install(tmp_path / "stick")
    assert result.outcome.code == "update.installed"
    state = box.state
    assert (state.active, state.previous, state.trial) == (slot, FACTORY, Trial(slot, 0, 0, 0))
    assert (state.root_version, state.snapshot_version, state.versions) == (1, 1, {ID: 1})
    assert box.slots.open_best()[0] == slot
    assert box.codes() == ["update.installed"]
    assert [(row.state, row.code) for row in box.store.services()] == [("ok", "update.installed")]
    assert result.receipt is not None
    receipt = read_receipt(result.receipt.content)
    assert (receipt.number, receipt.board, receipt.slot, receipt.code) == (1, "sim", slot, "update.installed")
    assert (receipt.from_label, receipt.to_label) == (f"{ID} {VERSION}", f"{ID} 0.2.0")
    assert receipt.self_test is not None
    assert receipt.self_test.cases == 20
    assert 0 < receipt.self_test.p95_s < 60
    assert 50 << 20 < receipt.self_test.memory_bytes < 2 << 30


@pytest.mark.parametrize(
    ("budget", "code"),
    [(Budget(0.001, 4 << 30), "update.too-slow"), (Budget(60.0, 20 << 20), "update.too-much-memory")],
)
def test_a_model_over_its_budget_is_not_taken(box: Box, tmp_path: Path, budget: Budget, code: str) -> None:
    make_stick(box, tmp_path / "stick", 1, budgets={"sim": budget, "*": Budget(60.0, 4 << 30)})
    assert box.install(tmp_path / "stick").outcome.code == code
    assert (box.state.active, box.state.versions, box.codes()) == (FACTORY, {}, [code])


def test_a_model_that_does_not_run_is_not_taken(box: Box, tmp_path: Path) -> None:
    broken = changed_bundle(tmp_path / "bundle", encoder_tflite=b"not a model", encoder_onnx=b"nor this")
    make_stick(box, tmp_path / "stick", 1, broken)
    result = box.install(tmp_path / "stick")
    assert (result.outcome.code, box.state.active) == ("update.self-test", FACTORY)
    assert "tflite" in result.detail


@pytest.mark.requirement("UPD-03")
def test_a_model_with_wrong_numbers_is_not_taken(box: Box, tmp_path: Path) -> None:
    weights = bytearray((BUNDLE / "decoder.safetensors").read_bytes())
    weights[8:40] = b"\0" * 32
    make_stick(box, tmp_path / "stick", 1, changed_bundle(tmp_path / "bundle", decoder_safetensors=bytes(weights)))
    assert box.install(tmp_path / "stick").outcome.code == "update.self-test"


def test_the_self_test_ends_a_child_that_hangs_or_grows(box: Box) -> None:
    bundle = box.slots.open(FACTORY)
    with pytest.raises(UpdateError) as raised:
        self_test(bundle, box.board, ("tflite",), None, timeout_s=0.2)
    assert raised.value.code == "update.self-test"
    with pytest.raises(UpdateError) as raised:
        self_test(bundle, box.board, ("null",), None)
    assert raised.value.code == "update.self-test"
    board = dataclasses.replace(box.board, worker=dataclasses.replace(box.board.worker, backends=("null",)))
    with pytest.raises(UpdateError) as raised:
        build(bundle, board)
    assert raised.value.code == "update.self-test"


def test_the_built_in_picture_is_always_the_same() -> None:
    (one,), (two,) = picture().radiographs, picture().radiographs
    assert one.pixels.shape == (1024, 1024)
    assert (one.pixels == two.pixels).all()


def test_p95_is_the_nearest_rank() -> None:
    assert p95([3.0, 1.0, 2.0]) == 3.0
    assert p95([float(number) for number in range(1, 21)]) == 19.0


@pytest.mark.usefixtures("quick")
def test_a_model_that_would_change_reports_waits_for_a_yes(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "compare", lambda board, store, bundle, limit: (100, 7))
    slot = make_stick(box, tmp_path / "stick", 1)
    result = box.install(tmp_path / "stick")
    assert result.outcome.code == "update.proposed"
    assert "7 of 100" in result.outcome.message
    assert (box.state.active, box.state.proposal) == (FACTORY, Proposal(slot, "0.1.0", 100, 7))
    assert box.install(tmp_path / "stick").outcome.code == "update.proposed"  # the stick again, before the yes
    result = confirm(box.board, box.store)
    assert (result.outcome.code, box.state.active, box.state.proposal) == ("update.installed", slot, None)
    assert (box.state.trial, box.state.versions) == (Trial(slot, 0, 0, 0), {ID: 1})
    assert confirm(box.board, box.store).outcome.code == "update.nothing-waits"


@pytest.mark.usefixtures("quick")
def test_without_confirm_or_without_changes_nobody_is_asked(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "compare", lambda board, store, bundle, limit: (100, 0))
    make_stick(box, tmp_path / "one", 1)
    assert box.install(tmp_path / "one").outcome.code == "update.installed"
    monkeypatch.setattr(steps, "compare", lambda board, store, bundle, limit: (100, 9))
    box.board = dataclasses.replace(box.board, update=dataclasses.replace(box.board.update, confirm=False))
    make_stick(box, tmp_path / "two", 2)
    assert box.install(tmp_path / "two").outcome.code == "update.installed"


@pytest.mark.usefixtures("quick")
def test_a_proposal_that_was_revoked_meanwhile_is_not_confirmed(box: Box, tmp_path: Path) -> None:
    slot = make_stick(box, tmp_path / "stick", 1)
    box.install(tmp_path / "stick")
    box.slots.change(
        lambda state: dataclasses.replace(
            state, active=FACTORY, trial=None, proposal=Proposal(slot, "0.1.0", 1, 1), revoked=(slot,)
        )
    )
    assert confirm(box.board, box.store).outcome.code == "update.revoked"
    assert box.state.active == FACTORY


@pytest.mark.usefixtures("quick")
def test_a_second_update_keeps_what_ran_and_forgets_what_ran_before_that(box: Box, tmp_path: Path) -> None:
    slots = []
    for version in (1, 2, 3):
        slots.append(make_stick(box, tmp_path / str(version), version))
        box.install(tmp_path / str(version))
        box.slots.change(lambda state: good_case(state, 1))
    assert (box.state.active, box.state.previous) == (slots[2], slots[1])
    kept = {path.name for path in (box.board.data_dir / "slots").iterdir()}
    assert kept == {slots[1], slots[2]}


@pytest.mark.usefixtures("quick")
def test_a_model_that_failed_here_is_not_tried_again(box: Box, tmp_path: Path) -> None:
    slot = make_stick(box, tmp_path / "stick", 1)
    box.install(tmp_path / "stick")
    box.slots.change(lambda state: crashed(state, 1))
    assert (box.state.active, box.state.failed) == (FACTORY, (slot,))
    assert box.install(tmp_path / "stick").outcome.code == "update.failed-before"


@pytest.mark.usefixtures("quick")
def test_a_person_goes_back_and_forth(box: Box, tmp_path: Path) -> None:
    slot = make_stick(box, tmp_path / "stick", 1)
    box.install(tmp_path / "stick")
    box.slots.change(lambda state: good_case(state, 1))
    assert roll_back_by_person(box.board, box.store).outcome.code == "update.rolled-back-person"
    assert (box.state.active, box.state.previous) == (FACTORY, slot)
    assert roll_back_by_person(box.board, box.store).outcome.code == "update.rolled-back-person"
    assert (box.state.active, box.state.previous) == (slot, FACTORY)


@pytest.mark.usefixtures("quick")
def test_a_model_that_a_person_left_on_trial_may_be_taken_once_more(box: Box, tmp_path: Path) -> None:
    slot = make_stick(box, tmp_path / "stick", 1)
    box.install(tmp_path / "stick")
    assert box.install(tmp_path / "stick").outcome.code == "update.not-newer"
    roll_back_by_person(box.board, box.store)
    assert box.state.proposal == Proposal(slot, "", 0, 0)
    assert box.install(tmp_path / "stick").outcome.code == "update.not-newer"  # it waits already
    box.slots.change(lambda state: dataclasses.replace(state, proposal=None))
    assert box.install(tmp_path / "stick").outcome.code == "update.installed"
    assert (box.state.active, box.state.trial) == (slot, Trial(slot, 0, 0, 0))


def test_a_new_box_has_nothing_to_go_back_to(box: Box) -> None:
    assert roll_back_by_person(box.board, box.store).outcome.code == "update.rollback-forbidden"


@pytest.mark.usefixtures("quick")
def test_an_active_model_that_is_revoked_is_left_though_the_new_one_fails(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_stick(box, tmp_path / "one", 1, changed_bundle(tmp_path / "other", card_md=b"Another card.\n"))
    box.install(tmp_path / "one")

    def too_slow(*_: object) -> SelfTest:
        raise UpdateError("expected less, got more", code="update.too-slow")

    monkeypatch.setattr(steps, "self_test", too_slow)
    offer = box.slots.offer(first)
    assert offer is not None
    make_stick(box, tmp_path / "two", 2, revokes=(offer.manifest_sha256,))
    assert box.install(tmp_path / "two").outcome.code == "update.too-slow"
    assert (box.state.active, box.state.previous, box.state.trial) == (FACTORY, FACTORY, None)
    assert box.state.revoked == (offer.manifest_sha256,)
    assert box.codes()[:2] == ["update.too-slow", "update.revoked"]


@pytest.mark.usefixtures("quick")
def test_a_box_follows_a_rotation_of_keys(box: Box, tmp_path: Path) -> None:
    organisation = box.organisation
    first = make_stick(box, tmp_path / "one", 1)
    box.install(tmp_path / "one")
    box.slots.change(lambda state: good_case(state, 1))
    lost, *others = organisation.release_keys
    fresh = type(lost).generate_ed25519()
    organisation.rotate({"targets": [fresh]}, [lost], organisation.root_keys[:2])
    organisation.release_keys = [fresh, *others]
    second = make_stick(box, tmp_path / "two", 2)
    assert box.install(tmp_path / "two").outcome.code == "update.installed"
    assert (box.state.active, box.state.previous, box.state.root_version) == (second, first, 2)
    box.slots.open(first)  # to go back to, though one of its keys is gone
    organisation.release_keys = [lost, *others]
    make_stick(box, tmp_path / "three", 3, signers=[lost, others[0]])
    assert box.install(tmp_path / "three").outcome.code == "update.too-few-signatures"


@pytest.mark.usefixtures("quick")
def test_counters_run_up_by_thieves_do_not_keep_honest_updates_out(box: Box, tmp_path: Path) -> None:
    organisation = box.organisation
    make_stick(box, tmp_path / "theirs", 2**31 - 1, epoch=2**31 - 1)
    box.install(tmp_path / "theirs")
    box.slots.change(lambda state: good_case(state, 1))
    assert box.state.epoch == 2**31 - 1
    maker = type(organisation.snapshot_key)
    fresh = [maker.generate_ed25519() for _ in range(4)]
    stolen = [*organisation.release_keys, organisation.snapshot_key]
    organisation.rotate({"targets": fresh[:3], "snapshot": fresh[3:]}, stolen, organisation.root_keys[:2])
    organisation.release_keys, organisation.snapshot_key = fresh[:3], fresh[3]
    slot = make_stick(box, tmp_path / "ours", 5)
    assert box.install(tmp_path / "ours").outcome.code == "update.installed"
    state = box.state
    assert (state.active, state.previous, state.epoch, state.versions) == (slot, FACTORY, 0, {ID: 5})


@pytest.mark.usefixtures("quick")
def test_of_several_bundles_the_one_for_this_box_is_taken(box: Box, tmp_path: Path) -> None:
    wanted = make_stick(box, tmp_path / "stick", 2)
    for name, options in (("other", {"boards": ("jetson",)}), ("older", {"version": 1})):
        top = box.organisation.stick(tmp_path / name, BUNDLE, **{"version": 2, "id": ID, **options})  # type: ignore[arg-type]
        (bundle,) = top.glob("bundles/*")
        shutil.copytree(bundle, tmp_path / "stick" / "EDGE-UPDATE" / "bundles" / name)
    assert box.install(tmp_path / "stick").outcome.code == "update.installed"
    assert box.state.active == wanted


def test_a_full_box_refuses_early(box: Box, tmp_path: Path) -> None:
    box.board = dataclasses.replace(box.board, receive=dataclasses.replace(box.board.receive, min_free_bytes=1 << 50))
    make_stick(box, tmp_path / "stick", 1)
    assert box.install(tmp_path / "stick").outcome.code == "update.no-room"


def test_two_updates_at_once_are_one_too_many(box: Box, tmp_path: Path) -> None:
    make_stick(box, tmp_path / "stick", 1)
    durable.make_directory(box.board.data_dir / "slots")
    with durable.locked(box.board.data_dir / "slots"):
        assert box.install(tmp_path / "stick").outcome.code == "update.busy"


def test_verify_changes_nothing(box: Box, tmp_path: Path) -> None:
    slot = make_stick(box, tmp_path / "stick", 1)
    before = sorted(box.board.data_dir.rglob("*"))
    assert verify(box.board, tmp_path / "stick").slot == slot
    assert sorted(box.board.data_dir.rglob("*")) == before
    (tmp_path / "stick" / "EDGE-UPDATE" / "bundles" / f"{ID}-1" / "files" / "card.md").write_bytes(b"")
    with pytest.raises(UpdateError):
        verify(box.board, tmp_path / "stick")


class _CutError(BaseException):
    """The power is gone."""


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.requirement("UPD-05")
def test_a_cut_after_any_write_leaves_a_working_box_and_the_next_try_succeeds(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    organisation = box.organisation
    fresh = type(organisation.snapshot_key).generate_ed25519()
    organisation.rotate({"snapshot": [fresh]}, [organisation.snapshot_key], organisation.root_keys[:2])
    organisation.snapshot_key = fresh
    slot = make_stick(box, tmp_path / "stick", 1)
    clean = tmp_path / "clean"
    shutil.copytree(box.board.data_dir, clean)
    cuts = 0
    while True:
        left = [cuts]

        def fsync(path: Path, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise _CutError

        shutil.rmtree(box.board.data_dir / "slots", ignore_errors=True)
        shutil.rmtree(box.board.data_dir / "update", ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "fsync_directory", fsync)
            patch.setattr(durable_names, "fsync_directory", fsync)
            try:
                box.install(tmp_path / "stick")
            except _CutError:
                pass
            else:
                break
        opened, _, passed_over = box.slots.open_best()
        assert (opened in (FACTORY, slot), passed_over) == (True, ())
        assert box.install(tmp_path / "stick").outcome.code in ("update.installed", "update.not-newer")
        assert box.slots.open_best()[0] == slot
        assert [path.name for path in (box.board.data_dir / "slots").iterdir()] == [slot]
        cuts += 1
    assert cuts > 15


def test_a_killed_installation_is_taken_up_again(box: Box, tmp_path: Path) -> None:
    slot = make_stick(box, tmp_path / "stick", 1)
    program = f"""
import dataclasses, os, signal
from pathlib import Path
from edge import slots
from edge.board import load_board
from edge.care.update import install
from edge.store import open_store
from edge.trust import root
root.FACTORY_ROOT = Path({str(box.organisation.root_file)!r})
install.build = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
board = dataclasses.replace(load_board(Path("board_configs/sim.toml")), data_dir=Path({str(box.board.data_dir)!r}))
install.install(board, open_store(board.data_dir), Path({str(tmp_path / "stick")!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, cwd=BUNDLE.parent.parent.parent)
    assert done.returncode == -9
    assert (box.state.active, box.slots.open_best()[0]) == (FACTORY, FACTORY)
    assert (box.board.data_dir / "slots" / slot / "targets.json").is_file()
    assert box.install(tmp_path / "stick").outcome.code == "update.installed"


def test_a_stick_whose_bundle_is_refused_still_brings_its_root(box: Box, tmp_path: Path, quick: None) -> None:
    """A stolen key is replaced with any stick; the model on it may be one that the box has already."""
    make_stick(box, tmp_path / "one", 1)
    assert box.install(tmp_path / "one").outcome.code == "update.installed"
    organisation = box.organisation
    joins = CryptoSigner(Ed25519PrivateKey.generate())
    organisation.rotate({"targets": [joins]}, [organisation.release_keys[2]], organisation.root_keys[:2])
    make_stick(box, tmp_path / "two", 1)
    assert box.install(tmp_path / "two").outcome.code == "update.not-newer"
    assert box.state.root_version == 2
    assert box.slots.trusted(box.state).root == organisation.root
    assert box.slots.open_best()[0] == box.state.active != FACTORY
