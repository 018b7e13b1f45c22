"""How a board runs the decoder, as one value that also travels to the children that read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from edge.board import Board
from edge.bundle import Bundle
from edge.closed import build

INT4_DECODER = "decoder.q4.safetensors"
"""Of a bundle whose int4 decoder passed its quality gate (models/quantise_decoder.py)."""


@dataclass(frozen=True)
class Decoding:
    """kernels: a name of `edge.reading.ops.CHOICES`. precision: what f32 weights are rounded to ("f32": nothing).

    threads: of a quantised decoder; no result depends on them.
    """

    kernels: str = "auto"
    precision: Literal["f32", "q8", "q4"] = "f32"
    threads: int = 1

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def decoding_from_json(line: str) -> Decoding:
    """The inverse of `Decoding.to_json`. Raises ValueError, ClosedError."""
    return build(Decoding, json.loads(line), "decoding")


def runs_in(bundle: Bundle, decoding: Decoding) -> Literal["f32", "q8", "q4"]:
    """What the decoder will run in: int4 only where the bundle has weights that were made for it, else float."""
    if decoding.precision == "q4" and INT4_DECODER not in bundle.manifest.files:
        return "f32"
    return decoding.precision


def board_decoding(board: Board) -> Decoding:
    """As the board's section [worker] says."""
    worker = board.worker
    return Decoding(worker.kernels, worker.precision, worker.kernel_threads)
