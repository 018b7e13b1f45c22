"""Faults with their promised outcome: the short ones of `tools/chaos_test`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.chaos.scenarios import SCENARIOS, ready
from tools.soak.judge import judge

SHORT = ("no-space", "half-open", "aborted")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(bool(ready()), reason=ready())
@pytest.mark.parametrize("name", SHORT)
def test_promise_is_kept(root: Path, name: str) -> None:
    command = [sys.executable, "-m", "tools.chaos.run", name, "--json"]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=170, check=False)
    result = json.loads(ended.stdout)
    assert [sentence for sentence, held in result["checks"].items() if not held] == [], ended.stderr[-2000:]
    assert ended.returncode == 0


def test_every_scenario_is_in_the_operations(root: Path) -> None:
    text = (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert [name for name in SCENARIOS if f"`{name}`" not in text] == []


def _samples(growth_bytes: float) -> list[dict[str, object]]:
    measure = {"pss_bytes": 50e6, "descriptors": 10, "threads": 3, "processes": 1, "written_bytes": 0}
    return [
        {
            "at_s": 60.0 * minute,
            "sent": minute,
            "unsettled": 0,
            "temporary_files": 0,
            "data_bytes": 1e9,
            "services": {
                "worker": {**measure, "rss_bytes": 100e6 + growth_bytes * minute, "written_bytes": 5e6 * minute}
            },
        }
        for minute in range(121)
    ]


def test_soak_judge_tells_a_leak_from_a_flat_line() -> None:
    flat, leaking = judge(_samples(0.0)), judge(_samples(500_000.0))
    assert flat["passed"]
    assert flat["bytes_written_per_study"] == {"worker": 5_000_000}
    assert not leaking["passed"]
    assert leaking["measures"]["worker.rss_bytes"]["flat"] is False
