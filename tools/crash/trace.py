"""The recorder from Python: build it, run processes under it, read what it wrote down, and remark on it."""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = Path(__file__).with_name("record.c")
BUILD: Final = ROOT / "build" / "crash"
ROOT_VARIABLE, TRACE_VARIABLE, LIBRARY_VARIABLE = "RADBOX_CRASH_ROOT", "RADBOX_CRASH_TRACE", "RADBOX_CRASH_LIBRARY"

KILL_VARIABLE: Final = "RADBOX_CRASH_KILL"

_HEAD: Final = struct.Struct("=IIIIQqQIIII")  # struct head of record.c
_MAGIC: Final = 0x31525243


class Kind(enum.IntEnum):
    """enum kind of record.c."""

    CREATE = 1
    MKDIR = 2
    SYMLINK = 3
    LINK = 4
    UNLINK = 5
    RMDIR = 6
    RENAME = 7
    WRITE = 8
    TRUNCATE = 9
    ALLOCATE = 10
    SYNC = 11
    SYNC_ALL = 12
    MARK = 13
    MAPPED = 14


@dataclass(frozen=True)
class Call:
    """One recorded call. Paths are relative to the root, "" being the root; `offset` and `size` in bytes."""

    kind: Kind
    pid: int
    inode: int
    offset: int
    size: int
    first: str
    second: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Mark:
    """A remark of the application: `kind` and facts, such as what it has promised to somebody by now."""

    kind: str
    facts: Mapping[str, Any]


def build() -> Path:
    """The compiled recorder, made anew only when its source changed. Raises CalledProcessError."""
    name = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = BUILD / f"record-{name}.so"
    if not library.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        compiler = shutil.which("cc") or shutil.which("gcc") or "g++"
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            made = Path(folder, "record.so")
            options = ["-O1", "-shared", "-fPIC", "-xc", str(SOURCE), "-o", str(made), "-ldl", "-lpthread"]
            subprocess.run([compiler, *options], check=True)
            made.replace(library)
    return library


class Recording:
    """A folder that is watched, and the trace of what was done to it."""

    def __init__(self, root: Path, trace: Path) -> None:
        """`root` must exist; `trace` lies outside of it."""
        self.root = root.resolve()
        self.trace = trace
        lock = Path(f"{trace}.lock")
        lock.write_bytes(bytes(4096))
        self._library = build()
        self._calls = ctypes.CDLL(str(self._library))
        if self._calls.crash_prepare(os.fsencode(lock)) != 0:
            raise OSError("expected the recorder's lock, got none")
        trace.touch()

    def environment(self) -> dict[str, str]:
        """What makes a process be recorded, its children included."""
        own = {ROOT_VARIABLE: str(self.root), TRACE_VARIABLE: str(self.trace), LIBRARY_VARIABLE: str(self._library)}
        return {**os.environ, **own, "LD_PRELOAD": str(self._library)}

    def function(self, place: str, *arguments: str) -> None:
        """Run `module:function(root, *arguments)` in a recorded process. Raises CalledProcessError."""
        command = [sys.executable, "-m", "tools.crash.trace", place, str(self.root), *arguments]
        subprocess.run(command, check=True, cwd=ROOT, env=self.environment())

    def killed(self, place: str, kind: Kind, count: int, *arguments: str) -> bool:
        """As `function`, but the process gets SIGKILL right after its `count`-th call of `kind`; True if it did.

        Raises CalledProcessError for any other end than that and success.
        """
        command = [sys.executable, "-m", "tools.crash.trace", place, str(self.root), *arguments]
        environment = {**self.environment(), KILL_VARIABLE: f"{int(kind)} {count}"}
        done = subprocess.run(command, check=False, cwd=ROOT, env=environment)
        if done.returncode not in (0, -signal.SIGKILL):
            raise subprocess.CalledProcessError(done.returncode, command)
        return done.returncode != 0

    def mark(self, kind: str, **facts: object) -> None:
        """Remark from this process, which is not recorded itself."""
        _append_mark(self.trace, kind, facts)

    def calls(self) -> list[Call]:
        """Everything recorded so far, in order."""
        return read_trace(self.trace.read_bytes())


def _append_mark(trace: Path, kind: str, facts: Mapping[str, object]) -> None:
    """From outside: one O_APPEND write is whole, and every recorded call that came before it is in the file already."""
    text = json.dumps({"kind": kind, **facts}).encode()
    head = _HEAD.pack(_MAGIC, Kind.MARK, os.getpid(), 0, 0, 0, 0, 0, 0, len(text), 0)
    handle = os.open(trace, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, head + text)
    finally:
        os.close(handle)


def mark(kind: str, **facts: object) -> None:
    """Remark from a recorded process; nothing where nobody records."""
    if TRACE_VARIABLE in os.environ:
        _append_mark(Path(os.environ[TRACE_VARIABLE]), kind, facts)


def read_trace(content: bytes) -> list[Call]:
    """Calls of a trace. A record that a killed process did not finish ends it. Raises ValueError (not a trace)."""
    calls, at = [], 0
    while at + _HEAD.size <= len(content):
        magic, kind, pid, _flags, inode, offset, size, first, second, length, _ = _HEAD.unpack_from(content, at)
        if magic != _MAGIC:
            raise ValueError(f"expected a record at byte {at} of the trace, got something else")
        at += _HEAD.size
        end = at + first + second + length
        if end > len(content):
            break
        names = content[at : at + first], content[at + first : at + first + second]
        paths = os.fsdecode(names[0]), os.fsdecode(names[1])
        calls.append(Call(Kind(kind), pid, inode, offset, size, *paths, content[at + first + second : end]))
        at = end
    return calls


def as_mark(call: Call) -> Mark:
    """The remark that a MARK record holds."""
    facts = json.loads(call.content)
    return Mark(facts.pop("kind"), facts)


def call_function(arguments: Sequence[str]) -> None:
    """In the recorded process: `module:function root ...`."""
    module, _, name = arguments[0].partition(":")
    getattr(__import__(module, fromlist=[name]), name)(Path(arguments[1]), *arguments[2:])


if __name__ == "__main__":
    call_function(sys.argv[1:])
