"""Whatever a series holds, it gets a status and never takes its neighbours down: the edge cases of engines."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from almanac.api.forecast import ForecastModel
from almanac_jobs.forecast import fit
from almanac_jobs.forecast.types import Forecast, Parameters, SeriesBatch
from series import batch, classic, journal_like, simulated

NAN, INF = np.nan, np.inf
ARIMA = ForecastModel()


def run(*series: object, model: ForecastModel = ARIMA, least: int = 1, horizon: int = 6) -> tuple[Parameters, Forecast]:
    one = batch(*series)
    fitted = fit.fit(one, one.observed, model, least)
    return fitted, fit.forecast(fitted, horizon)


def interval(ahead: Forecast) -> np.ndarray:
    return 2 * 1.959963984540054 * ahead.se


@pytest.mark.parametrize("values", [[5.0], [5.0, 6.0], [5.0, 6.0, 4.0], [5, 6, 4, 7, 5]])
def test_a_few_values_carry_the_last_one_forward_without_an_interval(values: list[float]) -> None:
    fitted, ahead = run(values)
    assert fitted.status[0] == "too_short"
    assert fitted.model[0] == "naive"
    np.testing.assert_array_equal(ahead.mean[0], values[-1])
    assert np.isnan(ahead.se).all()


def test_min_observations_counts_what_was_observed_not_what_was_filled() -> None:
    values = np.zeros(100)
    values[[0, 50]] = 3
    one = batch(values, values)
    fitted = fit.fit(one, np.array([2, 40]), ARIMA, 20)
    assert fitted.status[0] == "too_short"
    assert fitted.model[1] == "arima"


@pytest.mark.parametrize("level", [0.0, 7.0, 1e12])
def test_a_constant_series_is_forecast_exactly(level: float) -> None:
    fitted, ahead = run(np.full(40, level))
    assert fitted.status[0] == "constant"
    np.testing.assert_array_equal(ahead.mean[0], level)
    np.testing.assert_array_equal(ahead.se[0], 0)


def test_a_series_whose_last_values_differ_gets_a_forecast_with_an_interval() -> None:
    values = np.full(40, 200.0)
    values[-2:] = 210, 217
    fitted, ahead = run(values)
    assert fitted.model[0] == "arima"
    assert 200 < ahead.mean[0, 0] < 235
    assert 0 < interval(ahead)[0, 0] < 40


def test_missing_values_inside_are_left_missing() -> None:
    values = classic("WWWusage")
    holed = values.copy()
    holed[[30, 31, 70]] = NAN
    (_, full), (fitted, ahead) = run(values), run(holed)
    assert fitted.status[0] == "ok"
    assert fitted.observations[0] == 97
    np.testing.assert_allclose(ahead.mean, full.mean, rtol=0.01)


@pytest.mark.parametrize(("values", "status"), [([], "empty"), ([1.0] * 15 + [INF] + [2.0] * 15, "not_finite")])
def test_a_series_without_a_usable_value_has_no_forecast(values: list[float], status: str) -> None:
    fitted, ahead = run(values, classic("WWWusage"))
    assert fitted.status.tolist() == [status, "ok"]
    assert np.isnan(ahead.mean[0]).all()
    assert np.isfinite(ahead.mean[1]).all()


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e12])
def test_the_unit_of_the_values_changes_the_forecast_by_that_unit(scale: float) -> None:
    _, plain = run(classic("WWWusage"))
    _, scaled = run(classic("WWWusage") * scale)
    np.testing.assert_allclose(scaled.mean, plain.mean * scale, rtol=1e-5)
    np.testing.assert_allclose(scaled.se, plain.se * scale, rtol=1e-5)


def test_the_level_changes_no_interval() -> None:
    series = [values - values.mean() for values in simulated(5, 120, 3)]
    _, low = run(*series)
    _, high = run(*[values + 1e7 for values in series])
    np.testing.assert_allclose(high.se, low.se, rtol=1e-4)


def test_alternating_values_alternate_on() -> None:
    _, ahead = run(np.tile([1.0, -1.0], 20))
    np.testing.assert_allclose(ahead.mean[0], [1, -1, 1, -1, 1, -1], atol=0.01)


def test_over_differenced_series_say_so_and_stay_invertible() -> None:
    fitted, _ = run(*journal_like(40, 120, 4))
    theta = np.array([fitted.coefficients[i][1] for i in range(len(fitted))])
    assert (np.abs(theta) <= 1).all()
    assert ((theta < -0.999) == (fitted.status == "over_differenced")).all()
    assert (fitted.status == "over_differenced").any()


@pytest.mark.parametrize("family", ["arima", "seasonalnaive", "mean", "drift"])
def test_bad_series_change_nothing_for_their_neighbours(family: str) -> None:
    model = ForecastModel(family=family)
    good = [classic("WWWusage"), *simulated(3, 60, 9)]
    bad = [[], [INF] * 30, [1.0], [0.0] * 30, [1e308, -1e308] * 20, [NAN], [5e-324, 0.0] * 20]
    _, alone = run(*good, model=model)
    mixed = [one for pair in zip(good, bad[:4], strict=True) for one in pair] + bad[4:]
    _, together = run(*mixed, model=model)
    np.testing.assert_array_equal(together.mean[0:8:2], alone.mean)
    np.testing.assert_array_equal(together.se[0:8:2], alone.se)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(allow_nan=False), max_size=30), min_size=1, max_size=6))
def test_every_series_gets_a_status_and_a_finite_forecast_or_none(series: list[list[float]]) -> None:
    fitted, ahead = run(*series, least=3)
    assert len(fitted) == len(series)
    assert set(fitted.status) <= {
        "ok", "weakly_identified", "over_differenced", "too_short", "constant", "not_finite", "empty", "fallback:naive",
    }  # fmt: skip
    none = np.isin(fitted.status, ["empty", "not_finite"])
    assert np.isnan(ahead.mean[none]).all()
    assert np.isfinite(ahead.mean[~none]).all()


def test_forecasts_of_a_longer_horizon_begin_with_those_of_a_shorter() -> None:
    for family in ("arima", "seasonalnaive", "mean", "drift"):
        fitted, ahead = run(*simulated(4, 80, 2), model=ForecastModel(family=family), horizon=5)
        longer = fit.forecast(fitted, 20)
        np.testing.assert_array_equal(longer.mean[:, :5], ahead.mean)
        assert all((later >= earlier).all() for earlier, later in pairwise(longer.se.T)), family


def test_an_empty_batch_is_fitted_to_nothing() -> None:
    fitted, ahead = run()
    assert len(fitted) == 0
    assert ahead.mean.shape == (0, 6)
    assert isinstance(batch(), SeriesBatch)
