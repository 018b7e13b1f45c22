"""The files of a mounted stick that somebody else has written, looked at without ever leaving it.

Every step is an `openat` with O_NOFOLLOW from the folder above, so no link and no `..` is followed. Only plain files
count; pipes, sockets and devices are passed over, and so is what operating systems hide on sticks.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.errors import DicomError

DEEPEST: Final = 12
ENTRIES_PER_FILE: Final = 4  # names looked at for each file that may be found: folders, hidden ones
CHUNK_BYTES: Final = 2**20
LEFT_OUT: Final = frozenset({"edge-update", "system volume information", "$recycle.bin", "found.000", "lost+found"})
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Names = tuple[str, ...]  # folders from the stick's top, then the file


@dataclass(frozen=True)
class Limits:
    """What is looked at. end_s: monotonic time."""

    most_files: int
    end_s: float

    def over(self) -> bool:
        """True once the time is up."""
        return time.monotonic() > self.end_s


@dataclass(frozen=True)
class Found:
    """Names of plain files, folder by folder; `code`: why not all of the stick was looked at, "" if it was."""

    files: list[Names]
    code: str = ""


class Tree:
    """A stick. Not for use by two threads."""

    def __init__(self, top: int) -> None:
        self._top = top

    def files(self, limits: Limits) -> Found:
        """Look over the stick. Raises OSError if its top cannot be read."""
        files: list[Names] = []
        entries, code = 0, ""
        waiting: list[Names] = [()]
        while waiting:
            folder = waiting.pop()
            try:
                plain, inner = self._list(folder, limits.most_files * ENTRIES_PER_FILE - entries)
            except OSError:
                if not folder:
                    raise
                code = "stick.unreadable"
                continue
            entries += len(plain) + len(inner)
            files += [(*folder, name) for name in sorted(plain)]
            if len(files) > limits.most_files or entries >= limits.most_files * ENTRIES_PER_FILE:
                return Found(files[: limits.most_files], "stick.too-many-files")
            if limits.over():
                return Found(files, "stick.too-long")
            if len(folder) < DEEPEST:
                waiting += [(*folder, name) for name in sorted(inner, reverse=True)]
            elif inner:
                code = "stick.too-deep"
        return Found(files, code)

    @contextmanager
    def open(self, names: Names) -> Iterator[int]:
        """A descriptor of a plain file. Raises OSError, DicomError (stick.not-a-file)."""
        with self._folder(names[:-1]) as folder:
            handle = os.open(names[-1], _FILE, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise DicomError("expected a plain file, got something else", code="stick.not-a-file")
            yield handle
        finally:
            os.close(handle)

    def _list(self, names: Names, most: int) -> tuple[list[str], list[str]]:
        """Plain files and folders in a folder, at most `most` of them together."""
        plain: list[str] = []
        inner: list[str] = []
        with self._folder(names) as folder, os.scandir(folder) as entries:
            for entry in entries:
                if len(plain) + len(inner) >= most:
                    break
                if entry.name.startswith(".") or entry.name.casefold() in LEFT_OUT:
                    continue
                if entry.is_file(follow_symlinks=False):
                    plain.append(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    inner.append(entry.name)
        return plain, inner

    @contextmanager
    def _folder(self, names: Names) -> Iterator[int]:
        handle = os.dup(self._top)
        try:
            for name in names:
                inner = os.open(name, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)


@contextmanager
def open_tree(folder: Path) -> Iterator[Tree]:
    """The stick mounted at `folder`. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Tree(handle)
    finally:
        os.close(handle)


def read_head(handle: int, size_bytes: int) -> bytes:
    """At most the first `size_bytes` of a file. Raises OSError."""
    return os.pread(handle, size_bytes, 0)


def read_rest(handle: int, start: int, size_bytes: int, write: Callable[[bytes], object]) -> None:
    """Hand the bytes from `start` to `size_bytes` to `write`. Raises OSError if there are fewer."""
    at = start
    while at < size_bytes:
        chunk = os.pread(handle, min(CHUNK_BYTES, size_bytes - at), at)
        if not chunk:
            raise OSError("fewer bytes than the stick said")
        write(chunk)
        at += len(chunk)
