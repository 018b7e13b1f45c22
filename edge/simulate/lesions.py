"""Lesions of known kind, side and zone, as changes of the attenuation of lung voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.report.schema import Side, Zone
from edge.simulate.anatomy import (
    Build,
    ball,
    diaphragm,
    heart,
    hilum,
    level,
    lung_section,
    pleural_cavity,
    spine_column,
)

F32 = npt.NDArray[np.float32]

SOFT_OVER_LUNG = 0.0150  # attenuation of fluid over aerated lung, per mm
LUNG = 0.0050  # attenuation of aerated lung, per mm
SOFT = 0.0200

_ONE_SIDE: tuple[Side, ...] = ("left", "right")
_ANY_ZONE: tuple[Zone, ...] = ("upper", "middle", "lower")

# kind -> sides, zones it can be asked for
ALLOWED: dict[str, tuple[tuple[Side, ...], tuple[Zone, ...]]] = {
    "pneumothorax": (_ONE_SIDE, ("upper",)),
    "effusion": ((*_ONE_SIDE, "bilateral"), ("lower",)),
    "edema": (("bilateral",), ("diffuse",)),
    "consolidation": (_ONE_SIDE, _ANY_ZONE),
    "pneumonia": (_ONE_SIDE, _ANY_ZONE),
    "infiltration": (_ONE_SIDE, _ANY_ZONE),
    "atelectasis": (_ONE_SIDE, ("lower",)),
    "mass": (_ONE_SIDE, _ANY_ZONE),
    "nodule": (_ONE_SIDE, _ANY_ZONE),
    "cardiomegaly": (("midline",), ("unspecified",)),
    "emphysema": (("bilateral",), ("diffuse",)),
    "fibrosis": (("bilateral",), ("lower",)),
    "pleural_thickening": (_ONE_SIDE, ("upper", "middle")),
    "hernia": (("midline",), ("lower",)),
}


@dataclass(frozen=True)
class Lesion:
    """What to put into the phantom. severity in 0 (just visible) to 1 (extensive).

    Raises ValueError for a kind, side or zone that `ALLOWED` does not hold.
    """

    kind: str
    side: Side
    zone: Zone
    severity: float = 0.6

    def __post_init__(self) -> None:
        if self.kind not in ALLOWED:
            raise ValueError(f"expected a lesion kind of {sorted(ALLOWED)}, got {self.kind!r}")
        sides, zones = ALLOWED[self.kind]
        if self.side not in sides or self.zone not in zones:
            raise ValueError(
                f"expected side of {sides} and zone of {zones} for {self.kind}, got {self.side!r}, {self.zone!r}"
            )
        if not 0.0 <= self.severity <= 1.0:
            raise ValueError(f"expected a severity in 0 to 1, got {self.severity}")


def random_lesion(rng: np.random.Generator, kind: str | None = None) -> Lesion:
    """A lesion of random kind (or the given one), side, zone and severity."""
    chosen = kind or str(rng.choice(sorted(ALLOWED)))
    sides, zones = ALLOWED[chosen]
    return Lesion(
        chosen, sides[int(rng.integers(len(sides)))], zones[int(rng.integers(len(zones)))], float(rng.uniform(0.2, 1.0))
    )


def lung_floor(build: Build, side: int) -> float:
    """z of the costophrenic angle: the lowest level of the visible lung. side -1 right, +1 left."""
    x = np.array([side * (build.axis_bottom + 0.86 * build.half_width)], dtype=np.float32)
    return float(diaphragm(build, x, np.array([18.0], dtype=np.float32))[0])


def zone_levels(build: Build, side: int, zone: str) -> tuple[float, float]:
    """z from and to of a third of the lung's height, mm; the whole height for any other zone."""
    top, floor = build.apex[0 if side < 0 else 1], lung_floor(build, side)
    third = (floor - top) / 3
    index = {"upper": 0, "middle": 1, "lower": 2}.get(zone)
    return (top, floor) if index is None else (top + third * index, top + third * (index + 1))


