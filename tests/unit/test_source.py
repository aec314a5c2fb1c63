import datetime
import math
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from almanac.api import Aggregate, ForecastJob, ForecastSpec, JobError, Missing, Reason
from almanac_jobs.buckets import bucket_of
from almanac_jobs.source import Observations, aggregation, open_dataset, read, sample
from s3 import Fault, S3Server

D = datetime.date


def spec(uri: Path | str, **changes: Any) -> ForecastSpec:
    source = {
        "uri": str(uri),
        "columns": {"entity": "id", "time": "day", "value": "amount"},
        **changes.pop("source", {}),
    }
    return ForecastSpec.model_validate({"source": source, "output": {"uri": "/nowhere"}, **changes})


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def known(observations: Observations) -> dict[tuple[Any, str], float]:
    """(entity, start of the period) -> value."""
    entities, label = observations.entities.to_pylist(), observations.calendar.label
    entity, rows = observations.entity, zip(observations.period.tolist(), observations.value.tolist(), strict=True)
    return {(entities[entity[i]], label(period)): value for i, (period, value) in enumerate(rows)}


def refused(job: ForecastSpec) -> JobError:
    with pytest.raises(JobError) as caught:
        read(job)
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("spec.")
    return caught.value


DAYS = pa.array([D(2024, 1, 1), D(2024, 1, 1), D(2024, 1, 2), D(2024, 1, 5)])


@pytest.fixture
def simple(tmp_path: Path) -> Path:
    return write(
        tmp_path / "t.parquet", id=["a", "a", "b", "a"], day=DAYS, amount=[1.0, 2.0, 5.0, 7.0], other=[1, 2, 3, 4]
    )


def test_one_value_an_entity_and_day(simple: Path) -> None:
    observations = read(spec(simple))
    assert known(observations) == {("a", "2024-01-01"): 3.0, ("a", "2024-01-05"): 7.0, ("b", "2024-01-02"): 5.0}
    assert observations.counts.rows == 4
    assert observations.counts.merged == 1
    assert observations.time_type == pa.date32()
    assert observations.calendar.label(observations.last_period) == "2024-01-05"
    batch, counts = observations.series(0, 2, Missing.ZERO)
    assert sorted(zip(batch.values.lengths.tolist(), counts.tolist(), strict=True)) == [(4, 1), (5, 2)]


@pytest.mark.parametrize(
    ("aggregate", "expected"), [("sum", 3), ("mean", 1.5), ("count", 2), ("min", 1), ("max", 2), ("last", 2)]
)
def test_aggregates(simple: Path, aggregate: str, expected: float) -> None:
    assert known(read(spec(simple, source={"aggregate": aggregate})))[("a", "2024-01-01")] == expected


def test_last_is_the_latest_and_of_several_the_largest(tmp_path: Path) -> None:
    times = [datetime.datetime(2024, 1, 1, hour) for hour in (9, 17, 12, 17)]
    path = write(tmp_path / "t.parquet", id=["a"] * 4, day=pa.array(times), amount=[9.0, 1.0, 8.0, 2.0])
    assert known(read(spec(path, source={"aggregate": "last"}))) == {("a", "2024-01-01"): 2.0}


# --- the same bytes whatever the order and the layout ----------------------------------------------------------------

VALUES: dict[Any, st.SearchStrategy[Any]] = {
    pa.float64(): st.floats(-1e12, 1e12) | st.sampled_from([0.1, 0.2, 0.3, 1e100, -1e100, None, math.nan]),
    pa.int64(): st.integers(-(2**62), 2**62) | st.integers(-9, 9) | st.none(),
    pa.decimal128(22, 4): st.integers(-(10**20), 10**20).map(lambda units: Decimal(units).scaleb(-4)) | st.none(),
}
tables = st.sampled_from(list(VALUES)).flatmap(
    lambda kind: st.tuples(
        st.just(kind),
        st.lists(
            st.tuples(
                st.sampled_from(["a", "b", "ü", "a/b", "", None]),
                st.dates(D(2024, 1, 1), D(2024, 1, 12)) | st.none(),
                VALUES[kind],
            ),
            min_size=1,
            max_size=40,
        ),
    )
)

