"""The trial of a delegate, seen from outside: a child process that may crash or hang in its maker's library.

The child (`delegate_child`) says on a pipe of its own which phase it begins and, at the end, its verdict or an error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

from edge.bundle import Bundle
from edge.closed import ClosedError, build
from edge.errors import BackendError
from edge.reading.backends.delegate_verdict import Verdict
from edge.reading.backends.setup import Setup

TRIAL_TIMEOUT_S = 90.0  # below PROBE_TIMEOUT_S, so that the reason is told and not only that the probe took too long
LOADING: Final = "loading"
RUNNING: Final = "running"


def try_out(bundle: Bundle, setup: Setup, timeout_s: float = TRIAL_TIMEOUT_S) -> Verdict:
    """Try delegate `setup.backend` in a child. Raises BackendError: what the child met, or delegate.crashed-loading,
    .crashed-running, .hung-loading, .hung-running.
    """
    program = [sys.executable, "-m", "edge.reading.backends.delegate_child"]
    command = [*program, str(bundle.path), bundle.sha256, setup.to_json(), str(timeout_s)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        phase, _ = _said(error.output or b"")
        message = f"The accelerator hung while {phase}: expected it to be done in {timeout_s:.0f} s."
        raise BackendError(message, code=f"delegate.hung-{phase}") from error
    phase, end = _said(done.stdout)
    if "code" in end:
        raise BackendError(str(end["message"]), code=str(end["code"]))
    try:
        return build(Verdict, end.get("verdict"), "verdict")
    except ClosedError as error:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        message = f"The accelerator's library ended the process while {phase} ({how})."
        raise BackendError(message, code=f"delegate.crashed-{phase}") from error


def _said(output: bytes) -> tuple[str, dict[str, Any]]:
    """The last phase that began, and what came at the end: {"verdict"}, {"code", "message"} or nothing."""
    phase = LOADING
    for line in output.splitlines():
        try:
            said = json.loads(line)
        except ValueError:  # the last line of a child that died while it wrote
            return phase, {}
        if "phase" not in said:
            return phase, said
        phase = said["phase"]
    return phase, {}
