"""The theta method against R's thetaf, and the laws that hold for any series."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from almanac.api import ForecastModel
from almanac_jobs.forecast import fit, theta
from almanac_jobs.forecast.types import Forecast, Parameters, Ragged
from series import DATA, batch, classic, journal_like, simulated

NAN, INF = np.nan, np.inf
R = json.loads((DATA / "families_r.json").read_text())["theta"]


def run(*series: object, season_length: int = 1, horizon: int = 14) -> tuple[Parameters, Forecast]:
    fitted = theta.fit(batch(*series), ForecastModel(family="theta", season_length=season_length))
    return fitted, fit.forecast(fitted, horizon)


@pytest.mark.parametrize("case", R, ids=lambda case: case["series"])
def test_equals_r(case: dict) -> None:
    values, m = classic(case["series"]), case["seasonLength"]
    fitted, ahead = run(values, season_length=m)
    assert fitted.form[0] == (f"multiplicative[{m}]" if m > 1 else "")
    assert dict(zip(theta.terms(fitted.form[0]), fitted.coefficients[0], strict=True)) == {
        "alpha": pytest.approx(case["alpha"], abs=3e-4),  # R's search stops early
        "drift": pytest.approx(case["drift"], rel=1e-8),
    }
    assert np.sqrt(fitted.sigma2[0]) == pytest.approx(case["sigma"], rel=2e-5)
    assert np.sqrt(fitted.sigma2[0]) < case["sigma"] * (1 + 1e-9)
    np.testing.assert_allclose(ahead.mean[0], case["mean"], rtol=5e-5)
    # R leaves the standard error without the season that it gives back to the mean.
    factor = fitted.state[0][1:][np.arange(14) % m] if m > 1 else 1
    np.testing.assert_allclose(ahead.se[0] / factor, case["se"], rtol=3e-4)


def test_standard_errors_have_the_season_of_the_series() -> None:
    """A series with a strong multiplicative season: errors in a low season are small, and so is the interval."""
    random = np.random.default_rng(1)
    season = np.array([0.2, 1.8, 1, 1])
    level = 100 + np.cumsum(random.normal(0, 0.3, 400))
    values = level * season[np.arange(400) % 4] * (1 + 0.05 * random.standard_normal(400))
    _, ahead = run(values, season_length=4, horizon=4)
    np.testing.assert_allclose(ahead.se[0] / ahead.se[0, 3], season, rtol=0.05)
    assert ahead.se[0, 3] == pytest.approx(5, rel=0.1)


def test_a_series_that_is_not_above_zero_is_decomposed_additively() -> None:
    random = np.random.default_rng(2)
    season = np.array([-30.0, 20, 10, 0])
    values = season[np.arange(80) % 4] + 5 * random.standard_normal(80)
    fitted, ahead = run(values, season_length=4, horizon=8)
    assert fitted.form[0] == "additive[4]"
    np.testing.assert_allclose(ahead.mean[0], np.tile(season, 2), atol=5)
    _, high = run(values + 10, season_length=4, horizon=8)
    np.testing.assert_allclose(high.mean - 10, ahead.mean, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(high.se, ahead.se, rtol=1e-7)


@pytest.mark.parametrize("m", [2, 4, 5, 12])
@pytest.mark.parametrize("model", ["additive", "multiplicative"])
def test_the_decomposition_is_the_classical_one(m: int, model: str) -> None:
    seasonal_decompose = pytest.importorskip("statsmodels.tsa.seasonal").seasonal_decompose
    values = classic("AirPassengers")[:77] - (300 if model == "additive" else 0)
    season, multiplicative = theta.decompose(Ragged.of([values, values[:50]]), m)
    assert multiplicative.tolist() == [model == "multiplicative"] * 2
    for i, one in enumerate((values, values[:50])):
        expected = seasonal_decompose(one, model=model, period=m).seasonal[:m]
        np.testing.assert_allclose(season[i], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("m", [2, 7, 12])
def test_the_test_of_a_season_is_bartletts(m: int) -> None:
    series = journal_like(40, 90, 6) + simulated(10, 61, 7) + [classic("AirPassengers"), classic("lynx")]
    expected = []
    for values in series:
        w = values - values.mean()
        r = np.array([np.sum(w[k:] * w[:-k]) / np.sum(w**2) for k in range(1, m + 1)])
        expected.append(abs(r[-1]) / np.sqrt((1 + 2 * np.sum(r[:-1] ** 2)) / len(w)) > 1.6448536269514722)
    assert theta.is_seasonal(Ragged.of(series), m).tolist() == expected
    assert 0 < sum(expected) < len(expected)


@pytest.mark.parametrize(
    ("values", "season_length", "status", "form"),
    [
        ([5.0], 1, "too_short", ""),
        ([5.0, 6, 4, 7], 1, "too_short", ""),
        ([5.0, 6, 4, 7, 5], 1, "ok", ""),
        ([7.0] * 30, 7, "constant", ""),
        ([0.0] * 30, 1, "constant", ""),
        ([1.0, 5, 2, 8] * 10, 4, "constant", "multiplicative[4]"),
        ([-1.0, 5, 2, 8] * 10, 4, "constant", "additive[4]"),
        ([1.0, 5, 2, 8, 1, 5, 2, 8], 4, "ok", ""),
        ([], 1, "empty", ""),
        ([1.0, 2, INF, 4, 5, 6, 7, 8], 1, "not_finite", ""),
        ([1.0, 2, NAN, 4, 3, 6, 7, 8], 1, "fallback:naive", ""),
        ([1e300, -1e300] * 10, 1, "too_short", ""),
    ],
)
def test_edge_cases(values: list[float], season_length: int, status: str, form: str) -> None:
    fitted, ahead = run(values, season_length=season_length, horizon=8)
    assert (fitted.status[0], fitted.form[0]) == (status, form)
    assert fitted.model[0] == ("theta" if status in ("ok", "constant") else "naive")
    assert np.isfinite(ahead.mean).all() == (status not in ("empty", "not_finite"))
    if status == "constant":
        np.testing.assert_allclose(ahead.se, 0, atol=1e-12)
        np.testing.assert_allclose(ahead.mean[0], np.resize(values[: season_length if form else 1], 8), atol=1e-9)


@pytest.mark.parametrize(("name", "m"), [("Nile", 1), ("AirPassengers", 12)])
@pytest.mark.parametrize("scale", [2.0**-40, 2.0**30])
def test_the_unit_of_the_values_changes_nothing_else(name: str, m: int, scale: float) -> None:
    plain, forecast = run(classic(name), season_length=m)
    scaled, ahead = run(classic(name) * scale, season_length=m)
    assert scaled.coefficients[0][0] == plain.coefficients[0][0]
    np.testing.assert_allclose(ahead.mean, forecast.mean * scale, rtol=1e-13)
    np.testing.assert_allclose(ahead.se, forecast.se * scale, rtol=1e-13)


def test_the_level_changes_no_interval() -> None:
    _, forecast = run(classic("Nile"))
    _, ahead = run(classic("Nile") + 1e7)
    np.testing.assert_allclose(ahead.se, forecast.se, rtol=1e-7)
    np.testing.assert_allclose(ahead.mean - 1e7, forecast.mean, rtol=1e-7)


VALUES = st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-2, 2).map(float), max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), st.integers(1, 7))
def test_every_series_gets_a_finite_forecast_of_its_own(series: list[list[float]], season_length: int) -> None:
    fitted, ahead = run(*series, season_length=season_length)
    assert np.isfinite(ahead.mean).all(axis=1).tolist() == [len(values) > 0 for values in series]
    for i, values in enumerate(series):
        alone, forecast = run(values, season_length=season_length)
        assert alone.form[0] == fitted.form[i]
        np.testing.assert_array_equal(forecast.mean[0], ahead.mean[i])
        np.testing.assert_array_equal(forecast.se[0], ahead.se[i])
