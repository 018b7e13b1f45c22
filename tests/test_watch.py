"""care's watch over the hardware: facts, events, totals, history, light, fan, and holding reading back when hot."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.board import Board
from edge.care.boot import Mark, read_mark, write_mark
from edge.care.hardware import Boot, Clock, Readings, open_hardware
from edge.care.thermal_policy import COOL, EASE_C, LONGEST_PAUSE_S, decide
from edge.care.watch import HOT_AGAIN_S, SAMPLE_EVERY_S, TELL_AGAIN_S, Watch
from edge.errors import ConfigError
from edge.store import Store, boot_id, open_store
from tests.hardware_trees import FakeClock, board_with
from tests.report_examples import REPEATABLE

SLOW_C, PAUSE_C = 75.0, 90.0
HEALTHY = Readings(clock=Clock("set", True, True), temperatures_c={"soc": 50.0}, free_bytes=50, total_bytes=200)


class Played:
    """Hardware whose next readings a test sets."""

    def __init__(self, boot: Boot | None = None) -> None:
        self.readings: Readings | ConfigError = HEALTHY
        self.told = boot or Boot(boot_id(), "reboot", "The box was stopped and started again.")
        self.lights: list[str] = []
        self.fans: list[float] = []
        self.obeys = True

    def read(self) -> Readings:
        if isinstance(self.readings, ConfigError):
            raise self.readings
        return self.readings

    def boot(self) -> Boot:
        return self.told

    def panics(self) -> frozenset[str]:
        return frozenset({"dmesg@1"})

    def set_light(self, state) -> bool:
        self.lights.append(state)
        return self.obeys

    def set_fan(self, percent: float) -> bool:
        self.fans.append(percent)
        return self.obeys

    def heat(self, temperature_c: float | None) -> None:
        measured = {} if temperature_c is None else {"soc": temperature_c}
        self.readings = dataclasses.replace(HEALTHY, temperatures_c=measured)


@dataclasses.dataclass
class Scene:
    board: Board
    store: Store
    hardware: Played
    clock: FakeClock
    watch: Watch

    def step(self, seconds: float = 5.0) -> None:
        self.clock.now_s += seconds
        self.watch.step()

    def fact(self, name: str) -> dict:
        return self.store.facts()[name].value

    def mark(self) -> Mark:
        mark = read_mark(self.board.data_dir)
        assert mark is not None
        return mark

    def events(self) -> list[str]:
        return [row.code for row in self.store.events()][::-1]


@pytest.fixture
def scene(tmp_path):
    board, hardware, clock = board_with(tmp_path), Played(), FakeClock()
    with closing(open_store(tmp_path)) as store:
        yield Scene(board, store, hardware, clock, Watch(board, store, hardware, clock))


# --- the thermal policy over a curve of temperatures ---


def follow(curve, state="ok"):
    states = []
    for temperature_c in curve:
        state = decide(temperature_c, state, SLOW_C, PAUSE_C).state
        states.append(state)
    return states


@pytest.mark.requirement("KEEP-04")
def test_a_hot_afternoon():
    curve = [60, 74.9, 75, 80, 89.9, 90, 95, 86, 85, 84, 75, 71, 70, 69, 60]
    words = ["ok", "ok", "slow", "slow", "slow", "pause", "pause", "pause", "pause"]
    assert follow(curve) == [*words, "slow", "slow", "slow", "slow", "ok", "ok"]


def test_right_at_a_limit_it_does_not_flutter():
    assert follow([75, 74, 75.5, 73, 71]) == ["slow"] * 5
    assert follow([90, 89, 90, 86]) == ["pause"] * 4


def test_the_pause_grows_with_the_heat():
    pauses = [decide(t, "slow", SLOW_C, PAUSE_C).pause_s for t in (71, 75, 76, 80, 85, 89.9)]
    assert pauses == [1.0, 1.0, 2.0, 10.0, 20.0, 30.0]
    assert decide(None, "pause", SLOW_C, PAUSE_C) == COOL


def test_the_words_of_heat():
    slow = decide(82.3, "ok", SLOW_C, PAUSE_C).message
    assert slow == "The box is hot (82 °C). It reads more slowly until it cools. Give it air."
    pause = decide(91.0, "ok", SLOW_C, PAUSE_C).message
    assert pause == "The box is too hot (91 °C). Reading goes on below 85 °C. Give it air."


@REPEATABLE
@given(
    st.floats(-40, 150),
    st.sampled_from(["ok", "slow", "pause"]),
    st.floats(30, 110),
    st.floats(0, 30, exclude_min=True),
)
def test_decisions_hold(temperature_c, before, slow_c, span_c):
    """What was decided is decided again, and hotter never means less careful."""
    order = ["ok", "slow", "pause"]
    pause_c = slow_c + span_c
    thermal = decide(temperature_c, before, slow_c, pause_c)
    assert decide(temperature_c, thermal.state, slow_c, pause_c) == thermal
    assert order.index(decide(temperature_c + 1, before, slow_c, pause_c).state) >= order.index(thermal.state)
    assert 0 <= thermal.pause_s <= LONGEST_PAUSE_S
    assert (thermal.state == "ok") == (thermal.pause_s == 0) == (thermal.message == "")
    assert thermal.state == "ok" or temperature_c >= slow_c - EASE_C


# --- heat ---


@pytest.mark.requirement("KEEP-04")
def test_heat_is_told_at_once_and_cooling_too(scene):
    scene.step()
    assert (scene.fact("thermal")["state"], scene.fact("thermal")["pause_s"]) == ("ok", 0.0)
    for temperature_c, state in ((80.0, "slow"), (93.0, "pause"), (60.0, "ok")):
        scene.hardware.heat(temperature_c)
        scene.step()
        assert scene.fact("thermal")["state"] == state
        assert scene.fact("thermal")["temperature_c"] == temperature_c
    assert scene.events() == ["box.hot", "box.too-hot", "box.cooled"]
    assert scene.hardware.fans == [50.0, 100.0, 100.0, 75.0]


def test_a_sensor_that_fails_for_a_moment_is_not_cold(scene):
    scene.hardware.heat(95.0)
    scene.step()
    scene.hardware.heat(None)
    scene.step()
    assert scene.fact("thermal")["state"] == "pause"
    scene.step(100.0)
    assert scene.fact("thermal") == {"state": "ok", "pause_s": 0.0, "message": "", "temperature_c": None}
    assert scene.hardware.fans[-1] == 100.0


def test_heat_is_said_again_before_the_worker_forgets_it(scene, monkeypatch):
    written = []
    monkeypatch.setattr(scene.store, "set_fact", lambda name, _value: written.append(name))
    scene.hardware.heat(95.0)
    for _ in range(int(60 / 5)):
        scene.step()
    assert written.count("thermal") == 60 / HOT_AGAIN_S


# --- facts ---


def test_what_is_measured_becomes_facts(scene):
    scene.step()
    assert scene.fact("hardware")["temperatures_c"] == {"soc": 50.0}
    assert scene.fact("hardware")["fan_percent"] == 50.0
    assert scene.fact("clock") == {"state": "set", "synchronised": True, "rtc": True, "stepped_by_s": 0.0}
    assert scene.fact("boot")["reason"] == "reboot"


def test_a_quiet_box_writes_little(scene, monkeypatch):
    written = []
    monkeypatch.setattr(scene.store, "set_fact", lambda name, _value: written.append(name))
    for turn in range(int(600 / 5)):
        scene.hardware.heat(50.0 + turn % 2 * 0.4)
        scene.step()
    assert len(written) - 1 <= 3 * 600 / TELL_AGAIN_S  # three facts, and the one of the boot


def test_a_flag_is_told_at_once(scene):
    scene.step()
    scene.hardware.readings = dataclasses.replace(HEALTHY, overcurrent=True, accelerators={"/dev/hailo0": False})
    scene.step(1.0)
    assert scene.fact("hardware")["overcurrent"] is True
    assert scene.fact("hardware")["accelerators"] == {"/dev/hailo0": False}


def test_what_happened_since_the_boot_stays_told(scene):
    scene.hardware.readings = dataclasses.replace(HEALTHY, undervoltage=True, undervoltage_since_boot=True)
    scene.step()
    scene.hardware.readings = HEALTHY  # the firmware has forgotten it
    scene.step()
    assert scene.fact("hardware")["undervoltage_since_boot"] is True
    again = Watch(scene.board, scene.store, scene.hardware, scene.clock)  # care began again
    again.step()
    assert scene.fact("hardware")["undervoltage_since_boot"] is True
    assert scene.fact("hardware")["throttled_since_boot"] is False


def test_a_clock_that_is_set_or_jumps_is_an_event(scene):
    for clock in (Clock("unset", False, False), Clock("set", False, False), Clock("stepped", False, False, -7200.0)):
        scene.hardware.readings = dataclasses.replace(HEALTHY, clock=clock)
        scene.step()
    assert scene.events() == ["box.clock-set", "box.clock-stepped"]
    assert scene.fact("clock")["state"] == "stepped"


def test_a_wrong_state_file_stops_nothing(scene, caplog):
    scene.hardware.readings = ConfigError("key 'x': expected a number, got 'y'")
    scene.step()
    scene.step()
    assert [record.message for record in caplog.records if "expected a number" in record.message] != []
    assert len([record for record in caplog.records if "expected a number" in record.message]) == 1
    scene.hardware.readings = HEALTHY
    scene.step()
    assert scene.fact("hardware")["throttled"] is False


def test_a_played_box_from_its_file_to_the_facts(tmp_path):
    state = tmp_path / "box.toml"
    board, clock = board_with(tmp_path, kind="sim", state_file=str(state)), FakeClock()
    with closing(open_store(tmp_path)) as store:
        watch = Watch(board, store, open_hardware(board), clock)
        for text, told in (("", "ok"), ("temperatures_c = { soc = 91 }", "pause"), ("[clock", "pause"), ("", "ok")):
            state.write_text(text)
            watch.step()
            assert store.facts()["thermal"].value["state"] == told


def test_lights_and_fans_that_refuse_stop_nothing(scene):
    scene.hardware.obeys = False
    scene.step()
    scene.step()
    assert len(scene.hardware.lights) == 2  # tried again


# --- the boot ---


@pytest.mark.requirement("KEEP-05")
@pytest.mark.parametrize(
    ("reason", "power_lost", "event", "total"),
    [
        ("watchdog", False, "box.reset-watchdog", "watchdog_resets"),
        ("panic", False, "box.panic", "panics"),
        ("crash", False, "box.crashed", "crashes"),
        ("power-on", True, "box.power-lost", "power_losses"),
        ("power-on", False, None, None),
        ("reboot", False, None, None),
        ("unknown", False, None, None),
    ],
)
def test_a_boot_is_told_once(scene, reason, power_lost, event, total):
    scene.hardware.told = Boot(boot_id(), reason, "Because.", power_lost)
    for _ in range(3):
        scene.step()
    Watch(scene.board, scene.store, scene.hardware, scene.clock).step()
    assert scene.events() == ([event] if event else [])
    assert scene.store.counts() == ({total: 1} if total else {})
    assert scene.mark() == Mark(scene.hardware.told, False, ("dmesg@1",))


@pytest.mark.requirement("KEEP-05")
def test_an_orderly_stop_leaves_its_mark_and_a_new_start_takes_it_back(scene):
    scene.step()
    scene.watch.stop()
    assert scene.mark().orderly
    assert (scene.hardware.lights[-1], scene.hardware.fans[-1]) == ("stopped", 100.0)
    Watch(scene.board, scene.store, scene.hardware, scene.clock).step()
    assert not scene.mark().orderly


def test_an_earlier_boot_is_not_this_one(scene):
    write_mark(scene.board.data_dir, Mark(Boot("old", "watchdog", "x"), True, ()))
    scene.step()
    assert scene.mark().boot.boot_id == boot_id()


# --- light and history ---


@pytest.mark.requirement("KEEP-12")
def test_the_light_shows_the_state_of_the_box(scene):
    scene.step()
    assert scene.hardware.lights == ["starting"]
    scene.store.set_service("receive", "ok", "", "")
    scene.store.set_service("worker", "ok", "", "")
    scene.clock.now_s = scene.store.services()[0].monotonic_s
    scene.step()
    assert scene.hardware.lights[-1] == "ready"


def test_history_every_five_minutes(scene):
    scene.store.add_counts({"studies_read": 3})
    for _ in range(int(2 * SAMPLE_EVERY_S / 5)):
        scene.step()
    assert [value for _, value in scene.store.samples("temperature_c", 10)] == [50.0, 50.0]
    assert [value for _, value in scene.store.samples("free_percent", 10)] == [25.0, 25.0]
    assert [value for _, value in scene.store.samples("studies_read", 10)] == [3.0, 3.0]
    assert [value for _, value in scene.store.samples("queue", 10)] == [0.0, 0.0]
    assert scene.store.samples("memory_free_bytes", 10) == []  # could not be read
