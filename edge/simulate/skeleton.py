"""Bones of the phantom: ribs and clavicles as swept tubes, vertebrae and scapulae as plates. Lengths in mm.

Every function returns an attenuation image (H, W) float32 without unit: the extra line integral of the bone over the
soft tissue whose place it takes.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edge.simulate.anatomy import Build, lung_section, spine_x
from edge.simulate.projection import Beam, polyline, sweep

F32 = npt.NDArray[np.float32]

# Difference to soft tissue (0.20 / cm), per mm; see `phantom` for the coefficients and their source.
CORTEX = 0.031
MARROW = 0.008


def vertebra_levels(build: Build) -> F32:
    """z of the centres of T1 ... T12 and six lumbar levels, after two cervical ones: (20,) mm."""
    steps = np.concatenate([[16.0, 16.5], 17.5 + 0.75 * np.arange(17)])
    scale = (build.dome[0] - build.apex[0]) / 218.0
    levels = build.apex[0] - 30 + np.concatenate([[0.0], np.cumsum(steps * (0.55 + 0.45 * scale))])
    return np.asarray(levels, dtype=np.float32)


def rib_axis(build: Build, number: int, side: int, drop: float, end: float) -> F32:
    """Axis of rib `number` (1 to 11) from the vertebra to where its bone ends in front: (N, 3) mm."""
    start_z = float(vertebra_levels(build)[number + 1]) - 4.0
    theta = np.linspace(0.10, end, 60) * np.pi
    z = start_z + drop * (theta / np.pi) ** 1.45 - 5.0 * np.sin(np.clip(theta / np.pi, 0, 0.35) / 0.35 * np.pi)
    pick = 0 if side < 0 else 1
    top = build.apex[pick]
    base = build.dome[pick] + build.sulcus * 1.6
    t = np.clip((z - top) / (base - top), 0.02, 0.95)
    axis, across, deep = lung_section(build, t.astype(np.float32))
    reach, depth = axis + across + 3.0, deep + 4.0
    sine, cosine = np.sin(theta), np.cos(theta)
    x = reach * sine**0.85
    x = np.maximum(x, 15.0)
    y = -4.0 - depth * np.sign(cosine) * np.abs(cosine) ** 0.85
    return np.stack([side * x + spine_x(build, z.astype(np.float32)) * np.exp(-x / 40), y, z], axis=1).astype(
        np.float32
    )


def ribs(build: Build, beam: Beam, rng: np.random.Generator) -> F32:
    """Eleven pairs: a cortical shell around marrow, fading out where the cartilage begins."""
    total = np.zeros(beam.size, dtype=np.float32)
    slope = rng.uniform(0.85, 1.15)
    density = rng.uniform(0.75, 1.15)
    outer: list[tuple[F32, F32, F32]] = []
    step = max(0.35, 0.5 * beam.pixel_mm)
    for number in range(1, 12):
        drop = slope * float(np.interp(number, [1, 2, 4, 7, 11], [40, 62, 88, 104, 96])) + rng.normal(0, 2)
        end = float(np.interp(number, [1, 6, 8, 10, 11], [0.86, 0.83, 0.74, 0.60, 0.45])) + rng.normal(0, 0.01)
        radius = float(np.interp(number, [1, 2, 6, 11], [6.2, 5.8, 6.6, 5.0])) * rng.uniform(0.95, 1.05)
        for side in (-1, 1):
            points, lengths = polyline(rib_axis(build, number, side, drop, end), step)
            fade = np.clip((1 - np.linspace(0, 1, len(points))) / 0.10, 0, 1)
            tapered = np.asarray(lengths * fade, dtype=np.float32)
            outer.append((points, tapered, np.full(len(points), radius, dtype=np.float32)))
    points = np.concatenate([part[0] for part in outer])
    weights = np.concatenate([part[1] for part in outer])
    radii = np.concatenate([part[2] for part in outer])
    shell = sweep(beam, points, weights, radii, levels=5)
    core = sweep(beam, points, weights, radii - np.float32(1.05), levels=5)
    # Ribs are flattened front to back; `density` varies with age.
    total += 0.78 * density * (CORTEX * (shell - core) + MARROW * core)
    return total


def clavicles(build: Build, beam: Beam, rng: np.random.Generator) -> F32:
    """Two S-shaped tubes from the manubrium to the shoulders."""
    lift = rng.uniform(-6, 16)
    paths = []
    inner = build.apex[0] + rng.uniform(26, 40)
    outer_x = build.cage + rng.uniform(8, 24)
    for side in (-1, 1):
        t = np.linspace(0, 1, 40)
        x = 14 + (outer_x - 14) * t
        z = inner + (build.shoulder + 16 - lift - inner) * t**0.9 + 7 * np.sin(2 * np.pi * t) + rng.normal(0, 2)
        y = 62 - 70 * t + 14 * np.sin(2 * np.pi * t)
        paths.append(polyline(np.stack([side * x, y, z], axis=1).astype(np.float32), max(0.4, beam.pixel_mm / 2)))
    points = np.concatenate([p for p, _ in paths])
    lengths = np.concatenate([w for _, w in paths])
    ends = np.concatenate([np.linspace(-1, 1, len(p)) for p, _ in paths])
    radii = np.asarray(5.2 + 2.8 * ends**4, dtype=np.float32)
    shell = sweep(beam, points, lengths, radii, levels=5)
    core = sweep(beam, points, lengths, radii - np.float32(1.2), levels=5)
    return np.asarray(0.85 * (CORTEX * (shell - core) + MARROW * core), dtype=np.float32)


def _plate(shape: tuple[int, int], points: F32, blur_px: float) -> F32:
    """A filled polygon of (row, column) corners, softened."""
    canvas = np.zeros(shape, dtype=np.uint8)
    corners = np.rint(points[:, ::-1] * 16).astype(np.int32)
    cv2.fillPoly(canvas, [corners], 255, lineType=cv2.LINE_AA, shift=4)
    plate = canvas.astype(np.float32) / np.float32(255)
    if blur_px > 0.3:
        plate = np.asarray(cv2.GaussianBlur(plate, (0, 0), blur_px), dtype=np.float32)
    return plate


def scapulae(build: Build, beam: Beam, rng: np.random.Generator) -> F32:
    """Thin plates with thick borders beside and over the upper outer lungs, and the heads of the humeri."""
    total = np.zeros(beam.size, dtype=np.float32)
    turn = rng.uniform(-2, 26)  # how far the shoulders were rolled forward: larger is farther out of the lung
    step = max(0.4, beam.pixel_mm / 2)
    for side in (-1, 1):
        medial = build.cage * 0.80 + turn
        top = build.shoulder + 28 + rng.normal(0, 3)
        outline = np.array(
            [
                [medial + 4, top],
                [medial + 46, top - 2],
                [medial + 60, top + 14],
                [medial + 62, top + 34],
                [medial + 50, top + 58],
                [medial + 20, top + 128],
                [medial + 8, top + 134],
                [medial - 2, top + 120],
                [medial - 4, top + 50],
            ]
        )
        corners = np.stack([side * outline[:, 0], np.full(len(outline), -70.0), outline[:, 1]], axis=1)
        corners = corners.astype(np.float32)
        total += 7.0 * MARROW * _plate(beam.size, beam.project(corners), 1.0 / beam.pixel_mm)
        # The lateral border and the spine of the scapula are the edges one sees.
        lateral, lateral_w = polyline(corners[3:7], step)
        spine_path = np.array(
            [[medial, -80, top + 40], [medial + 34, -84, top + 18], [medial + 70, -60, top - 8]], dtype=np.float32
        )
        spine_path[:, 0] *= side
        ridge, ridge_w = polyline(spine_path, step)
        border = sweep(beam, lateral, lateral_w, np.full(len(lateral), 4.4, dtype=np.float32))
        border -= sweep(beam, lateral, lateral_w, np.full(len(lateral), 3.4, dtype=np.float32))
        rim, rim_w = polyline(np.concatenate([corners[6:], corners[:1]]), step)
        border += 0.6 * sweep(beam, rim, rim_w, np.full(len(rim), 1.6, dtype=np.float32))
        border += 0.5 * sweep(beam, ridge, ridge_w, np.full(len(ridge), 3.4, dtype=np.float32))
        total += CORTEX * 1.1 * border
        total += _humerus(beam, side, medial + 84, top + 18, step)
    return total


def _humerus(beam: Beam, side: int, x: float, z: float, step: float) -> F32:
    shaft = np.array([[x, -30, z], [x + 14, -30, z + 60], [x + 22, -30, z + 240]], dtype=np.float32)
    shaft[:, 0] *= side
    points, lengths = polyline(shaft, step)
    down = np.clip((points[:, 2] - z) / 60.0, 0, 1)
    radii = (23.0 - 11.0 * down).astype(np.float32)
    shell = sweep(beam, points, lengths, radii, levels=6)
    core = sweep(beam, points, lengths, radii - 2.0 - 2.5 * down.astype(np.float32), levels=6)
    return np.asarray(CORTEX * 0.6 * (shell - core) + MARROW * 0.7 * core, dtype=np.float32)


def _rounded_box(rows: F32, columns: F32, half: tuple[float, float], corner: float, soft: float) -> F32:
    """Coverage of a rounded rectangle: distances in pixels, softened over `soft` pixels."""
    dr = np.abs(rows) - (half[0] - corner)
    dc = np.abs(columns) - (half[1] - corner)
    outside = np.sqrt(np.maximum(dr, 0) ** 2 + np.maximum(dc, 0) ** 2) + np.minimum(np.maximum(dr, dc), 0) - corner
    return np.asarray(np.clip(0.5 - outside / soft, 0, 1), dtype=np.float32)


def spine(build: Build, beam: Beam, rng: np.random.Generator) -> F32:
    """Vertebral bodies with disc spaces, pedicles, spinous and transverse processes."""
    total = np.zeros(beam.size, dtype=np.float32)
    levels = vertebra_levels(build)
    gaps = np.diff(levels)
    at = beam.project(
        np.stack([spine_x(build, levels), np.full(len(levels), -(build.half_depth - 2)), levels], axis=1).astype(
            np.float32
        )
    )
    density = rng.uniform(0.8, 1.2)
    pixel = beam.pixel_mm
    for index, (row, column) in enumerate(at):
        gap = float(gaps[min(index, len(gaps) - 1)])
        width = (13.0 + 0.62 * index) / pixel
        height = 0.5 * (gap - 3.6 - 0.08 * index) / pixel
        reach = int(40 / pixel)
        r0, r1 = max(0, int(row) - reach), min(beam.size[0], int(row) + reach + 1)
        c0, c1 = max(0, int(column) - reach), min(beam.size[1], int(column) + reach + 1)
        if r0 >= r1 or c0 >= c1:
            continue
        rows = (np.arange(r0, r1, dtype=np.float32) - row)[:, None]
        columns = (np.arange(c0, c1, dtype=np.float32) - column)[None, :]
        waist = columns * (1 + 0.10 * (1 - np.abs(rows) / max(height, 1.0)).clip(0, 1))
        soft = max(1.0, 1.2 / pixel)
        body = _rounded_box(rows, waist, (height, width), min(2.5 / pixel, height * 0.8), soft)
        inner = _rounded_box(rows, waist, (height - 1.2 / pixel, width - 1.2 / pixel), 1.5 / pixel, soft)
        depth = np.sqrt(np.clip(1 - (columns * pixel / (width * pixel + 3)) ** 2, 0, 1)) * (24 + 0.7 * index)
        patch = density * depth * (MARROW * 0.42 * body + CORTEX * 0.10 * (body - inner))
        for side in (-1, 1):
            off = (columns - side * width * 0.66) * 1.25
            ring = np.sqrt(off**2 + (rows + height * 0.15) ** 2) * pixel
            patch = patch + 0.10 * np.exp(-(((ring - 3.6) / 1.1) ** 2))
            process = np.clip(1 - np.abs(rows + 1.0 / pixel) / (4.0 / pixel), 0, 1)
            lateral = np.clip((np.abs(columns) * pixel - 12) / 3, 0, 1) * np.clip(
                (27 - np.abs(columns) * pixel) / 3, 0, 1
            )
            patch = patch + 0.045 * process * lateral
        tip = np.sqrt((columns * 1.6) ** 2 + ((rows - 9 / pixel) * 0.8) ** 2) * pixel
        patch = patch + 0.16 * np.clip((5.5 - tip) / 1.5, 0, 1)
        total[r0:r1, c0:c1] += patch.astype(np.float32)
    return total


def sternum(build: Build, beam: Beam) -> F32:
    """Manubrium and body: a faint plate in front of the spine."""
    top = build.apex[0] + 36
    outline = np.array(
        [[-24, top], [24, top], [27, top + 14], [15, top + 46], [16, top + 140], [0, top + 158], [-16, top + 140],
         [-15, top + 46], [-27, top + 14]]
    )  # fmt: skip
    corners = np.stack([outline[:, 0], np.full(len(outline), 86.0), outline[:, 1]], axis=1).astype(np.float32)
    return np.asarray(11.0 * MARROW * 0.8 * _plate(beam.size, beam.project(corners), 1.2 / beam.pixel_mm))
