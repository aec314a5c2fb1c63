"""What is odd where nobody says so: an isolation forest, whose ranks a student learns (see `detectors`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.anomaly.features import Floats32
from almanac_jobs.anomaly.matrix import Matrix, take

Floats = NDArray[np.float64]

TREES = (100, 400)
"""Fewest and most trees. Figures of a hundred differ by the seed: the AUC on the satellite set of ODDS by 0.06."""
SAMPLE = 65_536
"""Rows that the forest is made of at most; each of its trees sees 256 of them, as its authors have it."""


@dataclass(frozen=True, slots=True)
class Forest:
    """An isolation forest, for which missing values are medians."""

    trees: Any
    medians: Floats32

    def oddness(self, values: Floats32) -> Floats:
        """How odd every row is: higher is odder."""
        return np.asarray(-self.trees.score_samples(_filled(values, self.medians)))


def oddness(matrix: Matrix, seed: int, threads: int) -> Floats:
    """How odd an isolation forest of these rows finds each of them: higher is odder."""
    forest = grow(matrix, seed, threads)
    return np.concatenate([forest.oddness(part) for part in matrix.parts()])


def grow(matrix: Matrix, seed: int, threads: int) -> Forest:
    """An isolation forest of these rows."""
    from sklearn.ensemble import IsolationForest  # only where it is trained: scoring does without

    rows = np.arange(matrix.rows)
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), SAMPLE, replace=False))
    sample = take(matrix, rows)
    with np.errstate(all="ignore"):
        known = ~np.isnan(sample).all(axis=0)
        medians = np.zeros(sample.shape[1], np.float32)
        medians[known] = np.nanmedian(sample[:, known], axis=0)
    forest = IsolationForest(n_estimators=trees(matrix.rows), random_state=seed, n_jobs=threads)
    return Forest(forest.fit(_filled(sample, medians)), medians)


def trees(rows: int) -> int:
    """Trees for so many rows: the more the fewer rows there are, since a tree costs by the row."""
    fewest, most = TREES
    return min(most, max(fewest, fewest * SAMPLE // max(rows, 1)))


def ranks(values: Floats) -> Floats:
    """The rank of each value as a share of all, above 0 and up to 1; equal values share the mean of their ranks."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    mean: Floats = (last - (sizes - 1) / 2) / len(values)
    return mean[group]


def _filled(part: Floats32, medians: Floats32) -> Floats32:
    return np.where(np.isnan(part), medians, part)
