import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac.api import JobError, Reason
from almanac_jobs.calendar import Calendar, Frequency, Unit, check, check_zone, infer, only_weekday

# The same periods in pandas' words. Ours are named by their first day, pandas' weeks by their last.
PANDAS = {
    "s": "s",
    "min": "min",
    "H": "h",
    "D": "D",
    "W": "W-SUN",
    "W-SUN": "W-SAT",
    "W-THU": "W-WED",
    "M": "M",
    "Q": "Q",
    "Y": "Y",
}

moments = st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))


@pytest.mark.parametrize(
    "written", ["s", "min", "H", "D", "W", "W-SUN", "2W-WED", "M", "Q", "Y", "15min", "6H", "90s", "2M"]
)
def test_what_is_written_is_read_and_written_again(written: str) -> None:
    assert str(Frequency.parse(written)) == written


def test_spellings_of_one_frequency_are_equal() -> None:
    assert Frequency.parse("W") == Frequency.parse("W-MON") == Frequency(Unit.WEEK)
    assert Frequency.parse("h") == Frequency.parse("1H") == Frequency(Unit.HOUR)


@pytest.mark.parametrize(
    "written", ["", "m", "B", "d", "0D", "-1D", "1.5H", "W-FOO", "D-MON", "15 min", "auto", "1000000000s", "W-"]
)
def test_what_is_no_frequency_is_refused_by_name(written: str) -> None:
    with pytest.raises(JobError, match="frequency") as caught:
        Frequency.parse(written)
    assert caught.value.reason is Reason.INVALID_SPEC
    assert f"`{written}`" in caught.value.message


SEASONS = {
    "s": 3600,
    "min": 1440,
    "H": 24,
    "D": 7,
    "W": 52,
    "M": 12,
    "Q": 4,
    "Y": 1,
    "15min": 96,
    "6H": 4,
    "2W": 26,
    "3M": 4,
    "5D": 1,
    "7min": 1,
    "2Y": 1,
    "36H": 1,
}


@pytest.mark.parametrize(("written", "season"), SEASONS.items())
def test_default_season_lengths(written: str, season: int) -> None:
    assert Frequency.parse(written).default_season_length == season


@given(st.sampled_from(sorted(PANDAS)), st.lists(moments, min_size=1), st.sampled_from(["s", "ms", "us", "ns"]))
def test_periods_are_those_of_pandas(written: str, times: list[datetime.datetime], unit: str) -> None:
    frequency = Frequency.parse(written)
    array = np.array(times, "datetime64[us]").astype(f"datetime64[{unit}]")
    periods = frequency.periods(array)
    expected = pd.DatetimeIndex(array).to_period(PANDAS[written])
    assert (frequency.starts(periods) == expected.start_time.to_numpy().astype("datetime64[s]")).all()
    assert periods.tolist() == [(period - pd.Timestamp(0).to_period(PANDAS[written])).n for period in expected]


@given(
    st.sampled_from(list(Unit)),
    st.integers(1, 500),
    st.integers(0, 6),
    st.lists(st.dates(datetime.date(1, 1, 1)), min_size=1),
)
def test_days_fall_into_the_period_between_two_starts(
    unit: Unit, multiple: int, weekday: int, days: list[datetime.date]
) -> None:
    frequency = Frequency(unit, multiple, weekday)
    dates = np.array(days, "datetime64[D]")
    periods = frequency.periods(dates)
    assert (frequency.starts(periods) <= dates).all()
    assert (frequency.starts(periods + 1) > dates).all()
    assert (periods == frequency.periods(dates.astype("datetime64[s]"))).all()
    assert (frequency.periods(frequency.starts(periods)) == periods).all()


def test_multiples_are_counted_from_the_period_of_the_epoch() -> None:
    epoch = np.array(["1970-01-01", "1970-01-03"], "datetime64[s]")
    assert Frequency.parse("2D").periods(epoch).tolist() == [0, 1]
    assert Frequency.parse("2W").starts(np.array([0]))[0] == np.datetime64("1969-12-29")
    assert Frequency.parse("2W-SUN").starts(np.array([1]))[0] == np.datetime64("1970-01-11")


