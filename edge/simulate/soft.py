"""Everything of the body that is neither lung, heart nor bone: trunk, breasts, arms, and the gas in airway and gut."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edge.simulate import anatomy, vessels
from edge.simulate.anatomy import Build
from edge.simulate.detector import fractal
from edge.simulate.lesions import SOFT
from edge.simulate.projection import Beam, polyline, sweep

F32 = npt.NDArray[np.float32]


def soft_tissue(build: Build, beam: Beam, rng: np.random.Generator, gas_rng: np.random.Generator) -> F32:
    """Attenuation of the body as if it were all soft tissue, less the gas in it: (H, W)."""
    coarse = (max(64, beam.size[0] // 2), max(64, beam.size[1] // 2)) if beam.size[0] > 400 else beam.size
    x, z = beam.plane(coarse)
    half = anatomy.body_half_width(build, z)
    s, deep = build.shoulder, build.torso_depth
    levels = np.array([-80, s - 30, s + 10, s + 90, build.dome[0], build.dome[0] + 120], dtype=np.float32)
    depth = anatomy.smooth_profile(z, levels, np.array([62, 58, 70, 0.9 * deep, deep, 0.94 * deep], dtype=np.float32))
    inside = np.clip(1 - np.abs(x / half) ** 3.2, 0, None)
    thick = 2 * depth * np.cbrt(inside)
    # Abdominal fat and gas make the belly less opaque than solid tissue.
    thick *= 1 - 0.10 * np.clip((z - build.dome[0] - 20) / 120, 0, 1)
    thick *= 1 + 0.018 * fractal(coarse, rng, coarse=3, octaves=4)
    thick += _muscles(build, x, z, rng) + _arms(build, x, z, rng)
    total = np.asarray(cv2.resize(thick.astype(np.float32), beam.size[::-1], interpolation=cv2.INTER_CUBIC))
    total = np.maximum(total, 0) * np.float32(SOFT)
    total -= _gas(build, beam, gas_rng)
    return np.asarray(total, dtype=np.float32)


def _muscles(build: Build, x: F32, z: F32, rng: np.random.Generator) -> F32:
    """Breasts, pectoral folds and the muscle behind the armpit: thickness in mm."""
    thick = np.zeros_like(x)
    droop = rng.uniform(0, 30)
    for side in (-1, 1):
        if build.breast > 0:
            dx = (side * x - build.cage * 0.66) / (build.cage * 0.52)
            dz = (z - (build.dome[0] - 20 + droop)) / 72
            dz = np.where(dz > 0, dz * 1.7, dz)
            bulge = np.clip(1 - dx * dx - dz * dz, 0, 1)
            thick += build.breast * np.sqrt(bulge) * np.clip(bulge * 6, 0, 1)
        fold = (side * x - build.cage * 0.86) * 0.8 + (z - build.shoulder - 110) * 0.55
        thick += rng.uniform(6, 16) / (1 + np.exp(-fold / 7)) * np.clip((build.dome[0] - z) / 90, 0, 1)
    return thick


def _arms(build: Build, x: F32, z: F32, rng: np.random.Generator) -> F32:
    """Upper arms beside the torso: thickness in mm."""
    gap = build.arms
    splay = rng.uniform(0.05, 0.45)
    thick = np.zeros_like(x)
    for side in (-1, 1):
        axis = build.cage + build.wall + 52 + gap + splay * np.clip(z - build.shoulder - 60, 0, None)
        across = np.clip(1 - ((side * x - axis) / 46) ** 2, 0, None)
        thick += 92 * np.sqrt(across) * np.clip((z - build.shoulder - 12) / 50, 0, 1)
    return thick


def _gas(build: Build, beam: Beam, rng: np.random.Generator) -> F32:
    """Attenuation missing where trachea, bronchi, stomach bubble and bowel hold air: (H, W)."""
    missing = np.zeros(beam.size, dtype=np.float32)
    for path, radius in vessels.airways(build, rng):
        points, lengths = polyline(path, max(0.5, beam.pixel_mm / 2))
        missing += sweep(beam, points, lengths, np.full(len(points), radius, dtype=np.float32)) * np.float32(SOFT)
    x, z = beam.plane(beam.size)
    r = build.gas
    floor = build.dome[1] + rng.uniform(7, 12)
    wobble = 0.14 * fractal(beam.size, rng, coarse=5, octaves=2)
    bubble = 1 - ((x - 62 + rng.normal(0, 8)) / (r * 1.6)) ** 2 - ((z - floor - r * 0.7) / (r * 0.75)) ** 2 + wobble
    missing += np.float32(SOFT * 1.5 * r) * np.sqrt(np.clip(bubble, 0, None)) * np.clip((z - floor) / 2, 0, 1)
    bowel = 1 - ((x - 100) / 40) ** 2 - ((z - floor - r * 1.6 - 22) / 24) ** 2 + wobble * 3
    missing += np.float32(SOFT * 18 * rng.uniform(0.2, 1)) * np.sqrt(np.clip(bowel - 0.3, 0, 1))
    return np.asarray(missing, dtype=np.float32)
