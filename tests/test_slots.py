"""Which model runs: the decisions as pure functions, then the disk around them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import slot_state
from edge.errors import BundleError, UpdateError
from edge.slots import (
    DAMAGED,
    FACTORY,
    FACTORY_STATE,
    PERSON,
    Outcome,
    Proposal,
    Slots,
    SlotState,
    Trial,
    activate,
    crashed,
    good_case,
    in_use,
    leave,
    parse_state,
    propose,
    revoke,
    roll_back,
    slow_case,
    state_bytes,
)
from tests.update_box import BUNDLE, Box, new_organisation, open_box
from tests.update_stick import slot_of

A, B, C = "a" * 64, "b" * 64, "c" * 64
BACK = Outcome(PERSON, "A person asked.")
ON_TRIAL = activate(dataclasses.replace(FACTORY_STATE, active=A), B)


def test_activate_begins_a_trial_and_keeps_what_ran() -> None:
    assert (ON_TRIAL.active, ON_TRIAL.previous, ON_TRIAL.trial) == (B, A, Trial(B, 0, 0, 0))


def test_activate_during_a_trial_keeps_the_proven_model() -> None:
    after = activate(ON_TRIAL, C)
    assert (after.active, after.previous) == (C, A)


def test_activating_the_proven_model_ends_the_trial_of_another() -> None:
    proven = good_case(activate(FACTORY_STATE, B), 1)
    after = activate(activate(proven, A), B)
    assert (after.active, after.previous, after.trial) == (B, FACTORY, None)


def test_activate_of_the_active_model_changes_nothing_but_the_proposal() -> None:
    waiting = propose(ON_TRIAL, Proposal(B, "1.0", 1, 1))
    assert activate(waiting, B) == ON_TRIAL


def test_good_cases_end_the_trial() -> None:
    state = ON_TRIAL
    for good in range(1, 3):
        state = good_case(state, 3)
        assert state.trial == Trial(B, good, 0, 0)
    state = good_case(state, 3)
    assert (state.active, state.previous, state.trial) == (B, A, None)
    assert good_case(state, 3) == state


@pytest.mark.parametrize(
    ("count", "code"), [(crashed, "update.rolled-back-crash"), (slow_case, "update.rolled-back-slow")]
)
def test_the_limit_brings_the_box_back(count: object, code: str) -> None:
    step = getattr(slot_state, "crashed" if count is crashed else "slow_case")
    once = step(ON_TRIAL, 2)
    assert once.active == B
    twice = step(once, 2)
    assert (twice.active, twice.previous, twice.trial, twice.failed) == (A, FACTORY, None, (B,))
    assert twice.last is not None
    assert twice.last.code == code
    assert step(twice, 2) == twice  # without a trial nothing is counted


def test_a_person_swaps_two_proven_models() -> None:
    proven = dataclasses.replace(ON_TRIAL, trial=None)
    back = roll_back(proven, BACK)
    assert (back.active, back.previous, back.failed) == (A, B, ())
    assert roll_back(back, BACK).active == B


def test_a_person_who_leaves_a_trial_may_begin_it_anew() -> None:
    back = roll_back(ON_TRIAL, BACK)
    assert (back.active, back.previous, back.trial, back.proposal) == (A, FACTORY, None, Proposal(B, "", 0, 0))
    assert activate(back, B).trial == Trial(B, 0, 0, 0)


def test_rolling_back_never_lands_on_a_failed_or_revoked_model() -> None:
    for state in (dataclasses.replace(ON_TRIAL, failed=(A,)), dataclasses.replace(ON_TRIAL, revoked=(A,))):
        assert roll_back(state, BACK).active == FACTORY
        assert crashed(state, 1).active == FACTORY


def test_revoking_the_active_model_leaves_it_at_once() -> None:
    assert (revoke(ON_TRIAL, [B]).active, revoke(ON_TRIAL, [B]).trial) == (A, None)
    both = revoke(ON_TRIAL, [A, B])
    assert (both.active, both.previous, both.revoked) == (FACTORY, FACTORY, (A, B))


def test_revoking_the_previous_model_forgets_it() -> None:
    after = revoke(ON_TRIAL, [A])
    assert (after.active, after.previous, after.trial) == (B, FACTORY, ON_TRIAL.trial)


def test_a_barred_proposal_is_dropped() -> None:
    assert leave(propose(ON_TRIAL, Proposal(C, "1", 1, 1)), {C}) == ON_TRIAL


def test_revocations_never_grow_past_what_can_be_read_back() -> None:
    many = [f"{number:064x}" for number in range(slot_state.REVOKED_LIMIT + 50)]
    after = revoke(FACTORY_STATE, many)
    assert after.revoked == tuple(many[50:])
    assert parse_state(state_bytes(after)) == after


SLOT = st.sampled_from([A, B, C])
STEP = st.one_of(
    st.builds(lambda slot: lambda state: activate(state, slot), SLOT),
    st.builds(lambda slot: lambda state: propose(state, Proposal(slot, "1", 2, 1)), SLOT),
    st.builds(lambda slot: lambda state: revoke(state, [slot]), SLOT),
    st.just(lambda state: good_case(state, 2)),
    st.just(lambda state: crashed(state, 2)),
    st.just(lambda state: slow_case(state, 2)),
    st.just(lambda state: roll_back(state, BACK)),
)


@given(st.lists(STEP, max_size=12))
def test_whatever_happens_the_state_can_be_read_back_and_the_trial_is_the_active_model(steps: list[object]) -> None:
    state = FACTORY_STATE
    for step in steps:
        state = step(state)  # type: ignore[operator]
        assert parse_state(state_bytes(state)) == state
        assert state.trial is None or state.trial.slot == state.active
        assert FACTORY not in in_use(state)
        assert state.previous != state.active or state.active == FACTORY


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"active": "../../etc"},
        {"active": A[:63]},
        {"trial": {"slot": A, "good": 0, "crashes": 0, "slow": 0}},
        {"epoch": -1},
        {"versions": {"x": "1"}},
        {"unknown": 1},
        {"last": None, "failed": [1]},
    ],
)
def test_a_state_of_another_form_is_damaged(change: dict[str, object]) -> None:
    document = json.loads(state_bytes(FACTORY_STATE)) | change
    with pytest.raises(BundleError) as raised:
        parse_state(json.dumps(document).encode())
    assert raised.value.code == DAMAGED


# --- disk ---


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A new box."""
    with open_box(tmp_path / "data", new_organisation(tmp_path / "keys")) as box:
        yield box


