"""radbox bench: energy over trees of files, versions, budgets, heat, and one small run with the real services."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge.__main__ import main
from edge.bench.budgets import verdicts
from edge.bench.energy import Absent, Mark, Meter, PowerSensor, mean_w, open_sensor
from edge.bench.measure import Samples, emission_of
from edge.bench.plan import Heat, Plan
from edge.bench.tokens import decode
from edge.bench.trial import place
from edge.bench.versions import machine, software
from edge.bench_kept import FOLDER, kept
from edge.bench_result import Energy, from_json
from edge.board import Board, Budget
from edge.bundle import load_bundle
from edge.care.hardware.programs import Run
from edge.care.hardware.sysfs import Tree
from edge.durable import Lock
from edge.errors import ConfigError, RadboxError
from edge.reading.backends import MODULES
from tests.bench_results import stages
from tests.care_box import board_of
from tests.hardware_trees import FakeClock, put

# `vcgencmd pmic_read_adc` of a Raspberry Pi 5 (firmware of 2024), shortened; EXT5V and BATT have no current.
PMIC = b"""\
     3V7_WL_SW_A current(0)=0.00390372A
       VDD_CORE_A current(7)=2.00000000A
     3V7_WL_SW_V volt(8)=3.70000000V
       VDD_CORE_V volt(15)=0.75000000V
           EXT5V_V volt(24)=5.15098000V
            BATT_V volt(25)=0.00000000V
