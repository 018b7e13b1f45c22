"""A box of real services for the scenario files: the worker as a process (with systemd's part), the page over HTTP.

The simulated accelerator fails as its state file says. Also the worker's process itself:
`python -m tests.scenario_box BOARD_FILE [NAME=SECONDS ...]`, the names being those of its `Patience`.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from edge.board import Board, load_board
from edge.reading import worker
from edge.reading.patience import Patience
from edge.report.serial import from_json
from edge.service import Stop, setup_logging
from edge.simulate.objects import encode_file, phantom_dataset
from edge.simulate.phantom import PhantomOptions, make_phantom
from edge.store import Store, open_store
from tests.worker_process import ROOT, put

HURRY = {
    "stage_limit_s": 4.0,
    "probe_first_s": 0.5,
    "probe_most_s": 1.0,
    "retry_model_s": 0.2,
    "start_first_s": 0.1,
    "wishes_every_s": 0.2,
}
NO_WAITS: dict[str, float] = {}
BOARD = """\
name = "scenario"
data_dir = {data_dir}

[worker]
bundle = {bundle}
backends = {backends}
threads = 1
poll_s = 0.05

[hardware]
kind = "sim"
state_file = {state_file}
"""
LABEL = re.compile(r'<span class="state state-\w+">(.*?)</span>', re.S)
NOTICE = re.compile(r'<section class="notice.*?</section>', re.S)
PARTS = {"title": "notice-title", "todo": "todo", "code": "code"}


def text_of(markup: str) -> str:
    """What a person reads of some HTML."""
    without = re.sub(r"<svg.*?</svg>|<[^>]+>", "", markup, flags=re.S)
    return " ".join(html.unescape(without).split())


def notice_of(markup: str) -> dict[str, str]:
    """One banner: title, text, todo, code."""
    found = re.findall(r'<p(?: class="([\w-]+)")?>(.*?)</p>', markup, re.S)
    by_class = {kind or "text": text_of(inner) for kind, inner in found}
    told = {name: by_class[kind] for name, kind in PARTS.items() if kind in by_class}
    told["todo"] = told.get("todo", "").removeprefix("What to do: ")
    return {"title": told["title"], "text": by_class.get("text", ""), "todo": told["todo"], "code": told["code"]}


class ScenarioBox:
    """One box in a folder of its own."""

    def __init__(self, folder: Path, backends: list[str], web_port: int, waits: dict[str, float]) -> None:
        self.state_file = folder / "hardware.toml"
        self.board_file = folder / "board.toml"
        self._log = folder / "services.log"
        self._port = web_port
        self._waits = {**HURRY, **waits}
        texts = {
            "data_dir": str(folder / "data"),
            "bundle": str(ROOT / "models" / "bundles" / "chest"),
            "backends": backends,
            "state_file": str(self.state_file),
        }
        self.board_file.write_text(BOARD.format(**{name: json.dumps(text) for name, text in texts.items()}))
        self.board: Board = load_board(self.board_file)
        self.store: Store = open_store(self.board.data_dir)
        self._web = self._start("edge", "web", "--board", str(self.board_file), "--port", str(web_port))
        self._worker: subprocess.Popen[bytes] | None = None
        self.arrived: list[int] = []
        self._events = 0

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=log, stderr=log)

    # --- what happens ---

    def accelerator(self, state: str, after_runs: int = 0) -> None:
        """From now on it behaves like that."""
        self.state_file.write_text(f'[accelerator]\nstate = "{state}"\nafter_runs = {after_runs}\n')

    def arrive(self) -> None:
        """A chest X-ray of a computed thorax."""
        options = PhantomOptions(seed=len(self.arrived) + 1, size=512, detail="fast")
        dataset = phantom_dataset(make_phantom(options))
        uids = str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID)
        self.arrived.append(put(self.board, self.store, encode_file(dataset), *uids))

    def tend(self) -> None:
        """systemd's part: a worker that is not there is started."""
        if self._worker is None or self._worker.poll() is not None:
            waits = (f"{name}={seconds}" for name, seconds in self._waits.items())
            self._worker = self._start("tests.scenario_box", str(self.board_file), *waits)

    def restart(self) -> None:
        """`systemctl restart` of the worker."""
        if self._worker is not None:
            self._worker.terminate()
            assert self._worker.wait(30) == 0, self.log()
            self._worker = None
        self.tend()

    # --- what is seen ---

    def get(self, path: str) -> str:
        """A page; "" while it does not answer yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=10) as answer:
                content: bytes = answer.read()
        except OSError:
            return ""
        return content.decode()

    def page(self) -> list[dict[str, str]]:
        """Every banner of the list of studies; the services that this box does not have are left out."""
        return [notice_of(markup) for markup in NOTICE.findall(self.get("/"))]

    def labels(self) -> list[str]:
        """What the list says of each study, the newest first."""
        return [text_of(markup) for markup in LABEL.findall(self.get("/"))]

    def reads_with(self) -> str:
        """The backend that read the newest study; "" while it has no report."""
        detail = self.store.study(self.arrived[-1])
        return from_json(detail.report_json).model.backend if detail and detail.report_json else ""

    def new_events(self) -> list[str]:
        """Codes of the events since this was asked last, oldest first."""
        rows = list(reversed(self.store.events(1000)))
        codes = [row.code for row in rows[self._events :]]
        self._events = len(rows)
        return codes

    def log(self) -> str:
        """The last lines of the services."""
        return self._log.read_text()[-4000:]

    def close(self) -> None:
        """End everything."""
        for process in (self._worker, self._web):
            if process is not None:
                process.kill()
                process.wait()
        self.store.close()


@contextmanager
def scenario_box(
    folder: Path, backends: list[str], web_port: int, waits: dict[str, float] = NO_WAITS
) -> Iterator[ScenarioBox]:
    """A box whose page answers and whose worker is started by the first `tend`. waits: `Patience` beside HURRY."""
    with closing(ScenarioBox(folder, backends, web_port, waits)) as box:
        deadline = time.monotonic() + 60
        while not box.get("/healthz"):
            assert time.monotonic() < deadline, box.log()
            time.sleep(0.1)
        yield box


def main(board_file: str, *waits: str) -> None:
    """The worker's process."""
    setup_logging("worker")
    pairs: Any = dict(wait.split("=") for wait in waits)
    patience = Patience(**{name: float(seconds) for name, seconds in pairs.items()})
    worker.run(load_board(Path(board_file)), Stop(), patience)


if __name__ == "__main__":
    main(*sys.argv[1:])
