"""The page of the frame grabber: a press is written down once, and what became of it is said."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from edge.desk.grabber_pages import press_view, sight
from edge.desk.views import Now
from edge.store import FactRow, RequestRow, Store, boot_id, open_store
from tests.page_store import page_board, port, serving, text_of

pytestmark = pytest.mark.requirement("RCV-09")
NOW = Now(100.0, "this-boot", 0.0)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Store]]:
    plain = page_board(tmp_path_factory.mktemp("grabber"), port())
    board = dataclasses.replace(plain, grabber=dataclasses.replace(plain.grabber, source="/dev/video0"))
    with (
        serving(board) as address,
        httpx.Client(base_url=address) as opened,
        closing(open_store(board.data_dir)) as store,
    ):
        yield opened, store


def press(client: httpx.Client, **changed: str) -> httpx.Response:
    found = re.search(r'name="token" value="([^"]+)"', client.get("/grabber").text)
    assert found is not None
    origin = {"Origin": str(client.base_url).rstrip("/")}
    return client.post("/grabber/take", data={"token": found[1], **changed}, headers=origin)


def test_a_press_is_written_down_once_and_answered(client: tuple[httpx.Client, Store]) -> None:
    page, store = client
    first, second = press(page), press(page)
    assert first.status_code == 303
    assert first.headers["location"] == second.headers["location"]
    (asked,) = store.asked("grabber.")
    assert asked.action == "grabber.freeze"
    assert "Taking the picture" in text_of(page.get(first.headers["location"]).text)
    store.answer(asked.request_key, "grabber.frozen", "The picture was taken.")
    assert "Picture taken The picture was taken." in text_of(page.get(first.headers["location"]).text)
    assert press(page).headers["location"] != first.headers["location"]


def test_only_the_boxs_own_page_may_press(client: tuple[httpx.Client, Store]) -> None:
    page, store = client
    before = len(store.asked())
    assert press(page, token="wrong").status_code == 403
    assert page.post("/grabber/take", data={"token": "x"}, headers={"Origin": "http://evil.example"}).status_code == 403
    assert len(store.asked()) == before


def test_the_page_says_how_the_picture_is(client: tuple[httpx.Client, Store]) -> None:
    page, store = client
    assert "does not look at the machine's picture" in text_of(page.get("/grabber").text)
    store.set_fact("grabber", {"state": "no-signal", "message": "The machine shows nothing."})
    assert "The machine shows nothing." in text_of(page.get("/grabber").text)
    assert 'href="/grabber"' in page.get("/").text


def test_a_box_without_a_grabber_has_no_such_page(tmp_path) -> None:
    board = page_board(tmp_path, port())
    with serving(board) as address, httpx.Client(base_url=address) as page:
        assert page.get("/grabber").status_code == 404
        assert 'href="/grabber"' not in page.get("/").text


@pytest.mark.parametrize(
    ("boot", "at_s", "code", "title"),
    [
        ("this-boot", 95.0, "", "Taking the picture"),
        ("this-boot", 50.0, "", "No picture taken"),
        ("earlier", 95.0, "", "No picture taken"),
        ("earlier", 95.0, "grabber.frozen", "Picture taken"),
        ("this-boot", 95.0, "grabber.no-signal", "No picture taken"),
    ],
)
def test_a_press_in_words(boot: str, at_s: float, code: str, title: str) -> None:
    assert press_view(RequestRow(1, "grabber.freeze", {}, code, "", at_s, boot), NOW).title == title


def test_an_old_word_of_the_service_does_not_count() -> None:
    fact = FactRow("grabber", {"state": "ok", "message": "fine"}, 95.0, "this-boot")
    assert sight(fact, NOW) == ("ready", "fine")
    for old in (dataclasses.replace(fact, monotonic_s=50.0), dataclasses.replace(fact, boot_id=boot_id())):
        assert sight(old, NOW)[0] == "warn"
