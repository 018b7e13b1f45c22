"""Runs a command where nothing can be reached and tells what it tried. Started inside new namespaces, see `offline.py`.

    python -m tests.offline.inside RESULT WITNESS COMMAND...

Only the loopback interface is up. Name servers are replaced by one that writes down every question. Witness `strace`:
there is no route, and every connect and send to an address is recorded. Witness `packets`: there is a default route,
into a TUN device, and every packet that comes out of it is recorded.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

DNS_PORT = 53
NXDOMAIN = 0x8183
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
CALLS = "connect,sendto,sendmsg,sendmmsg"
ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")')


def main(arguments: Sequence[str]) -> int:
    """Write {"code", "output", "questions", "reached"} as JSON to the file RESULT."""
    result, witness, *command = arguments
    _call("ip", "link", "set", "lo", "up")
    with tempfile.TemporaryDirectory() as folder:
        _blind(Path(folder))
        questions: list[str] = []
        with _name_server(questions):
            run = {"strace": _traced, "packets": _routed}[witness]
            code, output, reached = run(Path(folder), command)
    answer = {"code": code, "output": output, "questions": questions, "reached": reached}
    Path(result).write_text(json.dumps(answer))
    return 0


def _call(*command: str) -> None:
    subprocess.run(command, check=True)


def _blind(folder: Path) -> None:
    """In this mount namespace names are asked only of our own name server."""
    for name, content in (
        ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ):
        own = folder / name
        own.write_text(content)
        place = Path("/etc", name)
        if place.exists():
            _call("mount", "--bind", str(own), str(place.resolve()))


# --- the name server ---


@contextlib.contextmanager
def _name_server(questions: list[str]) -> Iterator[None]:
    """Answers that there is no such name (RFC 1035, 4.1.1), and keeps the names it was asked for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", DNS_PORT))
        server.settimeout(0.1)
        with _thread(lambda: _answer(server, questions)):
            yield


def _answer(server: socket.socket, questions: list[str]) -> None:
    with contextlib.suppress(TimeoutError):
        query, peer = server.recvfrom(4096)
        questions.append(_name(query))
        server.sendto(query[:2] + struct.pack("!H", NXDOMAIN) + query[4:6] + bytes(6) + query[12:], peer)


def _name(query: bytes) -> str:
    labels, at = [], 12
    while at < len(query) and query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    return ".".join(labels)


@contextlib.contextmanager
def _thread(step) -> Iterator[None]:
    """Repeat `step` until the block ends, and once more."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            step()
        step()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# --- the witnesses ---


def _run(command: Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def _traced(folder: Path, command: Sequence[str]) -> tuple[int, str, list[str]]:
    """Every address that any process of the command connected or sent to, but this machine's own."""
    trace = folder / "trace"
    options = ("-f", "-qq", "--seccomp-bpf", "-e", "signal=none", "-e", f"trace={CALLS}", "-o", str(trace))
    code, output = _run(("strace", *options, *command))
    lines = trace.read_text(errors="replace").splitlines()
    if not any("sa_family" in line for line in lines):
        raise AssertionError("expected a trace with addresses in it, got none")
    found = [(match[2] or match[3], match[1]) for line in lines for match in ADDRESS.finditer(line)]
    return code, output, sorted({f"{place} port {port}" for place, port in found if not _own(place)})


def _own(place: str) -> bool:
    """The unspecified address is this machine too; getaddrinfo(3) connects to it when it sorts what to listen on."""
    address = ip_address(place)
    return address.is_loopback or address.is_unspecified


def _routed(_folder: Path, command: Sequence[str]) -> tuple[int, str, list[str]]:
    """Every packet that left by the default route."""
    packets: list[str] = []
    device = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"way0", IFF_TUN | IFF_NO_PI))
        _call("ip", "address", "add", "198.51.100.2/24", "dev", "way0")
        _call("ip", "link", "set", "way0", "addrgenmode", "none")
        _call("ip", "address", "add", "2001:db8::2/64", "dev", "way0", "nodad")
        _call("ip", "link", "set", "way0", "up")
        for version in ("-4", "-6"):
            _call("ip", version, "route", "add", "default", "dev", "way0")
        with _thread(lambda: _take(device, packets)):
            code, output = _run(command)
    finally:
        os.close(device)
    return code, output, packets


def _take(device: int, packets: list[str]) -> None:
    if not select.select([device], [], [], 0.1)[0]:
        return
    packet = os.read(device, 65536)
    if packet[0] >> 4 == 4:
        packets.append(f"{ip_address(packet[16:20])} protocol {packet[9]}")
    elif not _of_the_kernel(packet):
        packets.append(f"{ip_address(packet[24:40])} protocol {packet[6]}")


def _of_the_kernel(packet: bytes) -> bool:
    """What the kernel itself sends on an IPv6 interface that comes up: ICMPv6 (58), also behind hop-by-hop options (0),
    to a multicast group of the link (RFC 4861, RFC 3810)."""
    return packet[6] in (0, 58) and packet[24:26] == b"\xff\x02"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
