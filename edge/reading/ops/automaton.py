"""A grammar as tables, so that a whole sequence is decoded in one call without asking Python at every token."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge.reading.ops.arrays import F32

STATE_LIMIT = 512

State = TypeVar("State")
_ENDED = -1


class Grammar(Protocol[State]):
    """What may be said next (edge.reading.decoder.TokenGrammar)."""

    def start(self) -> State: ...

    def mask(self, state: State) -> NDArray[np.bool_]: ...

    def advance(self, state: State, token: int) -> State: ...

    def ended(self, state: State) -> bool: ...


@dataclass(frozen=True)
class Automaton:
    """allowed: (states, vocabulary) uint8; next: (states, vocabulary) int32, the state after an allowed token."""

    allowed: NDArray[np.uint8]
    next: NDArray[np.int32]
    start: int
    final: int


@dataclass(frozen=True)
class Said:
    """tokens, log_probabilities: (count,); attention: (count, layers, n) or empty; ended: the grammar's own end."""

    tokens: NDArray[np.int32]
    log_probabilities: F32
    attention: F32
    ended: bool


def compiled(grammar: Grammar[State], limit: int = STATE_LIMIT) -> Automaton | None:
    """Every state that can be reached; None if they are more than `limit`, not hashable, or one leads nowhere."""
    first = grammar.start()
    if grammar.ended(first) or not isinstance(first, Hashable):
        return None
    numbers: dict[State, int] = {first: 0}
    pending, masks, rows = [first], [], []
    while pending:
        state = pending.pop(0)
        mask = grammar.mask(state)
        if not mask.any():
            return None
        row = np.zeros(mask.size, np.int32)
        for token in np.flatnonzero(mask).tolist():
            after = grammar.advance(state, token)
            if grammar.ended(after):
                row[token] = _ENDED
                continue
            if after not in numbers:
                if len(numbers) == limit:
                    return None
                numbers[after] = len(numbers)
                pending.append(after)
            row[token] = numbers[after]
        masks.append(mask)
        rows.append(row)
    final = len(rows)  # one more state, after which nothing is said
    following = np.stack([*rows, np.zeros_like(rows[0])])
    following[following == _ENDED] = final
    allowed = np.stack([*masks, np.zeros_like(masks[0])])
    return Automaton(allowed.astype(np.uint8), following, start=0, final=final)
