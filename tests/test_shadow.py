"""What a new model would change on this box: real models, real images of the store, in a child that may be killed."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from edge.board import Board
from edge.bundle import Bundle, load_bundle
from edge.care.update import shadow
from edge.care.update.shadow import compare
from edge.errors import ReportError, UpdateError
from edge.reading.radiograph import Refusal, Study
from edge.simulate.objects import encode_file, phantom_dataset
from edge.simulate.phantom import PhantomOptions, make_phantom
from edge.store import InstanceFacts, Store, StudyFacts, object_path, open_store
from tests.page_store import draft_report
from tests.worker_process import ROOT, picture, put, wait, worker_board


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return worker_board(tmp_path / "data", backends=("tflite",))


@pytest.fixture(scope="module")
def chests() -> list[tuple[bytes, str, str]]:
    """Three computed thoraxes as files, with their UIDs."""
    datasets = [phantom_dataset(make_phantom(PhantomOptions(seed=n, size=512, detail="fast"))) for n in range(3)]
    return [(encode_file(one), str(one.StudyInstanceUID), str(one.SOPInstanceUID)) for one in datasets]


@pytest.fixture
def store(board: Board, chests: list[tuple[bytes, str, str]]) -> Iterator[Store]:
    """Three drafts, a refused study, and one that waits."""
    with closing(open_store(board.data_dir)) as opened:
        for chest in chests:
            draft(board, opened, *chest)
        refused = put(board, opened, picture(7), "2.25.7", "2.25.70")
        assert opened.claim_next("worker") is not None
        opened.finish_refused(refused, "gate.not-a-chest", "No chest.", {})
        put(board, opened, picture(8), "2.25.8", "2.25.80")
        yield opened


def draft(board: Board, store: Store, content: bytes, study: str, sop: str) -> int:
    key = put(board, store, content, study, sop)
    assert store.claim_next("worker") is not None
    store.finish_draft(key, "{}", "", {})
    return key


def candidate(board: Board, tmp_path: Path, **changes: Any) -> Bundle:
    """The factory's model with another manifest, verified as a slot's would be."""
    folder = Path(shutil.copytree(board.worker.bundle, tmp_path / "candidate"))
    manifest = json.loads((folder / "manifest.json").read_text())
    document = json.dumps({**manifest, **changes}).encode()
    (folder / "manifest.json").write_bytes(document)
    return load_bundle(folder, trusted_manifest_sha256=hashlib.sha256(document).hexdigest())


def child() -> psutil.Process:
    """The comparing child of this process."""
    found = [one for one in psutil.Process().children() if "edge.care.update.shadow" in one.cmdline()]
    assert len(found) == 1
    return found[0]


def snapshot(board: Board) -> dict[str, str]:
    """Every file below the data folder but SQLite's shared memory, which readers lock."""
    files = [path for path in board.data_dir.rglob("*") if path.is_file() and path.suffix != ".sqlite3-shm"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_model_changes_nothing_and_nothing_is_written(board: Board, store: Store, tmp_path: Path) -> None:
    before = snapshot(board)
    assert compare(board, store, candidate(board, tmp_path, version="0.2.0"), 100) == (3, 0)
    assert snapshot(board) == before


def test_a_model_that_refuses_everything_changes_every_draft(board: Board, store: Store, tmp_path: Path) -> None:
    strict = candidate(board, tmp_path, gate={"chest": 1000.0, "child": 0.0})
    assert compare(board, store, strict, 2) == (2, 2)


def test_what_is_gone_or_unreadable_is_not_compared(board: Board, store: Store, tmp_path: Path) -> None:
    draft(board, store, b"\0" * 128 + b"DICM" + b"\x07" * 500, "2.25.9", "2.25.90")
    lost = draft(board, store, picture(10), "2.25.10", "2.25.100")
    detail = store.study(lost)
    assert detail is not None
    (board.data_dir / detail.instances[0].path).unlink()
    assert compare(board, store, candidate(board, tmp_path, version="0.2.0"), 100) == (3, 0)


def test_a_box_without_drafts_compares_nothing(board: Board, tmp_path: Path) -> None:
    with closing(open_store(board.data_dir)) as empty:
        assert compare(board, empty, candidate(board, tmp_path), 100) == (0, 0)


def test_only_the_first_object_of_a_uid_is_read(board: Board, store: Store, chests: Any) -> None:
    content, study, sop = chests[2]
    facts = InstanceFacts(sop, "", "", "c" * 64, 1, str(object_path("c" * 64)), "TEST", time.monotonic())
    assert store.add_instance(StudyFacts(study), facts) == "conflict"
    first = board.data_dir / object_path(hashlib.sha256(content).hexdigest())
    assert list(shadow._studies(board, store, 1)) == [[first]]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_candidate_that_crashes_is_refused(board: Board, store: Store, tmp_path: Path, number: int) -> None:
    def stopped() -> bool:
        child().send_signal(number)
        return False

    with pytest.raises(UpdateError, match=signal.Signals(number).name) as caught:
        compare(board, store, candidate(board, tmp_path), 100, stopped=stopped)
    assert caught.value.code == "update.self-test"


def test_a_candidate_that_hangs_is_refused_and_ended(
    board: Board, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "LOAD_S", 0.5)
    seen: list[psutil.Process] = []

    def stopped() -> bool:
        seen.append(child())
        seen[-1].suspend()
        return False

    with pytest.raises(UpdateError, match="got no answer"):
        compare(board, store, candidate(board, tmp_path), 100, stopped=stopped)
    assert not seen[0].is_running()


def test_a_candidate_that_does_not_open_is_refused(board: Board, store: Store, tmp_path: Path) -> None:
    other = candidate(board, tmp_path, graph_sha256="0" * 64)
    with pytest.raises(UpdateError, match="another finding graph"):
        compare(board, store, other, 100)


def test_it_ends_when_told_to_or_when_its_time_is_over(board: Board, store: Store, tmp_path: Path) -> None:
    bundle = candidate(board, tmp_path)
    assert compare(board, store, bundle, 100, stopped=lambda: True) == (0, 0)
    assert compare(board, store, bundle, 100, total_s=0.0) == (0, 0)
    assert not psutil.Process().children()


DIES = """
import os, signal, sys
from pathlib import Path
from edge.bundle import load_bundle
from edge.care.update.shadow import compare
from edge.store import open_store
from tests.test_shadow import child
from tests.worker_process import worker_board

def die():
    print(child().pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

data_dir, folder, sha256 = sys.argv[1:]
board, bundle = worker_board(Path(data_dir)), load_bundle(Path(folder), trusted_manifest_sha256=sha256)
compare(board, open_store(board.data_dir), bundle, 9, stopped=die)
"""


def test_the_child_ends_with_its_parent(board: Board, store: Store, tmp_path: Path) -> None:
    bundle = candidate(board, tmp_path)
    command = [sys.executable, "-c", DIES, str(board.data_dir), str(bundle.path), bundle.sha256]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert done.returncode == -signal.SIGKILL
    wait(lambda: not _runs(int(done.stdout)), seconds=10)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_counts_as_said() -> None:
    def reader(outcome: Any) -> Any:
        def read(_study: Study) -> Any:
            if isinstance(outcome, Exception):
                raise outcome
            return SimpleNamespace(outcome=outcome)

        return SimpleNamespace(read=read)

    told = shadow.said(reader(draft_report()), Study(()))
    assert not isinstance(told, str)
    assert sorted(told) == [
        ("atelectasis", "right", "lower", "possible"),
        ("effusion", "right", "lower", "present"),
        ("pneumothorax", "left", "upper", "present"),
    ]
    assert shadow.said(reader(Refusal("gate.blank", "Blank.")), Study(())) == "gate.blank"
    assert shadow.said(reader(ReportError("no")), Study(())) == "report.invalid"
