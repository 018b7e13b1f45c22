"""The decoder: image tokens in, a sequence of coded findings out, greedy under a grammar.

Words come later (edge.report renders the codes); the grammar is anything with TokenGrammar's four methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError, BundleError
from edge.reading.ops import Guarded, Kernels, Session, WholeSession, load_kernels
from edge.reading.ops.arrays import BAD_ARGUMENT, F32, describe
from edge.reading.ops.automaton import Automaton, compiled
from edge.reading.ops.quantised import PRECISIONS, QuantisedWeights, from_tensors, holds_quantised
from edge.reading.ops.reference_quantised import dequantised, quantise_decoder
from edge.reading.ops.shape import DecoderShape
from edge.reading.ops.uncached import sequence_logits

BOS = 1
FINDING_TOKENS = range(4, 18)
"""Numbers of the fixed vocabulary: <pad> <bos> <eos> normal, the 14 findings, sides, zones, certainties."""

State = TypeVar("State")


class TokenGrammar(Protocol[State]):
    """What may be said next. States are the grammar's own; the decoder only carries them."""

    def start(self) -> State:
        """The state of the prefix (<bos>,)."""

    def mask(self, state: State) -> NDArray[np.bool_]:
        """(vocabulary,) bool: the tokens that may follow."""

    def advance(self, state: State, token: int) -> State:
        """The state after an allowed token."""

    def ended(self, state: State) -> bool:
        """Whether <eos> has been said."""


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder and its anatomical bias, as written in the bundle.

    bias_sigma: one standard deviation per layer, in cells of the token grid; bias_strength: added to the logit of a
    visual key under the mask, in nats. Raises BundleError on a size, count or number out of range.
    """

    vocabulary: int = 30
    width: int = 128
    layers: int = 3
    heads: int = 4
    ffn: int = 384
    positions: int = 64
    bias_sigma: tuple[float, ...] = (2.2, 1.1, 0.35)
    bias_strength: float = 1.0

    def __post_init__(self) -> None:
        self.shape(channels=1)
        if len(self.bias_sigma) != self.layers:
            raise BundleError(f"expected bias_sigma for {self.layers} layers, got {len(self.bias_sigma)}")
        if not all(0.0 <= sigma <= 1024.0 for sigma in self.bias_sigma):
            raise BundleError(f"expected bias_sigma of 0 to 1024 grid cells, got {self.bias_sigma}")
        if not np.isfinite(self.bias_strength):
            raise BundleError(f"expected a finite bias_strength, got {self.bias_strength}")
        if self.vocabulary <= BOS:
            raise BundleError(f"expected a vocabulary that holds <bos> as number {BOS}, got {self.vocabulary} tokens")

    def shape(self, channels: int) -> DecoderShape:
        """The operators' view; `channels` is the width of an image token, known from vis.weight."""
        return DecoderShape(
            self.vocabulary, self.width, self.layers, self.heads, self.ffn, self.positions, channels=channels
        )


@dataclass(frozen=True)
class Generated:
    """A finished sequence.

    tokens: `<bos> ... <eos>`, ready for the grammar's parse. log_probabilities: one per token, natural logarithm of the
    softmax over the tokens allowed there; 0 for <bos>, which is given. steps: decoder steps run, len(tokens) - 1.
    cross_attention: index in `tokens` of a finding -> (layers, n) f32, softmax over the n visual keys averaged over the
    heads, at the step that chose the finding; empty if not asked for.
    """

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    steps: int
    cross_attention: Mapping[int, F32] = field(default_factory=dict)


