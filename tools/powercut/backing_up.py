"""A person who writes backup after backup to the stick, through the product's command line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import edge.__main__
from tools.powercut.forked import Forked


@dataclass(frozen=True)
class Note:
    """at_s: monotonic; kind: begin, written, failed; archive: file name; words: what went wrong."""

    at_s: float
    kind: str
    archive: str
    words: str


class BackingUp:
    """Backups of one box, one after the other, until the power goes."""

    def __init__(self, board_file: Path, data_dir: Path, stick: Path, passphrase_file: Path) -> None:
        self._notes = board_file.with_name("notes.jsonl")
        self._notes.write_text("")
        log = board_file.with_name("backup.log")
        self._process = Forked(log, _back_up, board_file, data_dir, stick, passphrase_file, self._notes)

    def notes(self) -> list[Note]:
        """All notes so far."""
        return [Note(**json.loads(line)) for line in self._notes.read_text().split("\n")[:-1]]

    def close(self) -> None:
        """Kill it."""
        self._process.close()


def _back_up(board_file: Path, data_dir: Path, stick: Path, passphrase_file: Path, notes: Path) -> None:
    handle = os.open(notes, os.O_WRONLY | os.O_APPEND)

    def note(kind: str, archive: str, words: str = "") -> None:
        line = json.dumps(dataclasses.asdict(Note(time.monotonic(), kind, archive, words)))
        os.write(handle, line.encode() + b"\n")

    options = ["--passphrase-file", str(passphrase_file), "--board", str(board_file), "--data-dir", str(data_dir)]
    taken = len(list(stick.iterdir()))
    for number in range(taken, taken + 100):
        archive = f"own-{time.monotonic_ns()}-{number}.rbk"
        note("begin", archive)
        said, complaints = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaints):
            status = edge.__main__.main(["backup", str(stick / archive), *options])
        note("failed" if status else "written", archive, complaints.getvalue()[-300:] if status else "")
        if status:
            return
        if data_dir.joinpath(".backup").exists():
            note("failed", archive, "the copies of the database were left behind")
