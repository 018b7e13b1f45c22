"""Rays, coverage and line integrals: the geometry of one exposure.

Patient axes in mm: x to the patient's left (the image's right), y to the front, z to the feet (image rows).
The thorax is sampled on voxels aligned with the rays, so a line integral is a sum along one array axis
and the cone of the beam costs nothing. Thin tubes (ribs, vessels, bronchi) are integrated exactly: the
line integral of a tube of radius r is a disc of radius r swept along its axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Beam:
    """Where source, patient and detector stand. Lengths in mm, angles in radians.

    size: (H, W) pixels. pixel_mm: pixel pitch scaled to the patient's mid-plane. centre: patient (x, z) seen by
    the central ray. source_mm: from source to mid-plane. toward_front: +1 when the beam enters the back (PA), -1 for
    AP. yaw: rotation of the patient about z. roll: tilt in the image plane.
    """

    size: tuple[int, int]
    pixel_mm: float
    centre: tuple[float, float]
    source_mm: float
    toward_front: int
    yaw: float
    roll: float

    def project(self, points: F32) -> F32:
        """Patient points (N, 3) mm -> (N, 2) pixel (row, column), pixel centres at integers."""
        cy, sy = math.cos(self.yaw), math.sin(self.yaw)
        x = points[:, 0] * cy - points[:, 1] * sy
        y = points[:, 0] * sy + points[:, 1] * cy
        scale = self.source_mm / (self.source_mm + self.toward_front * y)
        p = (x - self.centre[0]) * scale / self.pixel_mm
        q = (points[:, 2] - self.centre[1]) * scale / self.pixel_mm
        cr, sr = math.cos(self.roll), math.sin(self.roll)
        rows = p * sr + q * cr + (self.size[0] - 1) / 2
        columns = p * cr - q * sr + (self.size[1] - 1) / 2
        return np.stack([rows, columns], axis=1).astype(np.float32)

    def plane(self, size: tuple[int, int]) -> tuple[F32, F32]:
        """Mid-plane coordinates (x, z) in mm of every ray of a (h, w) grid over the same field, each (h, w) float32."""
        h, w = size
        rows = ((np.arange(h, dtype=np.float32) + 0.5) / h - 0.5) * (self.size[0] * self.pixel_mm)
        columns = ((np.arange(w, dtype=np.float32) + 0.5) / w - 0.5) * (self.size[1] * self.pixel_mm)
        cr, sr = math.cos(self.roll), math.sin(self.roll)
        p = columns[None, :] * np.float32(cr) + rows[:, None] * np.float32(sr)
        q = rows[:, None] * np.float32(cr) - columns[None, :] * np.float32(sr)
        x, z = p + np.float32(self.centre[0]), q + np.float32(self.centre[1])
        return np.asarray(x, dtype=np.float32), np.asarray(z, dtype=np.float32)

    def voxels(self, size: tuple[int, int], depths_mm: F32, rows: int) -> Iterator[tuple[slice, F32, F32, F32]]:
        """Slabs of ray-aligned voxels: (row slice, x, y, z), each array (r, D, w) float32 mm in patient axes.

        size: (h, w) rays. depths_mm: (D,) sample planes. rows: rays' rows per slab (keeps temporaries in the cache).
        """
        plane_x, plane_z = self.plane(size)
        scale = ((self.source_mm + self.toward_front * depths_mm) / self.source_mm)[None, :, None]
        cy, sy = np.float32(math.cos(self.yaw)), np.float32(math.sin(self.yaw))
        depth = depths_mm[None, :, None]
        for start in range(0, size[0], rows):
            part = slice(start, min(start + rows, size[0]))
            across = (plane_x[part, None, :] - np.float32(self.centre[0])) * scale + np.float32(self.centre[0])
            z = (plane_z[part, None, :] - np.float32(self.centre[1])) * scale + np.float32(self.centre[1])
            yield part, across * cy + depth * sy, depth * cy - across * sy, z


def coverage(f: F32) -> F32:
    """Fraction of each voxel where the implicit function f > 0: (r, D, w) float32 -> same shape in [0, 1].

    First order in the local gradient, so surfaces that graze the rays leave no steps in the line integral.
    """
    width = np.full(f.shape, 1e-6, dtype=np.float32)
    for axis in range(3):
        if f.shape[axis] < 2:
            continue
        steps = np.abs(np.diff(f, axis=axis))
        head = [slice(None)] * 3
        tail = [slice(None)] * 3
        head[axis], tail[axis] = slice(0, -1), slice(-1, None)
        width[tuple(head)] += steps
        last = [slice(None)] * 3
        last[axis] = slice(-1, None)
        width[tuple(tail)] += steps[tuple(last)]
    np.divide(f, width, out=width)
    width += np.float32(0.5)
    return np.clip(width, 0.0, 1.0, out=width)


def polyline(points: F32, step_mm: float) -> tuple[F32, F32]:
    """Resample a path (N, 3) mm at about step_mm: points (M, 3) and the length each stands for (M,) mm."""
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    count = max(2, int(along[-1] / step_mm) + 1)
    at = (np.arange(count) + 0.5) * along[-1] / count
    samples = np.stack([np.interp(at, along, points[:, k]) for k in range(3)], axis=1)
    return samples.astype(np.float32), np.full(count, along[-1] / count, dtype=np.float32)


def _disc(radius_px: float) -> F32:
    """A disc of value 1 with an anti-aliased rim, at least one pixel's area in all."""
    half = math.ceil(radius_px + 1)
    fine = 5
    axis = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    inside = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius_px**2).astype(np.float32)
    disc = cv2.resize(inside, (2 * half + 1, 2 * half + 1), interpolation=cv2.INTER_AREA)
    area = math.pi * radius_px**2
    total = float(disc.sum())
    if total > 0:
        return np.asarray(disc * (area / total), dtype=np.float32)
    dot = np.zeros_like(disc)
    dot[half, half] = area
    return np.asarray(dot, dtype=np.float32)


