"""Where a finding is: class-activation map, and the side and zone its mass lies in, measured against the lungs.

Class-activation map after Zhou et al., CVPR 2016, eq. 2: the findings head is linear on means over the image, so what
each cell adds to a logit is known without a gradient. The encoder gives it as its output `maps`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.reading.radiograph import F32

RIGHT, LEFT, MEDIASTINUM = 0, 1, 2  # planes of the encoder's `masks`, the patient's sides
LUNG = 0.5  # probability from which a cell belongs to a lung
ONE_SIDE = 0.65  # share of the lungs' mass on one side for the map to name that side
ONE_ZONE = 0.6  # share of the mass in one third of the lung height for the map to name that zone
BOX_LEVEL = 0.5  # of the map's maximum
Cells = tuple[int, int, int, int]  # x0, y0, x1, y1 in cells, end exclusive


@dataclass(frozen=True)
class Located:
    """Map of one finding. grid: (G, G) float32 in [0, 1], 1 at the peak; box in cells around the peak's component."""

    grid: F32
    side: str  # left, right, bilateral, unspecified
    zone: str  # upper, middle, lower, diffuse, unspecified
    box: Cells | None


def positive_part(contribution: F32) -> F32:
    """contribution (G, G), one plane of the encoder's `maps` -> (G, G) float32 in [0, 1], 1 at the peak.

    A map says where a logit comes from only up to a constant: what is above its mean speaks for the finding here rather
    than elsewhere, the rest is dropped.
    """
    grid = np.maximum(contribution - contribution.mean(), 0.0)
    peak = float(grid.max())
    scaled: F32 = (grid / peak if peak > 0 else grid).astype(np.float32)
    return scaled


def locate(grid: F32, masks: F32) -> Located:
    """grid (G, G) in [0, 1], masks (3, G, G) probabilities -> the map with its side, zone and box."""
    if not grid.any():
        return Located(grid, "unspecified", "unspecified", None)
    sharp = grid**2
    return Located(grid, _side(sharp, masks), _zone(sharp, masks), _box(grid))


def _side(sharp: F32, masks: F32) -> str:
    right, left = _halves(masks)
    mass = np.array([float((sharp * right).sum()), float((sharp * left).sum())])
    if mass.sum() <= 0.0:
        return "unspecified"
    share = mass / mass.sum()
    return "right" if share[0] >= ONE_SIDE else "left" if share[1] >= ONE_SIDE else "bilateral"


def _halves(masks: F32) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Everything nearer to the right lung's columns, and everything nearer to the left lung's.

    Whole halves, not the lungs alone: an effusion or a white lung lies outside what is segmented as lung.
    """
    columns = np.arange(masks.shape[2])
    right, left = (masks[i].sum(axis=0) for i in (RIGHT, LEFT))
    centre_right = (
        float((right * columns).sum() / max(float(right.sum()), 1e-6)) if right.any() else 0.25 * len(columns)
    )
    centre_left = float((left * columns).sum() / max(float(left.sum()), 1e-6)) if left.any() else 0.75 * len(columns)
    midline = 0.5 * (centre_right + centre_left)
    on_right = np.broadcast_to(columns < midline, masks.shape[1:])
    return on_right, ~on_right


def _zone(sharp: F32, masks: F32) -> str:
    """Thirds of the lungs' height, the field's upper, middle and lower zone."""
    rows = np.flatnonzero((masks[RIGHT] + masks[LEFT]).max(axis=1) >= LUNG)
    if len(rows) < 3:
        return "unspecified"
    edges = np.linspace(rows[0], rows[-1] + 1, 4)
    centres = np.arange(len(sharp)) + 0.5
    mass = np.array(
        [
            sharp[centres < edges[1]].sum(),
            sharp[(centres >= edges[1]) & (centres < edges[2])].sum(),
            sharp[centres >= edges[2]].sum(),
        ]
    )
    share = mass / max(float(mass.sum()), 1e-6)
    return ("upper", "middle", "lower")[int(share.argmax())] if share.max() >= ONE_ZONE else "diffuse"


def _box(grid: F32) -> Cells:
    """Bounding box of the cells above BOX_LEVEL that hang together with the peak (4-neighbourhood)."""
    above = grid >= BOX_LEVEL
    reached = np.zeros_like(above)
    reached[np.unravel_index(int(grid.argmax()), grid.shape)] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= above
        if (grown == reached).all():
            break
        reached = grown
    rows, columns = np.flatnonzero(reached.any(axis=1)), np.flatnonzero(reached.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
