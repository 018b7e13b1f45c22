"""How the process that holds an association talks to the one that keeps the ledger: a socket pair each.

Messages are JSON lists, one to a packet. The link's end is the association's end, however the association's process
went: the kernel closes the link of a process that was killed, too.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any, Final, Literal

from edge.errors import StorageError
from edge.store import InstanceFacts, StudyFacts

MESSAGE_LIMIT_BYTES: Final = 2**16  # the texts of a study are cut at 256 characters; a message has 10 KiB at most

ADMIT, OBJECT, QUARANTINE, REFUSED, ENDED = "admit", "object", "quarantine", "refused", "ended"
End = Literal["released", "aborted", "rejected"]  # of an association


class LedgerGoneError(Exception):
    """The other process ended: nothing that was not answered counts."""


@dataclass(frozen=True)
class Quarantined:
    """Refused bytes that lie in the quarantine, durable."""

    sha256: str
    size_bytes: int
    path: str
    code: str
    message: str
    calling_ae: str


def pair() -> tuple[socket.socket, socket.socket]:
    """The ledger's end, which never blocks, and the association's end, which waits for answers."""
    ledger, association = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ledger.setblocking(False)
    return ledger, association


def encode(*message: object) -> bytes:
    """A message."""
    return json.dumps(message).encode()


def decode(packet: bytes) -> list[Any]:
    """The reverse of `encode`."""
    message: list[Any] = json.loads(packet)
    return message


class LedgerLink:
    """The association's end. All methods but `close` raise LedgerGoneError."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def admit(self) -> bool:
        """Ask for one of the places for associations."""
        return bool(self._ask(ADMIT)[0])

    def record(self, study: StudyFacts, instance: InstanceFacts) -> tuple[str, int]:
        """Add the row of a durable object: outcome and study key. Raises StorageError, `code` says why not."""
        return self._outcome(self._ask(OBJECT, vars(study), vars(instance)))

    def quarantine(self, quarantined: Quarantined) -> None:
        """Add the row of refused bytes. Raises StorageError."""
        self._outcome(self._ask(QUARANTINE, vars(quarantined)))

    def refused(self, code: str) -> None:
        """Tell that an object was refused; no answer."""
        self._send(encode(REFUSED, code))

    def ended(self, how: End) -> None:
        """Tell how the association ended, before `close`; no answer."""
        self._send(encode(ENDED, how))

    def close(self) -> None:
        """The association ended."""
        self._link.close()

    def _outcome(self, answer: list[Any]) -> tuple[str, int]:
        outcome, value = answer
        if outcome == REFUSED:
            raise StorageError("expected the database to take a row, got a refusal", code=value)
        return outcome, value

    def _ask(self, *message: object) -> list[Any]:
        self._send(encode(*message))
        try:
            packet = self._link.recv(MESSAGE_LIMIT_BYTES)
        except OSError:
            packet = b""
        if not packet:
            raise LedgerGoneError
        return decode(packet)

    def _send(self, packet: bytes) -> None:
        try:
            self._link.send(packet)
        except OSError:
            raise LedgerGoneError from None
