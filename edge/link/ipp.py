"""Get-Printer-Attributes: the question and the answer as bytes, and one exchange over HTTP.

Encoding: RFC 8010, section 3 (big-endian; a tag, a named attribute, its further values without a name). Operation and
attributes: RFC 8011, sections 4.2.5, 5.4.11 and 5.4.12. Only the attributes that are asked for are kept, and no free
text is asked for: a printer's own message can name a document, and a document can bear a patient's name.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import struct
import threading
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

from edge.errors import RadboxError

VERSION: Final = (1, 1)  # what every printer must speak (RFC 8011 section 4.1.8, PWG 5100.12 section 4)
GET_PRINTER_ATTRIBUTES: Final = 0x000B
PORT: Final = 631  # RFC 3510 section 4.1, RFC 7472 section 4.1
LARGEST_ANSWER_BYTES: Final = 64 * 1024
TIMEOUT_S: Final = 5.0  # of each step on the network
EXCHANGE_S: Final = 15.0  # of all of them
CONTENT_TYPE: Final = "application/ipp"
ASKED: Final = ("printer-state", "printer-state-reasons", "printer-is-accepting-jobs")

_OPERATION_GROUP, _PRINTER_GROUP, _END = 0x01, 0x04, 0x03
_FIRST_VALUE_TAG = 0x10  # lower ones begin a group
_BEGIN_COLLECTION, _END_COLLECTION = 0x34, 0x37
_BOOLEAN, _ENUM, _INTEGER, _KEYWORD, _URI, _CHARSET, _LANGUAGE = 0x22, 0x23, 0x21, 0x44, 0x45, 0x47, 0x48
_HEAD = struct.Struct(">BBHI")  # version (2), operation or status (2), request id (4)
_LENGTH = struct.Struct(">H")
_NUMBER = struct.Struct(">i")
_MOST_COLLECTIONS = 16  # one in another

Value = int | bool | str


class IppError(RadboxError):
    """A printer that is not there (printer.offline), refuses (printer.refused), or does not speak IPP."""

    default_code = "printer.no-ipp"


@dataclass(frozen=True)
class Answer:
    """`status`: RFC 8011 appendix B, below 0x0100 is success. `attributes`: of the printer, those of ASKED."""

    status: int
    request_id: int
    attributes: dict[str, tuple[Value, ...]] = field(default_factory=dict)


def question(uri: str, request_id: int) -> bytes:
    """A Get-Printer-Attributes request (RFC 8011 section 4.2.5.1) for the printer `uri`."""
    parts = [_HEAD.pack(*VERSION, GET_PRINTER_ATTRIBUTES, request_id), bytes([_OPERATION_GROUP])]
    parts.append(_attribute(_CHARSET, "attributes-charset", "utf-8"))
    parts.append(_attribute(_LANGUAGE, "attributes-natural-language", "en"))
    parts.append(_attribute(_URI, "printer-uri", uri))
    for number, name in enumerate(ASKED):
        parts.append(_attribute(_KEYWORD, "requested-attributes" if number == 0 else "", name))
    parts.append(bytes([_END]))
    return b"".join(parts)


def _attribute(tag: int, name: str, value: str) -> bytes:
    octets = value.encode()
    return bytes([tag]) + _LENGTH.pack(len(name)) + name.encode() + _LENGTH.pack(len(octets)) + octets


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes. Raises IppError where there are fewer."""
        taken = self._content[self._at : self._at + size]
        if len(taken) != size:
            raise IppError(f"expected {size} more bytes of an IPP answer, got {len(taken)}")
        self._at += size
        return taken

    def octets(self) -> bytes:
        """A length and as many bytes."""
        (length,) = _LENGTH.unpack(self.take(_LENGTH.size))
        return self.take(length)


