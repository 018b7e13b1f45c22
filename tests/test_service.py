"""The stop flag, the log, and the words to systemd."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edge import service
from edge.service import Progress, Stop, notify, setup_logging


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


BINDING = """
import sys
sys.path[:0] = sys.argv[1:]
import systemd.daemon
from edge import service
assert service._through_systemd is systemd.daemon.notify
service.notify("READY=1")
"""


def test_systemds_own_binding_is_used_where_it_is_installed(tmp_path: Path, root: Path) -> None:
    """The python3-systemd of a distribution belongs to its own Python, so that one is asked."""
    python = shutil.which("python3", path="/usr/bin")
    asked = [python or "python3", "-c", "import sys, systemd.daemon; assert sys.version_info >= (3, 10)"]
    if python is None or subprocess.run(asked, cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("python3-systemd is not installed")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(5)
        systemd.bind(str(tmp_path / "notify"))
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        command = [python, "-c", BINDING, str(root)]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=30)
        assert systemd.recv(100) == b"READY=1"


def test_the_choice_of_who_tells_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "systemd", None)  # what is not installed cannot be imported
    assert service._systemd_notify() is None
    package = tmp_path / "systemd"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "daemon.py").write_text("def notify(state): return state")
    monkeypatch.delitem(sys.modules, "systemd")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = service._systemd_notify()
    assert found is not None
    assert found("READY=1") == "READY=1"
    for name in ("systemd", "systemd.daemon"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.requirement("KEEP-02")
def test_a_watchdog_of_several_parts_is_silent_when_one_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        progress = Progress("loop", "child", limit_s=10.0)
        assert progress.ping()
        assert systemd.recv(100) == b"WATCHDOG=1"
        now[0] = 109.0
        progress.moved("loop")
        now[0] = 111.0
        assert not progress.ping()
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
        progress.moved("child")
        assert progress.ping()
        assert systemd.recv(100) == b"WATCHDOG=1"
        with pytest.raises(KeyError):
            progress.moved("other")


def test_a_fresh_process_has_the_same_id_and_command(root: Path) -> None:
    program = "import os, sys; from edge.service import start_afresh; print(os.getpid(), sys.argv[1:], flush=True); "
    program += "seen = 'SEEN' in os.environ; os.environ['SEEN'] = '1'; None if seen else start_afresh()"
    done = subprocess.run(
        [sys.executable, "-c", program, "a", "b c"], cwd=root, capture_output=True, text=True, check=True, timeout=30
    )
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.endswith("['a', 'b c']")


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
