"""Pulmonary vessels and airways: branching trees grown from the hila. Lengths in mm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge.simulate.anatomy import Build, carina, hilum

F32 = npt.NDArray[np.float32]
Inside = Callable[[F32, F32, F32], F32]


def grow(
    root: F32, headings: F32, radius_mm: float, inside: Inside, rng: np.random.Generator, generations: int
) -> tuple[F32, F32, F32]:
    """Grow trees from `root`: points (N, 3), axis length per point (N,), radii (N,), all float32 mm.

    headings: (K, 3) first directions. Each branch divides in two of about 0.79 of its radius (Murray's law, Proc
    Natl Acad Sci 12, 1926: the sum of the cubes is kept), lengths fall in step;
    points where `inside(x, y, z)` is <= 0 are dropped.
    """
    starts = np.repeat(root[None, :], len(headings), axis=0).astype(np.float32)
    directions = headings / np.linalg.norm(headings, axis=1, keepdims=True)
    radii = radius_mm * rng.uniform(0.75, 1.0, len(headings))
    length = 31.0
    points: list[F32] = []
    lengths: list[F32] = []
    widths: list[F32] = []
    for _ in range(generations):
        count = len(starts)
        reach = length * rng.uniform(0.7, 1.3, count)
        bend = rng.normal(0, 0.42, (count, 3))
        steps = max(4, int(length / 1.2))
        t = ((np.arange(steps) + 0.5) / steps)[None, :, None]
        ends = starts + directions * reach[:, None]
        curve = starts[:, None, :] + (ends - starts)[:, None, :] * t + (bend * reach[:, None])[:, None, :] * t * (1 - t)
        taper = radii[:, None] * (1 - 0.2 * t[..., 0])
        points.append(curve.reshape(-1, 3).astype(np.float32))
        lengths.append(np.repeat(reach / steps, steps).astype(np.float32))
        widths.append(taper.reshape(-1).astype(np.float32))
        spread = rng.normal(0, 1, (count, 3))
        spread -= (spread * directions).sum(1, keepdims=True) * directions
        spread /= np.linalg.norm(spread, axis=1, keepdims=True)
        angle = rng.uniform(0.28, 0.62, (count, 2, 1))
        outward = np.stack([directions + spread * angle[:, 0], directions - spread * angle[:, 1]], axis=1)
        share = rng.uniform(0.68, 0.88, (count, 2))
        starts = np.repeat(ends, 2, axis=0).astype(np.float32)
        directions = outward.reshape(-1, 3)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        radii = (radii[:, None] * share).reshape(-1)
        length *= 0.80
        alive = inside(starts[:, 0], starts[:, 1], starts[:, 2]) > -0.35
        starts, directions, radii = starts[alive], directions[alive], radii[alive]
        if len(starts) == 0:
            break
    every = np.concatenate(points)
    keep = inside(every[:, 0], every[:, 1], every[:, 2]) > 0.03
    return every[keep], np.concatenate(lengths)[keep], np.concatenate(widths)[keep]


def pulmonary(build: Build, inside: Inside, rng: np.random.Generator, generations: int) -> tuple[F32, F32, F32]:
    """Arteries and veins of both lungs, larger toward the bases as in an upright patient."""
    parts = []
    for side in (-1, 1):
        root = hilum(build, side)
        for height, radius, count in ((18.0, 4.6, 5), (2.0, 4.2, 3), (-12.0, 3.6, 4)):
            up = np.linspace(-1.0, 0.3, count) if height < 0 else np.linspace(0.1, 1.2, count)
            headings = np.stack(
                [side * rng.uniform(0.25, 1.0, count), rng.uniform(-0.8, 0.6, count), up + rng.normal(0, 0.15, count)],
                axis=1,
            )
            start = root + np.array([side * rng.uniform(-4, 3), 0.0, height], dtype=np.float32)
            parts.append(grow(start, headings.astype(np.float32), radius, inside, rng, generations))
        # Central arteries: the comma of the hilum itself.
        t = np.linspace(0, 1, 40, dtype=np.float32)
        comma = root + np.stack([side * (9 * np.sin(np.pi * t) - 2), -6 * t, -14 + 52 * t], axis=1).astype(np.float32)
        parts.append((comma, np.full(40, 1.4, dtype=np.float32), (6.8 - 2.8 * t).astype(np.float32)))
    return (
        np.concatenate([p[0] for p in parts]),
        np.concatenate([p[1] for p in parts]),
        np.concatenate([p[2] for p in parts]),
    )


def airways(build: Build, rng: np.random.Generator) -> list[tuple[F32, float]]:
    """Trachea and main bronchi: (path (N, 3), radius) each."""
    fork = carina(build)
    sway = rng.uniform(-3, 3)
    top = np.array([sway, -6.0, -70.0], dtype=np.float32)
    middle = np.array([sway * 0.6 + 1.0, -10.0, build.apex[0] + 20], dtype=np.float32)
    right, left = hilum(build, -1), hilum(build, 1)
    return [
        (np.stack([top, middle, fork]), float(rng.uniform(7.0, 9.0))),
        (np.stack([fork, right + np.array([4, -8, 2], dtype=np.float32)]), 6.4),
        (np.stack([fork, left + np.array([2, -8, 14], dtype=np.float32)]), 5.6),
    ]
