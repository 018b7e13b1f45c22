"""What the page says of services, of the disk and of updates: pure words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edge.care.update.words import OUTCOMES
from edge.desk import update_view, update_words, views
from edge.desk.views import Notice, Now
from edge.slots import FACTORY, FACTORY_STATE, Outcome
from edge.store import ServiceRow
from tests.page_store import page_board

NOW = Now(1000.0, "now", 0.0)


def notices(*rows: tuple[str, str, str], age_s: float = 0.0) -> tuple[Notice, ...]:
    """Banners for services that said (name, state, code) so long ago."""
    said = [ServiceRow(name, state, code, "Said.", 1000.0 - age_s, "now") for name, state, code in rows]  # type: ignore[arg-type]
    return views.notices(said, NOW)


@pytest.mark.parametrize(
    ("name", "state", "code", "title"),
    [
        ("care", "degraded", "storage.nearly-full", "Storage is nearly full"),
        ("care", "degraded", "storage.repaired", "The records of this box were damaged and have been rebuilt"),
        ("care", "degraded", "storage.failed", "The box's storage needs attention"),
        ("care", "paused", "storage.failed", "The box does not look after its storage"),
        ("worker", "degraded", "worker.earlier-model", "Reading works, with an earlier model"),
        ("worker", "paused", "bundle.hash", "No new drafts"),
    ],
)
def test_each_trouble_has_its_title_and_something_to_do(name: str, state: str, code: str, title: str) -> None:
    (notice,) = notices((name, state, code))
    assert notice.title.startswith(title)
    assert (notice.code, notice.tone) == (code, "stop" if state == "paused" else "warn")
    assert notice.todo.endswith(".")


def test_a_full_disk_is_told_once_whoever_says_so() -> None:
    (notice,) = notices(("care", "degraded", "storage.full"), ("receive", "degraded", "storage.full"))
    assert notice.title == "Storage is full: new images are turned away"


def test_different_troubles_are_all_told() -> None:
    told = notices(("care", "degraded", "storage.full"), ("worker", "paused", "backend.none"))
    assert [notice.code for notice in told] == ["backend.none", "storage.full"]


@pytest.mark.parametrize(("name", "limit_s"), [("receive", 60), ("worker", 240), ("care", 900)])
def test_a_silent_service_is_told(name: str, limit_s: int) -> None:
    assert notices((name, "ok", ""), age_s=limit_s - 1) == ()
    (notice,) = notices((name, "ok", ""), age_s=limit_s + 1)
    assert (notice.tone, notice.code) == ("stop", f"{name}.silent")
    assert "Restart the box." in notice.todo


def test_an_update_that_was_cut_off_is_not_at_work() -> None:
    now = Now(5000.0, "now", 0.0)

    def row(monotonic_s: float, boot: str) -> list[ServiceRow]:
        return [ServiceRow("update", "ok", "update.working", "Testing.", monotonic_s, boot)]

    assert update_view.at_work(row(4999.0, "now"), now) == "Testing."
    assert update_view.at_work(row(100.0, "now"), now) == ""
    assert update_view.at_work(row(4999.0, "before"), now) == ""


@pytest.mark.parametrize("code", [*OUTCOMES, "update.committed", "update.declined"])
def test_every_outcome_has_a_sentence_a_title_and_something_to_do(code: str) -> None:
    message = OUTCOMES[code].sentence if code in OUTCOMES else "A sentence."
    state = dataclasses.replace(FACTORY_STATE, last=Outcome(code, message))
    names = {FACTORY: update_view.ModelName("chest 0.1", "Delivered with this box")}
    board = page_board(Path("nowhere"), 1)
    outcome = update_view.model_view(state, board.update, names, "", "").outcome
    assert outcome is not None
    assert (outcome.text, outcome.code) == (message, code)
    assert outcome.title.endswith(tuple("abcdefghijklmnopqrstuvwxyz"))
    assert outcome.todo.endswith(".")
    assert (
        code in update_words.ADVICE or code == "update.failed" or code.startswith(("update.rolled", "update.nothing"))
    )
