"""A snapshot -> Prometheus text, exposition format 0.0.4. Pure. No patient data: numbers, codes and names of this box.

A label's values are bounded: services, codes and states are this program's, sensors are the board's, and AE titles are
those that the board file names; what others send is counted under "other".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from edge.box_words import STATES
from edge.link import topics
from edge.link.snapshot import Snapshot
from edge.link.topics import word
from edge.store_rows import ModalityRow

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "radbox_"
MOST_SERIES: Final = 64  # of one metric
OTHER: Final = "other"
_RANKS: Final[Mapping[str, int]] = {"ok": 0, "degraded": 1, "paused": 2}
_PRINTER_STATES: Final = ("idle", "processing", "stopped", "offline")

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


@dataclass(frozen=True)
class Metric:
    """One metric and its series."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Versions:
    """What runs here."""

    radbox: str
    python: str
    model: str


def exposition(metrics: Iterable[Metric]) -> str:
    """The text; a metric without a series is left out."""
    lines = []
    for metric in metrics:
        if not metric.samples:
            continue
        name = PREFIX + metric.name
        lines += [f"# HELP {name} {_escaped(metric.help)}", f"# TYPE {name} {metric.kind}"]
        lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in metric.samples[:MOST_SERIES]]
    return "\n".join(lines) + "\n"


def metrics(
    snapshot: Snapshot, versions: Versions, modalities: Iterable[ModalityRow], named: tuple[str, ...]
) -> list[Metric]:
    """Everything that is told. named: the AE titles of the board file."""
    told = [
        _gauge("info", "What runs on this box.", ({**vars(versions)}, 1)),
        _one_of("state", "The box's state.", "state", STATES, snapshot.state),
        _gauge("age_seconds", "Seconds that the box has run, all boots together.", snapshot.moment.age_s),
        *_services(snapshot),
        *_issues(snapshot),
        Metric(
            "studies",
            "gauge",
            "Studies on the box, by state.",
            tuple(({"state": word(state)}, number) for state, number in sorted(snapshot.studies.items())),
        ),
        *_hardware(topics.hardware(snapshot)),
        *_links(snapshot),
        *_senders(snapshot, modalities, named),
    ]
    names = {one.name for one in told}
    return [*told, *(one for one in _totals(snapshot) if one.name not in names)]


def _services(snapshot: Snapshot) -> list[Metric]:
    rows = snapshot.services
    ages = ((row, snapshot.silent_for_s(row)) for row in rows)
    return [
        Metric(
            "service_state",
            "gauge",
            "How a service says it is: 0 ok, 1 degraded, 2 paused.",
            tuple(({"service": word(row.name)}, _RANKS[row.state]) for row in rows),
        ),
        Metric(
            "service_silent_seconds",
            "gauge",
            "Seconds since a service's last sign of life in this boot.",
            tuple(({"service": word(row.name)}, age_s) for row, age_s in ages if age_s is not None),
        ),
    ]


def _issues(snapshot: Snapshot) -> list[Metric]:
    by_code: dict[tuple[str, str], int] = {}
    for row in snapshot.issues:
        key = (word(row.code), word(row.severity))
        by_code[key] = by_code.get(key, 0) + 1
    series = [({"code": code, "severity": severity}, number) for (code, severity), number in sorted(by_code.items())]
    return [
        _gauge("issues", "Issues that are open.", len(snapshot.issues)),
        Metric("issue", "gauge", "Open issues of a kind.", tuple(series)),
    ]


def _hardware(found: topics.Hardware) -> list[Metric]:
    def flag(name: str, help_text: str, value: bool | None) -> Metric:
        return _gauge(name, help_text, None if value is None else int(value))

    def each(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
        return Metric(name, "gauge", help_text, tuple(({label: one}, values[one]) for one in sorted(values)))

    return [
        each("temperature_celsius", "Temperature of a sensor.", "sensor", found.temperatures_c),
        each("storage_wear_percent", "Used-up part of the storage's rated life.", "device", found.wear_percent),
        each("accelerator_present", "Whether a device that the board names is there.", "device", found.accelerators),
        flag("throttled", "Whether the processor is held back now.", found.throttled),
        flag("undervoltage", "Whether the power supply is too weak now.", found.undervoltage),
        flag("overcurrent", "Whether too much current is drawn now.", found.overcurrent),
        _gauge("storage_free_bytes", "Free space where the studies are kept.", found.free_bytes),
        _gauge("storage_size_bytes", "Size of the file system where the studies are kept.", found.total_bytes),
        _gauge("memory_free_bytes", "Memory that is free.", found.memory_free_bytes),
        _gauge("load_1m", "Load of the last minute.", found.load_1m),
        _gauge("uptime_seconds", "Seconds since the system started.", found.uptime_s),
    ]


def _links(snapshot: Snapshot) -> list[Metric]:
    mqtt, printer = snapshot.facts.get("mqtt", {}), snapshot.facts.get("printer", {})
    connected, waiting = mqtt.get("connected"), mqtt.get("waiting")
    told = [
        _gauge("mqtt_connected", "Whether the MQTT broker answers.", None if connected is None else connected is True),
        _gauge("mqtt_waiting", "Messages that wait for the MQTT broker.", waiting if _is_number(waiting) else None),
    ]
    if printer:
        state = str(printer.get("state", ""))
        told.append(_one_of("printer_state", "The printer's state.", "state", _PRINTER_STATES, state))
    return told


def _senders(snapshot: Snapshot, rows: Iterable[ModalityRow], named: tuple[str, ...]) -> list[Metric]:
    images: dict[str, int] = {}
    silent_s: dict[str, float] = {}
    known = set(named[: MOST_SERIES - 1])
    for row in rows:
        who = row.calling_ae if row.calling_ae in known else OTHER
        images[who] = images.get(who, 0) + row.images
        silent_s[who] = min(silent_s.get(who, float("inf")), max(0.0, snapshot.moment.age_s - row.last_age_s))
    return [
        Metric(
            "sender_images_total",
            "counter",
            "Images of a sender, by its AE title where the board names it.",
            tuple(({"calling_ae": who}, images[who]) for who in sorted(images)),
        ),
        Metric(
            "sender_silent_seconds",
            "gauge",
            "Running time of the box since a sender's last image.",
            tuple(({"calling_ae": who}, silent_s[who]) for who in sorted(silent_s)),
        ),
    ]


def _totals(snapshot: Snapshot) -> list[Metric]:
    counted = topics.counters(snapshot).totals
    return [
        Metric(
            f"{re.sub('[^a-z0-9]', '_', name)}_total",
            "counter",
            f"{name.replace('_', ' ').capitalize()} since the box was new.",
            (({}, total),),
        )
        for name, total in sorted(counted.items())
    ]


def _gauge(name: str, help_text: str, value: float | tuple[Labels, float] | None) -> Metric:
    if value is None:
        return Metric(name, "gauge", help_text, ())
    return Metric(name, "gauge", help_text, (value if isinstance(value, tuple) else ({}, value),))


def _one_of(name: str, help_text: str, label: str, states: Iterable[str], current: str) -> Metric:
    """A series for each state: 1 for the current one, 0 for the others."""
    return Metric(name, "gauge", help_text, tuple(({label: one}, float(one == current)) for one in states))


def _labels(labels: Labels) -> str:
    inside = ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
