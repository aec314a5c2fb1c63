"""ARIMA against R, Stata and statsmodels, and the laws that hold for any series."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from almanac.api.forecast import ForecastModel
from almanac_jobs.forecast import arima
from almanac_jobs.forecast.arima import Order
from almanac_jobs.forecast.types import Status
from series import DATA, batch, classic, journal_like, simulated

R = json.loads((DATA / "arima_r.json").read_text())


def order_of(case: dict) -> Order:
    (p, d, q), (P, D, Q) = case["order"], case["seasonalOrder"]  # noqa: N806
    return Order(p, d, q, P, D, Q, case["seasonLength"], constant=d + D == 0)


@pytest.mark.parametrize("case", R, ids=lambda case: f"{case['series']}{order_of(case)}")
def test_equals_r(case: dict) -> None:
    fitted = arima.fit_order(batch(classic(case["series"])), order_of(case))
    ahead = arima.forecast(fitted, 12)
    assert fitted.loglik[0] == pytest.approx(case["loglik"], abs=1e-5)
    assert fitted.sigma2[0] == pytest.approx(case["sigma2"], rel=3e-4)  # R's own carries its prior on the level
    np.testing.assert_allclose(fitted.coefficients[0], case["coefficients"], rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(ahead.mean[0], case["mean"], rtol=1e-5)
    np.testing.assert_allclose(ahead.se[0], case["se"], rtol=2e-4)


def test_equals_stata_on_the_consumer_price_index() -> None:
    """Stata's estimates as statsmodels ships them (tsa/tests/results/arima111nc_results.py)."""
    macrodata = pytest.importorskip("statsmodels.datasets.macrodata")
    fitted = arima.fit_order(batch(macrodata.load_pandas().data["cpi"].to_numpy()), Order(1, 1, 1))
    np.testing.assert_allclose(fitted.coefficients[0], [0.990342, -0.836595], atol=3e-5)
    assert np.sqrt(fitted.sigma2[0]) == pytest.approx(0.805569, abs=1e-4)
    assert fitted.loglik[0] == pytest.approx(-243.77513, abs=1e-3)
    assert fitted.loglik[0] >= -243.77513


