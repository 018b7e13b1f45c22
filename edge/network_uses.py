"""Every connection that the box's programs can make or accept, computed from the board. Pure.

Shown at /about/network and in docs/network.md. What is not in this table the box does not do; `tests/test_offline.py`
and `tests/test_network_page.py` hold it to that. What the operating system does by itself is in docs/network.md.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from edge.board import Board

Direction = Literal["in", "out"]

LOOPBACK: Final = "127.0.0.1"
PORTS: Final = {"ipp": 631, "ipps": 631, "http": 80, "https": 443, "rtsp": 554}
DNS_PORT: Final = 53


@dataclass(frozen=True)
class Use:
    """One row. service: of ours. peer: who is at the other end. port: ours for "in", theirs for "out".

    on: the board has it switched on. patients: True if what passes says something about patients.
    """

    id: str
    direction: Direction
    service: str
    peer: str
    port: int
    protocol: str
    purpose: str
    carries: str
    patients: bool
    stop: str
    on: bool


def uses(board: Board) -> tuple[Use, ...]:
    """All rows, also of what is switched off, so that one sees what the box could do."""
    return tuple(use(board) for use in USES)


def switched_on(board: Board) -> tuple[Use, ...]:
    """What this box does now."""
    return tuple(use for use in uses(board) if use.on)


def _receive(board: Board) -> Use:
    receive = board.receive
    return Use(
        id="dicom",
        direction="in",
        service="receive",
        peer=_machines(receive.host, receive.addresses),
        port=receive.port,
        protocol="DICOM (C-STORE, C-ECHO) over TCP",
        purpose="X-ray and ultrasound machines send their images to the box.",
        carries="Images with the patient's name and number.",
        patients=True,
        stop=f'Pull the network cable; or receive.host = "{LOOPBACK}" in the board file: only this box itself then.',
        on=True,
    )


def _web(board: Board) -> Use:
    return Use(
        id="page",
        direction="in",
        service="web",
        peer=_machines(board.web.host, ()),
        port=board.web.port,
        protocol="HTTP over TCP",
        purpose="Phones and computers of the local network open this page; monitors read /healthz and /metrics.",
        carries="Drafts and pictures with the patient's name; /healthz and /metrics have nothing about patients.",
        patients=True,
        stop=f'Pull the network cable; or web.host = "{LOOPBACK}" in the board file: only this box itself then.',
        on=True,
    )


def _mqtt(board: Board) -> Use:
    mqtt = board.mqtt
    return Use(
        id="mqtt",
        direction="out",
        service="link",
        peer=mqtt.host,
        port=mqtt.port,
        protocol="MQTT over TLS" if mqtt.tls else "MQTT over TCP",
        purpose="The box reports how it is: states, counters, what needs attention.",
        carries="Nothing about patients.",
        patients=False,
        stop='mqtt.host = "" in the board file.',
        on=bool(mqtt.host),
    )


def _printer(board: Board) -> Use:
    host, port, scheme = _place(board.printer.uri)
    return Use(
        id="printer",
        direction="out",
        service="link",
        peer=host,
        port=port or PORTS["ipp"],
        protocol="IPP over TLS" if scheme == "ipps" else "IPP over TCP",
        purpose="The box asks the printer how it is: paper, toner, cover.",
        carries="Nothing about patients: it only asks, and prints nothing.",
        patients=False,
        stop='printer.uri = "" in the board file.',
        on=bool(board.printer.uri),
    )


def _grabber(board: Board) -> Use:
    host, port, scheme = _place(board.grabber.source)
    return Use(
        id="grabber",
        direction="out",
        service="capture",
        peer=host,
        port=port or PORTS["http"],
        protocol=f"{scheme.upper() or 'HTTP'} over TCP",
        purpose="The box fetches live pictures from a network video adapter.",
        carries="Pictures of the examination come in; nothing goes out.",
        patients=True,
        stop='grabber.source = "" in the board file, or the path of a local device.',
        on=bool(host),
    )


def _names(board: Board) -> Use:
    """Only for peers that the board calls by name: with addresses nothing is asked."""
    named = [use.peer for use in (_mqtt(board), _printer(board), _grabber(board)) if use.on and not _address(use.peer)]
    return Use(
        id="names",
        direction="out",
        service="link, capture",
        peer="the name server of the local network",
        port=DNS_PORT,
        protocol="DNS over UDP or TCP",
        purpose=f"Finds the address of: {', '.join(named)}." if named else "Finds addresses of peers that have a name.",
        carries="The names of those peers.",
        patients=False,
        stop="Use IP addresses instead of names in the board file.",
        on=bool(named),
    )


USES: Final[Sequence[Callable[[Board], Use]]] = (_receive, _web, _mqtt, _printer, _grabber, _names)


def _machines(host: str, networks: Sequence[str]) -> str:
    if ipaddress.ip_address(host).is_loopback:
        return "only programs on this box itself"
    return f"machines at {', '.join(networks)}" if networks else "any machine of the local network"


def _place(url: str) -> tuple[str, int, str]:
    """Host, port and scheme of an address with a host; ("", 0, "") for a path or nothing."""
    parts = urlsplit(url)
    if not parts.hostname:
        return "", 0, ""
    try:
        port = parts.port
    except ValueError:  # no number
        port = None
    return parts.hostname, port or PORTS.get(parts.scheme, 0), parts.scheme


def _address(peer: str) -> bool:
    try:
        ipaddress.ip_address(peer)
    except ValueError:
        return False
    return True
