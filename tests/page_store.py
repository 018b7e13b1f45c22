"""A real store in a temporary folder with a study in every state, for the tests of the page.

Patient names are seeded: a test can ask whether one of them shows up where it must not.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path

import cv2
import numpy as np

from edge.board import Board, load_board
from edge.desk.web import run
from edge.report.check import check
from edge.report.graph import load_graph
from edge.report.render import render_sections
from edge.report.schema import Box, Evidence, ModelVersion, Report, Statement, Technique
from edge.report.serial import to_json
from edge.service import Stop
from edge.store import InstanceFacts, Store, StudyFacts, open_store

DRAFT_NAME = "OKONKWO^ADAEZE^^DR"
DRAFT_NAME_SHOWN = "OKONKWO, DR ADAEZE"
NAMES = (
    DRAFT_NAME,
    "LINDQVIST^TOVE",
    "MBEKI^SIPHO^JABULANI",
    "HARTONO^BUDI",
    "PRZYBYLSKA^ZOFIA",
    "VANCE^ELI",
    "ROSSI^IDA",
)
REFUSAL = "Expected a chest radiograph, got an image that does not look like one."
FAILURE = "The reader stopped 3 times while it read this study."
QUARANTINE = "Expected a complete DICOM object, got one that ends early."
SPARE = "Running on onnxruntime, not on tflite: Neither LiteRT nor tflite-runtime is installed."
HEIGHT, WIDTH = 512, 480
EXTENT = Box(0.0, 0.03, 1.0, 0.97)


@dataclass(frozen=True)
class Stocked:
    """The store's folder and the keys of its studies by what became of them."""

    board: Board
    store: Store
    keys: dict[str, int]


def stock(data_dir: Path, port: int) -> Stocked:
    """Fill `data_dir`: a draft, an empty draft, refused, failed, queued, reading, receiving; quarantine, services."""
    board = page_board(data_dir, port)
    store = open_store(data_dir)
    keys = {}
    keys["failed"] = add_study(store, NAMES[3], "failed", 1)
    read(store, keys["failed"])
    store.fail(keys["failed"], "worker.died-repeatedly", FAILURE, retry=False)
    keys["refused"] = add_study(store, NAMES[2], "refused", 1)
    attempt = read(store, keys["refused"])
    rendered = draw(data_dir, keys["refused"], attempt)
    store.finish_refused(
        keys["refused"], "gate.not-a-chest-radiograph", REFUSAL, {"decode": 0.08, "total": 0.1}, rendered
    )
    keys["clear"] = add_study(store, NAMES[1], "clear", 1)
    finish(store, data_dir, keys["clear"], replace(draft_report(), statements=(), absent=("pneumothorax", "effusion")))
    keys["draft"] = add_study(store, DRAFT_NAME, "draft", 2)
    finish(store, data_dir, keys["draft"], draft_report())
    store.add_instance(facts(NAMES[5], "reading"), instance("reading", 0))
    keys["reading"] = store.receiving_studies()[0]
    store.complete_study(keys["reading"])
    read(store, keys["reading"])
    keys["queued"] = add_study(store, NAMES[6], "queued", 1)
    store.add_instance(facts(NAMES[4], "receiving"), instance("receiving", 0))
    store.add_instance(facts(NAMES[4], "receiving"), replace(instance("receiving", 0), sha256="c" * 64))
    keys["receiving"] = store.receiving_studies()[0]
    store.add_quarantine("ab" * 32, 48_231, "quarantine/x.bin", "dicom.truncated", QUARANTINE, "CR-ROOM-1")
    store.set_service("receive", "ok", "", "Listening.")
    store.set_service("worker", "degraded", "backend.absent", SPARE)
    return Stocked(board, store, keys)


