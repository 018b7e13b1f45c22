"""The shipped graph holds together, its codes are real, and a broken one is refused with a sentence."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from pydicom.sr._concepts_dict import concepts

from edge.errors import ReportError
from edge.report.check import KINDS
from edge.report.grammar import FINDINGS
from edge.report.graph import GRAPH_PATH, RULE_PARAMETERS, STATABLE, load_graph, parse_graph

SOURCES = {"pydicom", "hl7-lt-lung", "mii-onko", "ohdsi"}


def edited(old: str, new: str) -> bytes:
    """The shipped graph with one place changed."""
    text = GRAPH_PATH.read_text(encoding="utf-8")
    assert old in text
    return text.replace(old, new, 1).encode()


def test_shipped_graph_has_the_findings_and_enough_nodes_and_rules():
    graph = load_graph()
    assert len(graph.nodes) >= 35
    assert len(graph.rules) >= 20
    assert set(FINDINGS) <= set(graph.nodes)
    assert {node.kind for node in graph.nodes.values()} == {"organ", "region", "finding", "device"}
    assert {node.section for node in graph.nodes.values()} == set(graph.sections)


def test_sha256_is_of_the_bytes_and_the_default_is_read_once():
    assert load_graph().sha256 == hashlib.sha256(GRAPH_PATH.read_bytes()).hexdigest()
    assert load_graph() is load_graph()
    assert load_graph(GRAPH_PATH) == load_graph()


@pytest.mark.parametrize("finding", FINDINGS)
def test_training_labels_without_place_can_be_said(finding):
    node = load_graph().nodes[finding]
    assert "unspecified" in node.zones
    assert "unspecified" in node.sides or node.sides == ("midline",)


def test_heart_has_no_side_and_edema_has():
    graph = load_graph()
    assert (graph.nodes["cardiomegaly"].sides, graph.nodes["cardiomegaly"].zones) == (("midline",), ("unspecified",))
    assert {"left", "right", "bilateral"} <= set(graph.nodes["edema"].sides)
    assert "diffuse" in graph.nodes["edema"].zones
    assert set(graph.nodes["hernia"].sides) == {"left", "right", "midline", "unspecified"}
    assert graph.nodes["pneumothorax"].urgency == "critical"


def test_overlap_holds_both_ways():
    graph = load_graph()
    assert graph.overlap("pneumonia", "consolidation")
    assert graph.overlap("consolidation", "pneumonia")
    assert not graph.overlap("pneumothorax", "effusion")


def test_every_code_names_its_source_and_pydicom_gives_that_meaning_alone():
    for node in load_graph().nodes.values():
        for code in node.codes:
            assert code.verified_by in SOURCES
            if code.verified_by == "pydicom":
                assert code.meaning in pydicom_meanings(code.scheme, code.value)


def test_pydicom_still_contradicts_itself_about_cardiomegaly():
    # The reason why the node carries no code: should this fail, the code can be looked at again.
    assert len(pydicom_meanings("SCT", "287272002")) == 2
    assert load_graph().nodes["cardiomegaly"].codes == ()


def pydicom_meanings(scheme: str, value: str) -> set[str]:
    schemes: Any = concepts
    return {found[value][0] for found in schemes[scheme].values() if value in found}


def test_rule_ids_are_in_order_and_every_kind_is_used_and_implemented():
    graph = load_graph()
    assert [rule.id for rule in graph.rules] == [f"R{number:03}" for number in range(1, len(graph.rules) + 1)]
    assert {rule.kind for rule in graph.rules} == set(KINDS) == set(RULE_PARAMETERS)


def test_nodes_and_parameters_cannot_be_changed():
    graph = load_graph()
    with pytest.raises(TypeError):
        graph.nodes["new"] = graph.nodes["lung"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        graph.nodes["lung"].section = "pleura"  # type: ignore[misc]


@pytest.mark.parametrize("code", ["lung", "right_upper_zone", "nothing"])
def test_only_findings_and_devices_can_be_stated(code):
    assert load_graph().statable("chest_tube").kind in STATABLE
    with pytest.raises(ReportError, match="expected the code of a finding or device"):
        load_graph().statable(code)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version = 1", "version = 2", "expected graph version 1, got 2"),
        ("version = 1", "version = true", "expected graph version 1, got True"),
        ("version = 1", "version = 1\ncolour = 1", "expected only known keys in the graph, got colour"),
        ("version = 1", "version = ", "expected a graph in TOML"),
        ("version = 1", "", "expected the graph to have version"),
        ("[finding.effusion]", "[finding.effusion]\nsize = 1", "only known keys in finding.effusion, got size"),
        ("[organ.lung]", '[organ.lung]\nurgency = "critical"', "only known keys in organ.lung, got urgency"),
        ("[finding.effusion]", "[organ.opacity]\nsection = 'lungs'\n[finding.effusion]", "one node named 'opacity'"),
        ('implies = ["effusion"]', 'implies = ["effusions"]', "finding.empyema to name a node .* got 'effusions'"),
        ('implies = ["effusion"]', 'implies = ["lung"]', "of kind finding or device, got 'lung'"),
        ('located_in = ["heart"]', 'located_in = ["effusion"]', "of kind organ or region, got 'effusion'"),
        ('located_in = ["heart"]', "located_in = []", "to have sides, zones and a place"),
        ('parent = "lung"', 'parent = "lungs"', "region.right_upper_zone to name a node"),
        ('section = "lungs"', 'section = "lung"', "expected organ.lung.section to be one of lungs"),
        ('sides = ["midline"]', 'sides = ["middle"]', "finding.cardiomegaly.sides to be one of left"),
        ('sides = ["midline"]', 'sides = "midline"', "finding.cardiomegaly.sides to be a list of words"),
        ('sides = ["midline"]', 'sides = ["midline", "midline"]', "each finding.cardiomegaly.sides once"),
        ('urgency = "critical"', 'urgency = "high"', "finding.pneumothorax.urgency to be one of critical"),
        ('finding = "nodule", where = "same-place"', 'finding = "nodule", where = "near"', "excludes.where to be one"),
        ('finding = "nodule", where = "same-place"', 'finding = "mass", where = "anywhere"', "each exclusion once"),
        ('finding = "nodule", where = "same-place"', 'finding = "nodule"', "mass.excludes to have where"),
        ('overlaps = ["nodule"]', 'overlaps = ["mass"]', "each overlap once and between two findings, got mass"),
        ('overlaps = ["nodule"]', 'overlaps = ["lung"]', "finding.mass to name a node"),
        ('verified_by = "pydicom"', "verified_by = 3", "organ.lung.codes.verified_by to be a word"),
        ('id = "R002"', 'id = "R001"', "expected each rule id once, got R001 again"),
        ('kind = "known-finding"', 'kind = "guess"', "rule R001 to have a kind of known-finding"),
        ('kind = "known-finding"', "kind = []", "rule R001 to have a kind of known-finding"),
        ('where = "anywhere"\ntext', "text", "expected rule R006 to have where"),
        ("least = 0.5", "least = 1", "rule R017, least to be of type float, got int"),
        ('finding = "emphysema"', 'finding = "lung"', "rule R031, finding to be a finding or device"),
        ('population = "adult"', 'population = "dog"', "rule R031, population to be one of adult, child"),
        ('version = 1', 'version = 1\norgan = 3', "expected a graph in TOML|to be a table"),
    ],
)  # fmt: skip
def test_a_broken_graph_is_refused_with_a_sentence(old, new, message):
    with pytest.raises(ReportError, match=message) as caught:
        parse_graph(edited(old, new))
    assert re.match(r"^expected .+, got .+", caught.value.message, re.DOTALL)
    assert caught.value.code == "report.invalid"


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(ReportError, match=r"expected a readable graph at gone\.toml"):
        load_graph(tmp_path / "gone.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match="expected a graph in TOML"):
        load_graph(tmp_path / "binary.toml")
