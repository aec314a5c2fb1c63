"""The engines that are compared. Each does the same work: fit ARIMA(1,1,1), forecast 14 steps, give the 95 % interval.

An engine takes series as rows and gives (phi, theta) of each as a row, NaN where it gave up. The work is done in the
way that the engine's own documentation shows. A difference that has to be undone by hand is undone inside the
measured time.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import statsforecast.models
import statsmodels.tsa.arima.model
from numpy.typing import NDArray
from statsmodels.tsa.statespace.sarimax import SARIMAX

from almanac.api import ForecastModel
from almanac_jobs.forecast import arima
from almanac_jobs.forecast.types import Ragged, SeriesBatch

Floats = NDArray[np.float64]

ORDER = (1, 1, 1)
HORIZON = 14
LEVEL = 95
Z = 1.959963984540054


class Engine(ABC):
    """One engine. `series_per_round` is how many series it fits in each round: slow engines get a sample."""

    name: ClassVar[str]
    series_per_round: ClassVar[int]

    @abstractmethod
    def run(self, series: Floats) -> Floats:
        """Fit and forecast each row; (phi, theta) of each, NaN where there are none."""


class Almanac(Engine):
    """Ours: every series in one call."""

    name = "almanac"
    series_per_round = 500

    def run(self, series: Floats) -> Floats:
        batch = SeriesBatch(Ragged.regular(series), np.zeros(len(series), np.int64))
        parameters = arima.fit(batch, ForecastModel(order=ORDER))
        forecast = arima.forecast(parameters, HORIZON)
        _ = forecast.mean - Z * forecast.se, forecast.mean + Z * forecast.se
        fitted = parameters.coefficients.lengths == 2
        result = np.full((len(series), 2), np.nan)
        result[fitted] = parameters.coefficients.take(np.flatnonzero(fitted)).values.reshape(-1, 2)
        return result


class OneByOne(Engine):
    """An engine that takes one series at a time."""

    def run(self, series: Floats) -> Floats:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.array([self._try(y) for y in series])

    def _try(self, y: Floats) -> tuple[float, float]:
        try:
            return self.one(y)
        except (ArithmeticError, IndexError, ValueError):  # what the peers raise for a series that they cannot fit
            return np.nan, np.nan

    @abstractmethod
    def one(self, y: Floats) -> tuple[float, float]:
        """Fit and forecast one series; its (phi, theta)."""


class Statsforecast(OneByOne):
    """statsforecast's ARIMA with its default method, CSS-ML."""

    name = "statsforecast"
    series_per_round = 100

    def one(self, y: Floats) -> tuple[float, float]:
        model = statsforecast.models.ARIMA(order=ORDER).fit(y)
        model.predict(HORIZON, level=[LEVEL])
        return model.model_["coef"]["ar1"], model.model_["coef"]["ma1"]


class Statsmodels(OneByOne):
    """statsmodels' ARIMA with its default method: a state space with an approximately diffuse start."""

    name = "statsmodels ARIMA"
    series_per_round = 20

    def one(self, y: Floats) -> tuple[float, float]:
        result = statsmodels.tsa.arima.model.ARIMA(y, order=ORDER).fit()
        result.get_forecast(HORIZON).conf_int(alpha=1 - LEVEL / 100)
        return result.params[0], result.params[1]


class StatsmodelsDifferenced(OneByOne):
    """statsmodels' SARIMAX on differences: the exact likelihood. The interval is that of the differences."""

    name = "statsmodels SARIMAX, differenced"
    series_per_round = 100

    def one(self, y: Floats) -> tuple[float, float]:
        result = SARIMAX(y, order=ORDER, simple_differencing=True).fit(disp=False)
        forecast = result.get_forecast(HORIZON)
        forecast.conf_int(alpha=1 - LEVEL / 100)
        np.cumsum(forecast.predicted_mean) + y[-1]
        return result.params[0], result.params[1]


class R:
    """R's stats::arima, where Rscript is installed. A process of its own, which measures its own CPU time."""

    name = "R stats::arima"
    script = Path(__file__).with_name("stats_arima.R")

    def __init__(self) -> None:
        self.program = shutil.which("Rscript")

    def run(self, series: Floats, rounds: int) -> tuple[Floats, list[float]]:
        """Fit and forecast each row: (phi, theta) of each, and the CPU seconds of each of `rounds` equal parts."""
        assert self.program is not None
        with tempfile.TemporaryDirectory() as folder:
            given, fitted = Path(folder, "series.csv"), Path(folder, "fitted.csv")
            np.savetxt(given, series, delimiter=",", fmt="%.17g")
            command = [self.program, "--vanilla", str(self.script), str(given), str(fitted), str(rounds)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            return np.loadtxt(fitted, delimiter=",", ndmin=2), [float(seconds) for seconds in printed.split()]


ENGINES: tuple[type[Engine], ...] = (Almanac, Statsforecast, StatsmodelsDifferenced, Statsmodels)
