"""Images of every source through `edge.reading.image.prepare`, cached; splits by patient.

    python -m models.data DATA_DIR CACHE_DIR

writes one `<source>.npz` a source: images (N, 256, 256) uint8, labels (N, 14) int8 (-1 unknown), child (N,) int8,
split (N,) of train / val / test, patient (N,), name (N,) of the file; masks (N, 3, 64, 64) uint8 where there are any.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.reading.image import Extent, prepare
from edge.reading.radiograph import Radiograph
from edge.report.grammar import FINDINGS
from models.findings import UNKNOWN, kermany_labels, nih_labels

MASK_SIDE = 64
VAL_SHARE = 0.13
TEST_SHARE = {"nih": 0.25, "kermany": 0.15}
ADULT_YEARS = 16


@dataclass(frozen=True)
class Source:
    """One cached source; arrays as in the module docstring."""

    images: np.ndarray
    labels: np.ndarray
    child: np.ndarray
    split: np.ndarray
    patient: np.ndarray
    name: np.ndarray
    masks: np.ndarray | None

    def part(self, split: str) -> Source:
        """Only the rows of one split."""
        rows = np.flatnonzero(self.split == split)
        masks = None if self.masks is None else self.masks[rows]
        return Source(
            self.images[rows], self.labels[rows], self.child[rows], self.split[rows], self.patient[rows],
            self.name[rows], masks,
        )  # fmt: skip


def split_of(source: str, patient: str) -> str:
    """train, val or test, from a hash of the patient alone: stable when rows are added."""
    u = int(hashlib.sha256(f"{source}:{patient}".encode()).hexdigest()[:8], 16) / 2**32
    test = TEST_SHARE.get(source, 0.0)
    return "test" if u < test else "val" if u < test + VAL_SHARE else "train"


def read_picture(path: Path) -> Radiograph:
    """Grey picture -> Radiograph, pixels (H, W) float32 in [0, 1]."""
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ValueError(f"not a picture: {path.name}")
    return Radiograph(pixels=grey.astype(np.float32) / 255.0, source="picture")


def to_uint8(tensor: np.ndarray) -> np.ndarray:
    """(1, 1, H, W) in [-1, 1] -> (H, W) uint8."""
    return np.round((tensor[0, 0] + 1.0) * 127.5).astype(np.uint8)


def nih(data: Path) -> Source:
    """NIH ChestX-ray14 adults and a few children, 14 text-mined findings."""
    folder = data / "nih_cxr"
    rows = _rows(folder / "labels.csv")
    images = [to_uint8(prepare(read_picture(folder / "images" / r["file"])).tensor) for r in rows]
    child = [int(int(r["age"]) < ADULT_YEARS) if r["age"] else UNKNOWN for r in rows]
    labels = [nih_labels(r["labels"]) for r in rows]
    return _source("nih", images, labels, child, [r["patient"] for r in rows], [r["file"] for r in rows])


def kermany(data: Path) -> Source:
    """Children of 1 to 5 years, normal or pneumonia, graded by clinicians."""
    folder = data / "kermany_paediatric_cxr"
    rows = _rows(folder / "labels.csv")
    images = [to_uint8(prepare(read_picture(folder / "images" / r["file"])).tensor) for r in rows]
    labels = [kermany_labels(r["label"]) for r in rows]
    return _source("kermany", images, labels, [1] * len(rows), [r["patient"] for r in rows], [r["file"] for r in rows])


def lung_masks(data: Path) -> Source:
    """Chest X-rays with drawn lungs; no finding labels. Split by image (one image a patient)."""
    folder = data / "cxr_masks"
    rows = _rows(folder / "labels.csv")
    images, masks = [], []
    for row in rows:
        prepared = prepare(read_picture(folder / "images" / row["file"]))
        images.append(to_uint8(prepared.tensor))
        masks.append(_lungs(folder, row, prepared.extent))
    names = [r["file"] for r in rows]
    unknown = [[UNKNOWN] * len(FINDINGS)] * len(rows)
    return _source("masks", images, unknown, [UNKNOWN] * len(rows), names, names, np.stack(masks))


def ultrasound(data: Path) -> Source:
    """Lung and breast ultrasound: what is not a chest X-ray. Split by patient (lung) or image (breast)."""
    images, patients, files = [], [], []
    lung = data / "lung_ultrasound"
    for row in _rows(lung / "labels.csv"):
        for path in sorted((lung / "images").glob(f"{row['stem']}*")):
            images.append(to_uint8(prepare(read_picture(path)).tensor))
            patients.append(row["patient"])
            files.append(path.name)
    breast = data / "breast_ultrasound"
    for row in _rows(breast / "labels.csv"):
        images.append(to_uint8(prepare(read_picture(breast / "images" / row["file"])).tensor))
        patients.append(row["file"])
        files.append(row["file"])
    unknown = [[UNKNOWN] * len(FINDINGS)] * len(images)
    return _source("ultrasound", images, unknown, [UNKNOWN] * len(images), patients, files)


def load(cache: Path, name: str) -> Source:
    """Read one cached source."""
    with np.load(cache / f"{name}.npz") as arrays:
        masks = arrays.get("masks")
        images, labels, child = (arrays[k] for k in ("images", "labels", "child"))
        split, patient, name_of = (arrays[k] for k in ("split", "patient", "name"))
        return Source(images, labels, child, split, patient, name_of, masks)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _source(
    name: str,
    images: list[np.ndarray],
    labels: list[list[int]],
    child: list[int],
    patients: list[str],
    files: list[str],
    masks: np.ndarray | None = None,
) -> Source:
    split = np.array([split_of(name, p) for p in patients])
    return Source(
        np.stack(images), np.array(labels, np.int8), np.array(child, np.int8), split, np.array(patients),
        np.array(files), masks,
    )  # fmt: skip


def _lungs(folder: Path, row: dict[str, str], extent: Extent) -> np.ndarray:
    """(3, 64, 64) uint8: patient's right lung (left half of the picture), left lung, mediastinum between them."""
    name = f"{Path(row['file']).stem}.png"
    if row["left_lung"] == "1" and row["right_lung"] == "1":
        parts = [_mask(folder / side / name, extent) for side in ("right_lung", "left_lung")]
        if parts[0].nonzero()[1].mean() > parts[1].nonzero()[1].mean():
            parts.reverse()
    else:
        parts = list(_halves(_mask(folder / "both_lungs" / name, extent)))
    heart = _between(*parts)
    return np.stack([*parts, heart]).astype(np.uint8) * 255


