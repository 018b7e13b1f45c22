"""A report -> what a template shows: sections, figures, and the layers over the image. Pure.

The sentences are those of `edge.report.render`; nothing here decides what is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from edge.desk.words import Advice, count
from edge.report.graph import Graph, Node, Urgency
from edge.report.render import Section, render_sections
from edge.report.schema import Box, Report, RuleResult, Statement
from edge.report.words import Words, capitalise, load_words

BOX_UNITS = 1000  # of the drawing that lies over the image, in both directions
URGENCY_LABELS: dict[Urgency, str] = {"critical": "Critical", "urgent": "Urgent", "routine": ""}
UNREADABLE = Advice(
    "The draft of this study cannot be shown",
    "Have this study read by a person. The keeper of the box must install the version that wrote the draft.",
)


@dataclass(frozen=True)
class Fact:
    """A label and its value."""

    label: str
    value: str


@dataclass(frozen=True)
class Score:
    """A probability as text and as whole hundredths for its bar; `tick`: its threshold in hundredths, or None."""

    label: str
    percent: str
    hundredths: int
    tick: int | None
    status: str


@dataclass(frozen=True)
class TopFinding:
    """What the list says about a study: its most urgent finding."""

    label: str
    percent: str
    urgency: str
    critical: bool
    doubtful: bool


@dataclass(frozen=True)
class FindingRow:
    """A statement in the table of findings."""

    label: str
    where: str
    percent: str
    hundredths: int
    tick: int | None
    urgency: str
    certainty: str
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Sentence:
    """One line of the report. `critical`: must be seen at once."""

    text: str
    critical: bool
    doubtful: bool
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A heading of the report (level 1 or 2) and its lines."""

    code: str
    title: str
    level: int
    lines: tuple[Sentence, ...]


@dataclass(frozen=True)
class ReportView:
    """Everything of one report but its image. `impression` is shown before the other parts: it is read first."""

    signed: bool
    impression: Part
    parts: tuple[Part, ...]
    findings: tuple[FindingRow, ...]
    scores: tuple[Score, ...]
    model: tuple[Fact, ...]
    rules: tuple[RuleResult, ...]
    rules_summary: str


@dataclass(frozen=True)
class BoxView:
    """A rectangle in BOX_UNITS of the image."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Layer:
    """One finding's evidence over the image. `index`: of the statement."""

    index: int
    label: str
    percent: str
    alt: str
    box: BoxView | None


@dataclass(frozen=True)
class ImageView:
    """The picture, in pixels, and what can be laid over it. `sides`: R and L may be marked (a frontal view)."""

    width: int
    height: int
    alt: str
    hint: str
    sides: bool
    layers: tuple[Layer, ...]


def top_finding(report: Report, graph: Graph) -> TopFinding | None:
    """The statement a reader must see first: most urgent, then most probable; None without statements."""
    if not report.statements:
        return None
    words = load_words()
    ranks = {urgency: rank for rank, urgency in enumerate(get_args(Urgency))}

    def order(statement: Statement) -> tuple[int, float]:
        return ranks[graph.statable(statement.finding).urgency], -statement.probability

    first = min(report.statements, key=order)
    node = graph.statable(first.finding)
    return TopFinding(
        label=_name(words, node) + words.place(node, first.side, first.zone),
        percent=_percent(words, first.probability),
        urgency=URGENCY_LABELS[node.urgency],
        critical=node.urgency == "critical",
        doubtful=bool(first.doubts),
    )


def list_note(report_json: str, report: Report | None, graph: Graph) -> str:
    """What the list says beside, or instead of, the most urgent finding; "" if there is nothing to say."""
    if report is None:
        return UNREADABLE.title if report_json else ""
    torn = [graph.statable(finding) for finding in report.disagreements]
    critical = [load_words().name(node) for node in torn if node.urgency == "critical"]
    if critical:
        return f"Look at the image: the two parts of the model do not agree on {', '.join(critical)}."
    more = len(report.statements) - 1
    if more > 0:
        return f"and {count(more, 'more finding', 'more findings')}"
    return "" if report.statements else "No validated finding identified"


def report_view(report: Report, graph: Graph) -> ReportView:
    """Everything of one report but its image. Raises ReportError as `render_sections`."""
    words = load_words()
    passed = sum(result.passed for result in report.rules)
    parts = {section.code: _part(section, graph) for section in render_sections(report, graph)}
    return ReportView(
        signed=report.status == "signed",
        impression=parts.pop("impression"),
        parts=tuple(parts.values()),
        findings=tuple(_finding_row(report, graph, words, statement) for statement in report.statements),
        scores=_scores(report, graph, words),
        model=_model(report),
        rules=tuple(sorted(report.rules, key=lambda result: result.passed)),
        rules_summary=f"{passed} of {len(report.rules)} passed",
    )


