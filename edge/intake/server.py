"""pynetdicom with the limits a box needs: what a peer may do to memory, disk, threads and time is bounded here.

What differs from the library's own server, one class each: the socket has a time-out and a largest PDU; data sets go
into our spool files; a message that cannot be decoded aborts its association instead of killing a thread; the end
of an association, however it comes, is noticed once and leaves no file behind.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import socket
import socketserver
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pydicom.config
from pynetdicom import AE, _config, dimse_messages, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.sop_class import Verification
from pynetdicom.transport import AddressInformation, AssociationSocket, RequestHandler, ThreadedAssociationServer

from edge.board import Receive
from edge.intake.policy import CALLING_AE, Rejection, check
from edge.intake.spool import SpoolFile

IMPLEMENTATION_CLASS_UID: Final = "2.25.14633868532516270786398853352636260375"  # PS3.5 B.2, from a random UUID
IMPLEMENTATION_VERSION: Final = "RADBOX_1"

_ASSOCIATE_TIMEOUT_S: Final = 10.0  # from the connection to its A-ASSOCIATE-RQ
_PDU_LIMIT_BYTES: Final = 2**20  # an A-ASSOCIATE-RQ may be larger than the data PDUs we ask for
_WAITING_CONNECTIONS: Final = 8  # beyond the associations, so that the next one hears a proper rejection
_NUMBERS = itertools.count(1)
_ARRIVING = threading.local()  # .open: what the network thread of an association opens a spool file with
_LOG = logging.getLogger("radbox.receive")


@dataclass(frozen=True)
class Service:
    """What the receiver does with associations; called in their threads."""

    receive: Receive
    open_spool: Callable[[], SpoolFile]
    store: Callable[[Any, int], Any]  # (pynetdicom event, association number) -> status data set
    ended: Callable[[int], None]


def configure_library() -> None:
    """Set pynetdicom and pydicom up for a process that only receives. Their messages quote attribute values: off."""
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    _config.STORE_RECV_CHUNKED_DATASET = True
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    for library in ("pynetdicom", "pydicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", category=UserWarning)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    dimse_messages.NamedTemporaryFile = lambda **_: _ARRIVING.open()
    dimse_messages.create_file_meta = partial(
        dimse_messages.create_file_meta,
        implementation_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version=IMPLEMENTATION_VERSION,
    )


class _Socket(AssociationSocket):  # type: ignore[misc]
    """Reads whole PDUs in large pieces, within a time and a size."""

    def __init__(self, association: _Association, client_socket: socket.socket, timeout_s: float) -> None:
        client_socket.settimeout(timeout_s)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._timeout_s = timeout_s
        super().__init__(association, client_socket=client_socket)

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, or fewer if the peer closed. Raises OSError: too large, too slow, broken."""
        if nr_bytes > _PDU_LIMIT_BYTES:
            raise OSError(errno.EMSGSIZE, "PDU is larger than this box takes")
        content = bytearray(nr_bytes)
        view = memoryview(content)
        deadline_s = time.monotonic() + self._timeout_s
        got = 0
        # A sender with Nagle's algorithm (Debian's DCMTK, many modalities) waits for our acknowledgement in the middle
        # of each C-STORE; the kernel would delay it by 40 ms and forgets this option after a while.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        while got < nr_bytes:
            count = self.socket.recv_into(view[got:])
            if not count:
                break
            got += count
            if got < nr_bytes and time.monotonic() > deadline_s:
                raise TimeoutError("PDU took too long")
        return content if got == nr_bytes else content[:got]

    def _shutdown_socket(self) -> None:
        """Close even where the peer is gone already; the library then leaves the descriptor open."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class _Network(DULServiceProvider):  # type: ignore[misc]
    """The association's network thread; the association's own thread hears of its end at once."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # an impossible state: the association ends, the receiver goes on
            _LOG.warning("association %d: network thread ended: %s", self.assoc.number, type(error).__name__)
        finally:
            self.to_user_queue.put(None)  # else a connection that closes without a word keeps its place for seconds


class _Messages(DIMSEServiceProvider):  # type: ignore[misc]
    """Decodes messages; runs in the network thread."""

    def receive_primitive(self, primitive: object) -> None:
        _ARRIVING.open = self.assoc.open_spool
        try:
            super().receive_primitive(primitive)
        except Exception as error:  # bytes from outside; Evt19 is "invalid PDU": A-ABORT (PS3.8 9.2.3)
            _LOG.warning("association %d: message not understood: %s", self.assoc.number, type(error).__name__)
            self.dul.event_queue.put("Evt19")


