"""Lights with a rhythm for each state, and a fan that follows the heat without nervousness."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.box_words import STATES
from edge.care.hardware.fan import EASE_C, STEPS, fan_percent, set_fan
from edge.care.hardware.lights import RHYTHMS, show
from edge.care.hardware.sysfs import Tree
from tests.hardware_trees import lay_out, linux, put
from tests.report_examples import REPEATABLE

ACT = "sys/class/leds/ACT"
SLOW_C = 75.0


@pytest.mark.requirement("KEEP-12")
def test_five_states_have_five_rhythms():
    assert set(RHYTHMS) == set(STATES)
    assert len(set(RHYTHMS.values())) == len(STATES)
    shares = sorted((rhythm.lit_ms / (rhythm.lit_ms + rhythm.dark_ms), rhythm.lit_ms) for rhythm in RHYTHMS.values())
    assert all(a[0] != b[0] or b[1] >= 5 * a[1] for a, b in itertools.pairwise(shares))
    assert all(rhythm.lit_ms + rhythm.dark_ms <= 3000 for rhythm in RHYTHMS.values())  # seen by who looks for 3 s


def test_a_blinking_state(tmp_path):
    tree = lay_out("raspberry_pi_5_weak_power", tmp_path)
    assert show(tree, "ACT", "attention")
    assert tree.text(f"{ACT}/trigger") == "timer"
    assert (tree.number(f"{ACT}/delay_on"), tree.number(f"{ACT}/delay_off")) == (150, 150)


def test_the_steady_state(tmp_path):
    tree = lay_out("raspberry_pi_5_weak_power", tmp_path)
    assert show(tree, "ACT", "ready")
    assert (tree.text(f"{ACT}/trigger"), tree.number(f"{ACT}/brightness")) == ("none", 255)


def test_a_light_that_shows_the_state_is_left_alone(tmp_path):
    put(tmp_path, f"{ACT}/trigger", "none [timer] heartbeat")
    put(tmp_path, f"{ACT}/delay_on", "150\n")
    put(tmp_path, f"{ACT}/delay_off", "150\n")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / ACT).iterdir()}
    assert show(Tree(tmp_path), "ACT", "attention")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / ACT).iterdir()}


@pytest.mark.parametrize("name", ["PWR", "", "..", "../leds/ACT", "A/B", "ACT\0"])
def test_a_light_that_is_not_there(tmp_path, name):
    assert not show(lay_out("raspberry_pi_5_weak_power", tmp_path), name, "ready")


def test_a_light_whose_kernel_cannot_blink(tmp_path):
    put(tmp_path, f"{ACT}/trigger", "[none] default-on\n")
    assert not show(Tree(tmp_path), "ACT", "reading")
    assert show(Tree(tmp_path / "x"), "ACT", "ready") is False


def test_one_light_that_is_missing_does_not_darken_the_others(tmp_path):
    hardware = linux("raspberry_pi_5_weak_power", tmp_path, leds=("PWR", "ACT"))
    assert not hardware.set_light("stopped")
    assert Tree(tmp_path).number(f"{ACT}/delay_off") == 2900


# --- fan ---


def test_the_fan_rises_at_once_and_falls_late():
    up = [fan_percent(t, 0.0, SLOW_C) for t in (20, 44, 45, 55, 65, 72, 90)]
    assert up == [0, 0, 30, 50, 75, 100, 100]
    down, speed = [], 100.0
    for t in (90, 71, 68, 66, 61, 59, 50, 49, 41, 39):
        speed = fan_percent(t, speed, SLOW_C)
        down.append(speed)
    assert down == [100, 100, 100, 75, 75, 50, 50, 30, 30, 0]


def test_without_a_temperature_the_fan_runs_fully():
    assert fan_percent(None, 0.0, SLOW_C) == 100.0


@REPEATABLE
@given(st.floats(-40, 150), st.sampled_from([0.0, *(percent for _, percent in STEPS)]), st.floats(30, 110))
def test_a_fan_does_not_flutter(temperature_c, before, slow_c):
    """Whatever it chose, it chooses again at any temperature up to EASE_C lower."""
    chosen = fan_percent(temperature_c, before, slow_c)
    assert 0 <= chosen <= 100
    assert fan_percent(temperature_c, chosen, slow_c) == chosen
    rising = fan_percent(temperature_c, 0.0, slow_c)
    assert fan_percent(temperature_c - EASE_C * 0.99, rising, slow_c) == rising


def test_a_pwm_fan_is_taken_by_hand(tmp_path):
    tree = lay_out("raspberry_pi_5_weak_power", tmp_path)
    assert set_fan(tree, "pwmfan", 50.0)
    assert (tree.number("sys/class/hwmon/hwmon3/pwm1"), tree.number("sys/class/hwmon/hwmon3/pwm1_enable")) == (128, 1)


def test_a_fan_that_is_a_cooling_device(tmp_path):
    tree = lay_out("jetson_orin_nano", tmp_path)
    assert set_fan(tree, "pwm-fan", 75.0)
    assert tree.number("sys/class/thermal/cooling_device0/cur_state") == 2
    assert not set_fan(tree, "no-such-fan", 75.0)


def test_a_board_without_a_fan_has_nothing_to_refuse(tmp_path):
    assert linux("mini_pc", tmp_path).set_fan(30.0)
