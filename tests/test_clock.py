"""The clock is set from a phone: checked, bounded, once, and never this machine's clock in a test."""

from __future__ import annotations

import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.care import clock, set_clock
from edge.care.clock import (
    LATEST_UNIX_S,
    OLDEST_S,
    REQUEST,
    RESULT,
    Refused,
    Request,
    main,
    parse_request,
    read_result,
    serve_request,
    target_unix_s,
    use_phone_time,
)
from edge.care.hardware.clock_state import RELEASED_UNIX_S
from edge.care.set_clock import rtc_time
from edge.store_paths import boot_id
from tests.report_examples import REPEATABLE

PHONE = RELEASED_UNIX_S + 5e6
WRONG, RIGHT = PHONE - 3600.0, PHONE + 5.0


class FakeSetter:
    """Notes what would be set."""

    def __init__(self, rtc: bool = True, error: OSError | None = None) -> None:
        self.rtc, self.error = rtc, error
        self.times: list[float] = []
        self.rtc_times: list[float] = []

    def set_time(self, unix_s: float) -> None:
        if self.error:
            raise self.error
        self.times.append(unix_s)

    def set_rtc(self, unix_s: float) -> bool:
        self.rtc_times.append(unix_s)
        return self.rtc


def serve(folder, setter, wall_s=WRONG, synchronised=False):
    return serve_request(folder, setter, lambda: wall_s, lambda: synchronised)


def ask(folder, **changes):
    request = {"unix_s": PHONE, "monotonic_s": time.monotonic(), "boot_id": boot_id(), **changes}
    (folder / REQUEST).write_text(json.dumps(request))


def test_from_the_tap_to_the_answer(tmp_path):
    use_phone_time(tmp_path, PHONE)
    assert read_result(tmp_path) is None
    setter = FakeSetter()
    result = serve(tmp_path, setter)
    assert result.code == "clock.set"
    assert read_result(tmp_path) == result
    assert PHONE <= setter.times[0] < PHONE + 60
    assert setter.rtc_times == setter.times
    assert not (tmp_path / REQUEST).exists()
    assert serve(tmp_path, setter) is None  # once


def test_what_waited_is_added(tmp_path):
    setter = FakeSetter()
    ask(tmp_path, monotonic_s=time.monotonic() - 100.0)
    assert serve(tmp_path, setter).code == "clock.set"
    assert PHONE + 100 <= setter.times[0] < PHONE + 160


def test_a_board_without_a_battery_says_so(tmp_path):
    use_phone_time(tmp_path, PHONE)
    assert serve(tmp_path, FakeSetter(rtc=False)).code == "clock.set-without-rtc"


def test_a_clock_that_may_not_be_set_is_told(tmp_path):
    use_phone_time(tmp_path, PHONE)
    result = serve(tmp_path, FakeSetter(error=PermissionError(1, "no")))
    assert (result.code, result.message) == (
        "clock.failed",
        "expected to set the clock, got: Operation not permitted",
    )


@pytest.mark.parametrize(
    ("wall_s", "synchronised", "code"),
    [
        (RIGHT, True, "clock.right-already"),
        (RIGHT, False, "clock.set"),  # nothing keeps it right
        (WRONG, True, "clock.set"),  # more than a minute off, whoever keeps it
        (0.0, True, "clock.set"),  # not set at all
    ],
)
def test_a_clock_that_is_kept_right_is_left_alone(tmp_path, wall_s, synchronised, code):
    use_phone_time(tmp_path, PHONE)
    setter = FakeSetter()
    assert serve(tmp_path, setter, wall_s, synchronised).code == code
    assert len(setter.times) == (code == "clock.set")


