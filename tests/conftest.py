"""Shared fixtures. The reference data lives beside the checkout and is never copied into it."""

from __future__ import annotations

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
