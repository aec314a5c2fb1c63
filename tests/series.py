"""Series that several tests use: the classic ones of the literature, and simulated ones."""

from __future__ import annotations

import csv
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.forecast.types import Ragged, SeriesBatch

DATA = Path(__file__).parent / "data"


@cache
def _classic() -> dict[str, NDArray[np.float64]]:
    columns: dict[str, list[float]] = defaultdict(list)
    with (DATA / "classic_series.csv").open() as file:
        for row in csv.DictReader(file):
            columns[row["series"]].append(float(row["value"].replace("NA", "nan")))
    return {name: np.array(values) for name, values in columns.items()}


def classic(name: str) -> NDArray[np.float64]:
    """A series of R's datasets and forecast packages without missing ends; log<Name> is its logarithm."""
    if name.startswith("log"):
        return np.log(classic(name.removeprefix("log")))
    values = _classic()[name]
    seen = np.flatnonzero(~np.isnan(values))
    return values[seen[0] : seen[-1] + 1].copy()


def batch(*series: object) -> SeriesBatch:
    """Series as one batch that ends with period 0."""
    return SeriesBatch(Ragged.of([np.asarray(one, np.float64) for one in series]), np.zeros(len(series), np.int64))


def simulated(n_series: int, length: int, seed: int) -> list[NDArray[np.float64]]:
    """Random ARIMA(1,1,1), level a thousand times the innovations' standard deviation."""
    random = np.random.default_rng(seed)
    series = []
    for phi, theta in random.uniform(-0.95, 0.95, (n_series, 2)):
        e = random.standard_normal(length + 100)
        w = np.zeros(length + 100)
        for t in range(1, len(w)):
            w[t] = phi * w[t - 1] + e[t] + theta * e[t - 1]
        series.append(1000 + np.cumsum(w[100:]))
    return series


def journal_like(n_series: int, length: int, seed: int) -> list[NDArray[np.float64]]:
    """Daily totals of a compound Poisson process with a weekly shape: the hard case, theta close to -1."""
    random = np.random.default_rng(seed)
    days = np.arange(length) % 7
    series = []
    for rate in np.exp(random.uniform(np.log(0.3), np.log(8), n_series)):
        counts = random.poisson(rate * random.uniform(0.3, 1.7, 7)[days])
        series.append(np.array([random.lognormal(4, 1, count).sum() for count in counts]))
    return series
