"""Pictures that are not chest radiographs: what the gate must refuse, made from a seed.

Every maker draws on a (N, N) float32 canvas in [0, 1]; bones are bright on dark as in a displayed radiograph.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from edge.simulate.detector import fractal

F32 = npt.NDArray[np.float32]
Point = tuple[float, float]  # (x, y) as fractions of the canvas

WORK = 320  # drawing size; the result is scaled to what is asked for


def _tube(canvas: F32, path: list[Point], radii: list[float], value: float, shell: float = 0.0) -> None:
    """Add a tapering bone along a path (fractions): chord thickness, brighter at the rim when shell > 0."""
    n = canvas.shape[0]
    points = np.asarray(path, dtype=np.float64) * n
    t = np.linspace(0, 1, len(points))
    fine = np.linspace(0, 1, 160)
    x, y = np.interp(fine, t, points[:, 0]), np.interp(fine, t, points[:, 1])
    radius = np.interp(fine, np.linspace(0, 1, len(radii)), radii) * n
    mask = np.zeros(canvas.shape, dtype=np.uint8)
    for px, py, r in zip(x, y, radius, strict=True):
        cv2.circle(mask, (round(px * 8), round(py * 8)), round(r * 8), 255, -1, cv2.LINE_AA, 3)
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    widest = max(float(inside.max()), 1.0)
    depth = np.sqrt(np.clip(1 - (1 - np.clip(inside / widest, 0, 1)) ** 2, 0, 1))
    rim = np.exp(-((inside - 0.16 * widest) ** 2) / (0.06 * widest**2 + 1)) * (inside > 0)
    canvas += np.asarray(value * (depth * (1 - 0.4 * shell) + shell * rim), dtype=np.float32)


def _ellipse(n: int, centre: Point, axes: Point, turn: float = 0.0) -> F32:
    """Implicit ellipse: 1 at the centre, 0 on the edge, negative outside; (n, n)."""
    yy, xx = np.mgrid[0:n, 0:n].astype(np.float32) / n
    dx, dy = xx - centre[0], yy - centre[1]
    c, s = np.cos(turn), np.sin(turn)
    return np.asarray(1 - ((dx * c + dy * s) / axes[0]) ** 2 - ((dy * c - dx * s) / axes[1]) ** 2, dtype=np.float32)


def _flesh(f: F32, value: float) -> F32:
    return np.asarray(value * np.sqrt(np.clip(f, 0, 1)), dtype=np.float32)


def _hand(rng: np.random.Generator) -> F32:
    canvas = np.zeros((WORK, WORK), dtype=np.float32)
    wrist = (0.5 + rng.uniform(-0.05, 0.05), 0.98)
    canvas += _flesh(_ellipse(WORK, (0.5, 0.66), (0.24, 0.24)), 0.22)
    _tube(canvas, [wrist, (0.5, 0.75)], [0.13, 0.15], 0.2)
    for finger in range(5):
        angle = np.deg2rad((finger - 2) * rng.uniform(13, 18) + (rng.uniform(18, 30) if finger == 4 else 0))
        reach = (0.46, 0.54, 0.58, 0.54, 0.40)[finger] * rng.uniform(0.95, 1.05)
        base = (0.5 + 0.07 * (finger - 2), 0.80)
        tip = (base[0] + reach * np.sin(angle), base[1] - reach * np.cos(angle))

        def along(part: float, base: Point = base, tip: Point = tip) -> Point:
            return base[0] + (tip[0] - base[0]) * part, base[1] + (tip[1] - base[1]) * part

        _tube(canvas, [along(0.2), tip], [0.045, 0.032], 0.2)
        for start, end in ((0.06, 0.44), (0.48, 0.70), (0.73, 0.86), (0.89, 0.98)):
            _tube(canvas, [along(start), along(end)], [0.024, 0.014, 0.013, 0.021], 0.42, 0.5)
    for _ in range(8):
        at = (0.5 + rng.uniform(-0.1, 0.1), 0.84 + rng.uniform(-0.03, 0.05))
        _tube(canvas, [at, (at[0] + 0.01, at[1] + 0.01)], [rng.uniform(0.02, 0.035)], 0.3, 0.4)
    _tube(canvas, [(0.43, 0.91), (0.42, 1.02)], [0.05, 0.035], 0.42, 0.5)
    _tube(canvas, [(0.57, 0.92), (0.58, 1.02)], [0.035, 0.028], 0.42, 0.5)
    return canvas


def _leg(rng: np.random.Generator) -> F32:
    canvas = np.zeros((WORK, WORK), dtype=np.float32)
    lean, joint = rng.uniform(-0.08, 0.08), rng.uniform(0.35, 0.65)
    width = rng.uniform(0.16, 0.26)
    _tube(canvas, [(0.5 - lean, -0.05), (0.5, joint), (0.5 + lean, 1.05)], [width, width * 0.85, width * 0.8], 0.3)
    _tube(canvas, [(0.5 - lean, -0.05), (0.5, joint - 0.02)], [0.05, 0.05, 0.055, 0.11], 0.45, 0.6)
    _tube(canvas, [(0.5, joint + 0.03), (0.5 + lean, 1.05)], [0.105, 0.06, 0.048, 0.045], 0.45, 0.6)
    _tube(canvas, [(0.59, joint + 0.1), (0.58 + lean, 1.05)], [0.03, 0.02, 0.02], 0.3, 0.6)
    canvas += _flesh(_ellipse(WORK, (0.5, joint - 0.07), (0.055, 0.06)), 0.15)
    return canvas


def _pelvis(rng: np.random.Generator) -> F32:
    canvas = _flesh(_ellipse(WORK, (0.5, 0.45), (rng.uniform(0.46, 0.6), 0.75)), 0.42)
    for side in (-1, 1):
        wing = _ellipse(WORK, (0.5 + side * 0.24, 0.3), (0.13, 0.2), side * 0.55)
        canvas += 0.18 * np.clip(wing * 4, 0, 1) + 0.2 * np.exp(-((wing / 0.12) ** 2))
        hip = (0.5 + side * 0.29, 0.6)
        canvas += _flesh(_ellipse(WORK, hip, (0.075, 0.075)), 0.35)
        femur = [hip, (hip[0] + side * 0.09, 0.68), (hip[0] + side * 0.07, 1.05)]
        _tube(canvas, femur, [0.05, 0.06, 0.05, 0.05], 0.35, 0.5)
        ring = _ellipse(WORK, (0.5 + side * 0.12, 0.74), (0.09, 0.1), side * 0.4)
        canvas += 0.25 * np.exp(-((ring / 0.22) ** 2))
    canvas += 0.25 * np.clip(_ellipse(WORK, (0.5, 0.32), (0.1, 0.18)) * 4, 0, 1)
    for row in range(3):
        _tube(canvas, [(0.46, 0.02 + 0.07 * row), (0.54, 0.02 + 0.07 * row)], [0.028], 0.25, 0.6)
    return canvas


def _skull(rng: np.random.Generator) -> F32:
    size = rng.uniform(0.32, 0.38)
    vault = _ellipse(WORK, (0.5, 0.42), (size, size * 1.1), rng.uniform(-0.3, 0.3))
    canvas = 0.3 * np.clip(vault * 6, 0, 1) + 0.5 * np.exp(-((vault - 0.08) ** 2) / 0.004)
    canvas += _flesh(_ellipse(WORK, (0.5, 0.78), (0.2, 0.24)), 0.3)
    for side in (-1, 1):
        socket = _ellipse(WORK, (0.5 + side * 0.13, 0.53), (0.085, 0.075))
        canvas += 0.28 * np.exp(-((socket / 0.2) ** 2)) - 0.12 * np.clip(socket, 0, 1)
    canvas -= 0.15 * np.clip(_ellipse(WORK, (0.5, 0.63), (0.04, 0.07)) * 2, 0, 1)
    for tooth in range(9):
        _tube(canvas, [(0.4 + 0.025 * tooth, 0.74), (0.4 + 0.025 * tooth, 0.82)], [0.01], 0.35, 0.3)
    _tube(canvas, [(0.34, 0.68), (0.38, 0.86), (0.5, 0.92), (0.62, 0.86), (0.66, 0.68)], [0.035], 0.22, 0.6)
    return np.asarray(canvas, dtype=np.float32)


def _breast(rng: np.random.Generator) -> F32:
    disc = _ellipse(WORK, (0.0, rng.uniform(0.42, 0.58)), (rng.uniform(0.55, 0.85), rng.uniform(0.38, 0.5)))
    tissue = np.clip(fractal((WORK, WORK), rng, coarse=5, octaves=5) * 0.25 + 0.5, 0, 1)
    gland = np.clip(disc * rng.uniform(1.2, 2.2), 0, 1) * tissue
    canvas = np.clip(disc * 9, 0, 1) * (0.28 + 0.6 * gland * rng.uniform(0.5, 1.1))
    if rng.random() < 0.6:
        yy, xx = np.mgrid[0:WORK, 0:WORK] / WORK
        canvas += 0.35 * np.clip((0.32 - xx - 0.55 * yy) * 25, 0, 1)
    return np.asarray(canvas[:, ::-1] if rng.random() < 0.5 else canvas, dtype=np.float32)


def _landscape(rng: np.random.Generator) -> F32:
    yy = np.linspace(0, 1, WORK, dtype=np.float32)[:, None]
    red, green, blue = 0.45 + 0.35 * yy, 0.6 + 0.25 * yy, 0.9 - 0.05 * yy
    clouds = np.clip(fractal((WORK, WORK), rng, coarse=3, octaves=5) * 0.5, 0, 1)
    bands = [np.broadcast_to(band, (WORK, WORK)) * (1 - clouds) + clouds for band in (red, green, blue)]
    horizon = rng.uniform(0.35, 0.6)
    for layer in range(int(rng.integers(2, 5))):
        ridge = np.zeros(WORK)
        for octave in range(6):
            knots = rng.standard_normal(3 * 2**octave + 2)
            ridge += np.interp(np.linspace(0, len(knots) - 1, WORK), np.arange(len(knots)), knots) * 0.5**octave
        line = horizon + 0.12 * layer + 0.05 * ridge
        ground = yy > line[None, :]
        rough = 1 + 0.25 * fractal((WORK, WORK), rng, coarse=24, octaves=4)
        colour = np.array([0.28, 0.42, 0.22]) * rng.uniform(0.5, 1.3, 3)
        for index in range(3):
            bands[index] = np.where(ground, np.clip(colour[index] * rough * (1 - 0.1 * layer), 0, 1), bands[index])
    for _ in range(int(rng.integers(0, 9))):
        x, y, r = rng.uniform(0, 1), rng.uniform(horizon, 0.9), rng.uniform(0.02, 0.09)
        crown = _ellipse(WORK, (x, y), (r, r * 1.4)) + 0.5 * fractal((WORK, WORK), rng, coarse=30, octaves=2) > 0.3
        trunk = np.zeros((WORK, WORK), dtype=np.float32)
        _tube(trunk, [(x, y), (x, y + 2.2 * r)], [r * 0.15], 1.0)
        for index, shade in enumerate((0.1, 0.22, 0.08)):
            bands[index] = np.where(crown | (trunk > 0.1), shade, bands[index])
    # Luminance of ITU-R BT.601.
    return np.asarray(0.299 * bands[0] + 0.587 * bands[1] + 0.114 * bands[2], dtype=np.float32)


def _text(rng: np.random.Generator) -> F32:
    page = np.full((WORK, WORK), 235, dtype=np.uint8)
    left, y, step = int(rng.integers(12, 40)), int(rng.integers(18, 50)), int(rng.integers(9, 17))
    letters = "abcdefghijklmnopqrstuvwxyz"
    while y < WORK - 12:
        x = left
        while x < WORK - left - 30 and rng.random() > 0.04:
            word = "".join(letters[k] for k in rng.integers(0, 26, int(rng.integers(2, 9))))
            cv2.putText(page, word, (x, y), cv2.FONT_HERSHEY_SIMPLEX, step / 42, 30, 1, cv2.LINE_AA)
            x += int(len(word) * step * 0.48) + 6
        y += step * (2 if rng.random() < 0.12 else 1)
    corners = np.array([[0, 0], [WORK, 0], [WORK, WORK], [0, WORK]], dtype=np.float32)
    moved = corners + rng.uniform(-28, 28, (4, 2)).astype(np.float32)
    turned = cv2.warpPerspective(page, cv2.getPerspectiveTransform(corners, moved), (WORK, WORK), borderValue=70.0)
    light = 0.85 + 0.1 * fractal((WORK, WORK), rng, coarse=2, octaves=2)
    return np.asarray(turned.astype(np.float32) / 255 * light, dtype=np.float32)


def _noise(rng: np.random.Generator) -> F32:
    coarse = int(rng.choice([2, 4, 16, 64, 160]))
    return np.asarray(0.5 + rng.uniform(0.08, 0.25) * fractal((WORK, WORK), rng, coarse=coarse), dtype=np.float32)


def _gradient(rng: np.random.Generator) -> F32:
    yy, xx = np.mgrid[0:WORK, 0:WORK].astype(np.float32) / WORK - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    ramp = xx * np.cos(angle) + yy * np.sin(angle) if rng.random() < 0.6 else np.hypot(xx, yy)
    return np.asarray(0.5 + ramp * rng.uniform(0.0, 1.4), dtype=np.float32)


_MAKERS: dict[str, Callable[[np.random.Generator], F32]] = {
    "hand": _hand,
    "leg": _leg,
    "pelvis": _pelvis,
    "skull": _skull,
    "breast": _breast,
    "landscape": _landscape,
    "text": _text,
    "noise": _noise,
    "gradient": _gradient,
}  # fmt: skip
_RADIOGRAPHS = ("hand", "leg", "pelvis", "skull")

OTHER_KINDS: tuple[str, ...] = tuple(_MAKERS)


def make_other(kind: str, seed: int, size: int = 256) -> F32:
    """A picture that is not a chest radiograph: (size, size) float32 in [0, 1], deterministic in kind and seed.

    Raises ValueError for a kind outside `OTHER_KINDS`.
    """
    if kind not in _MAKERS:
        raise ValueError(f"expected a kind of {OTHER_KINDS}, got {kind!r}")
    rng = np.random.default_rng([seed & 0xFFFFFFFF, OTHER_KINDS.index(kind)])
    picture = _MAKERS[kind](rng)
    if kind in _RADIOGRAPHS:
        zoom, turn = rng.uniform(0.85, 1.3), rng.uniform(-25, 25)
        matrix = cv2.getRotationMatrix2D((WORK / 2, WORK / 2), turn, zoom)
        picture = np.asarray(cv2.warpAffine(picture, matrix, (WORK, WORK)), dtype=np.float32)
        grain = 1 + 0.05 * fractal(picture.shape, rng, coarse=6, octaves=5)
        picture = np.asarray(1 - np.exp(-picture * grain * rng.uniform(1.0, 1.9)), dtype=np.float32)
    scaled = cv2.resize(np.ascontiguousarray(picture), (size, size), interpolation=cv2.INTER_AREA)
    scaled = scaled + rng.normal(0, rng.uniform(0.002, 0.02), scaled.shape)
    return np.asarray(np.clip(scaled, 0, 1), dtype=np.float32)
