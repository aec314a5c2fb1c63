from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac_jobs.evaluate import Backtest, Forecaster, Totals, evaluate, seasonal_naive, split
from almanac_jobs.forecast.types import Forecast, Parameters, Ragged, SeriesBatch

NAN = math.nan


def backtest(windows: int = 1, horizon: int = 2, **options) -> Backtest:
    return Backtest(windows=windows, horizon=horizon, season_length=1, levels=(80.0,), **options)


def batch(*series: list[float], end: int = 100) -> SeriesBatch:
    return SeriesBatch(Ragged.of(series), np.full(len(series), end, np.int64))


def constant(value: float, seen: list[SeriesBatch] | None = None) -> Forecaster:
    """A model that forecasts the same value for ever, and writes down what it was fitted on."""

    def fit(training: SeriesBatch) -> Parameters:
        if seen is not None:
            seen.append(training)
        n, none = len(training), Ragged.empty(len(training))
        words, numbers = np.full(n, ""), np.full(n, NAN)
        return Parameters(words, words, words, none, numbers, numbers, numbers, training.observed, none, none)

    def forecast(parameters: Parameters, horizon: int) -> Forecast:
        return Forecast(np.full((len(parameters), horizon), value), np.ones((len(parameters), horizon)))

    return Forecaster(fit, forecast)


def counting() -> Forecaster:
    """A model that forecasts how many steps ahead it is."""
    model = constant(0)

    def forecast(parameters: Parameters, horizon: int) -> Forecast:
        steps = np.tile(np.arange(1.0, horizon + 1), (len(parameters), 1))
        return Forecast(steps, np.ones_like(steps))

    return Forecaster(model.fit, forecast)


def trimmed(series: list[float]) -> list[float]:
    present = [t for t, value in enumerate(series) if not math.isnan(value)]
    return series[present[0] : present[-1] + 1] if present else []


series = st.lists(st.one_of(st.just(NAN), st.integers(0, 9).map(float)), max_size=20).map(trimmed)


@given(st.lists(series, max_size=5), st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))
def test_every_window_is_trained_only_on_what_came_before(rows, windows, horizon, min_observations):
    data = SeriesBatch(Ragged.of(rows), np.arange(len(rows), dtype=np.int64) * 7)
    plan = backtest(windows, horizon, min_observations=min_observations)
    for number in range(windows, 0, -1):
        window = split(data, plan, number)
        tested = set()
        for i, row in enumerate(window.rows):
            whole, training, end = rows[row], list(window.training.values[i]), int(data.end[row])
            cutoff = len(whole) - number * horizon
            test_periods = [end - len(whole) + 1 + cutoff + step for step in range(horizon)]
            assert int(window.training.end[i]) < min(test_periods)
            assert int(window.start[i]) == min(test_periods)
            np.testing.assert_array_equal(training, trimmed(whole[:cutoff]))
            assert end - int(window.training.end[i]) == len(whole) - len(training)
            np.testing.assert_array_equal(window.actual[i], whole[cutoff : cutoff + horizon])
            tested.add(row)
        for row, whole in enumerate(rows):
            cutoff = len(whole) - number * horizon
            known = sum(not math.isnan(value) for value in whole[: max(cutoff, 0)])
            comparable = cutoff > 0 and not all(map(math.isnan, whole[cutoff : cutoff + horizon]))
            assert (row in tested) == (comparable and known >= min_observations)


def test_windows_follow_each_other_and_end_with_the_series():
    seen: list[SeriesBatch] = []
    data = batch([1, 2, 3, 4, 5, 6, 7])
    result = evaluate(data, data.observed, backtest(windows=2), constant(0, seen), constant(0))
    assert [list(one.values[0]) for one in seen] == [[1, 2, 3], [1, 2, 3, 4, 5]]
    assert [one.end[0] for one in seen] == [96, 98]
    assert result.columns()["mae"][0] == pytest.approx((4 + 5 + 6 + 7) / 4)


def test_a_missing_end_of_the_training_part_is_forecast_over():
    # The last window's training part is [1], two missing periods before the test: the forecasts are 3 and 4 steps
    # ahead.
    result = evaluate(batch([1, NAN, NAN, 3, 4]), np.array([3]), backtest(), counting(), constant(0))
    assert result.columns()["mae"][0] == 0