def fill(box: Box, tmp_path: Path, version: int, **options: object) -> str:
    """A slot as staging leaves it; returns its name."""
    stick = box.organisation.stick(tmp_path / f"stick{version}", BUNDLE, version, **options)  # type: ignore[arg-type]
    slot = slot_of(stick, box.organisation.root)
    (bundle,) = stick.glob("bundles/*")
    folder = box.slots.folder(slot)
    shutil.copytree(bundle / "files", folder)
    shutil.copy(bundle / "targets.json", folder)
    return slot


def set_active(box: Box, slot: str, previous: str = FACTORY) -> None:
    """Run `slot`, proven."""
    box.slots.change(lambda state: dataclasses.replace(state, active=slot, previous=previous))


def test_a_new_box_runs_the_factory_model(box: Box) -> None:
    assert box.state == FACTORY_STATE
    slot, bundle, passed_over = box.slots.open_best()
    assert (slot, bundle.path, passed_over) == (FACTORY, BUNDLE, ())


@pytest.mark.requirement("UPD-01")
def test_a_slot_opens_by_its_signed_metadata(box: Box, tmp_path: Path) -> None:
    slot = fill(box, tmp_path, 1)
    set_active(box, slot)
    opened, bundle, _ = box.slots.open_best()
    assert (opened, bundle.path) == (slot, box.slots.folder(slot))
    offer = box.slots.offer(slot)
    assert offer is not None
    assert (offer.slot, offer.version) == (slot, 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 100, b"x" * (2 << 20)])
