"""The shape of one procedural adult: proportions drawn from a seed, organs as implicit functions (> 0 inside).

Axes as in `projection`: x to the patient's left, y to the front, z to the feet, in mm; z = 0 is near C6.
Proportions follow adult frontal radiographs: right lung wider, left with the cardiac notch, right hemidiaphragm
higher, heart apex and aortic knob to the left, cardiothoracic ratio 0.40 to 0.48 when healthy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Build:
    """Proportions of one adult, mm unless the name says otherwise. Pairs are (right, left)."""

    apex: tuple[float, float]  # z of the lung apices
    dome: tuple[float, float]  # z of the top of the hemidiaphragms
    axis_top: float  # |x| of the lung axis at the apex
    axis_bottom: float  # and at the base
    half_width: float  # of one lung at its widest, across
    half_depth: float  # front to back
    sulcus: float  # how much lower the costophrenic angle lies than the dome
    recess: float  # how much lower the back of the diaphragm lies than the dome
    heart: tuple[float, float, float]  # centre x, y and height above the left dome
    heart_axes: tuple[float, float, float]  # half axes: long, short, depth
    heart_angle: float  # radians of the long axis below the horizontal
    pedicle: float  # half width of the great vessels
    knob: float  # how far the aortic arch stands out to the left
    arch: float  # z of the aortic arch
    shoulder: float  # z of the shoulder line
    wall: float  # soft tissue outside the rib cage at the side
    torso_depth: float  # half depth of the chest
    breast: float  # thickness of the breast shadow, 0 for most men
    arms: float  # gap between torso and arms; under 0 the arms touch
    spine_bend: float  # scoliosis: sideways sweep of the spine
    gas: float  # radius of the stomach bubble

    @property
    def cage(self) -> float:
        """Largest |x| of the lungs."""
        return self.axis_bottom + self.half_width


def draw_build(rng: np.random.Generator, heart_scale: float = 1.0, hyperinflated: bool = False) -> Build:
    """Random adult proportions. `heart_scale` widens the heart; `hyperinflated` lowers and flattens the diaphragm."""
    u = rng.uniform
    frame = u(0.92, 1.08)
    apex = 52 + u(-6, 6)
    length = u(182, 245) + (28 if hyperinflated else 0)
    right_dome = apex + length
    left_dome = right_dome + u(6, 18)
    axis_bottom = u(68, 74) * frame
    half_width = u(62, 69) * frame
    chest = axis_bottom + half_width
    ratio = u(0.41, 0.47) * heart_scale * (0.86 if hyperinflated else 1.0)
    # The heart's shadow runs from about 0.30 of its width right of the midline to 0.70 left of it.
    width = ratio * 2 * chest
    long_axis = width * 0.56
    return Build(
        apex=(apex, apex + u(-3, 3)),
        dome=(right_dome, left_dome),
        axis_top=u(48, 55) * frame,
        axis_bottom=axis_bottom,
        half_width=half_width,
        half_depth=u(80, 92) * (1.1 if hyperinflated else 1.0),
        sulcus=u(26, 38) * (0.55 if hyperinflated else 1.0),
        recess=u(34, 50),
        heart=(width * u(0.185, 0.215), u(18, 30), u(18, 27) * (0.6 + 0.4 * heart_scale)),
        heart_axes=(long_axis, long_axis * u(0.68, 0.76), u(46, 52)),
        heart_angle=float(np.deg2rad(u(26, 42) + (10 if hyperinflated else 0) - 12 * max(0.0, heart_scale - 1.1))),
        pedicle=u(20, 26),
        knob=u(36, 44),
        arch=apex + length * u(0.34, 0.39),
        shoulder=apex + u(-22, 2),
        wall=u(14, 34),
        torso_depth=u(108, 132),
        breast=float(u(18, 42)) if rng.random() < 0.45 else 0.0,
        arms=u(-12, 30),
        spine_bend=rng.normal(0, 3.0),
        gas=u(14, 28),
    )


def _pair(values: tuple[float, float], x: F32) -> F32:
    return np.where(x < 0, np.float32(values[0]), np.float32(values[1]))


def _base(build: Build, x: F32) -> F32:
    """z at which the lung ellipse would close below the diaphragm: the reference level for its proportions."""
    return _pair(build.dome, x) + np.float32(build.sulcus * 1.6)


def lung_section(build: Build, t: F32) -> tuple[F32, F32, F32]:
    """Axis |x|, half width and half depth of a lung at relative level t (0 apex, 1 base)."""
    rise = np.clip(t / 0.86, 0.0, 1.0)
    grow = np.maximum(1.0 - (1.0 - rise) ** 2.7, 1e-4) ** 0.58
    axis = build.axis_top + (build.axis_bottom - build.axis_top) * np.clip(t * 1.25, 0.0, 1.0)
    return (
        np.asarray(axis, dtype=np.float32),
        np.asarray(build.half_width * grow, dtype=np.float32),
        np.asarray(build.half_depth * (0.12 + 0.88 * grow) * grow**0.4, dtype=np.float32),
    )


def level(build: Build, x: F32, z: F32) -> F32:
    """Relative level in the lung of that side: 0 at the apex, 1 at the costophrenic angle."""
    top = _pair(build.apex, x)
    return np.asarray((z - top) / (_base(build, x) - top), dtype=np.float32)


def diaphragm(build: Build, x: F32, y: F32) -> F32:
    """z of the upper surface of the diaphragm, mm."""
    across = (np.abs(x) - np.float32(build.axis_bottom * 0.86)) / np.float32(build.half_width)
    along = (y - np.float32(18.0)) / np.float32(build.half_depth)
    drop = np.float32(build.sulcus * 0.72) * across * across * np.where(across > 0, np.float32(1.15), np.float32(0.55))
    drop += np.float32(build.recess) * along * along
    return np.asarray(_pair(build.dome, x) + drop, dtype=np.float32)


def pleural_cavity(build: Build, x: F32, y: F32, z: F32) -> F32:
    """Inside of the rib cage on either side, above the diaphragm; mediastinum not yet taken out."""
    t = level(build, x, z)
    axis, across, deep = lung_section(build, t)
    a = np.abs((np.abs(x) - axis) / across)
    b = np.abs((y + np.float32(4.0)) / deep)
    wall = np.float32(1.0) - a * a * a - b * b * b
    # Never far below 0: `coverage` divides by the local step, and a cliff at the apex would look like an edge.
    return np.asarray(np.where(t > 0.0, np.maximum(wall, np.float32(-1.0)), np.float32(-1.0)), dtype=np.float32)


def heart(build: Build, x: F32, y: F32, z: F32) -> F32:
    """Ventricles and right atrium as two ellipsoids; the apex points to the patient's left and down."""
    cx, cy, above = build.heart
    cz = build.dome[1] - above
    long_axis, short_axis, depth = build.heart_axes
    c, s = np.float32(np.cos(build.heart_angle)), np.float32(np.sin(build.heart_angle))
    dx, dz = x - np.float32(cx), z - np.float32(cz)
    along = (dx * c + dz * s) / np.float32(long_axis)
    across = (dz * c - dx * s) / np.float32(short_axis)
    front = (y - np.float32(cy)) / np.float32(depth)
    ventricles = np.float32(1.0) - along * along - across * across - front * front
    size = long_axis / 66.0
    ax = (x - np.float32(cx - long_axis * 0.52)) / np.float32(27 * size)
    az = (z - np.float32(cz - short_axis * 0.12)) / np.float32(46 * size)
    ay = (y - np.float32(cy - 4)) / np.float32(34 * size)
    atrium = np.float32(1.0) - ax * ax - ay * ay - az * az
    return np.asarray(np.maximum(ventricles, atrium), dtype=np.float32)