def image_view(report: Report | None, graph: Graph, size: tuple[int, int]) -> ImageView:
    """The picture of `size` (width, height) with one layer for each statement that has evidence."""
    width, height = size
    if report is None:
        return ImageView(width, height, "The received image. It was not read.", "", False, ())
    words = load_words()
    layers = tuple(
        _layer(words, graph, index, statement)
        for index, statement in enumerate(report.statements)
        if statement.evidence is not None
    )
    view = report.technique.view
    sides = view not in ("LATERAL", "OTHER")
    told = words.say(f"view.{view}") if view and words.has(f"view.{view}") else words.say("view.unknown")
    hint = "R and L: the patient's right and left side. " if sides else ""
    if layers:
        hint += "Orange: where the model took its evidence from. It is not the outline of a disease."
    return ImageView(width, height, f"Chest X-ray, {told}, marked as a draft", hint.strip(), sides, layers)


def _part(section: Section, graph: Graph) -> Part:
    lines = tuple(
        Sentence(
            text=line.text,
            critical=line.finding is not None and graph.statable(line.finding).urgency == "critical",
            doubtful=line.doubtful,
            doubts=line.doubts,
        )
        for line in section.lines
    )
    return Part(section.code, section.title, section.level, lines)


def _finding_row(report: Report, graph: Graph, words: Words, statement: Statement) -> FindingRow:
    node = graph.statable(statement.finding)
    where = words.place(node, statement.side, statement.zone).strip(" ,")
    return FindingRow(
        label=_name(words, node),
        where=capitalise(where) or "Midline",
        percent=_percent(words, statement.probability),
        hundredths=round(statement.probability * 100),
        tick=_tick(report, statement.finding),
        urgency=URGENCY_LABELS[node.urgency],
        certainty=capitalise(statement.certainty),
        doubts=tuple(capitalise(words.say(doubt)) for doubt in statement.doubts),
    )


def _scores(report: Report, graph: Graph, words: Words) -> tuple[Score, ...]:
    """Every score, the highest first; findings that the graph does not know keep their code as their name."""
    stated = {statement.finding for statement in report.statements}

    def status(finding: str) -> str:
        if finding in stated:
            return "In the report"
        if finding in report.not_validated:
            return "Known to the model, not validated, not offered"
        if finding in report.disagreements:
            return "Not agreed, neither stated nor excluded"
        return "Looked for, not stated"

    ordered = sorted(report.scores.items(), key=lambda item: -item[1])
    return tuple(
        Score(
            label=_name(words, graph.statable(finding)),
            percent=_percent(words, probability),
            hundredths=round(probability * 100),
            tick=_tick(report, finding),
            status=status(finding),
        )
        for finding, probability in ordered
    )


def _tick(report: Report, finding: str) -> int | None:
    threshold = report.thresholds.get(finding)
    return None if threshold is None else round(threshold * 100)


def _model(report: Report) -> tuple[Fact, ...]:
    model = report.model
    return (
        Fact("Model", model.bundle),
        Fact("Version", model.version),
        Fact("SHA-256", model.sha256[:12]),
        Fact("Runs on", model.backend),
        Fact("Rules", model.graph_sha256[:12]),
    )


def _layer(words: Words, graph: Graph, index: int, statement: Statement) -> Layer:
    node, evidence = graph.statable(statement.finding), statement.evidence
    place = words.place(node, evidence.side_by_map, evidence.zone_by_map) if evidence else ""
    return Layer(
        index=index,
        label=_name(words, node),
        percent=_percent(words, statement.probability),
        alt=f"Evidence for {words.name(node)}, mostly{place}" if place else f"Evidence for {words.name(node)}",
        box=_box(evidence.box) if evidence and evidence.box else None,
    )


def _box(box: Box) -> BoxView:
    x0, y0, x1, y1 = (round(min(1.0, max(0.0, edge)) * BOX_UNITS) for edge in (box.x0, box.y0, box.x1, box.y1))
    return BoxView(x0, y0, max(0, x1 - x0), max(0, y1 - y0))


def _name(words: Words, node: Node) -> str:
    return capitalise(words.name(node))


def _percent(words: Words, probability: float) -> str:
    return f"{words.percent(probability)} %"
