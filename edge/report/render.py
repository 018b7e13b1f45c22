"""Codes to words: sections of a report, from which the plain text, the HTML fragment and the page are made.

The text says what the codes say and nothing else. What was not looked for is called "Not assessed", never normal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape

from edge.errors import ReportError
from edge.reading.radiograph import Refusal
from edge.report.graph import Graph
from edge.report.impression import impression
from edge.report.schema import Report
from edge.report.words import Words, capitalise, load_words


@dataclass(frozen=True)
class Line:
    """One line of a section. finding, probability: where the line is one statement. doubts: in words, for a person."""

    text: str
    finding: str | None = None
    probability: float | None = None
    doubtful: bool = False
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading and its lines. level: 1 for Technique, Findings, Impression, Limits; 2 for the organs of Findings."""

    code: str
    title: str
    level: int
    lines: tuple[Line, ...]


def render_title(report: Report, language: str = "en") -> str:
    """The title; it says DRAFT and NOT SIGNED unless a person has signed."""
    return load_words(language).say(f"title.{report.status}")


def render_sections(report: Report, graph: Graph, language: str = "en") -> tuple[Section, ...]:
    """Technique, Findings (no lines of its own), one section per organ group, Impression, Limits; always in this order.

    Raises ReportError: a finding that the graph does not have, a code that the language has no words for.
    """
    words = load_words(language)
    organs = (
        Section(code, words.say(f"section.{code}"), 2, tuple(_organ(report, graph, words, code)))
        for code in graph.sections
    )
    return (
        Section("technique", words.say("section.technique"), 1, tuple(_technique(report, words))),
        Section("findings", words.say("section.findings"), 1, ()),
        *organs,
        Section("impression", words.say("section.impression"), 1, tuple(_impression(report, graph, words))),
        Section("limits", words.say("section.limits"), 1, tuple(_limits(report, graph, words))),
    )


def render_text(report: Report, graph: Graph, language: str = "en") -> str:
    """The report as plain text, ending with a newline. Raises ReportError as `render_sections`."""
    mark = load_words(language).say("doubtful.mark")
    rows = [render_title(report, language)]
    for section in render_sections(report, graph, language):
        rows += ["", section.title.upper()] if section.level == 1 else [section.title]
        for line in section.lines:
            doubts = f" [{mark}: {'; '.join(line.doubts)}]" if line.doubtful else ""
            rows.append(f"  - {line.text}{doubts}")
    return "\n".join(rows) + "\n"


def render_html(report: Report, graph: Graph, language: str = "en") -> str:
    """The report as an HTML fragment (one <article>), everything escaped, without script or style.

    Lines of statements carry `data-finding`, doubtful ones the class `doubtful`. Raises ReportError as above.
    """
    words = load_words(language)
    parts = [
        f'<article class="report report-{report.status}" lang="{escape(words.say("language.code"))}"'
        f' dir="{escape(words.say("language.direction"))}">',
        f"<h2>{escape(render_title(report, language))}</h2>",
    ]
    for section in render_sections(report, graph, language):
        heading = f"h{section.level + 2}"
        parts.append(f'<section class="report-section" data-section="{escape(section.code)}">')
        parts.append(f"<{heading}>{escape(section.title)}</{heading}>")
        if section.lines:
            parts += ["<ul>", *(_item(line, words) for line in section.lines), "</ul>"]
        parts.append("</section>")
    return "\n".join([*parts, "</article>"]) + "\n"


def render_refusal(refusal: Refusal, language: str = "en") -> str:
    """Why a study was not read, as plain text: the refusal's own message, its code, and what to do."""
    words = load_words(language)
    rows = (
        words.say("title.refused"),
        words.say("refusal.reason", message=refusal.message),
        words.say("refusal.action"),
        words.say("refusal.code", code=refusal.code),
    )
    return "\n".join(rows) + "\n"


def _item(line: Line, words: Words) -> str:
    finding = f' data-finding="{escape(line.finding)}"' if line.finding else ""
    if not line.doubtful:
        return f"<li{finding}>{escape(line.text)}</li>"
    doubts = "".join(f"<li>{escape(doubt)}</li>" for doubt in line.doubts)
    mark = f'<strong class="doubt-mark">{escape(words.say("doubtful.mark"))}</strong>'
    return f'<li{finding} class="doubtful">{escape(line.text)} {mark}<ul class="doubts">{doubts}</ul></li>'


def _technique(report: Report, words: Words) -> Iterator[Line]:
    technique, model = report.technique, report.model
    yield Line(words.say("technique.view", view=_view(technique.view, words)))
    if technique.modality is None:
        yield Line(words.say("technique.modality_unknown"))
    else:
        yield Line(words.say("technique.modality", modality=technique.modality))
    counted = "one_image" if technique.images == 1 else "images"
    yield Line(words.say(f"technique.{counted}", count=technique.images))
    population = words.say(f"population.{technique.population}")
    source = words.say(f"population_source.{technique.population_source}")
    yield Line(words.say("technique.population", population=population, source=source))
    version = {"bundle": model.bundle, "version": model.version, "backend": model.backend}
    yield Line(words.say("technique.model", **version))