def great_vessels(build: Build, x: F32, y: F32, z: F32) -> F32:
    """Pedicle (cava, ascending aorta, oesophagus), aortic arch, pulmonary trunk and descending aorta."""
    heart_top = build.dome[1] - build.heart[2] - build.heart_axes[1] * 0.3
    slope = np.clip((z - np.float32(build.arch)) / np.float32(max(heart_top - build.arch, 20.0)), -1.0, 1.0)
    half = np.float32(build.pedicle * 1.1) * (np.float32(1.0) + np.float32(0.10) * slope)
    a = (x - np.float32(1.0)) / half
    b = y / np.float32(37.0)
    pedicle = np.float32(1.0) - a * a - b * b
    pedicle = np.minimum(pedicle, (np.float32(heart_top + 90) - z) / np.float32(30.0))
    arch = _ball(x, y, z, (build.knob - 21, -8, build.arch), (21, 36, 15))
    trunk = _ball(x, y, z, (build.knob - 18, 12, build.arch + 34), (24, 24, 22))
    d = (x - np.float32(build.knob * 0.42)) / np.float32(12.5)
    e = (y + np.float32(46)) / np.float32(12.5)
    descending = np.minimum(np.float32(1.0) - d * d - e * e, (z - np.float32(build.arch)) / np.float32(12.0))
    return np.asarray(np.maximum(np.maximum(pedicle, arch), np.maximum(trunk, descending)), dtype=np.float32)


