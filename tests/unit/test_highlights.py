from __future__ import annotations

import numpy as np
import pytest

from almanac_jobs.calendar import Frequency
from almanac_jobs.evaluate import Backtest, evaluate, seasonal_naive
from almanac_jobs.forecast import naive
from almanac_jobs.forecast.types import Forecast, Ragged, SeriesBatch
from almanac_jobs.report.highlights import KEPT, Fitted, Highlighter, Highlights, history_periods

HORIZON = 4
PLAN = Backtest(windows=1, horizon=HORIZON, season_length=1, levels=(80.0,))


def fitted(series: list[list[float]], names: list[str] | None = None, tested: bool = True) -> Fitted:
    batch = SeriesBatch(Ragged.of(series), np.full(len(series), 3, np.int64))
    model = seasonal_naive(1)
    parameters = naive.fallback(batch)
    evaluation = evaluate(batch, batch.observed, PLAN, model, model) if tested else None
    names = names or [f"e{i:02d}" for i in range(len(series))]
    return Fitted(names, batch, parameters, naive.forecast(parameters, HORIZON), evaluation)


def highlighter(**options) -> Highlighter:
    return Highlighter(Frequency.parse("D").starts, 1, (80.0, 95.0), **options)


def names(highlights: Highlights) -> tuple[list[str], list[str], list[str]]:
    return tuple([one.entity for one in group] for group in (highlights.biggest, highlights.best, highlights.worst))


def test_the_biggest_best_and_worst_are_picked():
    series = [[1.0, 2.0] * 4 + [2.0 + error] * 4 for error in range(6)]
    series[2][0] = 500.0  # the biggest, and with such a scale the best after the perfect one
    biggest, best, worst = names(highlighter()(fitted(series)))
    assert biggest == ["e02", "e05", "e04", "e03"]
    assert best == ["e00", "e02", "e01", "e03"]
    assert worst == ["e05", "e04", "e03", "e01"]


def test_only_the_biggest_are_picked_without_an_evaluation():
    found = highlighter()(fitted([[1.0] * 12, [2.0] * 12], tested=False))
    assert names(found) == (["e01", "e00"], [], [])
    assert np.isnan(found.biggest[0].mase)


def test_entities_without_a_forecast_or_with_nothing_to_forecast_are_left_out():
    rest = [1.0, 2.0] * 6
    biggest, best, _ = names(highlighter()(fitted([[], [1.0, np.inf], [1.0] * 6 + [0.0] * 4, rest])))
    assert biggest == ["e03", "e02"]
    assert best == ["e03"]


@pytest.mark.parametrize("cut", [0, 1, 7, 13, 20])
def test_highlights_do_not_depend_on_how_entities_are_divided(cut):
    generator = np.random.default_rng(1)
    series = [list(generator.integers(1, 4, 12).astype(float)) for _ in range(20)]  # many ties
    labels = [f"e{i}" for i in generator.permutation(20)]
    whole = highlighter()(fitted(series, labels))
    parts = [highlighter()(fitted(series[part], labels[part])) for part in (slice(cut), slice(cut, None))]
    assert names(parts[0] + parts[1]) == names(parts[1] + parts[0]) == names(whole)
    assert all(len(group) == KEPT for group in names(whole))


def test_the_fan_shows_the_end_of_the_history_and_the_forecast_on_one_calendar():
    one = highlighter()(fitted([[float(i) for i in range(30)]])).biggest[0]
    assert len(one.fan.history) == history_periods(1, HORIZON) == 12
    assert list(one.fan.history[-2:]) == [28, 29]
    assert one.fan.past[-1] == np.datetime64("1970-01-04")
    assert list(one.fan.ahead.astype("datetime64[D]").astype(int)) == [4, 5, 6, 7]
    assert [band.level for band in one.fan.bands] == [80, 95]
    np.testing.assert_allclose(one.fan.bands[1].upper - one.fan.mean, 1.959964 * np.sqrt(np.arange(1, 5)), rtol=1e-6)


def test_the_floor_of_the_output_is_the_fan_s_too():
    data = fitted([[5.0, 1.0] * 6])
    data = Fitted(data.entities, data.batch, data.parameters, Forecast(data.forecast.mean - 9, data.forecast.se), None)
    fan = highlighter(floor=0.0)(data).biggest[0].fan
    assert fan.mean.min() == 0
    assert min(band.lower.min() for band in fan.bands) == 0


def test_history_is_long_enough_to_see_seasons_and_the_horizon():
    assert history_periods(7, 30) == 90
    assert history_periods(52, 13) == 208