@pytest.mark.parametrize("unix_s", [0.0, RELEASED_UNIX_S - 1, LATEST_UNIX_S, float("nan"), float("inf"), -1e18])
def test_a_time_out_of_bounds_is_refused_by_both(tmp_path, unix_s):
    with pytest.raises(Refused) as refusal:
        use_phone_time(tmp_path, unix_s)
    assert refusal.value.code == "clock.out-of-bounds"
    assert not (tmp_path / REQUEST).exists()
    ask(tmp_path, unix_s=unix_s)
    setter = FakeSetter()
    assert serve(tmp_path, setter).code in ("clock.out-of-bounds", "clock.malformed")
    assert setter.times == []


@pytest.mark.parametrize(
    "changes",
    [{"boot_id": "another"}, {"monotonic_s": 0.0 - OLDEST_S}, {"monotonic_s": 1e12}],
)
def test_an_old_request_is_not_served(tmp_path, changes):
    ask(tmp_path, **changes)
    setter = FakeSetter()
    assert serve(tmp_path, setter).code == "clock.stale"
    assert setter.times == []


@REPEATABLE
@given(st.one_of(st.binary(max_size=80), st.just(b"[" * 4000), st.just(b'{"unix_s": true}')))
def test_a_request_that_is_none(content):
    with pytest.raises(Refused) as refusal:
        parse_request(content)
    assert refusal.value.code == "clock.malformed"


@REPEATABLE
@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(0, 1e9))
def test_every_target_is_within_bounds(unix_s, monotonic_s, now_s):
    try:
        target_s = target_unix_s(Request(unix_s, monotonic_s, "b"), now_s, "b")
    except Refused:
        return
    assert RELEASED_UNIX_S <= target_s < LATEST_UNIX_S


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_request_that_is_no_plain_file(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(clock, "setup_logging", lambda name: None)
    if kind == "link":
        (tmp_path / "secret").write_text(json.dumps({"unix_s": PHONE}))
        (tmp_path / REQUEST).symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(tmp_path / REQUEST)
    else:
        (tmp_path / REQUEST).mkdir()
    setter = FakeSetter()
    if kind == "folder":  # cannot be removed: the unit fails, and nothing was set
        assert main([str(board_file(tmp_path))], setter) == 1
    else:
        assert serve(tmp_path, setter).code == "clock.malformed"
        assert not os.path.lexists(tmp_path / REQUEST)
    assert setter.times == []


def test_an_answer_of_another_boot_is_none(tmp_path):
    (tmp_path / RESULT).write_text(json.dumps({"code": "x", "message": "", "monotonic_s": 1.0, "boot_id": "old"}))
    assert read_result(tmp_path) is None
    (tmp_path / RESULT).write_text("{")
    assert read_result(tmp_path) is None


def board_file(folder):
    path = folder / "board.toml"
    path.write_text(f'name = "x"\ndata_dir = "{folder}"\n[worker]\nbundle = "b"\n')
    return path


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.delenv("RADBOX_DATA_DIR", raising=False)
    monkeypatch.setattr(clock, "setup_logging", lambda name: None)
    setter = FakeSetter()
    assert main([], setter) == 2
    assert main([str(tmp_path / "none.toml")], setter) == 2
    assert main([str(board_file(tmp_path))], setter) == 0
    ask(tmp_path, unix_s=time.time() + 86400.0 if time.time() > RELEASED_UNIX_S else PHONE)
    assert main([str(board_file(tmp_path))], setter) == 0
    result = read_result(tmp_path)
    assert result is not None
    assert result.code == "clock.set"
    assert len(setter.times) == 1


def test_a_battery_backed_clock_that_refuses_is_none(tmp_path, monkeypatch):
    (tmp_path / "rtc").write_bytes(b"")  # no clock device: the ioctl fails
    monkeypatch.setattr(set_clock, "RTC_DEVICES", (tmp_path / "missing", tmp_path / "rtc"))
    assert not set_clock.SystemClock().set_rtc(PHONE)


def test_the_time_of_the_battery_backed_clock():
    fields = memoryview(rtc_time(1_795_305_600 + 3661)).cast("i").tolist()
    assert fields == [1, 1, 1, 22, 10, 126, 0, 0, 0]
