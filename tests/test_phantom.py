"""The phantom is a chest: physics, anatomy, and a ground truth of side and zone that the pixels bear out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.simulate.detector import expose
from edge.simulate.lesions import ALLOWED, Lesion, random_lesion
from edge.simulate.phantom import OTHER_KINDS, Phantom, PhantomOptions, make_other, make_phantom
from edge.simulate.projection import Beam, coverage, polyline, sweep

SIZE = 160
OPACITIES = ("consolidation", "pneumonia", "infiltration", "nodule", "mass")
LOCAL = (*OPACITIES, "pleural_thickening", "atelectasis", "effusion")


def _fast(**options) -> Phantom:
    return make_phantom(PhantomOptions(size=SIZE, detail="fast", **options))


def _thirds(mask: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(mask.any(axis=1))
    return np.linspace(rows[0], rows[-1] + 1, 4)


def _lesions(kinds) -> list[Lesion]:
    return [Lesion(kind, side, zone) for kind in kinds for side in ALLOWED[kind][0] for zone in ALLOWED[kind][1]]


def _name(lesion: Lesion) -> str:
    return f"{lesion.kind}-{lesion.side}-{lesion.zone}"


@pytest.mark.parametrize("lesion", _lesions([*LOCAL, "pneumothorax"]), ids=_name)
@pytest.mark.parametrize("seed", [3, 11])
def test_a_lesion_lies_where_the_truth_says(lesion: Lesion, seed: int):
    truth = _fast(seed=seed, lesion=lesion).truth
    assert (truth.finding, truth.side, truth.zone) == (lesion.kind, lesion.side, lesion.zone)
    assert truth.box is not None
    assert truth.lesion.sum() >= 12
    middle = (np.nonzero(truth.right_lung)[1].max() + np.nonzero(truth.left_lung)[1].min()) / 2
    sides = {"left": [truth.left_lung], "right": [truth.right_lung]}.get(
        lesion.side, [truth.left_lung, truth.right_lung]
    )
    for lung in sides:
        half = np.arange(SIZE) > middle if lung is truth.left_lung else np.arange(SIZE) <= middle
        rows = np.nonzero(truth.lesion & half[None, :])[0]
        assert len(rows) > 0.3 * truth.lesion.sum()
        if lesion.side != "bilateral":
            # The patient's left is the image's right, and nothing spills over.
            assert len(rows) > 0.97 * truth.lesion.sum()
        edges = _thirds(lung)
        index = ("upper", "middle", "lower").index(lesion.zone)
        margin = 0.12 * (edges[1] - edges[0])
        if lesion.kind == "pneumothorax":  # a rim from the apex down: the apex is in it
            assert rows.min() < edges[1]
        else:
            assert edges[index] - margin <= rows.mean() <= edges[index + 1] + margin
    box = truth.box
    assert truth.lesion[:, int(box.x0 * SIZE)].any()
    assert truth.lesion[round(box.y1 * SIZE) - 1].any()
    assert 0 <= box.x0 < box.x1 <= 1
    assert 0 <= box.y0 < box.y1 <= 1


@pytest.mark.parametrize("lesion", _lesions(LOCAL)[::2], ids=_name)
def test_only_the_lesion_changes_the_pixels(lesion: Lesion):
    with_it, without = _fast(seed=6, lesion=lesion), _fast(seed=6)
    change = with_it.pixels - without.pixels
    mask = with_it.truth.lesion
    assert change[mask].mean() > 0.02  # whiter
    near = cv2.dilate(mask.astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
    assert np.abs(change[~near]).mean() < 0.06 * np.abs(change[mask]).mean()
    assert np.array_equal(with_it.truth.left_lung, without.truth.left_lung)


def test_air_is_darker_fluid_is_whiter():
    healthy = _fast(seed=8)
    air = _fast(seed=8, lesion=Lesion("pneumothorax", "right", "upper", 1.0))
    rim = air.truth.lesion
    assert (air.pixels - healthy.pixels)[rim].mean() < -0.005
    fluid = _fast(seed=8, lesion=Lesion("effusion", "right", "lower", 1.0))
    base = fluid.truth.lesion & fluid.truth.right_lung
    assert fluid.pixels[base].mean() > healthy.pixels[base].mean() + 0.15


def test_a_wide_heart_is_wide():
    def ratio(phantom: Phantom) -> float:
        rows = slice(*np.flatnonzero(phantom.truth.right_lung.any(axis=1))[[0, -1]])
        heart = phantom.truth.mediastinum[rows].sum(axis=1).max()
        both = phantom.truth.right_lung | phantom.truth.left_lung
        columns = np.flatnonzero(both.any(axis=0))
        return float(heart / (columns[-1] - columns[0]))

    for seed in range(3):
        assert (
            ratio(_fast(seed=seed))
            < 0.5
            < ratio(_fast(seed=seed, lesion=Lesion("cardiomegaly", "midline", "unspecified", 0.8)))
        )


@pytest.mark.parametrize("seed", range(6))
def test_anatomy(seed: int):
    phantom = _fast(seed=seed)
    truth, pixels = phantom.truth, phantom.pixels
    right, left = np.nonzero(truth.right_lung), np.nonzero(truth.left_lung)
    assert right[1].mean() < left[1].mean()  # the patient's right is on the image's left
    assert not (truth.right_lung & truth.left_lung).any()
    # The right hemidiaphragm stands higher: its lung is shorter at the middle of its width.
    assert max(right[0][right[1] == int(right[1].mean())]) < max(left[0][left[1] == int(left[1].mean())])
    # The heart's apex points to the left: more of its shadow lies on the image's right of the spine.
    heart = truth.mediastinum[int(np.percentile(right[0], 70))]
    gap = (right[1].max() + left[1].min()) / 2
    assert (np.flatnonzero(heart) > gap).sum() > (np.flatnonzero(heart) < gap).sum()
    assert truth.right_lung.sum() > 0.9 * (truth.left_lung & ~truth.mediastinum).sum()
    lungs = (truth.right_lung | truth.left_lung) & ~truth.mediastinum
    assert pixels[lungs].mean() + 0.15 < pixels[truth.mediastinum].mean()
    assert 0.2 < lungs.mean() < 0.6
    assert truth.finding is None
    assert truth.box is None
    assert not truth.lesion.any()


def test_same_seed_same_pixels_other_seed_another_patient():
    lesion = Lesion("mass", "left", "upper")
    assert np.array_equal(_fast(seed=1, lesion=lesion).pixels, _fast(seed=1, lesion=lesion).pixels)
    assert np.abs(_fast(seed=1).pixels - _fast(seed=2).pixels).mean() > 0.02


@pytest.mark.parametrize("options", [{"size": (240, 200)}, {"view": "AP"}, {"rotation_deg": 8.0, "tilt_deg": -4.0}])
def test_options(options):
    phantom = make_phantom(PhantomOptions(**{"seed": 2, "size": 160, "detail": "fast", **options}))
    size = options.get("size", (160, 160))
    assert phantom.pixels.shape == phantom.truth.left_lung.shape == size
    assert phantom.pixels.dtype == np.float32
    assert np.isfinite(phantom.pixels).all()
    assert 0 <= phantom.pixels.min() < phantom.pixels.max() <= 1


def test_a_bedside_exposure_enlarges_the_heart():
    def heart(view: str) -> float:
        truth = _fast(seed=4, view=view).truth
        lungs = np.flatnonzero((truth.right_lung | truth.left_lung).any(axis=0))
        return float(truth.mediastinum.sum(axis=1).max() / (lungs[-1] - lungs[0]))

    assert heart("AP") > heart("PA")


def test_collimation_is_a_black_frame():
    pixels = _fast(seed=4, collimation=0.1).pixels
    edge = int(SIZE * 0.1)
    assert pixels[:edge].max() == pixels[:, :edge].max() == pixels[-edge:].max() == 0
    assert pixels[edge:-edge, edge:-edge].mean() > 0.3


def test_beer_lambert():
    steps = np.repeat(np.array([0.0, 1.0, 2.0, 3.0], dtype=np.float32), 8)[None, :].repeat(8, axis=0)
    signal = expose(np.ascontiguousarray(steps), 1.0, scatter=0.0)
    assert np.allclose(signal, np.exp(-steps), rtol=1e-5)  # thicker is darker on the detector, whiter on display
    noisy = [
        expose(np.full((64, 64), 2.0, np.float32), 1.0, 0.0, dose, np.random.default_rng(0)).std() for dose in (1, 100)
    ]
    assert noisy[0] == pytest.approx(10 * noisy[1], rel=0.01)  # noise falls with the root of the dose


def _parallel(size: int, pixel_mm: float) -> Beam:
    return Beam((size, size), pixel_mm, (0.0, 0.0), 1e9, 1, 0.0, 0.0)


def test_a_ball_of_voxels_has_the_right_thickness():
    beam = _parallel(100, 1.0)
    depths = (np.arange(40, dtype=np.float32) + 0.5) * 2 - 40
    thick = np.zeros((100, 100), np.float32)
    for part, x, y, z in beam.voxels((100, 100), depths, 10):
        thick[part] = coverage((30**2 - x * x - y * y - z * z).astype(np.float32)).sum(axis=1) * 2
    axis = np.arange(100) - 49.5
    exact = 2 * np.sqrt(np.maximum(30**2 - axis[:, None] ** 2 - axis[None, :] ** 2, 0))
    assert np.abs(thick - exact).mean() < 0.25
    assert thick.sum() == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.005)


def test_a_swept_tube_has_the_right_thickness():
    beam = _parallel(120, 0.5)
    points, lengths = polyline(np.array([[0, 0, -80], [0, 0, 80]], np.float32), 0.25)
    thick = sweep(beam, points, lengths, np.full(len(points), 8, np.float32))
    across = (np.arange(120) - 59.5) * 0.5
    assert np.abs(thick[60] - 2 * np.sqrt(np.maximum(64 - across**2, 0))).max() < 0.9
    assert thick[60].sum() * 0.5 == pytest.approx(np.pi * 64, rel=0.01)


def test_projection_of_points_agrees_with_rays():
    beam = Beam((80, 100), 4.0, (5.0, 200.0), 1600.0, 1, 0.1, 0.05)
    depths = np.array([-60.0, 70.0], np.float32)
    for part, x, y, z in beam.voxels((80, 100), depths, 80):
        assert part == slice(0, 80)
        points = np.stack([np.broadcast_to(v, x.shape)[30, :, 40] for v in (x, y, z)], axis=1)
        assert np.allclose(beam.project(points.astype(np.float32)), [[30, 40], [30, 40]], atol=0.02)


def test_a_lesion_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="expected a lesion kind"):
        Lesion("measles", "left", "upper")
    with pytest.raises(ValueError, match="expected side of"):
        Lesion("edema", "left", "diffuse")
    with pytest.raises(ValueError, match="severity"):
        Lesion("mass", "left", "upper", 3.0)


def test_random_lesions_reach_every_kind():
    rng = np.random.default_rng(0)
    assert {random_lesion(rng).kind for _ in range(300)} == set(ALLOWED)


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_pictures(kind: str):
    one = make_other(kind, 1, 96)
    assert one.shape == (96, 96)
    assert one.dtype == np.float32
    assert 0 <= one.min() < one.max() <= 1
    assert one.std() > 0.01
    assert np.array_equal(one, make_other(kind, 1, 96))
    assert np.abs(one - make_other(kind, 2, 96)).mean() > 0.005


def test_an_unknown_picture_is_refused():
    with pytest.raises(ValueError, match="expected a kind"):
        make_other("cat", 1)
