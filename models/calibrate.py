"""Logits -> probabilities, and the probabilities from which a finding is said. Validation part only."""

from __future__ import annotations

import numpy as np

FEW_POSITIVES = 12  # below this the slope stays 1 and only the intercept is fitted
LOWEST_PRESENT = 0.5  # never "present" for what is less likely than not


def platt(logits: np.ndarray, labels: np.ndarray, steps: int = 200) -> tuple[float, float]:
    """slope, intercept of probability = sigmoid(slope * logit + intercept), by Newton's method.

    Targets are softened as in Platt 1999, section 2.2: (n+ + 1) / (n+ + 2) and 1 / (n- + 2).
    """
    labels = labels.astype(np.float64)
    positives, negatives = labels.sum(), len(labels) - labels.sum()
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    x = np.stack([logits.astype(np.float64), np.ones(len(logits))], axis=1)
    free = np.array([positives >= FEW_POSITIVES, True])
    w = np.array([1.0, 0.0])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = (x.T @ (p - target))[free]
        hessian = (x.T * (p * (1 - p))) @ x
        step = np.linalg.solve(hessian[np.ix_(free, free)] + 1e-6 * np.eye(int(free.sum())), gradient)
        w[free] -= step
        if np.abs(step).max() < 1e-9:
            break
    return float(max(w[0], 0.05)), float(w[1])


def choose_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """possible: largest Youden index (sensitivity + specificity - 1); present: at least that and LOWEST_PRESENT."""
    candidates = np.unique(probabilities)
    positive = labels == 1
    best = candidates[0]
    if 0 < positive.sum() < len(labels):
        sensitivity = np.array([(probabilities[positive] >= t).mean() for t in candidates])
        specificity = np.array([(probabilities[~positive] < t).mean() for t in candidates])
        best = candidates[int(np.argmax(sensitivity + specificity))]
    possible = round(float(np.clip(best, 0.01, 0.99)), 4)
    return possible, max(possible, LOWEST_PRESENT)
