"""Two results side by side, if they are of the same work on the same machine; a sentence for each thing that is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.bench_result import STATES, TOTAL, Result, Spread
from edge.errors import ConfigError, RadboxError

RESAMPLES: Final = 2000
LOWEST_SAMPLES: Final = 5  # of each side; fewer say nothing about an interval
CONFIDENCE_PERCENT: Final = 95.0


@dataclass(frozen=True)
class Difference:
    """name: what `--across` calls it. The rest is for a sentence."""

    name: str
    first: str
    second: str

    def sentence(self) -> str:
        """ "backend: tflite against onnxruntime"."""
        return f"{self.name}: {self.first} against {self.second}"


@dataclass(frozen=True)
class Ratio:
    """second / first of the medians; low and high: bootstrap interval, None where there are too few samples."""

    state: str
    stage: str
    first_s: float
    second_s: float
    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """across: the one difference that was allowed, None where there is none. also: what differs and may."""

    across: Difference | None
    also: tuple[Difference, ...]
    ratios: tuple[Ratio, ...]


class UnlikeError(RadboxError):
    """The runs cannot be compared (bench.unlike)."""

    default_code = "bench.unlike"


def _machine(result: Result) -> str:
    machine = result.machine
    return f"{machine.name}, {machine.processor}, {machine.architecture}, {machine.cores} cores"


def _power(result: Result) -> str:
    highest = result.machine.highest_mhz
    return result.machine.power_mode + (f", at most {highest} MHz" if highest is not None else "")


def _work(result: Result) -> str:
    work = result.work
    return (
        f"{work.studies} studies after {work.warm_up}, {work.cold_starts} cold starts, {work.queued} studies in a queue"
    )


MATTERS: Final[Mapping[str, Callable[[Result], str]]] = {
    "machine": _machine,
    "power-mode": _power,
    "board": lambda result: result.setting.board,
    "backend": lambda result: f"{result.setting.backend} on the {result.setting.emission} file",
    "kernels": lambda result: result.setting.kernels,
    "precision": lambda result: result.setting.precision,
    "threads": lambda result: (
        f"{result.setting.threads} of the encoder, {result.setting.kernel_threads} of the decoder"
    ),
    "model": lambda result: f"{result.model.bundle} {result.model.version} ({result.model.sha256[:12]})",
    "image": lambda result: result.work.image,
    "studies": _work,
    "states": lambda result: ", ".join(state for state in STATES if state in result.seconds) or "none",
}
"""What has to be the same, as the words in which it is told; --across takes one of these names."""


def differences(first: Result, second: Result) -> tuple[Difference, ...]:
    """Everything that makes the two runs unlike. A model is told apart by the whole sha256 of its manifest."""
    found = []
    for name, words in MATTERS.items():
        pair = words(first), words(second)
        if pair[0] != pair[1] or (name == "model" and first.model != second.model):
            found.append(Difference(name, *pair))
    return tuple(found)


def compare(first: Result, second: Result, across: str | None = None) -> Comparison:
    """Ratios of the medians, stage by stage. across: a name of MATTERS that may differ, and nothing else.

    Raises UnlikeError with one sentence that names every other difference, ConfigError (bench.across).
    """
    if across is not None and across not in MATTERS:
        raise ConfigError(f"expected --across with one of {', '.join(MATTERS)}, got {across!r}", code="bench.across")
    found = differences(first, second)
    in_the_way = [one for one in found if one.name != across]
    if in_the_way:
        told = "; ".join(one.sentence() for one in in_the_way)
        raise UnlikeError(f"Expected two runs that can be compared, got runs that differ in {told}.")
    return Comparison(next(iter(found), None), _also(first, second), tuple(_ratios(first, second)))


def _also(first: Result, second: Result) -> tuple[Difference, ...]:
    names = sorted({*first.software, *second.software})
    pairs = ((name, first.software.get(name, "none"), second.software.get(name, "none")) for name in names)
    return tuple(Difference(*one) for one in pairs if one[1] != one[2])


def _ratios(first: Result, second: Result) -> Sequence[Ratio]:
    ratios = []
    for state in STATES:
        left, right = first.seconds.get(state, {}), second.seconds.get(state, {})
        ratios += [_ratio(state, stage, left[stage], right[stage]) for stage in left if stage in right]
    ratios.append(_ratio("cold", "ready", first.ready_s, second.ready_s))
    ratios.append(_ratio("cold", "first report", first.first_report_s, second.first_report_s))
    return [one for one in ratios if one.first_s > 0.0]


def _ratio(state: str, stage: str, first: Spread, second: Spread) -> Ratio:
    low, high = interval(first.samples, second.samples)
    ratio = second.p50 / first.p50 if first.p50 > 0.0 else float("inf")
    return Ratio(state, stage, first.p50, second.p50, ratio, low, high)


def interval(first: Sequence[float], second: Sequence[float]) -> tuple[float | None, float | None]:
    """Percentile bootstrap (Efron 1979) of median(second) / median(first), 95 %; the same for the same samples.

    (None, None) below LOWEST_SAMPLES on a side, or where a resampled median is 0.
    """
    if min(len(first), len(second)) < LOWEST_SAMPLES:
        return None, None
    generator = np.random.default_rng(0)
    medians = [
        np.median(np.asarray(one)[generator.integers(0, len(one), (RESAMPLES, len(one)))], axis=1)
        for one in (first, second)
    ]
    if not (medians[0] > 0.0).all():
        return None, None
    tail = (100.0 - CONFIDENCE_PERCENT) / 2.0
    low, high = np.percentile(medians[1] / medians[0], [tail, 100.0 - tail])
    return float(low), float(high)


def told(before: Result, now: Result) -> str:
    """The newest comparable run and this one in a sentence. Raises UnlikeError."""
    ratios = {(one.state, one.stage): one for one in compare(before, now).ratios}
    one = ratios.get(("warm", TOTAL)) or next(iter(ratios.values()))
    bounds = f" ({one.low:.2f} to {one.high:.2f})" if one.low is not None and one.high is not None else ""
    return f"{one.ratio:.2f} times{bounds} the {one.state} {one.stage} of the run of {before.taken}"


def table(comparison: Comparison) -> str:
    """Lines for a terminal."""
    lines = [f"across {comparison.across.sentence()}"] if comparison.across else []
    lines += [f"also different: {one.sentence()}" for one in comparison.also]
    lines.append(f"{'':22s} {'first s':>9s} {'second s':>9s}  second / first (95 %)")
    for one in comparison.ratios:
        known = one.low is not None and one.high is not None
        bounds = f"{one.low:.2f} to {one.high:.2f}" if known else "too few samples"
        lines.append(
            f"{one.state + ' ' + one.stage:22s} {one.first_s:9.4f} {one.second_s:9.4f}  {one.ratio:.2f} ({bounds})"
        )
    return "\n".join(lines)
