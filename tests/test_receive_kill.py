"""SIGKILL at random moments, of the whole receiver or of one of its processes: whatever was acknowledged is there,
whole, and is read once."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tests.receiver_process import ReceiverProcess, claims, encoded, radiograph, send_bytes, wait_for

CR = "1.2.840.10008.5.1.4.1.1.1"
SENDERS, IMAGES_PER_STUDY = 2, 10
ENOUGH_KILLS = 5
ROWS = 226  # 100 KB


class Sender(threading.Thread):
    """Sends each object until it is acknowledged, over a new association whenever the old one died.

    At least `sends` of them, numbered from `first`, and on until `enough` is set: a fast machine is through
    before it was killed often.
    """

    def __init__(self, receiver: ReceiverProcess, first: int, sends: int, enough: threading.Event) -> None:
        super().__init__(daemon=True)
        self.receiver = receiver
        self.first = first
        self.sends = sends
        self.enough = enough
        self.acknowledged: dict[str, bytes] = {}
        self.unanswered = 0

    def run(self) -> None:
        association = None
        for number in itertools.count(self.first):
            if number - self.first >= self.sends and self.enough.is_set():
                break
            study = generate_uid(entropy_srcs=["kill", str(number // IMAGES_PER_STUDY)])
            ds = radiograph(number, rows=ROWS, study=study)
            content = encoded(ds)
            status = None
            while status != 0:
                if association is None or not association.is_established:
                    association = self.receiver.associate([(CR, ExplicitVRLittleEndian)])
                if not association.is_established:
                    time.sleep(0.02)
                    continue
                status = send_bytes(association, content, CR, ds.SOPInstanceUID)
                if status is None:
                    self.unanswered += 1
                    association.abort()
            self.acknowledged[ds.SOPInstanceUID] = content
        if association is not None:
            association.release()


def kill_everything(receiver: ReceiverProcess, _: random.Random) -> int:
    receiver.kill()
    receiver.start()
    return 1


def kill_one_process(receiver: ReceiverProcess, chance: random.Random) -> int:
    """How many were killed: none while the last one is not replaced yet."""
    assert receiver.process is not None
    alive = psutil.Process(receiver.process.pid).children()
    for victim in chance.sample(alive, min(1, len(alive))):
        victim.kill()
    return min(1, len(alive))


@pytest.mark.slow
@pytest.mark.parametrize(("kill", "sends"), [(kill_everything, 500), (kill_one_process, 250)])
@pytest.mark.requirement("RCV-01")
def test_nothing_acknowledged_is_lost(
    tmp_path: Path, kill: Callable[[ReceiverProcess, random.Random], int], sends: int
) -> None:
    moments = random.Random(20240607)
    kills = 0
    enough = threading.Event()
    with ReceiverProcess(tmp_path, quiet_time_s=0.5) as receiver:
        senders = [Sender(receiver, one * 10_000, sends // SENDERS, enough) for one in range(SENDERS)]
        for sender in senders:
            sender.start()
        while any(sender.is_alive() for sender in senders):
            time.sleep(moments.uniform(0.05, 0.6))
            kills += kill(receiver, moments)
            if kills >= ENOUGH_KILLS and any(sender.unanswered for sender in senders):
                enough.set()
        store = receiver.store()
        wait_for(lambda: store.receiving_studies() == [])
        assert receiver.stop() == 0
        receiver.start()  # sweeps what the killed left behind
        assert receiver.stop() == 0

    acknowledged = {uid: content for sender in senders for uid, content in sender.acknowledged.items()}
    assert len(acknowledged) >= sends
    assert kills >= ENOUGH_KILLS, "the receiver was not killed often enough to show anything"
    assert sum(sender.unanswered for sender in senders) > 0, "no kill met a transfer"
    assert receiver.files("spool/incoming") == []

    rows = {}
    for summary in store.studies(limit=1000):
        detail = store.study(summary.study_key)
        assert detail is not None
        assert detail.conflicts == ()
        for row in detail.instances:
            assert row.sop_instance_uid not in rows
            rows[row.sop_instance_uid] = row
    for uid, content in acknowledged.items():
        kept = (receiver.data_dir / rows[uid].path).read_bytes()
        assert kept.endswith(content)
        assert hashlib.sha256(kept).hexdigest() == rows[uid].sha256

    claimed = [uid for _, uids in claims(store) for uid in uids]
    assert sorted(claimed) == sorted(acknowledged)
    assert {summary.state for summary in store.studies(limit=1000)} == {"draft"}
