"""The box's health as a page shows it, and its history as points of small charts. Pure: no files, no HTML.

Times of the history are ages of the box: time without power does not count, and no clock can be wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, Literal

from edge.box_words import WORDS, BoxState
from edge.desk import words
from edge.desk.report_view import Fact
from edge.desk.words import Tone
from edge.link import topics
from edge.link.snapshot import Snapshot

HOUR_S, DAY_S = 3600.0, 86_400.0
GAP: Final = 3.0  # a hole of so many steps breaks the line
STEPS: Final = 96  # points across a chart
WIDTH, HEIGHT, MARGIN = 640, 160, 8  # of a chart, in its own units
MOST_ROWS: Final = 8  # of its table

TONES: Final[Mapping[BoxState, Tone]] = {
    "starting": "work",
    "ready": "ready",
    "reading": "work",
    "attention": "warn",
    "stopped": "stop",
}


@dataclass(frozen=True)
class Span:
    """How far back the charts look. `table_s`: time that one row of a chart's table stands for."""

    key: str
    label: str
    length_s: float
    table_s: float


SPANS: Final = (Span("day", "Last day", DAY_S, 3 * HOUR_S), Span("week", "Last week", 7 * DAY_S, DAY_S))


@dataclass(frozen=True)
class Measure:
    """One thing with a history. `low`, `high`: the least that the chart spans; None fits the values.

    "rise": a total of which each step's growth is shown, else each step's mean.
    """

    name: str
    title: str
    show: Callable[[float], str]
    low: float | None
    high: float | None
    kind: Literal["mean", "rise"] = "mean"


def _celsius(value: float) -> str:
    return f"{value:.0f} \N{DEGREE SIGN}C"


def _percent(value: float) -> str:
    return f"{value:.0f} %"


def _count(value: float) -> str:
    return f"{value:.0f}"


def _size(value: float) -> str:
    return f"{value / 2**20:.0f} MiB" if value < 2**30 else f"{value / 2**30:.1f} GiB"


MEASURES: Final = (
    Measure("temperature_c", "Temperature", _celsius, 20.0, 90.0),
    Measure("queue", "Studies that wait", _count, 0.0, 5.0),
    Measure("studies_read", "Studies read", _count, 0.0, 5.0, "rise"),
    Measure("free_percent", "Free space", _percent, 0.0, 100.0),
    Measure("memory_free_bytes", "Free memory", _size, 0.0, 2.0**28),
)


@dataclass(frozen=True)
class Row:
    """A row of a chart's table."""

    when: str
    least: str
    mean: str
    most: str


@dataclass(frozen=True)
class Chart:
    """`lines`: points of polylines ("x,y x,y"), `bars`: (x, y, width, height); in units of WIDTH x HEIGHT."""

    key: str
    title: str
    now: str
    text: str
    lines: tuple[str, ...]
    bars: tuple[tuple[str, str, str, str], ...]
    low: str
    high: str
    rows: tuple[Row, ...]
    summed: bool


@dataclass(frozen=True)
class Health:
    """The page."""

    tone: Tone
    short: str
    long: str
    facts: tuple[Fact, ...]
    hardware: tuple[Fact, ...]
    charts: tuple[Chart, ...]


Points = Sequence[tuple[float, float]]  # (age of the box in seconds, value), oldest first


def health(snapshot: Snapshot, span: Span, history: Mapping[str, Points]) -> Health:
    """Everything but the services' rows."""
    state = snapshot.state
    charts = (chart(one, span, history.get(one.name, ()), snapshot.moment.age_s) for one in MEASURES)
    return Health(
        tone=TONES[state],
        short=WORDS[state].short,
        long=WORDS[state].long,
        facts=_facts(snapshot),
        hardware=hardware_facts(snapshot),
        charts=tuple(one for one in charts if one is not None),
    )


