"""systemd's own opinion of every unit, and what the units promise each other and the package."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge.__main__ import SERVICES
from tools import units

UNITS = units.UNITS
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")


def keys(name: str) -> dict[str, list[str]]:
    """Key -> values of a unit file, all sections together."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if match := re.match(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


@needs_systemd
@pytest.mark.requirement("SEC-04")
def test_verify_is_silent_and_no_unit_gives_much_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert units.main() == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert len(told.out.splitlines()) == len(units.unit_files())


@needs_systemd
def test_an_unknown_key_is_found_though_verify_ends_well(tmp_path: Path) -> None:
    root = units.stand_in(tmp_path)
    unit = root / units.PLACE / "radbox-web.service"
    unit.write_text(unit.read_text().replace("PrivateIPC=", "PrivateIpc="))
    (complaint,) = units.verify(root, ["radbox-web.service"])
    assert "Unknown key" in complaint
    assert "PrivateIpc" in complaint


@needs_systemd
def test_an_open_unit_scores_badly(tmp_path: Path) -> None:
    root = units.stand_in(tmp_path)
    unit = root / units.PLACE / "radbox-web.service"
    unit.write_text("[Service]\nExecStart=/opt/radbox/bin/radbox web\n")
    assert units.exposures(root, ["radbox-web.service"])["radbox-web.service"] > units.WORST


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.requirement("SEC-04")
def test_every_service_has_a_unit_of_its_own_user(service: str) -> None:
    unit = keys(f"radbox-{service}.service")
    assert unit["ExecStart"] == [f"/opt/radbox/bin/radbox {service}"]
    assert (unit["User"], unit["Group"], unit["UMask"]) == ([f"radbox-{service}"], ["radbox"], ["0007"])
    assert unit["WantedBy"] == unit["PartOf"] == ["radbox.target"]
    assert unit["StartLimitIntervalSec"] == ["0"]  # a box is never given up
    assert {"WatchdogSec", "MemoryHigh", "MemoryMax", "TasksMax", "RestartSec"} <= unit.keys()
    assert "radbox-db-key" in unit["LoadCredential"]
    assert re.search(rf"^u radbox-{service} +-:radbox ", (UNITS / "radbox.sysusers").read_text(), re.MULTILINE)


def test_every_unit_is_of_a_service_that_exists() -> None:
    named = {path.name.removeprefix("radbox-").removesuffix(".service") for path in UNITS.glob("radbox-*.service")}
    assert named - {"update@", "clock"} == set(SERVICES)


@pytest.mark.parametrize("service", ["worker", "care"])
@pytest.mark.requirement("SEC-04")
def test_what_needs_no_network_has_none(service: str) -> None:
    unit = keys(f"radbox-{service}.service")
    assert (unit["PrivateNetwork"], unit["RestrictAddressFamilies"]) == (["yes"], ["AF_UNIX"])


@pytest.mark.parametrize("service", ["receive", "web", "worker", "care", "link"])
def test_only_panel_and_capture_have_devices(service: str) -> None:
    unit = keys(f"radbox-{service}.service")
    assert (unit["PrivateDevices"], unit["DevicePolicy"]) == (["yes"], ["closed"])
    assert "DeviceAllow" not in unit


def test_the_receiver_waits_for_no_other_service_and_all_wait_for_it() -> None:
    assert not any("radbox-" in value for value in keys("radbox-receive.service")["After"])
    assert "radbox-receive.service" in keys("radbox-worker.service")["After"][0]
    weights = {name: int(keys(f"radbox-{name}.service")["CPUWeight"][0]) for name in SERVICES}
    assert max(weights, key=weights.__getitem__) == "receive"
    assert min(weights.values()) == weights["worker"]
    assert int(keys("radbox-worker.service")["WatchdogSec"][0]) >= 180  # its longest stage


def test_those_that_may_not_change_images_cannot() -> None:
    for service in set(SERVICES) - {"receive", "care"}:
        (readable,) = keys(f"radbox-{service}.service")["ReadOnlyPaths"]
        assert readable.split() == ["-/var/lib/radbox/spool", "-/var/lib/radbox/quarantine"]
    made = (UNITS / "radbox.tmpfiles").read_text()
    for folder in ("spool", "quarantine"):  # a path that is not there when a service starts is not protected
        assert f"d /var/lib/radbox/{folder} " in made


def test_the_hardware_watchdog_is_used_within_what_boards_can_count() -> None:
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / "radbox-watchdog.conf")
    assert parser["Manager"]["RuntimeWatchdogSec"] == "14s"
    assert "RebootWatchdogSec" in parser["Manager"]


@pytest.mark.skipif(not shutil.which("udevadm"), reason="needs udev")
def test_the_rules_are_understood() -> None:
    for rules in UNITS.glob("*.rules"):
        done = subprocess.run(["udevadm", "verify", str(rules)], capture_output=True, text=True, check=False)
        if "Unknown command verb" not in done.stderr:  # systemd 252 has no `verify` yet
            assert done.returncode == 0, done.stderr
