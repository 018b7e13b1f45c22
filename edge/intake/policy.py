"""Who may associate: addresses, calling and called AE titles of the board. Pure decisions, no network."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from edge.board import Receive


@dataclass(frozen=True)
class Rejection:
    """A-ASSOCIATE-RJ: result, source, reason (PS3.8 9.3.4), and what the log says."""

    result: int
    source: int
    reason: int
    why: str


ADDRESS = Rejection(1, 1, 1, "address is not in the board's networks")  # the standard has no reason for addresses
CALLING_AE = Rejection(1, 1, 3, "calling AE title is not in the board's list")
CALLED_AE = Rejection(1, 1, 7, "called AE title is not this box")
NO_TRANSFER_SYNTAX = Rejection(1, 2, 1, "a presentation context proposes no transfer syntax")
VERSION = Rejection(1, 2, 2, "protocol version is not 1")
NO_PLACE = Rejection(2, 3, 2, "as many associations as the board allows are open")  # transient: it may try again


def may_connect(receive: Receive, address: str) -> bool:
    """True if the address is in one of the board's networks, or the board names none."""
    peer = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped:
        peer = peer.ipv4_mapped
    networks = [ipaddress.ip_network(network) for network in receive.addresses]
    return not networks or any(peer in network for network in networks)


def check(receive: Receive, address: str, calling_ae: str, called_ae: str, syntaxes: list[int]) -> Rejection | None:
    """Why the association is rejected, or None. `syntaxes`: how many transfer syntaxes each context proposes."""
    if not may_connect(receive, address):
        return ADDRESS
    if receive.calling_ae and calling_ae.strip() not in receive.calling_ae:
        return CALLING_AE
    if receive.called_ae_check and called_ae.strip() != receive.ae_title:
        return CALLED_AE
    if 0 in syntaxes:
        return NO_TRANSFER_SYNTAX
    return None
