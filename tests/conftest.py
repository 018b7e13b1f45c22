"""Shared fixtures. The reference data lives beside the checkout and is never copied into it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and DICOM files (`RADBOX_SHARED_DATA` or `../shared/data`); skips where absent."""
    path = Path(os.environ.get("RADBOX_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "dicom" / "index.csv").exists():
        pytest.skip("reference data not beside the checkout")
    return path


@pytest.fixture
def free_port() -> int:
    """A TCP port that was free a moment ago on the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_results: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember how each test ended, under its name without parameters; one failure or skip outweighs passes."""
    if report.when != "call" and report.outcome == "passed":
        return
    name = report.nodeid.split("[")[0].replace("::Test", "::").rsplit("::", 1)
    test = f"{name[0].split('::')[0]}::{name[1]}"
    ranks = ("passed", "skipped", "failed")
    _results[test] = max(_results.get(test, "passed"), report.outcome, key=ranks.index)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """For `tools/trace_requirements --results`."""
    if os.environ.get("RADBOX_TEST_RESULTS"):
        path = Path(os.environ["RADBOX_TEST_RESULTS"])
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(_results, indent=0, sort_keys=True))
