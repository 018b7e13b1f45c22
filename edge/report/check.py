"""Every rule of graph.toml applied to one report. Pure: a report in, the same report with rules and doubts out.

A rule is a row of a table; here is one small function per kind of rule, found in `KINDS`. Each returns what breaks the
rule, statement by statement, so that the page can mark the very line a person must look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isclose, isfinite
from types import MappingProxyType

from edge.report.graph import STATABLE, Exclusion, Graph, Node, Rule
from edge.report.impression import impression
from edge.report.schema import Box, Evidence, Report, RuleResult, Side, Statement, Technique, Zone

PROBABILITY_TOLERANCE = 1e-3  # stored probabilities are rounded to 4 places
BOX_TOLERANCE = 1e-5  # of the image: what arithmetic on fractions leaves behind
MESSAGE_DETAILS = 6  # that a message spells out; `statements` of the result names them all


@dataclass(frozen=True)
class Breach:
    """What breaks a rule: one detail in plain words, and the statement it concerns (None: the report as a whole)."""

    detail: str
    statement: int | None = None


Kind = Callable[[Report, Graph, Rule], Iterable[Breach]]


def check(draft: Report, graph: Graph) -> Report:
    """`draft` with `rules` filled in (one result per rule, in the order of the graph) and doubts added to statements.

    Doubts that a statement already has stay; checking twice changes nothing. Raises nothing on bad content: a report
    that breaks a rule says so in `rules`. A message names codes only, never anything about the patient.
    """
    results: list[RuleResult] = []
    doubts: list[list[str]] = [list(statement.doubts) for statement in draft.statements]
    for rule in graph.rules:
        breaches = tuple(KINDS[rule.kind](draft, graph, rule))
        results.append(_result(rule, breaches))
        for index in results[-1].statements:
            if rule.doubt not in doubts[index]:
                doubts[index].append(rule.doubt)
    statements = tuple(
        replace(statement, doubts=tuple(codes)) for statement, codes in zip(draft.statements, doubts, strict=True)
    )
    return replace(draft, statements=statements, rules=tuple(results))


def _result(rule: Rule, breaches: tuple[Breach, ...]) -> RuleResult:
    told = list(dict.fromkeys(breach.detail for breach in breaches))
    more = [f"and {len(told) - MESSAGE_DETAILS} more"] if len(told) > MESSAGE_DETAILS else []
    details = "; ".join(told[:MESSAGE_DETAILS] + more)
    statements = sorted({breach.statement for breach in breaches if breach.statement is not None})
    message = f"Expected: {rule.text} Got: {details}." if breaches else rule.text
    return RuleResult(rule.id, not breaches, message, tuple(statements))


# ------------------------------------------------------------------ what the graph allows


def _known(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    for index, statement in enumerate(draft.statements):
        node = graph.nodes.get(statement.finding)
        if node is None or node.kind not in STATABLE:
            yield Breach(f"{statement.finding} is none", index)


def _known_nodes(draft: Report, graph: Graph) -> Iterator[tuple[int, Statement, Node]]:
    """The statements whose finding the graph has; the others are the business of `known-finding` alone."""
    for index, statement in enumerate(draft.statements):
        node = graph.nodes.get(statement.finding)
        if node is not None and node.kind in STATABLE:
            yield index, statement, node


def _modality_allowed(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    modality = draft.technique.modality
    if modality is None:  # a picture names none; the gate has judged what it shows
        return
    for index, statement, node in _known_nodes(draft, graph):
        if modality not in node.modalities:
            yield Breach(f"{statement.finding} is stated from {modality}", index)


def _side_allowed(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    for index, statement, node in _known_nodes(draft, graph):
        if statement.side not in node.sides:
            yield Breach(f"{statement.finding} is stated {statement.side}", index)


def _zone_allowed(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    for index, statement, node in _known_nodes(draft, graph):
        if statement.zone not in node.zones:
            yield Breach(f"{statement.finding} is stated {statement.zone}", index)


def _stated_once(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    stated = [statement.finding for statement in draft.statements]
    for index, finding in enumerate(stated):
        if stated.count(finding) > 1:
            yield Breach(f"{finding} is stated {stated.count(finding)} times", index)


# ------------------------------------------------------------------ contradictions


def _excludes(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    where = rule.parameters["where"]
    meet = _MEETING[where]
    for first, one, node in _known_nodes(draft, graph):
        for second, other in enumerate(draft.statements):
            if Exclusion(other.finding, where) in node.excludes and meet(one, other):
                detail = f"{one.finding} and {other.finding}"
                yield from (Breach(detail, first), Breach(detail, second))


def _sides_meet(one: Statement, other: Statement) -> bool:
    """Whether both sides are known and overlap. Not knowing a side contradicts nothing."""
    halves: Mapping[Side, frozenset[str]] = _HALVES
    return bool(halves[one.side] & halves[other.side])


def _places_meet(one: Statement, other: Statement) -> bool:
    known = "unspecified" not in (one.zone, other.zone)
    overlap = one.zone == other.zone or "diffuse" in (one.zone, other.zone)
    return _sides_meet(one, other) and known and overlap


_HALVES: Mapping[Side, frozenset[str]] = MappingProxyType(
    {
        "left": frozenset({"left"}),
        "right": frozenset({"right"}),
        "bilateral": frozenset({"left", "right"}),
        "midline": frozenset({"midline"}),
        "unspecified": frozenset(),
    }
)
_MEETING: Mapping[str, Callable[[Statement, Statement], bool]] = MappingProxyType(
    {"anywhere": lambda one, other: True, "same-side": _sides_meet, "same-place": _places_meet}
)


def _implied_not_absent(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    for index, statement, node in _known_nodes(draft, graph):
        for implied in node.implies:
            if implied in draft.absent:
                yield Breach(f"{statement.finding} is stated, {implied} is listed as not seen", index)


_SETS: Mapping[str, Callable[[Report], tuple[str, ...]]] = MappingProxyType(
    {
        "stated": lambda draft: tuple(statement.finding for statement in draft.statements),
        "absent": lambda draft: draft.absent,
        "not_validated": lambda draft: draft.not_validated,
        "disagreements": lambda draft: draft.disagreements,
    }
)


def _not_both(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    first, second = rule.parameters["first"], rule.parameters["second"]
    for finding in sorted(set(_SETS[first](draft)) & set(_SETS[second](draft))):
        detail = f"{finding} is in both lists, {first} and {second}"
        stated = [index for index, statement in enumerate(draft.statements) if statement.finding == finding]
        if "stated" in (first, second):
            yield from (Breach(detail, index) for index in stated)
        else:
            yield Breach(detail)


def _accounted_for(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    told = {finding for members in _SETS.values() for finding in members(draft)}
    for finding in draft.scores:
        if finding not in told:
            yield Breach(f"{finding} has a score and is in no list")


# ------------------------------------------------------------------ probability


def _probability_of_score(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    for index, statement in enumerate(draft.statements):
        score = draft.scores.get(statement.finding)
        if score is None:
            yield Breach(f"{statement.finding} has no score", index)
        elif not _same_probability(statement.probability, score):
            detail = f"{statement.finding} is stated with {statement.probability:.3f}, its score is {score:.3f}"
            yield Breach(detail, index)


def _same_probability(one: float, other: float) -> bool:
    in_range = isfinite(one) and 0.0 <= one <= 1.0
    return in_range and isclose(one, other, rel_tol=0.0, abs_tol=PROBABILITY_TOLERANCE)


def _threshold(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    for index, statement in enumerate(draft.statements):
        threshold = draft.thresholds.get(statement.finding)
        if threshold is None:
            yield Breach(f"{statement.finding} has no threshold", index)
        elif statement.probability < threshold - PROBABILITY_TOLERANCE:
            detail = f"{statement.finding} has {statement.probability:.3f}, its threshold is {threshold:.3f}"
            yield Breach(detail, index)


def _least_probability(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    certainty, least = rule.parameters["certainty"], rule.parameters["least"]
    for index, statement in enumerate(draft.statements):
        if statement.certainty == certainty and statement.probability < least:
            detail = f"{statement.finding} is called {certainty} with {statement.probability:.3f}"
            yield Breach(detail, index)


# ------------------------------------------------------------------ evidence


def _with_evidence(draft: Report) -> Iterator[tuple[int, Statement, Evidence]]:
    for index, statement in enumerate(draft.statements):
        if statement.evidence is not None:
            yield index, statement, statement.evidence


def _evidence_present(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    for index, statement in enumerate(draft.statements):
        if statement.evidence is None or not any(any(row) for row in statement.evidence.grid):
            yield Breach(f"{statement.finding} has none", index)


def _evidence_inside(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    for index, statement, evidence in _with_evidence(draft):
        boxes = [evidence.extent] if evidence.box is None else [evidence.extent, evidence.box]
        if not all(_inside(box) for box in boxes):
            yield Breach(f"{statement.finding} has a box outside it", index)


def _inside(box: Box) -> bool:
    low, high = -BOX_TOLERANCE, 1.0 + BOX_TOLERANCE
    return low <= box.x0 < box.x1 <= high and low <= box.y0 < box.y1 <= high


_SIDED: tuple[Side, ...] = ("left", "right", "bilateral")
_ZONED: tuple[Zone, ...] = ("upper", "middle", "lower")


def _side_agrees(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    for index, statement, evidence in _with_evidence(draft):
        both_known = statement.side in _SIDED and evidence.side_by_map in _SIDED
        if both_known and statement.side != evidence.side_by_map:
            detail = f"{statement.finding} is stated {statement.side}, its evidence lies {evidence.side_by_map}"
            yield Breach(detail, index)


def _side_supported(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    for index, statement, evidence in _with_evidence(draft):
        if statement.side in _SIDED and evidence.side_by_map not in _SIDED:
            detail = f"{statement.finding} is stated {statement.side}, its evidence lies {evidence.side_by_map}"
            yield Breach(detail, index)


def _zone_agrees(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    for index, statement, evidence in _with_evidence(draft):
        both_known = statement.zone in _ZONED and evidence.zone_by_map in _ZONED
        if both_known and statement.zone != evidence.zone_by_map:
            detail = f"{statement.finding} is stated {statement.zone}, its evidence lies {evidence.zone_by_map}"
            yield Breach(detail, index)


# ------------------------------------------------------------------ the report as a whole


def _in_impression(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    repeated = impression(draft, graph)
    for index, statement, node in _known_nodes(draft, graph):
        if node.urgency == rule.parameters["urgency"] and index not in repeated:
            yield Breach(f"{statement.finding} finds no room in it", index)


_OCCASIONS: Mapping[str, Callable[[Technique], bool]] = MappingProxyType(
    {
        "always": lambda technique: True,
        "one-image": lambda technique: technique.images == 1,
        "view-unknown": lambda technique: technique.view is None,
        "age-unknown": lambda technique: technique.population_source == "image",
    }
)


def _limit_given(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    limit = rule.parameters["limit"]
    if _OCCASIONS[rule.parameters["when"]](draft.technique) and limit not in draft.limits:
        yield Breach(f"{limit} is missing")


def _only_possible_on_view(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    finding, view = rule.parameters["finding"], rule.parameters["view"]
    for index, statement in enumerate(draft.statements):
        if draft.technique.view == view and statement.finding == finding and statement.certainty != "possible":
            yield Breach(f"{finding} is called {statement.certainty} on view {view}", index)


def _no_side_on_view(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    view = rule.parameters["view"]
    for index, statement in enumerate(draft.statements):
        if draft.technique.view == view and statement.side in _SIDED:
            yield Breach(f"{statement.finding} is stated {statement.side} on view {view}", index)


def _population_only(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    finding, population = rule.parameters["finding"], rule.parameters["population"]
    for index, statement in enumerate(draft.statements):
        if statement.finding == finding and draft.technique.population != population:
            yield Breach(f"{finding} is stated for a {draft.technique.population}", index)


def _images_read(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    least = rule.parameters["least"]
    if draft.technique.images < least:
        yield Breach(f"{draft.technique.images} read")


def _graph_version(draft: Report, graph: Graph, rule: Rule) -> Iterator[Breach]:
    if draft.model.graph_sha256 != graph.sha256:
        yield Breach(f"graph {draft.model.graph_sha256[:12] or 'none'} instead of {graph.sha256[:12]}")


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "known-finding": _known,
        "modality-allowed": _modality_allowed,
        "side-allowed": _side_allowed,
        "zone-allowed": _zone_allowed,
        "stated-once": _stated_once,
        "excludes": _excludes,
        "implied-not-absent": _implied_not_absent,
        "not-both": _not_both,
        "accounted-for": _accounted_for,
        "probability-of-score": _probability_of_score,
        "threshold": _threshold,
        "least-probability": _least_probability,
        "evidence-present": _evidence_present,
        "evidence-inside": _evidence_inside,
        "side-agrees": _side_agrees,
        "side-supported": _side_supported,
        "zone-agrees": _zone_agrees,
        "in-impression": _in_impression,
        "limit-given": _limit_given,
        "only-possible-on-view": _only_possible_on_view,
        "no-side-on-view": _no_side_on_view,
        "population-only": _population_only,
        "images-read": _images_read,
        "graph-version": _graph_version,
    }
)
