"""The run: services started cold again and again, then warm studies, then a queue; what was read hot is kept apart."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from edge.bench.budgets import verdicts
from edge.bench.energy import Absent, Meter, mean_w, open_sensor
from edge.bench.plan import IMAGE, Heat, Plan, phantoms
from edge.bench.tokens import decode
from edge.bench.trial import model_of, peak_bytes, place, send_phantoms, trial_box, wait_for_drafts, wait_for_worker
from edge.bench.versions import NOT_KNOWN, machine, software
from edge.bench_result import (
    SCHEMA,
    STAGES,
    STATES,
    TOTAL,
    Energy,
    Model,
    Queue,
    Result,
    Setting,
    Spread,
    State,
    Work,
    spread,
)
from edge.board import Board
from edge.box import Box
from edge.reading.backends import MODULES
from edge.report.graph import load_graph
from edge.report.render import render_text
from edge.report.serial import from_json
from edge.simulate.phantom import Phantom
from edge.store_rows import StudyDetail

Say = Callable[[str], None]
NO_ENERGY: Final = "The sensor failed while the studies were read."


class Samples:
    """Seconds by state and stage."""

    def __init__(self) -> None:
        self._seconds: dict[State, dict[str, list[float]]] = {}

    def add(self, state: State, stages: dict[str, float]) -> None:
        """One study."""
        for name, seconds in stages.items():
            self._seconds.setdefault(state, {}).setdefault(name, []).append(seconds)

    def spreads(self) -> dict[str, dict[str, Spread]]:
        """States in their order; one that was not seen is not there."""
        return {
            state: {name: spread(samples) for name, samples in self._seconds[state].items()}
            for state in STATES
            if state in self._seconds
        }


class _Run:
    def __init__(self, board: Board, plan: Plan, options: Sequence[str], say: Say) -> None:
        self._board, self._plan, self._options, self._say = board, plan, options, say
        self._heat = Heat(board)
        self._phantoms = phantoms()
        self._count = 0
        self.samples = Samples()
        self.ready_s: list[float] = []
        self.first_report_s: list[float] = []
        self.newest: StudyDetail | None = None
        self.queue = Queue(0.0, 0, 0.0)
        self.energy: Energy | None = None
        self.energy_absent = ""
        self.peak_bytes: dict[str, int] = {}

    def all(self, folder: Path) -> None:
        """Cold starts; the box of the last one goes on."""
        for number in range(self._plan.cold_starts):
            self._say(f"cold start {number + 1} of {self._plan.cold_starts}")
            with trial_box(self._board, self._options, folder) as box:
                self.ready_s.append(wait_for_worker(box))
                self.first_report_s.append(self.ready_s[-1] + self._one(box, "cold"))
                if number + 1 == self._plan.cold_starts:
                    self._go_on(box)

    def _go_on(self, box: Box) -> None:
        for _ in range(self._plan.warm_up):
            self._one(box, None)
        for number in range(self._plan.studies):
            self._say(f"study {number + 1} of {self._plan.studies}")
            self._one(box, "warm")
        self._measure_queue(box)
        self.peak_bytes = peak_bytes(box)

    def _one(self, box: Box, state: State | None) -> float:
        """One study, read alone; its total. state: what it counts as on a cool box; None for not at all."""
        hot = self._heat.held_back()
        (detail,) = wait_for_drafts(box, send_phantoms(box, [self._next()]))
        hot = self._heat.held_back() or hot
        self.newest = detail
        stages = stages_s(detail, self._board.receive.quiet_time_s)
        if state is not None:
            self.samples.add("throttled" if hot else state, stages)
        return stages[TOTAL]

    def _next(self) -> Phantom:
        self._count += 1
        return self._phantoms[self._count % len(self._phantoms)]

    def _measure_queue(self, box: Box) -> None:
        """Images per second from the first draft to the last, and the energy of the whole queue."""
        self._say(f"{self._plan.queued} studies at once")
        sensor = open_sensor()
        if isinstance(sensor, Absent):
            self.energy_absent = sensor.why
            self._read_queue(box)
            return
        meter = Meter(sensor)
        try:
            resting = meter.mark()
            time.sleep(self._plan.idle_s)
            began = meter.mark()
            self._read_queue(box)
            ended = meter.mark()
        finally:
            meter.stop()
        idle_w, reading_w = mean_w(resting, began), mean_w(began, ended)
        if idle_w is None or reading_w is None:
            self.energy_absent = NO_ENERGY
            return
        per_report_s = (ended.at_s - began.at_s) / self._plan.queued
        self.energy = Energy(
            sensor=sensor.name,
            scope=sensor.scope,
            whole_board=sensor.whole_board,
            idle_w=round(idle_w, 3),
            reading_w=round(reading_w, 3),
            joules_per_report=round(reading_w * per_report_s, 3),
            joules_per_report_above_idle=round((reading_w - idle_w) * per_report_s, 3),
        )

    def _read_queue(self, box: Box) -> None:
        drafts_s: list[float] = []
        keys = send_phantoms(box, [self._next() for _ in range(self._plan.queued)])
        wait_for_drafts(box, keys, lambda _key: drafts_s.append(time.monotonic()))
        passed_s = max(drafts_s[-1] - drafts_s[0], 1e-9)
        images = self._plan.queued - 1
        self.queue = Queue(round(images / passed_s, 3), images, round(passed_s, 3))


def measure(board: Board, plan: Plan, options: Sequence[str], say: Say) -> Result:
    """Measure on this machine. options: what makes a service load this very board; say: told what is at work.

    Raises RadboxError (bench.not-ready, .not-read, .too-hot, .busy ...), and what the services' start raises.
    """
    load_before = os.getloadavg()[0]
    run = _Run(board, plan, options, say)
    with place(board.data_dir) as folder:
        run.all(folder)
    if run.newest is None:
        raise AssertionError("a plan has at least one study")
    version = from_json(run.newest.report_json).model
    emission = emission_of(version.backend)
    say("the decoder alone")
    decoded = decode(board, model_of(board, version.sha256), emission)
    seconds = run.samples.spreads()
    return Result(
        schema=SCHEMA,
        taken=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=machine(),
        setting=Setting(
            board=board.name,
            backend=version.backend,
            emission=emission,
            kernels=decoded.kernels,
            precision=decoded.precision,
            threads=board.worker.threads,
            kernel_threads=board.worker.kernel_threads,
        ),
        model=Model(version.bundle, version.version, version.sha256),
        work=Work(IMAGE, plan.studies, plan.warm_up, plan.cold_starts, plan.queued),
        software=software(),
        seconds=seconds,
        ready_s=spread(run.ready_s),
        first_report_s=spread(run.first_report_s),
        queue=run.queue,
        tokens=decoded.tokens,
        peak_bytes=run.peak_bytes,
        energy=run.energy,
        energy_absent=run.energy_absent,
        budgets=verdicts(board.budget, seconds, run.peak_bytes, run.energy, run.energy_absent),
        load_before=round(load_before, 2),
        load_after=round(os.getloadavg()[0], 2),
    )


def stages_s(detail: StudyDetail, quiet_time_s: float) -> dict[str, float]:
    """Stages as the worker timed them; the text, rendered here; `total`: last byte received to draft stored.

    The quiet time after an association is a setting, not work: it is taken out.
    """
    timings_s = detail.timings_s
    start_s = time.monotonic()
    render_text(from_json(detail.report_json), load_graph())
    text_s = time.monotonic() - start_s
    waiting_s = max(0.0, timings_s["waiting"] - quiet_time_s)
    return {
        **{name: timings_s[name] for name in STAGES},
        "text": text_s,
        "waiting": waiting_s,
        "reading": timings_s["total"],
        TOTAL: waiting_s + timings_s["total"],
    }


def emission_of(backend: str) -> str:
    """Which of the bundle's files a backend runs, as the encoders in its module say; TensorRT decides it on the box."""
    if backend not in MODULES:
        return NOT_KNOWN
    module = importlib.import_module(f"edge.reading.backends.{MODULES[backend]}")
    classes = (one for one in vars(module).values() if isinstance(one, type))
    return next((str(found) for one in classes if isinstance(found := getattr(one, "emission", None), str)), NOT_KNOWN)
