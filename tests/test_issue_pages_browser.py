"""What needs attention, in a real browser: a person taps, care does it, the page says what became of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from edge.board import Board
from edge.care.issues.desk import IssueDesk
from edge.issue_titles import TITLES
from edge.store import open_store
from edge.store_rows import IssueFacts
from tests.browser import (
    DESK,
    EVERY_VIEW,
    LOW_CONTRAST,
    NEEDS_BROWSER,
    PHONE,
    SMALL_TARGETS,
    SMALL_TEXT,
    chromium,
    opened,
)
from tests.issue_box import TROUBLES, healthy, lasting
from tests.page_store import Stocked, port, serving, stock

pytestmark = [NEEDS_BROWSER, pytest.mark.requirement("KEEP-10")]

FULL = IssueFacts("issue.disk-full", "", "critical", {"free_bytes": 300_000_000, "used_percent": 99})
RESTARTED = IssueFacts("issue.watchdog-reset", "", "info", {"reason": "panic"})
UNSET = IssueFacts("issue.clock-unset", "", "warning")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One headless Chromium."""
    with chromium() as launched:
        yield launched


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stocked]:
    """A store that a test may change."""
    built = stock(tmp_path, port())
    built.store.tick_age()
    yield built
    built.store.close()


@contextmanager
def caring(board: Board) -> Iterator[None]:
    """Care answers wishes; what it finds by itself stays out."""
    stop = threading.Event()

    def serve() -> None:
        with closing(open_store(board.data_dir)) as store:
            desk = IssueDesk(board, store)
            while not stop.wait(0.1):
                desk._look()
                for request in store.asked():
                    desk._do(desk._look(), request)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    stop.set()
    thread.join(10)


@pytest.mark.parametrize(("size", "script"), EVERY_VIEW)
def test_one_tap_and_the_outcome(browser: Browser, own: Stocked, size: tuple[int, int], script: bool) -> None:
    own.store.set_fact("boot", {"reason": "watchdog"})
    with serving(own.board) as url, opened(browser, size, script) as page, caring(own.board):
        page.goto(f"{url}/issues")
        for _ in range(100):
            if page.get_by_text("The box restarted by itself").count():
                break
            time.sleep(0.05)
            page.reload()
        page.get_by_role("button", name="Understood").press("Enter")
        expect(page.get_by_text("Noted. It is not shown any more.")).to_be_visible()
        page.get_by_role("link", name="To what needs attention").click()
        expect(page.get_by_text("Nothing needs attention")).to_be_visible()


def test_the_list_leads_to_the_issue_and_the_question(browser: Browser, own: Stocked) -> None:
    own.store.set_issues([FULL])
    with serving(own.board) as url, opened(browser, PHONE) as page:
        page.goto(url)
        page.get_by_role("link", name="Storage is full: new images are turned away").click()
        page.get_by_role("link", name="Delete unreadable files").click()
        page.get_by_role("link", name="No, go back").click()
        assert own.store.asked() == []
        page.get_by_role("link", name="Delete unreadable files").click()
        page.get_by_role("button", name="Yes, delete unreadable files").click()
        expect(page.get_by_text("Being done: Deleting the older half of the unreadable files.")).to_be_visible()
        (wish,) = own.store.asked()
        own.store.answer(wish.request_key, "fix.done", "Unreadable files removed: 2.")
        expect(page.get_by_text("Unreadable files were deleted.")).to_be_visible()  # by itself


@pytest.mark.parametrize("script", [True, False])
def test_the_phones_time(browser: Browser, own: Stocked, script: bool) -> None:
    own.store.set_issues([UNSET])
    with serving(own.board) as url, opened(browser, PHONE, script) as page:
        page.goto(f"{url}/issues")
        if not script:
            page.get_by_label("Date").fill("2031-05-06")
            page.get_by_label("Time").fill("07:08")
        else:
            expect(page.get_by_label("Date")).to_have_count(0)
        page.get_by_role("button", name="Use this phone's time").click()
        expect(page.get_by_text("Being done: Setting the clock.")).to_be_visible()
        (wish,) = own.store.asked()
        right = time.time() if script else time.mktime((2031, 5, 6, 7, 8, 0, 0, 0, -1))
        assert wish.values["unix_s"] == pytest.approx(right, abs=20)


