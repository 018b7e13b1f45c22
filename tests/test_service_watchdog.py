"""The page's sign of life to systemd: only while the loop runs and a read of the store comes back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette

from edge.desk import server
from edge.desk.server import serve
from edge.errors import StoreError
from edge.service import Stop


@contextmanager
def serving(port: int, read: Callable[[], object]) -> Iterator[None]:
    stop = Stop(signals=False)
    thread = threading.Thread(target=serve, args=(Starlette(), "127.0.0.1", port, stop, read))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd hears, with a ping at every second tick."""
    monkeypatch.setattr(server, "TICKS_A_PING", 2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_a_page_that_reads_is_alive_even_if_the_store_refuses(systemd: socket.socket, free_port: int) -> None:
    answers: list[str] = []

    def read() -> None:
        answers.append("asked")
        if len(answers) % 2:
            raise StoreError("expected a whole database, got a damaged one", code="store.damaged")

    with serving(free_port, read):
        heard = [systemd.recv(100) for _ in range(4)]
    assert sorted(heard) == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    assert len(answers) >= 3


@pytest.mark.requirement("KEEP-02")
def test_a_page_whose_store_hangs_is_silent(systemd: socket.socket, free_port: int) -> None:
    hanging = threading.Event()
    with serving(free_port, lambda: hanging.wait(20)):
        assert systemd.recv(100) == b"READY=1"
        systemd.settimeout(1.0)
        with pytest.raises(TimeoutError):
            systemd.recv(100)
        hanging.set()
        systemd.settimeout(10)
        assert systemd.recv(100) == b"WATCHDOG=1"
