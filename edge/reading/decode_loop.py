"""The decoding child: reads files it is told to and answers on its standard input, a socket. Run by `decode_child`."""

from __future__ import annotations

import math
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from edge.errors import DecodeError, RadboxError
from edge.reading.decode_wire import WireError, error_message, receive_json, send_images, send_json
from edge.reading.radiograph import Radiograph
from edge.reading.read_file import read_file

_ALARM_GRACE_S = 5  # the parent kills first; this ends a child that hangs after its parent died
_OUT_OF_MEMORY = DecodeError("expected an image within the memory limit, got more", code="dicom.decoder-memory")


def main(memory_bytes: int) -> None:
    """Answer requests until the parent closes the socket. `memory_bytes`: what decoding may take beyond the start."""
    sock = socket.socket(fileno=os.dup(0))
    _limit(memory_bytes)
    _silence()
    send_json(sock, {"ready": os.getpid()})
    while True:
        try:
            request = receive_json(sock)
        except WireError:
            return
        signal.alarm(math.ceil(request["timeout_s"]) + _ALARM_GRACE_S)
        answer = _read(Path(request["path"]))
        if isinstance(answer, RadboxError):
            send_json(sock, error_message(answer))
        else:
            send_images(sock, answer)
        signal.alarm(0)


def _read(path: Path) -> tuple[Radiograph, ...] | RadboxError:
    try:
        return read_file(path)
    except RadboxError as error:
        return error
    except MemoryError:
        return _OUT_OF_MEMORY


def _limit(memory_bytes: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold a patient's image
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # decoding writes no files
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle


def _silence() -> None:
    """Codecs print to the standard streams; the parent's log is not theirs."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


if __name__ == "__main__":
    main(int(sys.argv[1]))