def parse(content: bytes) -> Answer:
    """The answer in `content`. Raises IppError (printer.no-ipp) for anything that is none."""
    reader = _Reader(content)
    major, _minor, status, request_id = _HEAD.unpack(reader.take(_HEAD.size))
    if major not in (1, 2):
        raise IppError(f"expected IPP 1 or 2, got {major}")
    found: dict[str, tuple[Value, ...]] = {}
    group, name, depth = 0, "", 0
    while (tag := reader.take(1)[0]) != _END:
        if tag < _FIRST_VALUE_TAG:
            group, name = tag, ""
            continue
        own_name, octets = reader.octets(), reader.octets()
        depth += (tag == _BEGIN_COLLECTION) - (tag == _END_COLLECTION)
        if not 0 <= depth <= _MOST_COLLECTIONS:
            raise IppError("expected collections that begin and end, got others")
        if depth or tag == _END_COLLECTION:
            continue
        name = own_name.decode("ascii", "replace") or name
        if group == _PRINTER_GROUP and name in ASKED:
            found[name] = (*found.get(name, ()), _value(tag, octets))
    return Answer(status, request_id, found)


def _value(tag: int, octets: bytes) -> Value:
    """RFC 8010 section 3.9; what none of ASKED can be is ""."""
    if tag in (_INTEGER, _ENUM) and len(octets) == _NUMBER.size:
        return int(_NUMBER.unpack(octets)[0])
    if tag == _BOOLEAN and len(octets) == 1:
        return octets != b"\0"
    return octets.decode("ascii", "replace") if tag == _KEYWORD else ""


def ask(uri: str, request_id: int = 1) -> Answer:
    """Ask the printer `uri` (ipp, ipps or http) how it is.

    Raises IppError: printer.offline (nobody answers), printer.refused (HTTP or IPP says no), printer.no-ipp.
    """
    place = urlsplit(uri)
    target = f"{place.path or '/'}{'?' + place.query if place.query else ''}"
    connection = _connection(place)
    # The steps have limits of their own, but a printer that drips would pass them for hours.
    watchdog = threading.Timer(EXCHANGE_S, _cut, (connection,))
    watchdog.daemon = True
    watchdog.start()
    try:
        connection.request("POST", target, body=question(uri, request_id), headers={"Content-Type": CONTENT_TYPE})
        response = connection.getresponse()
        content = response.read(LARGEST_ANSWER_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise IppError(
            f"expected an answer of the printer, got {type(error).__name__}", code="printer.offline"
        ) from None
    finally:
        watchdog.cancel()
        connection.close()
    return _answer(response, content, request_id)


def _answer(response: http.client.HTTPResponse, content: bytes, request_id: int) -> Answer:
    if response.status != http.client.OK:
        raise IppError(f"expected HTTP status 200 of the printer, got {response.status}", code="printer.refused")
    if len(content) > LARGEST_ANSWER_BYTES:
        raise IppError(f"expected at most {LARGEST_ANSWER_BYTES} bytes of the printer, got more")
    answer = parse(content)
    if answer.request_id != request_id:
        raise IppError("expected the answer to our question, got another")
    if answer.status >= 0x0100:
        raise IppError(f"expected IPP status successful-ok, got 0x{answer.status:04x}", code="printer.refused")
    return answer


def _connection(place: SplitResult) -> http.client.HTTPConnection:
    try:
        named_port = place.port
    except ValueError:
        raise IppError("expected a port from 1 to 65535 in the printer's address, got another") from None
    if not place.hostname:
        raise IppError("expected a printer address such as ipp://192.168.1.9/ipp/print, got one without a host")
    if place.scheme == "ipps":
        # A printer's certificate is its own (self-signed); what is asked is no secret, so it is not checked.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(place.hostname, named_port or PORT, timeout=TIMEOUT_S, context=context)
    port = named_port or (http.client.HTTP_PORT if place.scheme == "http" else PORT)
    return http.client.HTTPConnection(place.hostname, port, timeout=TIMEOUT_S)


def _cut(connection: http.client.HTTPConnection) -> None:
    if isinstance(connection.sock, socket.socket):
        with contextlib.suppress(OSError):  # it ended in this very moment
            connection.sock.shutdown(socket.SHUT_RDWR)
