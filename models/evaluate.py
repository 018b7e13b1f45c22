"""Score the exported bundle through `edge.reading.pipeline` on the patient-disjoint test part.

    python -m models.evaluate DATA_DIR CACHE_DIR BUNDLE_DIR [--write]

Every picture goes the device's way: file -> Radiograph -> gate -> int8 encoder -> decoder -> checked report. With
`--write` the measured accuracy and the resulting `offered` go into the manifest, evaluation.json and card.md are
written, and the bundle is signed again. Baselines beside each score: a constant, and retrieval (the labels of the 15
nearest training images by the encoder's own embedding).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.bundle import Accuracy, Bundle, FindingSpec, load_bundle
from edge.reading.backends import load_backend
from edge.reading.backends.setup import Setup
from edge.reading.pipeline import Reader
from edge.reading.radiograph import Radiograph, Study
from edge.reading.read_file import read_file
from edge.report.grammar import FINDINGS
from edge.report.schema import Report
from edge.simulate.phantom import PhantomOptions, make_phantom, random_lesion
from models.card import write_card
from models.data import Source, load, read_picture
from models.export import run_tflite
from models.findings import PHANTOM_FINDINGS, UNKNOWN
from models.metrics import auroc, brier, ece, interval, wilson
from models.sign import write_manifest

NEIGHBOURS = 15
PHANTOM_SEED, PHANTOMS = 900_000, 240  # seeds never used in training
FOLDERS = {"nih": "nih_cxr", "kermany": "kermany_paediatric_cxr"}
FEWEST_POSITIVES = 5  # below this an AUROC is not worth printing


def read_part(reader: Reader, folder: Path, part: Source) -> list[Report | str]:
    """Report, or refusal code, of every picture of a test part."""
    outcomes: list[Report | str] = []
    for name in part.name:
        outcome = reader.read(Study(read_file(folder / "images" / str(name)))).outcome
        outcomes.append(outcome if isinstance(outcome, Report) else outcome.code)
    return outcomes


def score_source(source: str, part: Source, outcomes: list[Report | str], knn: np.ndarray) -> dict[str, Any]:
    """Accuracy of the calibrated probabilities and of what was stated, per finding."""
    read = np.array([isinstance(o, Report) for o in outcomes])
    reports = [o for o in outcomes if isinstance(o, Report)]
    findings: dict[str, Any] = {}
    for i, code in enumerate(FINDINGS):
        labels = part.labels[read, i]
        known = labels != UNKNOWN
        y, patients = labels[known].astype(np.float64), part.patient[read][known]
        if y.sum() < FEWEST_POSITIVES:
            continue
        p = np.array([r.scores[code] for r in reports])[known]
        stated = np.array([any(s.finding == code for s in r.statements) for r in reports])[known]
        low, high = interval(auroc, y, p, patients)
        findings[code] = {
            "n": len(y), "positives": int(y.sum()), "prevalence": y.mean(),
            "auroc": auroc(y, p), "low": low, "high": high, "ece": ece(y, p), "brier": brier(y, p),
            "brier_constant": brier(y, np.full(len(y), y.mean())), "auroc_retrieval": auroc(y, knn[read][known, i]),
            "stated": int(stated.sum()), "sensitivity": wilson(stated[y == 1]), "specificity": wilson(~stated[y == 0]),
            "ppv": wilson(y[stated] == 1),
        }  # fmt: skip
    refused = Counter(o for o in outcomes if not isinstance(o, Report))
    return {
        "source": source, "images": len(outcomes), "patients": len(set(part.patient)), "refused": dict(refused),
        "child": int(sum(r.technique.population == "child" for r in reports)), "findings": findings,
    }  # fmt: skip


def retrieval(bundle: Bundle, cache: Path, name: str, part: Source) -> np.ndarray:
    """(N, 14) share of the NEIGHBOURS nearest training images of the same source that carry each finding."""
    train = load(cache, name).part("train")
    path = bundle.file("encoder.tflite")
    known, asked = (run_tflite(path, s.images)["embedding"] for s in (train, part))
    known, asked = (e / np.linalg.norm(e, axis=1, keepdims=True) for e in (known, asked))
    nearest = np.argsort(-(asked @ known.T), axis=1)[:, :NEIGHBOURS]
    return (train.labels == 1)[nearest].mean(axis=1)


def score_gate(reader: Reader, data: Path, cache: Path) -> dict[str, dict[str, int]]:
    """What the gate makes of pictures it was never trained on (64 px: the learned part alone, before resolution)."""
    result: dict[str, dict[str, int]] = {}
    folder = data / "modality_gate"
    rows = [line.split(",") for line in (folder / "labels.csv").read_text().split()[1:]]
    for label in sorted({r[1] for r in rows}):
        pictures = [read_picture(folder / "images" / r[0]) for r in rows if r[1] == label]
        result[f"modality_gate {label}"] = _gate_counts(reader, pictures)
    other = load(cache, "other").part("test").images
    result["drawn non-chest pictures"] = _gate_counts(reader, [Radiograph(i.astype(np.float32) / 255) for i in other])
    return result


def _gate_counts(reader: Reader, pictures: list[Radiograph]) -> dict[str, int]:
    codes: Counter[str] = Counter()
    for picture in pictures:
        large = replace(picture, pixels=cv2.resize(picture.pixels, (256, 256), interpolation=cv2.INTER_LINEAR))
        outcome = reader.read(Study((large,))).outcome
        codes["accepted" if isinstance(outcome, Report) else outcome.code] += 1
    return dict(codes)


def score_phantoms(reader: Reader) -> dict[str, Any]:
    """Side, zone and evidence on phantoms of known truth: counts over statements of the planted finding."""
    counts: Counter[str] = Counter()
    for i in range(PHANTOMS):
        rng = np.random.default_rng(PHANTOM_SEED + i)
        kind = PHANTOM_FINDINGS[i % len(PHANTOM_FINDINGS)]
        options = PhantomOptions(seed=PHANTOM_SEED + i, size=512, detail="fast", lesion=random_lesion(rng, kind))
        phantom = make_phantom(options)
        truth = phantom.truth
        outcome = reader.read(
            Study((Radiograph(phantom.pixels, modality="DX", body_part="CHEST", view="PA", age_years=50),))
        ).outcome
        counts["phantoms"] += 1
        if not isinstance(outcome, Report):
            counts["refused"] += 1
            continue
        counts["score above threshold"] += outcome.scores[kind] >= reader.bundle.spec(kind, "adult").possible
        for s in outcome.statements:
            if s.finding != kind:
                counts["other findings stated"] += 1
                continue
            counts["stated"] += 1
            if truth.side in ("left", "right"):
                counts["sided"] += 1
                counts["side right"] += s.side == truth.side
                counts["side wrong"] += s.side not in (truth.side, "unspecified")
                counts["zone right"] += s.zone == truth.zone
                counts["zone wrong"] += s.zone not in (truth.zone, "unspecified")
                counts["map side right"] += s.evidence is not None and s.evidence.side_by_map == truth.side
                counts["map peak in box"] += _pointed(s.evidence, truth.box)
    return dict(counts)


def _pointed(evidence: Any, box: Any) -> bool:
    """Pointing game (Zhang et al., IJCV 2018): is the map's peak inside the true box, widened by one grid cell?"""
    grid = np.array(evidence.grid)
    y, x = np.unravel_index(int(grid.argmax()), grid.shape)
    e = evidence.extent
    cell_x, cell_y = (e.x1 - e.x0) / grid.shape[1], (e.y1 - e.y0) / grid.shape[0]
    px, py = e.x0 + (x + 0.5) * cell_x, e.y0 + (y + 0.5) * cell_y
    return bool(box.x0 - cell_x <= px <= box.x1 + cell_x and box.y0 - cell_y <= py <= box.y1 + cell_y)


