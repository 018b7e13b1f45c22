"""The parts of training that need no torch: splits, labels, calibration and the measures with their intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.bundle import load_bundle
from edge.report.grammar import FINDINGS
from models.calibrate import choose_thresholds, platt
from models.data import split_of
from models.findings import UNKNOWN, VOCABULARY, kermany_labels, nih_labels, phantom_labels
from models.metrics import auroc, brier, ece, interval, wilson


def test_a_patient_is_always_in_the_same_part_and_all_parts_are_used() -> None:
    parts = [split_of("nih", str(patient)) for patient in range(4000)]
    assert parts == [split_of("nih", str(patient)) for patient in range(4000)]
    shares = {name: parts.count(name) / len(parts) for name in ("train", "val", "test")}
    assert shares["test"] == pytest.approx(0.25, abs=0.02)
    assert shares["val"] == pytest.approx(0.13, abs=0.02)


def test_the_shipped_vocabulary_is_the_trained_one(root: Path) -> None:
    assert load_bundle(root / "models" / "bundles" / "chest").manifest.decoder.vocabulary == VOCABULARY
    assert len(VOCABULARY) == 30


def test_labels_of_the_sources() -> None:
    labels = nih_labels("Effusion|Pleural_Thickening")
    assert [FINDINGS[i] for i, v in enumerate(labels) if v == 1] == ["effusion", "pleural_thickening"]
    assert sum(nih_labels("No Finding")) == 0
    child = kermany_labels("viral")
    assert child[FINDINGS.index("pneumonia")] == 1
    assert child.count(UNKNOWN) == 13
    assert kermany_labels("normal")[FINDINGS.index("pneumonia")] == 0
    assert phantom_labels("mass")[FINDINGS.index("hernia")] == UNKNOWN


def test_auroc_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200).astype(np.int8)
    scores = np.round(rng.normal(size=200) + labels, 1)  # rounded: ties
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    assert auroc(labels, scores) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert np.isnan(auroc(np.zeros(5, np.int8), np.arange(5.0)))


def test_the_interval_holds_the_value_and_widens_when_patients_repeat() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 120).astype(np.int8)
    scores = rng.normal(size=120) + labels
    single = np.array([str(i) for i in range(120)])
    low, high = interval(auroc, labels, scores, single)
    assert low < auroc(labels, scores) < high
    repeated = interval(auroc, np.tile(labels, 4), np.tile(scores, 4), np.tile(single, 4))
    assert repeated == pytest.approx((low, high), abs=0.02)  # copies of a patient add no certainty


def test_platt_recovers_the_probabilities_it_was_drawn_from() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=20_000) * 2
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-(0.7 * logits - 1.0)))).astype(np.int8)
    slope, intercept = platt(logits, labels)
    assert (slope, intercept) == pytest.approx((0.7, -1.0), abs=0.06)
    probabilities = 1 / (1 + np.exp(-(slope * logits + intercept)))
    assert ece(labels, probabilities) < 0.02
    assert brier(labels, probabilities) < brier(labels, np.full(len(labels), labels.mean()))


def test_few_positives_move_the_intercept_alone() -> None:
    labels = np.zeros(100, np.int8)
    labels[:3] = 1
    slope, intercept = platt(np.random.default_rng(3).normal(size=100), labels)
    assert slope == 1.0
    assert intercept < -2.0


def test_thresholds_are_ordered_and_present_is_more_likely_than_not() -> None:
    rng = np.random.default_rng(4)
    labels = (rng.random(300) < 0.1).astype(np.int8)
    probabilities = np.clip(0.1 + 0.1 * labels + 0.05 * rng.normal(size=300), 0.01, 0.99)
    possible, present = choose_thresholds(probabilities, labels)
    assert 0.1 < possible < 0.25
    assert present == 0.5


def test_wilson_interval_of_known_shares() -> None:
    share = wilson(np.array([True] * 8 + [False] * 2))
    assert share == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-3)
    assert wilson(np.array([], bool)) is None
