"""Why the box started: a mark, what the hardware says, and every way in which the two can meet."""

from __future__ import annotations

import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.care.boot import MARK, Mark, leave_mark, read_mark, why, write_mark
from edge.care.hardware import jetson, pi
from edge.care.hardware.readings import Boot
from edge.care.hardware.reset import Reset, panic_records, watchdog_armed, watchdog_reset
from edge.care.hardware.sysfs import Tree
from edge.store_paths import boot_id
from tests.hardware_trees import lay_out, linux, put
from tests.report_examples import REPEATABLE

OLD = Mark(Boot("old", "power-on", "x"), False, ("a@1",))
STOPPED = dataclasses.replace(OLD, orderly=True)
KNOWN = frozenset({"a@1"})


def reset(cause):
    return Reset(cause, "The hardware says so.")


@pytest.mark.requirement("KEEP-05")
@pytest.mark.parametrize(
    ("before", "found", "armed", "reason", "power_lost"),
    [
        (None, None, False, "unknown", False),
        (None, reset("warm"), True, "unknown", False),
        (None, reset("watchdog"), True, "watchdog", False),
        (None, reset("power-on"), False, "power-on", False),
        (STOPPED, None, False, "reboot", False),
        (STOPPED, reset("warm"), True, "reboot", False),
        (STOPPED, reset("watchdog"), True, "reboot", False),  # a flag that stays until the power goes
        (STOPPED, reset("power-on"), True, "power-on", False),
        (OLD, None, False, "power-on", True),
        (OLD, reset("power-on"), True, "power-on", True),
        (OLD, reset("watchdog"), False, "watchdog", False),
        (OLD, reset("warm"), True, "watchdog", False),
        (OLD, reset("warm"), False, "crash", False),
        (OLD, reset("reboot"), True, "crash", False),
        (OLD, reset("crash"), True, "crash", False),
    ],
)
def test_every_meeting_of_mark_and_hardware(before, found, armed, reason, power_lost):
    boot = why("new", before, found, KNOWN, armed)
    assert (boot.boot_id, boot.reason, boot.power_lost) == ("new", reason, power_lost)
    assert boot.detail.endswith(".")


@pytest.mark.parametrize("before", [OLD, STOPPED])
def test_a_new_record_of_a_panic_outweighs_everything(before):
    assert why("new", before, reset("power-on"), KNOWN | {"b@2"}, True).reason == "panic"


def test_within_a_boot_the_answer_stays():
    mark = Mark(Boot("new", "watchdog", "x"), True, ())
    assert why("new", mark, reset("power-on"), frozenset({"b@2"}), False) == mark.boot


# --- the mark ---


def test_the_mark_and_the_orderly_stop(tmp_path):
    assert read_mark(tmp_path) is None
    leave_mark(tmp_path, "new")
    assert read_mark(tmp_path) is None
    mark = Mark(Boot("new", "reboot", "x", power_lost=True), False, ("a@1", "b@2"))
    write_mark(tmp_path, mark)
    assert read_mark(tmp_path) == mark
    leave_mark(tmp_path, "other")
    assert read_mark(tmp_path) == mark
    leave_mark(tmp_path, "new")
    assert read_mark(tmp_path) == dataclasses.replace(mark, orderly=True)


@REPEATABLE
@given(content=st.one_of(st.binary(max_size=100), st.just(b"[" * 10000), st.just(b'{"boot": {}, "orderly": 1}')))
def test_a_mark_that_is_no_mark_says_nothing(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("mark")
    (folder / MARK).write_bytes(content)
    assert read_mark(folder) is None


# --- what the hardware says ---


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("raspberry_pi_5_weak_power", "power-on"),
        ("raspberry_pi_4_emmc", "warm"),
        ("jetson_orin_nano", "watchdog"),
        ("mini_pc", "watchdog"),
    ],
)
def test_the_last_reset_of_each_board(tmp_path, name, cause):
    tree = lay_out(name, tmp_path)
    found = jetson.reset(tree) or watchdog_reset(tree) or pi.reset(tree)
    assert found is not None
    assert found.cause == cause


@pytest.mark.parametrize(
    ("bits", "cause"),
    [
        ("32", "watchdog"),
        ("0x20", "watchdog"),
        ("33", "watchdog"),
        ("1", "crash"),
        ("16", "power-on"),
        ("64", "power-on"),
        ("0", None),
        ("-1", None),
        ("99999999999", None),
        ("x", None),
    ],
)
def test_what_a_watchdog_says(tmp_path, bits, cause):
    put(tmp_path, "sys/class/watchdog/watchdog0/bootstatus", f"{bits}\n")
    found = watchdog_reset(Tree(tmp_path))
    assert (found and found.cause) == cause


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("SYS_RESET_N", "power-on"),
        ("AOWDT", "watchdog"),
        ("WATCHDOG", "watchdog"),
        ("MAINSWRST", "reboot"),
        ("SENSOR", "crash"),
        ("SC7", None),
    ],
)
def test_what_a_jetson_says(tmp_path, word, cause):
    put(tmp_path, "sys/devices/platform/c360000.pmc/reset_reason", f"{word}\n")
    found = jetson.reset(Tree(tmp_path))
    assert (found and found.cause) == cause


@pytest.mark.parametrize(
    ("content", "cause"),
    [("00001000", "power-on"), ("00001020", "power-on"), ("00000020", "warm"), ("00000000", None), ("20", None)],
)
def test_what_the_firmware_of_a_pi_says(tmp_path, content, cause):
    put(tmp_path, pi.RSTS_FILE, bytes.fromhex(content))
    found = pi.reset(Tree(tmp_path))
    assert (found and found.cause) == cause


def test_an_armed_watchdog(tmp_path):
    assert watchdog_armed(lay_out("raspberry_pi_4_emmc", tmp_path / "pi"))
    assert not watchdog_armed(lay_out("mini_pc", tmp_path / "pc"))


def test_records_of_panics_are_told_apart_by_time(tmp_path):
    tree = lay_out("mini_pc", tmp_path)
    first = panic_records(tree)
    assert len(first) == 2
    os.utime(tmp_path / "sys/fs/pstore/dmesg-efi-167000001", (5, 5))
    assert len(panic_records(tree) - first) == 1


def test_a_watchdog_reset_from_end_to_end(tmp_path):
    """The mark of an earlier boot, a board whose watchdog bit: told once, the same after care began again."""
    hardware = linux("raspberry_pi_4_emmc", tmp_path)
    write_mark(tmp_path / "data", OLD)
    assert hardware.boot().reason == "watchdog"
    assert hardware.boot().boot_id == boot_id()
    write_mark(tmp_path / "data", Mark(hardware.boot(), False, ()))
    assert hardware.boot().reason == "watchdog"
