"""Bundle and board -> a Reader that passed its golden case."""

from __future__ import annotations

from dataclasses import dataclass

from edge.board import Board
from edge.bundle import load_bundle
from edge.errors import BackendError
from edge.reading.backends import open_encoder
from edge.reading.pipeline import Reader


@dataclass(frozen=True)
class Loaded:
    """reader, and the backends the board prefers to the one at work, each with the reason it was passed over."""

    reader: Reader
    passed_over: tuple[tuple[str, BackendError], ...]


def load_reader(board: Board) -> Loaded:
    """Verify the bundle and open the first backend that passes. Raises BundleError, BackendError."""
    bundle = load_bundle(board.worker.bundle)
    opened = open_encoder(bundle, board.worker.backends, board.worker.threads)
    return Loaded(Reader(bundle, opened.encoder, board.worker.kernels), opened.passed_over)
