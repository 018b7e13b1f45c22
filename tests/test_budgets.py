"""What an idle box may cost: memory, wake-ups, and log lines for each study. Budgets, not speed."""

from __future__ import annotations

import dataclasses
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.board import load_board
from edge.box import Box, running, wait_until_ready
from edge.service import Stop
from edge.simulate.command import to_send
from edge.simulate.phantom import PhantomOptions
from edge.simulate.send import send
from tools.soak.processes import family, usage

MIB = 2**20
MEMORY_LIMIT = 250 * MIB  # proportional set size of all services: a page that two share counts once
WAKE_UPS_A_SECOND = 40.0  # voluntary context switches of all services together
LOG_LINES_A_STUDY = 6
IDLE_S = 10.0
CHILD_GOES_S = 90.0

pytestmark = [pytest.mark.slow, pytest.mark.requirement("KEEP-11")]


@pytest.fixture(scope="module")
def box(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box that has read one study, with the fifth service at work for a broker that is away."""
    folder = tmp_path_factory.mktemp("budgets")
    text = (root / "board_configs" / "sim.toml").read_text().replace("models/bundles", f"{root}/models/bundles")
    text = text.replace('[mqtt]\nhost = ""', '[mqtt]\nhost = "127.0.0.1"').replace("port = 8883", "port = 9")
    file = folder / "board.toml"
    file.write_text(text)
    board = load_board(file)
    quiet = dataclasses.replace(
        board,
        data_dir=folder / "data",
        receive=dataclasses.replace(board.receive, port=0),
        web=dataclasses.replace(board.web, port=0),
    )
    with running(quiet, ("--board", str(file)), stop=Stop(signals=False)) as started:
        wait_until_ready(started)
        _read_one(started, seed=1)
        yield started


def _read_one(box: Box, seed: int) -> None:
    drafts = box.store.study_counts()["draft"]
    receive = box.board.receive
    send(to_send(None, PhantomOptions(seed=seed)), receive.host, receive.port, receive.ae_title)
    limit_s = time.monotonic() + 60
    while box.store.study_counts()["draft"] == drafts:
        assert time.monotonic() < limit_s, box.store.study_counts()
        time.sleep(0.1)
    urllib.request.urlopen(f"{box.page}study/1").read()


def _families(box: Box) -> dict[str, list[int]]:
    return {service.name: list(family(service.process.pid)) for service in box.services}


def test_wake_ups_when_idle(box: Box) -> None:
    before = {name: _switches(pids) for name, pids in _families(box).items()}
    time.sleep(IDLE_S)
    rates = {name: (_switches(pids) - before[name]) / IDLE_S for name, pids in _families(box).items()}
    shown = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    print(f"\nwake-ups a second when idle: {shown}; together {sum(rates.values()):.1f} of {WAKE_UPS_A_SECOND:.0f}")
    assert all(rate > 0 for rate in rates.values())  # a stopped service would look cheap
    assert sum(rates.values()) <= WAKE_UPS_A_SECOND, shown


def _switches(pids: list[int]) -> int:
    """Voluntary context switches of all threads of these processes so far (proc(5) status)."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            status = (task / "status").read_text()
            total += int(status.split("voluntary_ctxt_switches:")[1].split()[0])
    return total


def test_memory_when_idle(box: Box) -> None:
    """Once the decoding child was sent home: a minute after the last study."""
    worker = next(service for service in box.services if service.name == "worker")
    limit_s = time.monotonic() + CHILD_GOES_S
    while len(list(family(worker.process.pid))) > 1:
        assert time.monotonic() < limit_s, "the decoding child stays"
        time.sleep(0.5)
    used = {service.name: usage(service.process.pid).pss_bytes for service in box.services}
    shown = ", ".join(f"{name} {size / MIB:.0f}" for name, size in used.items())
    print(f"\nPSS when idle, MiB: {shown}; together {sum(used.values()) / MIB:.0f} of {MEMORY_LIMIT / MIB:.0f}")
    assert set(used) == {"receive", "worker", "web", "care", "link"}
    assert sum(used.values()) <= MEMORY_LIMIT, shown


def test_log_lines_of_a_study(box: Box) -> None:
    for service in box.services:
        service.log.clear()
    _read_one(box, seed=2)
    time.sleep(1.0)
    lines = [f"{service.name}: {line}" for service in box.services for line in service.log]
    print(f"\n{len(lines)} log lines for a study of one image, at most {LOG_LINES_A_STUDY}")
    assert 0 < len(lines) <= LOG_LINES_A_STUDY, lines
