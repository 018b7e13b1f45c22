"""`radbox bench`: measure this box, print, keep; or lay two results side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import durable
from edge.bench.measure import measure
from edge.bench.plan import Plan
from edge.bench_compare import compare, table, told
from edge.bench_kept import keep, kept, previous_like
from edge.bench_plot import plot
from edge.bench_result import LARGEST_BYTES, Result, Spread, from_json, to_json
from edge.board import Board
from edge.errors import ConfigError


@dataclass(frozen=True)
class Wanted:
    """Where the result goes beside the box's own folder."""

    as_json: bool = False
    out: Path | None = None
    plot: Path | None = None


def main(board: Board, plan: Plan, options: Sequence[str], wanted: Wanted) -> int:
    """Measure, print, then write and keep; 0 when every study became a draft. Raises RadboxError."""
    result = measure(board, plan, options, _say)
    _print(to_json(result) if wanted.as_json else report(result))
    for path, content in ((wanted.out, to_json(result)), (wanted.plot, plot(result))):
        if path is not None:
            durable.write_file(path.absolute(), (content + "\n").encode())
    keep(board.data_dir, result)
    before = previous_like(kept(board.data_dir).results)
    if before is not None:
        _say(told(before, result))
    return 0


def main_compare(first: Path, second: Path, across: str | None) -> int:
    """Print the ratios of two results. Raises UnlikeError, RadboxError (bench.result), ConfigError (bench.file)."""
    _print(table(compare(_load(first), _load(second), across)))
    return 0


def _load(path: Path) -> Result:
    try:
        with path.open("rb") as file:
            return from_json(file.read(LARGEST_BYTES + 1))
    except OSError as error:
        raise ConfigError(f"expected a readable result, got: {error.strerror}", code="bench.file") from error


def report(result: Result) -> str:
    """Lines for a terminal."""
    setting, work, machine = result.setting, result.work, result.machine
    lines = [
        f"{machine.name}, {machine.processor}, {machine.cores} cores, {machine.power_mode}; board {setting.board}",
        f"{setting.backend} ({setting.emission}), {setting.threads} threads; decoder {setting.kernels}, "
        f"{setting.precision}, {setting.kernel_threads} threads; model {result.model.bundle} {result.model.version}",
        f"{work.studies} studies of {work.image}; load before and after {result.load_before}, {result.load_after}",
    ]
    for state in ("cold", "warm", "throttled"):
        lines += _state(state, result.seconds.get(state))
    lines += [
        f"{f'{work.cold_starts} cold starts: ready to read':32s} {_both(result.ready_s)}",
        f"{'  and the first report stored':32s} {_both(result.first_report_s)}",
        f"{result.queue.images_per_s:.2f} images/s with {work.queued} studies at once",
        f"{result.tokens.per_s.p50:.0f} tokens/s of the decoder alone ({result.tokens.steps} tokens a round)",
        "peak memory",
        *(f"  {name:16s} {size / 2**20:6.0f} MiB" for name, size in result.peak_bytes.items()),
        _energy(result),
        *(f"budget {one.budget}: {_verdict(one.kept)}, {one.words}" for one in result.budgets),
    ]
    return "\n".join(lines)


def _state(state: str, stages: dict[str, Spread] | None) -> list[str]:
    if stages is None:
        return [f"{state}: not seen in this run"]
    count = len(next(iter(stages.values())).samples)
    head = f"{state}, seconds, {count} {'study' if count == 1 else 'studies'}"
    return [f"{head:32s}      p50      p95", *(f"  {name:30s} {_both(one)}" for name, one in stages.items())]


def _both(one: Spread) -> str:
    return f"{one.p50:8.4f} {one.p95:8.4f}"


def _energy(result: Result) -> str:
    energy = result.energy
    if energy is None:
        return f"energy: {result.energy_absent}"
    return (
        f"energy ({energy.sensor}, {energy.scope}): {energy.joules_per_report:.2f} J a report, "
        f"{energy.joules_per_report_above_idle:.2f} J above idle; {energy.idle_w:.2f} W idle, {energy.reading_w:.2f} W"
    )


def _verdict(is_kept: bool | None) -> str:
    return "not decided" if is_kept is None else "kept" if is_kept else "NOT KEPT"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"radbox: {text}\n")
    sys.stderr.flush()
