"""A picture from a stick is decoded in a process of its own: bytes made to do harm cost one picture, not the import."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Final

from edge.errors import DecodeError, DicomError

TIME_LIMIT_S: Final = 60
MEMORY_LIMIT_BYTES: Final = 2 * 2**30  # beyond what the process has already
_CHUNK_BYTES: Final = 2**20
_WRAPPED, _REFUSED = b"w", b"r"


def wrap(content: bytes) -> bytes:
    """`wrap_picture` of a picture of which nothing is known. Raises DicomError (intake.picture-unreadable and what
    `wrap_picture` raises)."""
    import edge.intake.wrap  # noqa: F401  late, for most sticks have no pictures; and once, before the fork

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(content, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if status or not answer:
        raise DecodeError("expected a picture, got bytes that broke the reader", code="intake.picture-unreadable")
    if answer[:1] == _WRAPPED:
        return answer[1:]
    code, _, message = answer[1:].decode().partition(" ")
    raise DicomError(message, code=code)


def _child(content: bytes, writing: int) -> None:
    """Never returns."""
    from edge.intake.wrap import PictureFacts, wrap_picture

    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(TIME_LIMIT_S)
        limit = _memory_bytes() + MEMORY_LIMIT_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            answer = _WRAPPED + wrap_picture(content, PictureFacts())
        except DicomError as error:
            answer = _REFUSED + f"{error.code} {error.message}".encode()
        view = memoryview(answer)
        while view:
            view = view[os.write(writing, view[:_CHUNK_BYTES]) :]
        status = 0
    finally:
        os._exit(status)


def _memory_bytes() -> int:
    """Address space of this process (proc_pid_statm(5))."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
