"""The inbox under crash enumeration: whatever a cut leaves, what lay in it is taken, once."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

from edge import durable
from edge.disk_marks import DiskWatch
from edge.intake.association import Settings
from edge.intake.completion import Completion
from edge.intake.inbox import empty, waiting
from edge.intake.inbox_folder import inbox_folder
from edge.intake.ledger import Ledger
from edge.simulate.objects import encode_file
from edge.store import INCOMING, open_store, quarantine_path
from tests.crash_box import Found, check, recover
from tests.crash_scenarios import _board, _DirectLink
from tests.receiver_process import radiograph
from tools.crash.explore import Scenario, Search, explore
from tools.crash.trace import Kind, Recording, mark

HERE = "tests.test_inbox_crash"
WRONG = b"no DICOM object"
STATES = 120


def files() -> dict[str, bytes]:
    """Three objects of two studies, one of them twice under two names, and one that is none."""
    whole = {f"{seed}": encode_file(radiograph(seed, rows=40, study=f"2.25.{seed // 2}")) for seed in range(3)}
    return {**whole, "again": whole["1"], "wrong": WRONG}


def setup(root: Path) -> None:
    """A writer has put them there, durably."""
    folder = inbox_folder(root, "USB-STICK")
    durable.make_directory(folder)
    for name, content in files().items():
        durable.write_file(folder / f"{name}.dcm", content)


def child(root: Path) -> None:
    """Recorded: the receiver takes everything."""
    for seed in range(3):
        dataset = radiograph(seed, rows=40, study=f"2.25.{seed // 2}")
        mark("received", study=dataset.StudyInstanceUID, sop=dataset.SOPInstanceUID, sha256=sha256_as_kept(seed))
    mark("quarantined", sha256=hashlib.sha256(WRONG).hexdigest())
    take(root)


def take(root: Path) -> None:
    """As the receiver starts and its inbox process works."""
    with closing(open_store(root)) as store:
        for folder in (INCOMING, quarantine_path("").parent):
            durable.make_directory(root / folder)
        durable.sweep(root / INCOMING)
        board = _board(root)
        ledger = Ledger(root, store, Completion(0.0), DiskWatch(board))
        empty(Settings(board.receive, root), _DirectLink(ledger))


def sha256_as_kept(seed: int) -> str:
    """With the head that the box itself writes."""
    from edge.intake.part10 import file_head, read_head

    content = encode_file(radiograph(seed, rows=40, study=f"2.25.{seed // 2}"))
    transfer_syntax, start = read_head(content)
    dataset = radiograph(seed, rows=40)
    head = file_head(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), transfer_syntax)
    return hashlib.sha256(head + content[start:]).hexdigest()


def recover_and_take(root: Path) -> Found:
    """The next start takes what is left, and then everything is looked at."""
    take(root)
    found = recover(root)
    if left := waiting(root):
        found.wrong.append(f"{len(left)} files stay in the inbox")
    return found


def record(recording: Recording) -> None:
    """Killed a few times on the way, then to the end."""
    for kind, count in ((Kind.RENAME, 1), (Kind.RENAME, 3), (Kind.UNLINK, 1), (Kind.SYNC, 9)):
        recording.killed(f"{HERE}:child", kind, count)
    recording.function(f"{HERE}:child")


def test_what_lay_in_the_inbox_is_taken_once() -> None:
    outcome = explore(Scenario("inbox", record, recover_and_take, check, setup, usual=STATES), Search())
    assert outcome.problems == []
    assert outcome.checked == min(outcome.distinct, STATES)
    assert outcome.distinct > 100
