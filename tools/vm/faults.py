"""Scenarios: something hangs, everything hangs, the power goes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydicom import dcmread

from tools.image.rootfs import run
from tools.powercut.objects import make_object
from tools.vm.bench import DISK_BYTES, Bench, Findings, look, page, send, settle, show, until
from tools.vm.machine import Machine
from tools.vm.starting import DRAFT_WORDS, wait_for_report
from tools.vm.sticks import study_file
from tools.vm.wire import VmError

SHORT_WATCHDOG_S: Final = 60  # instead of the unit's minutes; the worker's own silences on this machine are shorter
DROP_IN: Final = "/run/systemd/system/radbox-worker.service.d/vm-test.conf"
ISSUE: Final = "issue.watchdog-reset"
OBJECTS: Final = 200  # more than are sent before the power goes


def hung_worker(bench: Bench, found: Findings) -> None:
    """A worker that stands still in the middle of a study is ended by systemd's watchdog; then it is read."""
    with bench.resumed(found.name) as machine:
        machine.must(f"mkdir -p {Path(DROP_IN).parent}")
        machine.shell.put(DROP_IN, f"[Service]\nWatchdogSec={SHORT_WATCHDOG_S}\n".encode())
        machine.must("systemctl daemon-reload && systemctl restart radbox-worker", 600)
        found.say(f"WatchdogSec of the worker is {SHORT_WATCHDOG_S} s here, by a drop-in in /run")
        until("the worker to be ready", lambda: show(machine, "radbox-worker", "ActiveState") == "active", 600)
        before = int(show(machine, "radbox-worker", "NRestarts"))
        assert_sent(machine, study_file(bench.folder / "studies", 1))
        until("the worker to read", lambda: look(machine)["studies"][0]["state"] in ("reading", "draft"), 300)
        machine.must(f"kill -STOP {show(machine, 'radbox-worker', 'MainPID')}")
        start_s = time.monotonic()
        found.say("the worker stands still (SIGSTOP)")
        until("a restart", lambda: int(show(machine, "radbox-worker", "NRestarts")) > before, 600, 2)
        found.figure("hang to restart", f"{time.monotonic() - start_s:.0f} s (WatchdogSec {SHORT_WATCHDOG_S} s)")
        log = machine.must("journalctl --unit radbox-worker --boot --output=cat --no-pager")
        found.check("systemd's watchdog did it", "Watchdog timeout" in log, log[-400:])
        found.check("the page goes on meanwhile", page(machine, "/")[0] == 200)
        report = wait_for_report(machine, 1)
        found.check("the study is read after the restart", DRAFT_WORDS in report, report[:200])
        after = int(show(machine, "radbox-worker", "NRestarts"))
        found.check("one restart, no storm", after == before + 1, f"{after - before} restarts")


def frozen_pid1(bench: Bench, found: Findings) -> None:
    """systemd itself stands still; only the hardware watchdog is left, and resets the machine."""
    with bench.resumed(found.name) as machine:
        assert_sent(machine, study_file(bench.folder / "studies", 1))
        before = [one["uid"] for study in look(machine)["studies"] for one in study["objects"]]
        boot = machine.must("cat /proc/sys/kernel/random/boot_id")
        machine.must("sync")
        news, events = machine.news_seen(), len(machine.qmp.line.news)
        machine.must("kill -SEGV 1")  # systemd then stops for good: "Freezing execution"
        frozen_s = time.monotonic()
        found.say("PID 1 is frozen")
        at_s, event = machine.qmp.line.wait_news("event", "WATCHDOG", events, 300)
        found.figure("frozen to reset", f"{at_s - frozen_s:.0f} s")
        found.check("the watchdog reset the machine", event["data"]["action"] == "reset", str(event))
        found.check("it started again", machine.hello(news) != boot)
        settle(machine)
        records = until("the reason to be told", lambda: _with_boot_reason(machine), 300, 5)
        reason = records["facts"]["boot"]
        found.check("radbox says that the watchdog reset it", reason["reason"] == "watchdog", str(reason))
        codes = [code for code, _ in records["events"]]
        found.check("and keeps it as an event", "box.reset-watchdog" in codes, str(codes))
        told = until("an issue about it", lambda: ISSUE in look(machine)["issues"], 120, 5)
        _, text = page(machine, "/issues")
        found.check("and the page tells people", told and ISSUE in text, text[-600:])
        after = [one["uid"] for study in records["studies"] for one in study["objects"]]
        found.check("the image that it had is there", after == before, f"{after} for {before}")
        report = wait_for_report(machine, 1)
        found.check("and is read now", DRAFT_WORDS in report, report[:200])


