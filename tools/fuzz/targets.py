"""What meets outside bytes. A target that raises anything but a RadboxError, hangs or eats memory is a crash."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.board import parse_board
from edge.bundle import parse_manifest
from edge.errors import RadboxError
from edge.intake.elements import data_set_offset
from edge.intake.header import read_header
from edge.reading.weights import read_tensors
from edge.report.check import check
from edge.report.graph import load_graph
from edge.report.render import render_text
from edge.report.serial import from_json, to_json
from tools.fuzz import seeds

GRAPH = load_graph()
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


TARGETS: dict[str, Target] = {
    "dicom": Target(_dicom, _dicom_seeds),
    "bundle": Target(_bundle, _bundle_seeds, 65536),
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
