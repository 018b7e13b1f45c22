"""The page in a real browser: headless Chromium at phone and desk width, with JavaScript and without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests import page_store
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
from tests.page_store import DRAFT_NAME_SHOWN, NAMES, Stocked, port, serving, stock

CRITICAL = page_store.told("impression")[0]
PATHS = ("/", "/quarantine", "/about", "/model", "/model/back", "/nowhere", *(f"/study/{key}" for key in range(1, 8)))

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stocked]:
    """A store that no test of this module changes."""
    built = stock(tmp_path_factory.mktemp("browser"), port())
    yield built
    built.store.close()


@pytest.fixture(scope="module")
def address(stocked: Stocked) -> Iterator[str]:
    """Where the page of `stocked` is."""
    with serving(stocked.board) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One headless Chromium."""
    with chromium() as launched:
        yield launched


def pixels(shot: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)


def orange(shot: Any) -> Any:
    """(H, W) bool: where a screenshot is tinted orange."""
    blue, green, red = (shot[..., channel].astype(int) for channel in range(3))
    return (red - blue > 40) & (green < red)


@pytest.mark.parametrize(("size", "script"), EVERY_VIEW)
def test_a_reader_finds_draft_refusal_and_quarantine(
    browser: Browser, address: str, size: tuple[int, int], script: bool
) -> None:
    with opened(browser, size, script) as page:
        page.goto(address)
        expect(page.get_by_role("heading", level=1)).to_have_text("Studies")
        page.get_by_role("link", name=DRAFT_NAME_SHOWN).click()
        expect(page.get_by_text("DRAFT - NOT SIGNED").first).to_be_visible()
        expect(page.get_by_text(CRITICAL)).to_be_visible()
        expect(page.get_by_text("Doubtful:").first).to_be_visible()
        expect(page.get_by_role("img", name="Chest X-ray, frontal view")).to_be_visible()
        page.get_by_role("link", name="Studies").click()
        page.get_by_role("link", name="MBEKI").click()
        expect(page.get_by_text(page_store.REFUSAL)).to_be_visible()
        expect(page.get_by_text("What to do:")).to_be_visible()
        page.get_by_role("link", name="Quarantine").click()
        expect(page.get_by_text(page_store.QUARANTINE)).to_be_visible()
        expect(page.get_by_text("dicom.truncated")).to_be_visible()


@pytest.mark.parametrize(("size", "script"), EVERY_VIEW)
def test_switching_the_overlay_changes_the_picture(
    browser: Browser, address: str, stocked: Stocked, size: tuple[int, int], script: bool
) -> None:
    with opened(browser, size, script) as page:
        page.goto(f"{address}/study/{stocked.keys['draft']}")
        film = page.locator(".film")
        seen = {}
        for name in ("Image only", "Pneumothorax 91 %", "Pleural effusion 78 %"):
            page.get_by_text(name, exact=True).click()
            if name != "Image only":
                overlaid = page.locator(".layer img:visible")
                expect(overlaid).to_have_count(1)
                assert overlaid.bounding_box() == film.bounding_box()
            film.evaluate("one => one.scrollIntoView({block: 'center'})")
            seen[name] = pixels(film.screenshot())
        assert not orange(seen["Image only"]).any()
        width = seen["Image only"].shape[1]
        left_lung, right_lung = orange(seen["Pneumothorax 91 %"]), orange(seen["Pleural effusion 78 %"])
        assert left_lung.mean() > 0.02
        assert right_lung.mean() > 0.02
        assert not left_lung[:, : width // 2].any()  # the patient's left is on the right of the image
        assert not right_lung[:, width // 2 :].any()


def test_the_overlay_is_switched_by_keyboard(browser: Browser, address: str, stocked: Stocked) -> None:
    with opened(browser, PHONE, script=False) as page:
        page.goto(f"{address}/study/{stocked.keys['draft']}")
        radio = page.get_by_role("radio", name="Pneumothorax 91 %")
        radio.focus()
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("radio", name="Pleural effusion 78 %")).to_be_checked()
        expect(page.get_by_role("img", name="Evidence for pleural effusion")).to_be_visible()
        expect(page.get_by_role("img", name="Evidence for pneumothorax")).not_to_be_visible()


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_nothing_overflows_and_everything_can_be_read_and_touched(
    browser: Browser, address: str, size: tuple[int, int]
) -> None:
    with opened(browser, size) as page:
        for path in PATHS:
            page.goto(address + path)
            page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            assert page.evaluate(SMALL_TEXT) == [], path
            assert page.evaluate(LOW_CONTRAST) == [], path
            assert page.evaluate(SMALL_TARGETS) == [], path


def test_headings_language_names_and_landmarks(browser: Browser, address: str) -> None:
    with opened(browser, PHONE) as page:
        for path in PATHS:
            page.goto(address + path)
            assert page.locator("html").get_attribute("lang") == "en"
            levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(one => Number(one.tagName[1]))")
            assert levels[0] == 1
            assert levels.count(1) == 1, path
            assert all(after <= before + 1 for before, after in pairwise(levels)), path
            assert page.eval_on_selector_all("img", "all => all.every(one => one.alt)")
            assert page.eval_on_selector_all("input", "all => all.every(one => one.labels.length)")
            assert page.eval_on_selector_all("table", "all => all.every(one => one.querySelector('th[scope]'))")
            assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map(one => one.id)).size") == len(
                page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
            )
            expect(page.get_by_role("main")).to_have_count(1)
            expect(page.get_by_role("navigation", name="Main")).to_have_count(1)


