"""Programs of the board's system that know what no file tells. None of them has to be installed."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Final

TIMEOUT_S: Final = 5.0

Run = Callable[[Sequence[str]], bytes | None]


def run_program(command: Sequence[str]) -> bytes | None:
    """What a program prints; None if it is not installed, fails or takes longer than 5 s."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


class Remembered:
    """Runs each command at most once in `for_s` seconds and gives the same answer meanwhile."""

    def __init__(self, run: Run, for_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: for tests."""
        self._run = run
        self._for_s = for_s
        self._clock = clock
        self._answers: dict[tuple[str, ...], tuple[float, bytes | None]] = {}

    def __call__(self, command: Sequence[str]) -> bytes | None:
        """The answer, perhaps an older one."""
        key, now_s = tuple(command), self._clock()
        if key not in self._answers or now_s - self._answers[key][0] >= self._for_s:
            self._answers[key] = (now_s, self._run(command))
        return self._answers[key][1]