ORACLES = {
    Aggregate.SUM: lambda values: float(sum(map(Fraction, values))),
    Aggregate.MEAN: lambda values: float(sum(map(Fraction, values)) / len(values)),
    Aggregate.COUNT: len,
    Aggregate.MIN: lambda values: float(min(values)),
    Aggregate.MAX: lambda values: float(max(values)),
    Aggregate.LAST: lambda values: float(max(values)),  # all times of a day are equal here
}


def save(folder: Path, rows: Sequence[tuple[Any, ...]], kind: pa.DataType, cuts: Sequence[int]) -> Path:
    folder.mkdir(parents=True)
    for i, (a, b) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
        names, days, values = zip(*rows[a:b], strict=True) if rows[a:b] else ((), (), ())
        columns = {
            "id": pa.array(names, pa.string()),
            "day": pa.array(days, pa.date32()),
            "amount": pa.array(values, kind),
        }
        pq.write_table(pa.table(columns), folder / f"{i}.parquet", row_group_size=7)
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(tables, st.sampled_from(list(Aggregate)), st.data())
def test_order_and_layout_of_rows_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, table: Any, aggregate: Aggregate, data: st.DataObject
) -> None:
    kind, rows = table
    folder = tmp_path_factory.mktemp("order")
    shuffled = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    groups: dict[Any, list[Any]] = defaultdict(list)
    for name, day, value in rows:
        if None not in (name, day, value) and value == value:
            groups[name, day.isoformat()].append(value)
    jobs = [
        spec(save(folder / "one", rows, kind, []), source={"aggregate": aggregate}),
        spec(save(folder / "two", shuffled, kind, cuts), source={"aggregate": aggregate}),
    ]
    if not groups:
        assert {refused(job).reason for job in jobs} == {Reason.DATA_ERROR}
        return
    one, two = (read(job) for job in jobs)
    assert known(one) == {key: ORACLES[aggregate](values) for key, values in groups.items()}
    assert (one.value.tobytes(), one.period.tobytes()) == (two.value.tobytes(), two.period.tobytes())
    assert one.entities.equals(two.entities)
    assert one.offsets.tolist() == two.offsets.tolist()
    assert set(one.entities.to_pylist()) == {name for name, _, _ in rows} - {None}
    assert one.counts == two.counts


def test_rows_that_wait_in_several_chunks_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    n = 30_000
    columns = {
        "id": generator.integers(0, 400, n).astype(str),
        "day": pa.array(generator.integers(19_000, 19_100, n).astype(np.int32)).cast(pa.date32()),
        "amount": np.round(generator.normal(0, 1e6, n), 2),
    }
    for i in range(10):
        write(tmp_path / "many" / f"{i}.parquet", **{name: column[i::10] for name, column in columns.items()})
    whole = read(spec(write(tmp_path / "t.parquet", **columns)))
    monkeypatch.setattr(aggregation, "CHUNK_ROWS", 1_000)
    pieces = read(spec(tmp_path / "many"))
    assert (whole.value.tobytes(), whole.period.tobytes()) == (pieces.value.tobytes(), pieces.period.tobytes())
    frame = pd.DataFrame({"id": columns["id"], "day": columns["day"].to_pandas(), "amount": columns["amount"]})
    sums = frame.groupby(["id", "day"])["amount"].agg(math.fsum)
    assert known(whole) == {(name, day.isoformat()): value for (name, day), value in sums.items()}


def test_entities_are_sorted_by_bucket_and_then_by_themselves(tmp_path: Path) -> None:
    names = [f"customer-{i}" for i in np.random.default_rng(0).permutation(20_000)]
    path = write(tmp_path / "t.parquet", id=names, day=pa.array([D(2024, 1, 1)] * 20_000), amount=np.arange(20_000.0))
    observations = read(spec(path))
    entities = observations.entities.to_pylist()
    assert observations.buckets == 4
    assert observations.bucket.tolist() == bucket_of(observations.entities, 4).tolist()
    assert list(zip(observations.bucket.tolist(), entities, strict=True)) == sorted(
        zip(observations.bucket.tolist(), entities, strict=True)
    )
    assert sorted(entities) == sorted(names)


