"""The finding vocabulary of the bundle and how each source's labels map to it."""

from __future__ import annotations

from typing import get_args

from edge.report.grammar import FINDINGS, build_vocabulary
from edge.report.schema import Side, Zone

SIDES, ZONES = get_args(Side), get_args(Zone)
VOCABULARY = build_vocabulary(FINDINGS)
POPULATIONS = ("adult", "child")
UNKNOWN = -1  # a label this source does not give: left out of the loss

PHANTOM_FINDINGS = (
    "pneumothorax",
    "effusion",
    "edema",
    "consolidation",
    "atelectasis",
    "mass",
    "nodule",
    "cardiomegaly",
)


def nih_labels(text: str) -> list[int]:
    """'Effusion|Mass' -> one 0/1 per finding, in FINDINGS order (Wang et al., CVPR 2017: text-mined)."""
    named = {name.lower() for name in text.split("|")}
    return [int(code in named) for code in FINDINGS]


def kermany_labels(label: str) -> list[int]:
    """normal / bacterial / viral -> pneumonia 0/1; every other finding unknown (Kermany et al., Cell 2018)."""
    return [int(label != "normal") if code == "pneumonia" else UNKNOWN for code in FINDINGS]


def phantom_labels(finding: str | None) -> list[int]:
    """One planted lesion, or none; findings that the phantom cannot show stay unknown."""
    return [int(code == finding) if code in PHANTOM_FINDINGS else UNKNOWN for code in FINDINGS]
