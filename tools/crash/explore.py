"""One scenario: record what it really writes, crash it everywhere, recover, and ask whether every promise was kept.

The idea is that of ALICE (Pillai et al., OSDI 2014: all states a file system may leave, at every call) and CrashMonkey
(Mohan et al., OSDI 2018: black-box recording of real runs, checked against what was made durable).
"""

from __future__ import annotations

import collections
import copy
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tools.crash.disk import Disk, write_tree
from tools.crash.states import FIRST, Crash, crashes
from tools.crash.trace import Call, Kind, Mark, Recording, as_mark

SHOWN_PROBLEMS: Final = 20
MEMORY_FOLDER: Final = Path("/dev/shm")  # where there is one: thousands of small trees are laid out and thrown away


def _nothing(_root: Path) -> None:
    """Default for `setup`: an empty folder."""


@dataclass(frozen=True)
class Scenario:
    """What is run and what must hold after a crash.

    setup: what lies durably in the folder before. record: runs the real thing under the recorder and marks promises.
    recover: what the services do when they start again, on the folder as the crash left it; returns what is there then.
    check: sentences about what is not as promised by the marks made before the crash.
    usual: distinct states checked unless more are asked for; fewer where recovery does more.
    """

    name: str
    record: Callable[[Recording], None]
    recover: Callable[[Path], Any]
    check: Callable[[Any, Sequence[Mark]], list[str]]
    setup: Callable[[Path], None] = _nothing
    usual: int = 600


@dataclass(frozen=True)
class Problem:
    """A broken promise, and the crash that showed it: which way, after which recorded call."""

    what: str
    how: str
    call: int
    after: str


@dataclass
class Outcome:
    """Of one scenario. calls: recorded; distinct: trees found; checked: of these, recovered and checked."""

    name: str
    calls: int = 0
    candidates: int = 0
    distinct: int = 0
    checked: int = 0
    by_how: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    problem_states: int = 0
    record_s: float = 0.0
    check_s: float = 0.0


@dataclass
class _State:
    call: int
    crash: Crash
    levels: set[int]  # how many marks had been made: one tree may be left at several moments


@dataclass(frozen=True)
class Search:
    """How much is looked at. limit: distinct states to check (None: as usual); subsets: random ones at each moment."""

    limit: int | None = None
    subsets: int = 6
    seed: int = 0
    ordered_names: bool = False
    keep: Path | None = None  # where folders that broke a promise are kept


class RecorderGapError(Exception):
    """The replayed trace does not give the files that are really there: a call went past the recorder."""


def explore(scenario: Scenario, search: Search) -> Outcome:
    """Check distinct crash states, of a killed process and of the strictest cut before others. RecorderGapError."""
    outcome = Outcome(scenario.name)
    with _scratch() as folder:
        start = time.monotonic()
        disk, calls = record(scenario, folder)
        recorded = time.monotonic()
        states, outcome.candidates = _find(copy.deepcopy(disk), calls, search)
        chosen = _choose(states, scenario.usual if search.limit is None else search.limit, search.seed)
        marks = [as_mark(call) for call in calls if call.kind is Kind.MARK]
        for state, problems in _crashed(scenario, disk, calls, chosen, marks, folder / "state", search):
            outcome.checked += 1
            outcome.problem_states += bool(problems)
            for what in problems[: max(0, SHOWN_PROBLEMS - len(outcome.problems))]:
                outcome.problems.append(Problem(what, state.crash.how, state.call, describe(calls[state.call])))
        outcome.calls, outcome.distinct = len(calls), len(states)
        outcome.by_how = dict(collections.Counter(state.crash.how for state in chosen))
        outcome.record_s, outcome.check_s = recorded - start, time.monotonic() - recorded
    return outcome


@contextmanager
def _scratch() -> Iterator[Path]:
    place = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="radbox-crash-", dir=place) as folder:
        yield Path(folder)


def record(scenario: Scenario, folder: Path) -> tuple[Disk, list[Call]]:
    """The folder as it was before, and the calls; proven complete by replaying them. Raises RecorderGapError."""
    root = folder / "root"
    root.mkdir()
    scenario.setup(root)
    before = Disk(root)
    recording = Recording(root, folder / "trace")
    scenario.record(recording)
    calls = recording.calls()
    after = copy.deepcopy(before)
    for call in calls:
        after.replay(call)
    _compare(after, Disk(root))
    return before, calls


