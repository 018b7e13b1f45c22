"""The grammar of a report in codes: `<bos> ( normal | (FINDING SIDE ZONE CERTAINTY)+ ) <eos>`.

Findings come in strictly increasing vocabulary order, so a sequence ends after at most 4 F + 2 tokens (58 for the
14 findings). Sides and zones are those that the graph allows for the finding. What may follow depends on a state of
a small table only, so a step of decoding costs one table row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType, cast, get_args

import numpy as np
import numpy.typing as npt

from edge.errors import ReportError
from edge.report.graph import Graph
from edge.report.schema import Certainty, Side, Zone

MAX_TOKENS = 64  # positions of the decoder
PAD, BOS, EOS, NORMAL = "<pad>", "<bos>", "<eos>", "normal"
FINDINGS = (
    "pneumothorax",
    "effusion",
    "edema",
    "consolidation",
    "pneumonia",
    "infiltration",
    "atelectasis",
    "mass",
    "nodule",
    "cardiomegaly",
    "emphysema",
    "fibrosis",
    "pleural_thickening",
    "hernia",
)

State = NewType("State", int)
_EMPTY, _BEGUN, _NORMAL, _ENDED = range(4)  # before <bos>, after it, after `normal`, after <eos>
_PER_FINDING = 4  # states after FINDING, SIDE, ZONE, CERTAINTY of each finding
_NOWHERE = -1


@dataclass(frozen=True)
class CodedFinding:
    """One finding as the decoder says it; no probability, no evidence."""

    finding: str
    side: Side
    zone: Zone
    certainty: Certainty


def build_vocabulary(findings: Sequence[str] = FINDINGS) -> tuple[str, ...]:
    """The tokens in their fixed order: 4 marks, the findings, 5 sides, 5 zones, 2 certainties."""
    return (
        *(PAD, BOS, EOS, NORMAL),
        *findings,
        *(f"side:{side}" for side in get_args(Side)),
        *(f"zone:{zone}" for zone in get_args(Zone)),
        *(f"certainty:{certainty}" for certainty in get_args(Certainty)),
    )


class Grammar:
    """Which token may follow which, for one vocabulary and one graph. Immutable once built.

    vocabulary: the V tokens by number. findings: the finding tokens, in vocabulary order.
    Raises ReportError: a token missing or repeated, a finding the graph does not have or allows no side or zone of
    this vocabulary, findings out of order, or so many findings that a sequence could pass MAX_TOKENS.
    """

    def __init__(self, vocabulary: tuple[str, ...], findings: tuple[str, ...], graph: Graph) -> None:
        self.vocabulary = vocabulary
        self.findings = findings
        self.longest = _PER_FINDING * len(findings) + 2
        self._number = {token: number for number, token in enumerate(vocabulary)}
        self._check_vocabulary()
        states = _ENDED + 1 + _PER_FINDING * len(findings)
        self._next = np.full((states, len(vocabulary)), _NOWHERE, dtype=np.int16)
        self._fill(graph)
        self._masks: npt.NDArray[np.bool_] = self._next != _NOWHERE
        for table in (self._next, self._masks):
            table.setflags(write=False)
        self._rows = self._next.tolist()

    def _check_vocabulary(self) -> None:
        if len(self._number) != len(self.vocabulary):
            raise ReportError("expected each token of the vocabulary once, got a token twice")
        missing = [token for token in (PAD, BOS, EOS, NORMAL, *self.findings) if token not in self._number]
        if missing:
            raise ReportError(f"expected the vocabulary to have {', '.join(missing)}, got none")
        numbers = [self._number[finding] for finding in self.findings]
        if numbers != sorted(set(numbers)):
            raise ReportError("expected the findings in the order of the vocabulary, got another order")
        if self.longest > MAX_TOKENS:
            raise ReportError(f"expected sequences of at most {MAX_TOKENS} tokens, got {self.longest}")

    def _fill(self, graph: Graph) -> None:
        pad, bos, eos = (self._number[token] for token in (PAD, BOS, EOS))
        self._next[_EMPTY, bos] = _BEGUN
        self._next[_BEGUN, self._number[NORMAL]] = _NORMAL
        self._next[_NORMAL, eos] = _ENDED
        self._next[_ENDED, pad] = _ENDED
        for index, finding in enumerate(self.findings):
            node = graph.statable(finding)
            named, sided, zoned, complete = (self._after(index, step) for step in range(_PER_FINDING))
            self._next[named, self._among("side", node.sides, finding)] = sided
            self._next[sided, self._among("zone", node.zones, finding)] = zoned
            self._next[zoned, self._among("certainty", get_args(Certainty), finding)] = complete
            self._next[complete, eos] = _ENDED
            earlier = [_BEGUN, *(self._after(before, _PER_FINDING - 1) for before in range(index))]
            self._next[earlier, self._number[finding]] = named

    @staticmethod
    def _after(index: int, step: int) -> int:
        return _ENDED + 1 + _PER_FINDING * index + step

    def _among(self, prefix: str, words: tuple[str, ...], finding: str) -> list[int]:
        numbers = [self._number[f"{prefix}:{word}"] for word in words if f"{prefix}:{word}" in self._number]
        if not numbers:
            raise ReportError(f"expected a {prefix} of {finding} in the vocabulary, got none")
        return numbers

    def start(self) -> State:
        """The state of the prefix (<bos>,): what a decoder holds before its first step."""
        return State(_BEGUN)

    def advance(self, state: State, token: int) -> State:
        """The state after `token`. Raises ReportError where the grammar does not allow it."""
        following = self._rows[state][token] if 0 <= token < len(self.vocabulary) else _NOWHERE
        if following == _NOWHERE:
            named = self.vocabulary[token] if 0 <= token < len(self.vocabulary) else token
            raise ReportError(f"expected a token that the grammar allows, got {named}")
        return State(following)

    def mask(self, state: State) -> npt.NDArray[np.bool_]:
        """(V,) bool, read-only: the tokens that may come next. Never empty."""
        row: npt.NDArray[np.bool_] = self._masks[state]
        return row

    def ended(self, state: State) -> bool:
        """Whether <eos> has been said."""
        return state == _ENDED

    def allowed(self, prefix: Sequence[int]) -> npt.NDArray[np.bool_]:
        """(V,) bool, read-only: what may follow `prefix`, which begins with <bos>. Raises ReportError otherwise."""
        if not len(prefix):
            raise ReportError("expected a prefix that begins with <bos>, got an empty one")
        return self.mask(self._walk(prefix))

    def _walk(self, tokens: Sequence[int]) -> State:
        state = State(_EMPTY)
        for token in tokens:
            state = self.advance(state, int(token))
        return state

    def parse(self, tokens: Sequence[int]) -> tuple[CodedFinding, ...]:
        """The findings of a whole sequence, `<bos> ... <eos>` with any padding; () for `normal`. Raises ReportError."""
        if not self.ended(self._walk(tokens)):
            raise ReportError("expected a sequence that ends with <eos>, got one that stops before it")
        words = [self.vocabulary[int(token)] for token in tokens]
        body = words[1 : words.index(EOS)]
        if body == [NORMAL]:
            return ()
        return tuple(_coded(body[at : at + _PER_FINDING]) for at in range(0, len(body), _PER_FINDING))

    def encode(self, findings: Sequence[CodedFinding]) -> tuple[int, ...]:
        """The sequence that says `findings`, put into vocabulary order. Raises ReportError where none can."""
        words = [BOS]
        for coded in sorted(findings, key=lambda coded: self._number.get(coded.finding, _NOWHERE)):
            words += [coded.finding, f"side:{coded.side}", f"zone:{coded.zone}", f"certainty:{coded.certainty}"]
        words += [EOS] if findings else [NORMAL, EOS]
        unknown = [word for word in words if word not in self._number]
        if unknown:
            raise ReportError(f"expected words of the vocabulary, got {', '.join(unknown)}")
        tokens = tuple(self._number[word] for word in words)
        self._walk(tokens)
        return tokens


def _coded(words: Sequence[str]) -> CodedFinding:
    side, zone, certainty = (word.partition(":")[2] for word in words[1:])
    return CodedFinding(words[0], cast(Side, side), cast(Zone, zone), cast(Certainty, certainty))
