"""A board's file played on another machine: its keys, but loopback addresses, simulated hardware and accelerators.

What the machine cannot have is left out (panel, grabber, printer, broker, the known senders); what is its own (kernels
of its CPU, number of its processors) is taken. Every accelerator reads as `simulated-npu`, and the box says in its name
that it is played.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Final

from edge.board import Board
from edge.board_keys import ACCELERATED_BACKENDS

LOOPBACK: Final = "127.0.0.1"
SIMULATED_BACKEND: Final = "simulated-npu"
STATE_FILE: Final = "hardware.toml"  # in the data folder; not there: a healthy box
_EVERYWHERE: Final = ("auto", "numpy", "reference")  # kernels that no CPU lacks


def simulated(board: Board, name: str, data_dir: Path, bundle: Path) -> Board:
    """`board` as this machine can play it, called "`name` (simulated)".

    bundle: the model to read with where the board's own is not on this machine. The hardware obeys
    `data_dir`/hardware.toml (docs/hardware.md) unless the board names another state file.
    """
    worker, hardware = board.worker, board.hardware
    return dataclasses.replace(
        board,
        name=f"{name} (simulated)",
        data_dir=data_dir,
        receive=dataclasses.replace(board.receive, host=LOOPBACK, calling_ae=(), addresses=()),
        web=dataclasses.replace(board.web, host=LOOPBACK),
        worker=dataclasses.replace(
            worker,
            bundle=worker.bundle if worker.bundle.is_dir() else bundle,
            backends=_backends(worker.backends),
            threads=min(worker.threads, os.cpu_count() or 1),
            kernels=worker.kernels if worker.kernels in _EVERYWHERE else "auto",
        ),
        accelerator=dataclasses.replace(board.accelerator, library="", options=()),
        hardware=dataclasses.replace(
            hardware, kind="sim", state_file=hardware.state_file or str(data_dir / STATE_FILE)
        ),
        panel=dataclasses.replace(board.panel, device=""),
        grabber=dataclasses.replace(board.grabber, source=""),
        mqtt=dataclasses.replace(board.mqtt, host=""),
        printer=dataclasses.replace(board.printer, uri=""),
    )


def _backends(names: tuple[str, ...]) -> tuple[str, ...]:
    """Accelerators as the simulated one, once; the runtimes of the CPU as they are."""
    played = (SIMULATED_BACKEND if name in ACCELERATED_BACKENDS else name for name in names)
    return tuple(dict.fromkeys(played))
