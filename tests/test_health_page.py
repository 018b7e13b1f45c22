"""The page /health: its words and charts as HTML, and how it looks on a phone."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from edge.board import Board
from edge.desk.health_view import MEASURES, SPANS, STEPS, WIDTH, chart, duration
from edge.store import Store, open_store
from tests.browser import (
    LOW_CONTRAST,
    NEEDS_BROWSER,
    PHONE,
    SMALL_TARGETS,
    SMALL_TEXT,
    chromium,
    opened,
)
from tests.health_store import stocked
from tests.page_store import NAMES, page_board, port, serving, text_of

DAY, WEEK = SPANS
TEMPERATURE, STUDIES = MEASURES[0], MEASURES[2]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Board, Store]]:
    """A box with a week behind it."""
    board, store = stocked(tmp_path_factory.mktemp("health"), port())
    yield board, store
    store.close()


@pytest.fixture(scope="module")
def address(box: tuple[Board, Store]) -> Iterator[str]:
    """Its page."""
    with serving(box[0]) as served:
        yield served


def test_it_tells_how_the_box_is(address: str) -> None:
    text = text_of(httpx.get(f"{address}/health").text)
    for part in (
        "Please look here",
        "2 things need a look",
        "Running since it was new 10 days",
        "The paper is empty.",
        "MQTT no connection, 3 messages wait",
        "Temperature cpu 61 °C",
        "Processor held back now",
        "Free space 20.0 GiB of 60.0 GiB",
        "Wear of mmcblk0 30 % of its rated life",
        "Device dev-hailo0 missing",
        "Fan 40 %",
        "Has a problem",
        "History: last day",
        "Temperature in the last day: from",
    ):
        assert part in text
    for name in NAMES:
        assert name.split("^")[0] not in text.upper()


def test_a_new_box_has_a_page_too(tmp_path: Path) -> None:
    board = page_board(tmp_path, port())
    open_store(tmp_path).close()
    with serving(board) as address:
        text = text_of(httpx.get(f"{address}/health?span=week").text)
    for part in ("Starting", "No service has reported yet.", "Nothing was measured yet.", "No history yet"):
        assert part in text


def test_every_chart_is_a_picture_with_words_and_numbers(address: str) -> None:
    for span, rows in (("day", 8), ("week", 6)):
        page = httpx.get(f"{address}/health?span={span}").text
        charts = re.findall(r"<svg viewBox=\"0 0 640.*?</svg>", page, re.DOTALL)
        assert len(charts) == len(MEASURES)
        for one in charts:
            tree = ET.fromstring(one)
            title = tree.find("title")
            assert title is not None
            assert tree.get("aria-labelledby") == title.get("id")
            assert title.text
        assert len(re.findall(r"<tr><th scope=\"row\">[^<]*</th><td>", page)) == rows * len(MEASURES)
        assert not re.search(r"\sstyle=|<style|onclick", page)
        assert len(page) < 50_000


def test_an_unknown_span_is_the_last_day(address: str) -> None:
    assert "History: last day" in text_of(httpx.get(f"{address}/health?span=<script>").text)


# --- charts, pure ---


def points(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())]


def test_a_line_goes_up_with_the_value_and_right_with_time() -> None:
    history = [(300.0 * number, 20.0 + number / 4) for number in range(289)]
    found = chart(TEMPERATURE, DAY, history, 86_400.0)
    assert found is not None
    (line,) = found.lines
    drawn = points(line)
    assert len(drawn) == STEPS + 1
    for (x0, y0), (x1, y1) in pairwise(drawn):
        assert x1 > x0
        assert y1 <= y0
    assert 0 <= drawn[0][0] < drawn[-1][0] <= WIDTH
    assert found.now == "92 °C"
    assert found.text == "Temperature in the last day: from 20 °C to 92 °C, now 92 °C."
    assert [row.when for row in found.rows][:2] == ["last 3 hours", "3 to 6 hours ago"]


def test_time_without_power_is_a_gap() -> None:
    history = [(3600.0 * hour, 40.0) for hour in range(0, 24, 1) if not 6 < hour < 12]
    dense = [(at_s + 900.0 * part, value) for at_s, value in history for part in range(4)]
    found = chart(TEMPERATURE, DAY, dense, 86_400.0)
    assert found is not None
    assert len(found.lines) == 2


def test_a_total_is_drawn_as_its_growth() -> None:
    history = [(300.0 * number, float(5 + number // 12)) for number in range(289)]
    found = chart(STUDIES, DAY, history, 86_400.0)
    assert found is not None
    assert found.now == "24"
    assert len(found.bars) == 24
    assert found.lines == ()
    assert [row.mean for row in found.rows] == ["3"] * 8


def test_a_new_box_instead_of_an_old_one_is_no_negative_growth() -> None:
    found = chart(STUDIES, DAY, [(0.0, 500.0), (300.0, 2.0), (600.0, 3.0)], 900.0)
    assert found is not None
    assert found.now == "1"


@pytest.mark.parametrize("history", [[], [(5.0, 1.0)]])
def test_nothing_measured_in_the_span_is_no_chart(history: list[tuple[float, float]]) -> None:
    assert chart(TEMPERATURE, DAY, history, 200_000.0) is None


def test_one_point_and_values_beyond_the_scale_are_drawn_inside() -> None:
    for value in (-40.0, 55.0, 500.0):
        found = chart(TEMPERATURE, WEEK, [(100.0, value)], 200.0)
        assert found is not None
        assert all(0 <= y <= 160 for line in found.lines for _, y in points(line))


def test_durations_are_short() -> None:
    assert [duration(s) for s in (59, 3600, 2 * 3600, 47 * 3600, 3 * 86_400)] == [
        "0 min",
        "60 min",
        "2 h",
        "47 h",
        "3 days",
    ]


# --- a phone ---


@NEEDS_BROWSER
def test_it_fits_a_phone_without_script(address: str) -> None:
    with chromium() as browser, opened(browser, PHONE, script=False) as page:
        page.goto(f"{address}/health")
        expect(page.get_by_role("heading", name="Health of this box")).to_be_visible()
        assert page.get_by_role("img").count() == len(MEASURES)
        expect(page.get_by_role("img", name="Temperature in the last day")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert page.evaluate(SMALL_TARGETS) == []
        assert page.evaluate(SMALL_TEXT) == []
        assert page.evaluate(LOW_CONTRAST) == []
        page.get_by_text("Temperature in numbers").click()
        expect(page.get_by_role("cell", name="°C").first).to_be_visible()
        page.get_by_role("link", name="Last week").click()
        expect(page.get_by_role("heading", name="History: last week")).to_be_visible()
