"""How far a compiled file is from the float network, in decibels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]


def sqnr_db(reference: Values, got: Values) -> float:
    """Signal to quantisation noise: 10 log10(sum(r^2) / sum((r - g)^2)); infinite where they are the same."""
    if reference.shape != got.shape:
        raise ValueError(f"expected outputs of {reference.shape}, got {got.shape}")
    noise = float(np.square(reference.astype(np.float64) - got).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return float("inf") if noise == 0 else float(10 * np.log10(max(signal, 1e-30) / noise))


def agreement(reference: Mapping[str, Values], got: Mapping[str, Values]) -> dict[str, float]:
    """Name of each output of `reference` -> its SQNR over all golden cases."""
    return {name: sqnr_db(values, got[name]) for name, values in reference.items()}


def too_far(figures: Mapping[str, float], least_db: float) -> list[str]:
    """Names of the outputs below `least_db`; NaN is below everything."""
    return [name for name, figure in figures.items() if not figure >= least_db]
