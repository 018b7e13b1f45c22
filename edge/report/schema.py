"""The report: one versioned JSON document; everything a person sees is rendered from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SCHEMA_VERSION = 1

Side = Literal["left", "right", "bilateral", "midline", "unspecified"]  # the patient's side
Zone = Literal["upper", "middle", "lower", "diffuse", "unspecified"]
Certainty = Literal["present", "possible"]
Population = Literal["adult", "child"]


@dataclass(frozen=True)
class Box:
    """A rectangle as fractions (0 to 1) of the displayed image; x to the right, y down."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Evidence:
    """Where a statement comes from.

    grid: the class-activation map, rows x columns of 0 to 255, over `extent` of the displayed image.
    extent: the part of the displayed image that the grid covers (crop of `image.prepare`).
    side_by_map, zone_by_map: where the map's mass lies, measured against the lung masks.
    """

    grid: tuple[tuple[int, ...], ...]
    extent: Box
    box: Box | None
    side_by_map: Side
    zone_by_map: Zone


@dataclass(frozen=True)
class Statement:
    """One coded finding of the draft. `doubts` are stable codes (`doubt.side-disagrees`); empty means none."""

    finding: str  # node code of graph.toml
    side: Side
    zone: Zone
    certainty: Certainty
    probability: float  # calibrated, of the classifier head
    evidence: Evidence | None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleResult:
    """One rule of graph.toml applied to this report. `statements` are indices of the statements it concerns."""

    rule: str  # rule id, e.g. "R012"
    passed: bool
    message: str
    statements: tuple[int, ...] = ()


@dataclass(frozen=True)
class Technique:
    modality: str | None
    view: str | None
    population: Population
    population_source: Literal["header", "image"]  # header: Patient's Age; image: the encoder's own guess
    images: int  # images of the study that were read


@dataclass(frozen=True)
class ModelVersion:
    bundle: str  # bundle id
    version: str
    sha256: str  # of the manifest
    backend: str  # tflite, onnxruntime, null ...
    graph_sha256: str


@dataclass(frozen=True)
class Report:
    """A draft until a person signs it.

    absent: offered findings that were looked for and not stated.
    not_validated: findings the model knows but may not offer (accuracy floor), for this population.
    scores: calibrated probability of every finding the bundle knows, offered or not.
    disagreements: offered findings that the classifier head and the decoder do not agree on.
    limits: stable codes of what was not assessed ("limit.single-view", ...), rendered in section Limits.
    thresholds: the probability from which each offered finding may be stated, for this population; kept so that a
        stored report can be checked again without its bundle.
    """

    technique: Technique
    statements: tuple[Statement, ...]
    absent: tuple[str, ...]
    not_validated: tuple[str, ...]
    disagreements: tuple[str, ...]
    scores: dict[str, float]
    rules: tuple[RuleResult, ...]
    limits: tuple[str, ...]
    model: ModelVersion
    status: Literal["draft", "signed"] = "draft"
    thresholds: dict[str, float] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
