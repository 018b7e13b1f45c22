"""Luminance, and whether an image of three samples a pixel has colour that a grey picture would lose."""

from __future__ import annotations

import cv2
import numpy as np

from edge.reading.radiograph import F32

# Mean spread of the channels (maximum less minimum). Every radiograph of the reference data measures 0. The floor
# itself is an estimate that leaves room for the tint of a scanned film: no photographed film was at hand.
CHROMA_FLOOR = 0.06


def luminance(rgb: F32) -> F32:
    """(..., 3) RGB in [0, 1] -> (...) luminance E'Y of ITU-R BT.601-7, section 2.5.1."""
    if rgb.ndim == 3:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY), np.float32)
    return np.asarray(rgb @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def has_chroma(rgb: F32) -> bool:
    """Whether (H, W, 3) samples in [0, 1] have real colour."""
    return float((rgb.max(axis=-1) - rgb.min(axis=-1)).mean()) > CHROMA_FLOOR
