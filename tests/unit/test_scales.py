from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac_jobs.report import scales
from almanac_jobs.report.highlights import Band, Fan

NO_TIMES = np.empty(0, "datetime64[s]")


def fan(history, mean, se) -> Fan:
    history, mean, se = (np.asarray(values, float) for values in (history, mean, se))
    return Fan(NO_TIMES, history, NO_TIMES, mean, (Band(95, mean - 2 * se, mean + 2 * se),))


def test_the_axis_holds_every_bound():
    low, high = scales.limits(fan([10, np.nan, 12], [12, 12], [1, 90]))
    assert low < 12 - 180
    assert high > 12 + 180


@pytest.mark.parametrize(
    ("history", "low", "high"), [([1, 5, 9], 0, 9), ([-9, -5, -1], -9, 0), ([95, 99], 95, 99), ([-3, 9], -3, 9)]
)
def test_the_axis_reaches_to_zero_where_values_come_near_it(history, low, high):
    room = 0.05 * (high - low)
    assert scales.limits(fan(history, [], [])) == pytest.approx((low, high), abs=room)


@pytest.mark.parametrize("value", [0.0, 7.0, -1e9])
def test_a_constant_is_in_the_middle(value):
    low, high = scales.limits(fan([value] * 3, [value], [0]))
    assert low < value < high
    assert value - low == high - value


def test_nothing_to_draw_still_has_an_axis():
    assert scales.limits(fan([], [np.nan], [np.nan])) == (0, 1.04)


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12), st.integers(3, 12))
def test_ticks_are_few_inside_and_equally_far_apart(low, length, at_most):
    length = max(length, 1e-6 * abs(low))
    high = low + length
    ticks = scales.round_ticks(low, high, at_most)
    assert len(ticks) <= at_most
    steps = np.diff(ticks)
    assert np.all(ticks >= low - 1e-6 * length - 1e-6 * abs(low))
    assert np.all(ticks <= high + 1e-6 * length + 1e-6 * abs(high))
    assert len(ticks) >= at_most / 4
    assert np.allclose(steps, steps[:1], rtol=1e-3)


def test_ticks_are_round():
    assert list(scales.round_ticks(0, 9.3, 5)) == [0, 2, 4, 6, 8]
    assert list(scales.round_ticks(-12, 31, 5)) == [-10, 0, 10, 20, 30]
    assert list(scales.round_ticks(0, 2, 4, whole=True)) == [0, 1, 2]
    assert list(scales.round_ticks(0, 7, 4, whole=True)) == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 5000, 10_000], ["0", "5\u202fk", "10\u202fk"]),
        ([0, 2500, 5000], ["0", "2.5\u202fk", "5.0\u202fk"]),
        ([-0.05, 0, 0.05], ["−0.05", "0", "0.05"]),
        ([999_995, 1_000_000], ["999\u202f995", "1\u202f000\u202f000"]),
        ([0.9e9, 1e9, 1.1e9], ["0.9\u202fB", "1.0\u202fB", "1.1\u202fB"]),
        ([-2e-5, 0, 2e-5], ["−2e−05", "0", "2e−05"]),
        ([1e17], ["1e17"]),
        ([], []),
    ],
)
def test_numbers_on_a_scale_are_short(values, expected):
    assert scales.compact(np.array(values, float)) == expected
