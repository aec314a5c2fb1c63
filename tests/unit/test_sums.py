import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac_jobs.kernel.sums import Aggregator, How

Rows = list[tuple[int, float, int]]

# No partial sum of these leaves the range of a double.
finite = (
    st.floats(-1e300, 1e300) | st.floats(-1e6, 1e6).map(lambda value: round(value, 2)) | st.integers(-9, 9).map(float)
)
rows = st.lists(st.tuples(st.integers(0, 3) | st.integers(0, 2**62), finite, st.integers(-5, 5)), max_size=60)


def aggregate(how: How, batches: Sequence[Rows]) -> tuple[list[int], bytes]:
    aggregator = Aggregator(how)
    for batch in batches:
        key = np.array([row[0] for row in batch], np.int64)
        value = None if how is How.COUNT else np.array([row[1] for row in batch], np.float64)
        times = np.array([row[2] for row in batch], np.int64) if how is How.LAST else np.ones(len(batch), np.int64)
        aggregator.add(key, value, times)
    keys, values = aggregator.finish()
    return keys.tolist(), values.tobytes()


def last(group: Rows) -> float:
    return max((time, value) for _, value, time in group)[1]


ORACLES: dict[How, Callable[[Rows], float]] = {
    How.SUM: lambda group: math.fsum(value for _, value, _ in group),
    How.MEAN: lambda group: float(sum(Fraction(value) for _, value, _ in group) / len(group)),
    How.COUNT: len,
    How.MIN: lambda group: min(value for _, value, _ in group),
    How.MAX: lambda group: max(value for _, value, _ in group),
    How.LAST: last,
}


def expected(how: How, data: Rows) -> tuple[list[int], bytes]:
    groups: dict[int, Rows] = defaultdict(list)
    for row in data:
        groups[row[0]].append(row)
    keys = sorted(groups)
    return keys, (np.array([ORACLES[how](groups[key]) for key in keys], np.float64) + 0.0).tobytes()


@given(st.sampled_from(list(How)), rows, st.data())
def test_any_order_in_any_batches_gives_the_bytes_of_pythons_own_sums(
    how: How, data: Rows, draw: st.DataObject
) -> None:
    shuffled = draw.draw(st.permutations(data))
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=4)))
    batches = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert aggregate(how, batches) == aggregate(how, [data]) == expected(how, data)


@given(st.lists(finite, min_size=1, max_size=200))
def test_sums_are_math_fsums(values: list[float]) -> None:
    _, found = aggregate(How.SUM, [[(7, value, 0)] for value in values])
    assert np.frombuffer(found)[0] == math.fsum(values)


@pytest.mark.parametrize(
    "values",
    [
        [1e100, 1.0, -1e100],
        [0.1] * 10,
        [1e16, 1.0, 1e-16],
        [2.0**53, 1.0, 2.0**-1074],
        [-0.0],
        [-0.0, 0.0],
        [1.5, -1.5],
    ],
)
def test_cancellation_and_halves(values: list[float]) -> None:
    _, found = aggregate(How.SUM, [[(0, value, 0) for value in values]])
    assert found == np.array([math.fsum(values) + 0.0]).tobytes()


@pytest.mark.parametrize("how", [How.SUM, How.MEAN])
@pytest.mark.parametrize(
    ("values", "result"),
    [([math.inf, 1.0], math.inf), ([1.0, -math.inf], -math.inf), ([math.inf, -math.inf, -math.inf, 3.0], math.inf)],
)
def test_an_infinity_stays_whatever_the_order(how: How, values: list[float], result: float) -> None:
    for order in (values, values[::-1]):
        together = aggregate(how, [[(0, value, 0) for value in order]])
        assert together == aggregate(how, [[(0, value, 0)] for value in order])
        assert np.frombuffer(together[1])[0] == result


def test_parts_of_a_value_count_once() -> None:
    aggregator = Aggregator(How.MEAN)
    aggregator.add(np.array([1, 1, 1]), np.array([2.0**60, 1.0, 3.0]), np.array([1, 0, 1]))
    assert aggregator.finish()[1].tolist() == [(2**60 + 4) / 2]


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20), st.integers(0, 22))
def test_sums_are_divided_before_they_are_rounded(values: list[int], scale: int) -> None:
    aggregator = Aggregator(How.SUM)
    low, high = np.array(values) & 0xFFFF_FFFF, np.array(values) >> 32
    aggregator.add(np.zeros(2 * len(values), np.int64), np.concatenate([low, high * 2.0**32]))
    assert aggregator.finish(10.0**scale)[1][0] == float(Fraction(sum(values), 10**scale))


def test_keys_can_be_made_coarser() -> None:
    aggregator = Aggregator(How.SUM)
    aggregator.add(np.array([5, 1, 2, 9]), np.array([1e100, 1.0, 2.0, 7.0]))
    aggregator.add(np.array([4]), np.array([-1e100]))
    assert np.unique(aggregator.keys()).tolist() == [1, 2, 4, 5, 9]
    aggregator.rekey(lambda keys: keys // 4)
    keys, values = aggregator.finish()
    assert (keys.tolist(), values.tolist()) == ([0, 1, 2], [3.0, 0.0, 7.0])
    assert aggregator.keys().tolist() == []


def test_many_rows() -> None:
    """Longer than any hypothesis draws: every digit of the sort, and runs that are merged several times."""
    generator = np.random.default_rng(3)
    key = generator.integers(0, 50_000, 300_000) << generator.integers(0, 40)
    value = np.round(generator.normal(1e3, 1e2, len(key)), 2)
    aggregator = Aggregator(How.SUM)
    for part in np.array_split(np.arange(len(key)), 17):
        aggregator.add(key[part], value[part])
    keys, values = aggregator.finish()
    order = np.argsort(key, kind="stable")
    distinct, starts = np.unique(key[order], return_index=True)
    assert (keys == distinct).all()
    groups = np.split(value[order], starts[1:])
    assert values.tolist() == [math.fsum(group) for group in groups]


def test_nothing() -> None:
    keys, values = Aggregator(How.SUM).finish()
    assert (len(keys), len(values)) == (0, 0)
