"""The pure parts of the page: words, ages, notices, the Host rule, the overlay."""

from __future__ import annotations

import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.desk import overlay, views, web, words
from edge.desk.shield import host_allowed
from edge.errors import ConfigError
from edge.report.schema import Box, Evidence
from edge.service import Stop
from edge.store import InstanceRow, ServiceRow
from tests import page_store


def test_a_silent_receiver_is_told() -> None:
    def told(row: ServiceRow) -> tuple[str, ...]:
        return tuple(notice.code for notice in views.notices([row], views.Now(1000.0, "boot-a", 0.0)))

    assert told(ServiceRow("receive", "ok", "", "", 990.0, "boot-a")) == ()
    assert told(ServiceRow("receive", "ok", "", "", 900.0, "boot-a")) == ("receive.silent",)
    assert told(ServiceRow("receive", "ok", "", "", 1000.0, "boot-b")) == ("receive.silent",)


def test_a_study_that_waits_too_long_is_told() -> None:
    def told(state: str, received_s: float, boot: str) -> str:
        row = InstanceRow(1, 1, "1.2", "1.2", "1.2", "ab", 1, "x", "AE", False, received_s, 0.0, boot, 0.0)
        return views.Now(1000.0, "boot-a", 0.0).long_wait(state, row)

    assert told("queued", 900.0, "boot-a") == ""
    assert told("queued", 600.0, "boot-a") == words.LONG_WAIT
    assert told("reading", 1.0, "boot-b") == words.LONG_WAIT
    assert told("draft", 600.0, "boot-a") == ""


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8080", True),
        ("192.168.4.20", True),
        ("[::1]:8080", True),
        ("[fe80::1]", True),
        ("localhost:8080", True),
        ("radbox.local", True),
        ("RADBOX.local.:8080", True),
        ("xray.clinic.example:8080", True),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("radbox.local.evil.example", False),
        ("", False),
        ("::1", False),
    ],
)
def test_host_header(host: str, allowed: bool) -> None:
    assert host_allowed(host, "xray.clinic.example") is allowed


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("DOE^JANE", "DOE, JANE"),
        ("DOE^JANE^Q^DR^PHD", "DOE, DR JANE Q PHD"),
        ("DOE", "DOE"),
        ("^JANE", "JANE"),
        ("=山田^太郎", "山田, 太郎"),
        ("Yamada^Tarou=山田^太郎", "Yamada, Tarou"),
        ("", "Name not given"),
        ("^^^^", "Name not given"),
        ("A^B^C^D^E^F^G", "A, D B C E"),
    ],
)
def test_person(name: str, shown: str) -> None:
    assert words.person(name) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (7200, "2 h ago"),
        (900_000, "10 days ago"),
    ],
)
def test_ago(seconds: float, shown: str) -> None:
    assert words.ago(seconds) == shown


def test_age_of_another_boot_is_not_guessed() -> None:
    assert words.age(10.0, "boot-a", 400.0, "boot-a") == "6 min ago"
    assert words.age(10.0, "boot-a", 400.0, "boot-b") == "before the last restart"


def evidence(grid: list[list[int]], extent: Box) -> Evidence:
    return Evidence(tuple(tuple(row) for row in grid), extent, None, "left", "upper")


def test_heat_is_transparent_outside_its_extent_and_below_the_floor() -> None:
    grid = [[255 if column >= 2 else 70 for column in range(4)] for _ in range(4)]
    content = overlay.heat_png(evidence(grid, Box(0.25, 0.5, 1.0, 1.0)), 80, 40)
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    alpha = decoded[..., 3]
    assert alpha.shape == (40, 80)
    assert not alpha[:20].any()
    assert not alpha[:, :20].any()
    assert not alpha[20:, 20:34].any()  # 70 is under 30 % of 255
    assert (alpha[20:, 60:] == overlay.OPACITY).all()
    assert tuple(decoded[30, 70, :3]) == overlay.HUE[::-1]


def test_heat_of_an_empty_map_is_empty() -> None:
    content = overlay.heat_png(evidence([[0, 0], [0, 0]], Box(0, 0, 1, 1)), 8, 8)
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert not decoded[..., 3].any()


@pytest.mark.parametrize(
    ("grid", "size"), [([[1], [1, 2]], (8, 8)), ([], (8, 8)), ([[1]], (0, 8)), ([[1]], (99_999, 99_999))]
)
def test_heat_refuses_what_is_not_a_map_or_a_picture(grid: list[list[int]], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        overlay.heat_png(evidence(grid, Box(0, 0, 1, 1)), *size)


def test_png_size_of_a_file_that_is_no_png(tmp_path: Path) -> None:
    for content in (b"", b"\xff\xd8\xff\xe0" + bytes(40), b"\x89PNG\r\n\x1a\n"):
        (tmp_path / "x.png").write_bytes(content)
        assert overlay.png_size(tmp_path / "x.png") is None


def test_a_taken_port_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="to be free for the page"):
        web.run(page_store.page_board(tmp_path, taken.getsockname()[1]), Stop(signals=False))
