"""The same rows as a table of Arrow's, a frame of pandas, of Dask or of Spark; and a job's source as any of them.

    from almanac_jobs import frames

    ledger = frames.read(job.spec.source, "dask", job.spec.storage)    # filter and columns are the job's
    frames.to_spark(ledger, through="s3://lake/tmp/ledger")            # workers write, executors read
    frames.to_arrow(model.transform(frame), schema)                    # Spark's result, with the types of a schema

Rows cross as Arrow: between tables and pandas without a copy where their layout allows, and between clusters as Parquet
`through` a folder that both reach, of which this process sees no row. Columns of pandas and Dask are Arrow's own
(`ArrowDtype`), so that decimals, zones, dictionaries and nulls are kept. Spark knows neither dictionaries nor zones nor
nanoseconds: `schema` brings back the first two, and the last are refused where that would lose any.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from almanac.api import AnomalySource, JobError, Reason, Source, Storage
from almanac_jobs import objects
from almanac_jobs.source import Dataset, Portion, open_columns, open_dataset, portions, scan
from almanac_jobs.storage import Location, open_location

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

Frame: TypeAlias = Any
"""A table of Arrow's, or a frame of pandas, of Dask or of Spark."""
Kind = Literal["arrow", "pandas", "dask", "spark"]
KINDS: tuple[Kind, ...] = ("arrow", "pandas", "dask", "spark")
PARTITION_ROWS = 1_000_000
"""Rows of a partition of Dask's or Spark's, about."""
_EXTRAS = {"pandas": "frames", "dask": "frames", "spark": "spark"}


def read(
    source: Source | AnomalySource,
    kind: Kind = "arrow",
    storage: Storage | None = None,
    *,
    partition_rows: int = PARTITION_ROWS,
    session: SparkSession | None = None,
) -> Frame:
    """The rows of a job's source that meet its filter, with the columns that the job reads, by their own names.

    Dask and Spark read where they compute, a part of the files each. A ForecastJob reads entity, time and value; an
    AnomalyJob all columns, or the features that its columns name.

    Raises:
        JobError: as `source.open_dataset` and `source.scan` do; NotInstalled.
    """
    dataset = (
        open_columns(source, storage, _all) if isinstance(source, AnomalySource) else open_dataset(source, storage)
    )
    schema = _schema(dataset)
    if kind in ("arrow", "pandas"):
        table = pa.Table.from_batches(_batches(dataset, schema), schema)
        return table if kind == "arrow" else to_pandas(table)
    parts = [Part(portion, schema) for portion in portions(dataset, storage, partition_rows)]
    return _in_dask(parts, schema) if kind == "dask" else _in_spark(parts, schema, session)


def to_arrow(frame: Frame, schema: pa.Schema | None = None) -> pa.Table:
    """All rows as a table in this process; with the types of `schema`, where a frame has lost them.

    Raises:
        TypeError: for what is no frame.
        ArrowInvalid: where a value does not fit the type that it is to have.
    """
    kind = kind_of(frame)
    if kind == "arrow":
        table = pa.table(frame)  # also what hands out Arrow's C stream, such as frames of other libraries
    elif kind == "pandas":
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    elif kind == "spark":
        table = frame.toArrow()
    else:
        dask = _load("dask", "dask")
        made = dask.compute(*(dask.delayed(_table)(part) for part in frame.to_delayed()))
        table = pa.concat_tables(made, promote_options="default")
    table = table.replace_schema_metadata(None)
    return table if schema is None else _cast(table, schema)


def to_pandas(frame: Frame, schema: pa.Schema | None = None) -> pd.DataFrame:
    """All rows as a frame of pandas in this process, whose columns are Arrow's. Raises as `to_arrow`, and
    NotInstalled."""
    pandas = _load("pandas", "pandas")
    made: pd.DataFrame = to_arrow(frame, schema).to_pandas(types_mapper=pandas.ArrowDtype)
    return made


