"""`tools/kill_storm`: SIGKILL for random processes of a whole box under load, thousands of times; then look at it all.

What must hold afterwards: every acknowledged object is there with its bytes, every study has ended with exactly one
current reading, no report is half there, the queue has drained, and nothing temporary was left behind.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import json
import random
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from edge.board import Board, load_board
from edge.care import fsck
from edge.errors import RadboxError
from edge.store import INCOMING, StudyDetail, open_store
from tools.crash.box import ENDED, database_faults, half_report, studies
from tools.crash.load import Senders, Sent, Visitor
from tools.crash.services import Services

ROOT = Path(__file__).resolve().parents[2]
BOARD = ROOT / "board_configs" / "sim.toml"
SAMPLE_EVERY_S = 10.0
NEWEST = 50  # studies that a sample looks at
TELL_EVERY_KILLS = 50
DRAIN_WITHIN_S = 900.0


@dataclass
class Result:
    """Figures and findings. `wrong`: what must not be; empty after a storm that lost nothing."""

    kills: dict[str, int] = field(default_factory=dict)
    own_ends: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    storm_s: float = 0.0
    drain_s: float = 0.0
    studies_sent: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    states: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    page: dict[str, int] = field(default_factory=dict)
    samples: int = 0
    fsck: dict[str, int] = field(default_factory=dict)
    left_over: dict[str, int] = field(default_factory=dict)
    stop_codes: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)

    @property
    def total_kills(self) -> int:
        """All of them."""
        return sum(self.kills.values())


@dataclass(frozen=True)
class Storm:
    """How hard. interval_s: mean time between kills (0.3 to 1.7 times that); pause_s: of a sender between studies."""

    kills: int
    seed: int = 0
    interval_s: float = 0.6
    senders: int = 2
    pause_s: float = 1.5
    tell: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0 if nothing is wrong."""
    parser = argparse.ArgumentParser("kill_storm", description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interval", type=float, default=0.6, help="mean seconds between kills")
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between the studies of a sender")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave data folder and logs here (must not exist)")
    parser.add_argument("--json", action="store_true")
    parsed = parser.parse_args(arguments)
    folder = parsed.keep or Path(tempfile.mkdtemp(prefix="radbox-storm-"))
    folder.mkdir(parents=True, exist_ok=parsed.keep is None)
    try:
        storm = Storm(parsed.kills, parsed.seed, parsed.interval, pause_s=parsed.pause, tell=True)
        result = run(storm, folder)
    finally:
        if parsed.keep is None:
            shutil.rmtree(folder)
    print(json.dumps({"seed": parsed.seed, "total_kills": result.total_kills, **dataclasses.asdict(result)}, indent=1))
    return int(bool(result.wrong))


def run(storm: Storm, folder: Path) -> Result:
    """The storm in `folder`, and what it left."""
    board, board_file = _board(folder)
    services = Services(board, board_file, folder)
    senders = Senders(board, folder / "senders", threads=storm.senders, pause_s=storm.pause_s)
    visitor = Visitor(board, 0.25)
    sampler = _Sampler(board.data_dir)
    result = Result()
    services.start()
    try:
        services.wait_until_ready()
        for one in (senders, visitor, sampler):
            one.start()
        result.storm_s = _kill(storm, services)
        senders.stop()
        result.drain_s = _drain(board.data_dir)
    finally:
        senders.stop()
        for watcher in (visitor, sampler):
            if watcher.is_alive():
                watcher.stop()
        services.stop()
    services.start()  # once more, undisturbed: whatever a start cleans up is cleaned up now
    services.wait_until_ready()
    time.sleep(3.0)
    result.stop_codes = services.stop()
    _figures(result, services, senders, visitor, sampler)
    wrong = [*visitor.wrong, *sampler.wrong, *_look(board.data_dir, senders.acknowledged, result)]
    wrong += [f"{name} ended with {code}" for name, code in result.stop_codes.items() if code]
    result.wrong = dict(collections.Counter(wrong))
    return result


