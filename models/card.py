"""The model card: what was measured, in words and tables, from evaluation.json and the manifest alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.bundle import Manifest

POPULATION = {"nih": "adult", "kermany": "child"}
TITLE = {
    "nih": "Adults: NIH ChestX-ray14 (labels text-mined)",
    "kermany": "Children of 1 to 5: Kermany et al. (labels by clinicians)",
}


def write_card(measured: dict[str, Any], manifest: Manifest, path: Path) -> None:
    """Write card.md (Mitchell et al., FAT* 2019, for the sections)."""
    parts = [_head(manifest)]
    parts += [_source(name, measured["sources"][name], manifest) for name in ("nih", "kermany")]
    parts += [_not_validated(manifest), _gate(measured["gate"]), _phantoms(measured["phantoms"]), _tail(manifest)]
    path.write_text("\n".join(parts))


def _head(manifest: Manifest) -> str:
    return f"""# {manifest.id} {manifest.version}

A pyramid encoder (MobileNetV2, ImageNet start, feature pyramid, spatial attention; int8) and a three-layer hybrid
decoder for frontal chest X-rays. **Research model. Not a medical device. Every report is a draft until a clinician
signs it.**

Intended: adult frontal (PA or AP) radiographs, and frontal radiographs of children of 1 to 5 years for pneumonia.
Not intended: lateral views, other body parts, other modalities, newborns, ruling anything out.

Measured by `python -m models.evaluate DATA CACHE BUNDLE --write` on test patients that no training, calibration or
threshold has seen; the int8 bundle through the device's own pipeline. Intervals are 95 %: bootstrap by patient for AUROC,
Wilson for shares. A finding is offered where the lower bound of its AUROC is at least {manifest.floor}: this one
decision uses the test part, so the bound of an offered finding is slightly flattered by selection.
Retrieval = labels of the 15 nearest training images. A constant answer has AUROC 0.5.
"""


def _source(name: str, result: dict[str, Any], manifest: Manifest) -> str:
    refused = ", ".join(f"{k}: {v}" for k, v in sorted(result["refused"].items())) or "none"
    lines = [
        f"\n## {TITLE[name]}\n",
        f"{result['images']} images of {result['patients']} patients; refused: {refused}; "
        f"read as a child: {result['child']}.\n",
        "| finding | n | positive | AUROC (95 %) | retrieval | ECE | Brier (constant) | offered | stated | sensitivity | specificity | PPV |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for code, m in result["findings"].items():
        offered = manifest.findings[code][POPULATION[name]].offered
        stated = (
            [str(m["stated"]), *(_share(m[k]) for k in ("sensitivity", "specificity", "ppv"))] if offered else ["-"] * 4
        )
        lines.append(
            f"| {code} | {m['n']} | {m['positives']} ({m['prevalence']:.0%}) | {m['auroc']:.3f} ({m['low']:.3f} to {m['high']:.3f}) "
            f"| {m['auroc_retrieval']:.3f} | {m['ece']:.3f} | {m['brier']:.3f} ({m['brier_constant']:.3f}) "
            f"| {'yes' if offered else 'no'} | {' | '.join(stated)} |"
        )
    return "\n".join(lines)


def _share(value: list[float] | None) -> str:
    return "-" if value is None else f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"


def _not_validated(manifest: Manifest) -> str:
    lines = ["\n## Not validated\n"]
    for population in ("adult", "child"):
        codes = [c for c, p in manifest.findings.items() if not p[population].offered]
        lines.append(f"- {population}: {', '.join(codes)}")
    return (
        "\n".join(lines)
        + "\n\nThese are scored but never stated. Fewer than 5 positives in the test part: not measured at all."
    )


def _gate(gate: dict[str, dict[str, int]]) -> str:
    lines = [
        "\n## The gate on pictures of other sources\n",
        "| pictures | accepted | refused, by code |",
        "|---|---|---|",
    ]
    for name, counts in gate.items():
        refused = ", ".join(f"{k} {v}" for k, v in sorted(counts.items()) if k != "accepted")
        lines.append(f"| {name} | {counts.get('accepted', 0)} of {sum(counts.values())} | {refused} |")
    return "\n".join(lines) + (
        "\n\nThe modality_gate pictures are 64 px, enlarged to 256 px for this table; they were used for this test alone."
    )


def _phantoms(counts: dict[str, Any]) -> str:
    rows = "\n".join(f"| {k} | {v} |" for k, v in counts.items())
    return (
        "\n## Side, zone and evidence on phantoms of known truth\n\nNo source labels the side, so side and zone were learned "
        "from phantoms and are **not validated on patients**. Counts over phantoms with seeds never trained on:\n\n"
        f"| what | count |\n|---|---|\n{rows}"
    )


def _tail(manifest: Manifest) -> str:
    return (
        "\n## Known limits\n\n- NIH labels are text-mined and overlap (infiltration, consolidation, pneumonia, atelectasis).\n"
        "- Both sources are single hospitals; accuracy elsewhere is unknown.\n- Children: normal and ill images were collected as two groups, and retrieval by the embedding alone separates them nearly as well as the classifier. Part of that accuracy may be differences of acquisition rather than of disease; do not expect it elsewhere.\n- Adults: where sensitivity is low, silence of the report says little. Both readers must agree before anything is stated.\n- The child findings other than pneumonia have "
        "no data at all.\n- Probabilities hold for the prevalence of these sources.\n\n## Licences\n\n"
        + "\n".join(f"- {line}" for line in manifest.licences) + "\n"
    )  # fmt: skip