@pytest.mark.parametrize("make", [simulated, journal_like])
def test_no_worse_than_statsmodels(make) -> None:
    sarimax = pytest.importorskip("statsmodels.tsa.statespace.sarimax").SARIMAX
    series = make(25, 120, seed=11)
    ours = arima.fit_order(batch(*series), Order(1, 1, 1)).loglik
    for values, loglik in zip(series, ours, strict=True):
        w = np.diff(values)
        scale = np.sqrt(np.mean(w**2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = sarimax(w / scale, order=(1, 0, 1)).fit(disp=False).llf - len(w) * np.log(scale)
        assert loglik > theirs - 1e-3


ORDERS = [
    Order.parse(form)
    for form in (
        "(1,1,1)", "(0,1,1)", "(1,0,0) with mean", "(2,1,2)", "(0,1,1)(0,1,1)[12]", "(3,1,2) with drift", "(0,2,1)",
        "(1,0,1)(1,0,1)[7] with mean", "(2,0,0)(1,1,0)[4] with drift", "(5,0,5)", "(0,0,0) with mean",
        "(1,1,1)(2,1,2)[6]", "(0,1,0)", "(4,1,0)(0,0,1)[5]",
    )
]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_likelihood_forecast_and_standard_error_are_statsmodels_at_our_parameters(order: Order) -> None:
    sarimax = pytest.importorskip("statsmodels.tsa.statespace.sarimax").SARIMAX
    values = 30 + 0.02 * np.arange(100) + 3 * np.sin(np.arange(100) / 5) + np.random.default_rng(3).standard_normal(100)
    fitted = arima.fit_order(batch(values), order)
    ahead = arima.forecast(fitted, 20)
    differenced = values
    for lag in (1,) * order.d + (order.m,) * order.D:
        differenced = differenced[lag:] - differenced[:-lag]
    parameters = dict(zip(arima.terms(str(order)), fitted.coefficients[0], strict=True))
    constant = parameters.pop(order.constant_term, 0.0)
    model = sarimax(
        differenced - constant,
        order=(order.p, 0, order.q),
        seasonal_order=(order.P, 0, order.Q, order.m if order.P or order.Q else 0),
    )
    model.ssm.tolerance = 0  # no short cut to the steady state
    result = model.smooth([*parameters.values(), fitted.sigma2[0]])
    assert fitted.loglik[0] == pytest.approx(result.llf, abs=1e-6)
    expected = _undifferenced(result.get_forecast(20).predicted_mean + constant, values, order)
    np.testing.assert_allclose(ahead.mean[0], expected, rtol=1e-7)
    if order.lags == 0:
        np.testing.assert_allclose(ahead.se[0], result.get_forecast(20).se_mean, rtol=1e-5)


def _undifferenced(ahead: np.ndarray, values: np.ndarray, order: Order) -> np.ndarray:
    extended = list(values)
    for step in ahead:
        past = np.array(extended[::-1][: order.lags])
        extended.append(step + past @ order.delta)
    return np.array(extended[len(values) :])


def test_known_orders_of_forms_round_trip() -> None:
    for order in ORDERS:
        assert Order.parse(str(order)) == order
    assert arima.terms("(1,1,2)(0,0,1)[12] with drift") == ("ar1", "ma1", "ma2", "sma1", "drift")
    with pytest.raises(ValueError, match="not the form"):
        Order.parse("(A,N,N)")


@pytest.mark.parametrize("missing", [False, True])
def test_level_and_unit_change_nothing(missing: bool) -> None:
    values = classic("WWWusage")
    if missing:
        values[[20, 21, 60]] = np.nan
    fitted = arima.fit_order(batch(values, values + 1e7, values * 2.0**-40, -values), Order(1, 1, 1))
    ahead = arima.forecast(fitted, 12)
    for i, (level, unit) in enumerate([(0, 1), (1e7, 1), (0, 2.0**-40), (0, -1)]):
        np.testing.assert_allclose(fitted.coefficients[i], fitted.coefficients[0], atol=1e-6)
        np.testing.assert_allclose(ahead.mean[i], level + unit * ahead.mean[0], rtol=1e-6)
        np.testing.assert_allclose(ahead.se[i], abs(unit) * ahead.se[0], rtol=1e-6)


@pytest.mark.parametrize("form", ["(1,1,1)", "(0,1,1)(0,1,1)[12]", "(1,1,0) with drift", "(2,0,0) with mean"])
def test_missing_values_have_the_likelihood_of_what_was_observed(form: str) -> None:
    """Against the joint normal density written out, the missing values integrated out of it."""
    values, order = classic("AirPassengers")[:70], Order.parse(form)
    values[[4, 30, 31, 32, 50]] = np.nan
    fitted = arima.fit_order(batch(values), order)
    assert fitted.status[0] in (Status.OK, Status.WEAKLY_IDENTIFIED)
    assert fitted.loglik[0] == pytest.approx(_density(values, fitted, order), abs=1e-4)


def _density(values: np.ndarray, fitted, order: Order) -> float:
    n, sigma2 = len(values), fitted.sigma2[0]
    ar, ma, constant = arima._polynomials(fitted.coefficients.values[None, :], order)
    psi = np.zeros(2000)
    psi[0] = 1
    for j in range(1, len(psi)):
        psi[j] = (ma[0][j - 1] if j <= ma.shape[1] else 0) + sum(
            ar[0][i] * psi[j - 1 - i] for i in range(min(j, ar.shape[1]))
        )
    count = n - order.lags
    covariance = sigma2 * np.array(
        [[psi[: 2000 - abs(i - j)] @ psi[abs(i - j) :] for i in range(count)] for j in range(count)]
    )
    difference = np.zeros((count, n))
    for i in range(count):
        difference[i, i + order.lags] = 1
        difference[i, i : i + order.lags] = -order.delta[::-1]
    unknown = np.flatnonzero(np.isnan(values))
    w = difference @ np.nan_to_num(values) - constant[0]
    x, inverse = difference[:, unknown], np.linalg.inv(covariance)
    information = x.T @ inverse @ x
    residual = w - x @ np.linalg.solve(information, x.T @ inverse @ w)
    squares = residual @ inverse @ residual + np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(information)[1]
    return -0.5 * ((count - len(unknown)) * np.log(2 * np.pi) + squares)


def test_a_missing_last_season_widens_its_forecast_only() -> None:
    values = classic("logAirPassengers")
    gap = values.copy()
    gap[-7] = np.nan  # the month that comes six periods from now
    order = Order(0, 1, 1, 0, 1, 1, 12)
    full, holed = (arima.forecast(arima.fit_order(batch(one), order), 12).se[0] for one in (values, gap))
    ratio = holed / full
    assert ratio[5] > 1.02
    assert np.all(np.abs(np.delete(ratio, 5) - 1) < 0.01)


def test_neighbours_and_order_of_the_batch_change_no_byte() -> None:
    series = [*simulated(11, 90, 1), *journal_like(7, 60, 2), classic("lynx"), np.full(40, 3.0), np.arange(5.0)]
    together = arima.fit_order(batch(*series), Order(1, 1, 1))
    reversed_batch = arima.fit_order(batch(*series[::-1]), Order(1, 1, 1))
    for i, values in enumerate(series):
        alone = arima.fit_order(batch(values), Order(1, 1, 1))
        for other, at in ((together, i), (reversed_batch, len(series) - 1 - i)):
            assert alone.coefficients[0].tobytes() == other.coefficients[at].tobytes()
            assert alone.sigma2[0].tobytes() == other.sigma2[at].tobytes()
            assert alone.status[0] == other.status[at]


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.integers(0, 40), elements=st.floats(-1e9, 1e9, width=32) | st.sampled_from([0.0, 1.0])))
def test_any_series_gives_a_finite_forecast_or_none(values: np.ndarray) -> None:
    fitted = arima.fit_order(batch(values), Order(1, 1, 1))
    ahead = arima.forecast(fitted, 5)
    if np.isfinite(fitted.sigma2[0]):
        assert np.isfinite(ahead.mean).all()
        assert (ahead.se >= 0).all()
        assert (np.abs(fitted.coefficients[0]) <= 1).all() or fitted.status[0] == Status.CONSTANT
    else:
        assert np.isnan(ahead.mean).all()


