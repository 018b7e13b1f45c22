"""`tools/crash_points`: every scenario through the enumeration, one line each; exit code 1 if a promise was broken."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.crash.explore import Outcome, Scenario, Search, explore

SCENARIOS = "tests.crash_scenarios"  # module with SCENARIOS, a tuple of Scenario
USUAL, MORE = Search(subsets=6), Search(limit=50_000, subsets=60)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parsed = _parser().parse_args(arguments)
    table: tuple[Scenario, ...] = importlib.import_module(SCENARIOS).SCENARIOS
    known = {scenario.name: scenario for scenario in table}
    unknown = sorted(set(parsed.scenario) - set(known))
    if unknown:
        print(f"crash_points: expected scenarios of {', '.join(known)}, got {', '.join(unknown)}", file=sys.stderr)
        return 2
    search = dataclasses.replace(
        MORE if parsed.more else USUAL,
        seed=parsed.seed,
        ordered_names=parsed.order == "ext4",
        keep=parsed.keep,
    )
    if parsed.limit is not None:
        search = dataclasses.replace(search, limit=parsed.limit)
    outcomes = []
    for name in parsed.scenario or known:
        outcomes.append(explore(known[name], search))
        if not parsed.json:
            _tell(outcomes[-1])
    if parsed.json:
        print(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1))
    else:
        seconds = sum(outcome.record_s + outcome.check_s for outcome in outcomes)
        print(f"{sum(outcome.checked for outcome in outcomes)} distinct states checked in {seconds:.0f} s")
    return int(any(outcome.problem_states for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("crash_points", description=__doc__)
    parser.add_argument("scenario", nargs="*", help="default: all")
    parser.add_argument("--more", action="store_true", help="up to 50,000 states each and ten times the random subsets")
    parser.add_argument("--limit", type=int, help="distinct states to check of each scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--order", choices=("posix", "ext4"), default="posix", help="ext4: names keep their order")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the folders that broke a promise here")
    parser.add_argument("--json", action="store_true")
    return parser


def _tell(outcome: Outcome) -> None:
    counts = f"{outcome.calls:5d} calls, {outcome.distinct:6d} distinct states, {outcome.checked:6d} checked"
    times = f"recorded in {outcome.record_s:.1f} s, checked in {outcome.check_s:.1f} s"
    verdict = f"{outcome.problem_states} BROKEN" if outcome.problem_states else "all promises kept"
    print(f"{outcome.name:12s} {counts}; {times}: {verdict}", flush=True)
    for problem in outcome.problems:
        print(f"    {problem.what} [{problem.how}, after call {problem.call}: {problem.after}]", flush=True)


if __name__ == "__main__":
    sys.exit(main())
