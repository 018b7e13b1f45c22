"""The picture a person sees: 8-bit PNG of the reference image, with what it is written into the pixels."""

from __future__ import annotations

import cv2
import numpy as np

from edge.errors import ReportError
from edge.reading.radiograph import Radiograph

LONGEST_SIDE = 1024  # pixels
DRAFT_MARK = "DRAFT - NOT SIGNED"
NOT_READ_MARK = "NOT READ BY THE BOX"
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LOW, _HIGH = 0.5, 99.5  # percentiles shown as black and white


def display_png(radiograph: Radiograph, mark: str) -> bytes:
    """PNG bytes, grey, longest side at most LONGEST_SIDE, `mark` burned in at the top and bottom edge."""
    pixels = radiograph.pixels
    scale = min(1.0, LONGEST_SIDE / max(pixels.shape))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1.0 else pixels
    low, high = np.percentile(small, (_LOW, _HIGH))
    grey = np.clip((small - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    image = _with_mark(np.round(grey * 255.0).astype(np.uint8), mark)
    done, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise ReportError("The image could not be written as PNG.", code="display.failed")
    return bytes(encoded.tobytes())


def _with_mark(image: np.ndarray, mark: str) -> np.ndarray:
    """White letters on black, about half as wide as the image, readable on any background."""
    height, width = image.shape
    size = max(0.3, width / 700.0)
    thickness = max(1, round(size * 2))
    (text_width, text_height), below = cv2.getTextSize(mark, _FONT, size, thickness)
    x, band = max(0, (width - text_width) // 2), text_height + below + 8
    for top in (0, max(0, height - band)):
        cv2.rectangle(image, (x - 8, top), (x + text_width + 8, top + band), 0, -1)
        cv2.putText(image, mark, (x, top + text_height + 4), _FONT, size, 255, thickness, cv2.LINE_AA)
    return image