class _Association(Association):  # type: ignore[misc]
    """One association and the spool files that arrive over it."""

    def __init__(self, ae: AE, service: Service) -> None:
        super().__init__(ae, "acceptor")
        self.number = next(_NUMBERS)
        self.name = f"AcceptorThread@{self.number}"  # pynetdicom counts its associations by this word
        self.dul = _Network(self)
        self.dimse = _Messages(self)
        self.acse_timeout = ae.acse_timeout  # again: the setters reach into the network thread's timers
        self.network_timeout = ae.network_timeout
        self._service = service
        self._spools: list[SpoolFile] = []
        self.bind(evt.EVT_REQUESTED, self._decide)
        self.bind(evt.EVT_C_STORE, lambda event: service.store(event, self.number))

    def open_spool(self) -> SpoolFile:
        """A file for the next object; forgets those that were dealt with."""
        self._spools = [file for file in self._spools if not file.done]
        self._spools.append(self._service.open_spool())
        return self._spools[-1]

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # bytes from outside, again
            _LOG.warning("association %d ended: %s", self.number, type(error).__name__)
        finally:
            if self.dul.is_alive():
                self.dul.kill_dul()
                self.dul.socket._shutdown_socket()
                self.dul.join()
            for file in self._spools:
                file.discard()
            self._service.ended(self.number)

    def _serve_request(self, message: Any, context_id: int) -> None:
        """A command that lacks what it must have gets an A-ABORT; the library would leave the sender waiting."""
        if message.is_valid_request:
            super()._serve_request(message, context_id)
        else:
            _LOG.warning("association %d: incomplete command", self.number)
            self.abort()

    def _decide(self, event: evt.Event) -> None:
        """Reject what the board does not allow. pynetdicom only logs what a notification handler raises, so: reject."""
        request = self.requestor.primitive
        try:
            contexts = request.presentation_context_definition_list
            rejection: Rejection | None = check(
                self._service.receive,
                self.requestor.address_info.address,
                request.calling_ae_title,
                request.called_ae_title,
                [len(context.transfer_syntax) for context in contexts],
            )
        except Exception as error:
            _LOG.error("association %d: request not understood: %s", self.number, type(error).__name__)
            rejection = CALLING_AE
        if rejection is not None:
            _LOG.warning("association %d rejected: %s", self.number, rejection.why)
            self.acse.send_reject(rejection.result, rejection.source, rejection.reason)
            self.kill()


class _Connection(RequestHandler):  # type: ignore[misc]
    """Makes the association of a new connection."""

    def _create_association(self) -> _Association:
        server: Server = self.server
        association = _Association(server.ae, server.service)
        association._server = server
        association.set_socket(_Socket(association, self.request, server.service.receive.network_timeout_s))
        acceptor = association.acceptor
        acceptor.maximum_length = server.ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = AddressInformation.from_tuple(server.server_address)
        acceptor.implementation_class_uid = server.ae.implementation_class_uid
        acceptor.implementation_version_name = server.ae.implementation_version_name
        acceptor.supported_contexts = list(server.contexts)
        association.requestor.address_info = AddressInformation.from_tuple(self.client_address)
        return association


class Server(ThreadedAssociationServer):  # type: ignore[misc]
    """Listens; one thread for each association and one for its network."""

    request_queue_size = 16

    def __init__(self, service: Service) -> None:
        """Bind and listen. Raises OSError (the port is taken)."""
        receive = service.receive
        self.service = service
        ae = AE(receive.ae_title)
        ae.add_supported_context(Verification)
        ae.maximum_associations = receive.max_associations
        ae.maximum_pdu_size = receive.pdu_bytes
        ae.network_timeout = receive.network_timeout_s
        ae.dimse_timeout = receive.network_timeout_s
        ae.acse_timeout = _ASSOCIATE_TIMEOUT_S
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION
        address = (receive.host, receive.port)
        super().__init__(ae, address, receive.ae_title, ae.supported_contexts, request_handler=_Connection)

    def verify_request(self, request: object, client_address: object) -> bool:
        """Close at once what comes beyond the associations and a few that may still hear a rejection."""
        return len(self.active_associations) < self.service.receive.max_associations + _WAITING_CONNECTIONS

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke before it was an association."""
        _LOG.warning("a connection could not be served")

    def shutdown(self) -> None:
        """Stop listening and abort what is open: nothing unanswered counts as received."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
        for association in self.active_associations:
            association.abort()
