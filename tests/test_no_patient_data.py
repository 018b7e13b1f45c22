"""No patient data leaves by the side: seeded names go through a whole running box, and then every word it says is read.

Real DICOM senders put people with strange and long names into a box with a real MQTT broker: studies that are read,
refused, repeated with other content, and cut off. Then: MQTT topics and payloads, the logs of all services, /metrics,
/healthz, /health, names of files and folders, and everything the store tells about the box itself.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
import unicodedata
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation

from edge.board import load_board
from edge.box import Box, running, wait_until_ready
from edge.link.topics import box_id
from edge.service import Stop
from edge.simulate.command import SAMPLE
from edge.simulate.objects import phantom_dataset, save_file
from edge.simulate.phantom import make_phantom
from edge.simulate.send import send
from edge.store import IssueFacts
from tests.mqtt_peer import BOX, NEEDS_BROKER, Listener, broker, listening, until
from tests.receiver_process import PEER_ENVIRONMENT

pytestmark = NEEDS_BROKER

# Parts of names, identifiers and descriptions that nothing else in the box contains.
SEEDS = (
    "Zsófijnszky", "Ünǆhard", "Жозефинкян", "王小芷蕙", "أميروظة", "O'Quxley-Brandt", "Xylokrates",
    "QPID-7731-ÄX", "QPID7742", "QACC-90417", "Quibbletown", "Vexlerosis", "Dr. Wozzleby", "Klinik Zumsel",
    "QSTUDYID5", "19370416",
)  # fmt: skip


def person(dataset: Dataset, number: int) -> Dataset:
    """Fill in everything that a modality writes about a person; long and in many scripts."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = (
        "Zsófijnszky-Ünǆhard^Жозефинкян^O'Quxley-Brandt^Dr. Wozzleby^" + "Xylokrates " * 3 + "=王小芷蕙=أميروظة"
    )
    dataset.PatientID = ("QPID-7731-ÄX", "QPID7742", "QPID7742/../../etc")[number % 3]
    dataset.PatientBirthDate = "19370416"
    dataset.AccessionNumber = "QACC-90417"
    dataset.StudyID = "QSTUDYID5"
    dataset.StudyDescription = "Vexlerosis of Quibbletown " + "x" * 30
    dataset.SeriesDescription = "Vexlerosis"
    dataset.PatientComments = "Lives in Quibbletown\r\nwith Vexlerosis"
    dataset.ReferringPhysicianName = "Wozzleby^Dr. Wozzleby"
    dataset.InstitutionName = "Klinik Zumsel"
    return dataset


def traces(seed: str) -> Iterator[bytes]:
    """A seed as it can look in a log, an address, JSON or a file name; lower case."""
    for text in {seed, unicodedata.normalize("NFD", seed), seed.casefold(), seed.upper()}:
        for form in (
            text.encode(),
            text.encode("latin-1", "ignore") if len(text.encode("latin-1", "ignore")) >= 6 else text.encode(),
            text.encode("ascii", "backslashreplace"),
            json.dumps(text).strip('"').encode(),
            repr(text.encode()).removeprefix("b").strip("'\"").encode(),
            urllib.parse.quote(text).encode(),
            text.encode("utf-16-le"),
            text.encode().hex().encode(),
        ):
            yield form.lower()


def found_in(content: bytes) -> list[str]:
    """The seeds that show in `content`."""
    lowered = content.lower()
    folded = content.decode("utf-8", "replace").casefold().encode()
    return [seed for seed in SEEDS if any(one in lowered or one in folded for one in traces(seed))]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_search_finds_a_seed_in_every_disguise(seed: str) -> None:
    for hidden in (
        seed.upper(),
        json.dumps({"name": seed}),
        urllib.parse.quote(seed),
        repr(seed.encode()),
        unicodedata.normalize("NFD", seed),
    ):
        assert found_in(f"WARNING radbox: {hidden} was here".encode()) == [seed]


def make_board(folder: Path, root: Path, peer_port: int, ca_file: Path, password_file: Path) -> Path:
    """The simulated board with a broker, quick to complete a study."""
    text = (root / "board_configs" / "sim.toml").read_text().partition("[mqtt]")[0]
    text = text.replace('"models/bundles/chest"', json.dumps(str(root / "models/bundles/chest")))
    text = text.replace("quiet_time_s = 2.0", "quiet_time_s = 0.3").replace("536870912", "67108864")
    mqtt = {
        "host": "127.0.0.1", "port": peer_port, "ca_file": str(ca_file), "username": BOX,
        "password_file": str(password_file), "interval_s": 1, "home_assistant": True,
    }  # fmt: skip
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in mqtt.items())
    file = folder / "board.toml"
    file.write_text(f"{text}\n[mqtt]\n{lines}\n")
    return file


