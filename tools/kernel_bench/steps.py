"""The fused step of the quantised decoder by each set of ours, one token or four at once: what a box really runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge.reading.ops.native import NativeKernels
from edge.reading.ops.quantised import QuantisedWeights
from tools.decoder_bench.contestant import TURN
from tools.decoder_bench.ours import KINDS
from tools.decoder_bench.sizes import FIRST, Model, bytes_per_token, weights_per_token

BEAMS = 4


class Step:
    """`count` sequences on one image go on by a token; positions 24 to 40 of 64, like tools/bench decoder."""

    turn = TURN
    kind = "ours"
    repeats = 1

    def __init__(self, kernels: NativeKernels, model: Model, weights: QuantisedWeights, count: int) -> None:
        self.name = f"radbox {kernels.name}"
        self._sequences, self._position, shape = range(count), 0, model.size.shape
        kernels.library.radbox_kernels_select(kernels.name.encode())
        self._session = kernels.quantised_decoder(shape, weights, sequences=count + 1)
        self._session.begin_image(0, model.tokens, model.bias)
        for sequence in self._sequences:
            self._session.start_sequence(sequence, 0)
        self._logits = np.empty(shape.vocabulary, np.float32)
        for _ in range(FIRST):
            self.token()
        self._session.copy_sequence(0, count)

    def rewind(self) -> None:
        for sequence in self._sequences:
            self._session.copy_sequence(len(self._sequences), sequence)
        self._position = FIRST

    def token(self) -> None:
        if len(self._sequences) == 1:
            self._session.step_into(self._position, self._logits)
        else:
            self._session.step_batch([self._position] * len(self._sequences), self._sequences)
        self._position += 1


class Work:
    """What a step reads and multiplies, as `tools.kernel_bench.main` wants it of an operator."""

    packs = False

    def __init__(self, model: Model, precision: str, count: int) -> None:
        each = weights_per_token(model.size.shape)
        self.name = f"decoder_step_{precision}"
        self.shape = f"{count} token{'s' if count > 1 else ''}"
        self.bytes, self.products = bytes_per_token(model.size, precision), count * each


def steps(model: Model, sets: list[NativeKernels]) -> Iterator[tuple[Work, list[Step]]]:
    """Each precision, one token and BEAMS at once, by every set."""
    for precision in KINDS:
        weights = model.quantised(precision)
        for count in (1, BEAMS):
            yield Work(model, precision, count), [Step(kernels, model, weights, count) for kernels in sets]
