"""Scenarios: the box starts, by both ways, and does its main job."""

from __future__ import annotations

from typing import Final

from tools.vm.bench import SERVICES, Bench, Findings, look, page, send, settle, show, until
from tools.vm.machine import Machine
from tools.vm.sticks import study_file

READY_TARGET_S: Final = 60.0  # boot to receiving, on a board
REPORT_S: Final = 900.0  # an emulated processor, on a host that does other things too
DRAFT_WORDS: Final = "DRAFT - NOT SIGNED"


def boots(bench: Bench, found: Findings) -> None:
    """From power on until every service works; its end is the snapshot that the other scenarios start from."""
    with bench.cold(found.name, bench.new_disk()) as machine:
        found.say("starting; this takes a minute or more")
        machine.hello()
        found.say("the system is up; waiting for the services")
        _wait_for_receiver(machine, found)
        word = settle(machine)
        failed = machine.sh("systemctl list-units --failed --no-legend --plain").out
        found.check("systemd calls the whole running", word == "running", f"{word}; failed: {failed}")
        for name in SERVICES:
            state = show(machine, f"radbox-{name}", "ActiveState")
            found.check(f"radbox-{name} is active", state == "active", state)
        quiet = {name: show(machine, f"radbox-{name}", "Result") for name in ("panel", "capture")}
        bad = {name: word for name, word in quiet.items() if word != "success"}
        found.check("panel and grabber, which this box has not, end without a fault", not bad, str(bad))
        restarts = {name: int(show(machine, f"radbox-{name}", "NRestarts")) for name in SERVICES}
        found.check("no service was restarted", not any(restarts.values()), str(restarts))
        found.figure("systemd-analyze", machine.must("systemd-analyze time").splitlines()[0])
        _disk(machine, found)
        watchdog = machine.must("cat /sys/class/watchdog/watchdog0/{identity,state,timeout}").split("\n")
        found.check("systemd feeds the hardware watchdog", watchdog[1:2] == ["active"], str(watchdog))
        found.check("root is locked", machine.must("passwd --status root").split()[1] == "L")
        log = machine.must("journalctl --boot --priority=err --no-pager --output=cat")
        found.note(f"journal, errors:\n{log}")
        found.note(machine.must("systemd-analyze blame --no-pager | head -20"))
        rows = until("every service to say how it is", lambda: _rows(machine), 600, 5)
        bad = {name: row for name, row in rows.items() if row[0] != "ok"}
        found.check("every service says that it is well", not bad, str(bad))
        bench.keep(machine)
        machine.end()


def uefi(bench: Bench, found: Findings) -> None:
    """By the firmware and the boot loader of the image, as on a PC."""
    with bench.cold(found.name, bench.new_disk("uefi"), firmware=True) as machine:
        machine.hello()
        _wait_for_receiver(machine, found)
        options = machine.must("cat /proc/cmdline")
        found.check("the boot loader's command line is in use", bench.options in options, options)
        found.check("it was started by UEFI", machine.sh("test -d /sys/firmware/efi").code == 0)
        machine.end()


def receives(bench: Bench, found: Findings) -> None:
    """The main job: an image by DICOM, a draft on the page."""
    with bench.resumed(found.name) as machine:
        file = study_file(bench.folder / "studies", 1)
        sent = send(machine, file)
        found.check("storescu is told that the image is safe", sent.returncode == 0, sent.stderr[-400:])
        report = wait_for_report(machine, 1)
        found.check("the report is a draft, and says so", DRAFT_WORDS in report, report[:200])
        found.note(report)
        status, text = page(machine, "/study/1")
        found.check("the page of the study shows it", status == 200 and DRAFT_WORDS in text, f"{status}: {text[:200]}")
        status, picture = page(machine, "/study/1/image.png")
        found.check("with its picture", status == 200 and "PNG" in picture[:8], f"{status}")
        taken = machine.must("journalctl --unit 'radbox-*' --boot --output=cat --no-pager")
        found.check("no log line names the patient", "VM-0" not in taken and "PHANTOM" not in taken)
        studies = look(machine)["studies"]
        found.check("one study, one image", [len(one["objects"]) for one in studies] == [1], str(studies))


def wait_for_report(machine: Machine, key: int, timeout_s: float = REPORT_S) -> str:
    """The text of a study's report, once there is one. Raises VmError."""

    def report() -> str:
        status, text = page(machine, f"/study/{key}/report.txt")
        return text if status == 200 else ""

    return str(until(f"a report of study {key}", report, timeout_s, 2.0))


def _wait_for_receiver(machine: Machine, found: Findings) -> None:
    """Note when the receiver said READY, by the machine's own clock and by the processor time that QEMU used."""
    until(
        "the receiver to be ready", lambda: machine.sh("systemctl is-active radbox-receive").out == "active", 900, 0.5
    )
    cpu_s = machine.cpu_s()
    ready_s = int(show(machine, "radbox-receive", "ActiveEnterTimestampMonotonic")) / 1e6
    told = (
        f"{ready_s:.0f} s without KVM, {cpu_s:.0f} s of processor by QEMU; a board's target is {READY_TARGET_S:.0f} s"
    )
    found.figure("kernel start to radbox-receive READY", told)


def _disk(machine: Machine, found: Findings) -> None:
    line = machine.must("findmnt --noheadings --output SIZE,OPTIONS --bytes /var/lib/radbox").split()
    found.check("the data partition has grown to the end of the disk", int(line[0]) > 8 << 30, line[0])
    wanted = {"nosuid", "nodev", "noexec"}
    found.check("nothing on it can be started", wanted <= set(line[1].split(",")), line[1])


def _rows(machine: Machine) -> dict[str, list[str]]:
    """How each service says it is; {} until all but the page, which people see for themselves, have said something."""
    rows: dict[str, list[str]] = look(machine)["services"]
    return rows if set(SERVICES) - {"web"} <= set(rows) else {}
