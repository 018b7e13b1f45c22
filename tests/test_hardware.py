"""What boards tell of themselves, over trees made from documentation; nothing they say can stop the box."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.care.hardware import hottest_c, open_hardware, to_fact
from edge.care.hardware.clock_state import RELEASED_UNIX_S, kernel_synchronised
from edge.care.hardware.jetson import HOLD_S, EventCounters
from edge.care.hardware.linux import LinuxHardware
from edge.care.hardware.pi import read_throttled, throttling
from edge.care.hardware.power import power_source
from edge.care.hardware.programs import Remembered, run_program
from edge.care.hardware.sysfs import Tree, plain_name, whole
from edge.care.hardware.wear import wear_percent
from tests.hardware_trees import BOARDS, FakeClock, board_with, lay_out, linux, put, sight
from tests.report_examples import REPEATABLE


def test_a_raspberry_pi_with_a_weak_supply(tmp_path):
    readings = linux("raspberry_pi_5_weak_power", tmp_path, accelerators=("/dev/hailo0", "/dev/hailo1")).read()
    assert readings.temperatures_c == {"cpu-thermal": 67.25, "rp1_adc temp1": 55.1}  # the zone's twin is left out
    assert (readings.undervoltage, readings.undervoltage_since_boot) == (True, True)
    assert (readings.throttled, readings.throttled_since_boot) == (True, True)
    assert readings.wear_percent == {}  # an SD card tells nothing
    assert (readings.load_1m, readings.memory_free_bytes, readings.uptime_s) == (0.42, 7000000 * 1024, 512.25)
    assert readings.clock.rtc
    assert readings.accelerators == {"/dev/hailo0": True, "/dev/hailo1": False}


def test_a_compute_module_that_the_kernel_holds_back(tmp_path):
    readings = linux("raspberry_pi_4_emmc", tmp_path).read()
    assert readings.throttled  # cpufreq-cpu0 is above state 0, though the firmware says nothing
    assert not readings.undervoltage
    assert readings.wear_percent == {"mmcblk0": 90.0}  # the worse of both types of memory; no boot partition


def test_a_jetson(tmp_path):
    asked = []

    def run(command):
        asked.append(command[0])
        return json.dumps({"percent_used": 12}).encode() if command[0] == "nvme" else None

    hardware = linux("jetson_orin_nano", tmp_path, run, accelerators=("/dev/nvgpu0",))
    readings = hardware.read()
    assert readings.temperatures_c == {
        "cpu-thermal": 63.625,
        "gpu-thermal": 62.5,
        "tj-thermal": 63.625,
        "nvme Composite": 41.85,
    }  # neither the unit that sleeps nor the zone that measures nothing
    assert hottest_c(readings) == 63.625
    assert readings.wear_percent == {"nvme0": 12.0}
    assert not readings.overcurrent  # 37 events before anybody looked are not now
    assert readings.accelerators == {"/dev/nvgpu0": True}  # known to sysfs, where /dev is hidden
    put(tmp_path, "sys/class/hwmon/hwmon0/oc3_event_cnt", "38\n")
    put(tmp_path, "sys/class/thermal/cooling_device1/cur_state", "1\n")
    readings = hardware.read()
    assert readings.overcurrent
    assert readings.throttled
    assert asked == ["nvme"]  # the disk is asked once an hour


def test_a_mini_pc_on_its_battery(tmp_path):
    readings = linux("mini_pc", tmp_path).read()
    assert readings.power == "battery"
    assert readings.temperatures_c == {"x86_pkg_temp": 52.0, "coretemp Package id 0": 51.0}  # no impossible ones
    assert readings.uptime_s is None
    assert readings.memory_free_bytes is None
    assert "uptime_s" not in to_fact(readings)
    assert json.loads(json.dumps(to_fact(readings), allow_nan=False))["clock"]["state"] == "set"


def test_an_empty_machine_tells_nothing(tmp_path):
    tree = Tree(tmp_path)
    (tmp_path / "data").mkdir()
    readings = LinuxHardware(board_with(tmp_path / "data"), tree, lambda _command: None, sight(tree)).read()
    assert readings.temperatures_c == {}
    assert hottest_c(readings) is None
    assert readings.total_bytes
    assert readings.total_bytes > 0
    assert not readings.clock.rtc


def test_this_machine_can_be_read(tmp_path):
    hardware = open_hardware(board_with(tmp_path))
    readings = hardware.read()
    assert readings.uptime_s
    assert readings.uptime_s > 0
    assert readings.memory_free_bytes
    assert readings.memory_free_bytes > 0
    assert hardware.boot() == hardware.boot()
    assert kernel_synchronised() in (True, False, None)


# --- single parts ---


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0x0, (False, False, False, False)),
        (0x1, (False, False, True, True)),
        (0x2, (True, True, False, False)),
        (0x8, (True, True, False, False)),
        (0x50000, (False, True, False, True)),
        (0x80000, (False, True, False, False)),
        (0xF000F, (True, True, True, True)),
    ],
)
def test_bits_of_the_firmware(bits, expected):
    found = throttling(bits)
    assert (
        found.throttled,
        found.throttled_since_boot,
        found.undervoltage,
        found.undervoltage_since_boot,
    ) == expected


def test_vcgencmd_is_asked_on_a_pi_whose_kernel_has_no_such_file(tmp_path):
    put(tmp_path, "proc/device-tree/model", b"Raspberry Pi 4 Model B Rev 1.4\0")
    assert read_throttled(Tree(tmp_path), lambda _command: b"throttled=0x50005\n") == 0x50005
    assert read_throttled(Tree(tmp_path), lambda _command: b"error=1 error_msg=...\n") is None
    put(tmp_path, "proc/device-tree/model", b"Something else\0")
    assert read_throttled(Tree(tmp_path), lambda _command: b"throttled=0x1\n") is None


def test_the_low_voltage_alarm(tmp_path):
    hardware = linux("raspberry_pi_4_emmc", tmp_path)
    put(tmp_path, "sys/class/hwmon/hwmon5/name", "rpi_volt\n")
    put(tmp_path, "sys/class/hwmon/hwmon5/in0_lcrit_alarm", "1\n")
    assert hardware.read().undervoltage


def test_events_of_a_jetson_are_now_for_a_minute(tmp_path):
    clock = FakeClock()
    counters = EventCounters(Tree(tmp_path), clock)
    counter = "sys/class/hwmon/hwmon0/oc1_event_cnt"
    put(tmp_path, counter, "2\n")
    assert counters.read().undervoltage_since_boot
    put(tmp_path, counter, "3\n")
    assert counters.read().undervoltage_now
    clock.now_s += HOLD_S
    assert not counters.read().undervoltage_now
    put(tmp_path, counter, "garbage")
    assert not counters.read().undervoltage_now


@pytest.mark.parametrize(
    ("life_time", "pre_eol", "expected"),
    [
        ("0x01 0x01", "0x01", 10.0),
        ("0x0a 0x02", "0x01", 100.0),
        ("0x0b 0x0b", "0x01", 100.0),
        ("0x02 0x03", "0x02", 80.0),
        ("0x02 0x03", "0x03", 90.0),
        ("0x00 0x00", "0x00", None),
        ("0xff 0x0c", "0x09", None),
        ("", "", None),
    ],
)
def test_wear_of_emmc(tmp_path, life_time, pre_eol, expected):
    put(tmp_path, "sys/block/mmcblk1/device/life_time", life_time)
    put(tmp_path, "sys/block/mmcblk1/device/pre_eol_info", pre_eol)
    assert wear_percent(Tree(tmp_path)) == ({} if expected is None else {"mmcblk1": expected})


@pytest.mark.parametrize(
    ("program", "output", "expected"),
    [
        ("nvme", b'{"percent_used": 3}', {"nvme0": 3.0}),
        ("smartctl", b'{"nvme_smart_health_information_log": {"percentage_used": 130}}', {"nvme0": 130.0}),
        ("nvme", b'{"percent_used": -1}', {}),
        ("nvme", b'{"percent_used": true}', {}),
        ("smartctl", b'{"nvme_smart_health_information_log": []}', {}),
        ("nvme", b"[" * 5000, {}),
        ("nvme", b"Permission denied", {}),
    ],
)
def test_wear_of_nvme(tmp_path, program, output, expected):
    put(tmp_path, "sys/block/nvme0n1/size", "1")
    put(tmp_path, "sys/block/nvme0n2/size", "1")
    assert wear_percent(Tree(tmp_path), lambda command: output if command[0] == program else None) == expected


def test_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, script in (("good", "echo yes"), ("bad", "echo no; exit 3")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    assert run_program(("good", "-x")) == b"yes\n"
    assert run_program(("bad",)) is None
    assert run_program(("missing",)) is None


def test_a_program_is_not_asked_all_the_time():
    clock, asked = FakeClock(), []

    def ask(command):
        asked.append(command)
        return b"1"

    run = Remembered(ask, 30.0, clock)
    assert run(("a",)) == run(("a",)) == b"1"
    clock.now_s += 30.0
    run(("a",))
    assert len(asked) == 2


@pytest.mark.parametrize(("online", "status", "expected"), [(1, "Charging", "mains"), (0, "Discharging", "battery")])
def test_where_the_power_comes_from(tmp_path, online, status, expected):
    put(tmp_path, "sys/class/power_supply/AC/type", "Mains")
    put(tmp_path, "sys/class/power_supply/AC/online", str(online))
    put(tmp_path, "sys/class/power_supply/BAT/type", "Battery")
    put(tmp_path, "sys/class/power_supply/BAT/status", status)
    assert power_source(Tree(tmp_path)) == expected
    assert power_source(Tree(tmp_path / "nowhere")) == "unknown"


def test_files_that_cannot_be_read_are_absent(tmp_path):
    tree = Tree(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # would hang who opens it without O_NONBLOCK
    (tmp_path / "folder").mkdir()
    assert tree.text("pipe") == ""
    assert tree.text("folder") is None
    assert tree.number("missing") is None
    assert tree.text("nul\0byte") is None
    assert not tree.exists("nul\0byte")
    assert not tree.write("missing", "1")
    assert not (tmp_path / "missing").exists()  # an attribute that is not there is not made


# --- fuzzing: whatever a file holds, reading ends well ---

FILES = st.one_of(
    st.binary(max_size=60),
    st.integers().map(lambda number: str(number).encode()),
    st.sampled_from([b"", b"\n", b"nan", b"inf", b"-0", b"0x", b"1e999", b"9" * 400, b"\xff\xfe", b"1_0", b"32 33"]),
)


@pytest.mark.parametrize("name", BOARDS)
def test_any_content_of_any_file_is_survived(tmp_path, name):
    hardware = linux(name, tmp_path, accelerators=("/dev/hailo0",), leds=("ACT",), fan="pwmfan")
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())

    @settings(REPEATABLE, max_examples=40)
    @given(st.sampled_from(files), FILES)
    def check(path, content):
        before = path.read_bytes()
        path.write_bytes(content)
        readings = hardware.read()
        json.dumps(to_fact(readings), allow_nan=False)
        assert all(-40 <= value <= 150 for value in readings.temperatures_c.values())
        assert all(0 <= value <= 255 for value in readings.wear_percent.values())
        hardware._boot = None  # find out again
        assert hardware.boot().detail
        hardware.set_light("reading")
        hardware.set_fan(50.0)
        path.write_bytes(before)

    check()


@REPEATABLE
@given(st.text(max_size=30), st.sampled_from([0, 10, 16]))
def test_whole_numbers(text, base):
    value = whole(text, base)
    assert value is None or (-(2**63) <= value < 2**63 and value == int(text, base))


@REPEATABLE
@given(st.text(max_size=200))
def test_names_from_outside_are_plain(text):
    assert len(plain_name(text)) <= 48
    assert plain_name(text).isascii()


# --- the clock ---


def test_a_clock_that_nobody_set(tmp_path):
    assert sight(Tree(tmp_path), FakeClock(86400.0)).read().state == "unset"
    assert sight(Tree(tmp_path)).read().state == "set"


def test_a_clock_that_jumps(tmp_path):
    wall, up = FakeClock(RELEASED_UNIX_S + 1e6), FakeClock(50.0)
    clock = sight(Tree(tmp_path), wall, up)
    assert clock.read().state == "set"
    wall.now_s, up.now_s = wall.now_s + 5, up.now_s + 5
    assert clock.read().state == "set"
    wall.now_s -= 7200
    assert (clock.read().state, round(clock.read().stepped_by_s)) == ("stepped", -7200)
    wall.now_s, up.now_s = wall.now_s + 3600, up.now_s + 3600
    assert clock.read().state == "set"


def test_a_clock_that_gets_its_first_time_did_not_jump(tmp_path):
    wall = FakeClock(0.0)
    clock = sight(Tree(tmp_path), wall)
    assert clock.read().state == "unset"
    wall.now_s = RELEASED_UNIX_S + 1e7
    assert clock.read().state == "set"


def test_where_the_kernel_may_not_be_asked_the_file_tells(tmp_path):
    assert not sight(Tree(tmp_path), synchronised=None).read().synchronised
    put(tmp_path, "run/systemd/timesync/synchronized", "")
    assert sight(Tree(tmp_path), synchronised=None).read().synchronised


def test_every_board_of_the_folder_is_laid_out(tmp_path):
    assert len(BOARDS) == 4
    for name in BOARDS:
        assert lay_out(name, tmp_path / name).text("/proc/loadavg")
