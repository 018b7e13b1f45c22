"""Who may read after what: the ladder of a failing backend, pure, and the notes that a dead worker leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge.reading import escalation
from edge.reading.escalation import Escalation, as_fact, died, failed, forgiven, found, from_fact, opened, refused
from edge.reading.notes import FILE, RECORD_BYTES, Death, Notes
from edge.reading.patience import Patience
from edge.store_paths import boot_id
from tests.worker_process import ROOT

NAMES = ("npu", "gpu", "cpu")
BOX = Patience()


def fail(state: Escalation, name: str, now_s: float = 0.0) -> tuple[Escalation, str]:
    return failed(state, name, "backend.run", "It failed.", now_s, BOX.probe_pause_s)


def die(state: Escalation, name: str, now_s: float = 0.0) -> Escalation:
    return died(state, name, "worker.deadline", "It hung.", now_s, BOX.probe_pause_s)


def refuse(state: Escalation, name: str, now_s: float) -> Escalation:
    return refused(state, name, "backend.golden", "It is off.", now_s, BOX.probe_pause_s)


# --- the ladder ---


@pytest.mark.requirement("KEEP-03")
def test_errors_climb_retry_restart_next() -> None:
    state, first = fail(opened(Escalation(), "npu"), "npu")
    state, second = fail(state, "npu")
    assert state.may_open(NAMES, 0.0) == NAMES
    state, third = fail(state, "npu")
    assert (first, second, third) == ("retry", "restart", "next")
    assert state.may_open(NAMES, 0.0) == ("gpu", "cpu")
    assert state.of("npu").message == "It failed."


def test_a_death_counts_as_the_restart_and_the_second_one_ends_it() -> None:
    once = die(Escalation(), "npu")
    assert once.may_open(NAMES, 0.0) == NAMES
    assert die(once, "npu").may_open(NAMES, 0.0) == ("gpu", "cpu")
    after_an_error, _ = fail(Escalation(), "npu")
    assert not die(after_an_error, "npu").of("npu").lost
    assert fail(once, "npu")[1] == "next"


def test_a_lost_backend_is_tried_after_a_minute_then_less_and_less_often() -> None:
    state = opened(refuse(Escalation(), "npu", 1000.0), "gpu")
    assert state.preferred(NAMES) == ("npu",)
    now_s, pauses = 1000.0, []
    for _ in range(7):
        due_s = state.of("npu").next_probe_s
        assert state.due(NAMES, due_s - 0.1) == ()
        assert state.due(NAMES, due_s) == ("npu",)
        pauses.append(due_s - now_s)
        now_s = due_s
        state = refuse(state, "npu", now_s)
    assert pauses == [60, 120, 240, 480, 900, 900, 900]


def test_a_backend_found_again_has_one_chance_and_longer_and_longer_pauses() -> None:
    state, now_s, pauses = Escalation(), 0.0, []
    for _ in range(5):
        while not state.of("npu").lost:
            state = die(state, "npu", now_s)
        pauses.append(state.of("npu").next_probe_s - now_s)
        state = found(state, "npu")
        assert state.may_open(NAMES, now_s) == NAMES
        assert fail(state, "npu")[1] == "next"
    assert pauses == [60, 120, 240, 480, 900]
    lost = refuse(Escalation(), "npu", 0.0)
    assert opened(lost, "npu") == opened(found(lost, "npu"), "npu")
    assert fail(forgiven(state, "npu"), "npu")[1] == "retry"


def test_when_none_is_left_each_gets_its_turn() -> None:
    state = refuse(refuse(die(die(Escalation(), "npu"), "npu"), "gpu", 100.0), "cpu", 130.0)
    assert state.healthy(NAMES) == ()
    assert state.may_open(NAMES, 131.0) == ("npu",), "lost by count, and never tried since: at once"
    state = refuse(state, "npu", 140.0)
    assert state.may_open(NAMES, 141.0) == ()
    assert state.wait_s(NAMES, 141.0) == pytest.approx(19.0)
    assert state.may_open(NAMES, 160.0) == ("gpu",)
    assert escalation.due_now(state, 141.0).may_open(NAMES, 141.0) == NAMES, "a person asked"


def test_the_state_survives_a_restart_of_the_worker() -> None:
    state = opened(refuse(die(Escalation(), "gpu"), "npu", 5.0), "gpu")
    fact = json.loads(json.dumps(as_fact(state, NAMES)))
    assert from_fact(fact) == state
    assert fact["backend"]["npu"]["lost"] is True
    assert (fact["order"], fact["at_work"]) == (list(NAMES), "gpu")


@pytest.mark.parametrize("damaged", [{}, {"backend": {"npu": {}}, "at_work": ""}, {"backend": [], "at_work": ""}])
def test_a_state_that_is_none_is_told(damaged: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected the state of the backends"):
        from_fact(damaged)


# --- how long things may take ---


def test_starts_are_slowed_up_to_a_minute() -> None:
    assert [BOX.start_pause_s(deaths) for deaths in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert BOX.start_pause_s(10_000) == 60


def test_a_stage_is_limited_by_what_the_model_promised() -> None:
    assert BOX.stage_s(None) == 60
    assert BOX.stage_s(12.0) == 36
    assert BOX.stage_s(0.5) == 20
    assert BOX.decode_s(30) == 150


# --- what a dead worker leaves ---


def test_an_orderly_end_leaves_nothing_to_tell(tmp_path: Path) -> None:
    with Notes(tmp_path) as notes:
        notes.reading("encode", "npu", 7, 60)
        notes.idle()
    with Notes(tmp_path) as notes:
        assert (notes.death, notes.deaths) == (None, 0)


def test_a_death_is_told_by_the_next_one_and_deaths_at_once_add_up(tmp_path: Path) -> None:
    for deaths in range(1, 4):
        Notes(tmp_path).reading("encode", "npu", 7, 60)
        after = Notes(tmp_path).death
        assert after == Death("killed", "", "encode", "npu", 7, 60, deaths)
    assert after is not None
    assert after.code == "worker.died"
    assert after.message == (
        "The reader died in stage encode on backend npu, ended from outside or for lack of memory."
    )
    assert Notes(tmp_path).deaths == 3, "one that was ended while it waited changes nothing"


def test_a_steady_worker_sets_the_count_back(tmp_path: Path) -> None:
    Notes(tmp_path).reading("encode", "npu", 7, 60)
    notes = Notes(tmp_path)
    notes.loading("npu", 60)
    notes.settled()
    again = Notes(tmp_path)
    assert again.deaths == 0
    assert again.death is not None


def test_a_death_of_another_boot_or_a_torn_note_is_none(tmp_path: Path) -> None:
    Notes(tmp_path).reading("encode", "npu", 7, 60)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes().replace(boot_id().encode(), b"x" * len(boot_id())))
    assert Notes(tmp_path).death is None
    for torn in (b"", b"{", b"[]" * 600, b'{"boot_id": 1}', b"\xff" * 2000):
        path.write_bytes(torn)
        assert Notes(tmp_path).death is None


def test_an_error_of_its_own_is_told_by_its_code(tmp_path: Path) -> None:

    def read() -> None:
        with Notes(tmp_path) as notes:
            notes.reading("generate", "", 7, 60)
            raise KeyError("x")

    with pytest.raises(KeyError):
        read()
    death = Notes(tmp_path).death
    assert death is not None
    assert (death.how, death.code) == ("error", "worker.died")
    assert death.message == "The reader stopped with an error in stage generate (KeyError)."


NATIVE = """
import ctypes, sys
from pathlib import Path
from edge.reading.deadline import Deadline
from edge.reading.notes import Notes
notes = Notes(Path(sys.argv[1]))
deadline = Deadline(notes.fileno())
notes.reading("encode", "npu", 7, 0.2)
deadline.arm(0.2)
ctypes.PyDLL(None).sleep(60) if sys.argv[2] == "hang" else ctypes.string_at(0)
"""


@pytest.mark.parametrize(
    ("what", "signal", "message"),
    [
        ("hang", 14, "The reader was ended after 0 s in stage encode on backend npu."),
        ("crash", 11, "The reader died in stage encode on backend npu (Segmentation fault)."),
    ],
)
@pytest.mark.requirement("KEEP-01")
def test_what_native_code_did_is_told_though_python_was_stuck(
    tmp_path: Path, what: str, signal: int, message: str
) -> None:
    done = subprocess.run([sys.executable, "-c", NATIVE, str(tmp_path), what], cwd=ROOT, check=False, timeout=30)
    assert done.returncode == -signal
    assert b"most recent call first" in (tmp_path / FILE).read_bytes()[RECORD_BYTES:]
    death = Notes(tmp_path).death
    assert death is not None
    assert death.message == message
