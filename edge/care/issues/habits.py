"""How often each machine sends, so that its silence can be told from its habit. Pure; ages are of the box.

Only what the box saw while it ran counts: a night without power is no silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge.store_rows import ModalityRow

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
GAP_S: Final = HOUR_S  # shorter pauses are between two patients
GAPS_KEPT: Final = 20
USED_TO_SEND: Final = 20  # images
OBSERVED_S: Final = 3 * DAY_S
LEAST_SILENCE_S: Final = 3 * DAY_S  # a weekend, before the first one was seen
TIMES: Final = 2.0  # longer than the longest of its pauses
NO_MACHINES: Final = ("USB-STICK", "GRABBER")  # names under which the box itself files images


@dataclass(frozen=True)
class Habit:
    """last_age_s: of the newest image seen. gaps_s: its last long pauses. retired_at: images when a person said that
    the machine is no longer used, or -1."""

    last_age_s: float
    gaps_s: tuple[float, ...] = ()
    retired_at: int = -1


@dataclass(frozen=True)
class Silence:
    """A machine that sends no more. Seconds of running time."""

    calling_ae: str
    silent_s: float
    usual_s: float


def learn(habits: Mapping[str, Habit], rows: Sequence[ModalityRow]) -> dict[str, Habit]:
    """The habits after another look; machines that the store forgot are forgotten."""
    return {row.calling_ae: _learn(habits.get(row.calling_ae), row) for row in rows}


def _learn(habit: Habit | None, row: ModalityRow) -> Habit:
    if habit is None:
        return Habit(row.last_age_s)
    if row.last_age_s <= habit.last_age_s:
        return habit
    gap_s = row.last_age_s - habit.last_age_s
    gaps_s = (*habit.gaps_s, gap_s)[-GAPS_KEPT:] if gap_s >= GAP_S else habit.gaps_s
    back = habit.retired_at >= 0 and row.images > habit.retired_at
    return Habit(row.last_age_s, gaps_s, -1 if back else habit.retired_at)


def silences(habits: Mapping[str, Habit], rows: Sequence[ModalityRow], age_s: float) -> list[Silence]:
    """Machines that used to send and have been silent for much longer than ever before."""
    found = []
    for row in rows:
        habit = habits.get(row.calling_ae)
        used_to_send = row.images >= USED_TO_SEND and row.last_age_s - row.first_age_s >= OBSERVED_S
        if habit is None or not used_to_send or habit.retired_at >= 0 or row.calling_ae in NO_MACHINES:
            continue
        usual_s = max(habit.gaps_s, default=0.0)
        silent_s = age_s - row.last_age_s
        if silent_s >= max(LEAST_SILENCE_S, TIMES * usual_s):
            found.append(Silence(row.calling_ae, silent_s, usual_s))
    return found
