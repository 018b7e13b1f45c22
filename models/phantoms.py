"""Phantoms for training: thoraces with a lesion of known side and zone, and pictures that are no chest X-ray.

    python -m models.phantoms CACHE_DIR [--count 1600]

writes phantom.npz (with masks, finding, side, zone) and other.npz in the form of `models.data`.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from edge.reading.image import prepare
from edge.reading.radiograph import Radiograph
from edge.report.grammar import FINDINGS
from edge.simulate.phantom import OTHER_KINDS, PhantomOptions, make_other, make_phantom, random_lesion
from models.data import MASK_SIDE, to_uint8
from models.findings import PHANTOM_FINDINGS, SIDES, UNKNOWN, ZONES, phantom_labels

PLAIN_SHARE = 0.25  # phantoms without any lesion
SEED = 20_000


def thorax(index: int) -> dict[str, object]:
    """One training phantom, prepared as on the device."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(SEED + index)
    plain = rng.random() < PLAIN_SHARE
    lesion = None if plain else random_lesion(rng, PHANTOM_FINDINGS[index % len(PHANTOM_FINDINGS)])
    view: Literal["PA", "AP"] = "AP" if rng.random() < 0.35 else "PA"
    options = PhantomOptions(seed=SEED + index, size=288, detail="fast", lesion=lesion, view=view)
    phantom = make_phantom(options)
    prepared = prepare(Radiograph(pixels=phantom.pixels))
    truth, extent = phantom.truth, prepared.extent
    masks = []
    for mask in (truth.right_lung, truth.left_lung, truth.mediastinum):
        h, w = mask.shape
        part = mask[int(extent.y0 * h) : int(extent.y1 * h), int(extent.x0 * w) : int(extent.x1 * w)]
        masks.append(cv2.resize(part.astype(np.uint8) * 255, (MASK_SIDE, MASK_SIDE), interpolation=cv2.INTER_AREA))
    return {
        "images": to_uint8(prepared.tensor),
        "masks": np.stack(masks),
        "labels": phantom_labels(truth.finding),
        "finding": FINDINGS.index(truth.finding) if truth.finding else UNKNOWN,
        "side": SIDES.index(truth.side) if truth.finding else UNKNOWN,
        "zone": ZONES.index(truth.zone) if truth.finding else UNKNOWN,
    }


def other(index: int) -> np.ndarray:
    """One picture that is no chest X-ray, (256, 256) uint8."""
    cv2.setNumThreads(1)
    pixels = make_other(OTHER_KINDS[index % len(OTHER_KINDS)], SEED + index)
    return to_uint8(prepare(Radiograph(pixels=pixels)).tensor)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--count", type=int, default=1600)
    options = parser.parse_args()
    with ProcessPoolExecutor(2) as pool:
        thoraces = list(pool.map(thorax, range(options.count), chunksize=16))
        others = list(pool.map(other, range(options.count // 2), chunksize=16))
    columns = {k: np.array([t[k] for t in thoraces]) for k in thoraces[0]}
    columns["labels"] = columns["labels"].astype(np.int8)
    _save(options.cache / "phantom.npz", **columns)
    _save(
        options.cache / "other.npz",
        images=np.stack(others),
        labels=np.full((len(others), len(FINDINGS)), UNKNOWN, np.int8),
    )


def _save(path: Path, **columns: Any) -> None:
    n = len(columns["images"])
    numbers = np.array([str(i) for i in range(n)])
    eighth = np.random.default_rng(SEED).integers(0, 8, n)  # not the index: it decides the finding already
    split = np.where(eighth == 0, "val", np.where(eighth == 1, "test", "train"))
    np.savez(path, child=np.full(n, UNKNOWN, np.int8), split=split, patient=numbers, name=numbers, **columns)


if __name__ == "__main__":
    main()