class Decoder:
    """Weights and kernels, ready. Holds the caches of the image at work: one `generate` at a time, one thread.

    precision: "f32", "q8" (int8 weights) or "q4" (int4 weights in groups of 32).
    """

    def __init__(
        self,
        config: DecoderConfig,
        shape: DecoderShape,
        weights: Mapping[str, F32] | QuantisedWeights,
        kernels: Kernels,
        *,
        threads: int = 1,
    ) -> None:
        self.config = config
        self._shape, self._weights, self._kernels = shape, weights, kernels
        self._session: Session
        if isinstance(weights, QuantisedWeights):
            self._session = kernels.quantised_decoder(shape, weights, threads=threads)
        else:
            self._session = kernels.decoder(shape, weights)
        self._compiled: tuple[object, Automaton | None] = (None, None)

    @classmethod
    def load(
        cls,
        config: DecoderConfig,
        weights: Mapping[str, NDArray[Any]],
        kernels: str = "auto",
        *,
        precision: str | None = None,
        threads: int = 1,
    ) -> Decoder:
        """Check every weight's name, dtype, shape and finiteness, then hand them to the kernels.

        weights: all f32, or quantised before they were shipped (edge.reading.ops.quantised.from_tensors). kernels:
        one of edge.reading.ops.CHOICES. precision: what f32 weights are rounded to,
        "q8" or "q4"; None leaves them as they are. threads: of a quantised decoder, 1 to 16; no result depends on them.
        Raises BundleError on the weights, BackendError or ConfigError on the kernels.
        """
        vis = weights.get("vis.weight")
        if vis is None or vis.ndim != 2:
            raise BundleError(f"expected vis.weight of shape ({config.width}, channels), got {describe(vis)}")
        if precision not in (None, *PRECISIONS):
            raise BundleError(f"expected a precision of {' or '.join(PRECISIONS)}, got {precision!r}")
        shape = config.shape(channels=vis.shape[1])
        if holds_quantised(weights):
            return cls(config, shape, from_tensors(shape, weights), load_kernels(kernels), threads=threads)
        checked: Mapping[str, F32] = shape.check_weights(weights)
        if precision is None:
            return cls(config, shape, checked, load_kernels(kernels))
        rounded = quantise_decoder(shape, checked, precision)
        return cls(config, shape, rounded, load_kernels(kernels), threads=threads)

    @property
    def kernels(self) -> str:
        """The set of operators that computes."""
        return self._kernels.name

    @property
    def fault(self) -> str:
        """Why the CPU computes in place of the accelerator that the board names; "" where all is as it should be."""
        return self._kernels.fault if isinstance(self._kernels, Guarded) else ""

    def generate(
        self, tokens: F32, masks: F32, grammar: TokenGrammar[State], *, keep_attention: bool = True
    ) -> Generated:
        """Greedy: at each step the most probable token that the grammar allows, until it has ended.

        tokens: (n, channels) f32, the encoder's grid row by row; masks: (3, height, width) f32 probabilities on that
        grid, height * width = n. Raises BackendError: `decoder.nothing-allowed` (the grammar leads nowhere),
        `decoder.too-long` (positions used up before <eos>), `kernels.*` (shapes, NaN).
        """
        self._session.begin(*self._image(tokens, masks))
        if isinstance(self._session, WholeSession) and (automaton := self._automaton(grammar)):
            return self._generate_at_once(self._session, automaton, keep_attention)
        said, logs, maps = [BOS], [0.0], {}
        state = grammar.start()
        while not grammar.ended(state):
            if len(said) > self.config.positions:
                raise self._too_long()
            allowed = grammar.mask(state)
            if not allowed.any():
                raise BackendError(
                    f"expected a grammar that allows a token at step {len(said)}, got none",
                    code="decoder.nothing-allowed",
                )
            logits, attention = self._session.step(said[-1])
            token, log_probability = self._kernels.masked_argmax_f32(logits, allowed)
            if keep_attention and token in FINDING_TOKENS:
                maps[len(said)] = attention
            said.append(token)
            logs.append(log_probability)
            state = grammar.advance(state, token)
        return Generated(tuple(said), tuple(logs), len(said) - 1, maps)

    def _automaton(self, grammar: TokenGrammar[State]) -> Automaton | None:
        """The grammar as tables, kept for the next image; None where only the loop over tokens will do."""
        if self._compiled[0] is not grammar:
            self._compiled = (grammar, compiled(grammar))
        return self._compiled[1]

    def _generate_at_once(self, session: WholeSession, automaton: Automaton, keep_attention: bool) -> Generated:
        said = session.generate(automaton, BOS, keep_attention=keep_attention)
        if not said.ended:
            raise self._too_long()
        tokens = said.tokens.tolist()
        maps = {
            at: said.attention[at - 1].copy()
            for at, token in enumerate(tokens, start=1)
            if keep_attention and token in FINDING_TOKENS
        }
        return Generated((BOS, *tokens), (0.0, *said.log_probabilities.tolist()), len(tokens), maps)

    def _too_long(self) -> BackendError:
        return BackendError(
            f"expected a sequence that ends within {self.config.positions} steps, got none", code="decoder.too-long"
        )

    def logits(self, tokens: F32, masks: F32, prefix: tuple[int, ...]) -> F32:
        """Logits after every token of `prefix`, recomputed without caches in numpy: (len(prefix), vocabulary)."""
        if not 1 <= len(prefix) <= self.config.positions:
            raise BackendError(
                f"expected a prefix of 1 to {self.config.positions} tokens, got {len(prefix)}", code=BAD_ARGUMENT
            )
        weights = self._weights
        if isinstance(weights, QuantisedWeights):
            weights = {**weights.floats, **{name: dequantised(matrix) for name, matrix in weights.matrices.items()}}
        return sequence_logits(self._shape, weights, *self._image(tokens, masks), prefix)

    def _image(self, tokens: F32, masks: F32) -> tuple[F32, F32]:
        """Contiguous tokens (n, channels) and the bias on their logits (layers, n)."""
        if tokens.ndim != 2 or masks.ndim != 3 or masks[0].size != tokens.shape[0]:
            raise BackendError(
                f"expected image tokens (n, channels) and masks (count, height, width) of n cells, "
                f"got {describe(tokens)} and {describe(masks)}",
                code=BAD_ARGUMENT,
            )
        bias = self._kernels.anatomical_bias_f32(
            np.ascontiguousarray(masks), self.config.bias_sigma, self.config.bias_strength
        )
        return np.ascontiguousarray(tokens), bias