def _board(folder: Path) -> tuple[Board, Path]:
    """The simulated box on free ports, with a quick study end."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    text = BOARD.read_text()
    for old, new in (
        ('data_dir = "var/sim"', f"data_dir = {json.dumps(str(folder / 'data'))}"),
        ('bundle = "models/bundles/chest"', f"bundle = {json.dumps(str(ROOT / 'models' / 'bundles' / 'chest'))}"),
        ("port = 11112", f"port = {ports[0]}"),
        ("port = 8080", f"port = {ports[1]}"),
        ("quiet_time_s = 2.0", "quiet_time_s = 0.5"),
    ):
        if old not in text:
            raise ValueError(f"expected the simulated board to say {old}")
        text = text.replace(old, new)
    path = folder / "storm.toml"
    path.write_text(text)
    return load_board(path), path


def _kill(storm: Storm, services: Services) -> float:
    moment = random.Random(storm.seed)
    start_s = time.monotonic()
    kills = 0
    while kills < storm.kills:
        time.sleep(storm.interval_s * moment.uniform(0.3, 1.7))
        kills += services.kill(moment) is not None
        if storm.tell and kills % TELL_EVERY_KILLS == 0:
            print(f"kill_storm: {kills} kills in {time.monotonic() - start_s:.0f} s", file=sys.stderr, flush=True)
    return time.monotonic() - start_s


def _drain(data_dir: Path) -> float:
    """Seconds until every study has ended; at most DRAIN_WITHIN_S."""
    start_s = time.monotonic()
    with closing(open_store(data_dir)) as store:
        while time.monotonic() - start_s < DRAIN_WITHIN_S:
            if all(row.state in ENDED for row in store.studies(limit=100_000)):
                break
            time.sleep(0.5)
    return time.monotonic() - start_s


class _Sampler(threading.Thread):
    """Looks at everything now and then while it storms."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(name="sampler")
        self.samples = 0
        self.wrong: list[str] = []
        self._data_dir = data_dir
        self._done = threading.Event()

    def stop(self) -> None:
        """No more."""
        self._done.set()
        self.join()

    def run(self) -> None:
        """Until `stop`."""
        while not self._done.wait(SAMPLE_EVERY_S):
            self.samples += 1
            try:
                with closing(open_store(self._data_dir)) as store:
                    self.wrong += database_faults(self._data_dir)
                    for study in studies(store, NEWEST):
                        self.wrong += half_report(self._data_dir, study)
            except RadboxError as error:
                self.wrong.append(f"while it stormed: {error.code}")


def _figures(result: Result, services: Services, senders: Senders, visitor: Visitor, sampler: _Sampler) -> None:
    result.kills, result.own_ends = dict(services.tally.kills), dict(services.tally.own_ends)
    result.starts, result.samples = services.tally.starts, sampler.samples
    result.studies_sent, result.acknowledged = senders.studies, len(senders.acknowledged)
    result.unanswered, result.page = senders.unanswered, dict(visitor.answers)


def _look(data_dir: Path, acknowledged: Sequence[Sent], result: Result) -> list[str]:
    """Everything that is not as it must be."""
    with closing(open_store(data_dir)) as store:
        found = studies(store)
        wrong = database_faults(data_dir)
    for study in found:
        wrong += half_report(data_dir, study)
        wrong += ["an object came twice with other bytes" for _ in study.conflicts]
        if study.state not in ENDED:
            wrong.append(f"a study is still {study.state}")
        if study.state == "failed" and study.code != "worker.died-repeatedly":
            wrong.append(f"a healthy study failed: {study.code}")
        if study.state == "refused":
            wrong.append(f"a healthy study was refused: {study.code}")
    wrong += _lost(data_dir, found, acknowledged)
    result.states = dict(collections.Counter(study.state for study in found))
    result.codes = dict(collections.Counter(study.code for study in found if study.code))
    result.attempts = dict(sorted(collections.Counter(study.attempt for study in found).items()))
    report = fsck.check(data_dir, None, False)
    result.fsck = {finding.code: finding.count for finding in report.findings}
    wrong += [f"fsck: {finding.code}" for finding in report.faults]
    temporary = list(data_dir.rglob("*.part"))
    result.left_over = dict(collections.Counter(path.relative_to(data_dir).parts[0] for path in temporary))
    wrong += ["a temporary file in incoming" for path in temporary if path.is_relative_to(data_dir / INCOMING)]
    return wrong


def _lost(data_dir: Path, found: Sequence[StudyDetail], acknowledged: Sequence[Sent]) -> list[str]:
    wrong = []
    rows = collections.defaultdict(list)
    for study in found:
        for row in study.instances:
            rows[row.sop_instance_uid].append((study.facts.study_instance_uid, row))
    for sent in acknowledged:
        held = rows.get(sent.sop, [])
        if not held:
            wrong.append("an acknowledged object was lost")
        elif len(held) > 1:
            wrong.append("an object has two rows")
        else:
            study_uid, row = held[0]
            path = data_dir / row.path
            content = path.read_bytes() if path.exists() else b""
            if hashlib.sha256(content).hexdigest() != row.sha256 or not content.endswith(sent.pixels):
                wrong.append("an acknowledged object has other bytes")
            if study_uid != sent.study:
                wrong.append("an object lies in another study")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
