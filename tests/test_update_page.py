"""The page of the model over HTTP: what it says, what a person may decide there, and who may not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest

from edge import durable, trust
from edge.board import Board
from edge.errors import StorageFullError
from edge.slots import (
    CRASHED,
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
    revoke,
    slow_case,
)
from edge.store import Store, open_store
from tests.page_store import page_board, port, serving, text_of
from tests.slot_store import add_slot
from tests.update_box import VERSION
from tests.update_stick import make_organisation

Change = Callable[[SlotState], SlotState]
ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    return page_board(tmp_path_factory.mktemp("model"), port())


@pytest.fixture(scope="module")
def new(board: Board) -> Iterator[str]:
    """A model that an update left in its slot; the box is built with the root of those who signed it."""
    office = make_organisation(board.data_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "factory_root", lambda: office.root)
        yield add_slot(board, office, 3, words=f"Sees small things better. {ATTACK}")


@pytest.fixture(scope="module")
def client(board: Board, new: str) -> Iterator[httpx.Client]:
    with serving(board) as address, httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture
def store(board: Board) -> Iterator[Store]:
    with closing(open_store(board.data_dir)) as opened:
        yield opened


@pytest.fixture
def slots(board: Board) -> Slots:
    """Nothing ever happened to this box, but the new model's slot is there."""
    slots = Slots(board.data_dir, board.worker.bundle)
    slots.change(lambda _state: FACTORY_STATE)
    (board.data_dir / "update" / "seen").unlink(missing_ok=True)
    return slots


def waiting(slot: str) -> Change:
    return lambda state: propose(state, Proposal(slot, "0.3", 100, 7))


def page(client: httpx.Client, path: str = "/model") -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.text


def fields(html: str, action: str) -> dict[str, str]:
    """The hidden fields of the form of one button."""
    form = re.search(rf'action="/model/{action}">(.*?)</form>', html, re.S)
    assert form, f"no button {action}"
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', form[1]))


def press(client: httpx.Client, action: str, html: str, **headers: str) -> httpx.Response:
    """What a browser sends when a person presses the button."""
    base = f"http://{client.base_url.host}:{client.base_url.port}"
    return client.post(f"/model/{action}", data=fields(html, action), headers={"Origin": base, **headers})


def codes(store: Store) -> list[str]:
    return [event.code for event in store.events()]


# --- what it says ---


def test_a_box_as_it_was_delivered(client: httpx.Client, slots: Slots) -> None:
    html = page(client)
    text = text_of(html)
    assert f"Model chest-xray-pyramid {VERSION} Where it came from Delivered with this box" in text
    for absent in ("Go back", "On trial", "Last update", "Use it", "<form"):
        assert absent not in html
    assert "/model" not in page(client, "/")
    assert 'href="/model"' in page(client, "/about")


def test_a_model_on_trial(client: httpx.Client, slots: Slots, new: str) -> None:
    slots.change(lambda state: activate(state, new))
    for _ in range(12):
        slots.change(lambda state: good_case(state, 20))
    slots.change(lambda state: slow_case(state, 3))
    html = page(client)
    text = text_of(html)
    assert "Model chest 0.3 Where it came from Installed by an update" in text
    assert "On trial: 12 of 20 good cases" in text
    assert "stops the reader 2 times or is too slow 3 times" in text
    assert "So far: stopped 0 times, too slow 1 time. A power cut never counts." in text
    assert "Sees small things better. &lt;script&gt;" in html
    assert ATTACK not in html
    assert f"Go back to chest-xray-pyramid {VERSION}" in text
    assert "A new model is on trial: 12 of 20 good cases" in text_of(page(client, "/"))


def test_a_proposal(client: httpx.Client, slots: Slots, new: str) -> None:
    slots.change(waiting(new))
    html = page(client)
    assert "Model 0.3 would change 7 of 100 of your recent drafts." in text_of(html)
    assert (">Use it<" in html, ">Not now<" in html, ATTACK in html) == (True, True, False)
    assert "A new model waits for your decision" in text_of(page(client, "/"))


def test_an_update_at_work(client: httpx.Client, slots: Slots, store: Store) -> None:
    store.set_service("update", "ok", "update.working", "Testing the new model on this box.")
    for path in ("/model", "/"):
        assert "Testing the new model on this box." in text_of(page(client, path))
    store.set_service("update", "ok", "update.installed", "A new model is in use.")
    assert "at work" not in page(client)


def test_a_damaged_state_is_told(client: httpx.Client, slots: Slots, board: Board) -> None:
    (board.data_dir / "update" / "state.json").write_text("{")
    text = text_of(page(client))
    assert "The box runs the model it was delivered with" in text
    assert "What to do: Put the newest stick in again." in text


