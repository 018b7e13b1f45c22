"""The IPv4 address at which others on the LAN find this box, from the kernel's own table; no packet, no socket."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

TABLE: Final = Path("/proc/self/net/fib_trie")
_ANY: Final = ("0.0.0.0", "::")


def page_address(host: str, table: Path = TABLE) -> str:
    """Where the page of a box that listens on `host` is found: `host` itself, or for "all addresses" the first of the
    LAN; "" if there is none. A link-local address (169.254.0.0/16) counts only where there is no other."""
    if host not in _ANY:
        return host
    try:
        found = local_addresses(table.read_text(encoding="ascii"))
    except OSError:
        return ""  # a kernel without it, or a unit that hides it: the panel says that it knows none
    usable = [one for one in found if not one.is_loopback]
    usable.sort(key=lambda one: one.is_link_local)  # stable: else the kernel's order
    return str(usable[0]) if usable else ""


def local_addresses(trie: str) -> list[ipaddress.IPv4Address]:
    """Addresses of this machine in the text of /proc/net/fib_trie (Linux, net/ipv4/fib_trie.c): each is a leaf,
    `|-- ADDRESS`, followed by a line `/32 host LOCAL`. In the order of the table, each once."""
    found: dict[ipaddress.IPv4Address, None] = {}
    leaf = ""
    for line in trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            leaf = words[1]
        elif words == ["/32", "host", "LOCAL"] and leaf:
            found[ipaddress.IPv4Address(leaf)] = None
    return list(found)
