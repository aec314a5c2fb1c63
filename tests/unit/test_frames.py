"""Frames: the same rows as Arrow, pandas and Dask, types and nulls kept; a source read as any of them."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from almanac.api import AnomalyJob, ForecastJob, JobError, Reason
from almanac_jobs import frames
from anomalies import job as anomaly_job
from ledgers import job, ledger, write_parquet

pytest.importorskip("pandas", reason="the extra `frames` is not installed")

TYPES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "decimal": (pa.decimal128(20, 4), st.decimals(-(10**15), 10**15, places=4)),
    "wide": (pa.decimal256(60, 2), st.integers(-(10**50), 10**50).map(lambda one: Decimal(one).scaleb(-2))),
    "zoned": (pa.timestamp("us", "Europe/Berlin"), st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))),
    "nanos": (pa.timestamp("ns"), st.integers(-(2**60), 2**60)),
    "plain": (pa.timestamp("ms"), st.integers(-(2**40), 2**40)),
    "date": (pa.date32(), st.dates(date(1, 1, 1), date(9999, 12, 31))),
    "length": (pa.duration("us"), st.timedeltas(timedelta(-10000), timedelta(10000))),
    "text": (pa.string(), st.text(max_size=5)),
    "coded": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["a", "b", ""])),
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "natural": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "small": (pa.int8(), st.integers(-128, 127)),
    "real": (pa.float64(), st.floats(allow_nan=False)),
    "flag": (pa.bool_(), st.booleans()),
    "bytes": (pa.binary(), st.binary(max_size=4)),
    "many": (pa.list_(pa.int32()), st.lists(st.integers(0, 9), max_size=3)),
}


@st.composite
def tables(draw: st.DrawFn, names: tuple[str, ...] = tuple(TYPES)) -> pa.Table:
    """Some columns of any types, with nulls."""
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
    rows = draw(st.integers(0, 12))
    columns = {}
    for name in chosen:
        kind, values = TYPES[name]
        some = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        columns[name] = pa.array(some, kind.value_type).dictionary_encode() if name == "coded" else pa.array(some, kind)
    return pa.table(columns)


@settings(max_examples=100, deadline=None)
@given(tables())
def test_pandas_keeps_types_and_nulls(table: pa.Table) -> None:
    frame = frames.to_pandas(table)
    assert list(frame.columns) == table.column_names
    assert frames.to_arrow(frame).equals(table)
    assert frames.to_arrow(frames.to_pandas(frame)).equals(table)


@settings(max_examples=25, deadline=None)
@given(tables(), st.integers(1, 5))
def test_dask_keeps_types_and_nulls(table: pa.Table, rows: int) -> None:
    dask = pytest.importorskip("dask", reason="the extra `frames` is not installed")
    with dask.config.set(scheduler="synchronous"):
        frame = frames.to_dask(table, partition_rows=rows)
        assert frame.npartitions == max(1, -(-len(table) // rows))
        back = frames.to_arrow(frame, table.schema)
        assert back.equals(table) or back.to_pylist() == table.to_pylist()
        assert back.schema == table.schema
        assert frames.to_dask(frame) is frame


def test_a_schema_brings_types_back() -> None:
    schema = pa.schema([("a", pa.dictionary(pa.int32(), pa.string())), ("t", pa.timestamp("s", "Asia/Tokyo"))])
    lost = pa.table({"t": pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")), "a": ["x"]})
    back = frames.to_arrow(lost, schema)
    assert back.schema == schema
    assert back.column("t").to_pylist()[0] == datetime(2026, 1, 1, tzinfo=UTC)


def test_what_is_no_frame() -> None:
    with pytest.raises(TypeError, match="list is no frame of arrow, pandas, dask, spark"):
        frames.to_arrow([1])


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [("pandas", "pandas", "frames"), ("dask", "dask.dataframe", "frames"), ("spark", "pyspark.sql", "spark")],
)
def test_what_is_not_installed(kind: Any, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    convert = {"pandas": frames.to_pandas, "dask": frames.to_dask, "spark": frames.to_spark}[kind]
    with pytest.raises(JobError, match=rf"a frame of {kind} needs .*pip install 'almanac\[{extra}\]'") as caught:
        convert(pa.table({"a": [1]}))
    assert caught.value.reason is Reason.NOT_INSTALLED


@pytest.mark.parametrize("kind", ["arrow", "pandas", "dask"])
def test_a_source_is_read_as_the_job_says(kind: Any, tmp_path: Path) -> None:
    dask = pytest.importorskip("dask", reason="the extra `frames` is not installed")
    table = ledger(5, 20).append_column("note", pa.array(["x"] * 100))
    write_parquet(table.slice(0, 40), tmp_path / "lake" / "a.parquet", row_group_size=10)
    write_parquet(table.slice(40), tmp_path / "lake" / "b.parquet", row_group_size=10)
    spec = ForecastJob.parse(job(tmp_path / "lake", tmp_path, source__filter="account > 'account-0000002'")).spec
    frame = frames.read(spec.source, kind, partition_rows=15)
    assert frames.kind_of(frame) == kind
    with dask.config.set(scheduler="synchronous"):
        rows = frames.to_arrow(frame)
    expected = [row for row in table.drop_columns("note").to_pylist() if row["account"] > "account-0000002"]
    assert rows.schema.types == [pa.string(), pa.date32(), pa.float64()]
    assert rows.sort_by([("date", "ascending"), ("account", "ascending")]).to_pylist() == expected
    if kind == "dask":
        assert frame.npartitions > 3


def test_a_source_of_anomalies_has_all_its_columns(tmp_path: Path) -> None:
    table = ledger(3, 10).append_column("note", pa.array(["x", None] * 15))
    write_parquet(table, tmp_path / "lake" / "a.parquet")
    document = anomaly_job(tmp_path / "lake", tmp_path / "out")
    document["spec"]["source"]["columns"] = {"entity": "account", "time": "date"}
    rows = frames.to_arrow(frames.read(AnomalyJob.parse(document).spec.source))
    assert rows.select(table.column_names).to_pylist() == table.to_pylist()
