"""Which of the states that a crash may leave are looked at, for one moment of a recording.

All kept (a killed process), all lost (the cut came before anything unasked reached the disk), each pending effect lost
alone, each kept alone, the last write torn at sectors, writes of which only the new size arrived, and seeded random
subsets: the orders in which a disk may write are all subsets of what is pending.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tools.crash.disk import SECTOR_BYTES, Disk, Effect, Part, Variant

KILL, CUT = "all-kept", "all-lost"
SINGLES = 40  # of more pending effects than that, so many are lost and kept alone
FIRST = frozenset({KILL, CUT})  # looked at before all others


@dataclass(frozen=True)
class Crash:
    """One way to crash: which pending effects reached the disk, and how much of those that did in part."""

    how: str
    kept: frozenset[int]
    variant: Variant | None = None


def crashes(disk: Disk, rng: random.Random, subsets: int, *, ordered_names: bool = False) -> Iterator[Crash]:
    """Ways to crash now, some of which may leave the same tree. `subsets`: how many random ones."""
    pending = disk.pending
    if ordered_names:
        yield from _ordered(pending, rng, subsets)
        return
    whole = frozenset(effect.number for effect in pending)
    yield Crash(KILL, whole)
    yield Crash(CUT, frozenset())
    for effect in pending if len(pending) <= SINGLES else rng.sample(pending, SINGLES):
        yield Crash("one-lost", whole - {effect.number})
        yield Crash("one-kept", frozenset({effect.number}))
    yield from _torn(pending, whole, rng)
    for _ in range(subsets if len(pending) > 2 else 0):
        share = rng.random()
        kept = frozenset(effect.number for effect in pending if rng.random() < share)
        yield Crash("subset", kept, _any_part(pending, kept, rng))


def _ordered(pending: Sequence[Effect], rng: random.Random, subsets: int) -> Iterator[Crash]:
    """Names only in their order; bytes all kept, all lost, and at random."""
    names = [effect.number for effect in pending if effect.is_name]
    data = [effect.number for effect in pending if not effect.is_name]
    yield Crash(KILL, frozenset((*names, *data)))
    yield Crash(CUT, frozenset())
    for count in range(len(names) + 1):
        first = frozenset(names[:count])
        yield Crash("names", first)
        yield Crash("names", first | frozenset(data))
        for _ in range(subsets if data else 0):
            kept = first | {number for number in data if rng.random() < 0.5}
            yield Crash("subset", kept, _any_part(pending, kept, rng))


def _sectors(effect: Effect) -> list[tuple[int, int]]:
    """Where a write falls apart: ranges of its bytes, one for each sector of the file it touches."""
    end = effect.at + len(effect.content or b"")
    edges = [effect.at, *range((effect.at // SECTOR_BYTES + 1) * SECTOR_BYTES, end, SECTOR_BYTES), end]
    return [(low - effect.at, high - effect.at) for low, high in itertools.pairwise(edges)]


def _torn(pending: Sequence[Effect], whole: frozenset[int], rng: random.Random) -> Iterator[Crash]:
    """The last write in part, with all before it kept and with all before it lost."""
    writes = [effect for effect in pending if effect.content]
    if not writes:
        return
    last = writes[-1]
    sectors = _sectors(last)
    some = tuple(sector for sector in sectors if rng.random() < 0.5)
    ways = ((), tuple(sectors[:1]), tuple(sectors[: len(sectors) // 2]), tuple(sectors[1:]), some)
    for ranges in dict.fromkeys(ways):
        for kept in (whole, frozenset({last.number})):
            yield Crash("torn" if ranges else "size-only", kept, {last.number: Part(ranges)})
    for effect in writes[:-1]:
        yield Crash("size-only", whole, {effect.number: Part()})


def _any_part(pending: Sequence[Effect], kept: frozenset[int], rng: random.Random) -> Variant | None:
    """Sometimes one of the kept writes is torn."""
    writes = [effect for effect in pending if effect.number in kept and effect.content]
    if not writes or rng.random() < 0.5:
        return None
    effect = rng.choice(writes)
    return {effect.number: Part(tuple(sector for sector in _sectors(effect) if rng.random() < 0.5))}