def test_short_series_skip_windows_and_are_counted():
    data = batch([1, 2, 3, 4, 5], [1, 2, 3], [1, 2], [])
    result = evaluate(data, data.observed, backtest(windows=2), constant(0), constant(0))
    assert list(result.windows) == [2, 1, 0, 0]
    assert list(result.skipped) == [0, 1, 2, 2]
    totals = result.totals()
    assert (totals.entities, totals.evaluated, totals.windows, totals.skipped) == (4, 2, 3, 5)
    assert np.isnan(result.columns()["mae"][2:]).all()


def test_filled_gaps_do_not_make_a_short_series_long():
    data = batch([1, 0, 0, 0, 0, 1], [1, 2, 1, 2, 1, 2])
    result = evaluate(data, np.array([2, 6]), backtest(min_observations=3), constant(0), constant(0))
    assert list(result.windows) == [0, 1]


def test_the_model_is_compared_with_the_baseline_on_the_same_points():
    def unsure(parameters: Parameters, horizon: int) -> Forecast:
        mean, se = np.full((2, len(parameters), horizon), 4.0)
        mean[:, 0], se[:] = NAN, NAN
        return Forecast(mean, se)

    data = batch([1, 2, 3, 4])
    result = evaluate(data, data.observed, backtest(), Forecaster(constant(0).fit, unsure), constant(3))
    columns = result.columns()
    assert columns["mae"][0] == 0
    assert columns["seasonalnaive_mae"][0] == 1  # only the second point, where the model has a forecast too
    assert math.isnan(columns["seasonalnaive_coverage_80"][0])


def test_a_window_without_any_forecast_is_not_tested():
    data = batch([1, 2, 3, 4])
    result = evaluate(data, data.observed, backtest(), constant(NAN), constant(0))
    assert list(result.windows) == [0]
    assert result.totals().summary() == {}


def test_wins_are_counted_where_mase_is_defined():
    data = batch([1, 2, 3, 3], [1, 2, 9, 9], [5, 5, 3, 3], [1, 2, 6, 6])
    totals = evaluate(data, data.observed, backtest(), constant(3), constant(9)).totals()
    assert (totals.evaluated, totals.compared, totals.wins) == (4, 3, 1)  # a tie is no win
    assert totals.win_share == pytest.approx(1 / 3)
    assert totals.summary()["beats_seasonalnaive"] == pytest.approx(1 / 3, abs=1e-6)


@given(st.lists(series, min_size=1, max_size=6), st.integers(0, 6))
def test_totals_of_parts_add_up_to_the_whole(rows, cut):
    plan = backtest(windows=2, horizon=2)

    def totals(part: list[list[float]]) -> Totals:
        data = batch(*part)
        return evaluate(data, data.observed, plan, constant(4), constant(5)).totals()

    whole, parts = totals(rows), Totals.zeros(plan.levels) + totals(rows[:cut]) + totals(rows[cut:])
    assert whole.summary() == parts.summary()
    for name in ("entities", "evaluated", "windows", "skipped", "compared", "wins"):
        assert getattr(whole, name) == getattr(parts, name)


def test_seasonal_naive_repeats_the_last_season_with_widening_intervals():
    week = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    data = batch([value + 1 for value in week] + week, [5.0, 6.0])
    forecast = seasonal_naive(7)(data, 9)
    np.testing.assert_allclose(forecast.mean, [[*week, 1, 2], [6] * 9])
    np.testing.assert_allclose(forecast.se, [[1.0] * 7 + [2**0.5] * 2, np.sqrt(np.arange(1, 10))])


def test_seasonal_naive_against_itself_is_a_draw():
    generator = np.random.default_rng(5)
    data = SeriesBatch(Ragged.regular(generator.gamma(2, 5, (8, 40))), np.zeros(8, np.int64))
    same = seasonal_naive(7)
    summary = evaluate(data, data.observed, backtest(windows=2, horizon=7), same, same).totals().summary()
    assert summary["beats_seasonalnaive"] == 0
    assert {name: value for name, value in summary.items() if "naive" not in name} == {
        name.removeprefix("seasonalnaive_"): value for name, value in summary.items() if name.startswith("seasonal")
    }


def test_the_scores_table_has_both_models_side_by_side():
    data = batch([1, 2, 3, 4])
    columns = evaluate(data, data.observed, backtest(), constant(4), constant(5)).columns()
    assert list(columns) == [
        "windows",
        *(names := ["mase", "rmsse", "smape", "wape", "mae", "bias", "pinball", "coverage_80"]),
        *(f"seasonalnaive_{name}" for name in names),
    ]
