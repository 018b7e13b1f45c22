"""What goes to the broker and when: how the box is, shown; each new issue, put into the outbox once."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from edge.board import Mqtt
from edge.link import discovery, topics
from edge.link.mqtt import TROUBLE, Address, Broker
from edge.link.snapshot import Snapshot, take, version
from edge.store import Store

FACT: Final = "mqtt"
COUNT_EVERY_S: Final = 60.0  # how many messages wait is written down so often
_LOG = logging.getLogger("radbox.link")


def address(settings: Mqtt, box: str) -> Address:
    """Where this box speaks. The same client name at every start, so that a broker ends what an earlier one left."""
    return Address(f"radbox-{box}", topics.name_of(settings.topic, box, topics.STATUS))


class Reporter:
    """`step` every few seconds. Which issues were told is kept in the store's fact `mqtt`, across restarts."""

    def __init__(self, settings: Mqtt, store: Store, boot_id: str, box: str, broker: Broker) -> None:
        self._settings, self._store, self._boot_id, self._box, self._broker = settings, store, boot_id, box, broker
        self._start_s = time.monotonic()
        self._connections = 0  # told to
        self._health: topics.Health | None = None
        self._next_s = 0.0
        fact = store.facts().get(FACT)
        self._told: set[str] = set(fact.value.get("told", ())) if fact else set()
        self._written: dict[str, Any] = {}
        self._count_s = float("-inf")

    def step(self) -> None:
        """Tell what is new. Raises StorageError, StoreError."""
        self._tell_issues()
        if self._broker.connected:
            self._show()
        self._write_down()

    @property
    def trouble(self) -> tuple[str, str]:
        """Code and words of what keeps the broker away; ("", "") if nothing does."""
        code = "" if self._broker.connected else self._broker.trouble
        return code, TROUBLE.get(code, "")

    def _tell_issues(self) -> None:
        """The outbox first, then the note that it was told: a crash in between tells twice, never not at all."""
        rows = {topics.issue_key(row): row for row in self._store.issues()}
        new = [row for key, row in rows.items() if key not in self._told]
        self._told &= rows.keys()
        if not new:
            return
        snapshot = self._look()
        dropped = 0
        for row in new:
            text = topics.payload(topics.issue(row, snapshot))
            dropped += self._store.put_out(self._topic(topics.ISSUE), text, self._settings.outbox)
        if dropped:
            self._store.add_counts({"mqtt_dropped": dropped})
            _LOG.warning("%d messages were dropped: %d wait for the broker already", dropped, self._settings.outbox)
        self._told = set(rows)
        self._write_down()
        self._broker.news()

    def _show(self) -> None:
        snapshot = self._look()
        health = topics.health(snapshot, version())
        connections = self._broker.connections
        due = time.monotonic() >= self._next_s or connections != self._connections
        if due or not topics.same_health(health, self._health):
            self._broker.show(self._topic(topics.HEALTH), topics.payload(health))
            self._health = health
        if due:
            self._broker.show(self._topic(topics.COUNTERS), topics.payload(topics.counters(snapshot)))
            self._broker.show(self._topic(topics.HARDWARE), topics.payload(topics.hardware(snapshot)))
            self._next_s = time.monotonic() + self._settings.interval_s
        if connections != self._connections and self._settings.home_assistant:
            for topic, text in discovery.messages(self._settings.topic, self._box, version()).items():
                self._broker.show(topic, text)
        self._connections = connections

    def _write_down(self) -> None:
        """The fact `mqtt`, when it changed; nothing before the first try to connect ended."""
        code, _ = self.trouble
        connected = self._broker.connected
        if not connected and not code and not self._told:
            return
        value: dict[str, Any] = {"code": code, "told": sorted(self._told)}
        if connected or code:
            value["connected"] = connected
        now_s = time.monotonic()
        changed = any(self._written.get(name) != one for name, one in value.items())
        if changed or now_s - self._count_s >= COUNT_EVERY_S:
            value["waiting"] = len(self._store.outbox(self._settings.outbox))
            self._written, self._count_s = value, now_s
            self._store.set_fact(FACT, value)

    def _look(self) -> Snapshot:
        return take(self._store, self._boot_id, self._start_s)

    def _topic(self, topic: str) -> str:
        return topics.name_of(self._settings.topic, self._box, topic)
