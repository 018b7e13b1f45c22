"""Whether the board's [budget] was kept: by warm studies, by the largest service, by a sensor of the whole board."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edge.bench_result import TOTAL, Energy, Spread, Verdict
from edge.board import Budget


def verdicts(
    budget: Budget,
    seconds: Mapping[str, Mapping[str, Spread]],
    peak_bytes: Mapping[str, int],
    energy: Energy | None,
    energy_absent: str,
) -> tuple[Verdict, ...]:
    """One for each budget that the board names; 0 names none."""
    return tuple(_all(budget, seconds, peak_bytes, energy, energy_absent))


def _all(
    budget: Budget,
    seconds: Mapping[str, Mapping[str, Spread]],
    peak_bytes: Mapping[str, int],
    energy: Energy | None,
    energy_absent: str,
) -> Iterator[Verdict]:
    if budget.report_s:
        yield _report(budget.report_s, seconds)
    if budget.memory_bytes:
        name = max(peak_bytes, key=lambda one: peak_bytes[one])
        peak = peak_bytes[name]
        yield Verdict("memory_bytes", budget.memory_bytes, peak, peak <= budget.memory_bytes, f"largest: {name}")
    if budget.power_w:
        yield _power(budget.power_w, energy, energy_absent)


def _report(limit_s: float, seconds: Mapping[str, Mapping[str, Spread]]) -> Verdict:
    if "warm" not in seconds:
        return Verdict("report_s", limit_s, None, None, "No study was read while the box was neither new nor hot.")
    p95 = seconds["warm"][TOTAL].p95
    return Verdict("report_s", limit_s, p95, p95 <= limit_s, "95th percentile of warm studies")


def _power(limit_w: float, energy: Energy | None, absent: str) -> Verdict:
    if energy is None:
        return Verdict("power_w", limit_w, None, None, absent)
    if energy.reading_w > limit_w:
        return Verdict("power_w", limit_w, energy.reading_w, False, energy.scope)
    if not energy.whole_board:
        words = f"Not decided: the sensor sees only a part of the board ({energy.scope})."
        return Verdict("power_w", limit_w, energy.reading_w, None, words)
    return Verdict("power_w", limit_w, energy.reading_w, True, energy.scope)
