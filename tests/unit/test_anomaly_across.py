"""Order and sums over rows in several places: what they are in one, whatever lies where."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from almanac_jobs.anomaly import across
from almanac_jobs.anomaly.matrix import Resident
from crews import Several

numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
few = st.sampled_from([-2.5, -0.0, 0.0, 1.0, 7.25])
values = st.lists(st.one_of(numbers, few), min_size=1, max_size=40).map(lambda some: np.array(some, np.float64))
crews = st.integers(2, 5).map(Several)
seeds = st.integers(0, 99)


@given(values, crews, seeds)
@settings(deadline=None)
def test_ranks_are_those_of_all(found: NDArray[np.float64], crew: Several, seed: int) -> None:
    ranks = np.concatenate(crew.fetch(across.ranks(crew, crew.cut(found, seed))))
    expected = [((found < one).sum() + ((found == one).sum() + 1) / 2) / len(found) for one in found]
    assert ranks.tolist() == pytest.approx(expected)


@given(values, crews, seeds)
@settings(deadline=None)
def test_selected_are_the_sorted(found: NDArray[np.float64], crew: Several, seed: int) -> None:
    ordered = crew.each(across.order, crew.cut(found, seed))
    assert across.floats(across.select(crew, ordered, np.arange(len(found)))).tolist() == np.sort(found).tolist()


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20), crews)
@settings(deadline=None)
def test_selected_integers_are_the_sorted(found: list[int], crew: Several) -> None:
    ordered = crew.each(across.order, crew.cut(np.array(found, np.int64)))
    assert across.integers(across.select(crew, ordered, np.arange(len(found)))).tolist() == sorted(found)


@given(values, crews, seeds)
@settings(deadline=None)
def test_spread_is_the_standard_deviation(found: NDArray[np.float64], crew: Several, seed: int) -> None:
    assert across.spread(crew, crew.cut(found, seed)) == pytest.approx(np.std(found), rel=1e-9, abs=1e-30)


def test_rows_are_gathered_by_their_numbers_over_all() -> None:
    crew = Several(3)
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    shares = crew.each(Resident, crew.deal([values[:4], values[4:4], values[4:]]))
    rows = np.array([0, 3, 4, 9])
    assert across.gathered(crew, shares, [4, 0, 6], rows).tolist() == values[rows].tolist()


def test_places_by_value_are_about_as_large() -> None:
    crew = Several(4)
    found = np.random.default_rng(0).exponential(1, 10_000)
    places = across.by_value(crew, crew.cut(found))
    assert places is not None
    sizes = np.bincount(np.concatenate(crew.fetch(places)), minlength=4)
    assert sizes.min() > 2_000
