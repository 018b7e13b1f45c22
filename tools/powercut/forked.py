"""A process that loses power with the box: forked, so that the libraries are loaded already."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Forked:
    """Runs `work(*arguments)` in a process of its own, what it prints to stderr appended to `log`."""

    def __init__(self, log: Path, work: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_run, args=(log, work, arguments), daemon=True)
        self._process.start()

    def ended(self) -> bool:
        """True once it is over."""
        return not self._process.is_alive()

    def close(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.join()
        self._process.close()


def _run(log: Path, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    work(*arguments)
    os._exit(0)  # none of the parent's tidying up
