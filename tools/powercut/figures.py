"""What a run found, as one table and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from tools.powercut.control import Control

EXAMPLES_KEPT = 10


@dataclass
class Tally:
    """One subject's cuts. Acknowledged things count once, however many later cuts they also survived."""

    name: str
    cuts: int = 0
    acknowledged: int = 0
    lost: int = 0
    damaged: int = 0
    unbootable: int = 0  # cuts after which it did not come back
    stray: int = 0  # records that point to nothing
    refused: int = 0  # answers other than Success
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)  # what else is worth a count
    examples: list[str] = field(default_factory=list)

    def tell(self, what: str) -> None:
        """Keep a first few losses in words."""
        if len(self.examples) < EXAMPLES_KEPT:
            self.examples.append(f"cut {self.cuts}: {what}")

    def count(self, what: str, by: int = 1) -> None:
        """Count something by name."""
        self.counts[what] = self.counts.get(what, 0) + by

    @property
    def faultless(self) -> bool:
        """True if nothing acknowledged suffered and it always came back."""
        return not (self.lost or self.damaged or self.unbootable or self.stray) and self.cuts > 0


def upper_bound(events: int, trials: int) -> float | None:
    """Rule of three: 95 % upper bound of a rate of which none of `trials` showed an event; None where some did."""
    return None if events or not trials else min(1.0, 3 / trials)


def as_json(area: str, seed: int, controls: Sequence[Control], tallies: Sequence[Tally]) -> dict[str, object]:
    """Everything, for machines."""
    return {
        "area": area,
        "seed": seed,
        "controls": [dataclasses.asdict(one) for one in controls],
        "controls_valid": all(one.valid for one in controls),
        "results": [
            dataclasses.asdict(one)
            | {
                "lost_or_damaged_upper_bound_per_acknowledged": upper_bound(one.lost + one.damaged, one.acknowledged),
                "failed_cut_upper_bound": upper_bound(0 if one.faultless else 1, one.cuts),
            }
            for one in tallies
        ],
    }


def table(area: str, seed: int, controls: Sequence[Control], tallies: Sequence[Tally]) -> str:
    """Everything, for people."""
    lines = [f"power cuts, {area}, seed {seed}"]
    lines += [f"control: {one}: {'the disk is honest' if one.valid else 'VOID'}" for one in controls]
    head = ("", "cuts", "acknowledged", "lost", "damaged", "unbootable", "stray", "refused", "s per cut", "95 % bound")
    rows = [head] + [_row(one) for one in tallies]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        first, *rest = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]))
    for one in tallies:
        if one.counts:
            lines.append(f"{one.name}: " + ", ".join(f"{what} {count}" for what, count in one.counts.items()))
        lines += [f"{one.name}: {example}" for example in one.examples]
    if not all(one.valid for one in controls) or not controls:
        lines.append(
            "this run is void: the controls did not behave, the disk does not drop what it should, or drops more"
        )
    return "\n".join(lines)


def _row(one: Tally) -> tuple[str, ...]:
    bound = upper_bound(one.lost + one.damaged, one.acknowledged)
    per_cut = upper_bound(0 if one.faultless else 1, one.cuts)
    bounds = "-" if bound is None else f"{bound:.2%} of acknowledged"
    if per_cut is not None:
        bounds += f", {per_cut:.1%} of cuts"
    numbers = (one.cuts, one.acknowledged, one.lost, one.damaged, one.unbootable, one.stray, one.refused)
    return (one.name, *map(str, numbers), f"{one.seconds / max(one.cuts, 1):.1f}", bounds)
