"""What meets outside bytes. A target that raises anything but a RadboxError, hangs or eats memory is a crash."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.board import parse_board
from edge.bundle import parse_manifest
from edge.care.archive import parse_header
from edge.care.archive_records import read_records
from edge.errors import BackupError, RadboxError
from edge.intake import command, negotiation
from edge.intake.elements import data_set_offset
from edge.intake.header import read_header
from edge.intake.upper_layer import ProtocolError
from edge.reading.weights import read_tensors
from edge.report.check import check
from edge.report.graph import load_graph
from edge.report.render import render_text
from edge.report.serial import from_json, to_json
from edge.slot_state import parse_state
from edge.trust import verify_roots, verify_snapshot, verify_targets
from tools.fuzz import seeds
from tools.update.receipts import ReceiptError, read_receipt

GRAPH = load_graph()
negotiation.quiet_libraries()
_SYNTAXES = (*seeds.SYNTAXES, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50")
_SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))  # noqa: PTH112


@dataclass(frozen=True)
class Target:
    """`one` eats any bytes and may raise RadboxError; `seeds` are bytes it accepts."""

    one: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    longest_bytes: int = 8192


def _dicom(content: bytes) -> None:
    """The first byte picks the transfer syntax; the rest is a data set, or a whole file of ours."""
    if not content:
        return
    syntax, rest = _SYNTAXES[content[0] % len(_SYNTAXES)], content[1:]
    start = min(data_set_offset(rest[:144]), len(rest)) if content[0] & 0x80 and len(rest) >= 144 else 0
    header = read_header(rest, start, syntax)
    assert len(header.sop_instance_uid) <= 64


def _dicom_seeds() -> list[bytes]:
    plain = [bytes([index]) + seeds.data_set(syntax) for index, syntax in enumerate(seeds.SYNTAXES)]
    head = b"\0" * 128 + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, 0)
    return [*plain, b"\x81" + head + seeds.data_set(seeds.SYNTAXES[1])]


def _bundle(content: bytes) -> None:
    """Manifest, or (first byte odd) a file of weights."""
    if content[:1] != b"{" and len(content) > 8:
        path = _SCRATCH / "weights.safetensors"
        path.write_bytes(content)
        read_tensors(path)
    else:
        parse_manifest(content)


def _bundle_seeds() -> list[bytes]:
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    return [seeds.manifest(), struct.pack("<Q", len(header)) + header + b"\0" * 8]


def _config(content: bytes) -> None:
    parse_board(content, "board.toml")


def _report(content: bytes) -> None:
    """What is read must be checkable, renderable and come back the same."""
    report = from_json(content.decode("utf-8", "replace"))
    render_text(check(report, GRAPH), GRAPH)
    assert from_json(to_json(report)) == from_json(to_json(from_json(to_json(report))))


def _network(content: bytes) -> None:
    """First byte odd: a command set (PS3.7 6.3); even: an A-ASSOCIATE-RQ (PS3.8 9.3.2), answered if it can be read."""
    if not content:
        return
    try:
        if content[0] & 1:
            command.response(command.decode(content[1:]), 0)
        else:
            request = negotiation.parse(content[1:])
            if 0 not in request.syntaxes:  # `policy.check` rejects those before
                negotiation.accept(request, 131_072)
    except ProtocolError:
        return


def _update(content: bytes) -> None:
    """Documents of an attacker without a key, and (first byte over 3) signed ones of key holders gone mad."""
    if len(content) < 2:
        return
    kind, document = content[0] % 8, content[1:]
    if kind >= 4:
        document = seeds.signed_anyway(document)
    if kind % 4 == 0:
        verify_roots(seeds.root(), [document])
    elif kind % 4 == 1:
        verify_snapshot(seeds.root(), document, 0)
    elif kind % 4 == 2:
        offer = verify_targets(seeds.root(), document)
        assert all("/" not in file.name and not file.name.startswith(".") for file in offer.files)
    else:
        with contextlib.suppress(ReceiptError):
            read_receipt(document)


def _state(content: bytes) -> None:
    parse_state(content)


def _archive(content: bytes) -> None:
    """A part's header, and the records of an archive by someone who knows the passphrase."""
    parse_header(content[:1024])


def _records(content: bytes) -> None:
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        if size > len(content) - at:
            raise BackupError("expected more bytes, got the end", code="backup.cut")
        at += size
        return content[at - size : at]

    for _ in read_records(read):
        pass


TARGETS: dict[str, Target] = {
    "dicom": Target(_dicom, _dicom_seeds),
    "network": Target(_network, seeds.network),
    "bundle": Target(_bundle, _bundle_seeds, 65536),
    "update": Target(_update, seeds.update),
    "state": Target(_state, seeds.state),
    "archive": Target(_archive, seeds.archive_headers),
    "records": Target(_records, seeds.records),
    "config": Target(_config, seeds.boards),
    "report": Target(_report, seeds.reports),
}


def run(target: Target, content: bytes) -> None:
    """One execution: a RadboxError is an answer, anything else is a crash."""
    try:
        target.one(content)
    except RadboxError as error:
        if not error.message or len(error.message) > 4000:
            raise AssertionError("an error without words, or that quotes its input") from error
