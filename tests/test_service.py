"""The stop flag, the log, and the words to systemd."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from edge.service import Stop, notify, setup_logging


def test_a_signal_ends_the_wait() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        stop = Stop()
        assert not stop.wait(0.01)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        started_s = time.monotonic()
        assert stop.wait(10)
        assert time.monotonic() - started_s < 5
        assert stop.is_set()
        assert stop.wait(10), "and every later wait returns at once"
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_set_from_another_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = Stop(signals=False)
    assert signal.getsignal(signal.SIGTERM) is before
    threading.Timer(0.05, stop.set).start()
    assert stop.wait(10)


def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(5)
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(5)
        systemd.bind("\0radbox-test-notify")
        monkeypatch.setenv("NOTIFY_SOCKET", "@radbox-test-notify")
        notify("WATCHDOG=1")
        assert systemd.recv(100) == b"WATCHDOG=1"
    notify("WATCHDOG=1")


def test_logging_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        setup_logging("receive").info("listening on %d", 1)
        logging.getLogger("pynetdicom.acse").warning("Doe^Jane")
        assert capsys.readouterr().err == "INFO radbox.receive: listening on 1\n"
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
