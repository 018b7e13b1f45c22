"""Every rule, met and broken; doubts land on the statement that earned them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from edge.report.check import check
from edge.report.graph import load_graph
from edge.report.impression import IMPRESSION_LINES, impression
from edge.report.schema import Box, Report, RuleResult
from edge.report.serial import from_json, to_json
from tests.report_examples import REPEATABLE, evidence, report, reports, statement

GRAPH = load_graph()
HEART = statement("cardiomegaly", "midline")
EFFUSION = statement("effusion", "right", "lower")
CRITICAL = ("pneumothorax", "tension_pneumothorax", "mediastinal_widening", "pneumomediastinum", "pneumoperitoneum")


def technique(**changes):
    return replace(report().technique, **changes)


def crowded() -> Report:
    """More critical findings than the impression has lines."""
    stated = [statement(code, "midline" if code == "pneumomediastinum" else "unspecified") for code in CRITICAL]
    return report(*stated, absent=())


# rule -> a report that meets it while having something to check, a report that breaks it, the statements concerned
CASES = {
    "R001": (report(EFFUSION), report(statement("lung")), (0,)),
    "R002": (report(EFFUSION), report(EFFUSION, technique=technique(modality="US")), (0,)),
    "R003": (report(HEART), report(EFFUSION, statement("cardiomegaly", "left")), (1,)),
    "R004": (report(EFFUSION), report(statement("effusion", "right", "upper")), (0,)),
    "R005": (report(EFFUSION, HEART), report(EFFUSION, HEART, EFFUSION), (0, 2)),
    "R006": (report(HEART), report(HEART, statement("normal_heart_size", "midline")), (0, 1)),
    "R007": (
        report(statement("emphysema", "left"), statement("low_lung_volumes", "right")),
        report(statement("emphysema", "bilateral"), statement("low_lung_volumes", "right")),
        (0, 1),
    ),
    "R008": (
        report(statement("mass", "left", "upper"), statement("nodule", "left", "lower")),
        report(statement("nodule", "bilateral", "diffuse"), EFFUSION, statement("mass", "left", "upper")),
        (0, 2),
    ),
    "R009": (report(statement("empyema"), EFFUSION), report(HEART, statement("empyema"), absent=("effusion",)), (1,)),
    "R010": (report(EFFUSION), report(EFFUSION, absent=("effusion",)), (0,)),
    "R011": (report(EFFUSION), report(HEART, EFFUSION, not_validated=("effusion",)), (1,)),
    "R012": (report(EFFUSION), report(absent=("mass",), not_validated=("mass",)), ()),
    "R013": (report(EFFUSION, disagreements=("edema",)), report(EFFUSION, disagreements=("effusion",)), (0,)),
    "R014": (report(disagreements=("edema",)), report(absent=()), ()),
    "R015": (report(EFFUSION), report(EFFUSION, scores={"effusion": 0.7}), (0,)),
    "R016": (report(EFFUSION), report(EFFUSION, HEART, thresholds={"effusion": 0.3, "cardiomegaly": 0.8}), (1,)),
    "R017": (
        report(statement("effusion", probability=0.31)),
        report(statement("effusion", certainty="present", probability=0.31)),
        (0,),
    ),
    "R018": (report(EFFUSION), report(EFFUSION, statement("edema", evidence=None)), (1,)),
    "R019": (
        report(EFFUSION),
        report(statement("edema", evidence=replace(evidence(), box=Box(0.2, 0.2, 0.1, 0.4)))),
        (0,),
    ),
    "R020": (
        report(statement("edema", "left", evidence=evidence("unspecified"))),
        report(statement("edema", "left", evidence=evidence("right"))),
        (0,),
    ),
    "R021": (
        report(statement("edema", evidence=evidence("midline"))),
        report(statement("edema", "left", evidence=evidence("midline"))),
        (0,),
    ),
    "R022": (
        report(statement("edema", "left", "diffuse", evidence=evidence("left", "lower"))),
        report(statement("edema", "left", "middle", evidence=evidence("left", "lower"))),
        (0,),
    ),
    "R023": (report(statement("pneumothorax")), crowded(), (4,)),
    "R024": (report(), report(limits=("limit.no-prior", "limit.single-view")), ()),
    "R025": (report(), report(limits=("limit.not-a-diagnosis", "limit.single-view")), ()),
    "R026": (report(technique=technique(images=2), limits=()), report(limits=()), ()),
    "R027": (report(), report(technique=technique(view=None)), ()),
    "R028": (report(), report(technique=technique(population_source="image")), ()),
    "R029": (
        report(HEART, technique=technique(view="AP")),
        report(replace(HEART, certainty="present"), technique=technique(view="AP")),
        (0,),
    ),
    "R030": (
        report(HEART, technique=technique(view="LATERAL")),
        report(HEART, EFFUSION, technique=technique(view="LATERAL")),
        (1,),
    ),
    "R031": (
        report(statement("emphysema")),
        report(statement("emphysema"), technique=technique(population="child")),
        (0,),
    ),
    "R032": (
        report(statement("fibrosis")),
        report(statement("fibrosis"), technique=technique(population="child")),
        (0,),
    ),
    "R033": (report(), report(technique=technique(images=0)), ()),
    "R034": (report(), report(model=replace(report().model, graph_sha256="")), ()),
}


def result(checked: Report, rule: str) -> RuleResult:
    return next(one for one in checked.rules if one.rule == rule)


def test_every_rule_has_a_case():
    assert list(CASES) == [rule.id for rule in GRAPH.rules]


@pytest.mark.parametrize("rule", CASES)
def test_rule_met(rule):
    outcome = result(check(CASES[rule][0], GRAPH), rule)
    assert (outcome.passed, outcome.statements) == (True, ())
    assert outcome.message.endswith(".")


@pytest.mark.parametrize("rule", CASES)
def test_rule_broken(rule):
    _, broken, concerned = CASES[rule]
    checked = check(broken, GRAPH)
    outcome = result(checked, rule)
    assert (outcome.passed, outcome.statements) == (False, concerned)
    assert outcome.message.startswith("Expected: ")
    assert " Got: " in outcome.message
    doubt = next(row.doubt for row in GRAPH.rules if row.id == rule)
    assert all(doubt in checked.statements[index].doubts for index in concerned)


def test_a_sound_draft_meets_every_rule_and_has_no_doubts():
    checked = check(report(EFFUSION, HEART, statement("edema")), GRAPH)
    assert [one.rule for one in checked.rules if not one.passed] == []
    assert [one.doubts for one in checked.statements] == [(), (), ()]
    assert replace(checked, rules=()) == report(EFFUSION, HEART, statement("edema"))


def test_a_side_that_the_map_contradicts_is_named():
    checked = check(report(HEART, statement("effusion", "left", "lower", evidence=evidence("right", "lower"))), GRAPH)
    assert checked.statements[0].doubts == ()
    assert checked.statements[1].doubts == ("doubt.side-disagrees",)
    assert "effusion is stated left, its evidence lies right" in result(checked, "R020").message


@pytest.mark.parametrize(
    ("places", "meets"),
    [
        (("left", "upper", "left", "upper"), True),
        (("bilateral", "upper", "left", "upper"), True),
        (("left", "diffuse", "left", "upper"), True),
        (("left", "upper", "right", "upper"), False),
        (("left", "upper", "left", "lower"), False),
        (("unspecified", "upper", "left", "upper"), False),
        (("left", "unspecified", "left", "upper"), False),
        (("unspecified", "unspecified", "unspecified", "unspecified"), False),
    ],
)
def test_only_known_places_contradict_each_other(places, meets):
    one, other = statement("nodule", *places[:2]), statement("mass", *places[2:])
    assert result(check(report(one, other), GRAPH), "R008").passed is not meets


def test_a_picture_without_modality_is_not_held_against_its_findings():
    assert result(check(report(EFFUSION, technique=technique(modality=None)), GRAPH), "R002").passed


def test_doubts_that_were_there_stay_first():
    checked = check(report(statement("edema", doubts=("doubt.decoder-only",), evidence=None)), GRAPH)
    assert checked.statements[0].doubts == ("doubt.decoder-only", "doubt.evidence-weak")


def test_messages_stay_short_however_much_is_wrong():
    wrong = report(
        *[statement("lung", "left", probability=n / 100) for n in range(60)], technique=technique(modality="US")
    )
    checked = check(wrong, GRAPH)
    assert max(len(one.message) for one in checked.rules) < 600
    assert from_json(to_json(checked)) == checked


def test_impression_puts_the_critical_first_and_then_the_probable():
    draft = report(
        statement("nodule", probability=0.9),
        statement("effusion", probability=0.5),
        statement("edema", probability=0.8),
        statement("pneumothorax", probability=0.31),
        statement("fibrosis", probability=0.99),
    )
    assert impression(draft, GRAPH) == (3, 2, 1, 4)
    assert len(impression(crowded(), GRAPH)) == IMPRESSION_LINES
    assert impression(report(), GRAPH) == ()


@REPEATABLE
@given(reports())
def test_any_report_can_be_checked_and_checking_twice_changes_nothing(draft):
    checked = check(draft, GRAPH)
    assert len(checked.rules) == len(GRAPH.rules)
    assert check(checked, GRAPH) == checked
    assert replace(checked, rules=draft.rules, statements=draft.statements) == draft
