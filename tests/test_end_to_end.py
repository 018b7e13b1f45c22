"""The whole box: real services, real DICOM clients, a real browser.

Phantoms and the files of the reference data go in by DCMTK `storescu`, `dcmsend` and pynetdicom; what a person then
sees is read off the page in headless Chromium.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from edge.board import load_board
from edge.box import Box, running, wait_until_ready
from edge.report.serial import from_json
from edge.service import Stop
from edge.simulate.command import SAMPLE
from edge.simulate.objects import phantom_dataset, save_file
from edge.simulate.phantom import make_phantom
from edge.simulate.send import send
from edge.store_rows import StudySummary
from tests.receiver_process import PEER_ENVIRONMENT

CHROMIUM = "/usr/bin/chromium-headless-shell"
WAIT_S = 60.0
SCREENSHOTS = os.environ.get("RADBOX_SCREENSHOTS")  # a folder; the pictures are for looking at
NAME = "SEEDED^NAME"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Box]:
    """A running box on free ports with a data folder of its own and a short quiet time."""
    folder = tmp_path_factory.mktemp("box")
    text = (root / "board_configs" / "sim.toml").read_text()
    text = text.replace('"models/bundles/chest"', json.dumps(str(root / "models/bundles/chest")))
    file = folder / "board.toml"
    file.write_text(text.replace("quiet_time_s = 2.0", "quiet_time_s = 0.5").replace("536870912", "67108864"))
    board = load_board(file)
    board = dataclasses.replace(
        board,
        data_dir=folder / "data",
        receive=dataclasses.replace(board.receive, port=0),
        web=dataclasses.replace(board.web, port=0),
    )
    with running(board, ("--board", str(file)), stop=Stop(signals=False)) as started:
        wait_until_ready(started)
        yield started


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """One page of a headless Chromium, phone-sized."""
    if shutil.which(CHROMIUM) is None and "CI" not in os.environ:
        pytest.skip(f"no browser at {CHROMIUM}")
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": 390, "height": 844})
        browser.close()


def _peer(command: str, *arguments: str, box: Box) -> str:
    """Run a DCMTK client against the box; returns what it said."""
    receive = box.board.receive
    done = subprocess.run(
        [command, *arguments[:-1], receive.host, str(receive.port), arguments[-1]],
        capture_output=True, text=True, env=PEER_ENVIRONMENT, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def _ended(box: Box, study_instance_uid: str) -> StudySummary:
    """The study once it has been read, refused or failed."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        key = box.store.study_key(study_instance_uid)
        detail = None if key is None else box.store.study(key)
        if detail is not None and detail.state in ("draft", "refused", "failed"):
            return detail.summary
        time.sleep(0.1)
    raise AssertionError(f"study not read within {WAIT_S} s")


def _shoot(page: Page, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)


