"""An engine that is built while the box reads with another backend: one child at the lowest priority."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from edge.bundle import Bundle
from edge.reading.backends.setup import Setup

STOP_S: Final = 5.0  # for a child that was told to stop; its own children stop with it


class Building:
    """Runs `edge.reading.backends.tensorrt_engine`; looked at now and then, as `edge.reading.backends.Probe` is."""

    def __init__(self, name: str, bundle: Bundle, setup: Setup) -> None:
        self.name = name
        program = [sys.executable, "-m", "edge.reading.backends.tensorrt_engine"]
        self._child = subprocess.Popen(
            [*program, str(bundle.path), bundle.sha256, setup.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ended(self) -> bool:
        """True once there is a `result`."""
        return self._child.poll() is not None

    def result(self) -> tuple[bool, str]:
        """(True, which plan was kept and why) or (False, why none was); waits for the end."""
        said, _ = self._child.communicate()
        _code, _, message = (said.strip().splitlines() or [""])[-1].partition(" ")
        returncode = self._child.returncode
        return returncode == 0, message or f"The building of the engine ended with status {returncode}."

    def stop(self) -> None:
        """Cancel it; harmless a second time."""
        if self._child.stdin is not None:
            self._child.stdin.close()
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
