"""Reports to test with: one sound draft, how to vary it, and hypothesis strategies for any report."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st

from edge.report.grammar import FINDINGS
from edge.report.graph import load_graph
from edge.report.schema import (
    Box,
    Certainty,
    Evidence,
    ModelVersion,
    Population,
    Report,
    RuleResult,
    Side,
    Statement,
    Technique,
    Zone,
)

LIMITS = ("limit.not-a-diagnosis", "limit.no-prior", "limit.single-view")
REPEATABLE = settings(derandomize=True, deadline=None, max_examples=60)  # the same examples every time
WHOLE = Box(0.0, 0.0, 1.0, 1.0)


def evidence(side: Side = "unspecified", zone: Zone = "unspecified", peak: int = 255) -> Evidence:
    return Evidence(((0, peak), (0, 0)), WHOLE, Box(0.5, 0.0, 1.0, 0.5), side, zone)


def statement(
    finding: str,
    side: Side = "unspecified",
    zone: Zone = "unspecified",
    certainty: Certainty = "possible",
    probability: float = 0.62,
    **changes,
) -> Statement:
    """A statement whose evidence lies where it says."""
    whole = Statement(finding, side, zone, certainty, probability, evidence(side, zone))
    return replace(whole, **changes)


def report(*statements: Statement, **changes) -> Report:
    """A draft that meets every rule if its statements do: what is not stated is absent, mass and nodule unvalidated."""
    stated = {one.finding for one in statements}
    not_validated = tuple(finding for finding in ("mass", "nodule") if finding not in stated)
    absent = tuple(finding for finding in FINDINGS if finding not in stated | set(not_validated))
    scores = dict.fromkeys(FINDINGS, 0.05) | {one.finding: one.probability for one in statements}
    draft = Report(
        technique=Technique("DX", "PA", "adult", "header", 1),
        statements=statements,
        absent=absent,
        not_validated=not_validated,
        disagreements=(),
        scores=scores,
        rules=(),
        limits=LIMITS,
        model=ModelVersion("chest-pyramid", "0.1.0", "ab" * 32, "tflite", load_graph().sha256),
        thresholds=dict.fromkeys(scores, 0.3),
    )
    return replace(draft, **changes)


def _fractions() -> st.SearchStrategy[float]:
    return st.integers(0, 10_000).map(lambda part: part / 10_000)


def _words() -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), max_size=30)


def _boxes() -> st.SearchStrategy[Box]:
    return st.builds(Box, *[_fractions()] * 4)


def _evidences() -> st.SearchStrategy[Evidence]:
    rows = st.lists(st.tuples(*[st.integers(0, 255)] * 3), max_size=3).map(tuple)
    sides, zones = st.sampled_from(get_args(Side)), st.sampled_from(get_args(Zone))
    return st.builds(Evidence, rows, _boxes(), st.none() | _boxes(), sides, zones)


def _tuples(of: st.SearchStrategy) -> st.SearchStrategy[tuple]:
    return st.lists(of, max_size=3).map(tuple)


def reports() -> st.SearchStrategy[Report]:
    """Any report that the schema can hold; most make no medical sense. Fractions have 4 decimal places."""
    statements = st.builds(
        Statement,
        _words(),
        st.sampled_from(get_args(Side)),
        st.sampled_from(get_args(Zone)),
        st.sampled_from(get_args(Certainty)),
        _fractions(),
        st.none() | _evidences(),
        _tuples(_words()),
    )
    technique = st.builds(
        Technique,
        st.none() | _words(),
        st.none() | _words(),
        st.sampled_from(get_args(Population)),
        st.sampled_from(["header", "image"]),
        st.integers(0, 9),
    )
    results = st.builds(RuleResult, _words(), st.booleans(), _words(), _tuples(st.integers(0, 3)))
    fractions = st.dictionaries(_words(), _fractions(), max_size=3)
    return st.builds(
        Report,
        technique=technique,
        statements=_tuples(statements),
        absent=_tuples(_words()),
        not_validated=_tuples(_words()),
        disagreements=_tuples(_words()),
        scores=fractions,
        rules=_tuples(results),
        limits=_tuples(_words()),
        model=st.builds(ModelVersion, *[_words()] * 5),
        status=st.sampled_from(["draft", "signed"]),
        thresholds=fractions,
        schema_version=st.just(1),
    )


def coded_reports() -> st.SearchStrategy[Report]:
    """Reports of real findings in places that the graph allows; the others are absent, disputed or unvalidated."""
    graph = load_graph()
    fates = st.fixed_dictionaries(
        {finding: st.sampled_from(["stated", "absent", "dispute", "unknown"]) for finding in FINDINGS}
    )

    @st.composite
    def build(draw: st.DrawFn) -> Report:
        fate = draw(fates)
        stated = [
            statement(
                finding,
                draw(st.sampled_from(graph.nodes[finding].sides)),
                draw(st.sampled_from(graph.nodes[finding].zones)),
                draw(st.sampled_from(get_args(Certainty))),
                draw(_fractions()),
            )
            for finding in FINDINGS
            if fate[finding] == "stated"
        ]
        lists = {kind: tuple(f for f in FINDINGS if fate[f] == kind) for kind in ("absent", "dispute", "unknown")}
        return report(*stated, absent=lists["absent"], disagreements=lists["dispute"], not_validated=lists["unknown"])

    return build()