TIME_TYPES = [
    pa.date32(),
    pa.date64(),
    *(
        pa.timestamp(unit, zone)
        for unit in ("s", "ms", "us", "ns")
        for zone in (None, "UTC", "Europe/Berlin", "+05:30")
    ),
]


@pytest.mark.parametrize("time_type", TIME_TYPES, ids=str)
@pytest.mark.parametrize("written", ["D", "W", "M", "Q", "Y", "2D"])
def test_a_forecast_has_the_type_of_the_source_and_falls_into_its_own_period(
    time_type: pa.DataType, written: str
) -> None:
    calendar = Calendar(Frequency.parse(written), time_type)
    periods = np.arange(-50, 250)
    times = calendar.times(periods)
    assert times.type == time_type
    assert calendar.periods(times).tolist() == periods.tolist()


def test_days_follow_the_declared_zone() -> None:
    late = pa.array([datetime.datetime(2024, 6, 30, 22, 30, tzinfo=datetime.UTC)], pa.timestamp("us", "UTC"))
    utc, berlin = (Calendar(Frequency.parse("D"), late.type, zone) for zone in (None, "Europe/Berlin"))
    assert utc.label(utc.periods(late)[0]) == "2024-06-30"
    assert berlin.label(berlin.periods(late)[0]) == "2024-07-01"
    assert berlin.times(berlin.periods(late)).cast(pa.string()).to_pylist() == ["2024-06-30 22:00:00.000000Z"]


def test_daylight_saving_neither_joins_hours_nor_skips_one() -> None:
    utc = np.arange("2024-10-26T00", "2024-10-29T00", dtype="datetime64[h]").astype("datetime64[s]")
    times = pa.array(utc, pa.timestamp("s")).cast(pa.timestamp("s", "UTC")).cast(pa.timestamp("s", "Europe/Berlin"))
    hourly, daily = Calendar(Frequency.parse("H"), times.type), Calendar(Frequency.parse("D"), times.type)
    assert np.diff(hourly.periods(times)).tolist() == [1] * 71
    assert np.unique(daily.periods(times), return_counts=True)[1].tolist() == [22, 25, 24, 1]
    assert hourly.times(hourly.periods(times)).equals(times)


@pytest.mark.parametrize("unit", ["s", "ns"])
def test_times_without_a_zone_are_taken_as_they_are(unit: str) -> None:
    calendar = Calendar(Frequency.parse("6H"), pa.timestamp(unit), "Asia/Tokyo")
    times = pa.array(["2024-01-01T05:59:59", "2024-01-01T06:00:00"]).cast(pa.timestamp(unit))
    assert calendar.times(calendar.periods(times)).cast(pa.timestamp("s")).cast(pa.string()).to_pylist() == [
        "2024-01-01 00:00:00",
        "2024-01-01 06:00:00",
    ]


def test_a_day_without_midnight_starts_after_it() -> None:
    """In Lebanon the clocks go forward at midnight."""
    calendar = Calendar(Frequency.parse("D"), pa.timestamp("s", "Asia/Beirut"))
    day = Frequency.parse("D").periods(np.array(["2024-03-31"], "datetime64[s]"))
    assert calendar.times(day).cast(pa.timestamp("s", "UTC")).cast(pa.string()).to_pylist() == ["2024-03-30 22:00:00Z"]
    assert calendar.periods(calendar.times(day)).tolist() == day.tolist()


def test_a_zone_that_does_not_exist_is_refused() -> None:
    check_zone("America/Sao_Paulo", "spec.source.timeZone")
    with pytest.raises(JobError, match=r"spec\.source\.timeZone: there is no time zone `Mars/Olympus`") as caught:
        check_zone("Mars/Olympus", "spec.source.timeZone")
    assert caught.value.reason is Reason.INVALID_SPEC


