"""`image.prepare`: the one preprocessing."""

from __future__ import annotations

import numpy as np
import pytest

from edge.reading.image import prepare
from edge.reading.radiograph import Radiograph


def _radiograph(pixels: np.ndarray) -> Radiograph:
    return Radiograph(pixels=pixels.astype(np.float32))


def _texture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(0.2, 0.8, (height, width))


def test_shape_dtype_and_range() -> None:
    prepared = prepare(_radiograph(_texture(700, 500)))
    assert prepared.tensor.shape == (1, 1, 256, 256)
    assert prepared.tensor.dtype == np.float32
    assert float(prepared.tensor.min()) >= -1.0
    assert float(prepared.tensor.max()) <= 1.0
    assert (prepared.extent.x0, prepared.extent.y0, prepared.extent.x1, prepared.extent.y1) == (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("border", [0.0, 1.0])
def test_burned_in_border_is_cropped_and_remembered(border: float) -> None:
    pixels = np.full((400, 400), border)
    pixels[40:360, 20:390] = _texture(320, 370)
    extent = prepare(_radiograph(pixels)).extent
    assert (extent.y0, extent.y1) == (0.1, 0.9)
    assert (extent.x0, extent.x1) == (0.05, 0.975)


def test_at_most_a_quarter_is_cropped_on_each_side() -> None:
    pixels = np.zeros((400, 400))
    pixels[195:205, 195:205] = 0.5
    extent = prepare(_radiograph(pixels)).extent
    assert (extent.x0, extent.y0, extent.x1, extent.y1) == (0.25, 0.25, 0.75, 0.75)


def test_contrast_does_not_depend_on_brightness_or_gain() -> None:
    pixels = _texture(300, 300)
    one = prepare(_radiograph(pixels)).tensor
    other = prepare(_radiograph(pixels * 0.4 + 0.3)).tensor
    assert float(np.abs(one - other).max()) < 1e-3


def test_left_stays_left() -> None:
    pixels = _texture(300, 300) * 0.2
    pixels[:, :150] += 0.7
    tensor = prepare(_radiograph(pixels)).tensor[0, 0]
    assert tensor[:, :100].mean() > tensor[:, -100:].mean() + 1.0


def test_a_flat_image_gives_finite_numbers() -> None:
    assert np.isfinite(prepare(_radiograph(np.full((300, 300), 0.5))).tensor).all()
