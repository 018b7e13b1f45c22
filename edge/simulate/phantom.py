"""A procedural adult thorax on an X-ray detector, with the ground truth of side, zone and masks.

Voxels of lung, heart, vessels and diaphragm are sampled along the rays (`projection`) and integrated by
Beer-Lambert's law, I = I0 exp(-sum mu_i t_i). Attenuation at an effective energy of 70 keV, rounded, per cm: soft
tissue 0.20, fluid 0.20, aerated lung 0.05 (0.26 g/cm3), cortical bone 0.51, marrow-filled bone 0.28, air 0
(NIST XCOM / Hubbell and Seltzer, NISTIR 5632, tables for water, ICRU-44 soft tissue, lung and cortical bone).

Displayed convention: the patient's right is on the image's left, for PA and AP alike.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from edge.report.schema import Box, Side, Zone
from edge.simulate import anatomy, skeleton, vessels
from edge.simulate.anatomy import Build
from edge.simulate.detector import choose_look, develop, expose, fractal
from edge.simulate.lesions import LUNG, SOFT_OVER_LUNG, Growth, Lesion, outside_lung, random_lesion
from edge.simulate.other import OTHER_KINDS, make_other
from edge.simulate.projection import Beam, coverage, sweep
from edge.simulate.soft import soft_tissue

__all__ = [
    "OTHER_KINDS", "Lesion", "Phantom", "PhantomOptions", "PhantomTruth", "make_other", "make_phantom",
    "random_lesion",
]  # fmt: skip

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

VISIBLE_MM = 22.0  # lung thinner than this along the ray does not read as lung
SOLID_MM = 70.0  # rays with more of great vessels and spine than this read as mediastinum, not lung
CHANGED = 0.045  # change of the attenuation line integral that counts as lesion


@dataclass(frozen=True)
class PhantomOptions:
    """What to make. Everything left at None is drawn from the seed within adult ranges.

    size: pixels, one number for a square or (H, W). detail: "full" or "fast" (fewer voxels and vessels, for training).
    exposure: dose relative to the usual (noise). rotation_deg: about the long axis. heart_scale: width of the heart.
    collimation: share of each edge covered by the collimator's black border (0 to 0.2).
    """

    seed: int = 0
    lesion: Lesion | None = None
    view: Literal["PA", "AP"] = "PA"
    size: int | tuple[int, int] = 1024
    detail: Literal["full", "fast"] = "full"
    exposure: float = 1.0
    rotation_deg: float | None = None
    tilt_deg: float | None = None
    heart_scale: float = 1.0
    marker: bool = True
    collimation: float = 0.0


@dataclass(frozen=True)
class PhantomTruth:
    """What is in the image. Masks are (H, W) bool; lungs include the part behind the heart, as annotators draw them.

    box: around the lesion as fractions of the image; None (and finding None) when there is no lesion.
    """

    finding: str | None
    side: Side
    zone: Zone
    box: Box | None
    right_lung: Mask
    left_lung: Mask
    mediastinum: Mask
    lesion: Mask


@dataclass(frozen=True)
class Phantom:
    """pixels: (H, W) float32 in [0, 1], MONOCHROME2 sense. pixel_mm: pixel pitch at the detector."""

    pixels: F32
    truth: PhantomTruth
    options: PhantomOptions
    pixel_mm: float


@dataclass(frozen=True)
class _Integrals:
    """Line integrals on the ray grid (h, w) float32: lengths in mm, `change` an attenuation."""

    right: F32
    left: F32
    heart: F32
    solid: F32  # great vessels and spine
    change: F32
    free: F32  # length of free air in a pneumothorax
    dome: F32  # mid-plane z of the silhouette of the diaphragm
    level: F32  # mid-plane z of the ray


def make_phantom(options: PhantomOptions | None = None) -> Phantom:
    """Build, expose and develop one thorax. Deterministic: same options, same pixels."""
    options = options or PhantomOptions()
    lesion = options.lesion
    scale, inflated = options.heart_scale, False
    if lesion is not None and lesion.kind == "cardiomegaly":
        scale *= 1.28 + 0.27 * lesion.severity
    if lesion is not None and lesion.kind == "emphysema":
        inflated = True
    build = anatomy.draw_build(_stream(options.seed, "build"), scale, inflated)
    beam = _beam(options, build)
    growth = None if lesion is None else Growth(lesion, build, _stream(options.seed, "lesion"))
    integrals = _integrate(options, build, beam, growth)
    right, left = (_to_detector(part, beam) for part in (integrals.right, integrals.left))
    lungs = right + left
    plain = _to_detector(integrals.change, beam)
    change = _textured(options, plain, growth)
    attenuation = (
        soft_tissue(build, beam, _stream(options.seed, "soft"), _stream(options.seed, "gas"))
        - np.float32(SOFT_OVER_LUNG) * lungs
    )
    attenuation += _lung_markings(options, build, beam, lungs, growth)
    attenuation += _bones(options, build, beam)
    if inflated:
        attenuation -= np.float32(0.0014) * lungs
    pixels = _image(options, beam, np.maximum(attenuation, 0.0), change)
    truth = _truth(options, build, integrals, beam, plain)
    # The detector stands some 13 cm behind the mid-plane.
    return Phantom(pixels, truth, options, float(beam.pixel_mm * (1 + 130.0 / beam.source_mm)))


def _source_mm(options: PhantomOptions) -> float:
    """Distance from the source to the patient's middle, mm: 1.8 m stand for PA, 1 m bedside for AP."""
    return 1680.0 if options.view == "PA" else 980.0


