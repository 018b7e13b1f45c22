"""Measures with intervals. Resampling is by patient: images of one patient are not independent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64] | npt.NDArray[np.float32] | npt.NDArray[np.int8]
RESAMPLES = 2000


def auroc(labels: Array, scores: Array) -> float:
    """Area under the ROC curve = P(score of a positive > score of a negative), ties half (Mann-Whitney)."""
    positive = labels == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2
    return float((rank[inverse][positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def interval(
    measure: Callable[[Array, Array], float],
    labels: Array,
    scores: Array,
    patients: npt.NDArray[np.str_],
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of `measure` over RESAMPLES bootstrap samples of patients."""
    rng = np.random.default_rng(seed)
    names, inverse = np.unique(patients, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    bounds = np.searchsorted(inverse[order], np.arange(len(names) + 1))
    rows_of = [order[bounds[i] : bounds[i + 1]] for i in range(len(names))]
    values = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([rows_of[i] for i in rng.integers(0, len(names), len(names))])
        values.append(measure(labels[rows], scores[rows]))
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def ece(labels: Array, probabilities: Array, bins: int = 10) -> float:
    """Expected calibration error over equal-mass bins (Nixon et al. 2019): mean |observed - predicted|, by mass."""
    order = np.argsort(probabilities, kind="stable")
    parts = [p for p in np.array_split(order, bins) if len(p)]
    return float(sum(len(p) * abs(labels[p].mean() - probabilities[p].mean()) for p in parts) / len(order))


def brier(labels: Array, probabilities: Array) -> float:
    """Mean squared difference between probability and outcome (Brier 1950)."""
    return float(np.mean((probabilities - labels) ** 2))


def wilson(successes: npt.NDArray[np.bool_]) -> tuple[float, float, float] | None:
    """share, low, high of a proportion with the 95 % Wilson score interval (Wilson 1927); None for no trials."""
    n = len(successes)
    if not n:
        return None
    p, z = float(np.mean(successes)), 1.959964
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return p, max(0.0, centre - half), min(1.0, centre + half)
