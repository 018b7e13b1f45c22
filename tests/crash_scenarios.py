"""What is crashed everywhere: the real code of the box, one scenario for each thing that it promises to keep.

A scenario is a line of SCENARIOS: `setup` lays out a folder, `record` runs the real code under the recorder (in
processes of their own) and marks what was promised, `recover` and `check` are of `tests.crash_box` unless it says more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest.mock import patch

import apsw
from pydicom.uid import ExplicitVRLittleEndian

from edge import durable
from edge.board import Board, load_board
from edge.disk_marks import DiskWatch
from edge.intake.completion import Completion
from edge.intake.filing import Arrival, Filing
from edge.intake.ledger import Ledger, Object
from edge.intake.ledger_link import LedgerLink, Quarantined, decode
from edge.intake.receive import _Receiver
from edge.intake.spool import SpoolFile
from edge.intake.status import SUCCESS, Answer
from edge.reading import worker
from edge.service import Stop
from edge.simulate.objects import encode_file, phantom_dataset
from edge.simulate.phantom import PhantomOptions, make_phantom
from edge.store import INCOMING, InstanceFacts, Store, StudyFacts, object_path, open_store, quarantine_path
from edge.store_paths import DATABASE
from tests import crash_keeping as keeping
from tests import crash_update as update
from tests.crash_box import check, mark_after, recover
from tests.receiver_process import ReceiverProcess, encoded, radiograph, send_bytes, wait_for
from tools.crash.box import studies
from tools.crash.explore import Scenario
from tools.crash.trace import Kind, Recording, mark

ROOT = Path(__file__).resolve().parent.parent
CR = "1.2.840.10008.5.1.4.1.1.1"
MIB = 2**20


def _file(seed: int, study: int) -> tuple[bytes, str, str]:
    """A whole DICOM file of about 4 KB, its study and its SOP Instance UID."""
    dataset = radiograph(seed, rows=40, study=f"2.25.{1000 + study}")
    return encode_file(dataset), str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID)


def _received(study: str, sop: str, content: bytes) -> dict[str, str]:
    return {"kind": "received", "study": study, "sop": sop, "sha256": hashlib.sha256(content).hexdigest()}


# --- filing: the receiver's own steps, in one process ---


class _DirectLink(LedgerLink):
    """The ledger in this process: what the receiver's children ask over a socket is answered at once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def record(self, study: StudyFacts, instance: InstanceFacts) -> tuple[str, int]:
        return self._outcome(decode(self._ledger.record([Object(1, study, instance)])[0]))

    def quarantine(self, quarantined: Quarantined) -> None:
        self._outcome(decode(self._ledger.quarantine(quarantined)))


def filing_child(root: Path) -> None:
    """Recorded: a fresh box takes in five objects of two studies, one of them again, one of them contradictory."""
    with closing(open_store(root)) as store:
        durable.make_directory(root / INCOMING)
        durable.make_directory(root / quarantine_path("").parent)
        completion = Completion(0.0)
        _take_in(root, store, completion, Ledger(root, store, completion, DiskWatch(_board(root))))


def killed_child(root: Path) -> None:
    """Recorded: the same after the receiver's own start."""
    with closing(open_store(root)) as store:
        receiver = _Receiver(_board(root), store)
        receiver.step()
        _take_in(root, store, receiver.completion, receiver.ledger)


def _take_in(root: Path, store: Store, completion: Completion, ledger: Ledger) -> None:
    filing = Filing(root, _DirectLink(ledger))
    for seed, study in ((0, 0), (1, 0), (2, 1), (0, 0), (3, 1), (4, 1)):
        content, study_uid, sop = _file(seed, study)
        spool = SpoolFile(root / INCOMING, 64 * MIB, MIB)
        for at in range(0, len(content), 1500):
            spool.write(content[at : at + 1500])
        named = sop if seed != 4 else "1.2.3"
        answer = filing.file(spool, Arrival(CR, named, str(ExplicitVRLittleEndian), "TEST"))
        spool.discard()
        if answer == Answer(SUCCESS):
            mark(**_received(study_uid, sop, content))
        elif seed == 4:
            mark("quarantined", sha256=hashlib.sha256(content).hexdigest())
    completion.ended(1)
    for study_key in completion.due():
        store.complete_study(study_key)