# --- types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entities", "kind"),
    [
        (["a", "b"], pa.string()),
        ([7, -3], pa.int64()),
        ([7, 3], pa.uint8()),
        ([D(2024, 1, 1), D(1969, 1, 1)], pa.date32()),
    ],
)
def test_entities_keep_their_type(tmp_path: Path, entities: list[Any], kind: pa.DataType) -> None:
    days = pa.array([D(2024, 1, 1)] * 2)
    plain = read(spec(write(tmp_path / "a.parquet", id=pa.array(entities, kind), day=days, amount=[1, 2])))
    coded = pa.array(entities, kind).dictionary_encode()
    encoded = read(spec(write(tmp_path / "b.parquet", id=coded, day=days, amount=[1, 2])))
    for observations in (plain, encoded):
        assert observations.entities.type == kind
        assert known(observations) == {(entities[0], "2024-01-01"): 1.0, (entities[1], "2024-01-01"): 2.0}


@pytest.mark.parametrize(
    "kind",
    [pa.date64(), pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.timestamp("ms", "+05:30")],
    ids=str,
)
def test_times_keep_their_type(tmp_path: Path, kind: pa.DataType) -> None:
    days = DAYS.cast(pa.timestamp("s")).cast(
        pa.timestamp("s", kind.tz) if pa.types.is_timestamp(kind) and kind.tz else kind
    )
    path = write(tmp_path / "t.parquet", id=["a"] * 4, day=days.cast(kind), amount=[1, 2, 3, 4])
    observations = read(spec(path))
    stored = pq.read_schema(path).field("day").type  # Parquet has no seconds
    assert observations.time_type == stored
    assert observations.calendar.times(observations.period).type == stored
    assert known(observations) == {("a", "2024-01-01"): 3.0, ("a", "2024-01-02"): 3.0, ("a", "2024-01-05"): 4.0}


def test_days_follow_the_time_zone_of_the_job(tmp_path: Path) -> None:
    late = datetime.datetime(2024, 6, 30, 22, 30, tzinfo=datetime.UTC)
    path = write(tmp_path / "t.parquet", id=["a"], day=pa.array([late], pa.timestamp("us", "UTC")), amount=[1])
    assert set(known(read(spec(path)))) == {("a", "2024-06-30")}
    assert set(known(read(spec(path, source={"timeZone": "Europe/Berlin"})))) == {("a", "2024-07-01")}


def test_old_timestamps_of_spark_do_not_overflow(tmp_path: Path) -> None:
    table = pa.table({"id": ["a"], "day": pa.array([datetime.datetime(2500, 1, 1)], pa.timestamp("us")), "amount": [1]})
    pq.write_table(table, tmp_path / "t.parquet", use_deprecated_int96_timestamps=True)
    assert set(known(read(spec(tmp_path / "t.parquet")))) == {("a", "2500-01-01")}


def test_infinities_are_kept_and_nan_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", id=["a", "a", "b", "c"], day=DAYS, amount=[math.inf, 1.0, math.nan, None])
    observations = read(spec(path))
    assert known(observations) == {("a", "2024-01-01"): math.inf}
    assert sorted(observations.entities.to_pylist()) == ["a", "b", "c"]
    assert observations.counts.null_values == 2