def test_the_page_follows_by_itself(browser: Browser, own: Stocked) -> None:
    with serving(own.board) as url, opened(browser, PHONE) as page:
        page.goto(f"{url}/issues")
        expect(page.get_by_text("Nothing needs attention")).to_be_visible()
        own.store.set_issues([RESTARTED])
        expect(page.get_by_text("It restarted because its system had failed.")).to_be_visible()
        page.get_by_role("button", name="Understood").focus()
        own.store.set_issues([RESTARTED, FULL])
        expect(page.get_by_text("Storage is full")).to_be_visible()
        expect(page.get_by_role("button", name="Understood")).to_be_focused()


def test_a_page_of_another_site_asks_for_nothing(browser: Browser, own: Stocked) -> None:
    own.store.set_issues([FULL])
    with serving(own.board) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{url}/issues")
        fields = "".join(
            one.evaluate("one => one.outerHTML") for one in page.locator("form").first.locator("input").all()
        )
        form = f'<form method="post" action="{url}/issues/fix">{fields}<button>Win a prize</button></form>'
        page.route("http://prizes.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
        page.goto("http://prizes.example/")
        page.get_by_role("button").click()
        expect(page.get_by_text("web.other-site")).to_be_visible()
        context.close()
    assert own.store.asked() == []


@pytest.mark.parametrize("size", [PHONE, DESK])
@pytest.mark.parametrize("script", [True, False])
def test_every_issue_can_be_read_and_touched(
    browser: Browser, own: Stocked, size: tuple[int, int], script: bool, tmp_path: Path
) -> None:
    found = [one for changed, _ in TROUBLES.values() for one in lasting(healthy(**changed))]
    assert len(found) == len(TITLES)
    own.store.set_issues(found)
    own.store.put_off_issue("issue.mqtt-lost", "", 1e6)
    done = own.store.ask("storage.clean", {})
    own.store.answer(done, "fix.failed", "Expected a working disk, got none. [storage.failed]")
    waiting = own.store.ask("clock.use-phone", {})
    question = "/issues/ask?action=storage.quarantine-clear&code=issue.disk-full&subject="
    paths = ("/issues", question, f"/issues/wish/{done}", f"/issues/wish/{waiting}", "/about/network", "/about", "/")
    folder = Path(os.environ.get("RADBOX_SCREENSHOTS", tmp_path))
    with serving(own.board) as url, opened(browser, size, script) as page:
        for number, path in enumerate(paths):
            page.goto(url + path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            assert page.evaluate(SMALL_TEXT) == [], path
            assert page.evaluate(LOW_CONTRAST) == [], path
            assert page.evaluate(SMALL_TARGETS) == [], path
            assert page.evaluate(UNNAMED) == [], path
            page.screenshot(full_page=True, path=folder / f"{size[0]}-issues-{number}-{script}.png")


# Duplicate ids, buttons, links and inputs without a name, headings that skip a level (WCAG 2.2: 4.1.2, 2.4.6, 1.3.1).
UNNAMED = """() => {
    const ids = [...document.querySelectorAll('[id]')].map(one => one.id);
    const faults = ids.filter((id, at) => ids.indexOf(id) !== at);
    for (const one of document.querySelectorAll('a, button'))
        if (!(one.textContent.trim() || one.getAttribute('aria-label'))) faults.push(one.outerHTML);
    for (const one of document.querySelectorAll('input:not([type=hidden])'))
        if (!(one.labels && one.labels.length)) faults.push(one.outerHTML);
    const levels = [...document.querySelectorAll('h1, h2, h3, h4')].map(one => Number(one.tagName[1]));
    levels.forEach((level, at) => { if (level > (levels[at - 1] || 0) + 1) faults.push('h' + level); });
    return faults;
}"""
