"""Our decoder: one call per token through ctypes, as the worker would make it, logits included."""

from __future__ import annotations

import time

import numpy as np

from edge.reading.ops.automaton import Automaton
from edge.reading.ops.native import NativeKernels
from tools.decoder_bench.contestant import TURN
from tools.decoder_bench.sizes import FIRST, TOKENS, Model

KINDS = {"q8": "int8", "q4": "int4"}


SAVED = 9
"""The sequence that holds the first 24 tokens; 0 is the one that is timed, 1 to 8 are beams."""

BEAMS = (2, 4, 8)


class Ours:
    """A quantised decoder with a copy of its first 24 tokens to go back to."""

    turn = TURN

    def __init__(self, model: Model, precision: str, threads: int, kernels: str | None = None) -> None:
        self.native = native = NativeKernels(kernels)
        self.name, self.kind = f"radbox {KINDS[precision]} ({native.name})", KINDS[precision]
        self._shape = model.size.shape
        weights = model.quantised(precision)
        self.session = native.quantised_decoder(self._shape, weights, threads=threads, sequences=SAVED + 1)
        self.session.begin_image(0, model.tokens, model.bias)
        self.session.start_sequence(0, 0)
        self.logits = np.empty(self._shape.vocabulary, np.float32)
        self._position = 0
        for _ in range(FIRST):
            self.token()
        self.session.copy_sequence(0, SAVED)

    def rewind(self) -> None:
        self.session.copy_sequence(SAVED, 0)
        self._position = FIRST

    def token(self) -> None:
        self.session.step_into(self._position, self.logits)
        self._position += 1


class Beams:
    """One token for each of `count` beams of the same image, in one call: on the decoder of `ours`."""

    turn, kind = TURN, "beams"

    def __init__(self, ours: Ours, count: int) -> None:
        self.name = f"{ours.name}, {count} beams"
        self._session, self._sequences = ours.session, list(range(1, count + 1))
        self._logits = np.empty((count, ours.logits.size), np.float32)
        self.rewind()

    def rewind(self) -> None:
        for sequence in self._sequences:
            self._session.copy_sequence(SAVED, sequence)

    def token(self) -> None:
        self._session.step_batch(self._sequences, self._sequences, self._logits)


def free_text(vocabulary: int) -> Automaton:
    """A grammar that allows every token, always: generation goes on to the last position."""
    allowed = np.ones((2, vocabulary), np.uint8)
    return Automaton(allowed, np.zeros((2, vocabulary), np.int32), start=0, final=1)


def call_overhead_s(ours: Ours, repeats: int = 2000) -> float:
    """Seconds that Python and ctypes add to a token: the same call on no decoder, which C refuses at once."""
    step = ours.native.library.radbox_decoder_step_f32
    samples = []
    for _ in range(repeats):
        started = time.perf_counter()
        step(None, 0, ours.logits.ctypes.data, None)
        samples.append(time.perf_counter() - started)
    return float(np.median(samples))


def generated_tokens_per_s(ours: Ours, model: Model) -> float:
    """Whole reports in one call each: 64 tokens with arg-max and log-probability, the image's keys not counted."""
    grammar = free_text(model.size.shape.vocabulary)
    best = 0.0
    for _ in range(12):
        ours.session.start_sequence(0, 0)
        started = time.perf_counter()
        said = ours.session.generate(grammar, 1, keep_attention=False, capacity=TOKENS)
        best = max(best, said.tokens.size / (time.perf_counter() - started))
    return best
