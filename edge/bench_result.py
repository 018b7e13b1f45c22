"""What `radbox bench` found, as a closed document with a schema number: written once, read by the page and compared.

Samples are kept, not only their percentiles: a comparison needs them. Seconds, bytes, watts, joules.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from edge.closed import LIMIT_ITEMS, ClosedError, build
from edge.errors import RadboxError

SCHEMA: Final = 1
LARGEST_BYTES: Final = 1 << 20
MOST_SAMPLES: Final = LIMIT_ITEMS

State = Literal["cold", "warm", "throttled"]
STATES: Final[tuple[State, ...]] = ("cold", "warm", "throttled")
STAGES: Final = ("receive", "decode", "prepare", "encode", "generate", "evidence", "check", "render")
"""As the worker times them; beside them stand `text`, `waiting`, `reading` (all of the worker's) and `total`."""
TOTAL: Final = "total"

BudgetName = Literal["report_s", "memory_bytes", "power_w"]


@dataclass(frozen=True)
class Spread:
    """p50: median; p95: 95th percentile by nearest rank; samples in the order in which they were taken."""

    p50: float
    p95: float
    samples: tuple[float, ...]


@dataclass(frozen=True)
class Machine:
    """The board as hardware. power_mode: of the maker's tool (nvpmodel) or the processor's governor."""

    name: str
    processor: str
    architecture: str
    cores: int
    memory_bytes: int
    power_mode: str
    highest_mhz: int | None  # what the governor may choose now; None where the kernel does not say


@dataclass(frozen=True)
class Setting:
    """What was chosen, not what was wished for: backend and kernels are those that read."""

    board: str
    backend: str
    emission: str  # the bundle's file that it runs
    kernels: str
    precision: str
    threads: int
    kernel_threads: int


@dataclass(frozen=True)
class Model:
    """The bundle. sha256: of its manifest."""

    bundle: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Work:
    """What was read. queued: studies sent at once for images/s."""

    image: str
    studies: int
    warm_up: int
    cold_starts: int
    queued: int


@dataclass(frozen=True)
class Queue:
    """Throughput with several studies waiting: from the first draft to the last."""

    images_per_s: float
    images: int
    seconds: float


@dataclass(frozen=True)
class Tokens:
    """The decoder alone, on the bundle's golden images; `per_s` over reports of `steps` tokens together."""

    per_s: Spread
    steps: int


@dataclass(frozen=True)
class Energy:
    """While the queue was read. whole_board: False where the sensor leaves parts of the board out (`scope` says which).

    joules_per_report: mean power times time over the reports; above_idle: the same less the idle power of this run.
    """

    sensor: str
    scope: str
    whole_board: bool
    idle_w: float
    reading_w: float
    joules_per_report: float
    joules_per_report_above_idle: float


@dataclass(frozen=True)
class Verdict:
    """One budget of the board. kept: None where it could not be decided; `words` says why."""

    budget: BudgetName
    limit: float
    measured: float | None
    kept: bool | None
    words: str


@dataclass(frozen=True)
class Result:
    """One run. seconds: state -> stage -> spread; a state that was not seen is not there.

    taken: wall clock of the box, ISO 8601 in UTC; nothing depends on it. Of each cold start: ready_s, from the start of
    the services until the worker can read (model opened and checked), and first_report_s, that and the first study.
    energy_absent: why there is no energy, "" where there is.
    """

    schema: int
    taken: str
    machine: Machine
    setting: Setting
    model: Model
    work: Work
    software: dict[str, str]
    seconds: dict[str, dict[str, Spread]]
    ready_s: Spread
    first_report_s: Spread
    queue: Queue
    tokens: Tokens
    peak_bytes: dict[str, int]
    energy: Energy | None
    energy_absent: str
    budgets: tuple[Verdict, ...]
    load_before: float
    load_after: float


def spread(samples: Sequence[float]) -> Spread:
    """Median and 95th percentile (nearest rank) of at least one sample, rounded to 10 us."""
    ordered = sorted(samples)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return Spread(round(statistics.median(ordered), 5), round(p95, 5), tuple(round(one, 5) for one in samples))


def to_json(result: Result) -> str:
    """The document, for people to read too."""
    return json.dumps(asdict(result), indent=1)


def from_json(content: bytes | str) -> Result:
    """The inverse of `to_json`. Raises RadboxError (bench.result): not a result, or one of another schema."""
    if len(content) > LARGEST_BYTES:
        raise _wrong(f"expected at most {LARGEST_BYTES} bytes, got {len(content)}")
    try:
        raw = json.loads(content)
        if isinstance(raw, dict) and raw.get("schema") != SCHEMA:
            raise _wrong(f"expected schema {SCHEMA}, got {raw.get('schema')!r:.20}")
        result = build(Result, raw, "result")
    except (ValueError, RecursionError, ClosedError) as error:
        raise _wrong(str(error)) from error
    if unknown := set(result.seconds) - set(STATES):
        raise _wrong(f"expected only the states {', '.join(STATES)}, got {sorted(unknown)[0]!r:.20}")
    return result


def _wrong(reason: str) -> RadboxError:
    return RadboxError(f"This is no result of radbox bench that this version reads: {reason}.", code="bench.result")
