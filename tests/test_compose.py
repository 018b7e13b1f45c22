"""What may be stated: validated, likely, and written by both readers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle, FindingSpec, load_bundle
from edge.reading.compose import Observed, compose
from edge.reading.evidence import Located
from edge.reading.image import Extent
from edge.reading.radiograph import Radiograph
from edge.report.grammar import CodedFinding
from edge.report.graph import load_graph
from edge.report.schema import Report

OFFERED = FindingSpec(1.0, 0.0, 0.5, 0.8, True, ())
SILENT = replace(OFFERED, offered=False)


@pytest.fixture(scope="module")
def bundle(root: Path) -> Bundle:
    """The shipped bundle with simple numbers: effusion, mass, cardiomegaly offered to adults, pneumonia to children."""
    shipped = load_bundle(next((root / "models" / "bundles").glob("*/manifest.json")).parent)
    offered = {"adult": ("effusion", "mass", "cardiomegaly"), "child": ("pneumonia",)}
    findings = {f: {p: OFFERED if f in codes else SILENT for p, codes in offered.items()} for f in shipped.findings}
    return replace(shipped, manifest=replace(shipped.manifest, findings=findings))


def _located(side: str = "left", zone: str = "lower") -> Located:
    grid = np.zeros((16, 16), np.float32)
    grid[10:12, 10:12] = 1.0
    return Located(grid, side, zone, (10, 10, 12, 12))


def _seen(bundle: Bundle, *said: CodedFinding, located: Located | None = None, **logits: float) -> Observed:
    return Observed(
        reference=Radiograph(np.zeros((10, 10), np.float32), modality="DX", view="PA", age_years=50.0),
        extent=Extent(0.0, 0.1, 1.0, 0.9),
        images=1,
        logits={f: logits.get(f, -3.0) for f in bundle.findings},
        population_logit=-5.0,
        said=said,
        located={c.finding: located or _located() for c in said},
    )


def _compose(bundle: Bundle, seen: Observed) -> Report:
    return compose(seen, bundle, load_graph(), "tflite")


EFFUSION = CodedFinding("effusion", "left", "lower", "present")


@pytest.mark.requirement("READ-02")
def test_both_readers_agree_and_it_is_stated(bundle: Bundle) -> None:
    report = _compose(bundle, _seen(bundle, EFFUSION, effusion=2.0))
    (statement,) = report.statements
    assert (statement.finding, statement.side, statement.zone) == ("effusion", "left", "lower")
    assert statement.certainty == "present"
    assert statement.probability == report.scores["effusion"] == pytest.approx(0.8808)
    assert report.absent == ("mass", "cardiomegaly")
    assert report.disagreements == ()
    assert len(report.not_validated) == 11
    assert report.thresholds == {"effusion": 0.5, "mass": 0.5, "cardiomegaly": 0.5}


def test_evidence_lies_on_the_whole_picture(bundle: Bundle) -> None:
    (statement,) = _compose(bundle, _seen(bundle, EFFUSION, effusion=2.0)).statements
    evidence = statement.evidence
    assert evidence is not None
    assert evidence.box is not None
    assert (evidence.box.x0, evidence.box.x1) == (10 / 16, 12 / 16)
    assert (evidence.box.y0, evidence.box.y1) == pytest.approx((0.1 + 0.8 * 10 / 16, 0.1 + 0.8 * 12 / 16))
    assert max(max(row) for row in evidence.grid) == 255


@pytest.mark.requirement("READ-02")
def test_decoder_alone_or_classifier_alone_is_a_disagreement(bundle: Bundle) -> None:
    report = _compose(bundle, _seen(bundle, EFFUSION, mass=2.0))
    assert report.statements == ()
    assert report.disagreements == ("effusion", "mass")
    assert report.absent == ("cardiomegaly",)


@pytest.mark.requirement("READ-02")
def test_a_finding_that_is_not_offered_is_never_stated(bundle: Bundle) -> None:
    said = CodedFinding("pneumonia", "right", "lower", "present")
    report = _compose(bundle, _seen(bundle, said, pneumonia=4.0))
    assert report.statements == ()
    assert "pneumonia" in report.not_validated
    assert report.scores["pneumonia"] > 0.9


def test_the_age_decides_the_population_and_so_what_is_offered(bundle: Bundle) -> None:
    said = CodedFinding("pneumonia", "right", "lower", "present")
    seen = _seen(bundle, said, located=_located("right"), pneumonia=4.0)
    child = replace(seen, reference=replace(seen.reference, age_years=4.0))
    report = _compose(bundle, child)
    assert [s.finding for s in report.statements] == ["pneumonia"]
    assert (report.technique.population, report.technique.population_source) == ("child", "header")
    guessed = replace(seen, reference=replace(seen.reference, age_years=None), population_logit=5.0)
    report = _compose(bundle, guessed)
    assert (report.technique.population, report.technique.population_source) == ("child", "image")
    assert "limit.age-unknown" in report.limits


def test_possible_below_the_present_threshold_or_by_the_decoders_word(bundle: Bundle) -> None:
    (statement,) = _compose(bundle, _seen(bundle, EFFUSION, effusion=0.5)).statements
    assert statement.certainty == "possible"
    (statement,) = _compose(bundle, _seen(bundle, replace(EFFUSION, certainty="possible"), effusion=3.0)).statements
    assert statement.certainty == "possible"


def test_a_side_that_the_map_contradicts_is_left_open_and_marked(bundle: Bundle) -> None:
    (statement,) = _compose(bundle, _seen(bundle, EFFUSION, located=_located("right"), effusion=2.0)).statements
    assert statement.side == "unspecified"
    assert statement.doubts == ("doubt.side-disagrees",)


def test_a_zone_that_the_map_contradicts_is_left_open(bundle: Bundle) -> None:
    (statement,) = _compose(bundle, _seen(bundle, EFFUSION, located=_located(zone="upper"), effusion=2.0)).statements
    assert statement.zone == "unspecified"


def test_a_heart_on_an_ap_view_is_only_possibly_large(bundle: Bundle) -> None:
    said = CodedFinding("cardiomegaly", "midline", "unspecified", "present")
    seen = _seen(bundle, said, cardiomegaly=4.0)
    (statement,) = _compose(bundle, replace(seen, reference=replace(seen.reference, view="AP"))).statements
    assert statement.certainty == "possible"


def test_a_wrapped_picture_has_no_modality_and_says_so(bundle: Bundle) -> None:
    seen = _seen(bundle)
    report = _compose(bundle, replace(seen, reference=replace(seen.reference, modality="OT", view=None)))
    assert report.technique.modality is None
    assert {"limit.picture-not-dicom", "limit.view-unknown"} <= set(report.limits)
