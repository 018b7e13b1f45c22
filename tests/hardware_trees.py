"""Lays the boards of tests/hardware out as files, and makes boards and clocks for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edge.board import Board
from edge.care.hardware.clock_state import RELEASED_UNIX_S, ClockSight
from edge.care.hardware.linux import LinuxHardware
from edge.care.hardware.sysfs import Tree
from tests.care_box import board_of

FOLDER = Path(__file__).resolve().parent / "hardware"
BOARDS = sorted(path.stem for path in FOLDER.glob("*.tree"))


def lay_out(name: str, root: Path) -> Tree:
    """The board `name` below `root`."""
    for line in (FOLDER / f"{name}.tree").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        path, kind, value = line.replace(" =x ", "\0x\0").replace(" =", "\0t\0", 1).split("\0")[:3]
        put(root, path, bytes.fromhex(value) if kind == "x" else value.strip().replace("\\n", "\n").encode() + b"\n")
    return Tree(root)


def put(root: Path, path: str, content: bytes | str) -> None:
    """One file of a board."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def board_with(data_dir: Path, **hardware) -> Board:
    """The simulated board as a real one, with these keys of [hardware]."""
    plain = board_of(data_dir)
    own = dataclasses.replace(plain.hardware, **{"kind": "linux", "state_file": "", **hardware})
    return dataclasses.replace(plain, hardware=own)


class FakeClock:
    """A clock that tests turn."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def sight(tree: Tree, wall: FakeClock | None = None, up: FakeClock | None = None, synchronised: bool | None = True):
    """A ClockSight that is not this machine's."""
    return ClockSight(tree, wall or FakeClock(RELEASED_UNIX_S + 1e6), up or FakeClock(50.0), lambda: synchronised)


def linux(name: str, root: Path, run=lambda _command: None, **hardware) -> LinuxHardware:
    """A real board's reader over the board `name`; its data folder is root/data."""
    tree = lay_out(name, root)
    (root / "data").mkdir()
    return LinuxHardware(board_with(root / "data", **hardware), tree, run, sight(tree))