def test_columns_that_evolve(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    day = pa.array([D(2024, 1, 1)])
    write(lake / "1.parquet", id=["a"], day=day, amount=pa.array([1], pa.int32()))
    write(lake / "2.parquet", id=["a"], day=day.cast(pa.date64()), amount=pa.array([2**53 + 1], pa.int64()), note=["x"])
    write(
        lake / "3.parquet",
        id=pa.array(["a"], pa.large_string()),
        day=day,
        amount=pa.array([Decimal("0.25")], pa.decimal128(9, 2)),
    )
    write(lake / "4.parquet", id=["a"], day=day)
    write(lake / "5.parquet", id=["b"], day=day, amount=pa.nulls(1))
    observations = read(spec(lake))
    assert known(observations) == {("a", "2024-01-01"): float(Fraction(2**53 + 2) + Fraction(1, 4))}
    assert observations.counts.null_values == 2
    assert observations.entities.type == pa.string()
    write(lake / "6.parquet", id=["a"], day=day, amount=[0.5])
    assert known(read(spec(lake))) == {("a", "2024-01-01"): float(2**53 + Fraction("2.75"))}
    assert known(read(spec(lake, source={"filter": "note == 'x'"}))) == {("a", "2024-01-01"): float(2**53)}
    assert known(read(spec(lake, source={"filter": "note is null and amount >= 0.5"})))[("a", "2024-01-01")] == 1.5


INCOMPATIBLE = [
    ("id", pa.array([1]), "spec.source.columns.id", "string in", "int64 in"),
    (
        "day",
        pa.array([datetime.datetime(2024, 1, 1)]),
        "spec.source.columns.time",
        "date32[day] in",
        "timestamp[us] in",
    ),
    ("amount", pa.array(["1"]), "spec.source.columns.value", "double in", "string in"),
    ("other", pa.array(["x"]), "spec.source.filter", "int64 in", "string in"),
]


@pytest.mark.parametrize(("name", "column", "field", "one", "two"), INCOMPATIBLE)
def test_types_that_do_not_agree(tmp_path: Path, name: str, column: pa.Array, field: str, one: str, two: str) -> None:
    columns = {"id": ["a"], "day": pa.array([D(2024, 1, 1)]), "amount": [1.0], "other": [1]}
    write(tmp_path / "lake" / "1.parquet", **columns)
    write(tmp_path / "lake" / "2.parquet", **{**columns, name: column})
    error = refused(spec(tmp_path / "lake", source={"filter": "other == 1"}))
    assert (error.reason, error.exit_code) == (Reason.DATA_ERROR, 65)
    for words in (field.replace(".id", ".entity"), f"`{name}`", one, two, "1.parquet", "2.parquet"):
        assert words in error.message


def test_columns_that_nobody_reads_may_disagree(tmp_path: Path) -> None:
    day = pa.array([D(2024, 1, 1)])
    write(tmp_path / "lake" / "1.parquet", id=["a"], day=day, amount=[1.0], other=[1])
    write(tmp_path / "lake" / "2.parquet", id=["a"], day=day, amount=[1.0], other=["x"])
    assert known(read(spec(tmp_path / "lake"))) == {("a", "2024-01-01"): 2.0}


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_folders_are_columns(tmp_path: Path) -> None:
    for customer in ("a/b", "7", None):
        for month in ("01", "02"):
            name = "__HIVE_DEFAULT_PARTITION__" if customer is None else customer.replace("/", "%2F")
            folder = tmp_path / "lake" / f"customer={name}" / f"month={month}"
            write(folder / "0.parquet", day=pa.array([D(2024, int(month), 1)]), amount=[1.0])
    columns = {"entity": "customer", "time": "day", "value": "amount"}
    observations = read(spec(tmp_path / "lake", source={"columns": columns}))
    assert set(known(observations)) == {(name, f"2024-{month}-01") for name in ("a/b", "7") for month in ("01", "02")}
    assert observations.counts.null_entities == 2
    some = read(spec(tmp_path / "lake", source={"columns": columns, "filter": "month == 2 and customer != '7'"}))
    assert set(known(some)) == {("a/b", "2024-02-01")}


def test_folders_are_times(tmp_path: Path) -> None:
    for day in ("2024-01-01", "2024-01-03"):
        write(tmp_path / "lake" / f"day={day}" / "0.parquet", id=["a"], amount=[1])
    observations = read(spec(tmp_path / "lake"))
    assert set(known(observations)) == {("a", "2024-01-01"), ("a", "2024-01-03")}
    assert observations.time_type == pa.date32()


def test_entities_in_folders_keep_their_digits(tmp_path: Path) -> None:
    for name in ("007", "7"):
        write(tmp_path / "lake" / f"id={name}" / "0.parquet", day=pa.array([D(2024, 1, 1)]), amount=[1])
    assert sorted(read(spec(tmp_path / "lake")).entities.to_pylist()) == ["007", "7"]


def test_what_a_file_says_counts_more_than_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "lake" / "id=folder" / "0.parquet", id=["file"], day=pa.array([D(2024, 1, 1)]), amount=[1])
    assert read(spec(tmp_path / "lake")).entities.to_pylist() == ["file"]