def _mask(path: Path, extent: Extent) -> np.ndarray:
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ValueError(f"mask missing: {path.name}")
    h, w = grey.shape
    part = grey[int(extent.y0 * h) : int(extent.y1 * h), int(extent.x0 * w) : int(extent.x1 * w)]
    return cv2.resize(part, (MASK_SIDE, MASK_SIDE), interpolation=cv2.INTER_AREA) > 127


def _halves(lungs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a mask of both lungs by the two largest components, or at the emptiest middle column."""
    _, components, stats, centres = cv2.connectedComponentsWithStats(lungs.astype(np.uint8))
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA])[:2] + 1
    if len(order) == 2 and stats[order[1], cv2.CC_STAT_AREA] > 0.15 * stats[order[0], cv2.CC_STAT_AREA]:
        first, second = sorted(order, key=lambda i: centres[i][0])
        return components == first, components == second
    columns = lungs.sum(axis=0)
    middle = MASK_SIDE // 3 + int(np.argmin(columns[MASK_SIDE // 3 : -MASK_SIDE // 3]))
    left, right = lungs.copy(), lungs.copy()
    left[:, middle:], right[:, :middle] = False, False
    return left, right


def _between(right: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Row by row, what lies between the inner edges of the two lungs."""
    between = np.zeros_like(right)
    for y in range(len(right)):
        r, le = np.flatnonzero(right[y]), np.flatnonzero(left[y])
        if len(r) and len(le):
            between[y, r[-1] + 1 : le[0]] = True
    return between


SOURCES = {"nih": nih, "kermany": kermany, "masks": lung_masks, "ultrasound": ultrasound}


def main(data: Path, cache: Path) -> None:
    """Build the cache of every source and print what each split holds."""
    cache.mkdir(parents=True, exist_ok=True)
    for name, build in SOURCES.items():
        source = build(data)
        masks: dict[str, Any] = {} if source.masks is None else {"masks": source.masks}
        np.savez(
            cache / f"{name}.npz", images=source.images, labels=source.labels, child=source.child,
            split=source.split, patient=source.patient, name=source.name, **masks,
        )  # fmt: skip
        for split in ("train", "val", "test"):
            part = source.part(split)
            positive = (part.labels == 1).sum(axis=0)
            print(f"{name:11s} {split:5s} n={len(part.images)} patients={len(set(part.patient))} {positive.tolist()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
