"""The simulated board: every value of its file, healthy without one, and a clear word about a wrong one."""

from __future__ import annotations

import pytest

from edge.board import load_board
from edge.care.boot import Mark, write_mark
from edge.care.hardware import Boot, open_hardware
from edge.care.hardware.sim import SimulatedHardware, load_state
from edge.errors import ConfigError
from tests.care_box import ROOT
from tests.hardware_trees import board_with

EVERYTHING = """
throttled = true
throttled_since_boot = true
undervoltage = true
undervoltage_since_boot = true
overcurrent = true
power = "battery"
free_bytes = 1000
total_bytes = 2000
load_1m = 3.5
memory_free_bytes = 4000
uptime_s = 50.0
[temperatures_c]
"soc" = 82.5
[wear_percent]
"nvme0" = 91
[accelerators]
"/dev/hailo0" = false
[clock]
state = "stepped"
synchronised = true
rtc = false
stepped_by_s = -3600
[boot]
cause = "watchdog"
detail = "As asked."
panic = false
[accelerator]
state = "ok"
"""


def simulated(folder, text=None, **hardware) -> SimulatedHardware:
    path = folder / "box.toml"
    if text is not None:
        path.write_text(text)
    opened = open_hardware(board_with(folder, kind="sim", state_file=str(path), **hardware))
    assert isinstance(opened, SimulatedHardware)
    return opened


def test_the_board_of_the_laptop_is_simulated():
    assert load_board(ROOT / "board_configs" / "sim.toml").hardware.kind == "sim"


@pytest.mark.parametrize("text", [None, ""])
def test_without_a_word_the_box_is_healthy(tmp_path, text):
    readings = simulated(tmp_path, text, accelerators=("/dev/hailo0",)).read()
    assert readings.temperatures_c == {"cpu-thermal": 45.0}
    assert (readings.throttled, readings.undervoltage, readings.overcurrent) == (False, False, False)
    assert (readings.clock.state, readings.power) == ("set", "mains")
    assert readings.accelerators == {"/dev/hailo0": True}
    assert readings.total_bytes
    assert readings.total_bytes > 2**20


def test_every_value_can_be_set(tmp_path):
    hardware = simulated(tmp_path, EVERYTHING, accelerators=("/dev/hailo0", "/dev/hailo1"))
    readings = hardware.read()
    assert readings.throttled
    assert readings.throttled_since_boot
    assert readings.undervoltage
    assert readings.undervoltage_since_boot
    assert readings.overcurrent
    assert (readings.free_bytes, readings.total_bytes, readings.memory_free_bytes) == (1000, 2000, 4000)
    assert (readings.load_1m, readings.uptime_s, readings.power) == (3.5, 50.0, "battery")
    assert (readings.temperatures_c, readings.wear_percent) == ({"soc": 82.5}, {"nvme0": 91.0})
    assert readings.accelerators == {"/dev/hailo0": False, "/dev/hailo1": True}
    assert (readings.clock.state, readings.clock.stepped_by_s, readings.clock.rtc) == ("stepped", -3600.0, False)
    assert (hardware.boot().reason, hardware.boot().detail) == ("watchdog", "As asked.")


def test_the_file_is_read_at_each_look(tmp_path):
    hardware = simulated(tmp_path, "")
    (tmp_path / "box.toml").write_text("temperatures_c = { soc = 95 }")
    assert hardware.read().temperatures_c == {"soc": 95.0}
    (tmp_path / "box.toml").write_text("temperatures_c = {}")
    assert hardware.read().temperatures_c == {}
    (tmp_path / "box.toml").unlink()
    assert hardware.read().temperatures_c == {"cpu-thermal": 45.0}


def test_a_lost_accelerator_takes_its_nodes_along(tmp_path):
    hardware = simulated(tmp_path, '[accelerator]\nstate = "lost"', accelerators=("/dev/hailo0",))
    assert hardware.read().accelerators == {"/dev/hailo0": False}


def test_a_panic_is_a_new_one_each_time(tmp_path):
    write_mark(tmp_path, Mark(Boot("old", "reboot", "x"), False, ()))
    hardware = simulated(tmp_path, "[boot]\npanic = true")
    assert hardware.boot().reason == "panic"
    assert hardware.panics() == frozenset()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("temperature = 3", "temperature"),
        ("throttled = 1", "throttled"),
        ("load_1m = nan", "load_1m"),
        ("load_1m = true", "load_1m"),
        ('free_bytes = "much"', "free_bytes"),
        ("temperatures_c = 5", "temperatures_c"),
        ('[temperatures_c]\nsoc = "hot"', "soc"),
        ('power = "coal"', "power"),
        ('[clock]\nstate = "late"', "state"),
        ("[clock]\nzone = 1", "zone"),
        ('[accelerators]\nx = "yes"', "x"),
        ('[accelerator]\nstate = "tired"', "state"),
        ("a = [", "TOML"),
        ("\udcff", "TOML"),
    ],
)
def test_a_wrong_file_is_told(tmp_path, text, word):
    hardware = simulated(tmp_path, "")
    (tmp_path / "box.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=word):
        hardware.read()


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ConfigError, match="TOML"):
        load_state(str(tmp_path))


def test_what_was_set_last_is_remembered(tmp_path):
    hardware = simulated(tmp_path)
    assert hardware.set_light("reading")
    assert hardware.set_fan(30.0)
    assert (hardware.light, hardware.fan_percent) == ("reading", 30.0)
