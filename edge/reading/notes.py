"""What the worker is at, kept where its death does not reach: `worker.now` in the data folder.

A worker that hangs or crashes can tell nobody why it ended. So it says before each stage what it begins, and the next
worker of the same boot reads that. A deadline that fires and a crash of native code leave a line behind the record
(`faulthandler`, in C, while Python itself may be stuck); a process that was killed from outside leaves none.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

from edge.durable import Mark
from edge.errors import RadboxError, StorageError
from edge.store_paths import boot_id

FILE: Final = "worker.now"
RECORD_BYTES: Final = 1024
_FAULT: Final = "Fatal Python error: "
_log = logging.getLogger("worker")

Phase = Literal["waiting", "loading", "idle", "reading", "failed", "ended"]
How = Literal["deadline", "fault", "error", "killed"]


@dataclass(frozen=True)
class Note:
    """The record. deaths: how many workers before this one died at once; steady: this one did not.

    since_s: monotonic start of the stage; limit_s: after which it is ended, 0 for none. error: of a worker that failed.
    """

    boot_id: str
    pid: int
    deaths: int
    phase: Phase = "waiting"
    steady: bool = False
    stage: str = ""
    backend: str = ""
    study_key: int | None = None
    since_s: float = 0.0
    limit_s: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Death:
    """What the worker before this one, in the same boot, died of. `fault`: the crash or error, "" for none."""

    how: How
    fault: str
    stage: str
    backend: str
    study_key: int | None
    limit_s: float
    deaths: int

    @property
    def code(self) -> str:
        """`worker.deadline` or `worker.died`."""
        return "worker.deadline" if self.how == "deadline" else "worker.died"

    @property
    def message(self) -> str:
        """One plain sentence."""
        place = f" in stage {self.stage}" if self.stage else " while it waited for work"
        on = f" on backend {self.backend}" if self.backend else ""
        if self.how == "deadline":
            return f"The reader was ended after {self.limit_s:.0f} s{place}{on}."
        if self.how == "error":
            return f"The reader stopped with an error{place}{on} ({self.fault})."
        why = f" ({self.fault})" if self.fault else ", ended from outside or for lack of memory"
        return f"The reader died{place}{on}{why}."

    @property
    def of_backend(self) -> str:
        """What the page says of the backend that was at work."""
        return "It did not answer in time." if self.how == "deadline" else "It made the reader stop."


class Notes:
    """Of one worker. Opening it tells what became of the one before (`death`), then begins a record of its own.

    Left with an error, it says that this worker failed; else that it ended in order.
    """

    def __init__(self, data_dir: Path) -> None:
        """The folder must exist. Raises StorageError."""
        self._mark = Mark(data_dir / FILE, RECORD_BYTES)
        self.death = _death(self._mark.left)
        self._note = Note(boot_id(), os.getpid(), self.death.deaths if self.death else 0)
        self._put(self._note)

    @property
    def deaths(self) -> int:
        """How many workers before this one died at once."""
        return self._note.deaths

    @property
    def steady(self) -> bool:
        """True once this worker has read a study or served for a while."""
        return self._note.steady

    def fileno(self) -> int:
        """Where a fault handler may write."""
        return self._mark.fileno()

    def loading(self, backend: str, limit_s: float) -> None:
        """A model is being opened; "" while its files are checked."""
        self._at("loading", "load", backend, None, limit_s)

    def reading(self, stage: str, backend: str, study_key: int, limit_s: float) -> None:
        """A stage of a study begins. backend: "" where the stage does not use one."""
        self._at("reading", stage, backend, study_key, limit_s)

    def idle(self) -> None:
        """Nothing is at work."""
        if self._note.phase != "idle":
            self._at("idle", "", "", None, 0.0)

    def settled(self) -> None:
        """This worker did not die at once; the next one need not wait."""
        if not self._note.steady:
            self._put(dataclasses.replace(self._note, steady=True))

    def __enter__(self) -> Notes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._at("ended", "", "", None, 0.0)
        else:
            name = error.code if isinstance(error, RadboxError) else kind.__name__
            self._put(dataclasses.replace(self._note, phase="failed", error=name))
        self._mark.close()

    def _at(self, phase: Phase, stage: str, backend: str, study_key: int | None, limit_s: float) -> None:
        since_s = time.monotonic()
        self._put(
            dataclasses.replace(
                self._note,
                phase=phase,
                stage=stage,
                backend=backend,
                study_key=study_key,
                since_s=since_s,
                limit_s=limit_s,
            )
        )

    def _put(self, note: Note) -> None:
        self._note = note
        try:
            self._mark.write(json.dumps(dataclasses.asdict(note)).encode())
        except StorageError as error:
            _log.error("%s: what the worker is at could not be noted", error.code)


def _death(left: bytes) -> Death | None:
    """What a record says of its worker; None if it ended in order, with the machine, or left no record."""
    try:
        note = Note(**json.loads(left[:RECORD_BYTES]))
    except (ValueError, TypeError):
        return None
    if note.boot_id != boot_id() or note.phase == "ended":
        return None
    lines = left[RECORD_BYTES:].decode("utf-8", "replace").splitlines()
    if lines:
        _log.warning("the stack of the worker that died: %s", " | ".join(line.strip() for line in lines[:12]))
    deaths = 0 if note.steady else note.deaths + (note.phase != "waiting")
    how, fault = _cause(note, lines)
    return Death(how, fault, note.stage, note.backend, note.study_key, note.limit_s, deaths)


def _cause(note: Note, lines: list[str]) -> tuple[How, str]:
    if note.phase == "failed":
        return "error", note.error
    if not lines:
        return "killed", ""
    crashed = lines[0].startswith(_FAULT)
    return ("fault", lines[0].removeprefix(_FAULT)) if crashed else ("deadline", "")