@pytest.fixture(scope="module")
def drafted(box: Box, tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    """The sample, a phantom with an edema, sent by DCMTK storescu and read."""
    dataset = phantom_dataset(make_phantom(SAMPLE), patient_name=NAME, patient_id="SEEDED-1")
    path = tmp_path_factory.mktemp("phantom") / "object.dcm"
    save_file(dataset, path)
    assert "I: Received Store Response (Success)" in _peer("storescu", "-v", str(path), box=box)
    return _ended(box, str(dataset.StudyInstanceUID))


def test_a_phantom_becomes_a_draft(box: Box, drafted: StudySummary) -> None:
    assert (drafted.state, drafted.code) == ("draft", "")
    report = from_json(drafted.report_json)
    assert report.status == "draft"
    assert report.technique.view == "PA"
    assert report.technique.population == "adult"
    assert len(report.scores) == 14
    assert all(0.0 <= p <= 1.0 for p in report.scores.values())
    assert not [rule.message for rule in report.rules if not rule.passed and not rule.statements]


def test_the_page_shows_the_draft(box: Box, drafted: StudySummary, page: Page) -> None:
    page.goto(box.page)
    _shoot(page, "list")
    assert "draft" in page.inner_text("body").lower()
    page.goto(f"{box.page}study/{drafted.study_key}")
    _shoot(page, "draft")
    text = page.inner_text("body")
    assert "not signed" in text.lower()
    for section in ("Technique", "Impression", "Limits"):
        assert section in text
    report = from_json(drafted.report_json)
    assert report.model.version in text
    image = page.locator("img").first
    assert image.evaluate("i => i.complete && i.naturalWidth") == 1024


@pytest.mark.requirement("READ-03")
def test_every_statement_has_its_evidence_on_the_page(box: Box, drafted: StudySummary, page: Page) -> None:
    report = from_json(drafted.report_json)
    assert "edema" in {s.finding for s in report.statements}
    for index, statement in enumerate(report.statements):
        assert statement.evidence is not None
        answer = page.request.get(f"{box.page}study/{drafted.study_key}/evidence/{index}.png")
        assert answer.ok
        assert answer.body().startswith(b"\x89PNG")
    page.goto(f"{box.page}study/{drafted.study_key}", wait_until="networkidle")
    _shoot(page, "evidence")


EXPECTED = {
    "RG1_J2KI.dcm": ("draft", ""),
    "RG2_J2KI.dcm": ("refused", "gate.body-part"),
    "RG2_RLE.dcm": ("refused", "gate.body-part"),
    "RG3_J2KR.dcm": ("refused", "gate.body-part"),
    "MG1_J2KI.dcm": ("refused", "gate.body-part"),
    "US1_J2KI.dcm": ("refused", "gate.modality"),
    "OBXXXX1A_rle_2frame.dcm": ("refused", "gate.modality"),
    "JPGLosslessP14SV1_1s_1f_8b.dcm": ("refused", "gate.modality"),
    "CT2_JPLL.dcm": ("refused", "gate.modality"),
    "MR2_J2KR.dcm": ("refused", "gate.modality"),
    "emri_small_RLE.dcm": ("refused", "gate.modality"),
    "NM1_JPLY.dcm": ("refused", "dicom.pixels-unreadable"),  # its scan header breaks the JPEG standard
}


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items())
@pytest.mark.requirement("READ-01")
def test_real_files_are_read_or_refused_with_their_reason(
    box: Box, shared_data: Path, page: Page, name: str, expected: tuple[str, str]
) -> None:
    path = shared_data / "dicom" / name
    (result,) = send([path], box.board.receive.host, box.board.receive.port, box.board.receive.ae_title)
    assert result.accepted
    (key,) = [
        s.study_key
        for s in box.store.studies(limit=200)
        for i in (box.store.study(s.study_key),)
        if i and result.sop_instance_uid in {row.sop_instance_uid for row in i.instances}
    ]
    found = box.store.study(key)
    assert found is not None
    summary = _ended(box, found.facts.study_instance_uid)
    assert (summary.state, summary.code) == expected
    page.goto(f"{box.page}study/{key}")
    _shoot(page, name)
    if summary.state == "refused":
        assert summary.message in page.inner_text("body")


def test_dcmsend_takes_compressed_files_too(box: Box, shared_data: Path) -> None:
    said = _peer("dcmsend", "-v", str(shared_data / "dicom" / "US1_J2KR.dcm"), box=box)
    assert "Success" in said


@pytest.mark.requirement("RCV-03")
def test_a_truncated_object_is_quarantined_and_the_page_says_why(box: Box, shared_data: Path, page: Page) -> None:
    path = shared_data / "dicom" / "MR_truncated.dcm"
    (result,) = send([path], box.board.receive.host, box.board.receive.port, box.board.receive.ae_title)
    assert not result.accepted
    assert result.status & 0xF000 == 0xC000
    (row,) = box.store.quarantine()
    page.goto(f"{box.page}quarantine")
    _shoot(page, "quarantine")
    assert row.code in page.inner_text("body")


@pytest.mark.requirement("SEC-01")
def test_nothing_about_the_patient_is_logged(box: Box, drafted: StudySummary) -> None:
    said = "\n".join(line for service in box.services for line in service.log)
    assert said
    assert "SEEDED" not in said.upper()
    assert drafted.study_instance_uid not in said