"""


def nothing(_command: Sequence[str]) -> bytes | None:
    """No program is installed."""
    return None


def saying(output: bytes) -> Run:
    """Every program prints this."""
    return lambda _command: output


def ina3221(root: Path, device: str, rails: dict[str, tuple[int, int]]) -> None:
    """A monitor as the kernel shows it (Documentation/hwmon/ina3221.rst): millivolts and milliamperes."""
    put(root, f"{device}/name", "ina3221\n")
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        put(root, f"{device}/in{channel}_label", f"{label}\n")
        put(root, f"{device}/in{channel}_input", f"{millivolts}\n")
        put(root, f"{device}/curr{channel}_input", f"{milliamperes}\n")


def rapl(root: Path, zone: str, name: str, energy_uj: int | None, range_uj: int = 1_000_000) -> None:
    """A zone of Documentation/power/powercap/powercap.rst."""
    put(root, f"sys/class/powercap/{zone}/name", f"{name}\n")
    put(root, f"sys/class/powercap/{zone}/max_energy_range_uj", f"{range_uj}\n")
    if energy_uj is not None:
        put(root, f"sys/class/powercap/{zone}/energy_uj", f"{energy_uj}\n")


def opened(root: Path, run=nothing):
    sensor = open_sensor(Tree(root), run)
    assert not isinstance(sensor, Absent)
    return sensor


def test_the_input_rail_of_an_orin_nano_is_the_whole_module(tmp_path: Path) -> None:
    rails = {"VDD_IN": (5000, 1200), "VDD_CPU_GPU_CV": (5000, 400), "VDD_SOC": (5000, 300)}
    ina3221(tmp_path, "sys/class/hwmon/hwmon1", rails)
    sensor = opened(tmp_path)
    assert (sensor.name, sensor.whole_board) == ("INA3221", True)
    assert "VDD_IN" in sensor.scope


def test_without_an_input_rail_all_rails_are_counted_and_it_says_so(tmp_path: Path) -> None:
    ina3221(tmp_path, "sys/class/hwmon/hwmon3", {"VDD_GPU_SOC": (10_000, 300), "VDD_CPU_CV": (10_000, 100)})
    ina3221(tmp_path, "sys/class/hwmon/hwmon4", {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5000, 200)})
    sensor = opened(tmp_path)
    assert not sensor.whole_board
    assert all(name in sensor.scope for name in ("VDD_GPU_SOC", "VDD_CPU_CV", "VDDQ_VDD2_1V8AO"))
    assert "NC" not in sensor.scope


def test_the_input_of_a_thor_comes_before_its_rails(tmp_path: Path) -> None:
    ina3221(tmp_path, "sys/class/hwmon/hwmon1", {"VDD_GPU": (10_000, 300)})
    put(tmp_path, "sys/class/hwmon/hwmon2/name", "ina238\n")
    put(tmp_path, "sys/class/hwmon/hwmon2/power1_input", "42000000\n")
    sensor = opened(tmp_path)
    assert (sensor.name, sensor.whole_board) == ("INA238", True)
    assert sensor._watts() == pytest.approx(42.0)


def test_the_older_jetson_driver_gives_milliwatts(tmp_path: Path) -> None:
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    put(tmp_path, f"{folder}/rail_name_0", "POM_5V_IN\n")
    put(tmp_path, f"{folder}/in_power0_input", "2400\n")
    sensor = opened(tmp_path)
    assert sensor.whole_board
    assert sensor.energy_j() == 0.0


def test_power_is_added_up_over_time(tmp_path: Path) -> None:
    clock, watts = FakeClock(), iter([2.0, 4.0, None, 4.0])
    sensor = PowerSensor("test", "all", True, lambda: next(watts), clock)
    assert sensor.energy_j() == 0.0
    clock.now_s += 10.0
    assert sensor.energy_j() == 30.0
    assert sensor.energy_j() is None  # the sensor failed
    clock.now_s += 5.0
    assert sensor.energy_j() == 50.0  # what passed meanwhile counts with the mean of both ends


def test_the_pi_5_counts_rails_that_have_volts_and_amperes(tmp_path: Path) -> None:
    asked = []

    def run(command: Sequence[str]) -> bytes | None:
        asked.append(tuple(command))
        return PMIC

    clock_free = opened(tmp_path, run)
    assert clock_free.name == "pmic_read_adc"
    assert not clock_free.whole_board
    assert set(asked) == {("vcgencmd", "pmic_read_adc")}
    assert clock_free._watts() == pytest.approx(2.0 * 0.75 + 0.00390372 * 3.7)
    for said in (b"", b'error=1 error_msg="Command not registered"', b"\xff\xfe", PMIC[:40]):
        assert isinstance(open_sensor(Tree(tmp_path), saying(said)), Absent)


def test_rapl_counts_packages_and_memory_once_and_goes_round(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 999_000)
    rapl(tmp_path, "intel-rapl:0:0", "core", 5)
    rapl(tmp_path, "intel-rapl:0:1", "dram", 100)
    sensor = opened(tmp_path)
    assert "package-0, dram" in sensor.scope
    assert sensor.energy_j() == 0.0
    rapl(tmp_path, "intel-rapl:0", "package-0", 4_000)
    rapl(tmp_path, "intel-rapl:0:1", "dram", 1_100)
    assert sensor.energy_j() == pytest.approx(0.006)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    assert sensor.energy_j() is None


def test_the_platform_counter_comes_before_the_packages(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 1)
    rapl(tmp_path, "intel-rapl:1", "psys", 1)
    assert "psys" in opened(tmp_path).scope
    assert "package" not in opened(tmp_path).scope


def test_no_sensor_is_a_sentence(tmp_path: Path) -> None:
    absent = open_sensor(Tree(tmp_path), nothing)
    assert isinstance(absent, Absent)
    assert "no INA3221" in absent.why
    rapl(tmp_path, "intel-rapl:0", "package-0", None)
    absent = open_sensor(Tree(tmp_path), nothing)
    assert isinstance(absent, Absent)
    assert "only root" in absent.why


def test_the_meter_looks_by_itself_and_ends(tmp_path: Path) -> None:
    clock = FakeClock()
    meter = Meter(PowerSensor("test", "all", True, lambda: 3.0, clock), every_s=0.001)
    first = meter.mark()
    clock.now_s += 4.0
    second = meter.mark()
    meter.stop()
    assert first.joules is not None
    assert second.joules is not None
    assert second.joules - first.joules == pytest.approx(12.0)
    assert mean_w(Mark(0.0, 1.0), Mark(2.0, 7.0)) == 3.0
    assert mean_w(Mark(0.0, None), Mark(2.0, 7.0)) is None
    assert mean_w(second, second) is None


# --- machine and versions ---


def test_a_machine_tells_its_name_power_mode_and_frequency(tmp_path: Path) -> None:
    put(tmp_path, "proc/device-tree/model", b"NVIDIA Jetson Orin Nano Developer Kit\x00")
    put(tmp_path, "proc/cpuinfo", "processor\t: 0\n")
    put(tmp_path, "proc/meminfo", "MemTotal:        7802732 kB\n")
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "1510400\n")
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil\n")
    found = machine(Tree(tmp_path), lambda _command: b"NV Power Mode: 15W\n0\n")
    assert (found.name, found.power_mode) == ("NVIDIA Jetson Orin Nano Developer Kit", "15W")
    assert (found.memory_bytes, found.highest_mhz) == (7802732 * 1024, 1510)
    assert machine(Tree(tmp_path), nothing).power_mode == "governor schedutil"


def test_a_machine_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    found = machine(Tree(tmp_path), nothing)
    assert (found.name, found.power_mode, found.highest_mhz) == ("not known", "not known", None)
    assert {"python", "kernel", "numpy"} <= software().keys()


def test_every_backend_says_which_file_it_runs() -> None:
    assert emission_of("tflite") == "tflite"
    assert emission_of("onnxruntime") == "onnx"
    assert {name for name in MODULES if emission_of(name) == "not known"} <= {"tensorrt"}  # its plan decides
    assert emission_of("abacus") == "not known"


def test_the_decoder_is_measured_whichever_file_the_backend_runs(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    bundle = load_bundle(board.worker.bundle)
    for emission in ("tflite", "onnx", "not known"):
        decoded = decode(board, bundle, emission)
        assert decoded.tokens.steps >= 2 * bundle.manifest.golden.cases
        assert decoded.tokens.per_s.p50 > 0
        assert decoded.kernels


@pytest.mark.parametrize(("asked", "runs"), [("f32", "f32"), ("q8", "q8"), ("q4", "f32")])
def test_the_decoder_is_measured_as_the_box_runs_it(tmp_path: Path, asked: Any, runs: str) -> None:
    board = board_of(tmp_path)
    board = dataclasses.replace(board, worker=dataclasses.replace(board.worker, precision=asked))
    assert decode(board, load_bundle(board.worker.bundle), "tflite").precision == runs


# --- budgets ---

ENERGY = Energy("test", "input", True, 2.0, 6.0, 3.0, 2.0)


def judged(limits: Budget, states: tuple[str, ...] = ("warm",), energy: Energy | None = ENERGY) -> list[bool | None]:
    seconds = {state: stages() for state in states}
    return [one.kept for one in verdicts(limits, seconds, {"web": 10, "worker": 200}, energy, "No sensor.")]


def test_budgets_are_kept_broken_or_not_decided() -> None:
    total = stages()["total"].p95
    assert judged(Budget(0.0, 0, 0.0)) == []
    assert judged(Budget(total, 200, 6.0)) == [True, True, True]
    assert judged(Budget(total * 0.9, 199, 5.9)) == [False, False, False]
    assert judged(Budget(total, 0, 6.0), states=("throttled",), energy=None) == [None, None]
    part = dataclasses.replace(ENERGY, whole_board=False)
    assert judged(Budget(0.0, 0, 6.0), energy=part) == [None]  # a part that keeps it decides nothing
    assert judged(Budget(0.0, 0, 5.0), energy=part) == [False]  # a part that breaks it does


# --- heat ---


def hot_board(folder: Path, state: str) -> Board:
    plain = board_of(folder)
    (folder / "state.toml").write_text(state)
    own = dataclasses.replace(plain.hardware, kind="sim", state_file=str(folder / "state.toml"))
    return dataclasses.replace(plain, hardware=own)


@pytest.mark.parametrize(
    ("state", "held_back"),
    [
        ("", False),
        ("throttled = true", True),
        ("[temperatures_c]\ncpu = 80.0", True),
        ("throttled_since_boot = true", False),
    ],
)
def test_only_a_box_that_is_held_back_now_counts_as_throttled(tmp_path: Path, state: str, held_back: bool) -> None:
    assert Heat(hot_board(tmp_path, state)).held_back() == held_back


def test_a_box_too_hot_to_read_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(RadboxError) as refused:
        Heat(hot_board(tmp_path, "[temperatures_c]\ncpu = 95.0")).held_back()
    assert refused.value.code == "bench.too-hot"


def test_samples_of_the_states_do_not_mix() -> None:
    samples = Samples()
    for state, seconds in (("warm", 1.0), ("throttled", 5.0), ("warm", 3.0)):
        samples.add(state, {"total": seconds})  # type: ignore[arg-type]
    spreads = samples.spreads()
    assert list(spreads) == ["warm", "throttled"]
    assert spreads["warm"]["total"].samples == (1.0, 3.0)
    assert spreads["throttled"]["total"].samples == (5.0,)


@pytest.mark.parametrize("wrong", [{"studies": 0}, {"studies": 257}, {"cold_starts": 0}, {"queued": 1}, {"queued": 65}])
def test_a_plan_out_of_bounds_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError) as refused:
        Plan(**wrong)
    assert refused.value.code == "bench.plan"


def test_two_runs_at_once_are_refused_and_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / FOLDER / "trial-left").mkdir(parents=True)
    with place(tmp_path) as folder:
        assert list(folder.iterdir()) == []
        with pytest.raises(RadboxError) as refused, place(tmp_path):
            raise AssertionError("a second run must not begin")
        assert refused.value.code == "bench.busy"
    lock = Lock(tmp_path / FOLDER)
    assert lock.acquire(wait_s=0.0)
    lock.close()


# --- the whole ---


def test_a_small_run_measures_writes_keeps_and_compares(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a box that is held back all the time, so that cold, warm and throttled can be told apart in one run."""
    state = tmp_path / "state.toml"
    state.write_text("throttled = true\n")
    file = tmp_path / "board.toml"
    text = (root / "board_configs" / "sim.toml").read_text()
    text = text.replace('state_file = ""', f"state_file = {json.dumps(str(state))}")
    text = text.replace("quiet_time_s = 2.0", "quiet_time_s = 0.2").replace('"models/', f'"{root}/models/')
    text = text.replace("power_w = 0", "power_w = 5")
    file.write_text(text)
    data_dir, out, picture = tmp_path / "data", tmp_path / "out.json", tmp_path / "out.svg"
    line = ["bench", "--board", file, "--data-dir", data_dir, "--studies", "1", "--cold", "1", "--queue", "2"]
    assert main([*map(str, line), "--json", "--out", str(out), "--plot", str(picture)]) == 0
    printed = from_json(capsys.readouterr().out)
    assert from_json(out.read_bytes()) == printed
    assert kept(data_dir).results == (printed,)
    assert picture.read_text().startswith("<svg ")
    assert [path.name for path in (data_dir / FOLDER).iterdir()] == ["000001.json"]
    assert list(printed.seconds) == ["throttled"]  # nothing was read on a cool box, and nothing claims it
    assert len(printed.seconds["throttled"]["total"].samples) == 2
    assert printed.setting.board == "sim"
    assert len(printed.model.sha256) == 64
    assert printed.tokens.per_s.p50 > 0
    assert printed.queue.images == 1
    assert {"receive", "worker", "web", "care"} <= printed.peak_bytes.keys()
    assert (printed.energy is None) == bool(printed.energy_absent)
    verdict = {one.budget: one.kept for one in printed.budgets}
    assert verdict["report_s"] is None
    assert verdict["memory_bytes"] is not None
    assert main(["bench", "--compare", str(out), str(out)]) == 0
    assert "too few samples" in capsys.readouterr().out
