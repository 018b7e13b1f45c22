"""Why the box started: what the hardware knows of the last reset, and the mark that an orderly stop leaves.

`<data_dir>/running` names the boot that care runs in; an orderly end of care says so in it. A mark of another boot
without that word means that the box had no time to stop: no power, a reset, a hang, a panic.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from edge import durable
from edge.care.hardware.readings import Boot
from edge.care.hardware.reset import Reset
from edge.closed import ClosedError, build

MARK: Final = Path("running")
LIMIT_BYTES: Final = 256 * 1024
_NO_STOP = "The box had not been stopped before."


@dataclass(frozen=True)
class Mark:
    """boot: the start it was written in. orderly: care has ended since. panics: records of panics known then."""

    boot: Boot
    orderly: bool
    panics: tuple[str, ...]


def read_mark(data_dir: Path) -> Mark | None:
    """The mark, None where there is none or it cannot be read: then nothing is known of what was before."""
    try:
        with (data_dir / MARK).open("rb") as file:
            document = json.loads(file.read(LIMIT_BYTES))
        return build(Mark, document, "the mark of the running box")
    except (OSError, ValueError, RecursionError, ClosedError):
        return None


def write_mark(data_dir: Path, mark: Mark) -> None:
    """Durable when this returns. Raises StorageError."""
    durable.write_file(data_dir / MARK, json.dumps(asdict(mark)).encode())


def leave_mark(data_dir: Path, boot_id: str) -> None:
    """An orderly stop; nothing if this boot has no mark. Raises StorageError."""
    mark = read_mark(data_dir)
    if mark is not None and mark.boot.boot_id == boot_id and not mark.orderly:
        write_mark(data_dir, replace(mark, orderly=True))


def why(boot_id: str, before: Mark | None, reset: Reset | None, panics: frozenset[str], armed: bool) -> Boot:
    """The reason for this boot. before: the mark as this boot found it. reset: what the hardware says of it.

    panics: records of panics that exist now. armed: a hardware watchdog runs. Hardware that says nothing leaves: a stop
    that was orderly is a reboot, and one that was not is taken for a loss of power, by far the most frequent.
    """
    if before is not None and before.boot.boot_id == boot_id:
        return before.boot
    if before is not None and panics - set(before.panics):
        return Boot(boot_id, "panic", "The system of the box failed (kernel panic) and was started again.")
    if before is None:
        return _first(boot_id, reset)
    if before.orderly:
        return _after_stop(boot_id, reset)
    return _after_loss(boot_id, reset, armed)


def _first(boot_id: str, reset: Reset | None) -> Boot:
    if reset is None or reset.cause == "warm":
        return Boot(boot_id, "unknown", "Nothing is known of the time before this start.")
    return Boot(boot_id, reset.cause, reset.detail)


def _after_stop(boot_id: str, reset: Reset | None) -> Boot:
    """Some watchdogs keep their flag until the power is removed, so an orderly stop outweighs it."""
    if reset is not None and reset.cause == "power-on":
        return Boot(boot_id, "power-on", "The box was stopped and switched on again.")
    return Boot(boot_id, "reboot", "The box was stopped and started again.")


def _after_loss(boot_id: str, reset: Reset | None, armed: bool) -> Boot:
    if reset is None or reset.cause == "power-on":
        detail = "The power was cut, or the reset button was pressed." if reset is None else reset.detail
        return Boot(boot_id, "power-on", f"{detail} {_NO_STOP}", power_lost=True)
    if reset.cause == "warm":
        detail = "The watchdog reset the box, since it was not stopped before." if armed else reset.detail
        return Boot(boot_id, "watchdog" if armed else "crash", detail)
    if reset.cause == "reboot":
        return Boot(boot_id, "crash", f"{reset.detail} {_NO_STOP}")
    return Boot(boot_id, reset.cause, reset.detail)
