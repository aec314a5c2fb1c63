"""Speed and quality of the engines on one core: python -m benchmarks.compare [--rounds N] [--series N]

Engines take turns within a round, so that whatever else the machine does hits all of them, and each is charged the
CPU time of its process. Quality is regret: the best exact log-likelihood that any engine reached on a series, less
the exact log-likelihood at this engine's parameters. Both come from one program that judges all: statsmodels' Kalman
filter on the differences, at given parameters, with sigma^2 concentrated out.

The last line is JSON, for `benchmarks.forecast`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from statsmodels.tsa.statespace.sarimax import SARIMAX

from benchmarks.engines import ENGINES, ORDER, Almanac, R, Statsforecast, Statsmodels
from benchmarks.series import KINDS

Floats = NDArray[np.float64]

LENGTHS = (120, 730)
SEED = 20261121
SLACK = 0.1
"""Regret, in nats, above which a fit counts as missed."""


@dataclass
class Measured:
    """One engine on one data set, by rounds: CPU seconds for a series, the series it fitted and their (phi, theta)."""

    seconds: list[float] = field(default_factory=list)
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    coefficients: list[Floats] = field(default_factory=list)

    @property
    def series_per_second(self) -> float:
        return float(1 / np.median(self.seconds))

    def add(self, seconds: float, rows: NDArray[np.int64], coefficients: Floats) -> None:
        self.seconds.append(seconds / len(rows))
        self.rows.append(rows)
        self.coefficients.append(coefficients)


def measure(series: Floats, rounds: int) -> dict[str, Measured]:
    """Every engine on its share of the series, in `rounds` rounds; R, where it is installed, after the others."""
    engines = [engine() for engine in ENGINES]
    measured = {engine.name: Measured() for engine in engines}
    for engine in engines:  # imports, caches and the first call's costs are the cold start's, measured elsewhere
        engine.run(series[:2])
    for i in range(rounds):
        for engine in engines:
            share = min(engine.series_per_round, len(series))
            rows = np.arange(i * share, (i + 1) * share) % len(series)
            begun = time.process_time()
            coefficients = engine.run(series[rows])
            measured[engine.name].add(time.process_time() - begun, rows, coefficients)
    r = R()
    if r.program:
        coefficients, seconds = r.run(series, rounds)
        for rows, taken in zip(np.array_split(np.arange(len(series)), rounds), seconds, strict=True):
            measured.setdefault(r.name, Measured()).add(taken, rows, coefficients[rows])
    return measured


def loglikelihood(y: Floats, candidates: Floats) -> Floats:
    """Exact log-likelihood of ARIMA(1,1,1) at each (phi, theta), -inf where phi is not that of a stationary series."""
    model = SARIMAX(y, order=ORDER, simple_differencing=True, concentrate_scale=True)
    stationary = np.abs(candidates[:, 0]) < 1  # false for NaN, too
    values = [model.loglike(one) if known else -np.inf for one, known in zip(candidates, stationary, strict=True)]
    return np.array(values, np.float64)


def regrets(series: Floats, measured: Mapping[str, Measured]) -> dict[str, Floats]:
    """Regret of each engine on each series, +inf where it gave up, NaN where it was not asked."""
    table = np.full((len(measured), len(series)), np.nan)
    fitted = np.full((len(measured), len(series), 2), np.nan)
    for e, one in enumerate(measured.values()):
        for rows, coefficients in zip(one.rows, one.coefficients, strict=True):
            fitted[e, rows], table[e, rows] = coefficients, 0.0
    for i, y in enumerate(series):
        asked = np.flatnonzero(table[:, i] == 0)
        values = loglikelihood(y, fitted[asked, i])
        table[asked, i] = values.max() - values
    return dict(zip(measured, table, strict=True))


def summary(measured: Mapping[str, Measured], regret: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    """For each engine: series a second, our ratio to it, and how its likelihood compares."""
    ours = measured[Almanac.name].series_per_second
    result = {}
    for name, one in measured.items():
        known = regret[name][~np.isnan(regret[name])]
        result[name] = {
            "series_per_second": one.series_per_second,
            "ratio": ours / one.series_per_second,
            "series": len(known),
            "regret_median": float(np.median(known)),
            "regret_95": float(np.quantile(known, 0.95, method="nearest")),
            "regret_pct_over_0_1": float(100 * np.mean(known > SLACK)),
            "failed": int(np.isinf(known).sum()),
        }
    return result


def nats(regret: float) -> str:
    return f"{regret:.0e}" if regret > 1e-12 else "0"


def show(console: Console, title: str, figures: Mapping[str, Mapping[str, float]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("engine")
    headings = ("series/s", "almanac is", "series", "median regret", "95 % below", "above 0.1", "gave up")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, one in figures.items():
        table.add_row(
            name,
            f"{one['series_per_second']:,.0f}",
            "" if name == Almanac.name else f"{one['ratio']:,.0f}x",
            f"{one['series']:,}",
            nats(one["regret_median"]),
            nats(one["regret_95"]),
            f"{one['regret_pct_over_0_1']:.1f} %",
            f"{one['failed']}",
        )
    console.print(table)


def figures(rounds: int, n_series: int, console: Console) -> dict[str, object]:
    """Every data set measured and printed; the figures that the JSON line gives, and the ratios of each set."""
    sets: dict[str, dict[str, dict[str, float]]] = {}
    for length in LENGTHS:
        for kind, make in KINDS.items():
            series = make(n_series, length, np.random.default_rng([SEED, length]))
            measured = measure(series, rounds)
            name = f"{kind}_{length}"
            sets[name] = summary(measured, regrets(series, measured))
            show(console, f"{n_series} {kind} series of {length}: (1,1,1), {rounds} rounds", sets[name])

    def ratio(engine: str, length: int) -> float:
        return min(sets[f"{kind}_{length}"][engine]["ratio"] for kind in KINDS)

    return {
        "ratio_statsforecast_120": round(ratio(Statsforecast.name, 120), 1),
        "ratio_statsforecast_730": round(ratio(Statsforecast.name, 730), 1),
        "ratio_statsmodels_120": round(ratio(Statsmodels.name, 120), 1),
        "regret_pct_over_0_1": round(max(one[Almanac.name]["regret_pct_over_0_1"] for one in sets.values()), 2),
        "ratios": {
            name: {engine: round(one["ratio"], 1) for engine, one in sets[name].items() if engine != Almanac.name}
            for name in sets
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--series", type=int, default=500, help="of each data set")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(json.dumps(figures(arguments.rounds, arguments.series, Console(width=132))))


if __name__ == "__main__":
    main()