def spine_column(build: Build, x: F32, y: F32, z: F32) -> F32:
    """Vertebral bodies with the tissue that hugs them, as the lungs see them."""
    a = (x - spine_x(build, z)) / np.float32(23.0)
    b = (y + np.float32(build.half_depth - 8)) / np.float32(29.0)
    return np.asarray(np.float32(1.0) - a * a - b * b, dtype=np.float32)


def spine_x(build: Build, z: F32) -> F32:
    """Sideways position of the spine at level z, mm."""
    phase = (np.asarray(z, dtype=np.float32) - np.float32(60.0)) / np.float32(260.0)
    return np.asarray(build.spine_bend * np.sin(np.pi * phase), dtype=np.float32)


def _ball(x: F32, y: F32, z: F32, centre: tuple[float, float, float], axes: tuple[float, float, float]) -> F32:
    a = (x - np.float32(centre[0])) / np.float32(axes[0])
    b = (y - np.float32(centre[1])) / np.float32(axes[1])
    c = (z - np.float32(centre[2])) / np.float32(axes[2])
    return np.asarray(np.float32(1.0) - a * a - b * b - c * c, dtype=np.float32)


ball = _ball


def hilum(build: Build, side: int) -> F32:
    """Where the great branches enter the lung: (3,) mm. side -1 right, +1 left (the left hilum is higher)."""
    z = build.arch + (47 if side < 0 else 37)
    return np.array([side * (build.pedicle + 8), -2.0, z], dtype=np.float32)


def carina(build: Build) -> F32:
    """Where the trachea divides: (3,) mm."""
    return np.array([2.0, -14.0, build.arch + 13], dtype=np.float32)


def body_half_width(build: Build, z: F32) -> F32:
    """Half width of neck, shoulders and torso at level z, mm."""
    s, side = build.shoulder, build.cage + build.wall + 8
    levels = np.array([-80, s - 45, s - 22, s - 8, s + 2, s + 16, s + 50, s + 95, s + 130, 500], dtype=np.float32)
    widths = np.array([56, 58, 72, 104, 150, 188, 205, side + 12, side, side - 8], dtype=np.float32)
    return smooth_profile(z, levels, widths)


def smooth_profile(z: F32, levels: F32, values: F32) -> F32:
    """Piecewise-linear values over z, rounded over some 2 cm so that no kink shows as a line. Any shape, mm."""
    fine = np.arange(-120.0, 560.0, 2.0)
    line = np.interp(fine, levels, values)
    bell = np.exp(-0.5 * (np.arange(-16, 17) / 5.5) ** 2)
    padded = np.concatenate([np.full(16, line[0]), line, np.full(16, line[-1])])
    return np.asarray(np.interp(z, fine, np.convolve(padded, bell / bell.sum(), "valid")), dtype=np.float32)
