"""The faults and what the box promises in each. A scenario yields what it checked: (sentence, whether it held)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tools.chaos.box import ROOT, Box, study
from tools.chaos.disk import FaultyDisk

MIB = 2**20
OUT_OF_RESOURCES = 0xA700
Checks = Iterator[tuple[str, bool]]


@dataclass(frozen=True)
class Scenario:
    """`run` gets an empty folder."""

    promise: str
    run: Callable[[Path], Checks]


@contextlib.contextmanager
def _disk(folder: Path, size_bytes: int = 400 * MIB, **options: object) -> Iterator[FaultyDisk]:
    disk = FaultyDisk(folder / "disk", size_bytes, **options)  # type: ignore[arg-type]
    disk.plug()
    try:
        yield disk
    finally:
        disk.heal()
        disk.unplug()


def _kept_and_read(box: Box, seconds: float = 60.0) -> Checks:
    yield "every study ends read or refused", box.wait(lambda: box.unsettled() == 0, seconds)
    yield "nothing acknowledged is lost", box.lost() == []
    yield "no study failed", "failed" not in box.states()


def no_space(folder: Path) -> Checks:
    """ENOSPC: something else fills the disk to the last byte."""
    with _disk(folder) as disk, Box(folder / "box", disk.mount / "data") as box:
        yield "images are taken before", box.send_many(2) == [0, 0]
        yield from _kept_and_read(box)
        filler = disk.mount / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(MIB))
        yield "new images are refused with 0xA700", box.send_many(2) == [OUT_OF_RESOURCES] * 2
        yield "the page says that storage is full", box.wait(lambda: "storage.full" in box.codes(), 20)
        yield "the page still opens", box.page("") is not None
        filler.unlink()
        yield "images are taken again", box.wait(lambda: box.send(study()) == 0, 30)
        yield from _kept_and_read(box)


def write_errors(folder: Path) -> Checks:
    """EIO: every write fails for a while; the file system gives up; the disk is repaired and mounted anew."""
    yield from _failing(folder, "errors=continue")


def read_only(folder: Path) -> Checks:
    """The kernel remounts a damaged file system read-only."""
    yield from _failing(folder, "errors=remount-ro")


def _failing(folder: Path, options: str) -> Checks:
    with _disk(folder, options=options) as disk:
        box = Box(folder / "box", disk.mount / "data")
        with box:
            yield "images are taken before", box.send_many(2) == [0, 0]
            disk.fail()
            during = box.send_many(4, 0.5)
            yield "no image is acknowledged once writes fail", 0 not in during[1:]
            if during[0] == 0:  # its bytes were flushed before the first failing write
                yield "the first one was safe", True
        disk.heal()
        disk.unplug()
        disk.repair()
        disk.plug()
        after = Box(folder / "box2", disk.mount / "data")
        after.acknowledged.extend(box.acknowledged)
        with after:
            yield "images are taken after the repair", after.send(study()) == 0
            yield from _kept_and_read(after)


def slow_disk(folder: Path) -> Checks:
    """Every write takes 30 ms longer, as on a worn SD card."""
    with _disk(folder, delay_ms=30) as disk, Box(folder / "box", disk.mount / "data") as box:
        yield "images are taken", box.send_many(4) == [0] * 4
        yield from _kept_and_read(box, 120)
        yield "no service was started again", not any(box.restarts.values())


def out_of_memory(folder: Path) -> Checks:
    """The kernel's OOM killer ends the process that uses most memory, in the middle of its work, three times."""
    with Box(folder / "box", folder / "data") as box:
        for _ in range(3):
            yield "an image is taken", box.send(study()) == 0
            time.sleep(0.6)
            worker = psutil.Process(box.services["worker"].pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                family = [*worker.children(recursive=True), worker]
                max(family, key=lambda one: one.memory_info().rss).kill()
        yield from _kept_and_read(box)
        yield "the page still opens", box.page("") is not None


def accelerator(folder: Path) -> Checks:
    """The preferred accelerator is gone; then no backend is left; then the model comes back."""
    bundle = folder / "bundle"
    shutil.copytree(ROOT / "models" / "bundles" / "chest", bundle)
    with Box(folder / "box", folder / "data", bundle=bundle, backends=("tensorrt", "tflite")) as box:
        yield "an image is taken", box.send(study()) == 0
        yield "the page names the fall-back", box.wait(lambda: any(c.startswith("backend.") for c in box.codes()), 30)
        yield from _kept_and_read(box)
        model = next(bundle.glob("*.tflite"))
        content = model.read_bytes()
        model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.killpg(box.services["worker"].pid, signal.SIGKILL)
        yield "AI paused is said", box.wait(lambda: any(c.startswith("bundle.") for c in box.codes()), 30)
        yield "images are still taken", box.send_many(3) == [0] * 3
        model.write_bytes(content)
        os.killpg(box.services["worker"].pid, signal.SIGKILL)
        yield from _kept_and_read(box)


def clock_steps(folder: Path) -> Checks:
    """The wall clock jumps 50 years ahead and 50 back while the box works. The monotonic clock is the kernel's own."""
    stamp = folder / "clock"
    stamp.write_text("+0")
    environment = {
        "LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with Box(folder / "box", folder / "data", environment=environment) as box:
        for jump in ("+50y", "-50y", "+0"):
            stamp.write_text(jump)
            yield f"an image is taken at {jump}", box.send(study()) == 0
            yield f"it is read at {jump}", box.wait(lambda: box.unsettled() == 0, 60)
            yield f"the page opens at {jump}", box.page("") is not None
            with box.store() as store:
                for row in store.studies():
                    store.mark_exported(row.study_key)
        with box.store() as store:
            years = {time.gmtime(row.arrived_unix_s).tm_year - time.gmtime().tm_year for row in store.studies()}
        yield "the services did see the clock jump", min(years) < -48 and max(years) > 48
        yield "retention took nothing", len(box.states()) == 3
        yield from _kept_and_read(box)


def half_open(folder: Path) -> Checks:
    """Senders freeze in the middle of an object and never say another word."""
    with Box(folder / "box", folder / "data", network_timeout_s=3) as box:
        frozen = [_freeze(box) for _ in range(8)]
        yield "others are served meanwhile", box.send_many(3) == [0] * 3
        yield "frozen associations are dropped", box.wait(lambda: box.temporary_files() == 0, 15)
        yield "all places are free again", box.wait(lambda: _established(box) == 0, 15)
        for one in frozen:
            one.close()
        yield from _kept_and_read(box)


def _request(called: bytes = b"RADBOX") -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2) for DX in explicit VR little endian, hand-made: a peer that can misbehave."""

    def item(kind: int, content: bytes) -> bytes:
        return bytes([kind, 0]) + len(content).to_bytes(2, "big") + content

    context = bytes([1, 0, 0, 0]) + item(0x30, b"1.2.840.10008.5.1.4.1.1.1.1") + item(0x40, b"1.2.840.10008.1.2.1")
    user = item(0x51, (16384).to_bytes(4, "big")) + item(0x52, b"1.2.3.4")
    body = bytes([0, 1, 0, 0]) + called.ljust(16) + b"CHAOS".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    return bytes([1, 0]) + len(body).to_bytes(4, "big") + body


def _store_start() -> bytes:
    """P-DATA-TF with a C-STORE-RQ and the first fragment of a data set that never goes on."""

    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return (0).to_bytes(2, "little") + number.to_bytes(2, "little") + len(value).to_bytes(4, "little") + value

    fields = element(0x0002, b"1.2.840.10008.5.1.4.1.1.1.1") + element(0x0100, (1).to_bytes(2, "little"))
    fields += element(0x0110, (1).to_bytes(2, "little")) + element(0x0700, (0).to_bytes(2, "little"))
    fields += element(0x0800, (1).to_bytes(2, "little")) + element(0x1000, b"1.2.3.4.5")
    command = element(0x0000, len(fields).to_bytes(4, "little")) + fields
    values = b""
    for control, content in ((3, command), (0, bytes(4000))):
        values += (len(content) + 2).to_bytes(4, "big") + bytes([1, control]) + content
    return bytes([4, 0]) + len(values).to_bytes(4, "big") + values


def _freeze(box: Box) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", box.port), timeout=10)
    link.sendall(_request())
    if link.recv(1)[:1] != b"\x02":
        raise RuntimeError("expected A-ASSOCIATE-AC")
    link.sendall(_store_start() + b"\x04\0")  # and the beginning of a PDU that never ends
    return link


def _established(box: Box) -> int:
    """Connections of the receiver."""
    try:
        services = psutil.Process(box.services["receive"].pid)
        return sum(
            one.status == psutil.CONN_ESTABLISHED
            for process in (services, *services.children(recursive=True))
            for one in process.net_connections("tcp")
        )
    except psutil.NoSuchProcess:
        return 0


def aborted(folder: Path) -> Checks:
    """Senders that end in the middle: A-ABORT, a closed connection, a reset; 120 of them."""
    with Box(folder / "box", folder / "data") as box:
        for number in range(120):
            with contextlib.suppress(OSError, RuntimeError):
                link = _freeze(box)
                if number % 3 == 0:
                    link.sendall(bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
                elif number % 3 == 1:
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4))
                link.close()
        yield "no unfinished file stays", box.wait(lambda: box.temporary_files() == 0, 15)
        yield "no place stays taken", box.wait(lambda: _established(box) == 0, 15)
        yield "images are taken", box.send_many(2) == [0, 0]
        yield "the receiver was not started again", box.restarts["receive"] == 0
        yield from _kept_and_read(box)


def crowd(folder: Path) -> Checks:
    """300 associations at once, 10 places: each gets a place or a rejection, and comes in when it tries again."""
    with Box(folder / "box", folder / "data") as box:
        before = _memory(box)
        template = study()
        datasets = [template, *(_small(template, number) for number in range(1, 300))]

        def persistent(dataset: Dataset) -> bool:
            deadline_s = time.monotonic() + 120
            while time.monotonic() < deadline_s:
                if box.send(dataset) == 0:
                    return True
                time.sleep(0.5)
            return False

        with ThreadPoolExecutor(300) as pool:
            kept = list(pool.map(persistent, datasets))
        yield "all 300 are taken in the end", all(kept)
        yield "some had to try again", None in box.statuses
        yield "the receiver was not started again", box.restarts["receive"] == 0
        yield "its memory stayed within 100 MiB more", _memory(box) - before < 100 * MIB
        yield "no place stays taken", box.wait(lambda: _established(box) == 0, 40)
        yield "nothing acknowledged is lost", box.lost() == []
        yield "every study ends read or refused", box.wait(lambda: box.unsettled() == 0, 240)


def _small(template: Dataset, number: int) -> Dataset:
    """Too small to be read: it is refused, which is quick."""
    one = deepcopy(template)
    one.Rows = one.Columns = 16
    one.PixelData = bytes(512)
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    one.StudyInstanceUID, one.PatientID = generate_uid(), f"CROWD-{number}"
    return one


def _memory(box: Box) -> int:
    receiver = psutil.Process(box.services["receive"].pid)
    return sum(one.memory_info().rss for one in (receiver, *receiver.children(recursive=True)))


SCENARIOS: dict[str, Scenario] = {
    "no-space": Scenario(
        "A full disk refuses new images with 0xA700 and says so; page and reading go on; nothing is lost.", no_space
    ),
    "write-errors": Scenario("Failing writes never become a Success; after the repair all is there.", write_errors),
    "read-only": Scenario("The same when the kernel makes the file system read-only.", read_only),
    "slow-disk": Scenario("A slow disk makes the box slow and nothing else.", slow_disk),
    "out-of-memory": Scenario("A killed process is started again and its study is read later, once.", out_of_memory),
    "accelerator": Scenario(
        "A lost accelerator means the next backend, then 'AI paused, images safe', then catching up.", accelerator
    ),
    "clock-steps": Scenario("A wrong clock changes nothing but the dates that people see.", clock_steps),
    "half-open": Scenario("Silent senders lose their place; others are served meanwhile.", half_open),
    "aborted": Scenario("Associations that end in the middle leave nothing behind.", aborted),
    "crowd": Scenario("300 associations at once are served or turned away, and all come in by trying again.", crowd),
}


def ready() -> str:
    """What keeps this machine from running all scenarios; empty if nothing does."""
    if os.geteuid() != 0:
        return "chaos needs root, to mount"
    lacking = [program for program in ("nbdkit", "nbdfuse", "mkfs.ext4") if shutil.which(program) is None]
    return f"chaos needs {', '.join(lacking)}" if lacking else ""