def test_a_damaged_state_halts_nothing_and_says_so(box: Box, content: bytes) -> None:
    path = box.board.data_dir / "update" / "state.json"
    path.parent.mkdir()
    path.write_bytes(content)
    slot, _, passed_over = box.slots.open_best()
    assert slot == FACTORY
    assert [(name, error.code) for name, error in passed_over] == [("state", DAMAGED)]
    box.slots.change(lambda state: dataclasses.replace(state, last=None))
    assert box.state == FACTORY_STATE


@pytest.mark.parametrize("name", ["decoder.safetensors", "manifest.json", "card.md", "targets.json"])
@pytest.mark.requirement("UPD-05")
def test_a_damaged_slot_is_passed_over(box: Box, tmp_path: Path, name: str) -> None:
    first, second = fill(box, tmp_path, 1), fill(box, tmp_path, 2)
    set_active(box, second, first)
    path = box.slots.folder(second) / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    slot, _, passed_over = box.slots.open_best()
    assert slot == first
    assert [(name, error.code) for name, error in passed_over] == [(second, "bundle.hash")]


def test_a_missing_slot_and_a_missing_file_are_passed_over(box: Box, tmp_path: Path) -> None:
    first, second = fill(box, tmp_path, 1), fill(box, tmp_path, 2)
    set_active(box, second, first)
    shutil.rmtree(box.slots.folder(second))
    (box.slots.folder(first) / "encoder.onnx").unlink()
    slot, _, passed_over = box.slots.open_best()
    assert slot == FACTORY
    assert [error.code for _, error in passed_over] == ["bundle.missing", "bundle.file-missing"]


@pytest.mark.requirement("UPD-02")
def test_revoked_and_too_old_models_do_not_open(box: Box, tmp_path: Path) -> None:
    slot = fill(box, tmp_path, 1, epoch=1)
    offer = box.slots.offer(slot)
    assert offer is not None
    for change, code in (
        ({"revoked": (slot,)}, "update.revoked"),
        ({"revoked": (offer.manifest_sha256,)}, "update.revoked"),
        ({"epoch": 2}, "update.epoch"),
    ):
        box.slots.change(lambda state, change=change: dataclasses.replace(FACTORY_STATE, **change))  # type: ignore[misc]
        with pytest.raises(BundleError) as raised:
            box.slots.open(slot)
        assert raised.value.code == code


@pytest.mark.parametrize("name", ["../slots", "", ".", "A" * 64, "a" * 63 + "/"])
def test_nothing_but_a_hash_becomes_a_path(box: Box, name: str) -> None:
    with pytest.raises(BundleError):
        box.slots.open(name)


def test_a_passed_trial_raises_the_epoch_and_a_running_one_counts_for_offers(box: Box, tmp_path: Path) -> None:
    slot = fill(box, tmp_path, 1, epoch=4)
    state = box.slots.change(lambda state: activate(state, slot))
    assert (state.epoch, box.slots.trusted(state).epoch) == (0, 4)
    assert box.slots.change(lambda state: good_case(state, 2)).epoch == 0
    assert box.slots.change(lambda state: good_case(state, 2)).epoch == 4


def test_a_person_may_not_go_back_under_the_epoch(box: Box, tmp_path: Path) -> None:
    first, second = fill(box, tmp_path, 1, epoch=1), fill(box, tmp_path, 2, epoch=2)
    set_active(box, second, first)
    box.slots.check_rollback(box.state)
    box.slots.change(lambda state: dataclasses.replace(state, epoch=2))
    for state in (box.state, FACTORY_STATE):
        with pytest.raises(UpdateError) as raised:
            box.slots.check_rollback(state)
        assert raised.value.code == "update.rollback-forbidden"


