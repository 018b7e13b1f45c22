"""How an update went, told in every place where somebody looks: events, page, state.json, log, receipt.

A box without room, or with a damaged database, must still be able to refuse an update, so telling never raises.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from edge import durable
from edge.board import Board
from edge.bundle import parse_manifest
from edge.care.update.receipt import Receipt, make_receipt
from edge.care.update.selftest import SelfTest
from edge.care.update.words import code_of, sentence
from edge.errors import RadboxError
from edge.slots import FACTORY, Outcome, Slots
from edge.store import Store

SERVICE = "update"
PAGE = 500  # studies counted at a time
_log = logging.getLogger("radbox.update")


@dataclass
class Found:
    """What became known while an update ran; goes into the receipt. before: model in use when it began."""

    before: str
    slot: str = ""
    self_test: SelfTest | None = None
    shadow: tuple[int, int] | None = None


@dataclass(frozen=True)
class Result:
    """outcome: for people; detail: one technical sentence, "" if none; receipt: None where it could not be made."""

    outcome: Outcome
    detail: str
    receipt: Receipt | None


def software() -> str:
    """The version of radbox on this box; "0" in a checkout that was never installed: then nothing that needs more."""
    try:
        return importlib.metadata.version("radbox")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def label(slots: Slots, slot: str) -> str:
    """Name and version of the model in a slot, "" where neither can be told any more."""
    if slot != FACTORY:
        offer = slots.offer(slot)
        return f"{offer.id} {offer.label}" if offer else ""
    with suppress(OSError, RadboxError):
        manifest = parse_manifest((slots.folder(FACTORY) / "manifest.json").read_bytes())
        return f"{manifest.id} {manifest.version}"
    return ""


def progress(store: Store, words: str) -> None:
    """One plain sentence on the page about the step at work."""
    with telling("the page"):
        store.set_service(SERVICE, "ok", "update.working", words)
    _log.info("%s", words)


def refused(board: Board, store: Store, slots: Slots, error: RadboxError, found: Found) -> Result:
    """Tell of an update that was not taken. Only `last` of state.json changes."""
    outcome = Outcome(code_of(error), sentence(code_of(error)))
    with telling("state.json"):
        slots.change(lambda state: dataclasses.replace(state, last=outcome))
    return told(board, store, slots, outcome, error.message, found)


def told(board: Board, store: Store, slots: Slots, outcome: Outcome, detail: str, found: Found) -> Result:
    """Tell of an outcome that state.json holds already."""
    event = f"{outcome.message} ({detail})" if detail else outcome.message
    _log.info("%s %s", outcome.code, event)
    with telling("events"):
        store.add_event(outcome.code, event)
    with telling("the page"):
        store.set_service(SERVICE, "ok", outcome.code, outcome.message)
    receipt = None
    with telling("a receipt"):
        receipt = make_receipt(board.data_dir, _facts(board, store, slots, outcome, found))
    return Result(outcome, detail, receipt)


def _facts(board: Board, store: Store, slots: Slots, outcome: Outcome, found: Found) -> dict[str, Any]:
    tested = found.self_test
    shadow = found.shadow
    studies, failed = _counts(store)
    return {
        "board": board.name,
        "radbox": software(),
        "from": found.before,
        "to": label(slots, slots.read().active),
        "slot": found.slot,
        "code": outcome.code,
        "message": outcome.message,
        "self_test": tested and {"p95_s": tested.p95_s, "memory_bytes": tested.memory_bytes, "cases": tested.cases},
        "shadow": shadow and {"compared": shadow[0], "changed": shadow[1]},
        "free_bytes": durable.free_bytes(board.data_dir),
        "studies": studies,
        "failed": failed,
        "running_s": store.age_s(),
    }


def _counts(store: Store) -> tuple[int, int]:
    """Studies on the box, and those that could not be read."""
    studies = failed = 0
    while rows := store.studies(limit=PAGE, offset=studies):
        studies += len(rows)
        failed += sum(row.state == "failed" for row in rows)
    return studies, failed


@contextmanager
def telling(where: str) -> Iterator[None]:
    """Log what goes wrong inside and go on: what was decided stands, whoever could not be told."""
    try:
        yield
    except RadboxError as error:
        _log.error("the update could not tell or tidy %s: %s", where, error.code)