def send_people(box: Box, folder: Path) -> list[str]:
    """A chest, the same again with other content, another body part, a cut-off file; returns the studies' UIDs."""
    receive = box.board.receive
    chest = person(phantom_dataset(make_phantom(SAMPLE)), 0)
    other = person(phantom_dataset(make_phantom(SAMPLE), patient_id="other"), 1)
    other.BodyPartExamined, other.ProtocolName = "Vexlerosis", "Vexlerosis"
    other.Modality = "MG"
    again = person(phantom_dataset(make_phantom(SAMPLE)), 0)
    again.PatientComments = "Xylokrates moved"
    file = folder / "Zsófijnszky Ünǆhard QPID7742.dcm"
    save_file(chest, file)
    done = subprocess.run(
        ["storescu", "-v", receive.host, str(receive.port), str(file)],
        capture_output=True, text=True, env=PEER_ENVIRONMENT, timeout=60, check=False,
    )  # fmt: skip
    assert "Received Store Response (Success)" in done.stdout + done.stderr
    results = send([other, again], receive.host, receive.port, receive.ae_title)
    assert [one.accepted for one in results] == [True, True]
    # A file that says one thing in its header and holds another: the object ends in the middle of its pixels.
    third = person(phantom_dataset(make_phantom(SAMPLE), patient_id="third"), 2)
    whole = folder / "third.dcm"
    save_file(third, whole)
    cut = folder / "Xylokrates.dcm"
    cut.write_bytes(whole.read_bytes()[:-5000])
    (refused,) = send([cut], receive.host, receive.port, receive.ae_title)
    assert not refused.accepted
    # Identifiers that are too long and not what they should be.
    odd = person(phantom_dataset(make_phantom(SAMPLE), patient_id="odd"), 2)
    odd.StudyDate, odd.PatientAge = "Vexlerosis", "QPID7742"
    save_file(odd, folder / "odd.dcm")
    send([dcmread(folder / "odd.dcm")], receive.host, receive.port, receive.ae_title)
    return [str(one.StudyInstanceUID) for one in (chest, other, odd)]


def raised(box: Box, heard: Listener) -> bool:
    """True once issues were told whose subject a sender chose; care, which knows better, takes them back each time."""
    if len(heard.all("issue")) >= 2:
        return True
    named = IssueFacts("issue.modality-silent", "Xylokrates", "warning", {"name": "Vexlerosis"})
    box.store.set_issues([named, IssueFacts("issue.wear", "", "info")])
    time.sleep(0.2)
    return False


def ended(box: Box) -> bool:
    counts = box.store.study_counts()
    settled = sum(counts[state] for state in ("draft", "refused", "failed"))
    return settled == sum(counts.values()) >= 3


def messages_settled(heard: Listener) -> bool:
    """The news of both issues, and totals that know of all studies."""
    totals = json.loads(heard.last("counters") or '{"studies": {}}')["studies"]
    settled = sum(totals.get(state, 0) for state in ("draft", "refused", "failed"))
    return len(heard.all("issue")) >= 2 and settled >= 3


def said_by_store(box: Box) -> bytes:
    """Everything of the store that is about the box and not about a study."""
    store = box.store
    parts = (
        store.services(), store.events(1000), store.facts(), store.counts(), store.issues(), store.outbox(1000),
        [(row.code, row.message) for row in store.quarantine()],
    )  # fmt: skip
    return repr(parts).encode()


@pytest.mark.requirement("SEC-01")
def test_nothing_of_a_patient_leaves_by_the_side(tmp_path: Path, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("broker", "box", "files"):
        (tmp_path / name).mkdir()
    with broker(tmp_path / "broker") as peer, listening(peer) as heard:
        password_file = Path(peer.board().mqtt.password_file)
        file = make_board(tmp_path / "box", root, peer.port, peer.ca_file, password_file)
        board = load_board(file)
        board = dataclasses.replace(
            board,
            data_dir=tmp_path / "box" / "data",
            receive=dataclasses.replace(board.receive, port=0),
            web=dataclasses.replace(board.web, port=0),
        )
        with running(board, ("--board", str(file)), verbose=True, stop=Stop(signals=False)) as box:
            assert "link" in {service.name for service in box.services}
            wait_until_ready(box)
            with disable_value_validation():
                uids = send_people(box, tmp_path / "files")
            until(lambda: raised(box, heard) and ended(box), "reading and news", 60)
            box.store.set_issues([])
            until(lambda: messages_settled(heard), "messages", 30)
            until(lambda: box.store.counts().get("images_received", 0) >= 3, "totals", 30)
            pages = {name: _page(box, name) for name in ("healthz", "metrics", "health")}
            store_words = said_by_store(box)
            names = "\n".join(str(one.relative_to(board.data_dir)) for one in board.data_dir.rglob("*")).encode()
            time.sleep(0.2)  # the last lines of the logs
        logs = capfd.readouterr()
    assert f"radbox/{box_id()}/health" in {topic for topic, _ in heard.messages}
    assert b"radbox_images_received_total" in pages["metrics"]
    assert b".dcm" in names
    assert b"link" in store_words
    for service in ("receive", "worker", "care", "link"):
        assert f"{service:8s}|" in logs.err
    said = {
        "MQTT": "\n".join(f"{topic} {text}" for topic, text in heard.messages).encode(),
        "the logs": (logs.out + logs.err).encode(),
        "names of files": names,
        "the store's own rows": store_words,
        **pages,
    }
    for place, content in said.items():
        assert found_in(content) == [], place
        assert not [uid for uid in uids if uid.encode() in content], place


def _page(box: Box, name: str) -> bytes:
    with urllib.request.urlopen(f"{box.page}{name}", timeout=10) as answer:
        content: bytes = answer.read()
    return content