def _stream(seed: int, part: str) -> np.random.Generator:
    """One random stream per part, so that a lesion changes nothing but itself."""
    return np.random.default_rng([seed & 0xFFFFFFFF, zlib.crc32(part.encode())])


def _beam(options: PhantomOptions, build: Build) -> Beam:
    rng = _stream(options.seed, "beam")
    h, w = (options.size, options.size) if isinstance(options.size, int) else options.size
    field = 2 * build.cage * rng.uniform(1.12, 1.36)
    top = build.apex[0] - rng.uniform(18, 52)
    needed = (build.dome[1] + build.sulcus + rng.uniform(8, 50)) - top
    pixel = max(field / w, needed / h)
    rotation = rng.uniform(-3.5, 3.5) if options.rotation_deg is None else options.rotation_deg
    tilt = rng.uniform(-2.0, 2.0) if options.tilt_deg is None else options.tilt_deg
    return Beam(
        size=(h, w),
        pixel_mm=pixel,
        centre=(float(rng.normal(0, 5)), float(top + pixel * h / 2)),
        source_mm=_source_mm(options),
        toward_front=1 if options.view == "PA" else -1,
        yaw=float(np.deg2rad(rotation)),
        roll=float(np.deg2rad(tilt)),
    )


def _integrate(options: PhantomOptions, build: Build, beam: Beam, growth: Growth | None) -> _Integrals:
    """Sum the ray-aligned voxels of lungs, heart and lesion along the rays."""
    h, w = beam.size
    finest = 1.35 if options.detail == "full" else 2.6
    step = max(finest / beam.pixel_mm, 1.0)
    grid = (max(32, round(h / step)), max(32, round(w / step)))
    half = build.half_depth + 8
    count = 56 if options.detail == "full" else 30
    depths = ((np.arange(count) + 0.5) / count * 2 - 1) * half
    dy = np.float32(2 * half / count)
    maps = {
        name: np.zeros(grid, dtype=np.float32) for name in ("right", "left", "heart", "solid", "change", "free", "dome")
    }
    for part, x, y, z in beam.voxels(grid, depths.astype(np.float32), 6):
        floor = anatomy.diaphragm(build, x, y)
        maps["dome"][part] = floor.min(axis=1)
        top = float(z.min())
        cavity = anatomy.pleural_cavity(build, x, y, z)
        medial = np.maximum(anatomy.great_vessels(build, x, y, z), anatomy.spine_column(build, x, y, z))
        maps["solid"][part] = coverage(medial).sum(axis=1) * dy
        if top > build.arch - 20:
            muscle = anatomy.heart(build, x, y, z)
            maps["heart"][part] = (coverage(muscle)).sum(axis=1) * dy
            medial = np.maximum(medial, muscle)
        medial = np.maximum(medial, 1 - np.abs(x) / np.float32(3.0))
        lung = coverage(cavity) * (1 - coverage(medial))
        if float(z.max()) > min(build.dome) - 30:
            lung *= coverage(floor - z)
        side = x < 0
        maps["right"][part] = np.where(side, lung, 0).sum(axis=1) * dy
        maps["left"][part] = np.where(side, 0, lung).sum(axis=1) * dy
        if growth is not None and growth.lesion.kind not in ("cardiomegaly", "emphysema"):
            change = growth.change(x, y, z, lung, cavity) + outside_lung(growth.lesion, build, x, y, z)
            maps["change"][part] = change.sum(axis=1) * dy
            inner = growth.collapsed(x, y, z)
            if inner is not None:
                maps["free"][part] = (lung * (inner < 0)).sum(axis=1) * dy
    return _Integrals(**maps, level=beam.plane(grid)[1])