def _view(view: str | None, words: Words) -> str:
    if view is None:
        return words.say("view.unknown")
    known = view.isupper() and words.has(f"view.{view}")
    return words.say(f"view.{view}") if known else words.say("view.unlisted", view=view)


def _organ(report: Report, graph: Graph, words: Words, section: str) -> Iterator[Line]:
    told = False
    for index, statement in enumerate(report.statements):
        if graph.statable(statement.finding).section == section:
            told = True
            yield _statement(report, graph, words, index)
    disagreed, overlapping, absent = _not_stated(report, graph, section)
    for finding in disagreed:
        name = capitalise(words.name(graph.statable(finding)))
        yield Line(words.say("sentence.disagreement", finding=name), finding=finding)
    for sentence, findings in (("overlapping", overlapping), ("absent", absent)):
        names = [words.name(graph.statable(finding)) for finding in findings]
        if names:
            yield Line(words.say(f"sentence.{sentence}", findings=words.join(names, "sentence.list_or")))
    if not (told or disagreed or overlapping or absent):
        yield Line(words.say("sentence.not_assessed"))


def _not_stated(report: Report, graph: Graph, section: str) -> tuple[list[str], list[str], list[str]]:
    """Of one organ section, each in one list: findings the model disagrees on; findings that cannot be told apart from

    a stated one ("consolidation, no pneumonia seen" would claim too much); findings looked for and not seen.
    """
    stated = {statement.finding for statement in report.statements}
    disagreed = [finding for finding in report.disagreements if finding not in stated]
    unsaid = stated | set(disagreed) | set(report.not_validated)
    absent = [finding for finding in report.absent if finding not in unsaid]
    overlapping = [finding for finding in absent if any(graph.overlap(finding, one) for one in stated)]
    unseen = [finding for finding in absent if finding not in overlapping]
    return (
        _of_section(disagreed, graph, section),
        _of_section(overlapping, graph, section),
        _of_section(unseen, graph, section),
    )


def _of_section(findings: list[str], graph: Graph, section: str) -> list[str]:
    return [finding for finding in dict.fromkeys(findings) if graph.statable(finding).section == section]


def _statement(report: Report, graph: Graph, words: Words, index: int) -> Line:
    statement = report.statements[index]
    return Line(
        text=words.statement(statement, graph.statable(statement.finding)),
        finding=statement.finding,
        probability=statement.probability,
        doubtful=bool(statement.doubts),
        doubts=tuple(_doubt(report, graph, words, index, doubt) for doubt in statement.doubts),
    )


def _doubt(report: Report, graph: Graph, words: Words, index: int, doubt: str) -> str:
    """The doubt in words, with the ids of the failed rules that raised it."""
    raising = {rule.id for rule in graph.rules if rule.doubt == doubt}
    failed = [r.rule for r in report.rules if not r.passed and index in r.statements and r.rule in raising]
    return words.say(_prefixed(doubt, "doubt.")) + (f" ({', '.join(failed)})" if failed else "")


def _impression(report: Report, graph: Graph, words: Words) -> Iterator[Line]:
    repeated = impression(report, graph)
    lines = {"critical": list(_disputed_critical(report, graph, words)), "urgent": [], "routine": []}
    for index in reversed(repeated):
        line = _statement(report, graph, words, index)
        urgency = graph.statable(report.statements[index].finding).urgency
        lines[urgency].insert(0, replace(line, text=words.say(f"impression.{urgency}", statement=line.text)))
    for ranked in lines.values():
        yield from ranked
    if not repeated:
        yield Line(words.say("impression.empty"))
    if len(report.statements) > len(repeated):
        yield Line(words.say("impression.more", count=len(report.statements) - len(repeated)))


def _disputed_critical(report: Report, graph: Graph, words: Words) -> Iterator[Line]:
    """Critical findings that only one part of the model sees: not stated, but not to be overlooked either."""
    for section in graph.sections:
        for finding in _not_stated(report, graph, section)[0]:
            node = graph.statable(finding)
            if node.urgency == "critical":
                yield Line(words.say("impression.disagreement", finding=words.name(node)), finding=finding)


def _limits(report: Report, graph: Graph, words: Words) -> Iterator[Line]:
    if report.status == "draft":
        yield Line(words.say("limits.draft"))
    for limit in dict.fromkeys(report.limits):
        yield Line(words.say(_prefixed(limit, "limit.")))
    if report.not_validated:
        names = [words.name(graph.statable(finding)) for finding in dict.fromkeys(report.not_validated)]
        population = words.say(f"population.{report.technique.population}_plural")
        findings = words.join(names, "sentence.list_and")
        yield Line(words.say("limits.not_validated", population=population, findings=findings))
    for result in report.rules:
        if not result.passed and not result.statements:
            yield Line(words.say("limits.rule", rule=result.rule, message=result.message))
    yield Line(words.say("limits.research"))


def _prefixed(code: str, prefix: str) -> str:
    if not code.startswith(prefix):
        raise ReportError(f"expected a code that begins with {prefix}, got {code[:40]!r}")
    return code
