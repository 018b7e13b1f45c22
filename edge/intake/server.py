"""The process that listens: one loop that hands connections to the children and records what they file.

It accepts, counts associations over all children, commits rows and notices ends; it reads no byte of a peer.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import selectors
import socket
from dataclasses import dataclass
from typing import Final, Literal

from edge.intake.association import Settings
from edge.intake.children import Child, prepare
from edge.intake.completion import Completion
from edge.intake.ledger import Ledger, Object
from edge.intake.ledger_link import (
    ADMIT,
    ENDED,
    MESSAGE_LIMIT_BYTES,
    OBJECT,
    QUARANTINE,
    REFUSED,
    End,
    Quarantined,
    decode,
    encode,
    pair,
)
from edge.store import InstanceFacts, StudyFacts

_WAITING_CONNECTIONS: Final = 8  # beyond the associations, so that the next one hears a proper rejection
_BACKLOG: Final = 16
_LOG = logging.getLogger("radbox.receive")


@dataclass(eq=False)
class _Connection:
    """A peer's connection, as far as this process knows it. `admitted`: it has one of the places for associations.

    `child` is None for the inbox. `end`: what its process said before it went.
    """

    number: int
    child: Child | None
    link: socket.socket
    admitted: bool = False
    end: End | Literal[""] = ""


class Server:
    """Listener, children and ledger links. Everything happens in `serve`."""

    def __init__(self, settings: Settings, ledger: Ledger, completion: Completion) -> None:
        """Bind and listen, start the children. Raises OSError (the port is taken)."""
        receive = settings.receive
        self._settings = settings
        self._ledger = ledger
        self._completion = completion
        self._numbers = itertools.count(1)
        self._connections: set[_Connection] = set()
        self._selector = selectors.DefaultSelector()
        family = socket.AF_INET6 if ":" in receive.host else socket.AF_INET
        self._listener = socket.create_server((receive.host, receive.port), family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._accepting = False
        self._children = [Child(name) for name in range(1, receive.processes + 1)]
        prepare()
        self._start_children()

    def serve(self, seconds: float) -> None:
        """Wait at most `seconds` for something to do, and do it."""
        self._start_children()
        objects: list[tuple[_Connection, Object]] = []
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, Child):
                self._child_ended(key.data)
            else:
                objects += self._message(key.data)
        if objects:
            answers = self._ledger.record([one for _, one in objects])
            for (connection, _), answer in zip(objects, answers, strict=True):
                _reply(connection, answer)
                if connection.child is None:
                    # A whole stick may pass through one link: a study of it is complete after its own quiet time.
                    self._completion.ended(connection.number)

    def close(self) -> None:
        """Stop listening; let the children answer what is complete and abort the rest."""
        children, self._children = self._children, []
        self._accept_if(False)
        self._listener.close()
        for child in children:
            if child.link is not None:
                self._selector.unregister(child.link)
            child.close()
        for child in children:
            child.wait(self.serve)
        for connection in list(self._connections):
            self._ended(connection)
        self._selector.close()

    # --- children ---

    def _start_children(self) -> None:
        for child in self._children:
            if child.is_due():
                try:
                    child.start(self._settings)
                except OSError as error:
                    _LOG.error("receiving process %d could not be started: %s", child.name, error.strerror)
            if child.link is not None and child.link not in self._selector.get_map():
                self._selector.register(child.link, selectors.EVENT_READ, child)
        self._accept_if(any(child.link is not None for child in self._children))

    def _child_ended(self, child: Child) -> None:
        """A child never says anything: its link is readable because it is dead."""
        if child.link is not None:
            self._selector.unregister(child.link)
        child.bury()

    # --- connections ---

    def _accept_if(self, wanted: bool) -> None:
        """While no child lives, connections wait in the kernel."""
        if wanted and not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif self._accepting and not wanted:
            self._selector.unregister(self._listener)
        self._accepting = wanted

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the peer has gone already
            return
        with connection:
            alive = [child for child in self._children if child.link is not None]
            if not alive or len(self._connections) >= self._settings.receive.max_associations + _WAITING_CONNECTIONS:
                return
            self._hand_over(connection, min(alive, key=lambda child: child.connections))

    def _hand_over(self, connection: socket.socket, child: Child) -> None:
        ours, theirs = pair()
        number = next(self._numbers)
        with theirs:
            if not child.hand_over(number, connection, theirs):
                _LOG.warning("connection %d could not be served", number)
                ours.close()
                return
        self._hold(_Connection(number, child, ours))

    def adopt(self) -> tuple[int, socket.socket]:
        """A ledger link for objects that come another way than over the network; it counts as an association."""
        ours, theirs = pair()
        number = next(self._numbers)
        self._hold(_Connection(number, None, ours))
        return number, theirs

    def _hold(self, connection: _Connection) -> None:
        self._connections.add(connection)
        self._selector.register(connection.link, selectors.EVENT_READ, connection)

    def _ended(self, connection: _Connection) -> None:
        self._selector.unregister(connection.link)
        connection.link.close()
        if connection.child is not None:
            connection.child.connections -= 1
        self._connections.discard(connection)
        self._completion.ended(connection.number)
        if connection.end == "rejected":
            self._ledger.count("associations_rejected")
        elif connection.admitted and connection.end != "released":  # "" if its process died
            self._ledger.count("associations_aborted")

    # --- messages ---

    def _message(self, connection: _Connection) -> list[tuple[_Connection, Object]]:
        """Deal with a link's message, or its end; an object is given back, to be recorded with others."""
        try:
            packet = connection.link.recv(MESSAGE_LIMIT_BYTES)
        except OSError:
            packet = b""
        if not packet:
            self._ended(connection)
            return []
        kind, *content = decode(packet)
        if kind == OBJECT:
            study, instance = content
            return [(connection, Object(connection.number, StudyFacts(**study), InstanceFacts(**instance)))]
        if kind == ADMIT:
            admitted = sum(one.admitted for one in self._connections)
            connection.admitted = admitted < self._settings.receive.max_associations
            self._ledger.count("associations", int(connection.admitted))
            _reply(connection, encode(connection.admitted))
        elif kind == QUARANTINE:
            _reply(connection, self._ledger.quarantine(Quarantined(**content[0])))
        elif kind == REFUSED:
            self._ledger.refused(content[0])
        elif kind == ENDED:
            connection.end = content[0]
        return []


def _reply(connection: _Connection, answer: bytes) -> None:
    """An association that is gone needs no answer; its end is read from the link."""
    with contextlib.suppress(OSError):
        connection.link.send(answer)
