"""The page over HTTP: a real store, a real uvicorn, a real client."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from edge.desk import views, words
from edge.errors import StoreError
from edge.store import Store, open_store
from tests import page_store
from tests.page_store import NAMES, Stocked, fill, port, serving, stock, text_of

PAGES = ("/", "/live", "/quarantine", "/about", "/nowhere", "/study/1", "/study/2", "/study/3", "/study/4", "/study/7")


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stocked]:
    """A store that no test of this module changes."""
    built = stock(tmp_path_factory.mktemp("page"), port())
    yield built
    built.store.close()


@pytest.fixture(scope="module")
def page(stocked: Stocked) -> Iterator[httpx.Client]:
    """A client of the page over `stocked`."""
    with serving(stocked.board) as address, httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Stocked, httpx.Client]]:
    """A store and its page that a test may change."""
    built = stock(tmp_path, port())
    with serving(built.board) as address, httpx.Client(base_url=address) as client:
        yield built, client
    built.store.close()


# --- what the pages say ---


def test_list_tells_every_state_in_plain_words(page: httpx.Client) -> None:
    text = text_of(page.get("/").text)
    for name in NAMES:
        assert words.person(name) in text
    for state in ("Receiving images", "Waiting to be read", "Being read", "Draft ready", "Not read", "Reading failed"):
        assert state in text
    assert "Critical Pneumothorax on the left, upper zone 91 %" in text
    assert "and 2 more findings" in text
    assert "No validated finding identified" in text
    assert page_store.REFUSAL in text
    assert page_store.FAILURE in text
    assert "1 image came again with different content" in text
    assert f"Reading works, but perhaps slower {page_store.SPARE}" in text
    assert "1 in quarantine" in text


def test_list_has_the_newest_study_first(page: httpx.Client) -> None:
    text = page.get("/").text
    order = [int(key) for key in re.findall(r'href="/study/(\d+)"', text)]
    assert order == [7, 6, 5, 4, 3, 2, 1]


def test_draft_page_shows_report_figures_and_where_it_comes_from(page: httpx.Client, stocked: Stocked) -> None:
    text = text_of(page.get(f"/study/{stocked.keys['draft']}").text)
    assert "DRAFT - NOT SIGNED" in text
    for heading in ("Impression", "Technique", "Findings", "Limits", "Lungs and Airways", "Pleura"):
        assert heading in text
    for sentence in page_store.told():
        assert sentence in text
    assert "Known to the model, not validated, not offered" in text
    assert "5d41402abc4b" in text
    assert "0.44" in text


def test_refused_page_says_why_and_what_to_do(page: httpx.Client, stocked: Stocked) -> None:
    text = text_of(page.get(f"/study/{stocked.keys['refused']}").text)
    assert f"Reason: {page_store.REFUSAL}" in text
    assert "What to do: Nothing is wrong if another examination was meant" in text
    assert "gate.not-a-chest-radiograph" in text
    assert "Draft report" not in text


def test_failed_page_says_why_and_what_to_do(page: httpx.Client, stocked: Stocked) -> None:
    text = text_of(page.get(f"/study/{stocked.keys['failed']}").text)
    assert f"Reason: {page_store.FAILURE}" in text
    assert "Have this study read by a person now" in text
    assert "There is no picture of this study to show" in text


def test_conflict_is_told_on_the_study(page: httpx.Client, stocked: Stocked) -> None:
    text = text_of(page.get(f"/study/{stocked.keys['receiving']}").text)
    assert "1 image came again with different content. Both copies are kept" in text


def test_quarantine_page_shows_reason_size_and_sender(page: httpx.Client) -> None:
    text = text_of(page.get("/quarantine").text)
    for part in (page_store.QUARANTINE, "dicom.truncated", "48.2 kB", "CR-ROOM-1", "just now", "abababababab"):
        assert part in text


def test_a_second_reading_says_that_a_draft_was_replaced(own: tuple[Stocked, httpx.Client]) -> None:
    built, client = own
    key = built.keys["clear"]
    built.store.add_instance(page_store.facts(NAMES[1], "clear"), page_store.instance("clear", 5))
    text = text_of(client.get(f"/study/{key}").text)
    assert "1 earlier draft was replaced because more images arrived." in text
    assert "Draft report" not in text


def test_a_report_that_cannot_be_read_is_told_and_breaks_nothing(own: tuple[Stocked, httpx.Client]) -> None:
    built, client = own
    key = built.keys["queued"]
    rendered = page_store.draw(built.board.data_dir, key, page_store.read(built.store, key))
    built.store.finish_draft(key, '{"schema_version": 99}', rendered, {})
    assert "The draft of this study cannot be shown" in client.get("/").text
    answer = client.get(f"/study/{key}")
    assert answer.status_code == 200
    assert "The draft of this study cannot be shown" in answer.text
    assert f"/study/{key}/image.png" in answer.text
    assert client.get(f"/study/{key}/report.txt").status_code == 404


def test_an_empty_box_says_how_to_send(tmp_path: Path) -> None:
    with serving(page_store.page_board(tmp_path, port())) as address:
        text = text_of(httpx.get(address).text)
    assert "No studies yet" in text
    assert "RADBOX" in text
    assert "11112" in text


def test_foreign_text_is_escaped(own: tuple[Stocked, httpx.Client]) -> None:
    built, client = own
    attack = "<script>alert(1)</script>"
    facts = replace(page_store.facts(attack, "attack"), patient_id='"><img src=x>', study_description=attack)
    built.store.add_instance(facts, replace(page_store.instance("attack", 0), calling_ae="<b>X</b>"))
    key = built.store.study_key(facts.study_instance_uid)
    for path in ("/", f"/study/{key}"):
        html = client.get(path).text
        assert "<script>alert" not in html
        assert "<img src=x>" not in html
        assert "<b>X</b>" not in html
        assert "&lt;script&gt;" in html


# --- pages of the list, and its weight ---


def test_pages_of_the_list_hold_every_study_once(tmp_path: Path) -> None:
    board = page_store.page_board(tmp_path, port())
    store = open_store(tmp_path)
    fill(store, 45)
    store.close()
    seen: list[str] = []
    with serving(board) as address:
        for number in (1, 2, 3):
            html = httpx.get(f"{address}/?page={number}").text
            seen += re.findall(r"PATIENT, NUMBER\d+", html)
            assert ('rel="next"' in html) == (number < 3)
            assert ('rel="prev"' in html) == (number > 1)
        for bad in ("0", "-1", "abc", "9" * 30, "1.5", ""):
            assert httpx.get(f"{address}/", params={"page": bad}).status_code == 404
    assert len(seen) == len(set(seen)) == 45


def test_first_view_weighs_at_most_50_kb(own: tuple[Stocked, httpx.Client]) -> None:
    built, client = own
    fill(built.store, 30)
    for path in ("/", f"/study/{built.keys['draft']}"):
        first = client.get(path)
        assets = re.findall(r'"(/static/[^"]+)"', first.text)
        assert len(assets) == 3
        assert len(first.content) + sum(len(client.get(asset).content) for asset in assets) <= 50_000


# --- live ---


def test_live_answers_304_until_something_changes(own: tuple[Stocked, httpx.Client]) -> None:
    built, client = own
    for path in ("/live", f"/study/{built.keys['clear']}"):
        tag = client.get(path).headers["etag"]
        assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
        word = "clear" if path != "/live" else "another"
        built.store.add_instance(page_store.facts(NAMES[1], word), page_store.instance(word, 7))
        again = client.get(path, headers={"If-None-Match": tag})
        assert again.status_code == 200
        assert again.headers["etag"] != tag


def test_a_sign_of_life_does_not_make_a_study_look_changed(own: tuple[Stocked, httpx.Client]) -> None:
    built, client = own
    for key in built.keys.values():
        tag = client.get(f"/study/{key}").headers["etag"]
        built.store.set_service("receive", "ok", "", "")
        assert client.get(f"/study/{key}", headers={"If-None-Match": tag}).status_code == 304


# --- files of a study ---


def picture(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    decoded = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    return decoded


@pytest.mark.requirement("READ-03")
def test_evidence_lies_where_the_map_says(page: httpx.Client, stocked: Stocked) -> None:
    key = stocked.keys["draft"]
    film = picture(page.get(f"/study/{key}/image.png"))
    for index, (x, y) in enumerate(((0.74, 0.25), (0.25, 0.78))):
        overlaid = picture(page.get(f"/study/{key}/evidence/{index}.png"))
        assert overlaid.shape == (*film.shape[:2], 4)
        alpha = overlaid[..., 3].astype(float)
        rows, columns = np.mgrid[0 : alpha.shape[0], 0 : alpha.shape[1]]
        centre = (
            (alpha * columns).sum() / alpha.sum() / alpha.shape[1],
            (alpha * rows).sum() / alpha.sum() / alpha.shape[0],
        )
        assert centre == pytest.approx((x, y), abs=0.02)
        assert alpha.max() < 200
        assert (alpha == 0).mean() > 0.7


def test_report_as_text_and_as_json(page: httpx.Client, stocked: Stocked) -> None:
    text = page.get(f"/study/{stocked.keys['draft']}/report.txt")
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text.startswith("DRAFT - NOT SIGNED")
    report = page.get(f"/study/{stocked.keys['draft']}/report.json").json()
    assert report["statements"][0]["finding"] == "pneumothorax"


def test_what_is_not_there_is_404(page: httpx.Client, stocked: Stocked) -> None:
    draft, queued = stocked.keys["draft"], stocked.keys["queued"]
    for path in (
        "/nowhere",
        "/study/999",
        "/study/abc",
        "/study/-1",
        f"/study/{2**63}",
        f"/study/{'9' * 400}",
        f"/study/{draft}/evidence/3.png",
        f"/study/{draft}/evidence/-1.png",
        f"/study/{queued}/image.png",
        f"/study/{queued}/report.txt",
        f"/study/{queued}/report.json",
        "/static/base.html",
        "/static/..%2fweb.py",
        "/static/%2e%2e/web.py",
        f"/study/{draft}/..%2f..%2fradbox.sqlite3",
    ):
        answer = page.get(path)
        assert answer.status_code == 404, path
        assert "web.not-found" in answer.text


def test_a_picture_outside_the_data_folder_is_never_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inside = tmp_path / "data"
    built = stock(inside, port())
    (tmp_path / "image.png").write_bytes((inside / "rendered/4/1/image.png").read_bytes())
    key = built.keys["queued"]
    page_store.read(built.store, key)
    built.store.finish_refused(key, "gate.exposure", "Too dark.", {}, rendered="..")
    with serving(built.board) as address:
        assert httpx.get(f"{address}/study/{key}/image.png").status_code == 404
        assert "There is no picture of this study to show" in httpx.get(f"{address}/study/{key}").text
    assert "web.picture-outside" in caplog.text
    built.store.close()


def test_a_missing_picture_is_said_in_words(own: tuple[Stocked, httpx.Client]) -> None:
    built, client = own
    key = built.keys["draft"]
    (built.board.data_dir / "rendered" / str(key) / "1" / "image.png").unlink()
    text = text_of(client.get(f"/study/{key}").text)
    assert "There is no picture of this study to show" in text
    assert "Pneumothorax on the left" in text


# --- the border ---


def test_every_answer_carries_the_security_headers(page: httpx.Client, stocked: Stocked) -> None:
    paths = (*PAGES, "/healthz", f"/study/{stocked.keys['draft']}/image.png", "/static/style.css")
    for path in paths:
        headers = page.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert ("no-store" in headers["cache-control"]) == (not path.startswith("/static/"))
        assert "server" not in headers


@pytest.mark.requirement("SEC-02")
def test_pages_hold_nothing_inline_and_nothing_from_elsewhere(page: httpx.Client) -> None:
    for path in PAGES:
        html = page.get(path).text
        assert not re.search(r"\sstyle\s*=|<style|\son\w+\s*=|javascript:", html), path
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))
        assert not re.search(r"(?:https?:)?//[a-z]", html), path
    for asset in ("style.css", "live.js"):
        content = page.get(f"/static/{asset}").text
        assert not re.search(r"https?://|@import|url\(", content)


@pytest.mark.requirement("SEC-06")
def test_a_foreign_host_gets_nothing(page: httpx.Client) -> None:
    answer = page.get("/", headers={"Host": "evil.example"})
    assert answer.status_code == 421
    assert "web.wrong-host" in answer.text
    assert not any(words.person(name) in answer.text for name in NAMES)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused_in_plain_words(page: httpx.Client, method: str) -> None:
    answer = page.request(method, "/study/1")
    assert answer.status_code == 405
    assert "web.method-not-allowed" in answer.text
    assert "GET" in answer.headers["allow"]


@pytest.mark.requirement("SEC-01")
def test_an_error_never_shows_patient_data(
    own: tuple[Stocked, httpx.Client],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _, client = own
    caplog.set_level(logging.DEBUG, "radbox")
    caplog.set_level(logging.INFO)

    def broken(*_arguments: object) -> object:
        raise ValueError(f"cannot show {NAMES[0]}") from KeyError(NAMES[1])

    monkeypatch.setattr(views, "list_row", broken)
    answer = client.get("/")
    assert answer.status_code == 500
    assert "web.failed" in answer.text
    assert "no-store" in answer.headers["cache-control"]
    assert "web.failed: ValueError in test_web.py" in caplog.text
    told = answer.text + caplog.text + "".join(capfd.readouterr())
    for name in NAMES:
        assert name not in told
        assert name.split("^")[0] not in told
    assert "Traceback" not in told
    assert client.get("/quarantine").status_code == 200


def test_a_store_that_refuses_is_503_with_its_code(
    own: tuple[Stocked, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = own

    def damaged(*_arguments: object, **_names: object) -> object:
        raise StoreError("expected a whole database, got damaged pages", code="store.damaged")

    monkeypatch.setattr(Store, "studies", damaged)
    answer = client.get("/")
    assert answer.status_code == 503
    assert "store.damaged" in answer.text
    assert "The images are safe" in answer.text


@pytest.mark.requirement("SEC-01")
def test_healthz_tells_the_worst_state_and_no_patient(page: httpx.Client) -> None:
    answer = page.get("/healthz")
    health = json.loads(answer.text)
    assert health["state"] == "degraded"
    assert {service["name"]: service["code"] for service in health["services"]} == {
        "receive": "",
        "worker": "backend.absent",
    }
    assert not any(name.split("^")[0] in answer.text for name in NAMES)


def test_paused_services_are_told_first(own: tuple[Stocked, httpx.Client]) -> None:
    built, client = own
    built.store.set_service("worker", "paused", "bundle.hash", "AI paused, images safe. The model file is damaged.")
    built.store.set_service("receive", "degraded", "storage.full", "No room for images.")
    text = text_of(client.get("/").text)
    assert "No new drafts AI paused, images safe. The model file is damaged." in text
    assert "Storage is full: new images are turned away" in text
    assert text.index("No new drafts") < text.index("Storage is full")
    assert client.get("/healthz").json()["state"] == "paused"
