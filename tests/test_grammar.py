"""Whatever the decoder picks among the allowed tokens is a report, and every report can be said."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ReportError
from edge.report.grammar import FINDINGS, MAX_TOKENS, CodedFinding, Grammar, build_vocabulary
from edge.report.graph import load_graph
from edge.report.schema import Certainty
from tests.report_examples import REPEATABLE

GRAMMAR = Grammar(build_vocabulary(), FINDINGS, load_graph())
PAD, BOS, EOS, NORMAL = range(4)


def number(token: str) -> int:
    return GRAMMAR.vocabulary.index(token)


def tokens(*words: str) -> list[int]:
    return [number(word) for word in words]


def allowed_words(*words: str) -> set[str]:
    mask = GRAMMAR.allowed(tokens(*words))
    return {GRAMMAR.vocabulary[at] for at in np.flatnonzero(mask)}


@st.composite
def coded_findings(draw: st.DrawFn) -> tuple[CodedFinding, ...]:
    graph = load_graph()
    return tuple(
        CodedFinding(
            finding,
            draw(st.sampled_from(graph.nodes[finding].sides)),
            draw(st.sampled_from(graph.nodes[finding].zones)),
            draw(st.sampled_from(get_args(Certainty))),
        )
        for finding in FINDINGS
        if draw(st.booleans())
    )


def test_vocabulary_is_the_decoders():
    vocabulary = build_vocabulary()
    assert len(vocabulary) == 30
    assert vocabulary[:5] == ("<pad>", "<bos>", "<eos>", "normal", "pneumothorax")
    assert vocabulary[17:20] == ("hernia", "side:left", "side:right")
    assert vocabulary[22:24] == ("side:unspecified", "zone:upper")
    assert vocabulary[-2:] == ("certainty:present", "certainty:possible")


def test_no_sequence_can_pass_the_positions_of_the_decoder():
    longest = [CodedFinding(f, load_graph().nodes[f].sides[0], "unspecified", "present") for f in FINDINGS]
    assert len(GRAMMAR.encode(longest)) == GRAMMAR.longest == 58
    assert GRAMMAR.longest <= MAX_TOKENS


@REPEATABLE
@given(st.randoms(use_true_random=False))
def test_every_walk_of_allowed_tokens_ends_and_parses(random):
    walk, state = [BOS], GRAMMAR.start()
    while not GRAMMAR.ended(state):
        mask = GRAMMAR.mask(state)
        assert np.array_equal(mask, GRAMMAR.allowed(walk))
        # <eos> is picked last, so that walks are as long as they can be about half of the time
        choices = [int(at) for at in np.flatnonzero(mask)]
        token = random.choice(choices if random.random() < 0.3 else [c for c in choices if c != EOS] or choices)
        walk.append(token)
        state = GRAMMAR.advance(state, token)
        assert len(walk) <= GRAMMAR.longest <= MAX_TOKENS
    parsed = GRAMMAR.parse(walk)
    assert GRAMMAR.encode(parsed) == tuple(walk)
    assert GRAMMAR.parse([*walk, PAD, PAD]) == parsed
    assert np.flatnonzero(GRAMMAR.allowed([*walk, PAD])).tolist() == [PAD]


@REPEATABLE
@given(coded_findings(), st.randoms(use_true_random=False))
def test_what_is_encoded_is_parsed_back_in_canonical_order(findings, random):
    shuffled = random.sample(findings, len(findings))
    assert GRAMMAR.parse(GRAMMAR.encode(shuffled)) == findings


@REPEATABLE
@given(st.lists(st.integers(-2, 40), max_size=12))
def test_any_numbers_parse_or_are_refused(numbers):
    try:
        sequence = GRAMMAR.encode(GRAMMAR.parse(numbers))
    except ReportError:
        sequence = ()
    assert sequence == tuple(numbers[: len(sequence)])
    assert set(numbers[len(sequence) :]) <= {PAD} or not sequence


def test_what_may_follow():
    assert allowed_words("<bos>") == {"normal", *FINDINGS}
    assert allowed_words("<bos>", "normal") == {"<eos>"}
    assert allowed_words("<bos>", "normal", "<eos>") == {"<pad>"}
    assert allowed_words("<bos>", "cardiomegaly") == {"side:midline"}
    assert allowed_words("<bos>", "cardiomegaly", "side:midline") == {"zone:unspecified"}
    assert "side:midline" not in allowed_words("<bos>", "edema")
    heart = ("<bos>", "cardiomegaly", "side:midline", "zone:unspecified")
    assert allowed_words(*heart) == {"certainty:present", "certainty:possible"}
    after = {"<eos>", "emphysema", "fibrosis", "pleural_thickening", "hernia"}
    assert allowed_words(*heart, "certainty:present") == after


def test_nothing_found_is_normal():
    assert GRAMMAR.encode(()) == (BOS, NORMAL, EOS)
    assert GRAMMAR.parse((BOS, NORMAL, EOS)) == ()


def test_masks_are_shared_and_cannot_be_written():
    mask = GRAMMAR.mask(GRAMMAR.start())
    assert mask.shape == (30,)
    assert mask.dtype == np.bool_
    assert np.shares_memory(mask, GRAMMAR.mask(GRAMMAR.start()))
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = True


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("normal",),
        ("<bos>",),
        ("<bos>", "<eos>"),
        ("<bos>", "normal"),
        ("<bos>", "normal", "normal"),
        ("<bos>", "effusion", "<eos>"),
        ("<bos>", "cardiomegaly", "side:left", "zone:unspecified", "certainty:present", "<eos>"),
        ("<bos>", "normal", "<eos>", "<bos>"),
    ],
)
def test_what_is_no_sequence_is_refused(words):
    with pytest.raises(ReportError, match=r"^expected .+, got .+"):
        GRAMMAR.parse(tokens(*words))


def test_a_prefix_begins_with_bos():
    with pytest.raises(ReportError, match="begins with <bos>"):
        GRAMMAR.allowed([])
    with pytest.raises(ReportError, match="got normal"):
        GRAMMAR.allowed([NORMAL])


@pytest.mark.parametrize(
    "findings",
    [
        [CodedFinding("cardiomegaly", "left", "unspecified", "present")],
        [CodedFinding("edema", "left", "upper", "present")],
        [CodedFinding("opacity", "left", "upper", "present")],
        [CodedFinding("mass", "left", "upper", "present"), CodedFinding("mass", "right", "upper", "present")],
    ],
)
def test_what_cannot_be_said_is_not_encoded(findings):
    with pytest.raises(ReportError, match=r"^expected .+, got .+"):
        GRAMMAR.encode(findings)


@pytest.mark.parametrize(
    ("vocabulary", "findings", "message"),
    [
        (build_vocabulary()[1:], FINDINGS, "to have <pad>"),
        ((*build_vocabulary(), "normal"), FINDINGS, "got a token twice"),
        (build_vocabulary(), FINDINGS[::-1], "in the order of the vocabulary"),
        (build_vocabulary(("lung",)), ("lung",), "finding or device of the graph"),
        (build_vocabulary()[:18], FINDINGS, "expected a side of pneumothorax"),
        (build_vocabulary(tuple(f"f{n}" for n in range(16))), tuple(f"f{n}" for n in range(16)), "at most 64 tokens"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(vocabulary, findings, message):
    with pytest.raises(ReportError, match=message):
        Grammar(vocabulary, findings, load_graph())
