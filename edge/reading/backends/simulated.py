"""An accelerator that fails when it is told to: the TFLite file underneath, and a state file over it.

The file is that of the board's simulated hardware (`hardware.state_file`, TOML), read at every use:

    [accelerator]
    state = "ok"        # ok, lost (an error), hang (native code that never returns), wrong (numbers that are off)
    after_runs = 0      # the state counts only after that many runs of one process, such as those of the golden case

So what a box does when its accelerator fails is played on a laptop, by configuration alone.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final, Literal, NoReturn

import numpy as np

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends import tflite
from edge.reading.backends.setup import Setup
from edge.reading.radiograph import F32
from edge.toml import load_toml

State = Literal["ok", "lost", "hang", "wrong"]
STATES: Final[tuple[State, ...]] = ("ok", "lost", "hang", "wrong")


class SimulatedEncoder:
    """See the module docstring."""

    name = "simulated-npu"
    emission = "tflite"

    def __init__(self, encoder: tflite.TfliteEncoder, state_file: str) -> None:
        self._encoder = encoder
        self._state_file = state_file
        self._runs = 0

    def run(self, x: F32) -> dict[str, F32]:
        """See `edge.reading.backends.Encoder.run`."""
        wrong = _obey(self._state_file, self._runs)
        self._runs += 1
        outputs = self._encoder.run(x)
        return {name: np.flip(values, -1) + np.float32(1.0) for name, values in outputs.items()} if wrong else outputs


def load(bundle: Bundle, setup: Setup) -> SimulatedEncoder:
    """Raises BackendError: backend.lost (told so), and what the TFLite backend raises."""
    _obey(setup.state_file, 0)
    return SimulatedEncoder(tflite.load(bundle, setup), setup.state_file)


def _obey(state_file: str, runs: int) -> bool:
    """Fail as told; True if the numbers shall be wrong. `runs`: how often this process has used the accelerator."""
    state, after_runs = _told(state_file)
    if runs < after_runs or state == "ok":
        return False
    if state == "lost":
        raise BackendError("The accelerator does not answer.", code="backend.lost")
    if state == "hang":
        _hang()
    return True


def _told(state_file: str) -> tuple[State, int]:
    if not state_file:
        return "ok", 0
    try:
        accelerator = load_toml(Path(state_file)).get("accelerator", {})
        state, after_runs = accelerator.get("state", "ok"), accelerator.get("after_runs", 0)
    except FileNotFoundError:
        return "ok", 0
    except (OSError, ValueError, AttributeError) as error:
        raise BackendError("The state of the simulated accelerator cannot be read.", code="backend.load") from error
    if state not in STATES or not isinstance(after_runs, int):
        expected = f"expected a state out of {', '.join(STATES)} and a whole number of runs"
        raise BackendError(f"The simulated accelerator {expected}.", code="backend.load")
    return state, after_runs


def _hang() -> NoReturn:
    """As a stuck driver does: in native code, with Python's lock held; only the end of the process ends it."""
    native = ctypes.PyDLL(None)
    while True:
        native.pause()
