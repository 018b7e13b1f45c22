"""Several receiving processes behind one port: places, deaths, and what outlives them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from tests.raw_peer import pdu, raw_association, store_command
from tests.receiver_process import ReceiverProcess, claims, encoded, radiograph, wait_for

CR = "1.2.840.10008.5.1.4.1.1.1"
PLAIN = [(CR, ExplicitVRLittleEndian)]
ECHO = [(Verification, ExplicitVRLittleEndian)]


def children(receiver: ReceiverProcess) -> list[psutil.Process]:
    """The receiving processes that live, oldest first."""
    assert receiver.process is not None
    return [one for one in psutil.Process(receiver.process.pid).children() if _lives(one)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between the listing and the question
        return False


def holder(receiver: ReceiverProcess, link: socket.socket) -> psutil.Process:
    """The process that holds the other end of a connection."""
    port = link.getsockname()[1]
    (found,) = [one for one in children(receiver) if port in {c.raddr.port for c in one.net_connections() if c.raddr}]
    return found


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    with ReceiverProcess(tmp_path_factory.mktemp("processes"), processes=2, quiet_time_s=0.2) as process:
        yield process
        assert process.stop() == 0
        assert "Traceback" not in process.log.read_text()


def test_connections_are_shared_out(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, processes=3) as receiver:
        wait_for(lambda: len(children(receiver)) == 3)
        receiver.dcmtk("echoscu")
        wait_for(lambda: not any(one.net_connections() for one in children(receiver)))
        links = [raw_association(receiver) for _ in range(6)]
        held = [holder(receiver, link).pid for link in links]
        assert sorted(held.count(pid) for pid in set(held)) == [2, 2, 2]
        for link in links:
            link.close()


def test_places_are_counted_over_all_processes(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, processes=3, max_associations=2) as receiver:
        first, second = receiver.associate(ECHO), receiver.associate(ECHO)
        assert first.is_established
        assert second.is_established
        third = receiver.associate(ECHO)
        answer = third.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        first.release()

        def accepted() -> bool:
            one = receiver.associate(ECHO)
            if one.is_established:
                one.release()
            return bool(one.is_released)

        wait_for(accepted)
        second.release()


def test_one_process_is_enough(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, processes=1) as receiver:
        associations = [receiver.associate(PLAIN) for _ in range(3)]
        for seed, association in enumerate(associations):
            assert association.send_c_store(radiograph(seed)).Status == 0x0000
        assert len(children(receiver)) == 1
        for association in associations:
            association.release()


def test_a_dead_process_ends_its_associations_and_no_other(receiver: ReceiverProcess) -> None:
    study = generate_uid()
    association = receiver.associate(PLAIN)
    assert association.send_c_store(radiograph(1, study=study)).Status == 0x0000
    other = receiver.associate(PLAIN)
    link = association.dul.socket.socket
    victim = holder(receiver, link)
    assert holder(receiver, other.dul.socket.socket) != victim
    store = receiver.store()
    key = store.study_key(study)
    assert key in store.receiving_studies()
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: association.is_aborted)
    assert other.send_c_store(radiograph(2)).Status == 0x0000
    wait_for(lambda: key not in store.receiving_studies())
    wait_for(lambda: len(children(receiver)) == 2)
    other.release()
    again = receiver.associate(PLAIN)
    assert again.send_c_store(radiograph(3)).Status == 0x0000
    again.release()
    assert receiver.alive()
    wait_for(lambda: store.receiving_studies() == [])
    studies = [uids for _, uids in claims(store)]
    assert sorted(map(len, studies)) == [1, 1, 1]


def test_what_a_dead_process_left_goes_with_the_next_start(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, processes=1) as receiver:
        link = raw_association(receiver)
        link.sendall(pdu(3, store_command()) + pdu(0, encoded(radiograph(4, rows=800))[:600_000]))
        wait_for(lambda: [path for path in receiver.files("spool/incoming") if path.stat().st_size > 4000] != [])
        (victim,) = children(receiver)
        os.kill(victim.pid, signal.SIGKILL)
        assert link.recv(10) == b""
        link.close()
        assert len(receiver.files("spool/incoming")) == 1
        wait_for(lambda: len(children(receiver)) == 1)
        receiver.dcmtk("echoscu")
        assert receiver.stop() == 0
        receiver.start()
        assert receiver.files("spool/incoming") == []


def test_a_process_that_dies_again_and_again_is_started_less_and_less_often(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, processes=1) as receiver:
        for _ in range(4):
            wait_for(lambda: len(children(receiver)) == 1)
            os.kill(children(receiver)[0].pid, signal.SIGKILL)
            wait_for(lambda: children(receiver) == [])
        receiver.dcmtk("echoscu")  # waits in the kernel until there is a process again
        pauses = [line.split()[-2] for line in receiver.log.read_text().splitlines() if "the next starts in" in line]
        assert pauses == ["0.1", "0.2", "0.4", "0.8"]
        assert receiver.alive()


def test_no_process_outlives_the_receiver(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, processes=2) as receiver:
        link = raw_association(receiver)
        for end in (receiver.kill, receiver.stop):
            wait_for(lambda: len(children(receiver)) == 2)
            alive = children(receiver)
            end()
            wait_for(lambda alive=alive: not any(one.is_running() for one in alive))
            receiver.start()
        link.close()


def test_a_stop_answers_what_was_sent_and_then_aborts(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, processes=2) as receiver:
        associations: list[Association] = [receiver.associate(PLAIN) for _ in range(3)]
        for seed, association in enumerate(associations):
            assert association.send_c_store(radiograph(seed)).Status == 0x0000
        assert receiver.stop() == 0
        for association in associations:
            wait_for(lambda association=association: association.is_aborted)
        assert len(receiver.files("spool/objects")) == 3
        assert receiver.files("spool/incoming") == []


def test_a_stat_request_is_urgent(receiver: ReceiverProcess) -> None:
    routine, stat, high = radiograph(11), radiograph(12), radiograph(13)
    stat.add_new(0x00401003, "SH", "STAT")
    association = receiver.associate(PLAIN)
    assert association.send_c_store(routine).Status == 0x0000
    assert association.send_c_store(stat).Status == 0x0000
    assert association.send_c_store(high, priority=1).Status == 0x0000
    association.release()
    store = receiver.store()
    urgencies = []
    for ds in (routine, stat, high):
        key = store.study_key(ds.StudyInstanceUID)
        assert key is not None
        detail = store.study(key)
        assert detail is not None
        urgencies.append(detail.facts.urgency)
    assert urgencies == [0, 1, 1]