def to_dask(
    frame: Frame,
    *,
    through: str = "",
    storage: Storage | None = None,
    schema: pa.Schema | None = None,
    partition_rows: int = PARTITION_ROWS,
) -> dd.DataFrame:
    """The rows as a frame of Dask. Those of Spark go `through` a folder, or else through this process.

    Raises:
        JobError: NotInstalled, and what storage refuses.
    """
    kind = kind_of(frame)
    if kind == "dask":
        same: dd.DataFrame = frame
        return same
    if kind == "spark" and through:
        files = _spark_files(frame, through, storage)
        found = schema or files[0].schema
        return _in_dask([replace(one, schema=found) for one in files], found)
    table = to_arrow(frame, schema)
    return _in_dask(_slices(table, partition_rows), table.schema)


def to_spark(
    frame: Frame,
    session: SparkSession | None = None,
    *,
    through: str = "",
    storage: Storage | None = None,
) -> DataFrame:
    """The rows as a frame of a session of Spark's (the active one). Those of Dask go `through` a folder, or else
    through this process.

    Raises:
        JobError: NotInstalled, and what storage refuses.
        ArrowInvalid: for times of nanoseconds, which Spark has none of.
    """
    kind = kind_of(frame)
    if kind == "spark":
        same: DataFrame = frame
        return same
    if kind == "dask" and through:
        files = _dask_files(frame, through, storage)
        return _in_spark(files, files[0].schema, session)
    active = _active(session)
    table = to_arrow(frame)
    return active.createDataFrame(_cast(table, _spark_schema(table.schema)))


def kind_of(frame: Frame) -> Kind:
    """What a frame is.

    Raises:
        TypeError: if it is none.
    """
    module = type(frame).__module__.split(".")[0]
    if module in ("dask", "dask_expr"):
        return "dask"
    if module in ("pandas", "pyspark"):
        return "pandas" if module == "pandas" else "spark"
    if isinstance(frame, pa.Table) or hasattr(frame, "__arrow_c_stream__"):
        return "arrow"
    raise TypeError(f"{type(frame).__name__} is no frame of {', '.join(KINDS)}")


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a source, which another process reads."""

    portion: Portion
    schema: pa.Schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        return _batches(self.portion.open(), self.schema)


@dataclass(frozen=True, slots=True)
class File:
    """A Parquet file, which one process writes and another one reads. There is none where it has no rows."""

    uri: str
    storage: Storage | None
    schema: pa.Schema

    def write(self, batches: Iterable[pa.RecordBatch]) -> int:
        """Write it; gives the number of its rows. Writing the same again changes nothing."""
        table = pa.Table.from_batches([one.cast(self.schema) for one in batches], self.schema)
        if len(table):
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            objects.write(self._location, memoryview(sink.getvalue()), durable=False)
        return len(table)

    def batches(self) -> Iterator[pa.RecordBatch]:
        data = objects.read(self._location)
        if data is not None:
            yield from _cast(pq.read_table(pa.BufferReader(data)), self.schema).to_batches()

    @property
    def _location(self) -> Location:
        return open_location(self.uri, self.storage, field="through")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that this process has."""

    table: pa.Table

    def batches(self) -> Iterator[pa.RecordBatch]:
        return iter(self.table.to_batches())


def _load(kind: Kind, module: str) -> Any:
    """A module that frames of a kind need."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = f"a frame of {kind} needs {error.name}, which is not installed"
        raise JobError(Reason.NOT_INSTALLED, f"{missing}: pip install 'almanac[{_EXTRAS[kind]}]'") from error


def _all(there: Mapping[str, pa.DataType]) -> Mapping[str, str]:
    return {name: f"spec.source.columns: {name}" for name in there}


def _schema(dataset: Dataset) -> pa.Schema:
    """The columns of a source by their own names, of types over all files."""
    return pa.schema([(name, dataset.types[name]) for name in dataset.columns.values()])


def _batches(dataset: Dataset, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    columns = dataset.columns
    for batch, _ in scan(dataset):
        named = batch.rename_columns([columns[name] for name in batch.schema.names])
        yield named.select(schema.names).cast(schema)


def _table(part: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(part, preserve_index=False).replace_schema_metadata(None)


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the types of a schema."""
    return table.select(schema.names).cast(schema)


