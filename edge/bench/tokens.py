"""The decoder alone, as the board runs it: tokens/s on the images of the bundle's golden case."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from edge.bench_result import Tokens, spread
from edge.board import Board
from edge.bundle import Bundle
from edge.reading.decoding import board_decoding, runs_in
from edge.reading.open_decoder import open_decoder
from edge.reading.weights import read_tensors
from edge.report.grammar import Grammar
from edge.report.graph import load_graph

ROUNDS: Final = 20
WARM_UP: Final = 3
TOKENS: Final = ".tokens"


@dataclass(frozen=True)
class Decoded:
    """tokens: the figure; kernels: the set that was chosen.

    precision: what it ran in, as `edge.reading.decoding.runs_in` says; not always what the board asks for.
    """

    tokens: Tokens
    kernels: str
    precision: str


def decode(board: Board, bundle: Bundle, emission: str) -> Decoded:
    """Reports of all golden images, ROUNDS times. emission: whose golden outputs; any where it has none.

    Raises BundleError, BackendError (kernels).
    """
    how = board_decoding(board)
    decoder = open_decoder(bundle, how)
    golden = read_tensors(bundle.file("golden.safetensors"))
    known = sorted(name.removesuffix(TOKENS) for name in golden if name.endswith(TOKENS))
    chosen = emission if emission in known else known[0]
    images = list(zip(golden[f"{chosen}{TOKENS}"], golden[f"{chosen}.masks"], strict=True))
    grammar = Grammar(bundle.manifest.decoder.vocabulary, bundle.findings, load_graph())
    rates, steps = [], 0
    for number in range(WARM_UP + ROUNDS):
        began_s = time.monotonic()
        steps = sum(decoder.generate(*image, grammar, keep_attention=False).steps for image in images)
        if number >= WARM_UP:
            rates.append(steps / max(time.monotonic() - began_s, 1e-9))
    return Decoded(Tokens(spread(rates), steps), decoder.kernels, runs_in(bundle, how))