def sweep(beam: Beam, points: F32, lengths_mm: F32, radii_mm: F32, *, levels: int = 10) -> F32:
    """Line integral of tubes: (H, W) float32 mm of tube under every pixel.

    points: (N, 3) mm on the axes, lengths_mm: (N,) axis length per point, radii_mm: (N,); radii are grouped into at
    most `levels` geometric steps.
    """
    h, w = beam.size
    thickness = np.zeros((h, w), dtype=np.float32)
    if len(points) == 0:
        return thickness
    at = beam.project(points)
    low, high = float(radii_mm.min()), float(radii_mm.max())
    count = 1 if high / low < 1.05 else levels
    group = np.zeros(len(points), dtype=int)
    if count > 1:
        group = np.rint(np.log(radii_mm / low) / math.log(high / low) * (count - 1)).astype(int)
    for level in range(count):
        pick = group == level
        if not pick.any():
            continue
        radius_mm = low if count == 1 else low * (high / low) ** (level / (count - 1))
        disc = _disc(radius_mm / beam.pixel_mm)
        margin = disc.shape[0] // 2 + 1
        low_rc = np.maximum(np.floor(at[pick].min(axis=0)).astype(int) - margin, 0)
        high_rc = np.minimum(np.ceil(at[pick].max(axis=0)).astype(int) + margin + 1, (h, w))
        if (high_rc <= low_rc).any():
            continue
        window = (slice(low_rc[0], high_rc[0]), slice(low_rc[1], high_rc[1]))
        shape = high_rc - low_rc
        impulses = _deposit(at[pick] - low_rc.astype(np.float32), lengths_mm[pick], int(shape[0]), int(shape[1]))
        thickness[window] += cv2.filter2D(impulses, cv2.CV_32F, disc, borderType=cv2.BORDER_CONSTANT)
    return thickness


def _deposit(at: F32, weights: F32, h: int, w: int) -> F32:
    """Bilinear deposit of weights at (row, column) positions."""
    base = np.floor(at).astype(int)
    part = at - base
    flat = np.zeros(h * w, dtype=np.float64)
    for dr in (0, 1):
        for dc in (0, 1):
            share = weights * (part[:, 0] if dr else 1 - part[:, 0]) * (part[:, 1] if dc else 1 - part[:, 1])
            r, c = base[:, 0] + dr, base[:, 1] + dc
            inside = (r >= 0) & (r < h) & (c >= 0) & (c < w)
            flat += np.bincount(r[inside] * w + c[inside], weights=share[inside], minlength=h * w)
    return np.asarray(flat.reshape(h, w), dtype=np.float32)
