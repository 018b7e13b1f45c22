"""From attenuation to a displayed image: Beer-Lambert, scatter, quantum noise, log, processing and display curve."""

from __future__ import annotations

from dataclasses import dataclass

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


def expose(
    attenuation: F32, pixel_mm: float, scatter: float, exposure: float = 1.0, rng: np.random.Generator | None = None
) -> F32:
    """Detector signal relative to the open field, (H, W) float32 > 0; without `rng` free of noise.

    I = exp(-L) (Beer-Lambert), plus scatter as a share of the light blurred over some 4 cm (the wide kernel of the
    convolution model of scatter, Love and Kruger, Med Phys 14, 1987), plus Poisson noise in its Gaussian limit.
    exposure: 1 is the usual dose; noise falls with its root.
    """
    primary = np.exp(-attenuation)
    scale = max(1, round(8 / pixel_mm))
    small = cv2.resize(np.minimum(primary, 0.25), None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    haze = cv2.GaussianBlur(small, (0, 0), 40.0 / pixel_mm / scale, borderType=cv2.BORDER_REPLICATE)
    signal = primary + np.float32(scatter) * cv2.resize(haze, primary.shape[::-1], interpolation=cv2.INTER_LINEAR)
    if rng is None:
        return np.asarray(signal, dtype=np.float32)
    photons = PHOTONS_PER_MM2 * pixel_mm**2 * exposure
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.6), dtype=np.float32) * np.float32(2.1)
    signal = signal + noise * np.sqrt(signal / np.float32(photons))
    return np.asarray(np.maximum(signal, 1e-5), dtype=np.float32)


@dataclass(frozen=True)
class Look:
    """Processing and display curve of one exposure. Lengths in mm, levels in log units."""

    reach: float  # how wide the dynamic-range compression averages
    flatten: float  # its strength
    edge: float  # strength of the edge enhancement
    low: float
    high: float
    mean: float  # level around which the compression works
    toe: float  # displayed value of `low`
    gamma: float


def choose_look(signal: F32, pixel_mm: float, inside: npt.NDArray[np.bool_], rng: np.random.Generator) -> Look:
    """Window and processing from the histogram of the body, as a modality does after the exposure."""
    reach, flatten, edge = rng.uniform(22, 34), rng.uniform(0.05, 0.30), rng.uniform(0.1, 0.45)
    density = -np.log(np.minimum(signal, 1.0))
    coarse = cv2.GaussianBlur(density, (0, 0), reach / pixel_mm)
    mean = float(coarse.mean())
    values = (density - np.float32(flatten) * (coarse - mean))[inside]
    low, high = (float(v) for v in np.percentile(values, [2, 99.2]))
    return Look(reach, flatten, edge, low, high, mean, rng.uniform(0.07, 0.20), rng.uniform(0.75, 1.05))


def develop(signal: F32, pixel_mm: float, look: Look) -> F32:
    """Log, dynamic-range compression, window and display curve: (H, W) float32 in [0, 1], air black, bone white."""
    density = -np.log(np.minimum(signal, 1.0))
    scale = max(1, round(6 / pixel_mm))
    small = cv2.resize(density, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), look.reach / pixel_mm / scale)
    coarse = cv2.resize(blurred, density.shape[::-1], interpolation=cv2.INTER_LINEAR)
    fine = density - cv2.GaussianBlur(density, (0, 0), max(0.8, 2.5 / pixel_mm))
    picture = density - np.float32(look.flatten) * (coarse - np.float32(look.mean)) + np.float32(look.edge) * fine
    scaled = (picture - look.low) / max(look.high - look.low, 1e-3)
    curve = np.clip(look.toe + (0.97 - look.toe) * scaled, 0, None) ** look.gamma
    # A soft shoulder of the display curve instead of a hard stop at white (as VOI LUT Function SIGMOID, PS3.3 C.11.2).
    knee = 0.82
    over = np.maximum(curve - knee, 0)
    curve = np.minimum(curve, knee) + (1 - knee) * (1 - np.exp(-over / (1 - knee)))
    return np.asarray(np.clip(curve, 0, 1), dtype=np.float32)