def test_files_that_are_not_data(simple: Path) -> None:
    folder = simple.parent
    for name in ("_SUCCESS", ".t.parquet.crc", "t.parquet.crc", "_tmp/0.json", ".hidden/x.parquet"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not Parquet")
    assert read(spec(folder)).counts.rows == 4


def test_a_delta_table_is_no_folder_of_parquet(simple: Path) -> None:
    (simple.parent / "_delta_log").mkdir()
    (simple.parent / "_delta_log" / "0.json").touch()
    error = refused(spec(simple.parent))
    assert error.reason is Reason.DATA_ERROR
    assert "is a Delta table" in error.message


AS_NOBODY = """
import os, sys
from almanac.api import ForecastJob, JobError
from almanac_jobs.source import read
job = ForecastJob.model_validate_json(sys.argv[1])  # imported all that is needed: now leave root's rights behind
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    read(job.spec)
except JobError as error:
    print(int(error.exit_code), error.message)
"""


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_no_permission_on_the_local_disk(closed: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o755)
        path = write(Path(folder) / "lake" / "t.parquet", id=["a"] * 4, day=DAYS, amount=[1, 2, 3, 4])
        (path if closed == "file" else path.parent).chmod(0)
        job = ForecastJob.model_validate({"metadata": {"name": "x"}, "spec": spec(path.parent).model_dump()})
        command = [sys.executable, "-c", AS_NOBODY, job.model_dump_json()]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        path.parent.chmod(0o755)
    assert said.startswith(f"77 spec.source.uri: no permission to read `{path.parent}` on the local disk")


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_as_a_uri(simple: Path, form: str) -> None:
    assert read(spec(form.format(simple.parent))).counts.rows == 4


def test_the_filter_leaves_out_rows_and_entities(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.parquet",
        id=["a", "b", "a", "c"],
        day=DAYS,
        amount=[1.0, 2.0, 3.0, 4.0],
        status=["posted", "draft", "posted", None],
    )
    observations = read(spec(path, source={"filter": "status == 'posted'"}))
    assert known(observations) == {("a", "2024-01-01"): 1.0, ("a", "2024-01-02"): 3.0}
    assert observations.entities.to_pylist() == ["a"]
    assert observations.counts.rows == 2


def test_a_filter_on_the_columns_of_the_job(simple: Path) -> None:
    assert set(known(read(spec(simple, source={"filter": "id == 'a' and day > '2024-01-01'"})))) == {
        ("a", "2024-01-05")
    }


def test_progress_counts_all_rows(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.parquet", id=["a"] * 4, day=DAYS, amount=[i] * 4)
    heard: list[tuple[int, int]] = []
    read(spec(tmp_path, source={"filter": "amount < 2"}), progress=lambda done, total: heard.append((done, total)))
    assert {total for _, total in heard} == {12}
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1] == (12, 12)


def test_whoever_hears_of_progress_may_stop_it(simple: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(spec(simple), progress=stop)


def test_a_data_set_is_looked_at_before_it_is_read(simple: Path) -> None:
    job = spec(simple.parent)
    dataset = open_dataset(job.source, None)
    assert (dataset.rows, len(dataset.files)) == (4, 1)
    assert dataset.bytes == simple.stat().st_size
    assert read(job, dataset).counts.rows == 4


@pytest.mark.parametrize("names", [["b", "a", "c"], [2, 1, 3], [D(2024, 1, 2), D(2024, 1, 1), D(2024, 1, 3)]], ids=str)
def test_a_sample_is_one_entity_and_its_first_periods(tmp_path: Path, names: list[Any]) -> None:
    days = np.repeat(np.arange(19_000, 19_100, dtype=np.int32), 3)
    amounts = np.arange(300.0)
    ids = pa.array(names * 100)
    kept = np.arange(300) % 150 != 2  # the third is seen less often than the others
    columns = {"id": ids.filter(pa.array(kept)), "day": pa.array(days[kept]).cast(pa.date32()), "amount": amounts[kept]}
    job = spec(write(tmp_path / "t.parquet", **columns), source={"filter": "amount >= 30"})
    observations = sample(job)
    assert observations.entities.to_pylist() == [names[1]]
    assert observations.value.tolist() == [amounts[3 * i + 1] for i in range(10, 40)]
    assert observations.last_period == observations.period[-1] == 19_039
    assert len(sample(job, periods=500).value) == 90


def test_a_sample_of_nothing(simple: Path) -> None:
    with pytest.raises(JobError, match=r"no row of .* meets `amount > 100`"):
        sample(spec(simple, source={"filter": "amount > 100"}))


# --- frequencies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pandas", "expected"), [("D", "D"), ("W-SUN", "W-SUN"), ("MS", "M"), ("h", "H"), ("15min", "15min")]
)
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_auto(tmp_path: Path, pandas: str, expected: str, zone: str | None) -> None:
    days = pd.date_range("2024-03-01", periods=60, freq=pandas, tz=zone)
    columns = {"id": ["a"] * 60 + ["b"] * 60, "day": pa.array(days.append(days)), "amount": [0.1, 1e16] * 60}
    auto = read(spec(write(tmp_path / "t.parquet", **columns), frequency="auto"))
    declared = read(spec(tmp_path / "t.parquet", frequency=expected))
    assert str(auto.frequency) == expected
    assert known(auto) == known(declared)
    assert auto.calendar.times(auto.period).equals(declared.calendar.times(declared.period))
    if expected in ("D", "H", "15min"):
        assert auto.calendar.times(auto.period[:60]).to_pylist() == days.tolist()


def test_auto_sums_exactly(tmp_path: Path) -> None:
    times = [datetime.datetime(2024, 1, 1 + i // 3, hour=8) for i in range(30)]
    amounts = [1e16, 1.0, -1e16] * 10
    path = write(tmp_path / "t.parquet", id=["a"] * 30, day=pa.array(times), amount=amounts)
    assert set(known(read(spec(path, frequency="auto"))).values()) == {1.0}


def test_a_frequency_that_does_not_fit(tmp_path: Path) -> None:
    sundays = pa.array(pd.date_range("2024-01-07", periods=30, freq="7D").date)
    path = write(tmp_path / "t.parquet", id=["a"] * 30, day=sundays, amount=range(30))
    error = refused(spec(path))
    assert error.reason is Reason.DATA_ERROR
    assert "100% of the steps between two times of an entity are 7 days: write W-SUN" in error.message
    error = refused(spec(path, frequency="W"))
    assert "weeks that start on MON, and all times of column `day` are on SUN: write W-SUN" in error.message
    assert len(read(spec(path, frequency="W-SUN")).value) == 30
    assert "which holds dates: write D" in refused(spec(path, frequency="H")).message


@pytest.mark.parametrize(
    ("kind", "frequency", "words"),
    [
        (pa.date32(), "D", "reaches from 2024-01-01 to 9999-12-31"),
        (pa.timestamp("us"), "s", "holds 9999-12-31, too far off to be counted in periods of s"),
        (pa.timestamp("us"), "auto", "holds 9999-12-31"),
    ],
)
def test_a_time_that_stands_for_none(tmp_path: Path, kind: pa.DataType, frequency: str, words: str) -> None:
    days = pa.array([D(2024, 1, 1), D(2024, 1, 2), D(9999, 12, 31)]).cast(kind)
    path = write(tmp_path / "t.parquet", id=["a"] * 3, day=days, amount=[1, 2, 3])
    error = refused(spec(path, frequency=frequency))
    assert error.reason is Reason.DATA_ERROR
    assert words in error.message
    assert len(read(spec(path, source={"filter": "day < '9999-01-01'"})).value) == 2


# --- what is refused, in one clear message ---------------------------------------------------------------------------


def test_a_source_that_does_not_exist(tmp_path: Path) -> None:
    error = refused(spec(tmp_path / "nothing"))
    assert (error.reason, error.exit_code) == (Reason.SOURCE_NOT_FOUND, 66)


def test_a_folder_without_files(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "_SUCCESS").touch()
    error = refused(spec(tmp_path / "lake"))
    assert (error.reason, error.exit_code) == (Reason.SOURCE_EMPTY, 66)
    assert "holds no Parquet file" in error.message


def test_a_data_set_without_rows(tmp_path: Path) -> None:
    write(
        tmp_path / "t.parquet",
        id=pa.array([], pa.string()),
        day=pa.array([], pa.date32()),
        amount=pa.array([], pa.int64()),
    )
    error = refused(spec(tmp_path))
    assert (error.reason, error.exit_code) == (Reason.SOURCE_EMPTY, 66)
    assert "holds no row" in error.message


def test_a_filter_that_no_row_meets(simple: Path) -> None:
    error = refused(spec(simple, source={"filter": "amount > 100"}))
    assert (error.reason, error.exit_code) == (Reason.SOURCE_EMPTY, 66)
    assert "meets `amount > 100`" in error.message


def test_rows_of_which_none_is_whole(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.parquet",
        id=["a", None, "b"],
        day=pa.array([None, D(2024, 1, 1), D(2024, 1, 1)]),
        amount=[1.0, 1.0, math.nan],
    )
    error = refused(spec(path))
    assert error.reason is Reason.DATA_ERROR
    assert "of 3, 1 have no `id`, 1 no `day` and 1 no `amount`" in error.message


@pytest.mark.parametrize("damage", ["text", "empty", "truncated", "overwritten"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_file_that_is_not_parquet(tmp_path: Path, damage: str, alone: bool) -> None:
    n = 50_000
    columns = {
        "id": ["a"] * n,
        "day": np.arange(n).astype("datetime64[D]"),
        "amount": np.random.default_rng(0).random(n),
    }
    good = write(tmp_path / "lake" / "1.parquet", **columns)
    pq.write_table(pa.table(columns), tmp_path / "checked.parquet", write_page_checksum=True)
    whole = (tmp_path / "checked.parquet").read_bytes()
    contents = {
        "text": b"id,day,amount\n",
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "overwritten": whole[: len(whole) // 2] + bytes(2000) + whole[len(whole) // 2 + 2000 :],
    }
    bad = good.with_name("2.parquet")
    bad.write_bytes(contents[damage])
    error = refused(spec(bad if alone else bad.parent))
    assert (error.reason, error.exit_code) == (Reason.DATA_ERROR, 65)
    assert "lake/2.parquet` cannot be read as Parquet" in error.message


WRONG_COLUMNS = [
    ("entity", "idd", "there is no column `idd`", "it has id, day, amount, other: did you mean `id`?"),
    ("time", "date", "there is no column `date`", "it has id, day, amount, other"),
    ("value", "Amount", "there is no column `Amount`", "did you mean `amount`?"),
]


@pytest.mark.parametrize(("role", "name", "words", "help_"), WRONG_COLUMNS)
def test_a_column_that_is_not_there(simple: Path, role: str, name: str, words: str, help_: str) -> None:
    columns = {"entity": "id", "time": "day", "value": "amount", role: name}
    error = refused(spec(simple, source={"columns": columns}))
    assert (error.reason, error.exit_code) == (Reason.DATA_ERROR, 65)
    assert error.message.startswith(f"spec.source.columns.{role}: ")
    assert words in error.message
    assert help_ in error.message


def test_a_column_of_the_filter_that_is_not_there(simple: Path) -> None:
    error = refused(spec(simple, source={"filter": "statuss == 'x'"}))
    assert error.reason is Reason.DATA_ERROR
    assert "spec.source.filter: there is no column `statuss`" in error.message


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["b"]), pa.array([D(2024, 1, 1)]), pa.array([1])], ["id", "id", "day", "amount"]
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert "has two columns `id`" in refused(spec(tmp_path)).message


WRONG_TYPES = [
    ("id", pa.array([1.5]), "entity: column `id` is of type double: entities are strings, integers or dates"),
    ("id", pa.array([b"x"]), "entity: column `id` is of type binary"),
    ("id", pa.array([True]), "entity: column `id` is of type bool"),
    ("id", pa.nulls(1), "entity: column `id` holds nothing but nulls"),
    (
        "day",
        pa.array(["2024-01-01"]),
        "time: column `day` is of type string: times are dates or timestamps: convert it",
    ),
    ("day", pa.array([20240101]), "time: column `day` is of type int64"),
    ("amount", pa.array(["1"]), "value: column `amount` is of type string: values are numbers"),
    ("amount", pa.array([True]), "value: column `amount` is of type bool: write 0 and 1"),
    ("amount", pa.array([[1]]), "value: column `amount` is of type list"),
]


@pytest.mark.parametrize(
    ("name", "column", "words"), WRONG_TYPES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_types_that_cannot_be(tmp_path: Path, name: str, column: pa.Array, words: str) -> None:
    columns = {"id": ["a"], "day": pa.array([D(2024, 1, 1)]), "amount": [1.0], name: column}
    error = refused(spec(write(tmp_path / "t.parquet", **columns)))
    assert (error.reason, error.exit_code) == (Reason.DATA_ERROR, 65)
    assert words in error.message


def test_a_million_entities_of_one_row_each(tmp_path: Path) -> None:
    n = 1_000_000
    path = write(
        tmp_path / "t.parquet", id=pa.array(np.arange(n)), day=pa.array([D(2024, 1, 1)] * n), amount=np.ones(n)
    )
    observations = read(spec(path))
    assert (len(observations), observations.value.sum(), observations.buckets) == (n, n, 128)


# --- object storage --------------------------------------------------------------------------------------------------


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("lake")
        yield server


def upload(s3: S3Server, parts: int = 3) -> None:
    for i in range(parts):
        table = pa.table({"id": ["a", "b"], "day": pa.array([D(2024, 1, 1 + i)] * 2), "amount": [1.0 + i, 2.0]})
        pq.write_table(table, f"lake/raw/year=2024/{i}.parquet", filesystem=s3.filesystem)


def test_a_folder_of_a_bucket(s3: S3Server) -> None:
    upload(s3)
    s3.put("lake", "raw/_SUCCESS", b"")
    s3.put("lake", "raw/", b"")
    expected = {(name, f"2024-01-0{1 + i}"): {"a": 1.0 + i, "b": 2.0}[name] for i in range(3) for name in "ab"}
    for uri in ("s3://lake/raw", "s3://lake/raw/", "s3://lake"):
        assert known(read(spec(uri))) == expected
    assert len(known(read(spec("s3://lake/raw/year=2024/0.parquet")))) == 2
    assert known(read(spec("s3://lake/raw", source={"filter": "year == 2024 and id == 'a'"}))).keys() == {
        key for key in expected if key[0] == "a"
    }


def test_faults_of_a_bucket_that_pass_are_ridden_out(s3: S3Server) -> None:
    upload(s3)
    is_data = lambda method, path: method == "GET" and path.endswith(".parquet")  # noqa: E731
    s3.faults += [Fault(is_data, status=503), Fault(is_data, truncate=20), Fault(is_data, reset=True)]
    assert len(known(read(spec("s3://lake/raw")))) == 6
    assert not [fault for fault in s3.faults if fault.times]


def test_buckets_and_folders_that_are_not_there(s3: S3Server) -> None:
    error = refused(spec("s3://pond/raw"))
    assert (error.reason, error.exit_code) == (Reason.SOURCE_NOT_FOUND, 66)
    assert "no bucket `pond`" in error.message
    error = refused(spec("s3://lake/cooked"))
    assert (error.reason, error.exit_code) == (Reason.SOURCE_NOT_FOUND, 66)
    assert "`s3://lake/cooked` does not exist" in error.message


def test_a_bucket_that_may_not_be_read(s3: S3Server) -> None:
    upload(s3)
    for wanted in (lambda method, path: True, lambda method, path: path.endswith("1.parquet")):
        s3.faults[:] = [Fault(wanted, status=403, code="AccessDenied", times=99)]
        error = refused(spec("s3://lake/raw"))
        assert (error.reason, error.exit_code) == (Reason.ACCESS_DENIED, 77)
        assert "no permission to read `s3://lake/raw`" in error.message


def test_a_damaged_object(s3: S3Server) -> None:
    upload(s3)
    s3.put("lake", "raw/year=2024/1.parquet", b"PAR1 is not enough")
    error = refused(spec("s3://lake/raw"))
    assert error.reason is Reason.DATA_ERROR
    assert "`s3://lake/raw/year=2024/1.parquet` cannot be read as Parquet" in error.message


def test_an_endpoint_that_nobody_answers(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("almanac_jobs.storage.ATTEMPTS", 2)
    begun = time.monotonic()
    error = refused(spec("s3://lake/raw", storage={"endpoint": "http://127.0.0.1:1"}))
    assert (error.reason, error.exit_code) == (Reason.STORAGE_UNAVAILABLE, 75)
    assert "http://127.0.0.1:1" in error.message
    assert time.monotonic() - begun < 60