def _facts(snapshot: Snapshot) -> tuple[Fact, ...]:
    counts = snapshot.counts
    pairs = (
        ("Studies that wait", str(snapshot.waiting)),
        ("Images received", _known(counts.get("images_received"))),
        ("Studies read", _known(counts.get("studies_read"))),
        ("Running since it was new", duration(snapshot.moment.age_s)),
        ("Printer", _printer(snapshot.facts.get("printer"))),
        ("MQTT", _mqtt(snapshot.facts.get("mqtt"))),
    )
    return tuple(Fact(label, value) for label, value in pairs if value)


def hardware_facts(snapshot: Snapshot) -> tuple[Fact, ...]:
    """What care measured last, in words; what this board cannot tell is left out."""
    found = topics.hardware(snapshot)
    fan = snapshot.facts.get("hardware", {}).get("fan_percent")
    free, total = found.free_bytes, found.total_bytes
    pairs = (
        *((f"Temperature {name}", _celsius(value)) for name, value in found.temperatures_c.items()),
        ("Processor", None if found.throttled is None else "held back now" if found.throttled else "at full speed"),
        ("Power", _power(found)),
        ("Free space", f"{_size(free)} of {_size(total)}" if free is not None and total else None),
        *((f"Wear of {name}", f"{value:.0f} % of its rated life") for name, value in found.wear_percent.items()),
        ("Free memory", _size(found.memory_free_bytes) if found.memory_free_bytes is not None else None),
        ("Load", f"{found.load_1m:.2f}" if found.load_1m is not None else None),
        ("Fan", _percent(fan) if isinstance(fan, int | float) and not isinstance(fan, bool) and fan else None),
        ("Running since the last start", duration(found.uptime_s) if found.uptime_s is not None else None),
        *((f"Device {name}", "there" if there else "missing") for name, there in found.accelerators.items()),
    )
    return tuple(Fact(label, value) for label, value in pairs if value)


def _power(found: topics.Hardware) -> str | None:
    if found.undervoltage:
        return "too weak now"
    if found.overcurrent:
        return "too much current is drawn"
    return {"mains": "mains", "battery": "battery"}.get(found.power)


def _printer(fact: Mapping[str, Any] | None) -> str:
    if not fact:
        return ""
    state = {"idle": "ready", "processing": "prints", "stopped": "stands", "offline": "does not answer"}
    from_us = str(fact.get("message", ""))  # words of edge.link.printer, never the printer's own
    return from_us or state.get(str(fact.get("state")), "")


def _mqtt(fact: Mapping[str, Any] | None) -> str:
    if not fact or "connected" not in fact:
        return ""
    waiting = fact.get("waiting")
    tail = f", {words.count(waiting, 'message waits', 'messages wait')}" if isinstance(waiting, int) and waiting else ""
    return ("connected" if fact["connected"] is True else "no connection") + tail


def _known(number: int | None) -> str:
    return str(number or 0)


def duration(seconds: float) -> str:
    """ "5 min", "3 h", "12 days"."""
    if seconds < 2 * HOUR_S:
        return f"{int(seconds // 60)} min"
    return f"{int(seconds // HOUR_S)} h" if seconds < 2 * DAY_S else f"{int(seconds // DAY_S)} days"


# --- charts ---


def chart(measure: Measure, span: Span, points: Points, age_s: float) -> Chart | None:
    """The chart of one measure over the span that ends at `age_s`; None where nothing was measured in it."""
    start_s = age_s - span.length_s
    inside = _rises(points) if measure.kind == "rise" else points
    inside = [(at_s, value) for at_s, value in inside if start_s <= at_s <= age_s]
    if not inside:
        return None
    step_s = span.length_s / STEPS
    steps = _binned(inside, start_s, step_s, sum if measure.kind == "rise" else fmean)
    low, high = _bounds(measure, steps.values())
    values = [value for _, value in inside]
    summed = measure.kind == "rise"
    return Chart(
        key=measure.name.replace("_", "-"),
        title=measure.title,
        now=measure.show(sum(values) if summed else values[-1]),
        text=_text(measure, span, values),
        lines=() if summed else _lines(steps, low, high),
        bars=_bars(steps, low, high) if summed else (),
        low=measure.show(low),
        high=measure.show(high),
        rows=_rows(measure, span, inside, age_s),
        summed=summed,
    )


