"""The words say what the codes say: all of it, nothing more, and DRAFT until signed.

After a change on purpose, `python -m tests.test_render` writes the golden texts anew; look at them before committing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given

from edge.errors import ReportError
from edge.reading.radiograph import Refusal
from edge.report.check import check
from edge.report.graph import STATABLE, Urgency, load_graph
from edge.report.render import render_html, render_refusal, render_sections, render_text, render_title
from edge.report.schema import Population, Report, Side, Zone
from edge.report.words import load_words
from tests.report_examples import REPEATABLE, coded_reports, evidence, report, statement

GOLDEN = Path(__file__).with_name("golden")
GRAPH = load_graph()
WORDS = load_words()
DOUBTS = ("doubt.side-disagrees", "doubt.evidence-weak", "doubt.decoder-only", "doubt.rule-failed")
LIMITS = tuple(
    f"limit.{what}"
    for what in (
        "single-view",
        "no-prior",
        "view-unknown",
        "age-unknown",
        "not-a-diagnosis",
        "side-not-validated",
        "picture-not-dicom",
        "several-frontal",
    )
)


def empty() -> Report:
    return check(report(), GRAPH)


def mixed() -> Report:
    """An adult with a critical finding, an unknown side, a disputed side, and more than the impression holds."""
    return check(
        report(
            statement("pneumothorax", "left", "upper", "present", 0.83),
            statement("effusion", "left", "lower", evidence=evidence("right", "lower")),
            statement("edema", probability=0.9971),
            statement("consolidation", "right", "lower"),
            statement("infiltration", "bilateral", "diffuse", probability=0.34),
            statement("cardiomegaly", "midline", probability=0.71),
        ),
        GRAPH,
    )


def child() -> Report:
    """A child photographed from a film, the model in two minds about pneumothorax, and a score in no list."""
    pneumonia = statement("pneumonia", "right", "middle", "present", 0.77)
    technique = replace(report().technique, modality=None, view=None, population="child", population_source="image")
    draft = report(
        pneumonia,
        technique=technique,
        absent=("effusion", "consolidation"),
        disagreements=("pneumothorax",),
        not_validated=("cardiomegaly", "emphysema", "hernia"),
        limits=LIMITS,
        scores={"pneumonia": 0.77, "mass": 0.4},
    )
    return check(draft, GRAPH)


EXAMPLES = {"report_empty": empty, "report_mixed": mixed, "report_child": child}


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_text(name):
    assert render_text(EXAMPLES[name](), GRAPH) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def names_in(text: str) -> set[str]:
    """The findings and devices named in `text`; the longest name first, so that "tension pneumothorax" is one."""
    found = set()
    rest = text.lower()
    nodes = [node for node in GRAPH.nodes.values() if node.kind in STATABLE]
    for node in sorted(nodes, key=lambda node: -len(WORDS.name(node))):
        if WORDS.name(node).lower() in rest:
            found.add(node.code)
            rest = rest.replace(WORDS.name(node).lower(), "")
    return found


@REPEATABLE
@given(coded_reports())
def test_all_that_is_stated_is_said_and_nothing_else(draft):
    stated: set[str] = set()
    absent: set[str] = set()
    disputed: set[str] = set()
    for section in render_sections(draft, GRAPH):
        if section.level == 2:
            for line in section.lines:
                named = names_in(line.text)
                assert line.finding is None or named == {line.finding}
                assert all(GRAPH.nodes[code].section == section.code for code in named)
                told = stated if line.probability is not None else disputed if line.finding else absent
                told |= named
    assert stated == {one.finding for one in draft.statements}
    assert absent == set(draft.absent)  # "no ... seen" or "not told apart"
    assert disputed == set(draft.disagreements)
    assert names_in(render_text(draft, GRAPH)) == stated | absent | disputed | set(draft.not_validated)


@REPEATABLE
@given(coded_reports())
def test_certainty_side_and_probability_are_those_of_the_code(draft):
    lines = {line.finding: line for line in findings_lines(draft)}
    for one in draft.statements:
        text = lines[one.finding].text
        assert text.startswith("Possible ") == (one.certainty == "possible")
        assert ("side not determined" in text) == (one.side == "unspecified")
        for side in ("left", "right"):
            assert bool(re.search(rf"\b{side}\b", text)) == (one.side == side)
        assert bool(re.search(r"\bboth\b", text)) == (one.side == "bilateral")
        for zone in ("upper", "middle", "lower"):
            assert bool(re.search(rf"\b{zone}\b", text)) == (one.zone == zone)
        assert text.endswith(f"(probability {WORDS.percent(one.probability)} %).")


def findings_lines(draft: Report):
    """The lines of statements under Findings."""
    sections = [section for section in render_sections(draft, GRAPH) if section.level == 2]
    return [line for section in sections for line in section.lines if line.probability is not None]


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (("consolidation", "right", "lower"), "Possible consolidation in the right lower zone (probability 62 %)."),
        (("mass", "unspecified", "unspecified"), "Possible lung mass, side not determined (probability 62 %)."),
        (("edema", "bilateral", "diffuse"), "Possible pulmonary edema throughout both lungs (probability 62 %)."),
        (("effusion", "left", "unspecified"), "Possible pleural effusion on the left (probability 62 %)."),
        (("cardiomegaly", "midline", "unspecified"), "Possible enlarged cardiac silhouette (probability 62 %)."),
    ],
)
def test_sentences(place, sentence):
    assert [line.text for line in findings_lines(report(statement(*place)))] == [sentence]


def test_what_was_not_assessed_is_never_called_normal():
    draft = report(absent=("effusion",), not_validated=("pneumothorax",), disagreements=("edema",))
    sections = {section.code: [line.text for line in section.lines] for section in render_sections(draft, GRAPH)}
    assert sections["pleura"] == ["No pleural effusion seen."]
    assert sections["cardiovascular"] == ["Not assessed."]
    assert sections["lungs"] == [
        "Pulmonary edema: the two parts of the model do not agree. "
        "It is neither stated nor excluded; look at the image."
    ]
    assert not re.search(r"\b(normal|clear|unremarkable)\b", render_text(draft, GRAPH), re.IGNORECASE)


@pytest.mark.parametrize("list_name", ["disagreements", "not_validated"])
def test_a_finding_in_doubt_is_not_called_absent_even_if_listed_so(list_name):
    draft = report(absent=("pneumothorax",), **{list_name: ("pneumothorax",)})
    assert "No pneumothorax" not in render_text(draft, GRAPH)


def test_a_finding_that_readers_take_for_a_stated_one_is_not_called_absent():
    draft = report(statement("pneumonia", "right", "lower"), absent=("consolidation", "edema", "infiltration"))
    lungs = next(section for section in render_sections(draft, GRAPH) if section.code == "lungs")
    assert [line.text for line in lungs.lines[1:]] == [
        "Not told apart from the above: consolidation or ill-defined opacity (infiltrate).",
        "No pulmonary edema seen.",
    ]


def test_impression():
    lines = {section.code: section.lines for section in render_sections(mixed(), GRAPH)}["impression"]
    assert lines[0].text.startswith("CRITICAL, look at the image now: Pneumothorax on the left")
    assert [line.finding for line in lines] == ["pneumothorax", "edema", "effusion", "consolidation", None]
    assert lines[2].doubtful
    assert lines[4].text == "2 more above, under Findings."
    none = {section.code: section.lines for section in render_sections(empty(), GRAPH)}["impression"]
    assert [line.text for line in none] == ["No validated finding was identified. This does not exclude disease."]
    disputed = {section.code: section.lines for section in render_sections(child(), GRAPH)}["impression"]
    assert [line.finding for line in disputed] == ["pneumothorax", "pneumonia"]
    assert "do not agree on pneumothorax" in disputed[0].text


@pytest.mark.requirement("READ-03")
def test_doubts_are_said_in_words_with_the_rules_that_raised_them():
    doubtful = [line for line in findings_lines(mixed()) if line.doubtful]
    assert [line.finding for line in doubtful] == ["effusion"]
    assert doubtful[0].doubts == ("the evidence lies on another side of the image than stated by the decoder (R020)",)
    text = render_text(mixed(), GRAPH)
    assert text.count("[DOUBTFUL: the evidence lies on another side") == 2  # under Findings and in the impression


@pytest.mark.requirement("READ-04")
def test_draft_until_signed():
    assert render_title(mixed()).startswith("DRAFT - NOT SIGNED")
    assert "Nobody has checked or signed it" in render_text(mixed(), GRAPH)
    signed = replace(mixed(), status="signed")
    assert render_title(signed) == "Chest radiograph - signed report"
    assert "DRAFT" not in render_text(signed, GRAPH)
    assert 'class="report report-signed"' in render_html(signed, GRAPH)


def test_sections_are_complete_and_in_order():
    sections = render_sections(mixed(), GRAPH)
    assert [section.code for section in sections] == [
        "technique", "findings", *GRAPH.sections, "impression", "limits",
    ]  # fmt: skip
    assert [section.title for section in sections if section.level == 2] == [
        "Lungs and Airways",
        "Pleura",
        "Cardiovascular",
        "Mediastinum and Hila",
        "Musculoskeletal",
        "Abdomen and Diaphragm",
        "Tubes and Devices",
    ]


def test_rules_that_concern_the_whole_report_are_told_under_limits():
    limits = {section.code: section.lines for section in render_sections(child(), GRAPH)}["limits"]
    assert any(line.text.startswith("Rule R014 is not met. Expected: ") for line in limits)
    assert not any("R0" in line.text for line in render_sections(empty(), GRAPH)[-1].lines)


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (0.0, "less than 1"),
        (0.004, "less than 1"),
        (0.01, "1"),
        (0.62, "62"),
        (0.99, "99"),
        (0.996, "more than 99"),
        (1.0, "more than 99"),
    ],
)
def test_no_probability_claims_certainty(probability, said):
    assert WORDS.percent(probability) == said


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_number_that_is_no_probability_is_refused(probability):
    with pytest.raises(ReportError, match="expected a probability from 0 to 1"):
        render_text(report(statement("edema", probability=probability)), GRAPH)


class Outline(HTMLParser):
    """The elements of a fragment: balanced, and their text."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(fragment)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


