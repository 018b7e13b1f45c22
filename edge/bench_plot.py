"""A result as a picture: median and 95th percentile of every stage, each state with a form and colour of its own.

SVG 1.1 with presentation attributes only, since the page's policy forbids inline styles; a dot plot on a logarithmic
axis, because a stage takes from 0.3 ms to seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from edge.bench_result import STATES, TOTAL, Result, Spread, State

WIDTH: Final = 480
LEFT, RIGHT, TOP, ROW, FOOT = 132, 16, 44, 34, 40
TEXT_SIZE: Final = 20
GROUND, LINE, WORDS, QUIET = "#151d26", "#33414f", "#edf2f6", "#b3c0cc"
COLOURS: Final[dict[State, str]] = {"cold": "#9fc9f5", "warm": "#f2b84b", "throttled": "#ff9a8c"}
DECADES: Final = {1e-5: "10 µs", 1e-4: "0.1 ms", 1e-3: "1 ms", 1e-2: "10 ms", 1e-1: "0.1 s", 1.0: "1 s", 1e1: "10 s"}
LOWEST_S: Final = 1e-5


def plot(result: Result) -> str:
    """One <svg> element with a title in words."""
    stages = list(next(iter(result.seconds.values()), {}))
    low, high = _bounds(result)
    height = TOP + ROW * len(stages) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="100%" role="img" '
        f'aria-labelledby="bench-plot" font-family="sans-serif" font-size="{TEXT_SIZE}" focusable="false">',
        f'<title id="bench-plot">{escape(words(result))}</title>',
        f'<rect width="{WIDTH}" height="{height}" fill="{GROUND}"/>',
        *_legend(result),
        *_axis(low, high, height),
    ]
    for row, stage in enumerate(stages):
        parts += _row(result, stage, TOP + ROW * (row + 0.5), low, high)
    return "\n".join([*parts, "</svg>"])


def words(result: Result) -> str:
    """The picture in one sentence, for those who do not see it."""
    told = [
        f"{state} {_seconds(stages[TOTAL].p50)} in the middle, {_seconds(stages[TOTAL].p95)} at the 95th percentile"
        for state, stages in result.seconds.items()
        if TOTAL in stages
    ]
    return f"Time from the last byte received to the draft stored: {'; '.join(told)}."


def _bounds(result: Result) -> tuple[float, float]:
    """Powers of ten around everything drawn, as logarithms."""
    seen = [
        max(LOWEST_S, value) for stages in result.seconds.values() for one in stages.values() for value in _ends(one)
    ]
    low = math.floor(math.log10(min(seen, default=LOWEST_S)))
    return low, max(low + 1.0, math.ceil(math.log10(max(seen, default=1.0))))


def _ends(one: Spread) -> tuple[float, float]:
    return one.p50, one.p95


def _x(seconds: float, low: float, high: float) -> float:
    share = (math.log10(max(LOWEST_S, seconds)) - low) / (high - low)
    return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, share))


def _legend(result: Result) -> Iterator[str]:
    x = 16.0
    for state in STATES:
        if state in result.seconds:
            yield _form(state, x, TOP / 2)
            yield f'<text x="{x + 14:.0f}" y="{TOP / 2 + 7:.0f}" fill="{WORDS}">{state}</text>'
            x += 40 + 11.5 * len(state)
    yield f'<text x="{WIDTH - RIGHT}" y="{TOP / 2 + 7:.0f}" fill="{QUIET}" text-anchor="end">p50 - p95</text>'


def _axis(low: float, high: float, height: int) -> Iterator[str]:
    for exponent in range(int(low), int(high) + 1):
        x = _x(10.0**exponent, low, high)
        yield f'<path d="M{x:.1f} {TOP}V{height - FOOT}" stroke="{LINE}"/>'
        label = next((text for value, text in DECADES.items() if math.isclose(value, 10.0**exponent)), "")
        anchor = "end" if exponent == int(high) else "middle"
        yield f'<text x="{x:.1f}" y="{height - 14}" fill="{QUIET}" text-anchor="{anchor}">{label}</text>'


def _row(result: Result, stage: str, y: float, low: float, high: float) -> Iterator[str]:
    yield f'<text x="{LEFT - 12}" y="{y + 7:.1f}" fill="{WORDS}" text-anchor="end">{escape(stage)}</text>'
    states = [state for state in STATES if stage in result.seconds.get(state, {})]
    for number, state in enumerate(states):
        one = result.seconds[state][stage]
        at = y + 9.0 * (number - (len(states) - 1) / 2.0)
        ends = [_x(value, low, high) for value in _ends(one)]
        yield f'<path d="M{ends[0]:.1f} {at:.1f}H{ends[1]:.1f}" stroke="{COLOURS[state]}" stroke-width="3"/>'
        yield _form(state, ends[0], at)


def _form(state: State, x: float, y: float) -> str:
    colour = COLOURS[state]
    if state == "cold":
        return f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" fill="{colour}"/>'
    if state == "warm":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{colour}"/>'
    return f'<path d="M{x - 6:.1f} {y + 5:.1f}H{x + 6:.1f}L{x:.1f} {y - 6:.1f}Z" fill="{colour}"/>'


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{1000 * value:.1f} ms"