def test_print_repeats_the_draft_mark_and_hides_controls(browser: Browser, address: str, stocked: Stocked) -> None:
    with opened(browser, DESK) as page:
        page.goto(f"{address}/study/{stocked.keys['draft']}")
        expect(page.locator(".print-mark")).not_to_be_visible()
        page.emulate_media(media="print")
        expect(page.locator(".print-mark")).to_be_visible()
        expect(page.locator(".print-mark")).to_contain_text(DRAFT_NAME_SHOWN)
        assert page.locator(".print-mark").evaluate("one => getComputedStyle(one).position") == "fixed"  # on every page
        expect(page.locator(".chip").first).not_to_be_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.pdf(format="A4").count(b"/Type /Page\n") >= 2


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stocked]:
    """A store that a test may change."""
    built = stock(tmp_path, port())
    yield built
    built.store.close()


def change(built: Stocked, word: str, number: int) -> None:
    built.store.add_instance(page_store.facts("NEW^ARRIVAL", word), page_store.instance(word, number))


def test_the_list_and_a_study_being_read_follow_by_themselves(browser: Browser, own: Stocked) -> None:
    with serving(own.board) as url, opened(browser, PHONE) as page, opened(browser, DESK) as study:
        page.goto(url)
        study.goto(f"{url}/study/{own.keys['queued']}")
        for one in (page, study):
            one.evaluate("window.unbroken = true")
        expect(study.get_by_text("Waiting to be read")).to_be_visible()
        page.get_by_role("link", name=DRAFT_NAME_SHOWN).focus()
        change(own, "new", 0)
        page_store.finish(own.store, own.board.data_dir, own.keys["queued"], page_store.draft_report())
        expect(page.get_by_role("link", name="NEW, ARRIVAL")).to_be_visible()
        expect(page.get_by_role("link", name=DRAFT_NAME_SHOWN)).to_be_focused()
        expect(study.get_by_text(CRITICAL)).to_be_visible()
        for one in (page, study):
            assert one.evaluate("window.unbroken")  # no reload


def test_an_opened_draft_says_that_it_is_out_of_date(browser: Browser, own: Stocked) -> None:
    with serving(own.board) as url, opened(browser, PHONE) as page:
        page.goto(f"{url}/study/{own.keys['draft']}")
        notice = page.get_by_text("This study has changed since you opened it.")
        expect(notice).not_to_be_visible()
        own.store.add_instance(page_store.facts(NAMES[0], "draft"), page_store.instance("draft", 8))
        expect(notice).to_be_visible()
        expect(page.get_by_text(CRITICAL)).to_be_visible()
        page.get_by_role("link", name="Show the new state").click()
        expect(page.get_by_text("1 earlier draft was replaced")).to_be_visible()


def test_a_lost_box_is_told(browser: Browser, own: Stocked) -> None:
    context = browser.new_context()
    page = context.new_page()
    with serving(own.board) as url:
        page.goto(url)
        expect(page.get_by_text("No connection to the box")).not_to_be_visible()
    expect(page.get_by_text("No connection to the box")).to_be_visible()
    context.close()


def test_screenshots(browser: Browser, address: str, tmp_path: Path, stocked: Stocked) -> None:
    """Pictures of the main pages for a person to look at, in the folder $RADBOX_SCREENSHOTS or a temporary one."""
    folder = Path(os.environ.get("RADBOX_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def save(page: Page, name: str) -> None:
        page.screenshot(full_page=True, path=folder / name)

    for size, width in ((PHONE, "phone"), (DESK, "desk")):
        with opened(browser, size) as page:
            for name, path in (("list", "/"), ("quarantine", "/quarantine"), ("about", "/about")):
                page.goto(address + path)
                save(page, f"{width}-{name}.png")
            for name, key in stocked.keys.items():
                page.goto(f"{address}/study/{key}")
                save(page, f"{width}-{name}.png")
    assert all(pixels(path.read_bytes()).std() > 5 for path in folder.glob("*.png"))
    assert len(list(folder.glob("*.png"))) >= 20