def power(bench: Bench, found: Findings) -> None:
    """The plug is pulled while images come in. The disk has a write cache that is lost with the power (nbdkit)."""
    folder = bench.folder / "power-disk"
    shutil.rmtree(folder, ignore_errors=True)
    files = _objects(folder / "objects")
    disk = folder / "disk.img"
    run("cp", "--sparse=always", bench.image, disk)
    with disk.open("r+b") as stream:
        stream.truncate(DISK_BYTES)
    with _volatile(disk, folder) as (address, cut), bench.cold(found.name, address) as machine:
        machine.hello()
        settle(machine)
        machine.must("sync")
        acknowledged: list[Path] = []
        sender = threading.Thread(target=_send_all, args=(machine, files, acknowledged), daemon=True)
        sender.start()
        until("twenty images", lambda: len(acknowledged) >= 20, 600, 0.1)
        machine.must("echo x > /var/lib/radbox/vm-control-unsynced")  # a control that nobody syncs
        cut()
        machine.pull_the_plug()
        told = list(acknowledged)
        sender.join(120)
        found.say(f"power is cut; {len(told)} images had been acknowledged")
    with bench.cold(f"{found.name}-after", str(disk)) as machine:
        machine.hello()
        word = settle(machine)
        found.check("it starts again, and all is running", word == "running", word)
        # Its name may have become durable with a neighbour's; its bytes, which nobody synced, must not.
        lost = machine.sh("grep -qx x /var/lib/radbox/vm-control-unsynced").code != 0
        found.check("control: what nobody synced is lost", lost)
        records = look(machine)
        here = {one["uid"]: one["sha256"] for study in records["studies"] for one in study["objects"]}
        missing = [path.name for path in told if str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) not in here]
        found.check("every acknowledged image is there", bool(told) and not missing, f"{len(missing)} of {len(told)}")
        found.figure("acknowledged, lost", f"{len(told)}, {len(missing)}")
        said = machine.sh("runuser -u radbox-care -- radbox fsck", 900)
        found.check("radbox fsck finds nothing", said.code == 0, said.out[-500:])
        reason = records["facts"].get("boot", {})
        found.check("radbox says that the power was lost", bool(reason.get("power_lost")), str(reason))
        machine.end()


def assert_sent(machine: Machine, file: Path) -> None:
    """Send one file. Raises VmError when it is not taken."""
    sent = send(machine, file)
    if sent.returncode:
        raise VmError(f"expected the image to be taken, got: {sent.stderr[-300:]}")


def _with_boot_reason(machine: Machine) -> dict[str, object]:
    """The records, once care has told why this boot came about; {} before."""
    records = look(machine)
    boot_id = machine.must("cat /proc/sys/kernel/random/boot_id")
    return records if records["facts"].get("boot", {}).get("boot_id") == boot_id else {}


def _objects(folder: Path) -> list[Path]:
    """Files of noise, 0.5 MB each, as many as nobody waits for."""
    folder.mkdir(parents=True)
    paths = []
    for number in range(OBJECTS):
        path = folder / f"{number:04d}.dcm"
        make_object(1, number).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _send_all(machine: Machine, files: list[Path], acknowledged: list[Path]) -> None:
    """One association for each, until the machine is gone; what Success was said of is noted at once."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        for file in files:
            if send(machine, file, timeout_s=120).returncode:
                return
            acknowledged.append(file)


@contextmanager
def _volatile(disk: Path, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of `disk` behind a cache that forgets, and the function that cuts its power."""
    socket, cache = folder / "nbd.sock", folder / "cache"
    cache.mkdir()
    command = ["nbdkit", "--foreground", "--unix", str(socket), "--filter=cache", "file", str(disk)]
    command += ["cache=writeback", "cache-min-block-size=4K"]
    with (folder / "nbdkit.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(cache)}, stdout=log, stderr=log)

    def cut() -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    try:
        until("nbdkit to listen", socket.exists, 30, 0.1)
        yield f"nbd+unix:///?socket={socket}", cut
    finally:
        cut()
