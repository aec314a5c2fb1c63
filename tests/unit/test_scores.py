from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from almanac_jobs import scores
from almanac_jobs.forecast.types import Forecast, Ragged, SeriesBatch

LEVELS = (80.0, 95.0)
NAN = math.nan


def batch(*series: list[float]) -> SeriesBatch:
    return SeriesBatch(Ragged.of(series), np.zeros(len(series), np.int64))


def one(
    actual: list[float], mean: list[float], se: float = 1.0, training: list[float] | None = None, m: int = 1, **options
):
    """The scores of one series."""
    forecast = Forecast(np.array([mean]), np.full((1, len(mean)), se))
    scale = scores.naive_scale(batch(training or [0.0, 1.0]), m)
    tally = scores.score(np.array([actual]), forecast, scale, LEVELS, **options)
    return {name: values[0] for name, values in scores.per_series(tally).items()}


def by_loop(actual, mean, se, training, m, levels):
    """The definitions of docs/reference/scores.md, one series and one point at a time."""

    def pairs(lag):
        return [
            training[t] - training[t - lag]
            for t in range(lag, len(training))
            if not math.isnan(training[t]) and not math.isnan(training[t - lag])
        ]

    naive = pairs(m) or pairs(1)
    points = [(y, f, s) for y, f, s in zip(actual, mean, se, strict=True) if not math.isnan(y) and not math.isnan(f)]
    n = len(points)
    result = dict.fromkeys(scores.measures(levels), NAN)
    if not n:
        return result
    errors = [f - y for y, f, _ in points]
    result["mae"] = sum(map(abs, errors)) / n
    result["bias"] = sum(errors) / n
    result["smape"] = sum(2 * abs(f - y) / (abs(f) + abs(y)) if f or y else 0 for y, f, _ in points) / n
    if sum(abs(y) for y, _, _ in points):
        result["wape"] = sum(map(abs, errors)) / sum(abs(y) for y, _, _ in points)
    if naive and any(naive):
        result["mase"] = result["mae"] / (sum(map(abs, naive)) / len(naive))
        result["rmsse"] = math.sqrt(sum(e * e for e in errors) / n / (sum(e * e for e in naive) / len(naive)))
    losses, intervals = [], [(y, f, s) for y, f, s in points if not math.isnan(s)]
    for level in levels:
        held = 0
        for y, f, s in intervals:
            z = NormalDist().inv_cdf(0.5 + level / 200)
            for q, bound in ((0.5 - level / 200, f - z * s), (0.5 + level / 200, f + z * s)):
                losses.append(q * (y - bound) if y >= bound else (1 - q) * (bound - y))
            held += f - z * s <= y <= f + z * s
        if intervals:
            result[scores.coverage(level)] = held / len(intervals)
    if losses:
        result["pinball"] = sum(losses) / len(losses)
    return result


values = st.one_of(st.just(NAN), st.integers(-20, 20).map(float), st.floats(-1e6, 1e6, width=32))


@given(st.data(), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4))
def test_scores_are_those_of_a_loop_over_series_and_points(data, n, horizon, m):
    actual, mean = (data.draw(npst.arrays(float, (n, horizon), elements=values)) for _ in range(2))
    se = data.draw(npst.arrays(float, (n, horizon), elements=st.one_of(st.just(NAN), st.floats(0, 100, width=32))))
    training = [data.draw(st.lists(values, max_size=8)) for _ in range(n)]
    scale = scores.naive_scale(batch(*training), m)
    got = scores.per_series(scores.score(actual, Forecast(mean, se), scale, LEVELS))
    for i in range(n):
        expected = by_loop(actual[i], mean[i], se[i], training[i], m, LEVELS)
        assert list(got) == list(expected)
        for name, value in expected.items():
            assert got[name][i] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), name


