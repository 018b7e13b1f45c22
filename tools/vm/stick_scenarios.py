"""Scenarios: USB sticks put in and pulled out of a running box."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

from tools.vm.bench import PYTHON, Bench, Findings, look, page, until
from tools.vm.faults import assert_sent
from tools.vm.machine import Machine
from tools.vm.starting import DRAFT_WORDS, wait_for_report
from tools.vm.sticks import Update, image_stick, read_back, study_file, update_stick

BUNDLE: Final = Path(__file__).resolve().parents[2] / "models" / "bundles" / "chest"
SLOW_STICK: Final = 400_000  # bytes a second: the model takes twenty seconds, so that it can be pulled out meanwhile
PULLED_AFTER_BYTES: Final = 3_000_000
TAKEN_S: Final = 600.0
INSTALLED_S: Final = 1800.0  # the self-test reads twenty images on an emulated processor


def stick_images(bench: Bench, found: Findings) -> None:
    """A stick with images and a DICOMDIR is imported by being put in; a second time nothing is taken twice."""
    files = [study_file(bench.folder / "studies", seed) for seed in (1, 2, 3)]
    stick = image_stick(bench.folder / "images.img", bench.folder / "stick-work", files)
    before = stick.read_bytes()
    with bench.resumed(found.name) as machine:
        machine.plug_stick(stick)
        found.say("the stick is in")
        start_s = time.monotonic()
        fact = _import_ended(machine)
        found.figure("put in to imported", f"{time.monotonic() - start_s:.0f} s, 3 images")
        found.check("three images are taken", (fact["code"], fact["taken"]) == ("stick.imported", 3), str(fact))
        found.say(fact["message"])
        records = until("the receiver to file them", lambda: _with_studies(machine, 3), 300, 3)
        sources = {one["from"] for study in records["studies"] for one in study["objects"]}
        found.check("they are filed as three studies from the stick", sources == {"USB-STICK"}, str(sources))
        machine.pull_stick()
        machine.free_stick()
        found.check("nothing is left mounted", machine.sh("grep -q /dev/sd /proc/mounts").code != 0)
        found.check("nothing was written to the stick", stick.read_bytes() == before)
        machine.plug_stick(stick)
        again = _import_ended(machine)
        found.check("put in again, nothing is taken twice", (again["taken"], again["known"]) == (0, 3), str(again))
        report = wait_for_report(machine, 1)
        found.check("the first of them is read", DRAFT_WORDS in report, report[:200])


def stick_update(bench: Bench, found: Findings) -> None:
    """A signed model on a stick is installed by being put in, reads the next study, and the stick gets a receipt."""
    update = _update(bench)
    with bench.resumed(found.name) as machine:
        _trust(machine, update, found)
        assert_sent(machine, study_file(bench.folder / "studies", 1))
        machine.plug_stick(update.image)
        found.say("the stick is in; the self-test takes minutes here")
        start_s = time.monotonic()
        state = _update_ended(machine, INSTALLED_S)
        found.figure("put in to installed", f"{time.monotonic() - start_s:.0f} s")
        found.check("the model is installed", state["last"]["code"] == "update.installed", str(state["last"]))
        found.check("it is in use, on probation", bool(state["active"]) and bool(state["trial"]), str(state))
        until("the unit to end", lambda: _update_idle(machine), 300)
        machine.pull_stick()
        machine.free_stick()
        outbox = read_back(update.image, bench.folder / "outbox")
        found.check("the stick carries a receipt", len(outbox) == 1, str(outbox))
        status, text = page(machine, "/model")
        found.check("the page of the model names it", status == 200 and "9.9.9" in text, f"{status}")
        assert_sent(machine, study_file(bench.folder / "studies", 2))
        wait_for_report(machine, 2, 1800)
        _, document = page(machine, "/study/2/report.json")
        found.check("the next study is read with it", update.manifest_sha256 in document, document[:300])


def stick_pulled(bench: Bench, found: Findings) -> None:
    """A stick pulled out while the box reads it changes nothing; put in again it works as if nothing had been."""
    update = _update(bench)
    with bench.resumed(found.name) as machine:
        _trust(machine, update, found)
        before = _state(machine)
        machine.plug_stick(update.image, "slow", SLOW_STICK)
        until("the box to read the stick", lambda: not _update_idle(machine), 120)
        until("it to be mounted", lambda: _mounted(machine), 300, 0.5)
        mounted = _bytes_read(machine)
        until("a part of the model to be read", lambda: _bytes_read(machine) > mounted + PULLED_AFTER_BYTES, 300, 0.5)
        found.check("it is pulled out while the box reads it", not _update_idle(machine))
        machine.pull_stick("slow")
        state = _update_ended(machine, 600)
        found.check(
            "the box says that it was pulled out", state["last"]["code"] == "update.stick-removed", str(state["last"])
        )
        kept = {key: value for key, value in state.items() if key != "last"}
        found.check("the old state is left", kept == {key: before[key] for key in kept}, f"{kept} for {before}")
        left = machine.sh("ls -A /var/lib/radbox/slots 2>/dev/null").out
        found.check("no half model is left", ".stage" not in left, left)
        until("the unit to end", lambda: _update_idle(machine), 300)
        found.check("nothing is left mounted", machine.sh("grep -q /dev/sd /proc/mounts").code != 0)
        failed = machine.sh("systemctl list-units --failed --no-legend --plain 'radbox*'").out
        found.check("no service failed", not failed, failed)
        assert_sent(machine, study_file(bench.folder / "studies", 1))
        report = wait_for_report(machine, 1)
        found.check("the box goes on: a study is read", DRAFT_WORDS in report, report[:200])


def _update(bench: Bench) -> Update:
    return update_stick(bench.folder / "update.img", bench.folder / "stick-work", BUNDLE)


def _trust(machine: Machine, update: Update, found: Findings) -> None:
    """Have the box trust whoever signed the stick, as if it had been built with their root."""
    machine.shell.put("/run/vm-root.json", update.root)
    where = machine.must(f"{PYTHON} -c 'from edge.trust.root import FACTORY_ROOT; print(FACTORY_ROOT)'")
    machine.must(f"chmod 0644 /run/vm-root.json && mount --bind /run/vm-root.json {where.splitlines()[-1]}")
    found.say("the box trusts the test's keys here, by a bind mount over its trusted_root.json")


def _state(machine: Machine) -> dict[str, Any]:
    out = machine.must("runuser -u radbox-care -- radbox update list --json", 300)
    state = dict(json.loads(out[out.index("{") :])["state"])
    state["last"] = state.get("last") or {"code": ""}
    return state


def _update_ended(machine: Machine, timeout_s: float) -> dict[str, Any]:
    def ended() -> dict[str, Any]:
        state = _state(machine)
        return state if state["last"]["code"] else {}

    found: dict[str, Any] = until("the update to end", ended, timeout_s, 5)
    return found


def _update_idle(machine: Machine) -> bool:
    return not machine.sh("systemctl list-units --state=activating,active --no-legend --plain 'radbox-update@*'").out


def _mounted(machine: Machine) -> bool:
    """True while a stick is mounted, in whichever namespace."""
    return machine.sh("grep -lqs '^/dev/sd' /proc/[0-9]*/mounts").code == 0


def _bytes_read(machine: Machine) -> int:
    """From the stick that is in, by the kernel's count of sectors (512 bytes, iostats.rst)."""
    return 512 * int(machine.must("cat /sys/block/sd*/stat").split()[2])


def _import_ended(machine: Machine) -> dict[str, Any]:
    """The fact "stick" of an import that ended after this call. Its unit has ended too."""
    until("the import to start", lambda: not _update_idle(machine), 120, 0.5)
    until("the import to end", lambda: _update_idle(machine), TAKEN_S)
    return dict(look(machine)["facts"].get("stick") or {"code": "", "taken": -1, "known": -1, "message": "no fact"})


def _with_studies(machine: Machine, count: int) -> dict[str, Any]:
    records = look(machine)
    return records if len(records["studies"]) == count else {}
