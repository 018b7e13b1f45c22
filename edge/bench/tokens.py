"""The decoder alone, as the board runs it: tokens/s on the images of the bundle's golden case."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from edge.bench_result import Tokens, spread
from edge.board import Board
from edge.bundle import Bundle
from edge.reading.decoder import Decoder, DecoderConfig
from edge.reading.decoding import board_decoding
from edge.reading.weights import read_tensors
from edge.report.grammar import Grammar
from edge.report.graph import load_graph

ROUNDS: Final = 20
WARM_UP: Final = 3
TOKENS: Final = ".tokens"


@dataclass(frozen=True)
class Decoded:
    """tokens: the figure; kernels: the set that was chosen."""

    tokens: Tokens
    kernels: str


def decode(board: Board, bundle: Bundle, emission: str) -> Decoded:
    """Reports of all golden images, ROUNDS times. emission: whose golden outputs; any where it has none.

    Raises BundleError, BackendError (kernels).
    """
    spec, how = bundle.manifest.decoder, board_decoding(board)
    config = DecoderConfig(
        vocabulary=len(spec.vocabulary),
        width=spec.width,
        layers=spec.layers,
        heads=spec.heads,
        ffn=spec.ffn,
        positions=spec.positions,
        bias_sigma=spec.bias_sigma,
        bias_strength=spec.bias_strength,
    )
    precision = None if how.precision == "f32" else how.precision
    weights = read_tensors(bundle.file("decoder.safetensors"))
    decoder = Decoder.load(config, weights, how.kernels, precision=precision, threads=how.threads)
    golden = read_tensors(bundle.file("golden.safetensors"))
    known = sorted(name.removesuffix(TOKENS) for name in golden if name.endswith(TOKENS))
    chosen = emission if emission in known else known[0]
    images = list(zip(golden[f"{chosen}{TOKENS}"], golden[f"{chosen}.masks"], strict=True))
    grammar = Grammar(spec.vocabulary, bundle.findings, load_graph())
    rates, steps = [], 0
    for number in range(WARM_UP + ROUNDS):
        began_s = time.monotonic()
        steps = sum(decoder.generate(*image, grammar, keep_attention=False).steps for image in images)
        if number >= WARM_UP:
            rates.append(steps / max(time.monotonic() - began_s, 1e-9))
    return Decoded(Tokens(spread(rates), steps), decoder.kernels)
