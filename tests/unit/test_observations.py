import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac.api import JobError, Missing, Reason
from almanac_jobs.calendar import Calendar, Frequency
from almanac_jobs.forecast.types import Ragged
from almanac_jobs.source.observations import Counts, Observations

DAILY = Calendar(Frequency.parse("D"), pa.date32())


def observe(*series: dict[int, float]) -> Observations:
    """Observations of entities e0, e1 ... given as period -> value."""
    return Observations(
        entities=pa.array([f"e{i}" for i in range(len(series))]),
        bucket=np.zeros(len(series), np.int32),
        buckets=1,
        offsets=np.cumsum([0, *map(len, series)]),
        period=np.array([period for one in series for period in sorted(one)], np.int64),
        value=np.array([one[period] for one in series for period in sorted(one)], np.float64),
        calendar=DAILY,
        last_period=max((period for one in series for period in one), default=0),
        counts=Counts(0),
    )


def lists(values: Ragged) -> list[list[float]]:
    return [values[i].tolist() for i in range(len(values))]


GAPPY = observe({10: 1.0, 11: 2.0, 14: 8.0}, {}, {15: 5.0}, {9: -1.0, 15: 2.0})


@pytest.mark.parametrize(
    ("missing", "expected", "ends"),
    [
        (Missing.ZERO, [[1, 2, 0, 0, 8, 0], [], [5], [-1, 0, 0, 0, 0, 0, 2]], [15, 15, 15, 15]),
        (Missing.INTERPOLATE, [[1, 2, 4, 6, 8], [], [5], [-1, -0.5, 0, 0.5, 1, 1.5, 2]], [14, 15, 15, 15]),
        (Missing.DROP, [[1, 2, np.nan, np.nan, 8], [], [5], [-1, *[np.nan] * 5, 2]], [14, 15, 15, 15]),
    ],
)
def test_gaps_by_policy(missing: Missing, expected: list[list[float]], ends: list[int]) -> None:
    batch, observed = GAPPY.series(0, 4, missing)
    np.testing.assert_allclose(np.concatenate(lists(batch.values)), np.concatenate(expected), rtol=1e-15)
    assert batch.values.lengths.tolist() == [len(one) for one in expected]
    assert (batch.end.tolist(), observed.tolist()) == (ends, [3, 0, 1, 2])
    some, counts = GAPPY.series(2, 4, missing)
    np.testing.assert_equal(lists(some.values), lists(batch.values)[2:])
    assert (some.end.tolist(), counts.tolist()) == (ends[2:], [1, 2])


def test_a_gap_can_be_an_error() -> None:
    with pytest.raises(JobError, match=r"spec\.missing: entity `e0` has no row for 1970-01-13") as caught:
        GAPPY.series(0, 4, Missing.FAIL)
    assert caught.value.reason is Reason.DATA_ERROR
    with pytest.raises(JobError, match="entity `e3` has no row for 1970-01-11"):
        GAPPY.series(1, 4, Missing.FAIL)
    batch, _ = GAPPY.series(1, 3, Missing.FAIL)
    assert lists(batch.values) == [[], [5.0]]


def test_no_entities() -> None:
    batch, observed = GAPPY.series(2, 2, Missing.ZERO)
    assert (len(batch), len(observed)) == (0, 0)


def test_infinities_are_kept_and_touch_no_neighbour() -> None:
    batch, _ = observe({0: 1.0, 1: np.inf, 4: 2.0}, {0: 3.0, 2: 5.0}).series(0, 2, Missing.INTERPOLATE)
    assert np.isinf(batch.values[0]).any()
    assert batch.values[1].tolist() == [3.0, 4.0, 5.0]


def test_what_observations_tell() -> None:
    assert len(GAPPY) == 4
    assert GAPPY.entity.tolist() == [0, 0, 0, 2, 3, 3]
    assert (str(GAPPY.frequency), GAPPY.time_type) == ("D", pa.date32())


@given(
    st.lists(st.dictionaries(st.integers(-40, 40), st.floats(-1e6, 1e6), max_size=12), min_size=1, max_size=5),
    st.sampled_from([Missing.ZERO, Missing.INTERPOLATE, Missing.DROP]),
)
def test_series_are_what_a_loop_makes_of_them(data: list[dict[int, float]], missing: Missing) -> None:
    observations = observe(*data)
    batch, observed = observations.series(0, len(data), missing)
    for i, one in enumerate(data):
        series = batch.values[i]
        assert observed[i] == len(one)
        assert len(series) == 0 if not one else series[0] == one[min(one)]
        for at, value in enumerate(series):
            period = batch.end[i] - len(series) + 1 + at
            if period in one:
                assert value == one[period]
            elif missing is Missing.ZERO:
                assert value == 0
            elif missing is Missing.DROP:
                assert np.isnan(value)
            else:
                np.testing.assert_allclose(
                    value, np.interp(period, sorted(one), [one[p] for p in sorted(one)]), atol=1e-9
                )


def test_the_first_periods_of_each_entity() -> None:
    head = GAPPY.head(2)
    assert head.offsets.tolist() == [0, 2, 2, 3, 5]
    assert (head.period.tolist(), head.value.tolist()) == ([10, 11, 15, 9, 15], [1.0, 2.0, 5.0, -1.0, 2.0])
    assert head.last_period == 15
    assert GAPPY.head(1).last_period == 15
    assert observe({3: 1.0, 4: 2.0}).head(1).last_period == 3
    assert len(observe({}).head(3).period) == 0
