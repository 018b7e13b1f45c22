"""The table of connections: complete against the sockets that the running box holds, and true to its board."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from edge.board import Board, load_board
from edge.box import Box, running, wait_until_ready
from edge.network_uses import Use, switched_on, uses
from edge.service import Stop
from tests.page_store import port, text_of

pytestmark = pytest.mark.requirement("SEC-03")
LOOK_S = 20.0
IDS = ["dicom", "page", "mqtt", "printer", "grabber", "names"]


@pytest.fixture
def plain(root: Path) -> Board:
    """The simulated board: nothing beside images and page."""
    return load_board(root / "board_configs" / "sim.toml")


def board_with(plain: Board, **sections: dict[str, Any]) -> Board:
    changed = {name: dataclasses.replace(getattr(plain, name), **keys) for name, keys in sections.items()}
    return dataclasses.replace(plain, **changed)


def on(board: Board) -> dict[str, Use]:
    return {use.id: use for use in switched_on(board)}


# --- the table follows the board ---


def test_a_plain_box_connects_to_nobody(plain: Board) -> None:
    assert [use.id for use in uses(plain)] == IDS
    assert list(on(plain)) == ["dicom", "page"]
    assert {use.direction for use in switched_on(plain)} == {"in"}


@pytest.mark.parametrize(
    ("sections", "id", "peer", "port", "also"),
    [
        ({"mqtt": {"host": "192.0.2.7", "port": 8883}}, "mqtt", "192.0.2.7", 8883, ()),
        ({"mqtt": {"host": "broker.local", "port": 1883}}, "mqtt", "broker.local", 1883, ("names",)),
        ({"printer": {"uri": "ipp://192.0.2.8/ipp/print"}}, "printer", "192.0.2.8", 631, ()),
        ({"printer": {"uri": "ipp://192.0.2.8:8631/x"}}, "printer", "192.0.2.8", 8631, ()),
        ({"printer": {"uri": "http://printer/x"}}, "printer", "printer", 80, ("names",)),
        ({"grabber": {"source": "http://192.0.2.9:8081/stream"}}, "grabber", "192.0.2.9", 8081, ()),
        ({"grabber": {"source": "rtsp://user:secret@192.0.2.9/1"}}, "grabber", "192.0.2.9", 554, ()),
        ({"grabber": {"source": "https://[2001:db8::9]/1"}}, "grabber", "2001:db8::9", 443, ()),
    ],
)
def test_what_the_board_switches_on_is_in_the_table(
    plain: Board, sections: dict[str, dict[str, Any]], id: str, peer: str, port: int, also: tuple[str, ...]
) -> None:
    found = on(board_with(plain, **sections))
    assert list(found) == ["dicom", "page", id, *also]
    assert (found[id].direction, found[id].peer, found[id].port) == ("out", peer, port)
    assert "secret" not in repr(found)


def test_a_local_video_device_is_no_connection(plain: Board) -> None:
    for source in ("/dev/video0", "capture.mjpeg", ""):
        assert list(on(board_with(plain, grabber={"source": source}))) == ["dicom", "page"]


def test_only_the_address_that_is_listened_on_is_promised(plain: Board) -> None:
    def peer(**keys: Any) -> str:
        return on(board_with(plain, receive=keys))["dicom"].peer

    assert peer(host="127.0.0.1") == "only programs on this box itself"
    assert peer(host="0.0.0.0") == "any machine of the local network"
    assert peer(host="0.0.0.0", addresses=("192.0.2.0/24",)) == "machines at 192.0.2.0/24"


def test_every_row_tells_a_person_all_they_need(plain: Board) -> None:
    for use in uses(plain):
        for text in (use.purpose, use.carries, use.stop):
            assert text.endswith(".")
        assert use.protocol
        assert 0 < use.port < 65536


def test_the_document_has_the_rows_of_the_table(plain: Board, root: Path) -> None:
    document = (root / "docs" / "network.md").read_text()
    for use in uses(plain):
        row = next(line for line in document.splitlines() if line.startswith(f"| `{use.id}` |"))
        for text in (use.service, use.carries, use.stop):
            assert text in row


# --- the running box holds no other socket ---


@contextmanager
def listener() -> Iterator[int]:
    """A peer that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        taken, stop = [], threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    taken.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            thread.join()
            for one in taken:
                one.close()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Box]:
    """A running box that reports to a broker and asks a printer."""
    folder = tmp_path_factory.mktemp("network")
    text = (root / "board_configs" / "sim.toml").read_text()
    text = text.replace('"models/bundles/chest"', json.dumps(str(root / "models/bundles/chest")))
    with listener() as mqtt_port, listener() as printer_port:
        own = {"mqtt": {"host": "127.0.0.1", "port": mqtt_port, "tls": False}}
        own["printer"] = {"uri": f"ipp://127.0.0.1:{printer_port}/ipp/print"}
        for section, keys in own.items():
            plain = text.split(f"[{section}]\n")[1].split("\n\n")[0]
            text = text.replace(plain, "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items()))
        text = text.replace("port = 11112", f"port = {port()}").replace("port = 8080", f"port = {port()}")
        file = folder / "board.toml"
        file.write_text(text)
        board = dataclasses.replace(load_board(file), data_dir=folder / "data")
        with running(board, ("--board", str(file)), stop=Stop(signals=False)) as started:
            wait_until_ready(started)
            yield started


def use_of(board: Board, connection: Any) -> str:
    """The row of the table that a socket belongs to, or "" for none."""
    for use in switched_on(board):
        if use.direction == "in" and connection.laddr.port == use.port and connection.type == socket.SOCK_STREAM:
            return use.id
        if use.direction == "out" and connection.raddr and (use.peer, use.port) == tuple(connection.raddr):
            return use.id
    return ""


def sockets_of(process: psutil.Process) -> list[Any]:
    """Internet sockets of a process that have an address, without pairs whose two ends it holds both.

    paho-mqtt wakes its own thread through such a pair; nothing of it leaves the process.
    """
    try:
        found = [one for one in process.net_connections(kind="inet") if one.laddr or one.raddr]
    except psutil.NoSuchProcess:
        return []
    ends = {(one.laddr, one.raddr) for one in found}
    return [one for one in found if not one.raddr or (one.raddr, one.laddr) not in ends]


def test_every_socket_of_the_running_box_is_in_the_table(box: Box) -> None:
    """Listening ones, connected ones and UDP; of the services and of all their children."""
    found: set[str] = set()
    deadline = time.monotonic() + LOOK_S
    while not found >= {"dicom", "page", "mqtt", "printer"} and time.monotonic() < deadline:
        processes = [psutil.Process(service.process.pid) for service in box.services]
        for process in [one for parent in processes for one in (parent, *parent.children(recursive=True))]:
            for one in sockets_of(process):
                use = use_of(box.board, one)
                assert use or one not in sockets_of(process), f"{' '.join(process.cmdline())} holds {one}"
                found.add(use)
        time.sleep(0.02)
    assert found - {""} == {"dicom", "page", "mqtt", "printer"}


def test_a_socket_that_is_in_no_row_would_be_seen(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mine = [one for one in psutil.Process().net_connections("inet") if one.laddr == server.getsockname()]
        assert [use_of(box.board, one) for one in mine] == [""]


def test_the_page_shows_the_table(box: Box) -> None:
    answer = httpx.get(f"{box.page}about/network")
    assert answer.status_code == 200
    text = text_of(answer.text)
    every = uses(box.board)
    for use in every:
        assert answer.text.count(f'id="use-{use.id}"') == 1
        assert use.purpose in text
    for use in switched_on(box.board):
        assert f"{use.protocol}, port {use.port}" in text
        assert use.stop in text
    assert text.index("What the box connects to") < text.index("MQTT over TCP") < text.index("Switched off")
    assert 'href="/about/network"' in httpx.get(f"{box.page}about").text
