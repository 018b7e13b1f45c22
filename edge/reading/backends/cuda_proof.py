"""The GPU's decoder against its definition on a small case, before it may read: a wrong number is noticed here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np

from edge.errors import BackendError
from edge.reading.backends.cuda_weights import Storage
from edge.reading.ops import reference
from edge.reading.ops.arrays import F32, Weights
from edge.reading.ops.quantised import QuantisedWeights
from edge.reading.ops.reference_quantised import dequantised, quantise_decoder
from edge.reading.ops.shape import DecoderShape

ERRORS: Final[Mapping[Storage, float]] = {"f16": 1e-2, "i8": 6e-2}
"""Greatest error of the logits relative to the greatest of them, by how keys and values are stored. Rounding alone
gives about a third of it; a fault gives about 1."""
WRONG: Final = "kernels.wrong-result"
_TOKENS: Final = 70  # of the image: a whole slice of keys and a part of one
_SAID: Final = (1, 3, 2)


class _Session(Protocol):
    def begin(self, tokens: F32, bias: F32) -> None: ...

    def step(self, token: int) -> tuple[F32, F32]: ...

    def free(self) -> None: ...


class _Decoders(Protocol):
    def decoder(self, shape: DecoderShape, weights: Weights) -> _Session: ...

    def quantised_decoder(self, shape: DecoderShape, weights: QuantisedWeights) -> _Session: ...


def prove(kernels: _Decoders, shape: DecoderShape, storage: Storage) -> float:
    """A decoder of random weights with the widths of `shape`, for a few steps; its greatest relative error.

    Two layers and few tokens: the kernels chosen by the widths are those of the real one. Raises BackendError
    `kernels.wrong-result`, and what the kernels raise.
    """
    small = dataclasses.replace(
        shape,
        vocabulary=min(shape.vocabulary, 64),
        layers=min(shape.layers, 2),
        positions=max(len(_SAID), min(shape.positions, 8)),
    )
    weights = _random_weights(small)
    quantised = quantise_decoder(small, weights, "q8")
    if storage == "i8":
        session = kernels.quantised_decoder(small, quantised)
        weights = {**quantised.floats, **{name: dequantised(m) for name, m in quantised.matrices.items()}}
    else:
        session = kernels.decoder(small, weights)
    try:
        worst = _difference(session, reference.decoder(small, weights), small)
    finally:
        session.free()
    if not worst <= ERRORS[storage]:
        raise BackendError(
            f"expected the GPU's decoder within {ERRORS[storage]:g} of its definition, got {worst:.3g}", code=WRONG
        )
    return worst


def _difference(session: _Session, expected: reference.Session, shape: DecoderShape) -> float:
    rng = np.random.default_rng(3)
    tokens = rng.standard_normal((_TOKENS, shape.channels)).astype(np.float32)
    bias = np.abs(rng.standard_normal((shape.layers, _TOKENS))).astype(np.float32)
    bias[:, ::5] = -np.inf
    session.begin(tokens, bias)
    expected.begin(tokens, bias)
    worst = 0.0
    for token in _SAID:
        said = token % shape.vocabulary
        for got, wanted in zip(session.step(said), expected.step(said), strict=True):
            worst = max(worst, float(np.abs(got - wanted).max() / np.abs(wanted).max()))
    return worst


def _random_weights(shape: DecoderShape) -> dict[str, F32]:
    """Matrices that keep a vector's length, norms around one."""
    rng = np.random.default_rng(1)
    weights = {}
    for name, size in shape.weight_shapes().items():
        values = rng.standard_normal(size) / (np.sqrt(size[-1]) if len(size) > 1 else 4.0)
        weights[name] = np.asarray(values + ("norm" in name and name.endswith("weight")), np.float32)
    return weights
