"""What is odd where nobody says so: an isolation forest, whose ranks a student learns (see `detectors`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.anomaly.features import Floats32
from almanac_jobs.anomaly.matrix import Ints, Matrix

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

    def oddness(self, matrix: Matrix) -> Floats:
        """How odd every row is: higher is odder."""
        parts = [-self.trees.score_samples(_filled(part, self.medians)) for part in matrix.parts() if len(part)]
        return np.concatenate(parts) if parts else np.empty(0)


def sample(count: int, seed: int) -> Ints:
    """The numbers, in their order, of the rows that a forest of so many rows is made of."""
    if count <= SAMPLE:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, SAMPLE, replace=False))


def grow(rows: Floats32, count: int, seed: int, threads: int) -> Forest:
    """The isolation forest of `count` rows, of which `rows` are the `sample`."""
    from sklearn.ensemble import IsolationForest  # only where it is trained: scoring does without

    with np.errstate(all="ignore"):
        known = ~np.isnan(rows).all(axis=0)
        medians = np.zeros(rows.shape[1], np.float32)
        medians[known] = np.nanmedian(rows[:, known], axis=0)
    forest = IsolationForest(n_estimators=trees(count), random_state=seed, n_jobs=threads)
    return Forest(forest.fit(_filled(rows, medians)), medians)


def trees(rows: int) -> int:
    """Trees for so many rows: the more the fewer rows there are, since a tree costs by the row."""
    fewest, most = TREES
    return min(most, max(fewest, fewest * SAMPLE // max(rows, 1)))


def _filled(part: Floats32, medians: Floats32) -> Floats32:
    return np.where(np.isnan(part), medians, part)