def record_killed(recording: Recording) -> None:
    """As filing, in processes of which each is killed: a kill must leave nothing that a later cut takes away.

    After new folders, and at some other calls; the sender sends everything again to the next process.
    """
    place = "tests.crash_scenarios:killed_child"
    ends = [(Kind.MKDIR, 1)] * 4 + [(Kind.MKDIR, 9), (Kind.RENAME, 1), (Kind.WRITE, 40), (Kind.SYNC, 9)]
    for kind, count in [*ends, (Kind.CREATE, 4), (Kind.SYNC, 20)]:
        recording.killed(place, kind, count)
    recording.function(place)


# --- receive: the service and senders of other makes ---


def record_receive(recording: Recording) -> None:
    """The service `receive` takes objects of pynetdicom in one association and of DCMTK's storescu in others."""
    with tempfile.TemporaryDirectory() as folder, _environment(recording, RADBOX_DATA_DIR=str(recording.root)):
        receiver = ReceiverProcess(Path(folder))
        receiver.data_dir = recording.root
        with receiver:
            association = receiver.associate([(CR, ExplicitVRLittleEndian)])
            for seed in range(3):
                dataset = radiograph(seed, rows=40, study="2.25.2000")
                content = encoded(dataset)
                assert send_bytes(association, content, CR, dataset.SOPInstanceUID) == 0
                _mark_stored(recording, "2.25.2000", dataset.SOPInstanceUID, content)
            association.release()
            for seed in (3, 4):
                content, study, sop = _file(seed, 2)
                path = Path(folder, f"{seed}.dcm")
                path.write_bytes(content)
                receiver.dcmtk("storescu", "-xe", path)
                _mark_stored(recording, study, sop, content[-3000:])
            wait_for(lambda: "receiving" not in _states(recording.root))
            receiver.stop()


def _mark_stored(recording: Recording, study: str, sop: str, ending: bytes) -> None:
    """The sender has its Success. The box puts a file head of its own before what was sent."""
    contents = [path.read_bytes() for path in (recording.root / "spool" / "objects").rglob("*.dcm")]
    (content,) = [content for content in contents if content.endswith(ending)]
    recording.mark(**_received(study, sop, content))


def _states(root: Path) -> set[str]:
    with closing(apsw.Connection(str(root / DATABASE), flags=apsw.SQLITE_OPEN_READONLY)) as database:
        return {row[0] for row in database.execute("SELECT state FROM study")}


@contextmanager
def _environment(recording: Recording, **more: str) -> Iterator[None]:
    """For what starts processes with this process's environment."""
    with patch.dict(os.environ, {**recording.environment(), **more}):
        yield


# --- worker ---


def _board(root: Path) -> Board:
    plain = load_board(ROOT / "board_configs" / "sim.toml")
    own = dataclasses.replace(plain.worker, bundle=ROOT / plain.worker.bundle, poll_s=0.05, threads=1)
    return dataclasses.replace(plain, data_dir=root, worker=own)


def put_study(root: Path, store: Store, content: bytes, study: str, sop: str) -> int:
    """A study of one durable object, complete."""
    sha256 = hashlib.sha256(content).hexdigest()
    path = object_path(sha256)
    durable.make_directory((root / path).parent)
    durable.write_file(root / path, content)
    transfer_syntax = str(ExplicitVRLittleEndian)
    facts = InstanceFacts(sop, CR, transfer_syntax, sha256, len(content), str(path), "TEST", time.monotonic())
    store.add_instance(StudyFacts(study, "P", "NAME^OF"), facts)
    study_key = store.study_key(study)
    assert study_key is not None
    store.complete_study(study_key)
    return study_key


