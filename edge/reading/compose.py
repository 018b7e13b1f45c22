"""What the encoder, the decoder and the maps say -> one draft Report. Nothing is stated that two readers do not share.

The classifier head (calibrated) audits the decoder: a finding is stated only if it is offered for this population,
its probability reaches the bundle's threshold, and the decoder wrote it. A side or zone is stated only if the
decoder's word and the evidence map agree; otherwise it is left open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from edge.bundle import Bundle
from edge.reading.evidence import Located
from edge.reading.image import Extent
from edge.reading.radiograph import F32, Radiograph
from edge.report.grammar import CodedFinding
from edge.report.graph import Graph
from edge.report.schema import (
    Box,
    Certainty,
    Evidence,
    ModelVersion,
    Population,
    Report,
    Side,
    Statement,
    Technique,
    Zone,
)

CHILD_BELOW_YEARS = 16.0
RADIOGRAPHY = ("CR", "DX", "RG")  # other modality words (OT, SC of a wrapped picture) say nothing of what is shown
OPEN_SIDES = ("left", "right", "bilateral")


@dataclass(frozen=True)
class Observed:
    """Everything known about one study before words.

    logits: finding -> raw logit, mean over the images read. located: finding -> its map on the reference image.
    """

    reference: Radiograph
    extent: Extent
    images: int
    logits: Mapping[str, float]
    population_logit: float
    said: tuple[CodedFinding, ...]
    located: Mapping[str, Located]


def compose(seen: Observed, bundle: Bundle, graph: Graph, backend: str) -> Report:
    """The draft before its rules are checked."""
    technique = _technique(seen, bundle)
    population = technique.population
    specs = {finding: bundle.spec(finding, population) for finding in bundle.findings}
    scores = {f: round(_probability(seen.logits[f], s.slope, s.intercept), 4) for f, s in specs.items()}
    offered = {f for f, s in specs.items() if s.offered}
    likely = {f for f in offered if scores[f] >= specs[f].possible}
    written = {coded.finding: coded for coded in seen.said if coded.finding in offered}
    agreed = [f for f in bundle.findings if f in likely and f in written]
    statements = tuple(_statement(written[f], scores[f], specs[f].present, seen, technique) for f in agreed)
    return Report(
        technique=technique,
        statements=statements,
        absent=tuple(f for f in bundle.findings if f in offered and f not in likely and f not in written),
        not_validated=tuple(f for f in bundle.findings if f not in offered),
        disagreements=tuple(f for f in bundle.findings if f in offered and (f in likely) != (f in written)),
        scores=scores,
        rules=(),
        limits=_limits(seen, technique),
        model=ModelVersion(bundle.manifest.id, bundle.manifest.version, bundle.sha256, backend, graph.sha256),
        thresholds={f: specs[f].possible for f in bundle.findings if f in offered},
    )


def _probability(logit: float, slope: float, intercept: float) -> float:
    """Platt scaling (Platt 1999, eq. 1)."""
    return float(1.0 / (1.0 + np.exp(-np.clip(slope * logit + intercept, -30.0, 30.0))))


def _technique(seen: Observed, bundle: Bundle) -> Technique:
    age = seen.reference.age_years
    child = seen.population_logit >= bundle.manifest.gate.child if age is None else age < CHILD_BELOW_YEARS
    population: Population = "child" if child else "adult"
    source = seen.reference
    return Technique(
        modality=source.modality if source.modality in RADIOGRAPHY else None,
        view=source.view,
        population=population,
        population_source="image" if age is None else "header",
        images=seen.images,
    )


def _statement(
    coded: CodedFinding, probability: float, present: float, seen: Observed, technique: Technique
) -> Statement:
    located = seen.located[coded.finding]
    magnified = coded.finding == "cardiomegaly" and technique.view == "AP"
    certain = probability >= present and coded.certainty == "present" and not magnified
    certainty: Certainty = "present" if certain else "possible"
    side, doubts = _side(coded.side, located.side)
    zone: Zone = coded.zone if coded.zone in ("diffuse", "unspecified") or coded.zone == located.zone else "unspecified"
    return Statement(
        finding=coded.finding,
        side=side,
        zone=zone,
        certainty=certainty,
        probability=probability,
        evidence=_evidence(located, seen.extent),
        doubts=doubts,
    )


def _side(said: Side, by_map: str) -> tuple[Side, tuple[str, ...]]:
    """The side both agree on; a contradiction leaves it open and marks the line."""
    if said not in OPEN_SIDES or said == by_map:
        return said, ()
    return "unspecified", ("doubt.side-disagrees",)


def _evidence(located: Located, extent: Extent) -> Evidence:
    cells = len(located.grid)
    grid = tuple(tuple(int(v) for v in row) for row in np.round(located.grid * 255.0))
    width, height = extent.x1 - extent.x0, extent.y1 - extent.y0
    box = None
    if located.box is not None:
        x0, y0, x1, y1 = (v / cells for v in located.box)
        box = Box(extent.x0 + x0 * width, extent.y0 + y0 * height, extent.x0 + x1 * width, extent.y0 + y1 * height)
    return Evidence(
        grid=grid,
        extent=Box(extent.x0, extent.y0, extent.x1, extent.y1),
        box=box,
        side_by_map=cast(Side, located.side),
        zone_by_map=cast(Zone, located.zone),
    )


def _limits(seen: Observed, technique: Technique) -> tuple[str, ...]:
    limits = ["limit.not-a-diagnosis", "limit.no-prior", "limit.side-not-validated"]
    if technique.images == 1:
        limits.append("limit.single-view")
    else:
        limits.append("limit.several-frontal")
    if technique.view is None:
        limits.append("limit.view-unknown")
    if technique.population_source == "image":
        limits.append("limit.age-unknown")
    if technique.modality is None:
        limits.append("limit.picture-not-dicom")
    return tuple(limits)


def mean_logits(findings: tuple[str, ...], outputs: list[dict[str, F32]]) -> dict[str, float]:
    """Mean over the images of one study of the findings head, (1, F) each."""
    mean = np.mean([o["findings"][0] for o in outputs], axis=0)
    return {finding: float(value) for finding, value in zip(findings, mean, strict=True)}
