"""The wall clock, set from a phone: what care asks for, and `python -m edge.care.clock BOARD`, which may set it.

The box never depends on the wall clock; people and other machines do. A board without a battery-backed clock and
without a network starts in the past, and the phone that opens the page knows better. care has no right to set a clock:
it leaves a small request, and a unit that systemd starts for it checks the request, sets the clock and answers.
"""

from __future__ import annotations

import json
import logging
import math
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from edge import durable
from edge.board import load_board
from edge.care.hardware.clock_state import RELEASED_UNIX_S, is_set, kernel_synchronised
from edge.care.set_clock import SystemClock
from edge.closed import ClosedError, build
from edge.errors import RadboxError, StorageError
from edge.service import setup_logging
from edge.store_paths import boot_id

REQUEST: Final = Path("clock.request")
RESULT: Final = Path("clock.result")
LATEST_UNIX_S: Final = 4_102_444_800  # 2100-01-01
NEAR_S: Final = 60.0  # a clock that something keeps right is left alone when it differs by less
OLDEST_S: Final = 600.0  # a request that waited for longer is not a person's wish any more
LIMIT_BYTES: Final = 4096
_LOG = logging.getLogger("radbox.clock")


class Refused(RadboxError):
    """A time that the clock is not set to: clock.out-of-bounds, clock.right-already, clock.stale, clock.malformed."""

    default_code = "clock.refused"


@dataclass(frozen=True)
class Request:
    """The time that was right at `monotonic_s` (CLOCK_MONOTONIC of the boot `boot_id`); what passed since is added."""

    unix_s: float
    monotonic_s: float
    boot_id: str


@dataclass(frozen=True)
class Result:
    """What became of the last request. code: clock.set, clock.set-without-rtc, or that of a refusal."""

    code: str
    message: str
    monotonic_s: float
    boot_id: str


class Setter(Protocol):
    """What may set clocks."""

    def set_time(self, unix_s: float) -> None:
        """The system's clock. Raises OSError."""

    def set_rtc(self, unix_s: float) -> bool:
        """The battery-backed clock, in UTC; False where there is none or it refuses."""


# --- what care does ---


def use_phone_time(data_dir: Path, unix_s: float) -> None:
    """Ask for this time, which is right now. Raises Refused (clock.out-of-bounds), StorageError."""
    check_bounds(unix_s)
    request = Request(float(unix_s), time.monotonic(), boot_id())
    durable.write_file(data_dir / REQUEST, json.dumps(asdict(request)).encode())


def read_result(data_dir: Path) -> Result | None:
    """The answer to the last request of this boot; None while there is none."""
    try:
        result = build(Result, json.loads(read_bounded(data_dir / RESULT)), "the answer")
    except (OSError, ValueError, RecursionError, ClosedError):
        return None
    return result if result.boot_id == boot_id() else None


# --- what the unit does ---


def check_bounds(unix_s: float) -> None:
    """Raises Refused for a time before this release was made, or after 2100."""
    if not math.isfinite(unix_s) or not is_set(unix_s) or unix_s >= LATEST_UNIX_S:
        released = time.strftime("%Y-%m-%d", time.gmtime(RELEASED_UNIX_S))
        raise Refused(f"expected a time between {released} and 2100, got another one", code="clock.out-of-bounds")


def target_unix_s(request: Request, monotonic_s: float, boot: str) -> float:
    """The time that the request means now. Raises Refused (clock.stale, clock.out-of-bounds)."""
    waited_s = monotonic_s - request.monotonic_s
    if request.boot_id != boot or not 0 <= waited_s <= OLDEST_S:
        raise Refused("expected a time that was asked for a moment ago, got an old one", code="clock.stale")
    check_bounds(request.unix_s + waited_s)
    return request.unix_s + waited_s


def check_needed(target_s: float, now_s: float, synchronised: bool) -> None:
    """Raises Refused (clock.right-already) where something keeps the clock right and it differs by little."""
    if is_set(now_s) and synchronised and abs(target_s - now_s) <= NEAR_S:
        raise Refused("expected a clock that is wrong, got one that is kept right", code="clock.right-already")


def serve_request(
    data_dir: Path,
    setter: Setter,
    wall: Callable[[], float] = time.time,
    synchronised: Callable[[], bool | None] = kernel_synchronised,
) -> Result | None:
    """Take the request, set the clock, answer. None if there is no request. Raises StorageError.

    The request goes before the clock is touched: whatever happens then, it is not served twice.
    """
    path = data_dir / REQUEST
    if not os.path.lexists(path):
        return None
    content: bytes | OSError
    try:
        content = read_bounded(path)
    except OSError as error:
        content = error
    durable.remove(path)
    result = Result(*_serve(content, setter, wall, synchronised), time.monotonic(), boot_id())
    durable.write_file(data_dir / RESULT, json.dumps(asdict(result)).encode())
    return result


def _serve(
    content: bytes | OSError, setter: Setter, wall: Callable[[], float], synchronised: Callable[[], bool | None]
) -> tuple[str, str]:
    try:
        request = parse_request(content)
        target_s = target_unix_s(request, time.monotonic(), boot_id())
        check_needed(target_s, wall(), bool(synchronised()))
        setter.set_time(target_s)
    except Refused as refusal:
        return refusal.code, refusal.message
    except OSError as error:
        return "clock.failed", f"expected to set the clock, got: {os.strerror(error.errno or 0)}"
    if setter.set_rtc(target_s):
        return "clock.set", "The clock was set."
    return "clock.set-without-rtc", "The clock was set. The box forgets the time when it has no power."


def parse_request(content: bytes | OSError) -> Request:
    """Raises Refused (clock.malformed)."""
    try:
        if isinstance(content, OSError):
            raise ValueError("the file cannot be read")
        return build(Request, json.loads(content), "the request")
    except (ValueError, RecursionError, ClosedError) as error:
        raise Refused("expected a request for a time, got something else", code="clock.malformed") from error


def read_bounded(path: Path) -> bytes:
    """A small regular file, never through a link. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("expected a regular file")
        return os.read(handle, LIMIT_BYTES)
    finally:
        os.close(handle)


def main(arguments: Sequence[str], setter: Setter | None = None) -> int:
    """`python -m edge.care.clock BOARD`; 0 if the request was answered, whatever the answer. setter: for tests."""
    setup_logging("clock")
    if len(arguments) != 1:
        _LOG.error("expected the path of the board file, got %d arguments", len(arguments))
        return 2
    try:
        result = serve_request(load_board(Path(arguments[0])).data_dir, setter or SystemClock())
    except RadboxError as error:
        _LOG.error("%s: %s", error.code, error.message)
        return 2 if not isinstance(error, StorageError) else 1
    if result is not None:
        _LOG.info("%s: %s", result.code, result.message)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
