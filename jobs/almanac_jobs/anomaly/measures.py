"""How well scores tell labelled rows apart. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def auc(labels: Flags, scores: Floats) -> float:
    """Chance that an odd row scores higher than another one (area under the ROC curve); NaN with one class only."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(sizes) - (sizes - 1) / 2
    return float((rank[group][labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(labels: Flags, scores: Floats) -> float:
    """Mean of the precision at every odd row, from the highest score down; NaN without an odd row."""
    if not labels.any():
        return float("nan")
    levels, group = np.unique(-scores, return_inverse=True)
    found = np.bincount(group, labels, len(levels))
    hits, seen = np.cumsum(found), np.cumsum(np.bincount(group, minlength=len(levels)))
    return float((hits / seen * found).sum() / hits[-1])


def brier(labels: Flags, probabilities: Floats) -> float:
    """Mean squared difference between probability and truth."""
    return float(np.mean((probabilities - labels) ** 2))


def brier_skill(labels: Flags, probabilities: Floats) -> float:
    """1 less the Brier score over that of the base rate: 0 is as good as the share of odd rows, 1 is perfect."""
    base = float(labels.mean())
    constant = base * (1 - base)
    return 1 - brier(labels, probabilities) / constant if constant > 0 else float("nan")
