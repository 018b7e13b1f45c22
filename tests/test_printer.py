"""The printer watch: our IPP against a real printer program, against bytes that are none, and against silence."""

from __future__ import annotations

import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.link import ipp, printer
from edge.link.ipp import IppError, parse, question
from edge.link.printer import REASONS, WORDS, Printer, look, printer_of, reason_of
from tests.printer_peer import NEEDS_PRINTER, Peer, printing

JOB = """#!/bin/sh
echo "STATE: +cover-open,media-jam" >&2
sleep 1
echo "STATE: -cover-open,media-jam" >&2
"""


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """A printer whose jobs jam for a second."""
    folder = tmp_path_factory.mktemp("printer")
    command = folder / "job"
    command.write_text(JOB)
    command.chmod(0o755)
    with printing(folder, str(command)) as running:
        yield running


def until(peer: Peer, wanted: Callable[[Printer], bool]) -> Printer:
    """Look again and again until it is as wanted."""
    deadline = time.monotonic() + 10
    while not wanted(found := look(peer.uri)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


@NEEDS_PRINTER
def test_a_real_printer_says_what_it_needs(peer: Peer) -> None:
    assert look(peer.uri) == Printer("idle")
    peer.form("supplies?supply0=25&supply1=0")
    assert look(peer.uri) == Printer("idle", ("toner-empty",))
    peer.form("supplies?supply0=25&supply1=75")
    assert look(peer.uri) == Printer("idle")


@NEEDS_PRINTER
def test_a_real_printer_jams_and_goes_on(peer: Peer, tmp_path: Path) -> None:
    raster = tmp_path / "page.pwg"
    raster.write_bytes(bytes(1000))
    peer.print(raster)
    jammed = until(peer, lambda one: "media-jam" in one.reasons)
    assert (jammed.state, set(jammed.reasons)) == ("processing", {"media-jam", "door-open"})
    assert "Paper is jammed." in jammed.message
    assert until(peer, lambda one: one.state == "idle").reasons == ()


@NEEDS_PRINTER
def test_a_real_printer_runs_out_of_paper(peer: Peer) -> None:
    peer.form("media?size1=na_letter_8.5x11in&type1=stationery&level1=0")  # this version keeps saying so ever after
    assert look(peer.uri) == Printer("idle", ("media-empty",))


@NEEDS_PRINTER
def test_a_wrong_address_at_a_real_printer_is_refused(peer: Peer) -> None:
    found = look(peer.uri + "/nowhere")
    assert (found.state, found.code) == ("offline", "printer.refused")


def test_nobody_there_is_offline(free_port: int) -> None:
    assert look(f"ipp://127.0.0.1:{free_port}/ipp/print") == Printer("offline", ("offline",), "printer.offline")


@pytest.mark.parametrize("uri", ["ipp://", "ipp://127.0.0.1:99999/x", "ipp:///ipp/print"])
def test_an_address_without_a_place_is_told(uri: str) -> None:
    assert look(uri).code == "printer.no-ipp"


# --- what a printer may answer ---


def attribute(tag: int, name: str, value: bytes) -> bytes:
    return bytes([tag]) + struct.pack(">H", len(name)) + name.encode() + struct.pack(">H", len(value)) + value


def answer(*attributes: bytes, status: int = 0, version: int = 2) -> bytes:
    return struct.pack(">BBHI", version, 0, status, 1) + b"\x01" + b"\x04" + b"".join(attributes) + b"\x03"


def said(state: int, *reasons: str, accepting: bool = True) -> bytes:
    words = [attribute(0x44, "printer-state-reasons" if not n else "", r.encode()) for n, r in enumerate(reasons)]
    return answer(
        attribute(0x23, "printer-state", struct.pack(">i", state)),
        *words,
        attribute(0x22, "printer-is-accepting-jobs", bytes([accepting])),
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (said(3, "none"), Printer("idle")),
        (said(4, "toner-low-warning"), Printer("processing", ("toner-low",))),
        (said(5, "media-empty-error", "media-needed-error"), Printer("stopped", ("media-empty",))),
        (said(5), Printer("stopped", ("other",))),
        (said(5, "DOE^JANE fell into it-error"), Printer("stopped", ("other",))),
        (said(3, "DOE^JANE is printed-report"), Printer("idle")),
        (said(3, "none", accepting=False), Printer("idle", ("not-accepting",))),
        (said(3, *(f"{name}-error" for name in REASONS)), None),
    ],
)
def test_what_it_says_becomes_one_of_our_words(content: bytes, expected: Printer | None) -> None:
    found = printer_of(parse(content))
    if expected is None:
        assert len(found.reasons) == 8
    else:
        assert found == expected
    assert set(found.reasons) <= WORDS.keys()


