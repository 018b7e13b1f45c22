"""The SIGKILL storm: its senders and its verdict are right; a small storm over a whole box loses nothing."""

from __future__ import annotations

import random
import time
from contextlib import closing
from pathlib import Path

import pytest

from edge.board import Board, load_board
from edge.simulate.objects import encode_file
from edge.store import Store, open_store
from tests.crash_scenarios import put_study
from tests.receiver_process import ReceiverProcess, wait_for
from tools.crash import load, storm
from tools.crash.box import half_report, studies
from tools.crash.load import Senders, Sent, Visitor
from tools.crash.services import Services
from tools.crash.storm import Result, Storm


@pytest.mark.parametrize("program", [load._storescu, load._dcmsend])
def test_only_what_was_answered_counts(tmp_path: Path, program: object) -> None:
    assert callable(program)
    with ReceiverProcess(tmp_path) as receiver:
        board = load_board(receiver.board)
        senders = Senders(board, tmp_path / "senders", threads=1, pause_s=0.01)
        paths = []
        for number in range(2):
            dataset = senders._image(f"x/{number}", "2.25.7", number)
            path = tmp_path / f"{number}.dcm"
            path.write_bytes(encode_file(dataset))
            paths.append(path)
        (tmp_path / "2.dcm").write_bytes(paths[1].read_bytes()[:2000])
        assert program(board, [*paths, tmp_path / "2.dcm"]) == paths
        receiver.stop()
        assert program(board, paths) == []


def test_what_was_sent_is_what_is_there(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path) as receiver:
        senders = Senders(load_board(receiver.board), tmp_path / "senders", threads=2, pause_s=0.01)
        senders.start()
        wait_for(lambda: senders.studies >= 6)
        senders.stop()
        with closing(receiver.store()) as store:
            wait_for(lambda: not store.receiving_studies())
        found = studies(receiver.store())
        assert storm._lost(receiver.data_dir, found, senders.acknowledged) == []
        assert sum(len(study.instances) for study in found) == len(senders.acknowledged)
        assert senders.unanswered == 0


# --- the verdict ---


@pytest.fixture
def box(tmp_path: Path) -> tuple[Path, list[Sent]]:
    """Three studies with drafts, and what their senders know."""
    sent = []
    with closing(open_store(tmp_path)) as store:
        for number in range(3):
            content = b"head" + b"%d" % number * 100
            put_study(tmp_path, store, content, f"2.25.{number}", f"2.25.9{number}")
            claimed = store.claim_next("w")
            assert claimed is not None
            store.finish_refused(claimed.study_key, "gate.none", "not read here", {})
            sent.append(Sent(f"2.25.9{number}", f"2.25.{number}", b"%d" % number * 100))
    return tmp_path, sent


def _found(box: tuple[Path, list[Sent]]) -> set[str]:
    return set(storm._look(*box, Result())) - {"a healthy study was refused: gate.none"}


def test_a_whole_box_is_whole(box: tuple[Path, list[Sent]]) -> None:
    assert _found(box) == set()


def test_a_lost_object_is_found(box: tuple[Path, list[Sent]]) -> None:
    box[1].append(Sent("2.25.99", "2.25.0", b"x"))
    assert _found(box) == {"an acknowledged object was lost"}


def test_other_bytes_are_found(box: tuple[Path, list[Sent]]) -> None:
    path = next((box[0] / "spool" / "objects").rglob("*.dcm"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert _found(box) == {"an acknowledged object has other bytes", "fsck: fsck.object-damaged"}


def test_an_object_in_another_study_is_found(box: tuple[Path, list[Sent]]) -> None:
    box[1][0] = Sent("2.25.90", "2.25.1", b"0" * 100)
    assert _found(box) == {"an object lies in another study"}


def test_a_queue_that_does_not_drain_is_found(box: tuple[Path, list[Sent]]) -> None:
    with closing(open_store(box[0])) as store:
        put_study(box[0], store, b"another", "2.25.3", "2.25.93")
    assert _found(box) == {"a study is still queued"}


@pytest.mark.parametrize(("image", "word"), [(b"\x89PNG half", "half there"), (b"", "missing")])
def test_half_a_report_is_found(box: tuple[Path, list[Sent]], image: bytes, word: str) -> None:
    with closing(open_store(box[0])) as store:
        key = put_study(box[0], store, b"another", "2.25.3", "2.25.93")
        assert store.claim_next("w") is not None
        (box[0] / "rendered" / "x").mkdir(parents=True)
        (box[0] / "rendered" / "x" / "image.png").write_bytes(image)
        store.finish_draft(key, '{"half": ', "rendered/x", {})
        assert _wrong_words(box[0], store, key) == {
            "a report that cannot be read: ReportError",
            f"a report whose image is {word}",
        }


def _wrong_words(data_dir: Path, store: Store, key: int) -> set[str]:
    study = store.study(key)
    assert study is not None
    return set(half_report(data_dir, study))


def test_left_over_files_are_found(box: tuple[Path, list[Sent]]) -> None:
    (box[0] / "spool" / "incoming").mkdir()
    (box[0] / "spool" / "incoming" / ".x.part").write_bytes(b"")
    assert _found(box) == {"a temporary file in incoming"}


# --- the storm ---

KINDS = {"receive", "receive child", "worker", "web", "care"}


def _small_board(tmp_path: Path) -> tuple[Board, Path]:
    return storm._board(tmp_path)


def test_every_kind_of_process_is_found_and_comes_back(tmp_path: Path) -> None:
    board, file = _small_board(tmp_path)
    services = Services(board, file, tmp_path)
    visitor = Visitor(board, 0.05)
    services.start()
    try:
        services.wait_until_ready()
        visitor.start()
        moment = random.Random(5)
        deadline_s = time.monotonic() + 60
        while not set(services.tally.kills) >= KINDS and time.monotonic() < deadline_s:
            time.sleep(0.3)
            services.kill(moment)
        services.wait_until_ready()
        wait_for(lambda: visitor.answers["200"] > 0)
    finally:
        if visitor.is_alive():
            visitor.stop()
        codes = services.stop()
    assert set(services.tally.kills) >= KINDS
    assert set(codes.values()) <= {0, -15}  # one that was just starting has no handler yet
    assert visitor.wrong == []
    assert services.tally.starts >= 8


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_small_storm_loses_nothing(tmp_path: Path) -> None:
    result = storm.run(Storm(kills=30, seed=3, interval_s=0.5, pause_s=0.5), tmp_path)
    assert result.wrong == {}
    assert result.total_kills == 30
    assert result.acknowledged >= result.studies_sent > 5
    assert sum(result.states.values()) == result.studies_sent
    assert result.page.get("200", 0) > 0