def worker_setup(root: Path) -> None:
    """Two thoraxes, and a picture that is none (refused)."""
    with closing(open_store(root)) as store:
        for seed in range(2):
            dataset = phantom_dataset(make_phantom(PhantomOptions(seed=seed, size=256, detail="fast")))
            put_study(root, store, encode_file(dataset), str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID))
        put_study(root, store, *_file(9, 9))


def worker_child(root: Path) -> None:
    """Recorded: the real worker with the real model and its decoding child reads everything, then stops."""
    stop = Stop()
    with closing(open_store(root)) as store:
        instances = [(study, row) for study in studies(store) for row in study.instances]
    for study, row in instances:
        mark("received", study=study.facts.study_instance_uid, sop=row.sop_instance_uid, sha256=row.sha256)
    left = [len(instances)]

    def finished(store: Store, study_key: int, report_json: str, *_: object) -> dict[str, object]:
        left[0] -= 1
        if not left[0]:
            stop.set()
        study = store.study(study_key)
        assert study is not None
        sha256 = hashlib.sha256(report_json.encode()).hexdigest()
        return {"kind": "draft", "study": study.facts.study_instance_uid, "report_sha256": sha256}

    def refused(store: Store, study_key: int, *_: object) -> dict[str, object]:
        return {**finished(store, study_key, ""), "kind": "refused"}

    mark_after(Store, "finish_draft", finished)
    mark_after(Store, "finish_refused", refused)
    worker.run(_board(root), stop)


# --- sign ---


def sign_setup(root: Path) -> None:
    """Three drafts."""
    with closing(open_store(root)) as store:
        for number in range(3):
            study_key = put_study(root, store, *_file(number, number))
            store.claim_next("setup")
            store.finish_draft(study_key, "{}", "", {})


def sign_child(root: Path) -> None:
    """Recorded: a person signs all three drafts, one by one."""
    with closing(open_store(root)) as store:
        for study in studies(store):
            report = '{"signed": true}'
            store.sign(study.summary.study_key, study.attempt, "Dr. Seeded", report)
            sha256 = hashlib.sha256(report.encode()).hexdigest()
            mark("signed", study=study.facts.study_instance_uid, report_sha256=sha256)


def _child(module: str, function: str, *arguments: Callable[[], object]) -> Callable[[Recording], None]:
    """Runs `tests.crash_<module>.function(root, ...)` in a recorded process."""
    return lambda recording: recording.function(f"tests.crash_{module}:{function}", *(str(a()) for a in arguments))


SCENARIOS = (
    Scenario("filing", _child("scenarios", "filing_child"), recover, check, usual=900),
    Scenario("killed", record_killed, recover, check, usual=700),
    Scenario("receive", record_receive, recover, check, usual=700),
    Scenario("worker", _child("scenarios", "worker_child"), recover, check, worker_setup, usual=500),
    Scenario("sign", _child("scenarios", "sign_child"), recover, check, sign_setup, usual=200),
    Scenario(
        "retention",
        _child("keeping", "keeping_child"),
        keeping.keeping_recover,
        keeping.keeping_check,
        keeping.keeping_setup,
    ),
    Scenario("update", update.record_update, update.update_recover, update.update_check, usual=60),
    Scenario("update-killed", update.record_update_killed, update.update_recover, update.update_check, usual=60),
    Scenario(
        "backup",
        _child("keeping", "backup_child"),
        keeping.backup_recover,
        keeping.backup_check,
        keeping.backup_setup,
        usual=100,
    ),
    Scenario(
        "restore",
        _child("keeping", "restore_child", keeping.archive),
        keeping.restore_recover,
        keeping.restore_check,
        usual=100,
    ),
    Scenario(
        "fsck",
        _child("keeping", "fsck_child"),
        keeping.fsck_recover,
        keeping.fsck_check,
        keeping.fsck_setup,
        usual=100,
    ),
)
