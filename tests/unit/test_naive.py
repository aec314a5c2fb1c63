"""Naive, seasonal naive, mean and drift against R, and with missing values against the exact likelihood."""

from __future__ import annotations

import json
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from almanac.api.forecast import ForecastModel
from almanac_jobs.forecast import arima, drift, mean, naive
from almanac_jobs.forecast.arima import Order
from almanac_jobs.forecast.types import Forecast, Parameters
from series import DATA, batch, classic

NAN, INF = np.nan, np.inf
R = json.loads((DATA / "families_r.json").read_text())["simple"]
MODULES: dict[str, ModuleType] = {"seasonalnaive": naive, "mean": mean, "drift": drift}


def run(family: str, *series: object, season_length: int = 1, horizon: int = 14) -> tuple[Parameters, Forecast]:
    module = MODULES[family]
    fitted = module.fit(batch(*series), ForecastModel(family=family, season_length=season_length))
    assert len(fitted.coefficients.values) == sum(
        len(module.terms(form)) for form in fitted.form[fitted.model == family]
    )
    return fitted, (module if (fitted.model == family).all() else naive).forecast(fitted, horizon)


@pytest.mark.parametrize("case", R, ids=lambda case: f"{case['series']}-{case['family']}")
def test_equals_r(case: dict) -> None:
    family, values = case["family"], classic(case["series"])
    if family == "naive":
        fitted = naive.fallback(batch(values))
        ahead = naive.forecast(fitted, 14)
        assert fitted.status[0] == "fallback:naive"
    else:
        fitted, ahead = run(family, values, season_length=case["seasonLength"])
        assert fitted.status[0] == "ok"
    np.testing.assert_allclose(ahead.mean[0], case["mean"], rtol=1e-8)
    np.testing.assert_allclose(ahead.se[0], case["se"], rtol=1e-8)


