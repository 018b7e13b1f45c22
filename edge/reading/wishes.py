"""What others want of the worker, as facts in the store: care its heat, a person that lost backends are tried now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from edge.reading.heat import COOL, Heat, heat_of
from edge.store import Store, boot_id
from edge.store_rows import FactRow

THERMAL = "thermal"  # written by care: edge.reading.heat
WANTED = "wanted"  # written by care: {"probe": n}; another n than before is a wish


class Wishes:
    """Looks at the facts at most every `every_s` seconds."""

    def __init__(
        self, store: Store, every_s: float, stale_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """stale_s: heat that is older says nothing. Raises StorageError."""
        self._store = store
        self._every_s, self._stale_s = every_s, stale_s
        self._clock = clock
        self._boot_id = boot_id()
        self._heat = COOL
        self._next_s = float("-inf")
        self._asked = self._number(store.facts())
        self._wished = False

    def heat(self) -> Heat:
        """The heat now. Raises StorageError."""
        self._look()
        return self._heat

    def try_now(self) -> bool:
        """True once after each wish of a person. Raises StorageError."""
        self._look()
        wished, self._wished = self._wished, False
        return wished

    def _look(self) -> None:
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._every_s
        facts = self._store.facts()
        self._heat = heat_of(facts.get(THERMAL), self._boot_id, now_s, self._stale_s)
        number = self._number(facts)
        self._wished = self._wished or number != self._asked
        self._asked = number

    @staticmethod
    def _number(facts: Mapping[str, FactRow]) -> object:
        fact = facts.get(WANTED)
        return fact.value.get("probe") if fact else None
