"""`tools/soak_test [--hours H] [--speed X]`: a box under the load of a busy clinic for hours; says what grew.

Planned load: 200 studies in a clinic day of 8 hours; `--speed 5` sends one every 28.8 s. Each is a full-size DX
(2500 x 2048, 16 bit, 10 MB) of another patient, is read, looked at on the page, signed and marked as exported, so that
retention has work too: running time to keep and number to keep are set low, the mark of the disk to 1 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from edge.board import Board, load_board
from edge.box import Box, running, wait_until_ready
from edge.simulate.objects import phantom_dataset
from edge.simulate.phantom import Lesion, Phantom, PhantomOptions, make_phantom
from edge.simulate.send import send
from tools.soak.judge import judge
from tools.soak.processes import usage

ROOT = Path(__file__).resolve().parent.parent.parent
STUDIES_A_DAY, CLINIC_DAY_S = 200, 8 * 3600
SAMPLE_S = 20.0
KEEP_STUDIES, KEEP_S = 20, 300.0


def main() -> int:
    """Run, write samples line by line, judge; 1 if something grew or a study was not read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--speed", type=float, default=5.0)
    parser.add_argument("--samples", type=Path, default=ROOT / "build" / "soak.jsonl")
    parser.add_argument("--judge", action="store_true", help="only judge the samples of an earlier run")
    options = parser.parse_args()
    if not options.judge:
        options.samples.parent.mkdir(parents=True, exist_ok=True)
        _soak(options.hours, options.speed, options.samples)
    verdict = judge([json.loads(line) for line in options.samples.read_text().splitlines()])
    print(json.dumps(verdict, indent=1))
    return int(not verdict["passed"])


def _board(folder: Path) -> tuple[Board, Path]:
    """The simulated board with a data folder of its own and a retention that comes due within the run."""
    text = (ROOT / "board_configs" / "sim.toml").read_text(encoding="utf-8")
    for key, value in (
        ("data_dir", f'"{folder / "box"}"'),
        ("bundle", f'"{ROOT / "models" / "bundles" / "chest"}"'),
        ("clean_percent", "1"),
        ("warn_percent", "99"),
        ("retention_days", str(KEEP_S / 86400)),
        ("keep_studies", str(KEEP_STUDIES)),
    ):
        lines = [f"{key} = {value}" if line.startswith(f"{key} = ") else line for line in text.splitlines()]
        text = "\n".join(lines) + "\n"
    path = folder / "board.toml"
    path.write_text(text, encoding="utf-8")
    board = load_board(path)
    receive, web = dataclasses.replace(board.receive, port=0), dataclasses.replace(board.web, port=0)
    return dataclasses.replace(board, receive=receive, web=web), path


def _soak(hours: float, speed: float, samples: Path) -> None:
    every_s = CLINIC_DAY_S / STUDIES_A_DAY / speed
    phantoms = [make_phantom(_options(seed)) for seed in range(4)]
    with tempfile.TemporaryDirectory(prefix="radbox-soak-", dir="/var/tmp") as name, samples.open("w") as out:
        board, path = _board(Path(name))
        with running(board, ("--board", str(path))) as box:
            wait_until_ready(box)
            _steady(box, phantoms, hours * 3600, every_s, out)


def _options(seed: int) -> PhantomOptions:
    lesion = Lesion("effusion", "left", "lower", 0.8) if seed % 2 else None
    return PhantomOptions(seed=seed, size=(2500, 2048), lesion=lesion)


def _steady(box: Box, phantoms: list[Phantom], seconds: float, every_s: float, out: Any) -> None:
    start = time.monotonic()
    sent = 0
    next_study = next_sample = start
    open_studies: list[tuple[int, str]] = []
    while (now := time.monotonic()) < start + seconds:
        if now >= next_study:
            next_study += every_s
            open_studies.append(_send(box, phantoms[sent % len(phantoms)], sent))
            sent += 1
        if now >= next_sample:
            next_sample += SAMPLE_S
            _look(box)
            open_studies = [one for one in open_studies if not _settle(box, one[0])]
            out.write(json.dumps(_sample(box, now - start, sent, len(open_studies))) + "\n")
            out.flush()
        time.sleep(max(0.0, min(next_study, next_sample) - time.monotonic()))


def _send(box: Box, phantom: Phantom, number: int) -> tuple[int, str]:
    dataset = phantom_dataset(phantom, patient_id=f"SOAK-{number}-{time.time_ns()}")
    receive = box.board.receive
    (result,) = send([dataset], receive.host, receive.port, receive.ae_title)
    if result.status != 0:
        raise SystemExit(f"soak: study {number} was answered with status 0x{result.status:04X}")
    uid = str(dataset.StudyInstanceUID)
    key = box.store.study_key(uid)
    if key is None:
        raise SystemExit(f"soak: study {number} was acknowledged and has no row")
    return key, uid


def _look(box: Box) -> None:
    """A person with a phone: the list and the newest study."""
    newest = box.store.studies(limit=1)
    for path in ("", *(f"study/{one.study_key}" for one in newest)):
        with urllib.request.urlopen(box.page + path, timeout=10) as answer:
            answer.read()


def _settle(box: Box, key: int) -> bool:
    """Sign and mark as exported what is read; True once that is done."""
    detail = box.store.study(key)
    if detail is None:
        raise SystemExit("soak: a study went before it was exported")
    if detail.state == "failed":
        raise SystemExit(f"soak: a study failed: {detail.code}")
    if detail.state == "draft":
        box.store.sign(key, detail.attempt, "soak", detail.report_json)
    elif detail.state != "refused":
        return False
    box.store.mark_exported(key)
    return True


def _sample(box: Box, at_s: float, sent: int, unsettled: int) -> dict[str, Any]:
    data_dir = box.board.data_dir
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    return {
        "at_s": round(at_s, 1),
        "sent": sent,
        "unsettled": unsettled,
        "studies": len(box.store.studies(limit=10_000)),
        "files": len(files),
        "temporary_files": sum(path.name.endswith(".part") for path in files),
        "data_bytes": sum(path.stat().st_size for path in files if path.exists()),
        "services": {one.name: dataclasses.asdict(usage(one.process.pid)) for one in box.services},
    }


if __name__ == "__main__":
    sys.exit(main())
