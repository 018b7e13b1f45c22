"""Finds writing in a picture: rows of strokes that are thin, sharp, even in brightness and alike in height.

Classical, no model: a top-hat transform leaves what is thinner than a letter is wide (Serra, Image Analysis and
Mathematical Morphology, 1982, chapter XII; both polarities), its connected pieces are letters if their brightness is
even and their edges are steep, and letters side by side of about one height are writing. Ultrasound speckle gives thin
pieces, too, but they are uneven, soft, and not in rows. It reads nothing and is no proof: what it misses and what it
takes for writing by mistake is measured in `docs/grabber.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge.intake.grabber.preset import Box, Picture

Grey = npt.NDArray[np.uint8]
Where = npt.NDArray[np.bool_]

_SCALES: Final = (1.0, 0.5)  # the second finds large letters with the same sizes in pixels
_STROKE: Final = 13  # pixels; what is at least as wide in both directions is no stroke
_CONTRAST: Final = 60  # grey levels between a stroke's pixels and their surroundings
_STRONG: Final = 85  # the same for the brightest fifth of a letter
_HEIGHT: Final = (6, 48)  # of a letter
_WIDTH_LIMIT: Final = 60  # of a piece; letters may touch
_FILL: Final = (0.12, 0.95)  # of its box that a letter covers
_UNEVEN: Final = 0.2  # spread of brightness inside a stroke, as a share of its contrast
_STEEP: Final = 0.4  # mean gradient at the edge, as a share of the contrast (1 pixel wide edge: 0.5)
_LETTERS: Final = 3  # in a row
_HEIGHT_RATIO: Final = 1.7
_GAP: Final = 1.3  # times the height, between neighbours
_BASELINE: Final = 0.3  # times the height: how far from it the feet of _LETTERS of them may be


@dataclass(frozen=True)
class _Letter:
    """The box of a piece that may be a letter, and its brightness."""

    x: int
    y: int
    width: int
    height: int
    level: float


def find_writing(picture: Picture, overlooked: Where | None = None) -> list[Box]:
    """Boxes [x, y, width, height] of rows of writing in a picture (H, W, 3). overlooked: (H, W), not looked at."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    colour = picture.max(axis=2) - picture.min(axis=2)  # of coloured writing over a grey image nothing else is left
    found: list[Box] = []
    looks = ((grey, cv2.MORPH_TOPHAT), (grey, cv2.MORPH_BLACKHAT), (colour, cv2.MORPH_TOPHAT))
    for scale in _SCALES:
        for plane, polarity in looks:
            small = plane if scale == 1.0 else cv2.resize(plane, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            hidden = None if overlooked is None else _grown(overlooked, small.shape)
            found += [_bounds(row, scale) for row in _rows(_letters(small, polarity, hidden))]
    return found


def _grown(overlooked: Where, shape: tuple[int, ...]) -> Grey:
    """At the size of a plane, two pixels wider: the edge of a mask is no stroke."""
    flat = cv2.resize(overlooked.astype(np.uint8), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.dilate(flat, np.ones((5, 5), np.uint8)), dtype=np.uint8)


def _letters(plane: Grey, polarity: int, hidden: Grey | None) -> list[_Letter]:
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (_STROKE, _STROKE))
    thin = cv2.morphologyEx(plane, polarity, kernel)
    if hidden is not None:
        thin[hidden > 0] = 0
    strokes = (thin >= _CONTRAST).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
    if count < _LETTERS + 1:
        return []
    gradient = cv2.morphologyEx(plane, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    letters = []
    for number in range(1, count):
        x, y, width, height, area = (int(value) for value in boxes[number])
        if not (_HEIGHT[0] <= height <= _HEIGHT[1] and width <= _WIDTH_LIMIT and area >= height):
            continue
        if not _FILL[0] <= area / (width * height) <= _FILL[1]:
            continue
        window = slice(y, y + height), slice(x, x + width)
        own = labels[window] == number
        if _is_drawn(plane[window], thin[window], gradient[window], own):
            letters.append(_Letter(x, y, width, height, float(plane[window][own].mean())))
    return letters


def _is_drawn(plane: Grey, thin: Grey, gradient: Grey, own: Where) -> bool:
    """Whether a piece is even inside and steep at its edge, as what a machine draws and nothing that it images."""
    contrast = float(np.percentile(thin[own], 80))
    if contrast < _STRONG:
        return False
    ridge = own & (thin >= 0.75 * contrast)  # without the half-covered pixels of its edge
    if ridge.sum() < 0.25 * own.sum():
        return False
    uneven = float(plane[ridge].std()) / contrast
    edge = own & ~cv2.erode(own.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    steep = float(gradient[edge].mean()) / (2 * contrast)
    return uneven <= _UNEVEN and steep >= _STEEP


def _rows(letters: list[_Letter]) -> list[list[_Letter]]:
    """Letters side by side, of one height and brightness: at least _LETTERS of them."""
    rows: list[list[_Letter]] = []
    for letter in sorted(letters, key=lambda one: one.x):
        row = next((row for row in rows if _follows(row[-1], letter)), None)
        if row is None:
            rows.append([letter])
        else:
            row.append(letter)
    return [row for row in rows if len(row) >= _LETTERS and _stands(row)]


def _stands(row: list[_Letter]) -> bool:
    """On a line, but for letters that hang below it and signs that float."""
    feet = np.array([one.y + one.height for one in row])
    height = float(np.median([one.height for one in row]))
    return float(np.sort(np.abs(feet - np.median(feet)))[_LETTERS - 1]) <= _BASELINE * height


def _follows(last: _Letter, letter: _Letter) -> bool:
    low, high = sorted((last.height, letter.height))
    overlap = min(last.y + last.height, letter.y + letter.height) - max(last.y, letter.y)
    gap = letter.x - (last.x + last.width)
    alike = high <= _HEIGHT_RATIO * low and abs(last.level - letter.level) <= 0.6 * _CONTRAST
    return alike and overlap >= 0.5 * low and -0.3 * high <= gap <= _GAP * high


def _bounds(row: list[_Letter], scale: float) -> Box:
    x, y = min(one.x for one in row), min(one.y for one in row)
    right, low = max(one.x + one.width for one in row), max(one.y + one.height for one in row)
    return int(x / scale), int(y / scale), int((right - x) / scale), int((low - y) / scale)