def test_a_death_while_loading_counts_only_in_the_same_boot_and_on_trial(box: Box, tmp_path: Path) -> None:
    slot = fill(box, tmp_path, 1)
    box.slots.change(lambda state: activate(state, slot))
    assert not box.slots.starting("boot 1")
    assert not box.slots.starting("boot 2")  # the power was cut
    assert box.slots.starting("boot 2")  # the worker died
    box.slots.started()
    assert not box.slots.starting("boot 2")
    box.slots.started()
    set_active(box, FACTORY)
    box.slots.change(lambda state: dataclasses.replace(state, trial=None))
    assert not box.slots.starting("boot 2")
    assert not box.slots.starting("boot 2")


def test_changes_of_many_processes_are_not_lost(box: Box) -> None:
    program = """
import dataclasses, sys
from pathlib import Path
from edge.slots import Slots
slots = Slots(Path(sys.argv[1]), Path("."))
for _ in range(10):
    slots.change(lambda state: dataclasses.replace(state, snapshot_version=state.snapshot_version + 1))
"""
    command = [sys.executable, "-c", program, str(box.board.data_dir)]
    children = [subprocess.Popen(command, env=dict(os.environ)) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert box.state.snapshot_version == 30


def test_a_lost_key_takes_no_model_away_but_stolen_keys_do(box: Box, tmp_path: Path) -> None:
    organisation = box.organisation
    slot = fill(box, tmp_path, 1)
    set_active(box, slot)
    one, two, three = organisation.release_keys
    fresh = [type(one).generate_ed25519() for _ in range(3)]
    keys = organisation.root_keys[:2]

    def trust_newest() -> None:
        box.slots.keep_roots(organisation.roots[1:])
        version = len(organisation.roots)
        box.slots.change(lambda state: dataclasses.replace(state, root_version=version))

    organisation.rotate({"targets": fresh[:1]}, [one], keys)
    trust_newest()
    assert box.slots.open_best()[0] == slot
    organisation.rotate({"targets": fresh[1:]}, [two, three], keys)
    trust_newest()
    chosen, _, passed_over = box.slots.open_best()
    assert chosen == FACTORY
    assert [error.code for _, error in passed_over] == ["update.wrong-key"]


def test_a_damaged_root_ends_the_trust_in_what_it_vouched_for(box: Box) -> None:
    organisation = box.organisation
    fresh = type(organisation.release_keys[0]).generate_ed25519()
    organisation.rotate({"targets": [fresh]}, organisation.release_keys[:1], organisation.root_keys[:2])
    box.slots.keep_roots(organisation.roots[1:])
    state = box.slots.change(lambda state: dataclasses.replace(state, root_version=2))
    assert len(box.slots.roots(state)) == 2
    (box.board.data_dir / "update" / "roots" / "2.root.json").write_bytes(b"{}")
    assert box.slots.roots(state) == (organisation.roots[0],)
    (box.board.data_dir / "update" / "roots" / "2.root.json").unlink()
    assert box.slots.roots(state) == (organisation.roots[0],)


def test_a_bundle_whose_manifest_names_unsigned_files_does_not_open(box: Box, tmp_path: Path) -> None:
    stick = box.organisation.stick(tmp_path / "stick", BUNDLE, 1)
    (bundle,) = stick.glob("bundles/*")
    document = json.loads((bundle / "targets.json").read_bytes())["signed"]
    del document["targets"]["card.md"]
    from tools.update.sign import sign_document

    targets = sign_document(document, box.organisation.release_keys[:2])
    (bundle / "targets.json").write_bytes(targets)
    slot = slot_of(stick, box.organisation.root)
    shutil.copytree(bundle / "files", box.slots.folder(slot))
    (box.slots.folder(slot) / "targets.json").write_bytes(targets)
    with pytest.raises(BundleError) as raised:
        box.slots.open(slot)
    assert raised.value.code == "bundle.manifest"


def test_state_is_a_plain_document(box: Box) -> None:
    box.slots.change(lambda state: activate(state, A))
    document = json.loads((box.board.data_dir / "update" / "state.json").read_text())
    assert set(document) == {field.name for field in dataclasses.fields(SlotState)}
    assert Slots(box.board.data_dir, BUNDLE).read() == box.state