HOSTILE = "<script>alert('x')</script> & \"quoted\" {0} {finding}"


def test_html_is_balanced_escaped_and_without_script():
    draft = mixed()
    hostile = replace(
        draft,
        technique=replace(draft.technique, modality=HOSTILE, view=HOSTILE),
        model=replace(draft.model, bundle=HOSTILE, version=HOSTILE, backend=HOSTILE),
        rules=(*draft.rules, replace(draft.rules[0], rule=HOSTILE, passed=False, message=HOSTILE)),
    )
    outline = Outline(render_html(hostile, GRAPH))
    assert set(outline.tags) == {"article", "section", "h2", "h3", "h4", "ul", "li", "strong"}
    assert outline.text.count(HOSTILE) == 7
    assert "<script" not in render_html(hostile, GRAPH)


@pytest.mark.parametrize("name", EXAMPLES)
def test_html_and_text_say_the_same(name):
    draft = EXAMPLES[name]()
    outline = Outline(render_html(draft, GRAPH))
    for section in render_sections(draft, GRAPH):
        assert section.title in outline.text
        for line in section.lines:
            assert line.text in outline.text
            assert all(doubt in outline.text for doubt in line.doubts)


def test_a_refusal_says_why_and_what_to_do():
    text = render_refusal(Refusal("gate.not-a-chest-radiograph", "Expected a chest X-ray, got a leg."))
    assert text == (
        "NOT READ\n"
        "Reason: Expected a chest X-ray, got a leg.\n"
        "The image is kept. A qualified person must look at it.\n"
        "Code: gate.not-a-chest-radiograph\n"
    )


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (report(statement("lung")), "expected the code of a finding or device of the graph, got 'lung'"),
        (report(absent=("unicorn",)), "got 'unicorn'"),
        (report(limits=("limit.unheard-of",)), "phrase 'limit.unheard-of', got none"),
        (report(limits=("section.lungs",)), "expected a code that begins with limit., got 'section.lungs'"),
        (report(statement("edema", doubts=("title.draft",))), "expected a code that begins with doubt."),
    ],
)
def test_a_code_without_words_is_refused(draft, message):
    with pytest.raises(ReportError) as caught:
        render_text(draft, GRAPH)
    assert message in caught.value.message


