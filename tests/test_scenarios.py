"""The accelerator lost, found again, and lost for good: what happens, and the words that a nurse sees."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from edge.toml import load_toml
from tests.scenario_box import ScenarioBox, scenario_box

FOLDER = Path(__file__).parent / "scenarios"
WAIT_S = 90.0
HOW_FAR_OFF = re.compile(r" by [\d.]+ on the golden case, expected at most [\d.]+(?=\.)")
STEP_KEYS = {
    "happens", "accelerator", "arrives", "restart", "study", "explain", "reads_with", "all_read", "page", "events",
}  # fmt: skip


def seen(box: ScenarioBox, step: dict[str, Any]) -> dict[str, Any]:
    """Of what the step speaks of: what is there now."""
    labels = box.labels()
    now: dict[str, Any] = {"page": [_without_numbers(notice) for notice in box.page()]}
    now["study"] = labels[0] if labels else ""
    if "reads_with" in step:
        now["reads_with"] = box.reads_with()
    if "explain" in step:
        now["explain"] = step["explain"] if step["explain"] in box.get(f"/study/{box.arrived[-1]}") else ""
    if step.get("all_read"):
        now["all_read"] = set(labels) == {"Draft ready"} and len(labels) == len(box.arrived)
    return now


def _without_numbers(notice: dict[str, str]) -> dict[str, str]:
    """How far off numbers are differs between machines."""
    return {**notice, "text": HOW_FAR_OFF.sub("", notice["text"])}


def play(box: ScenarioBox, step: dict[str, Any]) -> None:
    """Let it happen, and wait until a nurse sees what the step says."""
    if "accelerator" in step:
        box.accelerator(**step["accelerator"])
    if step.get("restart"):
        box.restart()
    if step.get("arrives"):
        box.arrive()
    expected = {name: step[name] for name in ("page", "study", "reads_with", "explain", "all_read") if name in step}
    deadline = time.monotonic() + WAIT_S
    while (now := seen(box, step)) != expected and time.monotonic() < deadline:
        box.tend()
        time.sleep(0.1)
    assert now == expected, f"{step['happens']}\n{box.log()}"
    assert box.new_events() == step.get("events", []), step["happens"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("accelerator-lost", marks=pytest.mark.slow),
        "accelerator-found-again",
        pytest.param("accelerator-lost-for-good", marks=pytest.mark.slow),
    ],
)
@pytest.mark.requirement("KEEP-01", "KEEP-03")
def test_scenario(name: str, tmp_path: Path, free_port: int) -> None:
    scenario = load_toml(FOLDER / f"{name}.toml")
    with scenario_box(tmp_path, scenario["backends"], free_port, scenario.get("waits", {})) as box:
        for step in scenario["step"]:
            assert set(step) <= STEP_KEYS
            play(box, {"page": [], **step})
        counts = box.store.counts()
    told = [code for step in scenario["step"] for code in step.get("events", [])]
    assert counts.get("backend_changes", 0) == told.count("backend.changed")
    assert counts.get("worker_deaths", 0) == told.count("worker.deadline")


def test_every_scenario_is_played() -> None:
    played = {"accelerator-lost", "accelerator-found-again", "accelerator-lost-for-good"}
    assert {path.stem for path in FOLDER.glob("accelerator-*.toml")} == played
