"""The page /about/bench: the box's newest measurement as a plot and tables, and how it compares with one before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge.bench_compare import LOWEST_SAMPLES, Ratio, compare
from edge.bench_kept import kept, previous_like
from edge.bench_plot import plot
from edge.bench_result import STATES, Result, Verdict
from edge.board import Board
from edge.desk.report_view import Fact
from edge.desk.words import Tone

MIB: Final = 2.0**20
BUDGETS: Final = {"report_s": "Time of a report", "memory_bytes": "Memory of a service", "power_w": "Power"}


class Frame(Protocol):
    """What this page uses of the rest of the desk."""

    board: Board

    def render(self, template: str, **context: Any) -> str:
        """A template as text."""
        ...

    def answer(self, request: Request, content: str) -> Response:
        """A page with an ETag."""
        ...


@dataclass(frozen=True)
class StateTable:
    """The stages of one state; rows: name, p50, p95. count: studies, 0 where the state was not seen."""

    name: str
    count: int
    rows: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class BudgetLine:
    """A budget in words. tone: ready (kept), stop (not kept), warn (not decided)."""

    tone: Tone
    name: str
    verdict: str
    words: str


@dataclass(frozen=True)
class Compared:
    """The newest comparable run; rows: what, then, now, ratio with its interval."""

    taken: str
    rows: tuple[tuple[str, str, str, str], ...]


class BenchPages:
    """Reads the kept results at every request: a run from a terminal shows up at once."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[Route]:
        """The address of the page."""
        return [Route("/about/bench", self.bench)]

    def bench(self, request: Request) -> Response:
        """The newest result, or how to get one."""
        found = kept(self._frame.board.data_dir)
        newest = found.results[0] if found.results else None
        content = self._frame.render(
            "bench.html",
            here="about",
            result=newest,
            unreadable=found.unreadable,
            plot=plot(newest) if newest else "",
            states=state_tables(newest) if newest else (),
            facts=tuple(_facts(newest)) if newest else (),
            versions=tuple(_versions(newest)) if newest else (),
            budgets=tuple(budget_line(one) for one in newest.budgets) if newest else (),
            compared=compared(found.results),
        )
        return self._frame.answer(request, content)


def state_tables(result: Result) -> tuple[StateTable, ...]:
    """Cold, warm, throttled, in this order, whether seen or not."""
    tables = []
    for state in STATES:
        stages = result.seconds.get(state, {})
        rows = tuple((name, seconds(one.p50), seconds(one.p95)) for name, one in stages.items())
        count = max((len(one.samples) for one in stages.values()), default=0)
        tables.append(StateTable(state, count, rows))
    return tuple(tables)


def budget_line(verdict: Verdict) -> BudgetLine:
    """ "kept: 0.31 s of 1.50 s"."""
    tone: Tone = "warn" if verdict.kept is None else "ready" if verdict.kept else "stop"
    said = "not decided" if verdict.kept is None else "kept" if verdict.kept else "not kept"
    limit = _amount(verdict.budget, verdict.limit)
    measured = "not measured" if verdict.measured is None else _amount(verdict.budget, verdict.measured)
    return BudgetLine(tone, BUDGETS[verdict.budget], f"{said}: {measured}, at most {limit}", verdict.words)


def _amount(budget: str, value: float) -> str:
    return {"report_s": f"{value:.2f} s", "memory_bytes": f"{value / MIB:.0f} MiB"}.get(budget, f"{value:.1f} W")


def compared(results: tuple[Result, ...]) -> Compared | None:
    """Against the newest earlier run that is of the same work on the same machine; None where there is none."""
    before = previous_like(results) if results else None
    if before is None:
        return None
    ratios = compare(before, results[0]).ratios
    return Compared(before.taken, tuple(_ratio(one) for one in ratios))


def _ratio(one: Ratio) -> tuple[str, str, str, str]:
    known = one.low is not None and one.high is not None
    bounds = f"{one.low:.2f} to {one.high:.2f}" if known else f"fewer than {LOWEST_SAMPLES} samples"
    return f"{one.state} {one.stage}", seconds(one.first_s), seconds(one.second_s), f"{one.ratio:.2f} ({bounds})"


def _facts(result: Result) -> Iterator[Fact]:
    work, queue, energy = result.work, result.queue, result.energy
    yield Fact("Images a second, several waiting", f"{queue.images_per_s:.2f} ({work.queued} studies at once)")
    yield Fact("Tokens a second, decoder alone", f"{result.tokens.per_s.p50:.0f}")
    yield Fact("From start until it can read", seconds(result.ready_s.p50))
    yield Fact("From start until the first report", seconds(result.first_report_s.p50))
    for name, size in result.peak_bytes.items():
        yield Fact(f"Most memory of {name}", f"{size / MIB:.0f} MiB")
    if energy is None:
        yield Fact("Energy", result.energy_absent)
        return
    yield Fact(
        "Energy of a report", f"{energy.joules_per_report:.2f} J, {energy.joules_per_report_above_idle:.2f} above"
    )
    yield Fact("Power", f"{energy.reading_w:.2f} W while reading, {energy.idle_w:.2f} W at rest")
    yield Fact("Measured by", f"{energy.sensor}: {energy.scope}")


def _versions(result: Result) -> Iterator[Fact]:
    machine, setting, model = result.machine, result.setting, result.model
    yield Fact("Machine", f"{machine.name}, {machine.processor}, {machine.cores} cores, {machine.architecture}")
    highest = f", at most {machine.highest_mhz} MHz" if machine.highest_mhz else ""
    yield Fact("Power mode", f"{machine.power_mode}{highest}")
    yield Fact("Board", setting.board)
    yield Fact("Backend", f"{setting.backend}, {setting.emission} file, {setting.threads} threads")
    yield Fact("Decoder", f"kernels {setting.kernels}, {setting.precision}, {setting.kernel_threads} threads")
    yield Fact("Model", f"{model.bundle} {model.version}, {model.sha256[:12]}")
    yield Fact("Images", f"{result.work.image}; {result.work.studies} studies after {result.work.warm_up}")
    yield Fact("Load before and after", f"{result.load_before:.1f}, {result.load_after:.1f}")
    for name, version in result.software.items():
        yield Fact(name, version)


def seconds(value: float) -> str:
    """ "1.30 s", "12.3 ms"."""
    return f"{value:.2f} s" if value >= 0.1 else f"{1000 * value:.1f} ms"
