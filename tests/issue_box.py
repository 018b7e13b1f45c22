"""What the checks look at, made by hand for the tests of `edge.care.issues`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edge.board import Board, load_board
from edge.board_keys import GIB
from edge.care.issues.checks import opened, tell
from edge.care.issues.habits import DAY_S, Habit
from edge.care.issues.notes import Notes
from edge.care.issues.seen import Seen
from edge.durable import DiskUse
from edge.slots import CRASHED, Outcome
from edge.store import ServiceRow
from edge.store_rows import IssueFacts, ModalityRow

ROOT = Path(__file__).resolve().parent.parent
NOW_S, BOOT = 50_000.0, "this-boot"
AGE_S = 100 * DAY_S


def equipped_board(data_dir: Path = Path("unused")) -> Board:
    """The simulated board with everything connected that can be."""
    plain = load_board(ROOT / "board_configs" / "sim.toml")
    return dataclasses.replace(
        plain,
        data_dir=data_dir,
        worker=dataclasses.replace(plain.worker, bundle=ROOT / plain.worker.bundle),
        panel=dataclasses.replace(plain.panel, device="/dev/ttyUSB0"),
        grabber=dataclasses.replace(plain.grabber, source="/dev/video0"),
        mqtt=dataclasses.replace(plain.mqtt, host="192.0.2.7"),
        printer=dataclasses.replace(plain.printer, uri="ipp://192.0.2.8/ipp/print"),
    )


def row(name: str, state: Any = "ok", code: str = "", ago_s: float = 1.0, boot: str = BOOT) -> ServiceRow:
    """What a service said `ago_s` seconds ago."""
    return ServiceRow(name, state, code, "Said so.", NOW_S - ago_s, boot)


def use(percent: float, size: int = 100 * GIB) -> DiskUse:
    """A disk of which so much is used."""
    used = int(size * percent / 100)
    return DiskUse(size, used, size - used)


def healthy(**more: Any) -> Seen:
    """A box on which nothing is wrong, but for `more`."""
    plain = Seen(
        board=equipped_board(),
        now_s=NOW_S,
        boot_id=BOOT,
        age_s=AGE_S,
        watched_s=5_000.0,
        disk=use(50),
        services={name: row(name) for name in ("receive", "worker", "care", "link", "panel", "capture")},
        facts={
            "boot": {"boot_id": BOOT, "reason": "power-on", "detail": ""},
            "clock": {"state": "set"},
            "hardware": {
                "temperatures_c": {"cpu": 50.0},
                "wear_percent": {"mmcblk0": 3.0},
                "accelerators": {"/dev/x": True},
            },
            "thermal": {"state": "ok"},
            "printer": {"state": "idle", "reasons": []},
            "mqtt": {"connected": True},
            "grabber": {"state": "ok"},
            "escalation": {"at_work": "a", "order": ["a", "b"], "backend": {}},
        },
        recent={"associations": 40, "associations_aborted": 1},
        machines=(ModalityRow("CR1", 500, 10 * DAY_S, AGE_S - 3600, NOW_S, BOOT),),
        notes=Notes(habits={"CR1": Habit(AGE_S - 3600, (40_000.0, 60_000.0))}),
    )
    return dataclasses.replace(plain, **more)


def fact(**named: dict[str, Any]) -> dict[str, Any]:
    """`healthy`'s facts with some replaced."""
    return {"facts": {**healthy().facts, **named}}


def service(*rows: ServiceRow) -> dict[str, Any]:
    """`healthy`'s services with some replaced."""
    return {"services": {**healthy().services, **{one.name: one for one in rows}}}


def machine(silent_s: float, images: int = 500, first_age_s: float = 10 * DAY_S, **habit: Any) -> dict[str, Any]:
    """One machine that has been silent so long, after gaps of at most a weekend."""
    last_age_s = AGE_S - silent_s
    rows = (ModalityRow("CR1", images, first_age_s, last_age_s, 0.0, BOOT),)
    habits = {"CR1": Habit(last_age_s, **{"gaps_s": (40_000.0, 2 * DAY_S), **habit})}
    return {"machines": rows, "notes": Notes(habits=habits)}


def lasting(seen: Seen) -> list[IssueFacts]:
    """The issues if everything stays as it is for an hour."""
    later = dataclasses.replace(seen, told=tell(seen), now_s=seen.now_s)
    told = {key: dataclasses.replace(one, first_s=one.first_s - 3600) for key, one in later.told.items()}
    return opened(tell(dataclasses.replace(seen, told=told)))


FAILURE = Outcome(CRASHED, "The new model stopped the reader twice.")
# Every issue once: what is so, and its subject.
TROUBLES: dict[str, tuple[dict[str, Any], str]] = {
    "issue.disk-full": ({"disk": use(99.9)}, ""),
    "issue.disk-nearly-full": ({"disk": use(95)}, ""),
    "issue.clock-unset": (fact(clock={"state": "unset"}), ""),
    "issue.modality-silent": (machine(9 * DAY_S), "CR1"),
    "issue.modality-aborting": ({"recent": {"associations": 10, "associations_aborted": 6}}, ""),
    "issue.accelerator-lost": (fact(hardware={"accelerators": {"/dev/hailo0": False}}), "/dev/hailo0"),
    "issue.ai-paused": (service(row("worker", "paused", "backend.none-passed")), ""),
    "issue.update-rolled-back": ({"failure": FAILURE}, ""),
    "issue.printer": (fact(printer={"state": "stopped", "reasons": ["media-jam"], "message": "Paper is jammed."}), ""),
    "issue.throttling": (fact(thermal={"state": "slow"}, hardware={"temperatures_c": {"cpu": 78.0}}), ""),
    "issue.too-hot": (fact(thermal={"state": "pause"}, hardware={"temperatures_c": {"cpu": 93.0}}), ""),
    "issue.weak-power": (fact(hardware={"undervoltage": True}), ""),
    "issue.wear": (fact(hardware={"wear_percent": {"mmcblk0": 85.0}}), "mmcblk0"),
    "issue.database-repaired": ({"notes": Notes(repaired=17)}, ""),
    "issue.service-silent": (service(row("worker", ago_s=900.0)), "worker"),
    "issue.watchdog-reset": (fact(boot={"reason": "watchdog"}), ""),
    "issue.grabber-no-signal": (fact(grabber={"state": "no-signal"}), ""),
    "issue.panel-lost": (service(row("panel", "degraded", "panel.unplugged")), ""),
    "issue.mqtt-lost": (fact(mqtt={"connected": False}), ""),
    "issue.outbox-full": ({"recent": {"mqtt_dropped": 4}}, ""),
}
