"""Results of radbox bench as tests need them: one that is whole, and others that differ in one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge.bench_result import (
    SCHEMA,
    STAGES,
    Energy,
    Machine,
    Model,
    Queue,
    Result,
    Setting,
    Spread,
    Tokens,
    Verdict,
    Work,
    spread,
)

NAMES = (*STAGES, "text", "waiting", "reading", "total")


def stages(factor: float = 1.0, studies: int = 12) -> dict[str, Spread]:
    """Every stage takes ten times as long as the one before the last but two, with a little noise."""
    return {
        name: spread([factor * 10.0 ** (number / 4.0 - 4.0) * (1.0 + study / 100.0) for study in range(studies)])
        for number, name in enumerate(NAMES)
    }


def result(factor: float = 1.0, states: tuple[str, ...] = ("cold", "warm"), **changed: Any) -> Result:
    """changed: fields of Result."""
    whole = Result(
        schema=SCHEMA,
        taken="2026-11-22T12:00:00+00:00",
        machine=Machine("Test Board <1>", "Test CPU", "aarch64", 4, 2**33, "15W", 1500),
        setting=Setting("test", "tflite", "tflite", "neon_dotprod", "q8", 4, 2),
        model=Model("chest", "1.0.0", "a" * 64),
        work=Work("2048 x 2500, 16 bit, uncompressed", 12, 2, 3, 6),
        software={"python": "3.11.2", "numpy": "2.4.6"},
        seconds={state: stages(factor * (2.0 if state == "cold" else 1.0)) for state in states},
        ready_s=spread([2.0, 2.1, 2.2]),
        first_report_s=spread([2.5, 2.6, 2.7]),
        queue=Queue(4.0, 5, 1.25),
        tokens=Tokens(spread([4000.0] * 5), 29),
        peak_bytes={"worker": 160 << 20, "web": 60 << 20},
        energy=Energy("INA3221", "input of the module (VDD_IN)", True, 3.0, 7.5, 1.9, 1.1),
        energy_absent="",
        budgets=(
            Verdict("report_s", 1.5, 0.4, True, "95th percentile of warm studies"),
            Verdict("memory_bytes", 100 << 20, 160 << 20, False, "largest: worker"),
            Verdict("power_w", 10.0, None, None, "No sensor."),
        ),
        load_before=0.1,
        load_after=0.9,
    )
    return replace(whole, **changed)