def _compare(replayed: Disk, real: Disk) -> None:
    sides = []
    for disk in (replayed, real):
        tree = disk.tree({effect.number for effect in disk.pending})
        sides.append({path: disk.hash_of(entry) for path, entry in tree.items()})
    wrong = sorted(path for path in {*sides[0], *sides[1]} if sides[0].get(path) != sides[1].get(path))
    if wrong:
        raise RecorderGapError(f"expected the trace to explain every file, got {len(wrong)} others: {wrong[:5]}")


def _moments(disk: Disk, calls: Sequence[Call], search: Search) -> Iterator[int]:
    """Replay call by call: the number of each call after it was replayed, and -1 before the first is left out."""
    for number, call in enumerate(calls):
        disk.replay(call)
        if search.ordered_names and call.kind is Kind.SYNC:
            disk.settle_names()
        yield number


def _find(disk: Disk, calls: Sequence[Call], search: Search) -> tuple[dict[str, _State], int]:
    """Distinct trees by digest, and how many candidates gave them."""
    states: dict[str, _State] = {}
    marks = candidates = 0
    for number in _moments(disk, calls, search):
        marks += calls[number].kind is Kind.MARK
        rng = random.Random(f"{search.seed}/{number}")
        for crash in crashes(disk, rng, search.subsets, ordered_names=search.ordered_names):
            candidates += 1
            name = disk.digest(crash.kept, crash.variant)
            states.setdefault(name, _State(number, crash, set())).levels.add(marks)
    return states, candidates


def _choose(states: dict[str, _State], limit: int, seed: int) -> list[_State]:
    """At most `limit`, by a seeded draw, those of a kill and of the strictest cut first; in order of the calls."""
    rng = random.Random(seed)
    drawn: list[_State] = []
    for first in (True, False):
        wanted = [state for state in states.values() if (state.crash.how in FIRST) == first]
        room = limit - len(drawn)
        drawn += wanted if len(wanted) <= room else rng.sample(wanted, room)
    return sorted(drawn, key=lambda state: state.call)


def _crashed(
    scenario: Scenario,
    disk: Disk,
    calls: Sequence[Call],
    chosen: Sequence[_State],
    marks: Sequence[Mark],
    folder: Path,
    search: Search,
) -> Iterator[tuple[_State, list[str]]]:
    """Each chosen state laid out, recovered and checked: what is wrong with it."""
    waiting = collections.deque(chosen)
    for number in _moments(disk, calls, search):
        while waiting and waiting[0].call == number:
            state = waiting.popleft()
            folder.mkdir()
            write_tree(disk.tree(state.crash.kept, state.crash.variant), folder)
            problems = _verdict(scenario, folder, [marks[:level] for level in sorted(state.levels)])
            if problems and search.keep is not None:
                write_tree(disk.tree(state.crash.kept, state.crash.variant), _new_folder(search.keep, scenario.name))
            shutil.rmtree(folder)
            yield state, problems


def _new_folder(keep: Path, name: str) -> Path:
    keep.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=keep))


def _verdict(scenario: Scenario, folder: Path, promises: Sequence[Sequence[Mark]]) -> list[str]:
    try:
        found = scenario.recover(folder)
    except Exception as error:  # whatever stops a start after a crash is a finding, not the end of the search
        return [f"recovery stopped: {type(error).__name__}: {error}"]
    return list(dict.fromkeys(what for marks in promises for what in scenario.check(found, marks)))


def describe(call: Call) -> str:
    """A call in a few words."""
    if call.kind is Kind.MARK:
        return f"mark {call.content.decode()}"
    place = " -> ".join(filter(None, (call.first, call.second))) or f"inode {call.inode}"
    size = f" at {call.offset}, {call.size} bytes" if call.kind in (Kind.WRITE, Kind.TRUNCATE, Kind.ALLOCATE) else ""
    return f"{call.kind.name.lower()} {place}{size}"
