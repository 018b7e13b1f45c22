"""A box with everything that a page of its health, the metrics and MQTT can tell, in a real store."""

from __future__ import annotations

import math
from pathlib import Path

from edge.board import Board
from edge.store import IssueFacts, Store
from tests.page_store import page_board, stock

HARDWARE = {
    "temperatures_c": {"cpu": 61.24, "Package id 0": 58.0},
    "throttled": True,
    "undervoltage": False,
    "overcurrent": False,
    "wear_percent": {"mmcblk0": 30.0},
    "free_bytes": 20 * 2**30,
    "total_bytes": 60 * 2**30,
    "load_1m": 0.75,
    "memory_free_bytes": 3 * 2**30,
    "uptime_s": 7200.0,
    "accelerators": {"/dev/hailo0": False},
    "power": "mains",
    "fan_percent": 40.0,
    "clock": {"state": "set"},
}
AGE_S = 10 * 86_400.0


def fill(store: Store) -> None:
    """Facts, totals, issues, and a week of history with a day's hole in it."""
    store.tick_age()
    store._db.all("UPDATE box SET age_s = ?", AGE_S)
    store.set_fact("hardware", HARDWARE)
    store.set_fact("clock", {"state": "set"})
    store.set_fact("printer", {"state": "idle", "reasons": ["media-empty"], "message": "The paper is empty."})
    store.set_fact("mqtt", {"connected": False, "code": "mqtt.unreachable", "waiting": 3, "told": []})
    store.add_counts({"images_received": 41, "studies_read": 12, "associations": 15, "mqtt_dropped": 2})
    store.set_issues(
        [IssueFacts("issue.printer", "", "warning"), IssueFacts("issue.modality-silent", "CR-ROOM-1", "info")]
    )
    with store._db.transaction():
        for number in range(7 * 288):
            if 288 <= number < 576:
                continue
            at_s = AGE_S - 7 * 86_400.0 + 300.0 * (number + 1)
            values = {
                "temperature_c": 50 + 15 * math.sin(number / 46),
                "queue": float(number % 7 == 0),
                "studies_read": float(number // 24),
                "free_percent": 60 - number / 100,
                "memory_free_bytes": 2.0**31,
            }
            for name, value in values.items():
                store._db.insert("sample", name=name, age_s=at_s, value=value)


def stocked(data_dir: Path, port: int) -> tuple[Board, Store]:
    """A box with studies (and patients) and all the rest."""
    built = stock(data_dir, port)
    fill(built.store)
    return page_board(data_dir, port), built.store
