"""The operators by name: numpy's definition or the native kernels, chosen once from the board's `worker.kernels`."""

from __future__ import annotations

from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError
from edge.reading.ops import numpy_kernels
from edge.reading.ops.arrays import F32, Weights
from edge.reading.ops.native import NativeKernels
from edge.reading.ops.quantised import QuantisedWeights
from edge.reading.ops.shape import DecoderShape

CHOICES = ("auto", "numpy", "reference", "avx2", "avx512vnni", "neon", "neon_dotprod", "neon_i8mm")


class Session(Protocol):
    """A decoder at work on one image: `begin`, then `step` per token. Not for two threads at once."""

    def begin(self, tokens: F32, bias: F32) -> None: ...

    def step(self, token: int) -> tuple[F32, F32]: ...


class Kernels(Protocol):
    """What both sets of operators offer to the decoder; shapes and equations are in reference.py."""

    name: str

    def anatomical_bias_f32(self, masks: F32, sigma: tuple[float, ...], strength: float) -> F32: ...

    def masked_argmax_f32(self, logits: F32, allowed: NDArray[np.bool_]) -> tuple[int, float]: ...

    def decoder(self, shape: DecoderShape, weights: Weights) -> Session: ...

    def quantised_decoder(self, shape: DecoderShape, weights: QuantisedWeights, *, threads: int = 1) -> Session: ...


def load_kernels(choice: str = "auto") -> Kernels:
    """`auto`: the native kernels (RADBOX_KERNELS, else the best for this CPU); a name: that set of them; `numpy`.

    Raises ConfigError on another choice, BackendError (`kernels.missing`, `kernels.not-loadable`,
    `kernels.abi-version`, `kernels.unknown`, `kernels.unsupported`: the CPU lacks the named set's instructions) if the
    native ones cannot be had: numpy is slower and never used unasked.
    """
    if choice not in CHOICES:
        raise ConfigError(f"expected kernels as one of {', '.join(CHOICES)}, got {choice!r}")
    if choice == "numpy":
        return cast(Kernels, numpy_kernels)
    return NativeKernels(None if choice == "auto" else choice)