def _rises(points: Points) -> list[tuple[float, float]]:
    """The growth since the point before. A total that fell was another box's."""
    return [(at_s, max(0.0, value - before)) for (_, before), (at_s, value) in itertools.pairwise(points)]


def _binned(
    points: Points, start_s: float, step_s: float, fold: Callable[[Iterable[float]], float]
) -> dict[int, float]:
    bins: dict[int, list[float]] = {}
    for at_s, value in points:
        bins.setdefault(min(STEPS - 1, int((at_s - start_s) / step_s)), []).append(value)
    return {number: fold(values) for number, values in sorted(bins.items())}


def _bounds(measure: Measure, values: Iterable[float]) -> tuple[float, float]:
    known = list(values)
    low = min(known) if measure.low is None else min(measure.low, *known)
    high = max(known) if measure.high is None else max(measure.high, *known)
    return low, high if high > low else low + 1.0


def _x(step: float) -> float:
    return MARGIN + (WIDTH - 2 * MARGIN) * step / STEPS


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / (high - low)


def _lines(steps: Mapping[int, float], low: float, high: float) -> tuple[str, ...]:
    """One polyline for each stretch without a gap; a lone point is a short line."""
    stretches: list[list[str]] = []
    last: int | None = None
    for number, value in steps.items():
        if last is None or number - last > GAP:
            stretches.append([f"{_x(number):.1f},{_y(value, low, high):.1f}"])
        stretches[-1].append(f"{_x(number + 0.5):.1f},{_y(value, low, high):.1f}")
        last = number
    return tuple(" ".join(points) for points in stretches)


def _bars(steps: Mapping[int, float], low: float, high: float) -> tuple[tuple[str, str, str, str], ...]:
    ground, width = HEIGHT - MARGIN, (WIDTH - 2 * MARGIN) / STEPS - 1
    found = ((_x(number), _y(value, low, high)) for number, value in steps.items() if value > 0)
    return tuple((f"{x:.1f}", f"{y:.1f}", f"{width:.1f}", f"{ground - y:.1f}") for x, y in found)


def _text(measure: Measure, span: Span, values: Sequence[float]) -> str:
    """The chart in one sentence, for those who do not see it."""
    when = span.label.lower()
    if measure.kind == "rise":
        return f"{measure.title} in the {when}: {measure.show(sum(values))}."
    least, most, now = (measure.show(one) for one in (min(values), max(values), values[-1]))
    return f"{measure.title} in the {when}: from {least} to {most}, now {now}."


def _rows(measure: Measure, span: Span, points: Points, age_s: float) -> tuple[Row, ...]:
    """The newest first."""
    rows = []
    for number in range(MOST_ROWS):
        end_s = age_s - number * span.table_s
        values = [value for at_s, value in points if end_s - span.table_s < at_s <= end_s]
        if values:
            fold = sum(values) if measure.kind == "rise" else fmean(values)
            least, mean, most = (measure.show(one) for one in (min(values), fold, max(values)))
            rows.append(Row(_ago(number, span), least, mean, most))
    return tuple(rows)


def _ago(number: int, span: Span) -> str:
    whole = int(span.table_s // (DAY_S if span.table_s >= DAY_S else HOUR_S))
    unit = "days" if span.table_s >= DAY_S else "hours"
    first, last = number * whole, (number + 1) * whole
    if unit == "days" and number == 0:
        return "last 24 hours"
    return f"{first} to {last} {unit} ago" if number else f"last {last} {unit}"
