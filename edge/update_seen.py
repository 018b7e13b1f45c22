"""Which failure of a new model a person has taken note of: one small file, written by the page and by care."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from edge import durable
from edge.slots import CRASHED, SLOW, UPDATE, Outcome, SlotState

SEEN: Final = UPDATE / "seen"


def went_back(state: SlotState) -> bool:
    """True if the box itself took the last new model back."""
    return state.last is not None and state.last.code in (CRASHED, SLOW)


def mark_of(state: SlotState) -> str:
    """Names the last outcome: another failure of another model has another mark."""
    return hashlib.sha256(repr((state.last, state.failed)).encode()).hexdigest()


def unseen_failure(state: SlotState, seen: str) -> Outcome | None:
    """The failure that nobody took note of yet, or None. seen: `seen_mark`."""
    return state.last if went_back(state) and mark_of(state) != seen else None


def seen_mark(data_dir: Path) -> str:
    """The mark of what a person has seen, "" for none."""
    try:
        return (data_dir / SEEN).read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def note_seen(data_dir: Path, state: SlotState) -> None:
    """A person has taken note. Raises StorageFullError, StorageError."""
    durable.write_file(data_dir / SEEN, mark_of(state).encode())
