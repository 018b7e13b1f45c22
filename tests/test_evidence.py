"""Class-activation maps and where their mass lies."""

from __future__ import annotations

import numpy as np
import pytest

from edge.reading.evidence import locate, positive_part

GRID = 16


def _masks() -> np.ndarray:
    """Patient's right lung on the left of the picture, rows 2 to 13."""
    masks = np.zeros((3, GRID, GRID), np.float32)
    masks[0, 2:14, 2:7] = masks[1, 2:14, 9:14] = masks[2, 2:14, 7:9] = 1.0
    return masks


def _spot(row: int, column: int, size: int = 2) -> np.ndarray:
    grid = np.zeros((GRID, GRID), np.float32)
    grid[row : row + size, column : column + size] = 1.0
    return grid


@pytest.mark.parametrize(
    ("row", "column", "side", "zone"),
    [(3, 3, "right", "upper"), (7, 11, "left", "middle"), (11, 4, "right", "lower"), (14, 12, "left", "lower")],
)
def test_side_and_zone_of_a_spot(row: int, column: int, side: str, zone: str) -> None:
    located = locate(_spot(row, column), _masks())
    assert (located.side, located.zone) == (side, zone)
    assert located.box == (column, row, column + 2, row + 2)


def test_mirror_flips_the_side() -> None:
    grid = _spot(4, 3)
    assert locate(grid, _masks()).side == "right"
    assert locate(np.ascontiguousarray(grid[:, ::-1]), _masks()).side == "left"


def test_both_lungs_are_bilateral_and_all_zones_diffuse() -> None:
    grid = _masks()[:2].max(axis=0)
    located = locate(grid, _masks())
    assert (located.side, located.zone) == ("bilateral", "diffuse")


def test_the_box_is_the_component_of_the_peak_only() -> None:
    grid = (_spot(3, 3) + 0.9 * _spot(10, 11)).astype(np.float32)
    assert locate(grid, _masks()).box == (3, 3, 5, 5)


def test_no_evidence_is_said_to_be_none() -> None:
    located = locate(np.zeros((GRID, GRID), np.float32), _masks())
    assert (located.side, located.zone, located.box) == ("unspecified", "unspecified", None)


def test_without_lungs_no_zone_is_named() -> None:
    assert locate(_spot(3, 3), np.zeros((3, GRID, GRID), np.float32)).zone == "unspecified"


def test_a_map_is_what_lies_above_its_mean() -> None:
    contribution = np.random.default_rng(1).normal(size=(GRID, GRID)).astype(np.float32)
    grid = positive_part(contribution)
    expected = np.maximum(contribution - contribution.mean(), 0)
    assert np.allclose(grid, expected / expected.max(), atol=1e-6)
    assert np.allclose(grid, positive_part(contribution - 100.0), atol=1e-4)
    assert float(grid.max()) == 1.0
    assert not positive_part(np.full((GRID, GRID), 3.0, np.float32)).any()
