"""Operations within the lists of a ragged array against numpy, list by list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac_jobs.forecast import segments
from almanac_jobs.forecast.types import Ragged

NAN = np.nan
LISTS = st.lists(st.lists(st.floats(-1e6, 1e6) | st.just(NAN), max_size=12), min_size=1, max_size=6)


@given(LISTS)
def test_moments_are_those_of_each_list(lists: list[list[float]]) -> None:
    series = Ragged.of(lists)
    mean = segments.means(series)
    spread = segments.deviations(series, mean)
    for i, values in enumerate(lists):
        seen = np.array([value for value in values if not np.isnan(value)])
        assert segments.largest(series)[i] == np.abs(seen).max(initial=0)
        assert mean[i] == pytest.approx(seen.mean() if len(seen) else NAN, abs=1e-9, nan_ok=True)
        assert spread[i] == pytest.approx(seen.std() if len(seen) else NAN, abs=1e-6, nan_ok=True)


def test_means_are_accurate_far_from_zero() -> None:
    values = np.random.default_rng(1).standard_normal(1000)
    far = segments.means(Ragged.of([values + 2.0**40]))[0] - 2.0**40
    assert far == pytest.approx(values.mean(), abs=2.0**-12)  # the values themselves are rounded to 2^-12


@given(LISTS, st.integers(1, 4))
def test_earlier_pairs_each_value_with_the_last_one_observed(lists: list[list[float]], step: int) -> None:
    series = Ragged.of(lists)
    expected = []
    for values, start in zip(lists, series.offsets, strict=False):
        for t, value in enumerate(values):
            before = [s for s in range(t - step, -1, -step) if not np.isnan(values[s])]
            if before and not np.isnan(value):
                expected.append((start + t, start + before[0]))
    assert list(zip(*segments.earlier(series, step), strict=True)) == expected


@given(st.lists(st.integers(-100, 100), max_size=30), st.integers(1, 12))
def test_window_sums_are_those_of_the_values_from_each_position_on(values: list[int], width: int) -> None:
    found = segments.window_sums(np.array(values, np.float64), width)
    assert found.tolist() == [sum(values[i : i + width]) for i in range(len(values))]


@given(st.lists(st.integers(1, 5), max_size=40), st.integers(1, 20))
def test_blocks_hold_every_row_once_with_rows_of_its_own_width(widths: list[int], cells: int) -> None:
    groups = segments.blocks(np.array(widths, np.int64), cells)
    assert sorted(row for rows in groups for row in rows) == list(range(len(widths)))
    for rows in groups:
        assert len({widths[row] for row in rows}) == 1
        assert len(rows) == 1 or len(rows) * widths[rows[0]] <= cells


def test_scaled_series_have_size_one_and_lose_no_digit() -> None:
    values = np.array([1e-7, 3e-7, -2e-7, NAN, 5e-7])
    scaled = segments.Scaled.of(Ragged.of([values, [4.0, 4.0]]), np.array([0.0, 4.0]))
    np.testing.assert_array_equal(scaled.series[0] * scaled.size[0], values)
    assert 0.5 < np.nanstd(scaled.series[0]) < 2
    assert scaled.size[1] == 0