def _to_detector(grid: F32, beam: Beam) -> F32:
    h, w = beam.size
    if grid.shape == (h, w):
        return grid
    return np.asarray(cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _textured(options: PhantomOptions, change: F32, growth: Growth | None) -> F32:
    if growth is None or growth.textured == 0:
        return change
    coarse = 40 if growth.lesion.kind == "fibrosis" else 14
    noise = fractal(change.shape, _stream(options.seed, "texture"), coarse=coarse, octaves=3)
    if growth.lesion.kind == "fibrosis":
        noise = np.asarray(np.abs(noise) * -2 + 1.2, dtype=np.float32)  # ridges: a net of lines
    return np.asarray(change * np.clip(1 + growth.textured * noise, 0.1, 2.5), dtype=np.float32)


def _lung_markings(options: PhantomOptions, build: Build, beam: Beam, lungs: F32, growth: Growth | None) -> F32:
    """Vessels in the lungs and the fine grain of the parenchyma: attenuation (H, W)."""
    rng = _stream(options.seed, "vessels")

    def inside(x: F32, y: F32, z: F32) -> F32:
        above = (anatomy.diaphragm(build, x, y) - z) / np.float32(60.0)
        return np.asarray(np.minimum(anatomy.pleural_cavity(build, x, y, z), above), dtype=np.float32)

    generations = 7 if options.detail == "full" else 6
    points, lengths, radii = vessels.pulmonary(build, inside, rng, generations)
    seen = anatomy.heart(build, points[:, 0], points[:, 1], points[:, 2]) < 0
    inner = None if growth is None else growth.collapsed(points[:, 0], points[:, 1], points[:, 2])
    if inner is not None:
        seen &= inner > 0
    points, lengths, radii = points[seen], lengths[seen], radii[seen]
    thick = sweep(beam, points, lengths, radii * np.float32(0.82), levels=9 if options.detail == "full" else 6)
    grain = fractal(beam.size, rng, coarse=48, octaves=3)
    return np.asarray(
        np.float32(SOFT_OVER_LUNG * 1.3) * thick + np.float32(LUNG * 0.045) * grain * np.maximum(lungs, 0),
        dtype=np.float32,
    )


def _bones(options: PhantomOptions, build: Build, beam: Beam) -> F32:
    total = skeleton.ribs(build, beam, _stream(options.seed, "ribs"))
    total += skeleton.clavicles(build, beam, _stream(options.seed, "clavicles"))
    total += skeleton.scapulae(build, beam, _stream(options.seed, "scapulae"))
    total += skeleton.spine(build, beam, _stream(options.seed, "spine"))
    total += skeleton.sternum(build, beam)
    return total


def _image(options: PhantomOptions, beam: Beam, healthy: F32, change: F32) -> F32:
    """Expose and develop. The window is set on the patient without the lesion, so that only its place changes."""
    rng = _stream(options.seed, "detector")
    scatter = float(rng.uniform(0.10, 0.22))
    scale = max(1.0, max(beam.size) / 160)
    small = np.asarray(cv2.resize(healthy, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA))
    pitch = beam.pixel_mm * scale
    look = choose_look(expose(small, pitch, scatter), pitch, small > 0.6, _stream(options.seed, "look"))
    attenuation = np.maximum(healthy + change, 0.0)
    pixels = develop(expose(attenuation, beam.pixel_mm, scatter, options.exposure, rng), beam.pixel_mm, look)
    if options.marker:
        _mark(pixels, _stream(options.seed, "marker"))
    if options.collimation > 0:
        h, w = pixels.shape
        dr, dc = int(h * options.collimation), int(w * options.collimation)
        frame = np.zeros_like(pixels)
        frame[dr : h - dr, dc : w - dc] = pixels[dr : h - dr, dc : w - dc]
        pixels = frame
    return pixels


def _mark(pixels: F32, rng: np.random.Generator) -> None:
    """The lead letter at the patient's left shoulder (right half of the image)."""
    h, w = pixels.shape
    at = (int(w * rng.uniform(0.88, 0.94)), int(h * rng.uniform(0.06, 0.14)))
    size = w / 1024 * rng.uniform(0.9, 1.5)
    letter = np.zeros((h, w), dtype=np.uint8)
    cv2.putText(letter, "L", at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, max(1, round(3 * size)), cv2.LINE_AA)
    np.maximum(pixels, letter.astype(np.float32) / np.float32(260), out=pixels)


def _truth(options: PhantomOptions, build: Build, parts: _Integrals, beam: Beam, change: F32) -> PhantomTruth:
    h, w = beam.size
    above = parts.level < parts.dome + 3.0
    above_spine = above & (parts.solid < SOLID_MM)
    right, left = (parts.right > VISIBLE_MM) & above_spine, (parts.left > VISIBLE_MM) & above_spine
    heart = _full((parts.heart > 12.0) & above, h, w)
    right, left = _full(right, h, w), _full(left, h, w)
    arch_row = int(beam.project(np.array([[0.0, 0.0, build.arch - 22]], dtype=np.float32))[0, 0])
    mediastinum = heart | (_between(right, left, heart, max(arch_row, 0)) & _full(above, h, w))
    kind = options.lesion.kind if options.lesion else None
    if kind == "cardiomegaly":
        lesion = heart
    elif kind == "emphysema":
        lesion = right | left
    else:
        lesion = np.abs(change) > CHANGED
    if kind == "pneumothorax":
        # What a reader sees: the rim outside the pleural line, where the ray meets little but free air.
        lesion = _full((parts.free > 0.55 * (parts.right + parts.left)) & (parts.free > 12.0) & above, h, w)
    if kind == "hernia":
        lesion = _filled(lesion)
    if options.lesion is None:
        return PhantomTruth(None, "unspecified", "unspecified", None, right, left, mediastinum, lesion)
    rows, columns = np.flatnonzero(lesion.any(axis=1)), np.flatnonzero(lesion.any(axis=0))
    box = None
    if len(rows):
        box = Box(columns[0] / w, rows[0] / h, (columns[-1] + 1) / w, (rows[-1] + 1) / h)
    return PhantomTruth(kind, options.lesion.side, options.lesion.zone, box, right, left, mediastinum, lesion)


def _full(grid: npt.NDArray[np.generic], h: int, w: int) -> Mask:
    smooth = cv2.resize(grid.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR)
    return np.asarray(smooth > 0.5)


def _filled(mask: Mask) -> Mask:
    """The convex hull of a mask: the hidden middle of a shape that only shows beside the spine."""
    points = cv2.findNonZero(mask.astype(np.uint8))
    if points is None:
        return mask
    canvas = np.zeros(mask.shape, dtype=np.uint8)
    cv2.fillConvexPoly(canvas, cv2.convexHull(points), 1)
    return np.asarray(canvas > 0)


def _between(right: Mask, left: Mask, heart: Mask, first: int) -> Mask:
    """The strip between the lungs, row by row, from above the aortic arch down to the heart's lower edge."""
    strip = np.zeros_like(right)
    rows = np.flatnonzero(heart.any(axis=1))
    last = int(rows[-1]) if len(rows) else 0
    for row in range(first, last + 1):
        ours, theirs = np.flatnonzero(right[row]), np.flatnonzero(left[row])
        if len(ours) and len(theirs):
            strip[row, ours[-1] + 1 : theirs[0]] = True
    return strip
