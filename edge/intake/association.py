"""One association, from the A-ASSOCIATE-RQ to its end: the states of PS3.8 9.2 that an acceptor has, in one thread.

Everything a peer does wrong ends its own association, with an A-ABORT where it can still hear one, and leaves no file
behind.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.board import Receive
from edge.intake import command as dimse
from edge.intake import negotiation
from edge.intake.command import Command
from edge.intake.filing import Arrival, Filing, place
from edge.intake.ledger_link import End, LedgerGoneError, LedgerLink
from edge.intake.part10 import file_head
from edge.intake.policy import NO_PLACE, VERSION, Rejection, check
from edge.intake.spool import SpoolFile
from edge.intake.status import SUCCESS, Answer
from edge.intake.upper_layer import (
    ABORT,
    ASSOCIATE_RQ,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    UNEXPECTED_PDU,
    UNRECOGNIZED_PDU,
    EndedError,
    ProtocolError,
    SilenceError,
    UpperLayer,
    pdu,
)
from edge.store import INCOMING

ASSOCIATE_TIMEOUT_S: Final = 10.0  # from the connection to its A-ASSOCIATE-RQ
_FRAGMENT: Final = struct.Struct(">LBB")  # length, context, message control header (PS3.8 9.3.5.1, E.2)
_COMMAND, _LAST = 1, 2
_LOG = logging.getLogger("radbox.receive")


@dataclass(frozen=True)
class Settings:
    """What all associations have in common."""

    receive: Receive
    data_dir: Path


class Association(threading.Thread):
    """Owns its connection and its end of the ledger's link, and closes both."""

    def __init__(self, number: int, connection: socket.socket, link: socket.socket, settings: Settings) -> None:
        super().__init__(name=f"association {number}", daemon=True)
        self._number = number
        self._connection = connection
        self._ledger = LedgerLink(link)
        self._settings = settings
        self._filing = Filing(settings.data_dir, self._ledger)
        self._stopping = False
        self._rejected = False
        self._calling_ae = ""
        self._largest_pdu_bytes = 0
        self._transfer_syntaxes: Mapping[int, str] = {}
        # The message that is arriving.
        self._spool: SpoolFile | None = None
        self._command: Command | None = None
        self._command_set = b""
        self._context_id = 0

    def stop(self) -> None:
        """From another thread: answer what is complete, then abort."""
        self._stopping = True
        self._peer.interrupt()

    # --- life and end ---

    def start(self) -> None:
        """Raises OSError: the connection broke already."""
        self._peer = UpperLayer(self._connection, ASSOCIATE_TIMEOUT_S)
        super().start()

    def run(self) -> None:
        politely = True
        end: End = "aborted"
        try:
            if self._negotiate():
                end = self._serve()
            elif self._rejected:
                end = "rejected"
        except (SilenceError, ProtocolError) as error:
            _LOG.warning("association %d aborted: %s", self._number, error)
            self._peer.abort(error.reason if isinstance(error, ProtocolError) else None)
        except EndedError as error:
            politely = self._stopping
            if self._stopping:
                self._peer.abort()
            else:
                _LOG.info("association %d ended: %s", self._number, error)
        except LedgerGoneError:  # the receiver is ending
            self._peer.abort()
        except Exception as error:  # the border: a fault of ours must cost one association, not the receiver
            _LOG.error("association %d ended: %s at %s", self._number, type(error).__name__, place(error))
            self._peer.abort()
        finally:
            self._forget_message()
            with contextlib.suppress(LedgerGoneError):
                self._ledger.ended(end)
            self._peer.close(politely=politely)
            self._ledger.close()

    def _negotiate(self) -> bool:
        """True once the association is established (PS3.8 9.2, states 2 and 3)."""
        kind, value = self._peer.read()
        if kind == ABORT:
            return False
        if kind != ASSOCIATE_RQ:
            raise ProtocolError(f"PDU type {kind:02X} before an association", UNEXPECTED_PDU)
        request = negotiation.parse(bytes(value))
        rejection = self._rejection(request)
        if rejection is not None:
            _LOG.warning("association %d rejected: %s", self._number, rejection.why)
            self._rejected = True
            self._peer.send(negotiation.reject(rejection))
            return False
        accepted = negotiation.accept(request, self._settings.receive.pdu_bytes)
        self._calling_ae = request.calling_ae
        self._largest_pdu_bytes = request.largest_pdu_bytes
        self._transfer_syntaxes = accepted.transfer_syntaxes
        self._peer.set_timeout(self._settings.receive.network_timeout_s)
        self._peer.send(accepted.content)
        return True

    def _rejection(self, request: negotiation.Request) -> Rejection | None:
        if not request.version_is_ours:
            return VERSION
        address = self._connection.getpeername()[0]
        rules = check(self._settings.receive, address, request.calling_ae, request.called_ae, list(request.syntaxes))
        if rules is not None:
            return rules
        return None if self._ledger.admit() else NO_PLACE

    def _serve(self) -> End:
        """PDUs of the established association, until its end (PS3.8 9.2, state 6)."""
        while not self._stopping:
            kind, value = self._peer.read()
            if kind == P_DATA:
                self._p_data(value)
            elif kind == RELEASE_RQ:
                self._peer.send(pdu(RELEASE_RP, bytes(4)))
                return "released"
            elif kind == ABORT:
                return "aborted"
            else:
                reason = UNEXPECTED_PDU if kind in range(ASSOCIATE_RQ, ABORT) else UNRECOGNIZED_PDU
                raise ProtocolError(f"PDU type {kind:02X} in an association", reason)
        raise EndedError("the receiver stops")

    # --- messages ---

    def _forget_message(self) -> None:
        """What of its object was not filed goes."""
        if self._spool is not None:
            self._spool.discard()
        self._spool = None
        self._command = None
        self._command_set = b""
        self._context_id = 0

    def _p_data(self, value: memoryview) -> None:
        """The fragments of one P-DATA-TF."""
        at, end = 0, len(value)
        if not end:
            raise ProtocolError("a P-DATA-TF without a fragment")
        while at < end:
            if end - at < _FRAGMENT.size:
                raise ProtocolError("a fragment that is cut")
            length, context_id, header = _FRAGMENT.unpack_from(value, at)
            at += 4
            if not 2 <= length <= end - at:
                raise ProtocolError(f"a fragment of {length} bytes where {end - at} are left")
            self._fragment(context_id, header, value[at + 2 : at + length])
            at += length

    def _fragment(self, context_id: int, header: int, value: memoryview) -> None:
        """All fragments of a message come in one context, the command set first (PS3.8 annex E.1)."""
        if context_id not in self._transfer_syntaxes:
            raise ProtocolError(f"a fragment of context {context_id}, which was not accepted")
        if self._context_id not in (0, context_id):
            raise ProtocolError("a message in two contexts")
        if bool(header & _COMMAND) != (self._command is None):
            raise ProtocolError("fragments in the wrong order")
        self._context_id = context_id
        if self._command is None:
            self._command_fragment(value, bool(header & _LAST))
            return
        if self._spool is not None:
            self._spool.write(value)
        if header & _LAST:
            self._answer(self._command)

    def _command_fragment(self, value: memoryview, last: bool) -> None:
        self._command_set += value
        if len(self._command_set) > dimse.LIMIT_BYTES:
            raise ProtocolError("a command set that is too long")
        if not last:
            return
        self._command = dimse.decode(self._command_set)
        if not self._command.has_data_set:
            self._answer(self._command)
        elif self._command.field == dimse.STORE_RQ:
            self._spool = self._open_spool(self._command)

    def _open_spool(self, store: Command) -> SpoolFile:
        receive = self._settings.receive
        incoming = self._settings.data_dir / INCOMING
        spool = SpoolFile(incoming, receive.max_object_bytes, receive.min_free_bytes)
        transfer_syntax = self._transfer_syntaxes[self._context_id]
        spool.write(file_head(store.sop_class_uid, store.sop_instance_uid, transfer_syntax))
        return spool

    def _answer(self, command: Command) -> None:
        """The message is whole: do what it says and answer."""
        if command.field != dimse.CANCEL_RQ:  # nothing of ours takes long enough to be cancelled
            answer = self._store(command) if command.field == dimse.STORE_RQ else Answer(SUCCESS)
            content = dimse.response(command, answer.status, answer.comment)
            self._peer.send(dimse.data_pdus(self._context_id, content, self._largest_pdu_bytes))
        self._forget_message()

    def _store(self, command: Command) -> Answer:
        arrival = Arrival(
            command.sop_class_uid,
            command.sop_instance_uid,
            self._transfer_syntaxes[self._context_id],
            self._calling_ae,
            urgent=command.priority == dimse.HIGH_PRIORITY,
        )
        return self._filing.file(self._spool, arrival)