def test_a_model_whose_slot_is_lost_still_has_a_page(client: httpx.Client, slots: Slots) -> None:
    slots.change(lambda state: activate(state, "a" * 64))
    assert "Model aaaaaaaaaaaa Where" in text_of(page(client))


def test_live_answers_304_until_something_changes(client: httpx.Client, slots: Slots, new: str) -> None:
    tag = client.get("/model").headers["etag"]
    assert client.get("/model", headers={"If-None-Match": tag}).status_code == 304
    slots.change(lambda state: activate(state, new))
    assert client.get("/model", headers={"If-None-Match": tag}).status_code == 200


# --- what a person may decide ---


def test_use_it(client: httpx.Client, slots: Slots, store: Store, new: str) -> None:
    slots.change(waiting(new))
    answer = press(client, "use", page(client))
    assert (answer.status_code, answer.headers["location"]) == (303, "/model")
    state = slots.read()
    assert (state.active, state.previous, state.proposal, state.versions) == (new, FACTORY, None, {"chest": 3})
    assert state.trial is not None
    assert codes(store)[0] == "update.installed"
    assert "On trial: 0 of 20 good cases" in text_of(page(client))


def test_not_now(client: httpx.Client, slots: Slots, store: Store, new: str) -> None:
    slots.change(waiting(new))
    assert press(client, "later", page(client)).status_code == 303
    assert (slots.read().active, slots.read().proposal) == (FACTORY, None)
    assert codes(store)[0] == "update.declined"
    assert "A new model was not taken" in text_of(page(client))


def test_what_waits_is_verified_again_before_it_runs(
    client: httpx.Client, slots: Slots, store: Store, new: str, board: Board
) -> None:
    slots.change(waiting(new))
    html = page(client)
    file = board.data_dir / "slots" / new / "encoder.tflite"
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert press(client, "use", html).status_code == 303
    file.write_bytes(kept)
    assert (slots.read().active, slots.read().proposal) == (FACTORY, None)
    assert codes(store)[0] == "bundle.hash"
    assert "The update was not taken The model's file 'encoder.tflite' is damaged." in text_of(page(client))


def test_going_back_asks_first(client: httpx.Client, slots: Slots, store: Store, new: str) -> None:
    slots.change(lambda state: good_case(activate(state, new), 1))
    assert f"Go back to chest-xray-pyramid {VERSION}" in text_of(page(client))
    question = page(client, "/model/back")
    assert f"Go back to chest-xray-pyramid {VERSION}?" in text_of(question)
    assert "instead of chest 0.3" in text_of(question)
    assert slots.read().active == new, "asking does nothing"
    assert press(client, "back", question).status_code == 303
    state = slots.read()
    assert (state.active, state.previous, state.trial, state.failed) == (FACTORY, new, None, ())
    assert codes(store)[0] == "update.rolled-back-person"
    assert "Go back to chest 0.3" in text_of(page(client)), "and forth again"


def test_a_model_on_trial_that_a_person_left_waits_for_a_yes(client: httpx.Client, slots: Slots, new: str) -> None:
    slots.change(lambda state: activate(state, new))
    assert press(client, "back", page(client, "/model/back")).status_code == 303
    text = text_of(page(client))
    assert "Model chest 0.3 is ready It was on trial here before. Its trial would begin again." in text
    assert press(client, "use", page(client)).status_code == 303
    assert slots.read().active == new


def test_the_box_does_not_go_back_to_what_was_withdrawn(
    client: httpx.Client, slots: Slots, store: Store, new: str
) -> None:
    slots.change(lambda state: dataclasses.replace(state, previous=new))
    question = page(client, "/model/back")
    slots.change(lambda state: dataclasses.replace(revoke(state, [new]), previous=new))
    assert press(client, "back", question).status_code == 303
    assert slots.read().active == FACTORY
    assert codes(store)[0] == "update.rollback-forbidden"
    assert "The box did not go back" in text_of(page(client))
    question = page(client, "/model/back")
    assert "was withdrawn by those who made it" in text_of(question)
    assert "<form" not in question


def test_nobody_decides_on_a_model_that_was_not_shown(
    client: httpx.Client, slots: Slots, store: Store, new: str
) -> None:
    slots.change(waiting(new))
    html = page(client)
    slots.change(waiting("b" * 64))
    before, told = slots.read(), codes(store)
    for action in ("use", "later"):
        answer = press(client, action, html)
        assert answer.status_code == 409
        assert "update.changed-meanwhile" in answer.text
    slots.change(lambda state: dataclasses.replace(state, proposal=None))
    assert press(client, "use", html).status_code == 409
    slots.change(lambda _state: activate(FACTORY_STATE, new))
    question = page(client, "/model/back")
    slots.change(lambda _state: dataclasses.replace(before, proposal=None, previous=new))
    assert press(client, "back", question).status_code == 409
    assert codes(store) == told


