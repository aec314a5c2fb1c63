"""Fitting and forecasting with any family: which series it is asked to fit, and what stands in where it cannot.

Every series of a batch gets an entry, whatever it holds, and no series changes the result of another.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np

from almanac.api.forecast import Family, ForecastModel
from almanac_jobs.forecast import naive, segments
from almanac_jobs.forecast.types import FAILED, Forecast, Ints, Parameters, SeriesBatch, Status


class _Module(Protocol):
    def fit(self, batch: SeriesBatch, model: ForecastModel) -> Parameters: ...
    def forecast(self, parameters: Parameters, horizon: int) -> Forecast: ...
    def terms(self, form: str) -> tuple[str, ...]: ...


def fit(batch: SeriesBatch, observed: Ints, model: ForecastModel, min_observations: int) -> Parameters:
    """Fit `model` to every series with at least `min_observations` of its periods observed before gaps were filled
    (`observed`).

    The others carry their last value forward (`too_short`), as do those that the model has too few values for; where
    the model fails, the naive forecast stands in (`fallback:naive`). Raises MemoryError, and JobError if an extra is
    not installed.
    """
    with np.errstate(
        over="ignore", invalid="ignore", divide="ignore"
    ):  # of values near the largest double, whose squares overflow
        return _fit(batch, observed, model, min_observations)


def _fit(batch: SeriesBatch, observed: Ints, model: ForecastModel, min_observations: int) -> Parameters:
    infinite = segments.counts(np.isinf(batch.values.values), batch.values) > 0
    eligible = (observed >= min_observations) & ~infinite & (batch.values.lengths > 0)
    rows = np.flatnonzero(eligible)
    fitted = _module(model.family).fit(batch.take(rows), model)
    unfitted = np.flatnonzero((fitted.state.lengths == 0) & ~np.isin(fitted.status, list(FAILED)))
    short = np.isin(fitted.status[unfitted], Status.TOO_SHORT)
    groups = (
        (np.delete(rows, unfitted), fitted.take(np.delete(np.arange(len(rows)), unfitted))),
        (rows[unfitted[short]], naive.carry_forward(batch.take(rows[unfitted[short]]))),
        (rows[unfitted[~short]], naive.fallback(batch.take(rows[unfitted[~short]]))),
        (np.flatnonzero(~eligible), naive.carry_forward(batch.take(np.flatnonzero(~eligible)))),
    )
    back = np.argsort(np.concatenate([rows for rows, _ in groups]), kind="stable")
    return Parameters.concatenate([part for _, part in groups]).take(back)


def forecast(parameters: Parameters, horizon: int) -> Forecast:
    """Forecasts of `horizon` periods after each series' last value, from parameters alone; NaN where there is none."""
    mean, se = np.full((2, len(parameters), horizon), np.nan)
    for model in np.unique(parameters.model):
        rows = np.flatnonzero(parameters.model == model)
        part = _module(model).forecast(parameters.take(rows), horizon)
        mean[rows], se[rows] = part.mean, part.se
    return Forecast(mean, se)


def terms(model: str, form: str) -> tuple[str, ...]:
    """Names of the coefficients of parameters with this `model` and `form`."""
    return _module(model).terms(form)


def _module(name: str) -> _Module:
    """The module of a family, or of what `Parameters.model` names: its own, but that seasonal naive is in naive."""
    name = "naive" if name == Family.SEASONALNAIVE else name
    module: Any = import_module(f"almanac_jobs.forecast.{name}")
    return cast(_Module, module)
