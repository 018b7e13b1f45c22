"""`radbox update list|verify|install|confirm|rollback`: model updates for whoever sits at a terminal.

A stick that is put in is handled by radbox-update@.service; `install` does the same for one that is mounted already.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from edge.board import Board
from edge.care.update.install import confirm, install, roll_back_by_person, slots_of, verify
from edge.care.update.outcome import Result, label
from edge.care.update.receipt import deliver
from edge.care.update.words import OUTCOMES, code_of
from edge.durable import make_directory
from edge.errors import RadboxError, UpdateError
from edge.slots import DAMAGED, PERSON, Slots, SlotState
from edge.store import database_key, open_store

DONE = frozenset({"update.installed", "update.proposed", "update.not-newer", PERSON})
FAILED, WRONG_USE = 1, 2


def main(board: Board, action: str, path: Path | None, as_json: bool) -> int:
    """Run one action and say how it went; 0 done, 1 refused, 2 wrong use. Raises StoreError, StorageError."""
    if (path is None) == (action in ("verify", "install")):
        hint = "expected the folder of the mounted stick" if path is None else "expected no path"
        sys.stderr.write(f"radbox update {action}: {hint}\n")
        return WRONG_USE
    if action == "list":
        return _list(board, as_json)
    if action == "verify" and path:
        return _verify(board, path, as_json)
    make_directory(board.data_dir)
    with closing(open_store(board.data_dir, key=database_key())) as store:
        if action == "install" and path:
            result = install(board, store, path)
            return _tell(result, as_json, _deliver(path, result))
        return _tell(confirm(board, store) if action == "confirm" else roll_back_by_person(board, store), as_json, None)


def _list(board: Board, as_json: bool) -> int:
    slots = slots_of(board)
    state = slots.read()
    if as_json:
        _print_json({"state": dataclasses.asdict(state), "models": _labels(slots, state)})
    else:
        _say(*_lines(board, slots, state))
    return FAILED if state.last and state.last.code == DAMAGED else 0


def _lines(board: Board, slots: Slots, state: SlotState) -> list[str]:
    lines = [f"in use:    {_named(slots, state.active)}"]
    if state.trial:
        needed = board.update.probation_cases
        lines.append(f"           on probation: {state.trial.good} of {needed} studies read well")
    if state.previous != state.active:
        lines.append(f"before:    {_named(slots, state.previous)}  (radbox update rollback)")
    if state.proposal:
        changes = f"would change {state.proposal.changed} of {state.proposal.compared} reports"
        lines.append(f"waits:     {_named(slots, state.proposal.slot)}, {changes}  (radbox update confirm)")
    if state.last:
        lines.append(f"last time: {state.last.message} [{state.last.code}]")
    return lines


def _named(slots: Slots, slot: str) -> str:
    return f"{label(slots, slot) or 'a model that can no longer be read'} ({slot[:12]})"


def _labels(slots: Slots, state: SlotState) -> dict[str, str]:
    named = [state.active, state.previous, *([state.proposal.slot] if state.proposal else [])]
    return {slot: label(slots, slot) for slot in named}


def _verify(board: Board, path: Path, as_json: bool) -> int:
    try:
        offer = verify(board, path)
    except UpdateError as error:
        words = OUTCOMES[code_of(error)]
        if as_json:
            _print_json({"code": code_of(error), "message": words.sentence, "detail": error.message})
        else:
            _say(f"{words.sentence} [{code_of(error)}]", f"  {error.message}", f"  {words.advice}")
        return FAILED
    if as_json:
        _print_json({"code": "", "offer": dataclasses.asdict(offer)})
    else:
        _say(
            f"{offer.id} {offer.label} (version {offer.version}, epoch {offer.epoch}), "
            f"{len(offer.files)} files, {offer.size} bytes: every byte is as it was signed.",
            f"  {offer.words}",
        )
    return 0


def _deliver(path: Path, result: Result) -> str:
    """Put the receipt onto the stick; what kept it from there, or ""."""
    if result.receipt is None:
        return "The box could not make a receipt."
    try:
        deliver(path, result.receipt)
    except RadboxError as error:
        return f"The receipt did not get onto the stick: {error.message}."
    return ""


def _tell(result: Result, as_json: bool, trouble: str | None) -> int:
    """trouble: of the receipt; None where none is written."""
    outcome = result.outcome
    if as_json:
        document: dict[str, Any] = {"code": outcome.code, "message": outcome.message, "detail": result.detail}
        if trouble is not None:
            document |= {"receipt": result.receipt.name if result.receipt else None, "receipt_trouble": trouble}
        _print_json(document)
    else:
        lines = [f"{outcome.message} [{outcome.code}]"]
        lines += [f"  {result.detail}"] if result.detail else []
        lines += [f"  {OUTCOMES[outcome.code].advice}"] + ([f"  {trouble}"] if trouble else [])
        _say(*lines)
    return 0 if outcome.code in DONE else FAILED


def _print_json(document: dict[str, Any]) -> None:
    _say(json.dumps(document, indent=1))


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
