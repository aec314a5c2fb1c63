"""Frames of a real Spark: to and from Arrow and Dask, through a folder and through this process; a source as one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from almanac.api import ForecastJob
from almanac_jobs import frames
from ledgers import job, ledger, write_parquet

pytest.importorskip("pyspark", reason="the extra `spark` is not installed")
dask = pytest.importorskip("dask", reason="the extra `frames` is not installed")

TABLE = pa.table(
    {
        "account": pa.array(["a", None, "b", "a"]).dictionary_encode(),
        "amount": pa.array(
            [Decimal("1.10"), Decimal("-99999999999999.99"), None, Decimal("0.00")], pa.decimal128(16, 2)
        ),
        "at": pa.array([datetime(2026, 3, 29, 1, 30, tzinfo=UTC), None] * 2, pa.timestamp("us", "Europe/Berlin")),
        "wall": pa.array([datetime(1969, 12, 31, 23, 59, 59, 999999), None] * 2, pa.timestamp("us")),
        "day": pa.array([None, 0, -1, 20000], pa.date32()),
        "number": pa.array([2**63, None, 0, 1], pa.uint64()),
        "tags": pa.array([["x"], [], None, ["y", None]], pa.list_(pa.string())),
    }
)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from sparks import local_cluster

    with local_cluster(tmp_path_factory.mktemp("spark"), {}) as made, dask.config.set(scheduler="synchronous"):
        yield made


def by_account(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=str)


def test_a_table_is_the_same_after_spark(session: Any) -> None:
    frame = frames.to_spark(TABLE, session)
    assert frames.kind_of(frame) == "spark"
    assert frames.to_spark(frame) is frame
    back = frames.to_arrow(frame, TABLE.schema)
    assert back.schema == TABLE.schema
    assert by_account(back) == by_account(TABLE)
    assert frames.to_arrow(frames.to_pandas(frame, TABLE.schema)).schema == TABLE.schema


def test_nanoseconds_are_refused_where_spark_would_lose_them(session: Any) -> None:
    whole = pa.table({"at": pa.array([1_000, None], pa.timestamp("ns"))})
    assert frames.to_arrow(frames.to_spark(whole, session), whole.schema).equals(whole)
    with pytest.raises(pa.ArrowInvalid, match="would lose data"):
        frames.to_spark(pa.table({"at": pa.array([1_001], pa.timestamp("ns"))}), session)


@pytest.mark.parametrize("through", [True, False])
def test_from_dask_to_spark_and_back(through: bool, session: Any, tmp_path: Path) -> None:
    folder = str(tmp_path / "through") if through else ""
    there = frames.to_dask(TABLE, partition_rows=3)
    spark = frames.to_spark(there, session, through=folder)
    assert by_account(frames.to_arrow(spark, TABLE.schema)) == by_account(TABLE)
    back = frames.to_dask(spark, through=folder, schema=TABLE.schema)
    found = frames.to_arrow(back, TABLE.schema)
    assert by_account(found) == by_account(TABLE)
    assert bool(list(tmp_path.rglob("*.parquet"))) is through


def test_partitions_without_a_row(session: Any, tmp_path: Path) -> None:
    nothing = TABLE.slice(0, 0)
    spark = frames.to_spark(frames.to_dask(nothing), session, through=str(tmp_path))
    assert spark.count() == 0
    back = frames.to_dask(spark, through=str(tmp_path), schema=TABLE.schema)
    assert frames.to_arrow(back, TABLE.schema).equals(nothing)


def test_a_source_is_read_by_executors(session: Any, tmp_path: Path) -> None:
    table = ledger(5, 20)
    write_parquet(table, tmp_path / "lake" / "a.parquet", row_group_size=10)
    spec = ForecastJob.parse(job(tmp_path / "lake", tmp_path, source__filter="amount > 50")).spec
    frame = frames.read(spec.source, "spark", partition_rows=25, session=session)
    assert frame.rdd.getNumPartitions() == 4
    expected = [row for row in table.to_pylist() if row["amount"] > 50]
    assert by_account(frames.to_arrow(frame)) == sorted(expected, key=str)
