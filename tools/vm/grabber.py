"""Scenario: a frame grabber, which the kernel's own test driver (vivid) plays."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Final

from tools.vm.bench import Bench, Findings, look, page, until
from tools.vm.machine import Machine

BARS, SQUARES = 0, 4  # vivid's "75% Colorbar", which means no signal to us, and "100% Color Squares"
STATE_S: Final = 180.0
# VIDIOC_S_CTRL (videodev2.h) of vivid's "Test Pattern", "OSD Text Mode" and "Horizontal Movement" (vivid-ctrls.c, class
# base + 0, 1, 2): the machine's picture moves and has writing on it; bars stand still and have none.
PATTERN: Final = """\
import fcntl, os, struct, sys
device = os.open("/dev/video0", os.O_RDWR)
for number, value in enumerate(map(int, sys.argv[1:])):
    fcntl.ioctl(device, 0xC008561C, struct.pack("Ii", 0xF0F000 + number, value))
"""


def grabber(bench: Bench, found: Findings) -> None:
    """A press takes the picture; no signal and an unplugged grabber are seen and said; it is found again."""
    with bench.resumed(found.name) as machine:
        machine.must("modprobe vivid n_devs=1 && udevadm settle", 120)
        machine.shell.put("/run/vm-pattern.py", PATTERN.encode())
        _show_pattern(machine, SQUARES)
        machine.must('sed -i \'s,^source = "",source = "/dev/video0",\' /etc/radbox/board.toml')
        machine.must("systemctl restart radbox-capture radbox-web radbox-receive", 600)
        fact = _until_state(machine, "ok")
        found.check("the picture of the machine is seen", bool(fact), str(fact))
        said = _press(machine)
        found.check("a press takes it", "Picture taken" in said, said[:400])
        records = until("the study", lambda: _with_study(machine), 300, 3)
        sources = [one["from"] for study in records["studies"] for one in study["objects"]]
        found.check("and it becomes a study from the grabber", sources == ["GRABBER"], str(sources))
        _show_pattern(machine, BARS)
        fact = _until_state(machine, "no-signal")
        found.check("colour bars are no signal", bool(fact), str(fact))
        said = _press(machine)
        found.check("then a press takes nothing, and says so", "No picture taken" in said, said[:400])
        machine.must("echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind")
        fact = _until_state(machine, "stale")
        found.check("an unplugged grabber is seen", bool(fact), str(fact))
        machine.must("echo vivid.0 > /sys/bus/platform/drivers/vivid/bind && udevadm settle")
        _show_pattern(machine, SQUARES)
        fact = _until_state(machine, "ok")
        found.check("plugged in again, it is found", bool(fact), str(fact))


def _show_pattern(machine: Machine, number: int) -> None:
    machine.must(f"python3 /run/vm-pattern.py {number} {'2 3' if number == BARS else '0 5'}")


def _until_state(machine: Machine, state: str) -> dict[str, Any]:
    def fact() -> dict[str, Any]:
        value: dict[str, Any] = look(machine)["facts"].get("grabber", {})
        return value if value.get("state") == state else {}

    found: dict[str, Any] = until(f"the grabber to be {state}", fact, STATE_S, 3)
    return found


def _press(machine: Machine) -> str:
    """What the page says after the button was pressed, as a browser does it."""
    _, form = page(machine, "/grabber")
    token = re.search(r'name="token" value="([^"]+)"', form)
    if token is None:
        return form
    origin = f"http://127.0.0.1:{machine.web_port}"
    content = urllib.parse.urlencode({"token": token[1]}).encode()
    request = urllib.request.Request(f"{origin}/grabber/take", content, {"Origin": origin})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            path = urllib.parse.urlsplit(answer.url).path
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read().decode(errors='replace')}"
    return str(until("an answer to the press", lambda: _answered(machine, path), 120, 2))


def _answered(machine: Machine, path: str) -> str:
    _, text = page(machine, path)
    return "" if "Taking the picture" in text else text


def _with_study(machine: Machine) -> dict[str, Any]:
    records = look(machine)
    return records if records["studies"] else {}
