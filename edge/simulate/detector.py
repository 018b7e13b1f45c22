"""From attenuation to a displayed image: Beer-Lambert, scatter, quantum noise, log, processing and display curve."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

PHOTONS_PER_MM2 = 150_000.0  # open field behind nothing at exposure 1; behind the mediastinum about 1 % of it arrives


def fractal(shape: tuple[int, int], rng: np.random.Generator, coarse: int = 4, octaves: int = 5) -> F32:
    """Smooth fractal noise (H, W) float32, mean 0, standard deviation about 1."""
    h, w = shape
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        cells = coarse * 2**octave
        rows, columns = max(2, min(h, cells * h // max(w, 1))), min(w, cells)
        grid = rng.standard_normal((rows + 2, columns + 2)).astype(np.float32)
        total += cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC) * np.float32(0.6**octave)
    return np.asarray((total - total.mean()) / max(float(total.std()), 1e-6), dtype=np.float32)


def expose(attenuation: F32, pixel_mm: float, exposure: float, scatter: float, rng: np.random.Generator) -> F32:
    """Detector signal relative to the open field, (H, W) float32 > 0.

    I = exp(-L) (Beer-Lambert), plus scatter as a share of the light blurred over some 4 cm (the wide kernel of the
    convolution model of scatter, Love and Kruger, Med Phys 14, 1987), plus Poisson noise in its Gaussian limit.
    exposure: 1 is the usual dose; noise falls with its root.
    """
    primary = np.exp(-attenuation)
    scale = max(1, int(round(8 / pixel_mm)))
    small = cv2.resize(
        np.minimum(primary, 0.25), None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA
    )
    haze = cv2.GaussianBlur(small, (0, 0), 40.0 / pixel_mm / scale, borderType=cv2.BORDER_REPLICATE)
    signal = primary + np.float32(scatter) * cv2.resize(haze, primary.shape[::-1], interpolation=cv2.INTER_LINEAR)
    photons = PHOTONS_PER_MM2 * pixel_mm**2 * exposure
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.6), dtype=np.float32) * np.float32(2.1)
    signal = signal + noise * np.sqrt(signal / np.float32(photons))
    return np.asarray(np.maximum(signal, 1e-5), dtype=np.float32)


def develop(signal: F32, pixel_mm: float, inside: npt.NDArray[np.bool_], look: np.random.Generator) -> F32:
    """Log, dynamic-range compression, window and display curve: (H, W) float32 in [0, 1], air black, bone white.

    inside: where the patient is: the window is set on the body alone, as a modality's histogram analysis does.
    """
    density = -np.log(np.minimum(signal, 1.0))
    sigma = look.uniform(22, 34)
    scale = max(1, int(round(6 / pixel_mm)))
    small = cv2.resize(density, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), sigma / pixel_mm / scale)
    coarse = cv2.resize(blurred, density.shape[::-1], interpolation=cv2.INTER_LINEAR)
    flatten = look.uniform(0.05, 0.30)
    edge = look.uniform(0.1, 0.45)
    fine = density - cv2.GaussianBlur(density, (0, 0), max(0.8, 2.5 / pixel_mm))
    picture = density - np.float32(flatten) * (coarse - coarse.mean()) + np.float32(edge) * fine
    values = picture[inside][::7]
    low, high = np.percentile(values, [2, 99.2])
    scaled = (picture - low) / max(float(high - low), 1e-3)
    toe = look.uniform(0.07, 0.20)
    lifted = toe + (0.97 - toe) * scaled
    curve = np.clip(lifted, 0, None) ** look.uniform(0.75, 1.05)
    # The shoulder of the display curve (PS3.3 C.11.2.1.3.1, SIGMOID) instead of a hard stop at white.
    knee = 0.82
    over = np.maximum(curve - knee, 0)
    curve = np.minimum(curve, knee) + (1 - knee) * (1 - np.exp(-over / (1 - knee)))
    return np.asarray(np.clip(curve, 0, 1), dtype=np.float32)
