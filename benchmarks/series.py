"""The series that the forecasting benchmarks fit. Everything follows from the seed.

`simulated` draws from the model that is fitted, at a level a thousand times its noise, which several engines cannot
bear. `journal` are daily totals of journal entries: for these a difference is one too many, the moving-average root
lies close to the unit circle, and optimisers work hardest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PURCHASES = Path("data/cdnow")
"""What the demo has fetched: real amounts, and real gaps between one customer's purchases."""

WEEKDAYS = np.array([1.0, 0.95, 0.95, 1.0, 1.1, 0.35, 0.2]) / 1.1
"""Activity by day of the week, Monday first, as a share of the busiest day's."""

BURN_IN = 200


@dataclass(frozen=True)
class Purchases:
    """Empirical distributions: `amounts` above zero, and `gaps` between purchases with a mean of 1."""

    amounts: Floats
    gaps: Floats

    @classmethod
    def read(cls, folder: Path = PURCHASES) -> Purchases:
        """The distributions in the demo's data.

        The part of a day that dates hide is drawn evenly, so that purchases of one day are some hours apart.
        """
        table = ds.dataset(folder, partitioning="hive").to_table(["customer", "date", "dollars"])
        table = table.sort_by([("customer", "ascending"), ("date", "ascending")])
        customers = table["customer"].combine_chunks().dictionary_encode().indices.to_numpy()
        days = pc.cast(table["date"], "int32").to_numpy().astype(np.float64)
        same = customers[1:] == customers[:-1]
        gaps = np.diff(days)[same]
        gaps = np.maximum(gaps, 0) + np.random.default_rng(0).random(len(gaps))
        amounts = pc.cast(table["dollars"], "float64").to_numpy()
        return cls(amounts[amounts > 0], gaps / gaps.mean())


def simulated(n_series: int, length: int, rng: Generator) -> Floats:
    """ARIMA(1,1,1) of sigma 1 around a level of 1000, phi and theta even on (-0.95, 0.95): (n_series, length)."""
    phi, theta = rng.uniform(-0.95, 0.95, (2, n_series, 1))
    e = rng.standard_normal((n_series, BURN_IN + length))
    shocks = e[:, 1:] + theta * e[:, :-1]
    w = np.zeros_like(shocks)
    for t in range(1, shocks.shape[1]):
        w[:, t] = phi[:, 0] * w[:, t - 1] + shocks[:, t]
    changes = w[:, -length:]
    return 1000.0 + np.cumsum(changes, axis=1) - changes[:, :1]


def journal(n_series: int, length: int, rng: Generator) -> Floats:
    """Daily totals of journal entries, about one to ten a day: (n_series, length), rounded to cents.

    Entries come in bursts, as the gaps between purchases do, and fewer of them at weekends.
    """
    purchases = Purchases.read()
    per_day = np.exp(rng.normal(np.log(3), 0.6, (n_series, 1))).clip(1, 10)
    times = np.cumsum(rng.choice(purchases.gaps, (n_series, int(15 * length + 50))) / per_day, axis=1)
    times -= rng.random((n_series, 1)) * times[:, :1]
    series, entry = np.nonzero(times < length)
    day = times[series, entry].astype(np.int64)
    kept = rng.random(len(day)) < WEEKDAYS[day % 7]
    cells = (series * length + day)[kept]
    totals = np.bincount(cells, rng.choice(purchases.amounts, len(cells)), n_series * length)
    return totals.reshape(n_series, length).round(2)


KINDS: dict[str, Callable[[int, int, Generator], Floats]] = {"simulated": simulated, "journal": journal}
