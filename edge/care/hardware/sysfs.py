"""Reading and writing the kernel's small text files below a root folder. What cannot be read is None, never an error.

A driver may give any error for any attribute at any time (EAGAIN while a unit sleeps, EIO, ENODATA), so none is news.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

LIMIT_BYTES: Final = 64 * 1024
LIMIT_NAME: Final = 48  # characters of a sensor's name
_INT64: Final = 2**63


class Tree:
    """The files of one machine: `/`, or a copy of another machine's for tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """`/sys/...` of this machine."""
        return self.root / name.lstrip("/")

    def content(self, path: Path | str) -> bytes | None:
        """The first 64 KiB of a file, None where it cannot be read."""
        try:
            handle = os.open(self._resolve(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError):
            return None
        try:
            return os.read(handle, LIMIT_BYTES)
        except OSError:
            return None
        finally:
            os.close(handle)

    def text(self, path: Path | str) -> str | None:
        """A file as text without outer white space; bytes that are no UTF-8 are replaced."""
        content = self.content(path)
        return None if content is None else content.decode("utf-8", "replace").strip()

    def number(self, path: Path | str, base: int = 10) -> int | None:
        """A file that holds one whole number of at most 64 bits; base 0 takes 0x... too."""
        text = self.text(path)
        return None if text is None else whole(text, base)

    def find(self, pattern: str) -> list[Path]:
        """Paths that match a pattern such as "sys/class/hwmon/hwmon*", in a stable order."""
        try:
            return sorted(self.root.glob(pattern.lstrip("/")))
        except OSError:
            return []

    def exists(self, path: Path | str) -> bool:
        """True if there is something at this path."""
        try:
            return self._resolve(path).exists()
        except (OSError, ValueError):
            return False

    def write(self, path: Path | str, value: str) -> bool:
        """Write an attribute that is there already, as the kernel wants it: in one piece. False if that failed."""
        try:
            handle = os.open(self._resolve(path), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        except (OSError, ValueError):
            return False
        try:
            return os.write(handle, value.encode()) == len(value.encode())
        except OSError:
            return False
        finally:
            os.close(handle)

    def _resolve(self, path: Path | str) -> Path:
        return self.path(path) if isinstance(path, str) else path


def whole(text: str, base: int = 10) -> int | None:
    """A whole number of at most 64 bits, None for anything else."""
    if len(text) > 24 or "_" in text:
        return None
    try:
        value = int(text, base)
    except ValueError:
        return None
    return value if -_INT64 <= value < _INT64 else None


def plain_name(text: str) -> str:
    """A name from outside as something that can stand in a table: printable ASCII, short. "" if nothing is left."""
    return re.sub(r"[^A-Za-z0-9 .:_/-]", "", text)[:LIMIT_NAME].strip()
