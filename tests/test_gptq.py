"""GPTQ: int4 weights that change a layer's outputs less than plain rounding does."""

from __future__ import annotations

import numpy as np
import pytest

from edge.reading.ops.quantised import GROUP
from edge.reading.ops.reference_quantised import dequantised, quantise_weights_q4
from models.gptq import gptq

ROWS, COLUMNS = 48, 3 * GROUP


def correlated(rng: np.random.Generator, count: int = 2000) -> np.ndarray:
    """Inputs that move together, as a layer's do: (count, COLUMNS)."""
    return rng.standard_normal((count, 12)) @ rng.standard_normal((12, COLUMNS)) + 0.1 * rng.standard_normal(COLUMNS)


def test_outputs_change_less_than_by_plain_rounding() -> None:
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    seen, unseen = correlated(np.random.default_rng(4)), correlated(np.random.default_rng(4))[-500:]
    found = gptq(weight, seen[:1500].T @ seen[:1500])
    plain = quantise_weights_q4(weight)

    def loss(rounded: np.ndarray) -> float:
        return float(((unseen @ (rounded - weight).T) ** 2).mean())

    assert loss(dequantised(found)) < 0.2 * loss(dequantised(plain))
    assert found.values.shape == plain.values.shape
    assert found.scales.shape == plain.scales.shape


def test_what_int4_holds_exactly_stays_exact() -> None:
    rng = np.random.default_rng(5)
    levels = rng.integers(-7, 8, (ROWS, COLUMNS))
    levels[:, ::GROUP] = -8
    weight = (levels * 0.25).astype(np.float32)
    inputs = rng.standard_normal((500, COLUMNS))
    np.testing.assert_array_equal(dequantised(gptq(weight, inputs.T @ inputs)), weight)


def test_inputs_that_are_always_zero_and_rows_of_zeros() -> None:
    rng = np.random.default_rng(6)
    weight = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    weight[5] = 0.0
    inputs = rng.standard_normal((500, COLUMNS))
    inputs[:, 7] = 0.0
    found = dequantised(gptq(weight, inputs.T @ inputs))
    assert np.isfinite(found).all()
    assert not found[5].any()


@pytest.mark.parametrize(("columns", "hessian"), [(33, (33, 33)), (64, (32, 32))])
def test_other_shapes_are_refused(columns: int, hessian: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="groups of 32"):
        gptq(np.ones((4, columns), np.float32), np.eye(*hessian))