class Growth:
    """One lesion placed in one build: gives the change of attenuation of lung voxels, per mm."""

    def __init__(self, lesion: Lesion, build: Build, rng: np.random.Generator) -> None:
        self.lesion = lesion
        self.build = build
        self.sides = {"left": (1,), "right": (-1,), "bilateral": (-1, 1), "midline": ()}[lesion.side]
        self._waves = rng.normal(0, 1, (5, 3)).astype(np.float32)
        self._waves /= np.linalg.norm(self._waves, axis=1, keepdims=True) * rng.uniform(5, 14, (5, 1))
        self._phases = rng.uniform(0, 2 * np.pi, 5).astype(np.float32)
        self._rng = rng
        self.size, self.centre = self._place(rng)
        self.tilt = float(rng.uniform(-0.45, 0.45))
        self.lift = float(rng.uniform(6, 16)) * (0.4 + lesion.severity)

    @property
    def textured(self) -> float:
        """Strength of the patchy texture in the projection."""
        return {"pneumonia": 0.45, "consolidation": 0.25, "infiltration": 0.5, "edema": 0.3, "fibrosis": 0.9}.get(
            self.lesion.kind, 0.0
        )

    def _place(self, rng: np.random.Generator) -> tuple[float, tuple[float, float, float]]:
        """Radius and centre, mm, of the lesions that have one."""
        severity = self.lesion.severity
        radius = {
            "nodule": 5.5 + 9.0 * severity,
            "mass": 17.0 + 16.0 * severity,
            "consolidation": 26.0 + 14.0 * severity,
            "pneumonia": 26.0 + 14.0 * severity,
            "infiltration": 28.0 + 12.0 * severity,
            "atelectasis": 34.0 + 14.0 * severity,
        }.get(self.lesion.kind, 30.0)
        if not self.sides:
            return radius, (2.0, -30.0, self.build.dome[1] - 20.0)
        side, build = self.sides[0], self.build
        high, low = zone_levels(build, side, self.lesion.zone)
        inset = min(radius, 0.33 * (low - high))
        count = 400
        x = side * rng.uniform(30, build.cage, count)
        y = rng.uniform(-0.7, 0.6, count) * build.half_depth
        z = rng.uniform(high + max(0.7 * inset, 10.0), low - max(inset, 10.0), count)
        xf, yf, zf = (np.asarray(v, dtype=np.float32) for v in (x, y, z))
        roof = float(np.interp(radius, [5, 40], [4, 18]))
        room = pleural_cavity(build, xf, yf, zf)
        clear = (room > np.interp(radius, [5, 40], [0.25, 0.35])) & (zf + roof < diaphragm(build, xf, yf))
        # Not hidden behind the heart or on the spine: the ground truth must be visible.
        clear &= heart(build, xf, np.full(count, build.heart[1], dtype=np.float32), zf) < -0.25
        clear &= np.abs(xf) > 38 + min(radius, 24) * 0.6
        clear &= zf + roof < diaphragm(build, xf, np.full(count, 18.0, dtype=np.float32)) + 2
        picks = np.flatnonzero(clear)
        if len(picks) == 0:
            picks = np.array([int(np.argmax(room - 0.02 * np.maximum(zf - build.dome[0], 0)))])
        best = int(picks[0])
        return radius, (float(x[best]), float(y[best]), float(z[best]))

    def _rough(self, x: F32, y: F32, z: F32) -> F32:
        """Smooth 3-D noise of standard deviation about 1, wavelengths 30 to 90 mm."""
        total = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), dtype=np.float32)
        for wave, phase in zip(self._waves, self._phases, strict=True):
            total += np.sin(x * wave[0] + y * wave[1] + z * wave[2] + phase)
        return total * np.float32(0.63)

    def change(self, x: F32, y: F32, z: F32, lung: F32, cavity: F32) -> F32:
        """Change of attenuation per mm, same shape as `lung`.

        lung: coverage of aerated lung per voxel; cavity: the implicit function of the rib cage's inside.
        """
        own = np.zeros(1, dtype=np.float32)
        for side in self.sides:
            own = own + (x * side > 0)
        if self.lesion.side == "midline":
            own = np.ones(1, dtype=np.float32)
        change = getattr(self, f"_{self.lesion.kind}")(x, y, z, cavity)
        return np.asarray(lung * own * change, dtype=np.float32)

    def _blob(self, x: F32, y: F32, z: F32, axes: tuple[float, float, float], rough: float) -> F32:
        f = ball(x, y, z, self.centre, axes)
        return f + np.float32(rough) * self._rough(x, y, z) * (f > -1.0) if rough else f

    def _consolidation(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        r = self.size
        f = self._blob(x, y, z, (r * 1.1, r * 1.15, r * 0.9), 0.34)
        return np.asarray(np.float32(SOFT_OVER_LUNG * 0.75) * np.clip(f * 2.2, 0, 1), dtype=np.float32)

    def _pneumonia(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        r = self.size
        f = self._blob(x, y, z, (r * 1.05, r * 1.2, r * 0.9), 0.38)
        return np.asarray(np.float32(SOFT_OVER_LUNG * 0.62) * np.clip(f * 1.5, 0, 1), dtype=np.float32)

    def _infiltration(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        r = self.size
        f = self._blob(x, y, z, (r * 1.15, r * 1.25, r), 0.3)
        strength = SOFT_OVER_LUNG * (0.28 + 0.2 * self.lesion.severity)
        return np.asarray(np.float32(strength) * np.clip(f * 1.1, 0, 1), dtype=np.float32)

    def _nodule(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        f = self._blob(x, y, z, (self.size, self.size, self.size), 0.0)
        return np.asarray(np.float32(SOFT_OVER_LUNG * 1.25) * np.clip(f * self.size / 3.0, 0, 1), dtype=np.float32)

    def _mass(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        f = self._blob(x, y, z, (self.size, self.size, self.size), 0.13)
        return np.asarray(np.float32(SOFT_OVER_LUNG) * np.clip(f * self.size / 4.0, 0, 1), dtype=np.float32)

    def _effusion(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        build, severity = self.build, self.lesion.severity
        floor = np.where(x < 0, np.float32(lung_floor(build, -1)), np.float32(lung_floor(build, 1)))
        depth = (floor - np.float32(build.apex[0])) * np.float32(0.07 + 0.22 * severity)
        out = np.clip((np.abs(x) - 25.0) / np.float32(build.cage - 25.0), 0, 1)
        # The meniscus: highest at the side wall, higher behind than in front.
        climb = np.float32(16.0 + 40.0 * severity) * out**3
        surface = floor - depth - climb + np.float32(20.0 / 90.0) * y
        return np.asarray(np.float32(SOFT_OVER_LUNG) * np.clip((z - surface) / 5.0, 0, 1), dtype=np.float32)

    def collapsed(self, x: F32, y: F32, z: F32) -> F32 | None:
        """Implicit function of what is left of the lung in a pneumothorax (> 0 inside); None for other lesions."""
        if self.lesion.kind != "pneumothorax":
            return None
        build, side = self.build, self.sides[0]
        root = hilum(build, side)
        down = np.clip((z - np.float32(build.apex[0])) / np.float32(220.0), 0, 1)
        shrink = 1 - np.float32(0.12 + 0.34 * self.lesion.severity) * (1 - np.float32(0.75) * down)
        inner = pleural_cavity(
            build,
            root[0] + (x - root[0]) / shrink,
            root[1] + (y - root[1]) / (0.5 + 0.5 * shrink),
            root[2] + (z - root[2]) / (0.3 + 0.7 * shrink),
        )
        return np.asarray(np.where(x * side > 0, inner, np.float32(1.0)), dtype=np.float32)

    def _pneumothorax(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        inner = self.collapsed(x, y, z)
        assert inner is not None
        air = np.clip(-inner * 12, 0, 1)
        line = np.exp(-((inner / np.float32(0.05)) ** 2))
        return np.asarray(
            np.float32(0.0075) * line + np.float32(0.0008) * (inner > 0) - np.float32(LUNG) * air, dtype=np.float32
        )

    def _atelectasis(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        cx, _, cz = self.centre
        dx = x - np.float32(cx)
        total = np.zeros(1, dtype=np.float32)
        for offset, reach_mm, strength in ((0.0, self.size, 0.6), (-13.0, self.size * 0.6, 0.35)):
            bow = np.float32(0.004) * dx * dx
            plane = z - np.float32(cz + offset) - np.float32(self.tilt) * dx - np.float32(0.10) * y + bow
            reach = np.clip(1.6 - np.abs(dx) / np.float32(reach_mm) * 1.6, 0, 1)
            total = np.maximum(total, np.exp(-((plane / np.float32(3.2)) ** 2)) * reach * np.float32(strength))
        crest = np.exp(-(((y - 18.0) / 30.0) ** 2))
        raised = np.clip((z - diaphragm(self.build, x, y) + np.float32(self.lift)) / 2.0, 0, 1) * crest
        return np.asarray(np.float32(SOFT_OVER_LUNG) * np.maximum(total, raised), dtype=np.float32)

    def _edema(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        total = np.zeros(1, dtype=np.float32)
        for side in (-1, 1):
            root = hilum(self.build, side)
            dx, dz = (x - root[0] * 1.5) / 52.0, (z - root[2] - 22) / 68.0
            total = total + np.exp(-(dx * dx + dz * dz)) * (x * side > 0)
        haze = (0.10 + 0.34 * self.lesion.severity) * total * (1 + 0.25 * self._rough(x, y, z))
        return np.asarray(np.float32(SOFT_OVER_LUNG) * np.maximum(haze, 0), dtype=np.float32)

    def _fibrosis(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        high, low = zone_levels(self.build, -1, "lower")
        rim = np.exp(-np.maximum(cavity, 0) / np.float32(0.45))
        strength = np.clip((z - np.float32(high) + 12) / np.float32(low - high), 0, 1)
        level = 0.10 + 0.22 * self.lesion.severity
        return np.asarray(np.float32(SOFT_OVER_LUNG * level) * rim * strength, dtype=np.float32)

    def _pleural_thickening(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        high, low = zone_levels(self.build, self.sides[0], self.lesion.zone)
        middle, half = (high + low) / 2, (low - high) / 2
        taper = np.clip(1.4 - np.abs(z - np.float32(middle)) / np.float32(half) * 1.4, 0, 1)
        deep = np.float32(0.22 + 0.38 * self.lesion.severity) * taper * (1 + 0.2 * self._rough(x, y, z))
        axis, across, _ = lung_section(self.build, level(self.build, x, z))
        wall = np.clip(((np.abs(x) - axis) / across - 0.5) / 0.15, 0, 1) * (taper > 0)
        return np.asarray(np.float32(SOFT_OVER_LUNG) * np.clip((deep - cavity) * 14, 0, 1) * wall, dtype=np.float32)

    def _hernia(self, x: F32, y: F32, z: F32, cavity: F32) -> F32:
        r = 26.0 + 14.0 * self.lesion.severity
        f = ball(x, y, z, (4.0, -38.0, self.build.dome[1] - 0.75 * r), (r * 1.15, 30.0, r))
        return np.asarray(np.float32(SOFT_OVER_LUNG) * np.clip(f * r / 4.0, 0, 1), dtype=np.float32)


def outside_lung(lesion: Lesion, build: Build, x: F32, y: F32, z: F32) -> F32:
    """Change per mm that does not depend on lung: the gas above the fluid level of a hiatal hernia."""
    if lesion.kind != "hernia":
        return np.zeros(1, dtype=np.float32)
    r = 26.0 + 14.0 * lesion.severity
    gas = ball(x, y, z, (4.0, -38.0, build.dome[1] - 0.75 * r), (r * 1.06, 26.0, r * 0.92))
    above = np.clip((build.dome[1] - 0.72 * r - z) / 2.0, 0, 1)
    tissue = np.clip(spine_column(build, x, y, z) * -6, 0, 1)
    return np.asarray(-np.float32(SOFT) * np.clip(gas * r / 3.0, 0, 1) * above * tissue, dtype=np.float32)