@pytest.mark.parametrize("language", ["xx", "", "../en", "EN/..", "en.toml", "e\u00f1"])
def test_a_language_that_is_not_there_is_refused(language):
    with pytest.raises(ReportError, match="expected one of the languages en"):
        load_words(language)


def test_english_has_words_for_every_code():
    for node in GRAPH.nodes.values():
        if node.kind in STATABLE:
            assert WORDS.name(node)
            for side, zone in product(get_args(Side), get_args(Zone)):
                assert isinstance(WORDS.place(node, side, zone), str)
        else:
            assert WORDS.has(node.label)
    keys = [f"section.{section}" for section in GRAPH.sections]
    keys += [*LIMITS, *DOUBTS, *(rule.doubt for rule in GRAPH.rules)]
    keys += [rule.parameters["limit"] for rule in GRAPH.rules if "limit" in rule.parameters]
    keys += [f"impression.{urgency}" for urgency in get_args(Urgency)]
    keys += [f"population.{one}{form}" for one in get_args(Population) for form in ("", "_plural")]
    assert [key for key in keys if not WORDS.has(key)] == []


def test_names_differ_and_are_no_codes():
    names = [WORDS.name(node) for node in GRAPH.nodes.values() if node.kind in STATABLE]
    assert len(set(names)) == len(names)
    assert not any("_" in name for name in names)


def test_no_phrase_compares_with_an_earlier_examination():
    words = r"\b(unchanged|stable|new|previous|prior|increased|decreased|improved|worse|again|since)\b"
    told = {key: phrase for key, phrase in WORDS.phrases.items() if key != "limit.no-prior"}
    assert [key for key, phrase in told.items() if re.search(words, phrase)] == []


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, example in EXAMPLES.items():
        (GOLDEN / f"{name}.txt").write_text(render_text(example(), GRAPH), encoding="utf-8")
