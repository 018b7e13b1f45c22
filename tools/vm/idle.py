"""Scenario: what the box costs while nothing happens - memory and wake-ups of each service."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.vm.bench import SERVICES, Bench, Findings
from tools.vm.machine import Machine

MEASURED_S: Final = 60
QUIET_S: Final = 30  # before it, for what a snapshot stirs up
MIB: Final = 2**20
LIMIT_MIB: Final = 250  # all services together
PROBE: Final = Path(__file__).with_name("count.py")


@dataclass(frozen=True)
class Cost:
    """One service, idle. Bytes; `current` is what systemd counts, with page cache. wakes: context switches a second."""

    rss: int
    pss: int
    current: int
    wakes: float
    cpu_percent: float


def idle(bench: Bench, found: Findings) -> None:
    """Memory by systemd and by /proc, and context switches over a minute."""
    with bench.resumed(found.name) as machine:
        costs = measure(machine)
        for name, cost in costs.items():
            found.figure(
                name,
                f"PSS {cost.pss / MIB:.0f}, RSS {cost.rss / MIB:.0f}, MemoryCurrent {cost.current / MIB:.0f} MiB; "
                f"{cost.wakes:.1f} context switches/s, {cost.cpu_percent:.1f} % of an emulated core",
            )
        pss, rss = (sum(getattr(cost, kind) for cost in costs.values()) / MIB for kind in ("pss", "rss"))
        wakes = sum(cost.wakes for cost in costs.values())
        found.figure("all services", f"PSS {pss:.0f} MiB, RSS {rss:.0f} MiB; {wakes:.1f} context switches/s")
        found.check(f"all services together take at most {LIMIT_MIB} MiB (PSS)", pss <= LIMIT_MIB, f"{pss:.0f} MiB")
        found.check("all are measured", set(costs) == set(SERVICES), str(set(costs)))


def measure(machine: Machine) -> dict[str, Cost]:
    """Each service's cost over a minute."""
    machine.shell.put("/run/radbox-count.py", PROBE.read_bytes())
    command = f"sleep {QUIET_S}; python3 /run/radbox-count.py {MEASURED_S} {' '.join(SERVICES)}"
    found = json.loads(machine.must(command, QUIET_S + MEASURED_S + 300).splitlines()[-1])
    return {name: Cost(**one) for name, one in found.items()}
