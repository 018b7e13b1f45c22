"""Every parser of outside bytes: the crashes of long runs replayed, and a short coverage-guided run."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge.errors import RadboxError
from tools.fuzz.targets import TARGETS, run

RUNS = 10_000


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_accepted(name: str) -> None:
    refused = []
    for content in TARGETS[name].seeds():
        try:
            TARGETS[name].one(content)
        except RadboxError as error:
            refused.append(error.message)
    assert TARGETS[name].seeds()
    assert refused == [], "a fuzzer that starts from refused bytes looks at little"


@pytest.mark.parametrize("name", TARGETS)
def test_what_once_crashed_is_answered(root: Path, name: str) -> None:
    for path in sorted((root / "tests" / "fuzz" / name).glob("*")):
        run(TARGETS[name], path.read_bytes())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="the fuzzer has no build for this Python")
@pytest.mark.parametrize("name", TARGETS)
def test_short_run(root: Path, name: str) -> None:
    command = [sys.executable, "-m", "tools.fuzz.run", name, "--runs", str(RUNS), "--json"]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100, check=False)
    result = json.loads(ended.stdout)
    assert (ended.returncode, result["crashed"]) == (0, False), ended.stderr[-2000:]
    assert result["executions"] >= RUNS


def test_a_crash_is_seen() -> None:
    """The harness itself: an error that is none of ours goes through."""
    from dataclasses import replace

    broken = replace(TARGETS["config"], one=lambda _: [][0])
    with pytest.raises(IndexError):
        run(broken, b"")
