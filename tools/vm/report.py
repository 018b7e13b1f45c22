"""What a run found: a table for people, Markdown for docs/reliability.md, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tools.vm.bench import Findings


def table(results: Sequence[Findings]) -> str:
    """Name, seconds, verdict; below each what did not hold."""
    lines = [f"{'scenario':14s} {'seconds':>8s}  verdict"]
    for one in results:
        held = sum(1 for _, good, _ in one.checks if good)
        lines.append(f"{one.name:14s} {one.seconds:8.0f}  {'ok' if one.held else 'FAILED'} ({held}/{len(one.checks)})")
        lines += [f"    not so: {sentence}: {detail[:300]}" for sentence, good, detail in one.checks if not good]
    return "\n".join(lines)


def markdown(results: Sequence[Findings]) -> str:
    """The same with what was measured, as rows of a table."""
    lines = ["| scenario | seconds | result | measured |", "|---|---|---|---|"]
    for one in results:
        measured = "; ".join(f"{name}: {value}" for name, value in one.figures.items())
        held = sum(1 for _, good, _ in one.checks if good)
        verdict = f"{held} of {len(one.checks)} checks held"
        lines.append(f"| `{one.name}` | {one.seconds:.0f} | {verdict} | {measured} |")
    return "\n".join(lines)


def document(results: Sequence[Findings], **about: Any) -> str:
    """Everything, as JSON."""
    scenarios = [
        {
            "name": one.name,
            "held": one.held,
            "seconds": round(one.seconds, 1),
            "checks": [{"sentence": words, "held": held, "detail": detail} for words, held, detail in one.checks],
            "figures": one.figures,
        }
        for one in results
    ]
    return json.dumps({**about, "scenarios": scenarios}, indent=1) + "\n"