def dated(*series: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray]:
    entity = np.repeat(np.arange(len(series), dtype=np.int32), [len(one) for one in series])
    return entity, np.concatenate([one.to_numpy() for one in series]).astype("datetime64[s]")


@pytest.mark.parametrize(
    ("pandas", "expected"),
    [
        *(
            ("D", "D"),
            ("B", "D"),
            ("W-SUN", "W-SUN"),
            ("W-MON", "W"),
            ("MS", "M"),
            ("ME", "M"),
            ("QS", "Q"),
            ("QE", "Q"),
        ),
        *(("YS", "Y"), ("h", "H"), ("15min", "15min"), ("6h", "6H"), ("30s", "30s"), ("s", "s")),
        *(("10D", "10D"), ("28D", "4W-WED"), ("2MS", "2M")),
    ],
)
def test_auto_finds_the_frequency_of_regular_data(pandas: str, expected: str) -> None:
    series = pd.date_range("2024-01-31", periods=40, freq=pandas)
    assert str(infer(*dated(series, series[3:20]), "date")) == expected


def test_auto_survives_gaps() -> None:
    kept = np.random.default_rng(1).random(500) > 0.2
    days = pd.date_range("2024-01-01", periods=500)[kept]
    assert str(infer(*dated(days), "date")) == "D"


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ([pd.DatetimeIndex(["2024-01-01"]), pd.DatetimeIndex(["2024-01-02"])], "no entity has two different times"),
        (
            [pd.DatetimeIndex(["2024-01-01", "2024-01-03", "2024-01-08", "2024-02-20", "2025-01-01"])],
            "2 days, is only 25%",
        ),
        (
            [pd.date_range("2024-01-01", periods=9, freq="7D"), pd.date_range("2024-01-02", periods=9, freq="7D")],
            "weekday",
        ),
        ([pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-03 09:00"])], "1 day, but 33%"),
    ],
)
def test_auto_says_why_it_cannot_tell(series: list[pd.DatetimeIndex], words: str) -> None:
    with pytest.raises(JobError, match="auto cannot tell the frequency of column `date`") as caught:
        infer(*dated(*series), "date")
    assert caught.value.reason is Reason.DATA_ERROR
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("declared", "pandas", "suggested"),
    [
        ("D", "W-SUN", "W-SUN"),
        ("D", "MS", "M"),
        ("D", "QS", "Q"),
        ("H", "D", "D"),
        ("M", "QS", "Q"),
        ("W", "MS", None),
        ("15min", "h", "H"),
    ],
)
def test_a_frequency_that_is_too_fine_is_refused_with_a_better_one(
    declared: str, pandas: str, suggested: str | None
) -> None:
    frequency = Frequency.parse(declared)
    entity, times = dated(pd.date_range("2024-01-01", periods=30, freq=pandas))
    if suggested is None:
        check(frequency, entity, frequency.periods(times), "date")  # four weeks or five: no step dominates
        return
    with pytest.raises(JobError, match=f"`{declared}` does not fit column `date`.*write {suggested}$"):
        check(frequency, entity, frequency.periods(times), "date")


@pytest.mark.parametrize(
    ("declared", "pandas"),
    [("D", "D"), ("D", "B"), ("W", "W-SUN"), ("M", "MS"), ("Y", "YS"), ("2D", "2D"), ("30D", "30D")],
)
def test_a_frequency_that_fits_is_accepted(declared: str, pandas: str) -> None:
    frequency = Frequency.parse(declared)
    entity, times = dated(pd.date_range("2024-01-01", periods=30, freq=pandas))
    check(frequency, entity, frequency.periods(times), "date")


def test_a_few_rows_prove_nothing() -> None:
    frequency = Frequency.parse("D")
    entity, times = dated(pd.date_range("2024-01-01", periods=4, freq="7D"))
    check(frequency, entity, frequency.periods(times), "date")


def test_only_weekday() -> None:
    assert only_weekday(np.array(["2024-01-07", "2024-01-14"], "datetime64[s]")) == 6
    assert only_weekday(np.array(["2024-01-07", "2024-01-15"], "datetime64[s]")) is None
