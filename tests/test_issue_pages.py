"""The pages of what needs attention over HTTP: what they say, what a person may ask for, and who may not."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from string import Formatter
from typing import Any

import httpx
import pytest

from edge.board import Board
from edge.care.issues.checks import CHECKS
from edge.care.issues.fixes import FIXES, NOTED
from edge.care.issues.habits import DAY_S
from edge.desk import issue_view, issue_words
from edge.desk.views import Now
from edge.issue_titles import TITLES
from edge.service_limits import SILENT_AFTER_S
from edge.store import Store, boot_id, open_store
from edge.store_rows import IssueFacts, IssueRow
from tests.issue_box import TROUBLES, fact, healthy, lasting
from tests.page_store import page_board, port, serving, text_of

pytestmark = pytest.mark.requirement("KEEP-10")
AGE_S = 90 * DAY_S
NOW = Now(5_000.0, "this-boot", 0.0)
JARGON = re.compile(
    r"\b(SQLite|backend|daemon|kernel|delegate|firmware|boot|MQTT|broker|DICOM|AE title|association|NPU|TPU|GPU|CPU|"
    r"DNS|IP|systemd|watchdog|accelerator|modality|quarantine|throttl\w*|undervoltage|database|process)\b",
    re.I,
)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    return page_board(tmp_path_factory.mktemp("issues"), port())


@pytest.fixture(scope="module")
def client(board: Board) -> Iterator[httpx.Client]:
    with serving(board) as address, httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture
def store(board: Board) -> Iterator[Store]:
    """Nothing is wrong and nobody has asked for anything."""
    with closing(open_store(board.data_dir)) as opened:
        opened.tick_age()
        opened.set_issues([])
        for row in opened.asked():
            opened.answer(row.request_key, "fix.done", "")
        yield opened


FULL = IssueFacts("issue.disk-full", "", "critical", {"free_bytes": 300_000_000, "used_percent": 99})
RESTARTED = IssueFacts("issue.watchdog-reset", "", "info", {"reason": "panic"})
WORN = IssueFacts("issue.wear", "<b>mmc</b>", "warning", {"worn_percent": 85})
UNSET = IssueFacts("issue.clock-unset", "", "warning")


def page(client: httpx.Client, path: str = "/issues") -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return answer.text


def forms(html: str) -> dict[tuple[str, str], dict[str, str]]:
    """(code, action) -> fields of every form on a page."""
    found = [
        {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)}
        for form in re.findall(r'action="/issues/fix">(.*?)</form>', html, re.S)
    ]
    return {(one["code"], one["action"]): one for one in found}


def press(client: httpx.Client, fields: dict[str, str], **headers: str) -> httpx.Response:
    """What a browser sends when a person presses the button."""
    origin = f"http://{client.base_url.host}:{client.base_url.port}"
    return client.post("/issues/fix", data=fields, headers={"Origin": origin, **headers})


def row_of(one: IssueFacts, **more: Any) -> IssueRow:
    since = (4_000.0, "this-boot", AGE_S - 1_000, 0.0, 0.0)
    return dataclasses.replace(IssueRow(one.code, one.subject, one.severity, dict(one.values), *since), **more)


# --- words ---


def every_issue() -> list[IssueFacts]:
    """One of each code, and of each severity of it that a check can give."""
    more = [
        healthy(**fact(hardware={"undervoltage_since_boot": True})),
        healthy(**fact(hardware={"wear_percent": {"nvme0": 104.0}})),
        healthy(**fact(hardware={"throttled": True})),
        healthy(**fact(grabber={"state": "geometry"})),
        *(healthy(**fact(boot={"reason": reason})) for reason in ("panic", "crash")),
    ]
    return [one for seen in (*(healthy(**changed) for changed, _ in TROUBLES.values()), *more) for one in lasting(seen)]


@pytest.mark.parametrize("one", every_issue(), ids=lambda one: f"{one.code}:{one.severity}")
def test_every_issue_has_words_that_a_nurse_can_read(one: IssueFacts) -> None:
    view = issue_view.issue_view(row_of(one), NOW, AGE_S)
    for text in (view.title, view.text, view.todo):
        assert text
        assert text[0].isupper() or text[0].isdigit()
        assert not JARGON.search(text), text
        assert "{" not in text
        assert "not known" not in text
    assert view.text.endswith(".")
    assert view.todo.endswith(".")
    assert view.since == "16 min ago"


def test_the_words_are_those_of_the_table_of_checks() -> None:
    codes = {check.code for check in CHECKS}
    assert {key.split(":")[0] for key in issue_words.WORDS} == codes == set(TITLES)
    names = {name for words in issue_words.WORDS.values() for _, name, _, _ in Formatter().parse(words.text) if name}
    assert names <= set(issue_view._READERS) | {"subject"}
    assert set(issue_words.SERVICES) == set(SILENT_AFTER_S) - {"care"}


def test_every_fix_that_care_can_do_has_words_and_is_offered() -> None:
    assert set(issue_words.FIXES) == set(FIXES)
    offered = {action for words in issue_words.WORDS.values() for action in words.fixes}
    assert offered | {issue_words.PUT_OFF} == set(FIXES)
    for fix in issue_words.FIXES.values():
        for sentence in (fix.button, fix.doing, fix.done, fix.nothing):
            assert sentence
            assert not JARGON.search(sentence)
    ways = ("done", "nothing", "refused", "failed", "too-late")
    outcomes = [issue_words.outcome(action, f"fix.{how}") for action in FIXES for how in ways]
    assert issue_words.OUTCOME_ELSE not in outcomes
    assert all(sentence.endswith(".") for sentence in outcomes)
    assert {code for code, words in issue_words.WORDS.items() if "issue.seen" in words.fixes} == set(NOTED)


def test_an_issue_of_another_version_still_has_a_page() -> None:
    strange = IssueFacts("issue.of-a-later-version", "x", "warning", {"unheard": [1]})
    view = issue_view.issue_view(row_of(strange), NOW, AGE_S)
    assert (view.title, view.which) == ("The box needs attention", "x")
    bare = issue_view.issue_view(row_of(IssueFacts("issue.disk-full", "", "critical")), NOW, AGE_S)
    assert "not known of the storage are used" in bare.text


def test_since_when_over_a_restart_counts_running_time() -> None:
    view = issue_view.issue_view(row_of(FULL, boot_id="earlier"), NOW, AGE_S)
    assert view.since == "16 min ago, not counting when the box was off"


def test_the_banner_has_the_worst_and_how_many() -> None:
    rows = [row_of(FULL), row_of(WORN), row_of(RESTARTED)]
    assert issue_view.banner(rows, AGE_S) == issue_view.Banner(
        "stop", "2 things need attention. Storage is full: new images are turned away"
    )
    assert issue_view.banner(rows[1:], AGE_S) == issue_view.Banner("warn", "The storage is wearing out")
    assert issue_view.banner(rows[2:], AGE_S) is None, "news alone are no reason"
    later = [row_of(one, put_off_until_age_s=AGE_S + 1) for one in (FULL, WORN)]
    banner = issue_view.banner(later, AGE_S)
    assert banner is not None
    assert banner.text.startswith("Storage is full"), "what is critical cannot be put off"


# --- pages ---


def test_a_healthy_box_says_so(client: httpx.Client, store: Store) -> None:
    html = page(client)
    assert "Nothing needs attention" in html
    assert "<form" not in html
    assert 'id="to-issues"' not in page(client, "/")
    assert 'href="/issues"' in page(client, "/about")


def test_the_list_has_what_is_wrong_and_what_to_do(client: httpx.Client, store: Store) -> None:
    store.set_issues([WORN, FULL, RESTARTED])
    html = page(client)
    text = text_of(html)
    assert text.index("Storage is full") < text.index("The storage is wearing out") < text.index("restarted by itself")
    assert "99 % of the storage are used, 0.3 GB are free." in text
    assert "It restarted because its system had failed." in text
    assert "What to do: Press a button below to make room." in text
    assert "First seen: just now issue.disk-full" in text
    assert "<b>mmc</b>" not in html
    assert "&lt;b&gt;mmc&lt;/b&gt;" in html
    assert "2 things need attention. Storage is full" in text_of(page(client, "/"))
    assert html.count('class="kind"') == 3


def test_what_was_put_off_goes_to_the_end_until_its_time(client: httpx.Client, store: Store) -> None:
    store.set_issues([WORN, RESTARTED])
    store.put_off_issue(WORN.code, WORN.subject, DAY_S)
    html = page(client)
    first, last = html.split("Put off until later")
    assert "restarted by itself" in first
    assert "wearing out" in last
    assert (WORN.code, "issue.put-off") not in forms(html)
    assert 'id="to-issues"' not in page(client, "/")
    store.put_off_issue(WORN.code, WORN.subject, 0.0)
    assert "Put off until later" not in page(client)
    assert 'id="to-issues"' in page(client, "/")


def test_live_answers_304_until_something_changes(client: httpx.Client, store: Store) -> None:
    tag = client.get("/issues").headers["etag"]
    assert client.get("/issues", headers={"If-None-Match": tag}).status_code == 304
    store.set_issues([FULL])
    assert client.get("/issues", headers={"If-None-Match": tag}).status_code == 200


def test_the_page_stays_small_and_a_browser_is_asked_to_say_where_a_form_was(
    client: httpx.Client, store: Store
) -> None:
    store.set_issues([IssueFacts(code, "", "warning") for code in TITLES])
    html = page(client)
    assert len(html) < 60_000
    assert '<meta name="referrer" content="same-origin">' in html


# --- a fix ---


def test_one_tap_asks_care_and_shows_what_became_of_it(client: httpx.Client, store: Store) -> None:
    store.set_issues([FULL])
    answer = press(client, forms(page(client))["issue.disk-full", "storage.clean"])
    assert answer.status_code == 303
    (wish,) = store.asked()
    assert (wish.action, wish.values) == ("storage.clean", {"code": "issue.disk-full", "subject": ""})
    place = answer.headers["location"]
    assert place == f"/issues/wish/{wish.request_key}"
    assert "Being done: Removing what another machine keeps" in text_of(page(client, place))
    store.answer(wish.request_key, "fix.done", "Made room. Removed: 3.")
    text = text_of(page(client, place))
    assert "There is more room now. Made room. Removed: 3." in text
    assert "Being done" not in text


def test_pressing_twice_asks_once(client: httpx.Client, store: Store) -> None:
    store.set_issues([FULL])
    fields = forms(page(client))["issue.disk-full", "storage.clean"]
    assert press(client, fields).headers["location"] == press(client, fields).headers["location"]
    assert len(store.asked()) == 1


def test_what_deletes_asks_first(client: httpx.Client, store: Store) -> None:
    store.set_issues([FULL])
    html = page(client)
    assert (FULL.code, "storage.quarantine-clear") not in forms(html)
    (link,) = re.findall(r'href="(/issues/ask\?[^"]+)"', html)
    question = page(client, unescape(link))
    assert "Delete unreadable files?" in text_of(question)
    assert "No study is touched." in text_of(question)
    assert store.asked() == [], "asking does nothing"
    assert press(client, forms(question)[FULL.code, "storage.quarantine-clear"]).status_code == 303
    assert [row.action for row in store.asked()] == ["storage.quarantine-clear"]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "action=storage.clean&code=issue.disk-full&subject=",
        "action=storage.quarantine-clear&code=issue.wear&subject=",
        "action=storage.quarantine-clear&code=issue.disk-full&subject=x",
        "action=nonsense&code=issue.disk-full",
    ],
)
def test_a_question_that_nobody_asks_is_no_page(client: httpx.Client, store: Store, query: str) -> None:
    store.set_issues([FULL])
    assert client.get(f"/issues/ask?{query}").status_code == 404


def test_a_wish_that_nobody_had_is_no_page(client: httpx.Client, store: Store) -> None:
    key = store.ask("something.else", {"secret": "value"})
    for path in (f"/issues/wish/{key}", "/issues/wish/999999", f"/issues/wish/{2**70}", "/issues/wish/x"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("typed", "unix_s"),
    [
        ({"phone_unix_s": "1900000000.5"}, 1_900_000_000.5),
        ({"phone_unix_s": "", "date": "2030-03-17", "time": "17:46"}, "typed"),
        ({"phone_unix_s": "nonsense", "date": "2030-03-17", "time": "17:46:40"}, "typed"),
        ({"phone_unix_s": ""}, None),
        ({"phone_unix_s": "", "date": "17.3.2030", "time": "5 pm"}, None),
        *(({"phone_unix_s": number}, None) for number in ("nan", "inf", "-inf", "1e400")),
    ],
)
def test_the_phones_time_is_passed_on(client: httpx.Client, store: Store, typed: dict[str, str], unix_s: Any) -> None:
    store.set_issues([UNSET])
    html = page(client)
    fields = forms(html)["issue.clock-unset", "clock.use-phone"]
    assert fields["phone_unix_s"] == "", "filled by the phone"
    assert '<input type="date"' in html
    assert press(client, {**fields, **typed}).status_code == 303
    (wish,) = store.asked()
    if unix_s == "typed":
        unix_s = time.mktime((2030, 3, 17, 17, 46, 0, 0, 0, -1))
    assert wish.values.get("unix_s") == unix_s


def test_a_wish_that_takes_long_says_so(store: Store) -> None:
    row = store.request(store.ask("storage.clean", {}))
    assert row is not None
    soon = Now(row.monotonic_s + 5, boot_id(), 0.0)
    assert not issue_view.wish_view(row, soon).slow
    assert issue_view.wish_view(row, dataclasses.replace(soon, monotonic_s=row.monotonic_s + 60)).slow
    assert issue_view.wish_view(row, dataclasses.replace(soon, boot_id="another")).slow


# --- who may not ---


@pytest.mark.requirement("SEC-05")
def test_only_what_is_offered_for_an_open_issue_is_passed_on(client: httpx.Client, store: Store) -> None:
    store.set_issues([FULL, WORN])
    fields = forms(page(client))["issue.disk-full", "storage.clean"]
    for changed in (
        {"action": "worker.try-accelerator"},
        {"action": "issue.put-off"},  # critical
        {"action": "box.restart-service"},
        {"action": ""},
        {"code": "issue.too-hot"},
        {"code": "issue.wear"},
        {"subject": "x"},
    ):
        answer = press(client, {**fields, **changed})
        assert answer.status_code == 409
        assert "issue.changed-meanwhile" in answer.text
    store.set_issues([])
    assert press(client, fields).status_code == 409
    assert store.asked() == []


@pytest.mark.requirement("SEC-05")
def test_only_a_press_on_the_boxs_own_page_counts(client: httpx.Client, store: Store) -> None:
    store.set_issues([FULL])
    own = f"http://{client.base_url.host}:{client.base_url.port}"
    fields = forms(page(client))["issue.disk-full", "storage.clean"]
    refused: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, fields),
        ({"Origin": "null"}, fields),
        ({"Origin": "http://evil.example"}, fields),
        ({"Origin": own, "Sec-Fetch-Site": "cross-site"}, fields),
        ({"Origin": own}, {**fields, "token": "x" * 32}),
        ({"Origin": own}, {**fields, "token": "é"}),
        ({"Origin": own}, {name: value for name, value in fields.items() if name != "token"}),
    ]
    for headers, sent in refused:
        answer = client.post("/issues/fix", data=sent, headers=headers)
        assert answer.status_code == 403, headers
    for method in ("GET", "PUT", "DELETE"):
        assert client.request(method, "/issues/fix").status_code == 405
    assert store.asked() == []
    assert press(client, fields).status_code == 303
