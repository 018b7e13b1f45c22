"""What the issue desk remembers across restarts of care: one small fact of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from edge.care.issues.habits import Habit

FACT: Final = "issue-notes"  # written by care


@dataclass(frozen=True)
class Notes:
    """seen: code -> the mark of what a person took note of. repaired: event of the last repair, 0 for none."""

    habits: Mapping[str, Habit] = field(default_factory=dict)
    seen: Mapping[str, str] = field(default_factory=dict)
    repaired: int = 0


def to_fact(notes: Notes) -> dict[str, Any]:
    """As the store keeps it."""
    return {
        "habits": {name: asdict(habit) for name, habit in notes.habits.items()},
        "seen": dict(notes.seen),
        "repaired": notes.repaired,
    }


def from_fact(value: Mapping[str, Any]) -> Notes:
    """`to_fact` back. What an older version wrote otherwise is learned anew."""
    try:
        habits = {
            str(name): Habit(float(one["last_age_s"]), tuple(map(float, one["gaps_s"])), int(one["retired_at"]))
            for name, one in value["habits"].items()
        }
        seen = {str(code): str(mark) for code, mark in value["seen"].items()}
        return Notes(habits, seen, int(value["repaired"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return Notes()