def test_status_tells_what_a_fit_is_worth() -> None:
    noise, walk = (
        np.random.default_rng(8).standard_normal(200),
        np.cumsum(np.random.default_rng(3).standard_normal(200)),
    )
    fitted = arima.fit_order(
        batch(noise, walk, np.full(30, 7.0), 5 + 2 * np.arange(30.0), [1.0, 2, 3, 4], classic("WWWusage")),
        Order(1, 1, 1),
    )
    expected = [
        Status.OVER_DIFFERENCED,
        Status.WEAKLY_IDENTIFIED,
        Status.CONSTANT,
        Status.CONSTANT,
        Status.TOO_SHORT,
        Status.OK,
    ]
    assert fitted.status.tolist() == expected
    ahead = arima.forecast(fitted, 3)
    np.testing.assert_array_equal(ahead.mean[2:4], [[7, 7, 7], [65, 67, 69]])
    np.testing.assert_array_equal(ahead.se[2:4], 0)


def test_alternating_series_goes_on_alternating() -> None:
    ahead = arima.forecast(arima.fit_order(batch(np.tile([1.0, -1.0], 15)), Order(1, 1, 1)), 4)
    np.testing.assert_allclose(ahead.mean[0], [1, -1, 1, -1], atol=1e-2)


@pytest.mark.parametrize(
    ("written", "constant", "form"),
    [
        ((1, 0, 0), "auto", "(1,0,0) with mean"),
        ((1, 1, 1), "auto", "(1,1,1)"),
        ((1, 1, 1), True, "(1,1,1) with drift"),
        ((1, 0, 0), False, "(1,0,0)"),
    ],
)
def test_constant_follows_the_job(written: tuple[int, int, int], constant: object, form: str) -> None:
    fitted = arima.fit(batch(classic("lh")), ForecastModel(order=written, constant=constant))
    assert fitted.form[0] == form