def with_accuracy(bundle: Bundle, sources: dict[str, dict[str, Any]]) -> dict[str, dict[str, FindingSpec]]:
    """Manifest findings with measured accuracy; offered only where the lower bound clears the floor."""
    population_of = {"nih": "adult", "kermany": "child"}
    specs: dict[str, dict[str, FindingSpec]] = {}
    for code, populations in bundle.manifest.findings.items():
        specs[code] = dict(populations)
        for name, population in population_of.items():
            measured = sources[name]["findings"].get(code)
            if measured is None:
                continue
            accuracy = Accuracy(
                FOLDERS[name], measured["n"], measured["positives"],
                *(round(measured[k], 4) for k in ("auroc", "low", "high")),
            )  # fmt: skip
            offered = accuracy.low >= bundle.manifest.floor
            specs[code][population] = replace(specs[code][population], offered=offered, accuracy=(accuracy,))
    return specs


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "cache", "bundle"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.write:
        measure_and_write(options.data, options.cache, options.bundle)
    else:
        print(json.dumps(evaluate(options.data, options.cache, options.bundle), indent=1))


def evaluate(data: Path, cache: Path, path: Path) -> dict[str, Any]:
    """Everything measured, as one JSON-able dict."""
    bundle = load_bundle(path)
    reader = Reader(bundle, load_backend("tflite", bundle, Setup(threads=2)))
    sources = {}
    for name, folder in FOLDERS.items():
        part = load(cache, name).part("test")
        if name == "nih":
            part = _adults(part)
        outcomes = read_part(reader, data / folder, part)
        sources[name] = score_source(FOLDERS[name], part, outcomes, retrieval(bundle, cache, name, part))
    return {"sources": sources, "gate": score_gate(reader, data, cache), "phantoms": score_phantoms(reader)}


def _adults(part: Source) -> Source:
    rows = np.flatnonzero(part.child == 0)
    return replace(
        part, **{k: getattr(part, k)[rows] for k in ("images", "labels", "child", "split", "patient", "name")}
    )


def measure_and_write(data: Path, cache: Path, path: Path) -> None:
    """Measure once for what is offered, write it, measure again as it will behave, write the card."""
    first = evaluate(data, cache, path)
    bundle = load_bundle(path)
    manifest = replace(bundle.manifest, findings=with_accuracy(bundle, first["sources"]))
    write_manifest(manifest, path)
    final = evaluate(data, cache, path)
    (path / "evaluation.json").write_text(json.dumps(final, indent=1) + "\n")
    write_card(final, load_bundle(path).manifest, path / "card.md")
    write_manifest(manifest, path)
    print((path / "card.md").read_text())


if __name__ == "__main__":
    main()
