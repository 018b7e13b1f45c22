"""What the board gives a backend, as one value that also travels to the child that tries it first."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from edge.board import Board
from edge.closed import build

CACHE_FOLDER = "accelerator"  # below the data folder


@dataclass(frozen=True)
class Setup:
    """Keys of the board's sections [worker], [hardware] and [accelerator]; every backend takes what concerns it.

    backend: the name under which the board lists it. cache: folder for what a backend makes on this very box (engines,
    timing caches, verdicts); "" keeps nothing.
    """

    backend: str = ""
    threads: int = 1
    state_file: str = ""  # of the simulated hardware
    cache: str = ""
    library: str = ""  # of the delegate; "": where its maker puts it
    options: tuple[str, ...] = ()  # of the delegate, "key=value"
    precision: Literal["auto", "int8", "fp16"] = "auto"
    workspace_bytes: int = 256 << 20
    build_timeout_s: float = 1800.0

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def setup_from_json(line: str) -> Setup:
    """The inverse of `Setup.to_json`. Raises ValueError, ClosedError."""
    return build(Setup, json.loads(line), "setup")


def board_setup(board: Board) -> Setup:
    """What this board gives every backend."""
    accelerator = board.accelerator
    return Setup(
        threads=board.worker.threads,
        state_file=board.hardware.state_file,
        cache=str(board.data_dir / CACHE_FOLDER),
        library=accelerator.library,
        options=accelerator.options,
        precision=accelerator.precision,
        workspace_bytes=accelerator.workspace_bytes,
        build_timeout_s=accelerator.build_timeout_s,
    )
