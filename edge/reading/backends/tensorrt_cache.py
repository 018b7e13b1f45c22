"""What is kept of TensorRT on this box: plans, timing caches, and beside them, as JSON, which plan reads and why.

Below `setup.cache`: tensorrt-KEY.plan, tensorrt-KEY.timing, tensorrt-KEY.json. A plan is believed only if its sha256 is
the one in the JSON; a torn or changed one is as good as none and is built again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

from edge import durable
from edge.closed import ClosedError, build
from edge.errors import BackendError, StorageError
from edge.reading.backends.tensorrt_key import Facts, Flags, Precision

SCHEMA: Final = 1
PREFIX: Final = "tensorrt-"
PLAN, TIMING, CHOICE, LOCK = ".plan", ".timing", ".json", "tensorrt.lock"
RECENT_CHOICES: Final = 4  # models in three slots, and a change of the board
LARGEST_CHOICE_BYTES: Final = 1 << 20
LARGEST_PLAN_BYTES: Final = 1 << 30
LARGEST_TIMING_BYTES: Final = 256 << 20


@dataclass(frozen=True)
class Trial:
    """One plan, built and tried on this box. code: "" if it passed the golden case of its own file.

    build_s: 0 where the plan was kept from before. p50_s, p95_s: seconds of one pass with its copies. errors: of the
    golden case, per output (`golden.check_golden`). accuracy: "" or why int8 is not close enough to float16;
    accuracy_errors: its errors against float16, empty where there is nothing to compare with or it was too far off.
    """

    precision: Precision
    file: str
    emission: str
    key: str
    sha256: str
    size_bytes: int
    build_s: float
    p50_s: float = 0.0
    p95_s: float = 0.0
    graph: str = ""
    errors: dict[str, float] = field(default_factory=dict)
    accuracy: str = ""
    accuracy_errors: dict[str, float] = field(default_factory=dict)
    code: str = ""
    message: str = ""


@dataclass(frozen=True)
class Choice:
    """The decision. kept: "" while none of the plans is good; then code and message say why. boot: boot_id of then."""

    schema: int
    kept: Literal["", "fp16", "int8"]
    why: str
    code: str
    boot: str
    built_at: str  # UTC, ISO 8601; for people
    facts: Facts
    flags: Flags
    trials: tuple[Trial, ...]

    def trial(self) -> Trial | None:
        """Of the plan that reads."""
        return next((trial for trial in self.trials if trial.precision == self.kept), None)


@dataclass(frozen=True)
class Cache:
    """Every path is below `folder`."""

    folder: Path

    def plan_path(self, key: str) -> Path:
        return self.folder / f"{PREFIX}{key}{PLAN}"

    def timing_path(self, key: str) -> Path:
        return self.folder / f"{PREFIX}{key}{TIMING}"

    def choice_path(self, key: str) -> Path:
        return self.folder / f"{PREFIX}{key}{CHOICE}"

    def choice(self, key: str) -> Choice | None:
        """What was decided; None if nothing was, or the file says something else than this code writes."""
        content = _read(self.choice_path(key), LARGEST_CHOICE_BYTES)
        if content is None:
            return None
        try:
            choice = build(Choice, json.loads(content), "choice")
        except (ValueError, RecursionError, ClosedError):
            return None
        return choice if choice.schema == SCHEMA else None

    def keep_choice(self, key: str, choice: Choice) -> None:
        """Raises StorageError."""
        self._write(self.choice_path(key), json.dumps(asdict(choice), indent=1).encode())

    def plan(self, trial: Trial) -> bytes | None:
        """The bytes of a plan; None if they are gone or not those that were tried."""
        content = _read(self.plan_path(trial.key), LARGEST_PLAN_BYTES)
        if content is None or hashlib.sha256(content).hexdigest() != trial.sha256:
            return None
        return content

    def measured(self, key: str) -> Trial | None:
        """The plan of that key as an earlier decision knew it; None if there is none or its bytes are gone."""
        for path in self._choices():
            choice = self.choice(path.stem.removeprefix(PREFIX))
            for trial in choice.trials if choice else ():
                if trial.key == key and trial.sha256 and self.plan(trial) is not None:
                    return trial
        return None

    def keep_plan(self, key: str, plan: bytes) -> None:
        """Raises StorageError."""
        self._write(self.plan_path(key), plan)

    def timing(self, key: str) -> bytes:
        """The timing cache; b"" for none."""
        return _read(self.timing_path(key), LARGEST_TIMING_BYTES) or b""

    def keep_timing(self, key: str, content: bytes) -> None:
        """Raises StorageError."""
        self._write(self.timing_path(key), content)

    def files(self) -> list[Path]:
        """Everything that is kept, by name."""
        kinds = (PLAN, TIMING, CHOICE)
        return sorted(path for path in self.folder.glob(f"{PREFIX}*") if path.suffix in kinds)

    def clear(self) -> int:
        """Remove everything that is kept; the bytes that came free. Raises StorageError."""
        return self._remove(self.files())

    def prune(self) -> int:
        """Remove the plans that no recent decision knows, such as those of models long gone. Raises StorageError."""
        recent = self._choices()[:RECENT_CHOICES]
        choices = [self.choice(path.stem.removeprefix(PREFIX)) for path in recent]
        wanted = {self.plan_path(trial.key) for choice in choices if choice for trial in choice.trials}
        return self._remove([path for path in self.files() if path.suffix != TIMING and path not in {*wanted, *recent}])

    def _choices(self) -> list[Path]:
        """Decisions, the last one first."""
        found = [path for path in self.files() if path.suffix == CHOICE]
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)

    def _remove(self, paths: list[Path]) -> int:
        freed = 0
        for path in paths:
            freed += path.stat().st_size
            durable.remove(path)
        return freed

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Keep every other builder of this folder out. Raises BackendError `tensorrt.busy`, StorageError."""
        durable.make_directory(self.folder)
        lock = durable.Lock(self.folder / LOCK, create=True)
        try:
            if not lock.acquire(wait_s=0.0):
                raise BackendError("Another program is building the engine right now.", code="tensorrt.busy")
            durable.sweep(self.folder)
            yield
        finally:
            lock.close()

    def _write(self, path: Path, content: bytes) -> None:
        durable.make_directory(self.folder)
        durable.write_file(path, content)


def storage_refusal(error: StorageError) -> BackendError:
    """A full or failing disk, as a backend's error: the box reads on with the next backend."""
    return BackendError(f"The engine cannot be kept: {error.message}", code="tensorrt.not-kept")


def failed(trial: Trial, error: BackendError) -> Trial:
    """The same trial with why it is no use."""
    return dataclasses.replace(trial, code=error.code, message=error.message)


def _read(path: Path, limit_bytes: int) -> bytes | None:
    try:
        with path.open("rb") as stream:
            content = stream.read(limit_bytes + 1)
    except OSError:
        return None
    return content if len(content) <= limit_bytes else None
