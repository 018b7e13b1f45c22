"""What the panel shows: a few lines of text from what the box knows of itself. Pure. Never anything of a patient.

Pages: the state of the box; each issue that is open; where the page is. Keys and the foot switch turn them over; after
a while the state is shown again.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ALONE: Final = "127.0.0.1"
_MORE_COLUMNS: Final = 3  # of " +9"


@dataclass(frozen=True)
class Shown:
    """word: the box's state, as on the page; waiting: studies not read yet; issues: (short, long) titles, the worst
    first; address: of the page, "" where the box has none; port: of the page; notice: one line that goes before the
    issues, "" for none."""

    word: str
    waiting: int
    issues: Sequence[tuple[str, str]]
    address: str
    port: int
    notice: str = ""


def page_count(shown: Shown) -> int:
    """How many pages there are."""
    return 1 + len(shown.issues) + 1


def page_lines(shown: Shown, page: int, columns: int, rows: int) -> tuple[str, ...]:
    """`rows` lines of `columns` characters. page: 0 for the state, then the issues, then the address; cyclic."""
    page %= page_count(shown)
    if page == 0:
        lines = _state(shown, columns, rows)
    elif page <= len(shown.issues):
        lines = _issue(shown, page, columns, rows)
    else:
        lines = ["Page of this box:", *_address(shown, columns)] if rows > 2 else _address(shown, columns)
    filled = [*lines[:rows], *[""] * rows]
    return tuple(line[:columns].ljust(columns) for line in filled[:rows])


def _state(shown: Shown, columns: int, rows: int) -> list[str]:
    waiting = f"{shown.waiting} waiting" if shown.waiting else ""
    trouble = shown.notice or _worst(shown, columns)
    address = _address(shown, columns)[0]
    if rows >= 4:
        return [shown.word, waiting or "Nothing is waiting", trouble, address]
    room = columns - len(shown.word)
    for short in (waiting, f"+{shown.waiting}" if shown.waiting else ""):
        if len(short) < room:
            break
    first = shown.word + short.rjust(room)
    return [first, trouble, address] if rows == 3 else [first, trouble or address]


def _worst(shown: Shown, columns: int) -> str:
    if not shown.issues:
        return ""
    more = min(9, len(shown.issues) - 1)
    short, _long = shown.issues[0]
    return f"{short[: columns - _MORE_COLUMNS]} +{more}" if more else short[:columns]


def _issue(shown: Shown, page: int, columns: int, rows: int) -> list[str]:
    short, long = shown.issues[page - 1]
    number = f"Issue {page} of {len(shown.issues)}"
    if rows < 3:
        return [number, short]
    wrapped = textwrap.wrap(long, columns, max_lines=rows - 1, placeholder=" ...")
    return [number, *(wrapped or [short])]


def _address(shown: Shown, columns: int) -> list[str]:
    """What to type into a browser, in one line if it fits, else in two."""
    if not shown.address:
        return ["No network address"]
    if shown.address == ALONE:
        return ["Page: this box only", f"port {shown.port}"]
    whole = f"{shown.address}:{shown.port}"
    return [whole] if len(whole) <= columns else [shown.address, f"port {shown.port}"]
