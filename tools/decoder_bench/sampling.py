"""Turns: every contestant decodes a few tokens, then the next one, in random order, until each has enough samples.

A sample is one token. It counts only if no thread of this process was preempted meanwhile (ru_nivcsw unchanged), so
that other work on the machine thins the samples out instead of bending them; a contestant that keeps its own time sees
to that itself. What is left of its influence (a shared cache and memory bus) meets all contestants alike.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.decoder_bench.contestant import Contestant
from tools.decoder_bench.sizes import FIRST, LAST

SETTLE_S = 0.003  # threads of the one before stop spinning


@dataclass(frozen=True)
class Measured:
    """Seconds per token. fast: the tenth percentile."""

    median_s: float
    fast_s: float
    samples: int
    discarded: int


def _preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def measure(contestants: Sequence[Contestant], seconds: float) -> list[Measured]:
    """One Measured per contestant; runs for about `seconds`, at least three turns each."""
    kept: list[list[float]] = [[] for _ in contestants]
    discarded = [0] * len(contestants)
    order = list(range(len(contestants)))
    position = [LAST] * len(contestants)
    shuffle = random.Random(0)
    end, turns = time.monotonic() + seconds, 0
    while turns < 3 or time.monotonic() < end:
        turns += 1
        shuffle.shuffle(order)
        for index in order:
            contestant = contestants[index]
            time.sleep(SETTLE_S)
            warm, timed = contestant.turn
            for token in range(warm + timed):
                if position[index] >= LAST:
                    contestant.rewind()
                    position[index] = FIRST
                before, started = _preemptions(), time.perf_counter()
                own = contestant.token()
                elapsed = time.perf_counter() - started if own is None else own
                position[index] += 1
                if token < warm:
                    continue
                if own is not None or _preemptions() == before:
                    kept[index].append(elapsed)
                else:
                    discarded[index] += 1
    return [_summary(samples, lost) for samples, lost in zip(kept, discarded, strict=True)]


def _summary(samples: list[float], discarded: int) -> Measured:
    if not samples:
        return Measured(float("nan"), float("nan"), 0, discarded)
    return Measured(float(np.median(samples)), float(np.percentile(samples, 10)), len(samples), discarded)
