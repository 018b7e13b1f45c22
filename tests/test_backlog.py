"""Poison and pile-up: a study that kills the worker, 500 that wait, and a worker that dies again and again."""

from __future__ import annotations

import hashlib
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import apsw
import pytest

from edge import durable
from edge.board import Board
from edge.store import InstanceFacts, Store, StudyFacts, object_path, open_store
from tests.worker_process import (
    HANGS,
    KILLS,
    LASTS,
    PAUSE,
    picture,
    put_picture,
    state,
    wait,
    worker_board,
    worker_process,
)

SIGKILL, SIGALRM = -signal.SIGKILL, -signal.SIGALRM


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return worker_board(tmp_path / "data")


@pytest.fixture
def store(board: Board) -> Iterator[Store]:
    with closing(open_store(board.data_dir)) as opened:
        yield opened


def readings(board: Board) -> list[tuple[int, str, str, int]]:
    """Every reading in the order they were finished: study, outcome, content, superseded."""
    sql = "SELECT study_key, outcome, content_sha256, superseded FROM reading ORDER BY reading_key"
    with closing(apsw.Connection(str(board.data_dir / "radbox.sqlite3"))) as connection:
        return list(connection.execute(sql))


def pending(store: Store) -> list[int]:
    """Studies that are not settled."""
    return [row.study_key for row in store.studies(limit=1000) if row.state in ("queued", "reading", "receiving")]


def being_read(store: Store, key: int, attempt: int) -> bool:
    detail = store.study(key)
    return detail is not None and (detail.state, detail.attempt) == ("reading", attempt)


# --- poison ---


@pytest.mark.parametrize(("rows", "death"), [(KILLS, SIGKILL), (HANGS, SIGALRM)])
def test_a_study_that_kills_or_hangs_the_worker_is_set_aside(board: Board, store: Store, rows: int, death: int) -> None:
    good = [put_picture(board, store, number) for number in range(2)]
    poison = put_picture(board, store, 5, rows, urgency=1)
    good += [put_picture(board, store, number) for number in range(7, 9)]
    with worker_process(board.data_dir, STAGE_LIMIT_S=0.5) as worker:
        worker.keep(lambda: not pending(store))
        worker.stop()
    detail = store.study(poison)
    assert detail is not None
    assert (detail.state, detail.code, detail.attempt) == ("failed", "worker.died-repeatedly", 3)
    assert detail.message == "the reader stopped 3 times while it read this study"
    assert worker.deaths == [death] * 3
    assert [state(store, key) for key in good] == ["draft"] * 4
    assert [key for key, *_ in readings(board)].index(poison) == 4, "the others were read meanwhile"


def test_a_worker_killed_from_outside_whenever_it_reads_one_study(board: Board, store: Store) -> None:
    struck = put_picture(board, store, 1, LASTS, urgency=1)
    other = put_picture(board, store, 2)
    with worker_process(board.data_dir) as worker:
        for attempt in (1, 2, 3):
            worker.keep(partial(being_read, store, struck, attempt))
            worker.kill()
        worker.keep(lambda: not pending(store))
        worker.stop()
    assert (state(store, struck), state(store, other)) == ("failed", "draft")
    assert worker.deaths == [SIGKILL] * 3


# --- pile-up ---


def queue(board: Board, store: Store, number: int, urgent: set[int]) -> list[int]:
    """That many studies of one small object each, complete, in the order of arrival; their keys."""
    content = picture(0)
    sha256 = hashlib.sha256(content).hexdigest()
    path = object_path(sha256)
    durable.make_directory((board.data_dir / path).parent)
    durable.write_file(board.data_dir / path, content)
    cr = "1.2.840.10008.5.1.4.1.1.1"
    rows = [
        (
            StudyFacts(f"2.25.{n}", "P", urgency=int(n in urgent)),
            InstanceFacts(f"2.25.9{n}", cr, "", sha256, len(content), str(path), "TEST", time.monotonic()),
        )
        for n in range(number)
    ]
    keys = [added.study_key for added in store.add_instances(rows)]
    for key in keys:
        store.complete_study(key)
    return keys


@pytest.mark.slow
def test_a_night_without_a_model_is_caught_up_urgent_first_then_newest(board: Board, store: Store) -> None:
    urgent = {17, 230, 444}
    board.data_dir.joinpath(PAUSE).touch()
    with worker_process(board.data_dir, RETRY_MODEL_S=0.2) as worker:
        worker.start()
        wait(lambda: any(row.state == "paused" for row in store.services()))
        keys = queue(board, store, 500, urgent)
        (row,) = [row for row in store.services() if row.name == "worker"]
        assert (row.code, store.waiting()) == ("backend.none", 500)
        board.data_dir.joinpath(PAUSE).unlink()
        wait(lambda: store.waiting() == 0 and not pending(store), seconds=110)
        worker.stop()
    rows = readings(board)
    assert [(outcome, superseded) for _, outcome, _, superseded in rows] == [("draft", 0)] * 500
    expected = sorted(urgent, reverse=True) + [n for n in reversed(range(500)) if n not in urgent]
    assert [keys.index(key) for key, *_ in rows] == expected
    assert worker.deaths == []


@pytest.mark.slow
def test_one_report_for_each_content_however_often_the_worker_dies(board: Board, store: Store) -> None:
    moments = random.Random(4)
    keys = [put_picture(board, store, number) for number in range(10)]
    with worker_process(board.data_dir, stage_s=0.4, board_max_attempts=10) as worker:
        for _ in range(20):
            worker.start()
            time.sleep(moments.uniform(0.3, 2.0))
            worker.kill()
        worker.keep(lambda: not pending(store))
        worker.stop()
    assert len(worker.deaths) == 20
    rows = readings(board)
    assert sorted(key for key, *_ in rows) == keys, "one reading of each study"
    assert {(outcome, superseded) for _, outcome, _, superseded in rows} == {("draft", 0)}
    assert len({content for _, _, content, _ in rows}) == 10
