"""What the panel needs to know of the box, from the store: no study, no patient, only counts, states and titles."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final

from edge.board import Board
from edge.box_words import WORDS, BoxState
from edge.care.box_state import Moment, box_state
from edge.care.panel.address import page_address
from edge.care.panel.lines import Shown
from edge.errors import RadboxError
from edge.issue_titles import title
from edge.store import Store, boot_id

NO_RECORDS: Final = ("Records in repair", "The records of this box are in repair; the images are safe")
_LOG = logging.getLogger("radbox.panel")


@dataclass(frozen=True)
class Sight:
    """state: one of the five; shown: the words; critical: codes of open critical issues, for the alarm."""

    state: BoxState
    shown: Shown
    critical: frozenset[str] = frozenset()


def look(board: Board, store: Store, since_s: float) -> Sight:
    """The box now. since_s: monotonic time from which on the panel has been looking.

    A database that cannot be asked is shown as a state too, and never raised.
    """
    address, port = page_address(board.web.host), board.web.port
    now_s = time.monotonic()
    try:
        age_s = store.age_s()
        issues = [row for row in store.issues() if row.put_off_until_age_s <= age_s]
        counts = store.study_counts()
        queue = counts.get("queued", 0) + counts.get("reading", 0)
        state = box_state(store.services(), issues, queue, Moment(now_s, boot_id(), age_s, now_s - since_s))
    except RadboxError as error:
        _LOG.warning("%s: %s", error.code, error.message)
        return Sight("attention", Shown(WORDS["attention"].short, 0, [NO_RECORDS], address, port))
    # The panel shows this: that it is lost is for the page alone.
    titles = [title(row.code) for row in issues if row.code != "issue.panel-lost"]
    named = [(one.short, one.long) for one in titles]
    critical = frozenset(f"{row.code} {row.subject}" for row in issues if row.severity == "critical")
    return Sight(state, Shown(WORDS[state].short, queue, named, address, port), critical)
