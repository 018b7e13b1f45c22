"""The operators by name: numpy's definition, the native kernels or a GPU's, as the board's `worker.kernels` says."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from typing import Final, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError, ConfigError
from edge.reading.ops import numpy_kernels
from edge.reading.ops.arrays import F32, Weights
from edge.reading.ops.automaton import Automaton, Said
from edge.reading.ops.native import NativeKernels
from edge.reading.ops.quantised import QuantisedWeights
from edge.reading.ops.shape import DecoderShape

_log = logging.getLogger("worker")

CHOICES = ("auto", "numpy", "reference", "avx2", "avx512vnni", "neon", "neon_dotprod", "neon_i8mm", "cuda")

ACCELERATED: Final[Mapping[str, str]] = {"cuda": "edge.reading.backends.cuda_kernels"}
"""Sets that need a runtime -> the module whose `load` gives them, imported only when asked for."""


class Session(Protocol):
    """A decoder at work on one image: `begin`, then `step` per token. Not for two threads at once."""

    def begin(self, tokens: F32, bias: F32) -> None: ...

    def step(self, token: int) -> tuple[F32, F32]: ...


@runtime_checkable
class WholeSession(Session, Protocol):
    """A session that decodes a whole sequence by a grammar's tables."""

    def generate(self, automaton: Automaton, token: int, *, keep_attention: bool = True) -> Said: ...


class Kernels(Protocol):
    """What all sets of operators offer to the decoder; shapes and equations are in reference.py."""

    @property
    def name(self) -> str: ...

    def anatomical_bias_f32(self, masks: F32, sigma: tuple[float, ...], strength: float) -> F32: ...

    def masked_argmax_f32(self, logits: F32, allowed: NDArray[np.bool_]) -> tuple[int, float]: ...

    def decoder(self, shape: DecoderShape, weights: Weights) -> Session: ...

    def quantised_decoder(self, shape: DecoderShape, weights: QuantisedWeights, *, threads: int = 1) -> Session: ...


@runtime_checkable
class Guarded(Protocol):
    """An accelerator's set, with the CPU's behind it: what it is besides Kernels."""

    @property
    def fault(self) -> str:
        """Why the CPU computes, in words; "" while the accelerator does."""
        ...

    @property
    def fault_code(self) -> str:
        """The stable code of `fault`."""
        ...

    @property
    def error_limit(self) -> float:
        """Of logits of f32 weights against their definition, relative to the greatest of them."""
        ...

    def described(self) -> str:
        """What computes, in words."""
        ...


def load_kernels(choice: str = "auto") -> Kernels:
    """`auto`: the native kernels (RADBOX_KERNELS, else the best for this CPU); a name: that set of them; `numpy`;
    `cuda`: an NVIDIA GPU's, and the native ones where there is none or it fails (`Guarded.fault` says why).

    A set that this CPU lacks (a board file or RADBOX_KERNELS that came from another box) is replaced by `reference`,
    with a warning here and in `radbox doctor`. Raises ConfigError on another choice, BackendError (`kernels.missing`,
    `kernels.not-loadable`, `kernels.abi-version`, `kernels.unknown`) if the native ones cannot be had: numpy is slower
    and never used unasked.
    """
    if choice not in CHOICES:
        raise ConfigError(f"expected kernels as one of {', '.join(CHOICES)}, got {choice!r}")
    if choice == "numpy":
        return cast(Kernels, numpy_kernels)
    if choice in ACCELERATED:
        return cast(Kernels, importlib.import_module(ACCELERATED[choice]).load())
    return _native(None if choice == "auto" else choice)


def _native(name: str | None) -> NativeKernels:
    try:
        kernels = NativeKernels(name)
    except BackendError as error:
        if name is None or error.code != "kernels.unsupported":
            raise
        kernels = NativeKernels("reference")
        kernels.refused = name
    if kernels.refused:
        _log.warning("this CPU lacks the kernels %s: reference stands in for them, and is slower", kernels.refused)
    return kernels