def _slices(table: pa.Table, rows: int) -> list[Rows]:
    return [Rows(table.slice(first, rows)) for first in range(0, max(len(table), 1), rows)]


def _frame(part: Part | File | Rows, schema: pa.Schema) -> pd.DataFrame:
    return to_pandas(pa.Table.from_batches(part.batches(), schema))


def _in_dask(parts: Sequence[Part | File | Rows], schema: pa.Schema) -> dd.DataFrame:
    """Parts as partitions."""
    meta = to_pandas(schema.empty_table())
    made: dd.DataFrame = _load("dask", "dask.dataframe").from_map(_frame, parts, schema=schema, meta=meta)
    return made


def _in_spark(parts: Sequence[Part | File | Rows], schema: pa.Schema, session: SparkSession | None) -> DataFrame:
    """Parts as partitions, which executors read."""
    active, types = _active(session), _load("spark", "pyspark.sql.pandas.types")
    there = _spark_schema(schema)
    chosen = list(parts)

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column("id").to_pylist():
                for one in chosen[number].batches():
                    yield one.cast(there)

    return active.range(0, len(chosen), 1, len(chosen)).mapInArrow(read, types.from_arrow_schema(there))


def _spark_schema(schema: pa.Schema) -> pa.Schema:
    """What Spark can hold of a schema: values for dictionaries, microseconds of UTC for times."""
    return pa.schema([(field.name, _spark_type(field.type)) for field in schema])


def _spark_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _spark_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_decimal(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_unsigned_integer(kind):
        return {8: pa.int16(), 16: pa.int32(), 32: pa.int64(), 64: pa.decimal128(20, 0)}[kind.bit_width]
    return kind


def _active(session: SparkSession | None) -> SparkSession:
    sessions = _load("spark", "pyspark.sql").SparkSession
    found: SparkSession = session or sessions.getActiveSession() or sessions.builder.getOrCreate()
    return found


def _files(through: str, storage: Storage | None, schema: pa.Schema, number: int) -> list[File]:
    """Files of a folder of their own below `through`."""
    folder = f"{through.rstrip('/')}/{secrets.token_hex(8)}"
    return [File(f"{folder}/part-{one:05}.parquet", storage, schema) for one in range(max(number, 1))]


def _spark_files(frame: DataFrame, through: str, storage: Storage | None) -> list[File]:
    """The partitions of a frame of Spark's as files, which executors write."""
    from pyspark import TaskContext
    from pyspark.sql.pandas.types import to_arrow_schema

    files = _files(through, storage, to_arrow_schema(frame.schema, timezone="UTC"), frame.rdd.getNumPartitions())

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None  # noqa: S101 - a task has one
        yield pa.record_batch({"rows": [files[context.partitionId()].write(batches)]})

    frame.mapInArrow(write, "rows long").collect()
    return files


def _dask_files(frame: dd.DataFrame, through: str, storage: Storage | None) -> list[File]:
    """The partitions of a frame of Dask's as files, which workers write."""
    dask: Any = _load("dask", "dask")
    files = _files(through, storage, _table(frame._meta).schema, frame.npartitions)
    parts: Sequence[Any] = frame.to_delayed()  # type: ignore[no-untyped-call]
    dask.compute(*(dask.delayed(_write)(file, part) for file, part in zip(files, parts, strict=True)))
    return files


def _write(file: File, part: pd.DataFrame) -> int:
    return file.write(_table(part).to_batches())