def port() -> int:
    """A TCP port that was free a moment ago on the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def page_board(data_dir: Path, port: int) -> Board:
    """A board whose data lies in `data_dir` and whose page is on `port`."""
    sim = load_board(Path(__file__).resolve().parent.parent / "board_configs" / "sim.toml")
    return replace(sim, data_dir=data_dir, web=replace(sim.web, host="127.0.0.1", port=port))


def facts(name: str, word: str) -> StudyFacts:
    """Facts of a study; its UID comes from `word`."""
    number = int(hashlib.sha256(word.encode()).hexdigest()[:8], 16)
    return StudyFacts(f"1.2.826.0.1.{number}", f"P-{number % 10_000:04d}", name, "A17", "20260312", "DX", "Chest PA")


def instance(word: str, number: int) -> InstanceFacts:
    """One object of the study `word`, received now."""
    digest = hashlib.sha256(f"{word}{number}".encode()).hexdigest()
    return InstanceFacts(
        sop_instance_uid=f"{facts('', word).study_instance_uid}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=digest,
        size_bytes=10_240_000,
        path=f"spool/objects/{digest[:2]}/{digest}.dcm",
        calling_ae="CR-ROOM-1",
        received_monotonic_s=time.monotonic(),
    )


def add_study(store: Store, name: str, word: str, images: int) -> int:
    """A complete study of `images` objects that waits to be read; its key."""
    for number in range(images):
        store.add_instance(facts(name, word), instance(word, number))
    key = store.study_key(facts(name, word).study_instance_uid)
    assert key is not None
    store.complete_study(key)
    return key


def read(store: Store, key: int) -> int:
    """Claim the study, which must be the next one; its attempt."""
    claimed = store.claim_next("worker-1")
    assert claimed is not None
    assert claimed.study_key == key
    return claimed.attempt


def finish(store: Store, data_dir: Path, key: int, report: Report) -> None:
    """Read the study `key` into `report`."""
    rendered = draw(data_dir, key, read(store, key))
    timings_s = {
        "decode": 0.09,
        "prepare": 0.02,
        "encode": 0.21,
        "generate": 0.06,
        "evidence": 0.01,
        "render": 0.05,
        "total": 0.44,
    }
    store.finish_draft(key, to_json(check(report, load_graph())), rendered, timings_s)


def draft_report() -> Report:
    """Three statements with evidence, one of them doubtful; scores of findings that are not offered."""
    codes = [c for c, n in load_graph().nodes.items() if n.kind == "finding"][:14]
    scores = {code: round(0.04 + 0.03 * number, 4) for number, code in enumerate(codes)}
    stated = (
        Statement("pneumothorax", "left", "upper", "present", 0.91, spot(0.74, 0.25, "left", "upper")),
        Statement("effusion", "right", "lower", "present", 0.78, spot(0.25, 0.78, "right", "lower")),
        Statement("atelectasis", "right", "lower", "possible", 0.46, spot(0.68, 0.70, "left", "lower")),
    )
    scores.update({one.finding: one.probability for one in stated})
    return Report(
        technique=Technique("DX", "PA", "adult", "header", 2),
        statements=stated,
        absent=("cardiomegaly", "edema", "consolidation"),
        not_validated=("hernia", "fibrosis", "nodule", "mass", "infiltration", "emphysema", "pleural_thickening"),
        disagreements=("pneumonia",),
        scores=scores,
        rules=(),
        limits=("limit.not-a-diagnosis", "limit.no-prior", "limit.single-view"),
        model=ModelVersion("chest", "0.1.0", "5d41402abc4b2a76b9719d911017c592" * 2, "tflite", load_graph().sha256),
        thresholds={"pneumothorax": 0.42, "effusion": 0.51, "atelectasis": 0.4, "cardiomegaly": 0.5},
    )


def told(section: str = "") -> list[str]:
    """The sentences of `draft_report`, all or of one section, as the report renders them; doubts included."""
    graph = load_graph()
    sections = render_sections(check(draft_report(), graph), graph)
    lines = [line for one in sections if section in ("", one.code) for line in one.lines]
    return [text for line in lines for text in (line.text, *line.doubts)]


def spot(x: float, y: float, side: str, zone: str) -> Evidence:
    """A round map around the point (x, y) of the image, in fractions, with a box."""
    rows, columns = np.mgrid[0:16, 0:16]
    down, across = (y - EXTENT.y0) / (EXTENT.y1 - EXTENT.y0) * 16 - 0.5, x * 16 - 0.5
    grid = 255 * np.exp(-((rows - down) ** 2 / 9 + (columns - across) ** 2 / 6))
    box = Box(max(0.0, x - 0.16), max(0.0, y - 0.14), min(1.0, x + 0.16), min(1.0, y + 0.14))
    return Evidence(tuple(tuple(int(v) for v in row) for row in grid), EXTENT, box, side, zone)  # type: ignore[arg-type]


def draw(data_dir: Path, key: int, attempt: int) -> str:
    """A sketch of a thorax as image.png, as the worker leaves it; the folder relative to `data_dir`."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / np.array([[[HEIGHT]], [[WIDTH]]])
    film = 0.08 + 0.62 * (((x - 0.5) / 0.47) ** 2 + ((y - 0.58) / 0.62) ** 2 < 1)
    for centre in (0.28, 0.72):
        lung = ((x - centre) / 0.17) ** 2 + ((y - 0.47) / 0.36) ** 2
        film -= 0.46 * np.clip(1.6 * (1 - lung), 0, 1)
    film += 0.22 * np.clip(1 - ((x - 0.56) / 0.15) ** 2 - ((y - 0.66) / 0.17) ** 2, 0, 1) + 0.12 * (
        abs(x - 0.5) < 0.045
    )
    for rib in range(9):
        film += 0.08 * (abs(y - 0.14 - 0.085 * rib - 0.35 * (x - 0.5) ** 2) < 0.012) * (abs(x - 0.5) < 0.42)
    pixels = (255 * np.clip(cv2.GaussianBlur(film, (0, 0), 2.2), 0, 1)).astype(np.uint8)
    cv2.putText(pixels, "DRAFT - NOT SIGNED", (10, HEIGHT - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1, cv2.LINE_AA)
    folder = data_dir / "rendered" / str(key) / str(attempt)
    folder.mkdir(parents=True)
    assert cv2.imwrite(str(folder / "image.png"), pixels)
    return str(folder.relative_to(data_dir))


@contextmanager
def serving(board: Board) -> Iterator[str]:
    """The page of `board`, served by `edge.desk.web.run` in a thread; its address."""
    stop = Stop(signals=False)
    thread = threading.Thread(target=run, args=(board, stop))
    thread.start()
    try:
        wait_for(board.web.port, thread)
        yield f"http://127.0.0.1:{board.web.port}"
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def wait_for(port: int, thread: threading.Thread) -> None:
    """Return as soon as the port answers."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and thread.is_alive():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("expected the page to answer within 10 s")


def fill(store: Store, number: int) -> None:
    """Add `number` studies that are being received."""
    for index in range(number):
        word = f"many{index}"
        store.add_instance(facts(f"PATIENT^NUMBER{index:03d}", word), instance(word, 0))


def text_of(html: str) -> str:
    """What a reader sees, roughly: no tags, single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())