def test_every_reason_has_words() -> None:
    assert set(REASONS.values()) <= WORDS.keys()
    assert reason_of("spool-area-full", "idle") == "memory-full"


def test_collections_and_other_groups_are_passed_over() -> None:
    collection = (
        attribute(0x34, "media-col-ready", b"")
        + attribute(0x4A, "", b"printer-state")
        + attribute(0x23, "", struct.pack(">i", 5))
        + attribute(0x34, "", b"")
        + attribute(0x37, "", b"")
        + attribute(0x37, "", b"")
    )
    unsupported = b"\x05" + attribute(0x23, "printer-state", struct.pack(">i", 5)) + b"\x04"
    content = answer(collection, unsupported, attribute(0x23, "printer-state", struct.pack(">i", 3)))
    assert parse(content).attributes == {"printer-state": (3,)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"HTTP/1.1 200 OK",
        answer()[:-1],
        answer(version=7),
        answer(attribute(0x37, "", b"")),
        answer(attribute(0x34, "", b"") * 40),
        answer(b"\x44\xff\xff"),
    ],
)
def test_bytes_that_are_no_answer_are_refused(content: bytes) -> None:
    with pytest.raises(IppError) as error:
        parse(content)
    assert error.value.code == "printer.no-ipp"


def test_an_answer_that_does_not_say_the_state_is_refused() -> None:
    for content in (answer(), said(9), answer(attribute(0x44, "printer-state", b"idle"))):
        with pytest.raises(IppError):
            printer_of(parse(content))


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=60), st.integers(0, 200))
def test_no_bytes_break_the_parser(noise: bytes, cut: bytes, at: int) -> None:
    whole = said(5, "media-jam-error", "door-open")
    for content in (noise, whole[:at] + cut + whole[at:], whole[:at] + cut + whole[at + len(cut) :]):
        try:
            found = printer_of(parse(content))
        except IppError:
            continue
        assert set(found.reasons) <= WORDS.keys()


def test_our_question_is_what_another_parser_reads() -> None:
    """The bytes of RFC 8010 section A.1, by hand."""
    content = question("ipp://printer.local/ipp/print", 7)
    assert content[:9] == b"\x01\x01\x00\x0b\x00\x00\x00\x07\x01"
    assert content[9:] == (
        b"\x47\x00\x12attributes-charset\x00\x05utf-8"
        b"\x48\x00\x1battributes-natural-language\x00\x02en"
        b"\x45\x00\x0bprinter-uri\x00\x1dipp://printer.local/ipp/print"
        b"\x44\x00\x14requested-attributes\x00\x0dprinter-state"
        b"\x44\x00\x00\x00\x15printer-state-reasons"
        b"\x44\x00\x00\x00\x19printer-is-accepting-jobs"
        b"\x03"
    )


# --- printers that misbehave ---


@contextmanager
def web_server(status: int, content: bytes) -> Iterator[str]:
    """An HTTP server that answers every POST alike."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Silence."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/ipp"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "content", "code"),
    [
        (200, said(3), ""),
        (200, answer(status=0x0405), "printer.refused"),
        (200, said(3).replace(b"\x00\x00\x00\x01", b"\x00\x00\x00\x02", 1), "printer.no-ipp"),
        (200, b"<html>", "printer.no-ipp"),
        (200, b"\0" * (ipp.LARGEST_ANSWER_BYTES + 1), "printer.no-ipp"),
        (404, said(3), "printer.refused"),
    ],
)
def test_answers_over_http(status: int, content: bytes, code: str) -> None:
    with web_server(status, content) as uri:
        assert look(uri).code == code


def test_a_printer_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipp, "EXCHANGE_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            taken, _ = listening.accept()
            with taken:
                taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
                try:
                    for _ in range(100):
                        taken.sendall(b"\0")
                        time.sleep(0.05)
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        start = time.monotonic()
        found = printer.look(f"ipp://127.0.0.1:{listening.getsockname()[1]}/ipp")
        took_s = time.monotonic() - start
        thread.join()
    assert (found.state, found.reasons) == ("offline", ("offline",))
    assert took_s < 4
