"""What is odd where nobody says so: an isolation forest, whose ranks a student learns (see `detectors`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.anomaly.features import Floats32
from almanac_jobs.anomaly.matrix import Matrix, take

Floats = NDArray[np.float64]

TREES = 100
SAMPLE = 65_536
"""Rows that the forest is made of at most; each of its trees sees 256 of them, as its authors have it."""


def oddness(matrix: Matrix, seed: int, threads: int) -> Floats:
    """How odd an isolation forest finds every row: higher is odder. Missing values count as medians."""
    from sklearn.ensemble import IsolationForest  # only where it is trained: scoring does without

    rows = np.arange(matrix.rows)
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), SAMPLE, replace=False))
    sample = take(matrix, rows)
    with np.errstate(all="ignore"):
        known = ~np.isnan(sample).all(axis=0)
        medians = np.zeros(sample.shape[1], np.float32)
        medians[known] = np.nanmedian(sample[:, known], axis=0)
    forest = IsolationForest(n_estimators=TREES, random_state=seed, n_jobs=threads)
    forest.fit(_filled(sample, medians))
    return np.concatenate([-forest.score_samples(_filled(part, medians)) for part in matrix.parts()])


def ranks(values: Floats) -> Floats:
    """The rank of each value as a share of all, above 0 and up to 1; equal values share the mean of their ranks."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    mean: Floats = (last - (sizes - 1) / 2) / len(values)
    return mean[group]


def _filled(part: Floats32, medians: Floats32) -> Floats32:
    return np.where(np.isnan(part), medians, part)
