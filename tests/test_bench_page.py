"""The page /about/bench: the newest result in words, tables and a plot, and how it looks on a phone."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from edge.bench_kept import FOLDER, keep
from edge.bench_plot import COLOURS
from edge.board import Board
from edge.store import open_store
from tests.bench_results import NAMES, result
from tests.browser import DESK, LOW_CONTRAST, NEEDS_BROWSER, PHONE, SMALL_TARGETS, SMALL_TEXT, chromium, opened
from tests.page_store import page_board, port, serving, text_of

NEWEST = result(0.5, ("cold", "warm", "throttled"), taken="2026-11-22T14:00:00+00:00")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A box with two like runs and one of other threads between them."""
    folder = tmp_path_factory.mktemp("bench")
    open_store(folder).close()
    older = replace(
        NEWEST, taken="2026-11-20T09:00:00+00:00", seconds=result(1.0, ("cold", "warm", "throttled")).seconds
    )
    for one in (older, result(setting=replace(NEWEST.setting, threads=1)), NEWEST):
        keep(folder, one)
    return page_board(folder, port())


@pytest.fixture(scope="module")
def address(board: Board) -> Iterator[str]:
    """Its page."""
    with serving(board) as served:
        yield served


def test_it_tells_everything(address: str) -> None:
    text = text_of(httpx.get(f"{address}/about/bench").text)
    for part in (
        "Measured on this box at 2026-11-22T14:00:00+00:00",
        "Time of a report: kept: 0.40 s, at most 1.50 s",
        "Memory of a service: not kept: 160 MiB, at most 100 MiB",
        "Power: not decided: not measured, at most 10.0 W",
        "4.00 (6 studies at once)",
        "Test Board <1>, Test CPU, 4 cores, aarch64",
        "15W, at most 1500 MHz",
        "tflite, tflite file, 4 threads",
        "kernels neon_dotprod, q8, 2 threads",
        "chest 1.0.0, aaaaaaaaaaaa",
        "1.90 J, 1.10 above",
        "With the run of 2026-11-20T09:00:00+00:00",
        "0.50 (",
        "fewer than 5 samples",
        "The box was held back by heat or power meanwhile.",
    ):
        assert part in text, part


def test_the_plot_stands_in_the_page_as_a_picture_with_words(address: str) -> None:
    page = httpx.get(f"{address}/about/bench").text
    (drawn,) = re.findall(r"<svg xmlns.*?</svg>", page, re.DOTALL)
    tree = ET.fromstring(drawn)
    assert tree.attrib["role"] == "img"
    assert not re.search(r"\sstyle=|<style|onclick|<script(?! src)", page)
    assert len(page) < 60_000


def test_a_box_that_was_never_measured_says_how(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with serving(page_board(tmp_path, port())) as address:
        assert "radbox bench" in text_of(httpx.get(f"{address}/about/bench").text)
        keep(tmp_path, result(states=("warm",)))
        (tmp_path / FOLDER / "000007.json").write_text("{}")
        text = text_of(httpx.get(f"{address}/about/bench").text)
    for part in ("1 kept result cannot be read", "Not seen in this run.", "The box keeps no earlier run"):
        assert part in text


@NEEDS_BROWSER
@pytest.mark.parametrize("size", [PHONE, DESK])
def test_it_fits_without_script_and_the_plot_is_drawn(address: str, size: tuple[int, int]) -> None:
    with chromium() as browser, opened(browser, size, script=False) as page:
        page.goto(f"{address}/about/bench")
        expect(page.get_by_role("heading", name="Speed of this box")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(SMALL_TARGETS) == []
        assert page.evaluate(SMALL_TEXT) == []
        assert page.evaluate(LOW_CONTRAST) == []
        picture = page.get_by_role("img", name="Time from the last byte received")
        shot = cv2.imdecode(np.frombuffer(picture.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        assert shot is not None
        for colour in COLOURS.values():
            rgb = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
            near = np.abs(shot.astype(int) - np.array(rgb[::-1])).max(axis=2) < 12
            assert near.sum() > 20 * len(NAMES), colour