def test_the_formulas_of_forecasting_principles_and_practice() -> None:
    """Section 5.5: residual standard deviations with their degrees of freedom, and how standard errors grow."""
    values, m, ahead = classic("AirPassengers"), 12, np.arange(1, 31)
    n = len(values)
    _, constant = run("mean", values, horizon=30)
    np.testing.assert_allclose(constant.se[0], np.std(values, ddof=1) * np.sqrt(1 + 1 / n))
    _, line = run("drift", values, horizon=30)
    steps = np.diff(values)
    sigma = np.sqrt(np.sum((steps - steps.mean()) ** 2) / (n - 2))
    np.testing.assert_allclose(line.mean[0], values[-1] + ahead * (values[-1] - values[0]) / (n - 1))
    np.testing.assert_allclose(line.se[0], sigma * np.sqrt(ahead * (1 + ahead / (n - 1))))
    _, seasonal = run("seasonalnaive", values, season_length=m, horizon=30)
    np.testing.assert_array_equal(seasonal.mean[0, :24], np.tile(values[-m:], 2))
    sigma = np.sqrt(np.mean((values[m:] - values[:-m]) ** 2))
    np.testing.assert_allclose(seasonal.se[0], sigma * np.sqrt((ahead - 1) // m + 1))


def holed(values: np.ndarray, seed: int, share: float = 0.3) -> np.ndarray:
    values = values.copy()
    inside = np.arange(1, len(values) - 1)
    values[np.random.default_rng(seed).choice(inside, int(share * len(values)), replace=False)] = NAN
    return values


@pytest.mark.parametrize("name", ["Nile", "WWWusage", "AirPassengers"])
def test_missing_values_are_those_of_the_exact_likelihood(name: str) -> None:
    """The random walk is ARIMA(0,1,0): its likelihood with missing values gives sigma^2, its filter the forecast."""
    values = holed(classic(name), 1)
    walk = arima.fit_order(batch(values), Order(0, 1, 0))
    ours = naive.fallback(batch(values))
    assert ours.sigma2[0] == pytest.approx(walk.sigma2[0], rel=1e-6)
    theirs = arima.forecast(walk, 5)
    np.testing.assert_allclose(naive.forecast(ours, 5).mean, theirs.mean, rtol=1e-9)
    np.testing.assert_allclose(naive.forecast(ours, 5).se, theirs.se, rtol=1e-6)


def test_missing_seasons_are_those_of_the_exact_likelihood() -> None:
    values = holed(classic("AirPassengers"), 2)
    values[-8:-3] = NAN
    walk = arima.fit_order(batch(values), Order(0, 0, 0, 0, 1, 0, 12))
    fitted, ahead = run("seasonalnaive", values, season_length=12, horizon=30)
    theirs = arima.forecast(walk, 30)
    assert fitted.sigma2[0] == pytest.approx(walk.sigma2[0], rel=0.2)  # the filter weighs the first year's gaps as well
    np.testing.assert_allclose(ahead.mean, theirs.mean, rtol=1e-6)
    np.testing.assert_allclose(ahead.se / np.sqrt(fitted.sigma2[0]), theirs.se / np.sqrt(walk.sigma2[0]), rtol=1e-5)


def test_missing_values_leave_the_drift_and_scale_its_steps() -> None:
    """Generalised least squares of the observed steps: mean g c, variance g sigma^2."""
    values = holed(classic("LakeHuron"), 3)
    seen = np.flatnonzero(~np.isnan(values))
    steps, gaps = np.diff(values[seen]), np.diff(seen)
    slope = np.sum(steps) / np.sum(gaps)
    fitted, _ = run("drift", values)
    assert fitted.coefficients[0][0] == pytest.approx(slope)
    weighted = np.linalg.lstsq(np.sqrt(gaps)[:, None], steps / np.sqrt(gaps), rcond=None)
    assert slope == pytest.approx(weighted[0][0])
    assert fitted.sigma2[0] == pytest.approx(weighted[1][0] / (len(gaps) - 1))


def test_missing_values_are_no_observations_of_the_mean() -> None:
    values = holed(classic("Nile"), 4)
    seen = values[~np.isnan(values)]
    fitted, ahead = run("mean", values)
    assert fitted.observations[0] == len(seen)
    np.testing.assert_allclose(ahead.mean[0], seen.mean())
    np.testing.assert_allclose(ahead.se[0], seen.std(ddof=1) * np.sqrt(1 + 1 / len(seen)))


@pytest.mark.parametrize(
    ("family", "season_length", "values", "model", "status"),
    [
        ("mean", 1, [5.0], "naive", "too_short"),
        ("drift", 1, [5.0, 6.0], "naive", "too_short"),
        ("drift", 1, [5.0, 6.0, 4.0], "drift", "ok"),
        ("seasonalnaive", 7, [5.0, 6.0, 4.0], "naive", "fallback:naive"),
        ("seasonalnaive", 7, [1.0] * 7, "naive", "constant"),
        ("seasonalnaive", 3, [1.0, NAN, 2.0, 4.0, NAN, 3.0], "naive", "fallback:naive"),
        ("seasonalnaive", 1, [5.0], "naive", "too_short"),
        ("seasonalnaive", 3, [1.0, 2.0, 3.0] * 3, "seasonalnaive", "constant"),
        ("mean", 1, [], "naive", "empty"),
        ("drift", 1, [1.0, INF, 3.0, 4.0], "naive", "not_finite"),
        ("mean", 1, [7.0] * 9, "mean", "constant"),
        ("drift", 1, [0.1 * i for i in range(50)], "drift", "constant"),
    ],
)
def test_statuses(family: str, season_length: int, values: list[float], model: str, status: str) -> None:
    fitted, ahead = run(family, values, season_length=season_length)
    assert (fitted.model[0], fitted.status[0]) == (model, status)
    assert np.isfinite(ahead.mean).all() == (status not in ("empty", "not_finite"))
    if status == "too_short":
        np.testing.assert_array_equal(ahead.mean[0], values[-1])
        assert np.isnan(ahead.se).all()
    if status == "constant":
        np.testing.assert_array_equal(ahead.se, 0)


def test_what_is_carried_forward_has_no_interval() -> None:
    carried = naive.carry_forward(batch([1.0, 2.0, 4.0], [], [INF, 1.0]))
    ahead = naive.forecast(carried, 2)
    assert carried.status.tolist() == ["too_short", "empty", "not_finite"]
    np.testing.assert_array_equal(ahead.mean, [[4, 4], [NAN, NAN], [NAN, NAN]])
    assert np.isnan(ahead.se).all()


@pytest.mark.parametrize("family", MODULES)
def test_level_and_unit_change_nothing_else(family: str) -> None:
    values = classic("Nile")
    _, plain = run(family, values, season_length=5)
    _, high = run(family, values + 1e9, season_length=5)
    np.testing.assert_allclose(high.mean - 1e9, plain.mean, rtol=1e-8)
    np.testing.assert_allclose(high.se, plain.se, rtol=1e-8)
    for scale in (2.0**-40, 2.0**60):
        _, scaled = run(family, values * scale, season_length=5)
        np.testing.assert_array_equal(scaled.mean, plain.mean * scale)
        np.testing.assert_array_equal(scaled.se, plain.se * scale)


VALUES = st.lists(st.floats(allow_nan=True) | st.integers(-3, 3).map(float), max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=5), st.sampled_from(sorted(MODULES)), st.integers(1, 8))
def test_a_series_alone_gives_the_same_bytes_as_in_a_batch(series: list[list[float]], family: str, m: int) -> None:
    trimmed = []
    for values in series:
        seen = [i for i, value in enumerate(values) if not np.isnan(value)]
        trimmed.append(values[seen[0] : seen[-1] + 1] if seen else [])
    module, model = MODULES[family], ForecastModel(family=family, season_length=m)
    together = module.fit(batch(*trimmed), model)
    for i, values in enumerate(trimmed):
        alone = module.fit(batch(values), model)
        assert (alone.status[0], alone.model[0]) == (together.status[i], together.model[i])
        np.testing.assert_array_equal(alone.sigma2[0], together.sigma2[i])
        np.testing.assert_array_equal(alone.state[0], together.state[i])
        np.testing.assert_array_equal(alone.coefficients[0], together.coefficients[i])
