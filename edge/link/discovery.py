"""Home Assistant finds the box by itself: one retained message for each thing it shows. Pure.

Source: Home Assistant's documentation of MQTT discovery (`<prefix>/<component>/<node>/<object>/config`); what is told
is in the topics of `edge.link.topics`, these messages only say where and in which unit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from edge.box_words import STATES
from edge.link.topics import COUNTERS, HARDWARE, HEALTH, OFFLINE, ONLINE, STATUS, name_of

PREFIX: Final = "homeassistant"


@dataclass(frozen=True)
class Entity:
    """One thing on the dashboard. `value`: a template over the topic's JSON; `extra`: fields of the component."""

    component: str
    key: str
    name: str
    topic: str
    value: str
    extra: tuple[tuple[str, Any], ...] = ()


_YES_NO: Final = "{{ 'ON' if %s else 'OFF' }}"
_PROBLEM: Final = (("device_class", "problem"),)
_TOTAL: Final = (("state_class", "total_increasing"),)

ENTITIES: Final = (
    Entity("sensor", "state", "State", HEALTH, "{{ value_json.state }}",
           (("device_class", "enum"), ("options", STATES))),
    Entity("sensor", "issues", "Open issues", HEALTH, "{{ value_json.issue_count }}",
           (("state_class", "measurement"),)),
    Entity("sensor", "waiting", "Studies that wait", HEALTH, "{{ value_json.waiting }}",
           (("state_class", "measurement"),)),
    Entity("binary_sensor", "needs_a_look", "Needs a look", HEALTH, _YES_NO % "value_json.issue_count > 0", _PROBLEM),
    Entity("binary_sensor", "weak_power", "Weak power", HARDWARE, _YES_NO % "value_json.undervoltage", _PROBLEM),
    Entity("binary_sensor", "throttled", "Throttled", HARDWARE, _YES_NO % "value_json.throttled", _PROBLEM),
    Entity("sensor", "temperature", "Temperature", HARDWARE, "{{ value_json.hottest_c }}",
           (("device_class", "temperature"), ("unit_of_measurement", "\N{DEGREE SIGN}C"),
            ("state_class", "measurement"))),
    Entity("sensor", "free_space", "Free space", HARDWARE, "{{ value_json.free_bytes }}",
           (("device_class", "data_size"), ("unit_of_measurement", "B"), ("state_class", "measurement"))),
    Entity("sensor", "images_received", "Images received", COUNTERS,
           "{{ value_json.totals.images_received | default(0) }}", _TOTAL),
    Entity("sensor", "studies_read", "Studies read", COUNTERS,
           "{{ value_json.totals.studies_read | default(0) }}", _TOTAL),
)  # fmt: skip


def messages(prefix: str, box: str, version: str) -> dict[str, str]:
    """Topic -> payload of every entity; all are retained."""
    return {
        f"{PREFIX}/{one.component}/radbox_{box}/{one.key}/config": json.dumps(
            _config(one, prefix, box, version), sort_keys=True, separators=(",", ":")
        )
        for one in ENTITIES
    }


def _config(one: Entity, prefix: str, box: str, version: str) -> dict[str, Any]:
    return {
        **dict(one.extra),
        "name": one.name,
        "unique_id": f"radbox_{box}_{one.key}",
        "state_topic": name_of(prefix, box, one.topic),
        "value_template": one.value,
        "availability_topic": name_of(prefix, box, STATUS),
        "payload_available": ONLINE,
        "payload_not_available": OFFLINE,
        "device": {"identifiers": [f"radbox_{box}"], "name": f"radbox {box}", "model": "radbox", "sw_version": version},
    }
