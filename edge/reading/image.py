"""The one preprocessing, for the device and for training: Radiograph -> encoder input.

Crop burned-in borders, stretch the contrast between two robust percentiles, resample to a square. The crop is
remembered as `extent`, so that a map over the tensor can be drawn on the displayed image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge.reading.radiograph import F32, Radiograph

INPUT_SIZE = 256  # pixels; the bundle's manifest must name the same
BLACK, WHITE = 0.04, 0.96  # a border line is flat at one of the ends of the grey scale
FLAT_SHARE = 0.98  # share of a line's pixels beyond BLACK or WHITE for the line to be border
LARGEST_CROP = 0.25  # of the height or width, on each side: more than this is anatomy or collimation, not a border
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
_HISTOGRAM_SIDE = 512  # percentiles are taken on a copy of about this size


@dataclass(frozen=True)
class Extent:
    """The part of the source image the tensor covers, as fractions 0 to 1; x to the right, y down."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Prepared:
    """tensor: (1, 1, H, W) float32 in [-1, 1]; extent: where it lies on `Radiograph.pixels`."""

    tensor: F32
    extent: Extent


def prepare(radiograph: Radiograph, size: int = INPUT_SIZE) -> Prepared:
    """`radiograph.pixels` (H, W) float32 in [0, 1] -> the encoder's input (1, 1, size, size) float32 in [-1, 1]."""
    pixels = radiograph.pixels
    height, width = pixels.shape
    top, bottom = _border(pixels)
    left, right = _border(pixels.T)
    cropped = pixels[top:bottom, left:right]
    low, high = _range(cropped)
    square = cv2.resize(cropped, (size, size), interpolation=_interpolation(cropped.shape, size))
    stretched = np.clip((square - low) / max(high - low, 1e-6), 0.0, 1.0)
    tensor = (stretched * 2.0 - 1.0).astype(np.float32)[None, None]
    extent = Extent(left / width, top / height, right / width, bottom / height)
    return Prepared(np.ascontiguousarray(tensor), extent)


def _border(pixels: F32) -> tuple[int, int]:
    """First and last-plus-one row that is not border; at most LARGEST_CROP is taken from each end."""
    step = max(1, pixels.shape[1] // 256)
    lines = pixels[:, ::step]
    flat = ((lines < BLACK).mean(axis=1) >= FLAT_SHARE) | ((lines > WHITE).mean(axis=1) >= FLAT_SHARE)
    limit = int(len(flat) * LARGEST_CROP)
    inside = np.flatnonzero(~flat)
    if not len(inside):
        return 0, len(flat)
    return min(int(inside[0]), limit), max(int(inside[-1]) + 1, len(flat) - limit)


def _range(pixels: F32) -> tuple[float, float]:
    step = max(1, min(pixels.shape) // _HISTOGRAM_SIDE)
    low, high = np.percentile(pixels[::step, ::step], (LOW_PERCENTILE, HIGH_PERCENTILE))
    return float(low), float(high)


def _interpolation(shape: tuple[int, ...], size: int) -> int:
    return cv2.INTER_AREA if min(shape) > size else cv2.INTER_LINEAR