def test_a_failure_is_told_on_the_list_until_somebody_took_note(
    client: httpx.Client, slots: Slots, store: Store, new: str
) -> None:
    line = "A new model failed on this box; the earlier one reads again"

    def fail(slot: str) -> None:
        slots.change(lambda state: crashed(activate(state, slot), 1))
        assert slots.read().last == Outcome(CRASHED, slots.read().last.message)  # type: ignore[union-attr]

    fail(new)
    assert line in text_of(page(client, "/"))
    html = page(client)
    assert press(client, "seen", html).status_code == 303
    assert line not in text_of(page(client, "/"))
    assert codes(store)[0] == "update.seen"
    assert "Understood" not in page(client)
    assert "The new model failed; the earlier one reads again" in text_of(page(client))
    fail("c" * 64)
    assert line in text_of(page(client, "/"))
    assert press(client, "seen", html).status_code == 409, "seen was the failure before"


# --- who may not ---


@pytest.mark.requirement("SEC-05")
def test_only_a_press_on_the_boxs_own_page_counts(client: httpx.Client, slots: Slots, store: Store, new: str) -> None:
    slots.change(waiting(new))
    before, told = slots.read(), codes(store)
    data = fields(page(client), "use")
    own = f"http://{client.base_url.host}:{client.base_url.port}"
    form = {"Origin": own}
    refused: list[tuple[dict[str, str], Any]] = [
        ({}, data),
        ({"Origin": "null"}, data),
        ({"Origin": "http://evil.example"}, data),
        ({"Origin": f"{own}0"}, data),
        ({"Origin": f"{own}.evil.example"}, data),
        ({"Origin": f"ftp://{client.base_url.host}:{client.base_url.port}"}, data),
        ({**form, "Sec-Fetch-Site": "cross-site"}, data),
        ({**form, "Sec-Fetch-Site": "same-site"}, data),
        ({**form, "Sec-Fetch-Site": "none"}, data),
        (form, {**data, "token": "x" * 32}),
        (form, {"slot": new}),
        (form, {**data, "more": "x" * 5000}),
        (form, {**data, **{f"field{n}": "x" for n in range(20)}}),
    ]
    for headers, sent in refused:
        answer = client.post("/model/use", data=sent, headers=headers)
        assert answer.status_code == 403, headers
        assert "web.other-site" in answer.text or "web.old-form" in answer.text
    for content_type in ("application/json", "text/plain", "multipart/form-data"):
        answer = client.post("/model/use", content=b"{}", headers={**form, "Content-Type": content_type})
        assert answer.status_code == 403
    assert client.post("/model/use", content=b"\xff=1", headers={**form, "Content-Type": FORM}).status_code == 403
    for action in ("use", "later", "seen"):
        for method in ("GET", "PUT", "DELETE"):
            assert client.request(method, f"/model/{action}").status_code == 405
    host = {"Host": "evil.example", "Origin": "http://evil.example"}
    assert client.post("/model/use", data=data, headers=host).status_code == 421
    assert (slots.read(), codes(store)) == (before, told)
    assert press(client, "use", page(client), **{"Sec-Fetch-Site": "same-origin"}).status_code == 303


FORM = "application/x-www-form-urlencoded"


@pytest.mark.requirement("SEC-05")
def test_another_process_of_the_page_has_another_token(board: Board, slots: Slots, new: str) -> None:
    slots.change(waiting(new))
    tokens = set()
    for _ in range(2):
        own = dataclasses.replace(board, web=dataclasses.replace(board.web, port=port()))
        with serving(own) as address:
            tokens.add(fields(httpx.get(f"{address}/model").text, "use")["token"])
    assert len(tokens) == 2
    assert all(len(token) >= 32 for token in tokens)


def test_a_browser_is_asked_to_say_where_a_form_was(client: httpx.Client, slots: Slots) -> None:
    """The box's pages send no Referer; under that policy browsers would send "Origin: null" with a form."""
    for path in ("/model", "/model/back"):
        assert '<meta name="referrer" content="same-origin">' in page(client, path)


def test_a_full_disk_is_told_and_changes_nothing(
    client: httpx.Client, slots: Slots, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots.change(waiting(new))
    before, html = slots.read(), page(client)

    def full(*_: object) -> None:
        raise StorageFullError("expected room for a file, got: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_file", full)
        answer = press(client, "use", html)
    assert answer.status_code == 503
    assert "storage.full" in answer.text
    assert slots.read() == before


def test_two_presses_at_once_count_once(client: httpx.Client, slots: Slots, new: str) -> None:
    slots.change(waiting(new))
    html = page(client)
    with ThreadPoolExecutor(4) as pool:
        answers = [one.status_code for one in pool.map(lambda _: press(client, "use", html), range(4))]
    assert sorted(answers) == [303, 409, 409, 409]
    assert slots.read().active == new