def test_scores_are_those_of_utilsforecast():
    pd = pytest.importorskip("pandas")
    losses = pytest.importorskip("utilsforecast.losses")
    generator = np.random.default_rng(7)
    n, horizon, length, m = 5, 14, 60, 7
    past, actual, mean = (generator.gamma(2, 50, (n, periods)) for periods in (length, horizon, horizon))
    forecast = Forecast(mean, np.full((n, horizon), 60.0))
    scale = scores.naive_scale(SeriesBatch(Ragged.regular(past), np.zeros(n, np.int64)), m)
    got = scores.per_series(scores.score(actual, forecast, scale, LEVELS))

    def frame(table, first, **columns):
        days = np.tile(np.arange(table.shape[1]) + first, n)
        ids = np.repeat(np.arange(n), table.shape[1])
        return pd.DataFrame({"unique_id": ids, "ds": days, **{name: c.ravel() for name, c in columns.items()}})

    bounds = {f"{side}-{q:g}": c for q in LEVELS for side, c in zip(("lo", "hi"), forecast.interval(q), strict=True)}
    future = frame(actual, length, y=actual, f=mean, **{f"f-{name}": bound for name, bound in bounds.items()})
    train = frame(past, 0, y=past)
    for name, expected in {
        "mase": losses.mase(future, ["f"], m, train),
        "rmsse": losses.rmsse(future, ["f"], m, train),
        "wape": losses.nd(future, ["f"]),
        "mae": losses.mae(future, ["f"]),
        "bias": losses.bias(future, ["f"]),
        "coverage_80": losses.coverage(future, ["f"], 80),
        "coverage_95": losses.coverage(future, ["f"], 95),
        "pinball": losses.mqloss(future, {"f": [f"f-{name}" for name in bounds]}, np.array([0.1, 0.9, 0.025, 0.975])),
    }.items():
        np.testing.assert_allclose(got[name], expected["f"], rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(got["smape"], 2 * losses.smape(future, ["f"])["f"], rtol=1e-12)  # theirs is halved


def test_hand_computed_example():
    # Naive errors of the training part: 2, 1, 3; forecast errors: -1, 2.
    got = one(actual=[10, 12], mean=[9, 14], training=[4, 6, 5, 8])
    assert got["mase"] == pytest.approx(1.5 / 2)
    assert got["rmsse"] == pytest.approx(math.sqrt((5 / 2) / (14 / 3)))
    assert got["smape"] == pytest.approx((2 / 19 + 4 / 26) / 2)
    assert got["wape"] == pytest.approx(3 / 22)
    assert got["mae"] == 1.5
    assert got["bias"] == 0.5  # forecasts too much


def test_training_shorter_than_a_season_is_scaled_by_lag_one():
    assert one([3], [1], training=[1, 2, 4], m=7)["mase"] == pytest.approx(2 / 1.5)
    assert one([3], [1], training=[1, 2, 4, 1, 2, 4, 1, 3], m=7)["mase"] == pytest.approx(2 / 2)


@pytest.mark.parametrize("training", [[5.0], [5.0, 5.0, 5.0], [1.0, NAN, 3.0]])
def test_scaled_scores_are_undefined_without_variation(training):
    got = one([1, 2], [2, 2], training=training)
    assert math.isnan(got["mase"])
    assert math.isnan(got["rmsse"])
    assert got["mae"] == 0.5


def test_zero_against_zero_is_no_error_in_percent():
    assert one([0, 0], [0, 0])["smape"] == 0
    assert math.isnan(one([0, 0], [1, 1])["wape"])


def test_floor_applies_to_forecasts_and_bounds():
    free, floored = one([0, 0], [-1, -1], se=0.1), one([0, 0], [-1, -1], se=0.1, floor=0.0)
    assert (free["mae"], free["coverage_95"]) == (1, 0)
    assert (floored["mae"], floored["coverage_95"], floored["pinball"]) == (0, 1, 0)


def test_without_levels_nothing_is_said_of_intervals():
    assert scores.measures(()) == ("mase", "rmsse", "smape", "wape", "mae", "bias")
    assert scores.measures((80, 99.5))[-3:] == ("pinball", "coverage_80", "coverage_99.5")


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_scores_of_parts_add_up_to_the_whole(seed, cut):
    generator = np.random.default_rng(seed)
    actual, mean = generator.normal(10, 3, (2, 6, 4))
    actual[generator.random(actual.shape) < 0.3] = NAN
    scale = scores.Scale(np.array([1, 2, 0, NAN, 3, 4.0]), np.array([1, 2, 0, NAN, 3, 4.0]))

    def tally(rows, columns=slice(None)):
        part = scores.Scale(scale.absolute[rows], scale.squared[rows])
        points = mean[rows, columns]
        return scores.score(actual[rows, columns], Forecast(points, np.ones_like(points)), part, LEVELS)

    def same(a, b):
        np.testing.assert_allclose(list(a.means().values()), list(b.means().values()), rtol=1e-12)

    every = slice(None)
    same(scores.overall(tally(every)), scores.overall(tally(slice(cut))) + scores.overall(tally(slice(cut, None))))
    same(tally(every), tally(every, slice(2)) + tally(every, slice(2, None)))


def test_overall_scores_average_entities_and_pool_points():
    actual = np.array([[1.0, 1.0], [100.0, NAN], [5.0, 5.0]])
    forecast = Forecast(actual + np.array([[1.0], [10.0], [1.0]]), np.full((3, 2), NAN))
    scale = scores.Scale(np.array([1.0, 20.0, 0.0]), np.array([1.0, 400.0, 0.0]))
    means = scores.overall(scores.score(actual, forecast, scale, ())).means()
    assert means["mase"] == pytest.approx((1 + 0.5) / 2)  # the third has no scale and does not count
    assert means["rmsse"] == pytest.approx((1 + 0.5) / 2)
    assert means["mae"] == pytest.approx((1 + 1 + 10 + 1 + 1) / 5)
    assert means["wape"] == pytest.approx(14 / 112)


def test_tallies_of_other_measures_do_not_add():
    with pytest.raises(ValueError, match="coverage_80"):
        scores.Tally.zeros((80,), 2) + scores.Tally.zeros((90,), 2)
