"""Power cuts under receiving, updating and backing up: a few of the many that `tools/powercut_test` makes on demand."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.powercut.control import Control
from tools.powercut.disk import missing
from tools.powercut.figures import Tally, as_json, table, upper_bound
from tools.powercut.workplace import MEMORY, PREFIX

SUBJECTS = {"receive": 5, "update": 4, "backup": 1}  # cuts; tools/powercut_test makes as many as asked for


def test_figures() -> None:
    assert upper_bound(0, 300) == 0.01
    assert upper_bound(1, 300) is None
    assert upper_bound(0, 0) is None
    honest, blind = Control(10, 10, 8, 0), Control(10, 0, 8, 0)
    assert honest.valid
    assert not blind.valid
    assert not Control(10, 10, 8, 1).valid
    ours = Tally("radbox", cuts=30, acknowledged=300)
    assert ours.faultless
    assert not Tally("radbox").faultless, "a run without a cut shows nothing"
    for fault in ("lost", "damaged", "unbootable", "stray"):
        faulty = Tally("radbox", cuts=30)
        setattr(faulty, fault, 1)
        assert not faulty.faultless
    text = table("receive", 7, [honest, honest], [ours])
    assert "1.00% of acknowledged, 10.0% of cuts" in text
    assert "void" not in text
    assert "void" in table("receive", 7, [honest, blind], [ours])
    assert as_json("receive", 7, [honest, blind], [ours])["controls_valid"] is False


@pytest.mark.slow
@pytest.mark.parametrize(("area", "cuts"), SUBJECTS.items())
@pytest.mark.requirement("RCV-01")
def test_nothing_acknowledged_is_lost_when_the_power_goes(area: str, cuts: int, root: Path) -> None:
    if why := missing():
        pytest.skip(why)
    if shutil.which("echoscu") is None:
        pytest.skip("DCMTK is not installed")
    command: list[str | Path] = [
        root / "tools" / "powercut_test",
        area,
        "--cuts",
        str(cuts),
        "--seed",
        "20261122",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["controls_valid"], found["controls"]
    (ours,) = found["results"]
    assert ours["cuts"] == cuts
    assert area == "backup" or ours["acknowledged"] > 0
    assert [ours[kind] for kind in ("lost", "damaged", "unbootable", "stray", "refused")] == [0] * 5, ours["examples"]
    assert done.returncode == 0
    assert PREFIX not in Path("/proc/mounts").read_text(), "a mount stayed behind"
    loops = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert not any(PREFIX in backing for backing in loops), "a loop device stayed behind"
    assert not list(MEMORY.glob(f"{PREFIX}*")), "a folder stayed behind"
