"""The page of the model in a real browser: a person decides, another site does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from edge import trust
from edge.slots import (
    FACTORY,
    FACTORY_STATE,
    Outcome,
    Proposal,
    Slots,
    SlotState,
    activate,
    crashed,
    good_case,
    propose,
)
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
from tests.page_store import Stocked, port, serving, stock
from tests.slot_store import add_slot
from tests.update_box import VERSION
from tests.update_stick import make_organisation

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One headless Chromium."""
    with chromium() as launched:
        yield launched


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stocked]:
    """A store that a test may change."""
    built = stock(tmp_path, port())
    yield built
    built.store.close()


@pytest.fixture
def model(own: Stocked, monkeypatch: pytest.MonkeyPatch) -> tuple[Slots, str]:
    """The slots of a box, and a signed model that an update left there."""
    office = make_organisation(own.board.data_dir)
    monkeypatch.setattr(trust, "factory_root", lambda: office.root)
    slot = add_slot(own.board, office, 3, words="Sees small effusions better.")
    return Slots(own.board.data_dir, own.board.worker.bundle), slot


def constantly(state: SlotState) -> Callable[[SlotState], SlotState]:
    return lambda _state: state


def waits(slots: Slots, slot: str) -> None:
    slots.change(lambda _state: propose(FACTORY_STATE, Proposal(slot, "0.3", 100, 7)))


@pytest.mark.parametrize(("size", "script"), EVERY_VIEW)
def test_a_person_decides_on_a_new_model(
    browser: Browser, own: Stocked, model: tuple[Slots, str], size: tuple[int, int], script: bool
) -> None:
    slots, slot = model
    waits(slots, slot)
    with serving(own.board) as url, opened(browser, size, script) as page:
        page.goto(url)
        page.get_by_role("link", name="A new model waits for your decision").click()
        expect(page.get_by_text("Model 0.3 would change 7 of 100 of your recent drafts.")).to_be_visible()
        page.get_by_role("button", name="Use it").press("Enter")
        expect(page.get_by_text("On trial: 0 of 20 good cases")).to_be_visible()
        assert slots.read().active == slot
        page.get_by_role("link", name=f"Go back to chest-xray-pyramid {VERSION}").click()
        page.get_by_role("link", name="No, stay").click()
        page.get_by_role("link", name=f"Go back to chest-xray-pyramid {VERSION}").click()
        page.get_by_role("button", name="Yes, go back").click()
        expect(page.get_by_text("The box went back to the earlier model", exact=True)).to_be_visible()
        assert slots.read().active == FACTORY
        page.get_by_role("button", name="Not now").click()
        expect(page.get_by_text("A new model was not taken")).to_be_visible()
        assert slots.read().proposal is None


def test_a_page_of_another_site_decides_nothing(browser: Browser, own: Stocked, model: tuple[Slots, str]) -> None:
    slots, slot = model
    waits(slots, slot)
    before = slots.read()
    with serving(own.board) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{url}/model")
        fields = "".join(one.evaluate("one => one.outerHTML") for one in page.locator("form input").all()[:2])
        form = f'<form method="post" action="{url}/model/use">{fields}<button>Win a prize</button></form>'
        page.route("http://prizes.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
        page.goto("http://prizes.example/")
        page.get_by_role("button").click()
        expect(page.get_by_text("web.other-site")).to_be_visible()
        context.close()
    assert slots.read() == before


def test_the_model_page_follows_by_itself_and_keeps_the_focus(
    browser: Browser, own: Stocked, model: tuple[Slots, str]
) -> None:
    slots, slot = model
    waits(slots, slot)
    with serving(own.board) as url, opened(browser, PHONE) as page:
        page.goto(f"{url}/model")
        page.get_by_role("button", name="Not now").focus()
        own.store.set_service("update", "ok", "update.working", "Copying the new model.")
        expect(page.get_by_text("Copying the new model.")).to_be_visible()
        expect(page.get_by_role("button", name="Not now")).to_be_focused()


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_every_state_of_the_model_page_can_be_read_and_touched(
    browser: Browser, own: Stocked, model: tuple[Slots, str], size: tuple[int, int], tmp_path: Path
) -> None:
    slots, slot = model
    trial = activate(FACTORY_STATE, slot)
    for _ in range(12):
        trial = good_case(trial, 20)
    done = Outcome("update.committed", "Model chest 0.3 read 20 studies here without a fault and is now in use.")
    states = {
        "proposal": propose(FACTORY_STATE, Proposal(slot, "0.3", 100, 7)),
        "trial": replace(trial, last=Outcome("update.installed", "The new model is in use, on trial.")),
        "failed": crashed(replace(trial, previous="b" * 64), 1),
        "committed": replace(trial, trial=None, last=done),
        "refused": replace(FACTORY_STATE, last=Outcome("update.wrong-key", "The update was not signed by anyone.")),
    }
    folder = Path(os.environ.get("RADBOX_SCREENSHOTS", tmp_path))
    with serving(own.board) as url, opened(browser, size) as page:
        for name, state in states.items():
            slots.change(constantly(state))
            for path in ("/model", "/model/back", "/"):
                page.goto(url + path)
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
                assert page.evaluate(SMALL_TEXT) == [], path
                assert page.evaluate(LOW_CONTRAST) == [], path
                assert page.evaluate(SMALL_TARGETS) == [], path
                shown = path.strip("/").replace("/", "-") or "list"
                page.screenshot(full_page=True, path=folder / f"{size[0]}-{shown}-{name}.png")
