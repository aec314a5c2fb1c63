"""ExtractJob: a table or query of PostgreSQL or CockroachDB as partitioned Parquet."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictInt

from almanac.api import checks
from almanac.api.common import (
    Engine,
    Job,
    JobSpec,
    Name,
    ObjectName,
    Output,
    Uri,
    cel,
    layout_is_bucketed,
    pattern,
)
from almanac.api.model import Model, rule

TABLE = "journal_entries"
"""The table that is read where the job names none."""

Sql = Annotated[str, Field(min_length=1, max_length=16_384)]
Bound = Annotated[str, Field(min_length=1, max_length=64)]
Numeric = Annotated[
    str,
    Field(max_length=16, json_schema_extra=cel(pattern(checks.NUMERIC), checks.NUMERIC_HELP)),
    AfterValidator(checks.numeric),
]


class SslMode(StrEnum):
    """Whether a connection is encrypted, and how the server proves who it is: libpq's own words."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class PartitionBy(StrEnum):
    """What the folders of a data set are made of."""

    NONE = "none"
    YEAR = "year"
    MONTH = "month"
    ENTITY = "entity"


class Connection(Model):
    """Where the database is. What is unset comes from libpq's environment variables (PGHOST, PGUSER ...), which the
    Secret brings in a cluster."""

    host: Annotated[str, Field(max_length=253)] = ""
    """Host name or address of the server, e.g. ledger-db.finance.svc. Empty: PGHOST."""
    port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = None
    """Port of the server: 5432 of PostgreSQL, 26257 of CockroachDB. Unset: PGPORT, else 5432."""
    database: Annotated[str, Field(max_length=253)] = ""
    """Name of the database. Empty: PGDATABASE."""
    user: Annotated[str, Field(max_length=253)] = ""
    """Role that reads. Empty: PGUSER. It needs SELECT on the table, and nothing else."""
    sslmode: SslMode | None = None
    """disable, allow, prefer, require, verify-ca or verify-full, as libpq has them. Unset: PGSSLMODE, else prefer."""
    secret_name: ObjectName = ""
    """Secret of the job's namespace whose keys are libpq's environment variables: PGPASSWORD, and PGUSER or PGHOST
    where they are not written here. Outside Kubernetes these variables, or ~/.pgpass, are read instead."""
    password: str | None = None
    """Must not be set: whoever may read the job could read it. It is here so that it is refused, not lost."""

    @rule(
        "password",
        message="must not be written into a job: put it into a Secret as PGPASSWORD and name that in secretName, or on "
        "a laptop into the environment variable PGPASSWORD or ~/.pgpass",
        cel="!has(self.password)",
        hidden=True,
    )
    def _password_is_elsewhere(self) -> bool:
        return self.password is None

    @rule(
        "host",
        message="must be a host name or an address alone, e.g. ledger-db.finance.svc: port, database and user have "
        "fields of their own, and a password belongs into a Secret",
        cel="!has(self.host) || self.host.matches(r'" + checks.HOST + "')",
        hidden=True,
    )
    def _host_is_a_host(self) -> bool:
        return checks.is_host(self.host)


class Watermark(Model):
    """What tells rows that are new or have changed since the last run: they are read, and replace rows of their key."""

    column: Name
    """Column of timestamps, dates or integers that only grows when a row is written: updated_at. An index on it
    makes the difference."""
    lag_seconds: Annotated[StrictInt, Field(ge=0, le=31_536_000)] = 300
    """How far before the last run's highest value the next one begins: rows whose transaction was slow to commit are
    seen then. For integers it is a difference of numbers."""


class Range(Model):
    """A part of the table by one column, e.g. some years of it."""

    column: Name
    """Column that the bounds are of."""
    start: Bound | None = None
    """First value that is read, as SQL writes it: 2024-01-01. Null or unset: all that there is."""
    end: Bound | None = None
    """First value that is not read any more. Null or unset: all that there is."""


class ExtractSource(Model):
    """What is read: a table, or what a query gives."""

    connection: Connection = Connection()
    """Where the database is."""
    table: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Table or view as SQL writes it: journal_entries, finance.entries, "Entries". Unset, and without a query:
    journal_entries."""
    query: Sql | None = None
    """A SELECT whose rows are read in place of a table's. It is read in parallel where key names columns of it."""
    columns: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1600)] | None = None
    """Columns to read. Unset: all."""
    key: Annotated[tuple[Name, ...], Field(min_length=1, max_length=32)] | None = None
    """Columns that together tell rows apart; the table is read in ranges of them, and rows are replaced by them. Unset:
    the table's primary key."""
    filter: Sql | None = None
    """Rows to read, as a condition of SQL: status = 'posted'. Unset: all."""
    range: Range | None = None
    """A part of the table by one column. Unset: all that there is."""
    watermark: Watermark | None = None
    """What tells rows that are new or have changed since the last run. Unset: every run reads everything."""
    numeric: Numeric = "decimal(38, 18)"
    """Type of numeric columns that have no precision of their own: decimal(precision, scale), or text. A value that
    does not fit is an error, and never rounded."""
    connections: Annotated[StrictInt, Field(ge=1, le=64)] | None = None
    """Connections that read at a time. Unset: one for each core, 8 at most, fewer where memory is short."""

    @rule(
        "query",
        "table",
        message="and table cannot both be set: leave one of the two out",
        cel="!has(self.query) || !has(self.table)",
    )
    def _table_or_query(self) -> bool:
        return self.query is None or self.table is None

    @rule(
        "key",
        "query",
        "watermark",
        message="is missing: with a query and a watermark, rows are replaced by it. Name the columns of it",
        cel="has(self.key) || !has(self.query) || !has(self.watermark)",
    )
    def _upserts_have_a_key(self) -> bool:
        return self.key is not None or self.query is None or self.watermark is None

    @rule(
        "columns",
        "key",
        "watermark",
        message="must hold the columns of key and watermark where a watermark is set: rows are replaced by them",
        cel="!has(self.watermark) || !has(self.columns) || (self.watermark.column in self.columns && "
        "(!has(self.key) || self.key.all(name, name in self.columns)))",
    )
    def _columns_hold_the_key(self) -> bool:
        if self.watermark is None or self.columns is None:
            return True
        return {self.watermark.column, *(self.key or ())} <= set(self.columns)

    @property
    def relation(self) -> str | None:
        """The table that is read; None for a query."""
        return None if self.query is not None else self.table or TABLE


class Partition(Model):
    """How the data set is cut into folders, hive-partitioned: every reader of Parquet knows them as columns."""

    by: PartitionBy = PartitionBy.NONE
    """month: year=2024/month=03. year: year=2024. entity: bucket=0007, a hash of the entity, sorted by it inside.
    none: one folder."""
    column: Name | None = None
    """Column of dates or timestamps (month, year; in UTC) or of the entity."""
    buckets: Annotated[StrictInt, Field(ge=1, le=8192)] = 16
    """Folders of entity: a power of two. A bucket is sorted in memory: 100 MB of Parquet each are a good size."""

    @rule(
        "column",
        "by",
        message="is missing: name the column of times that month and year, or of names that entity, is made of",
        cel="self.by == 'none' || has(self.column)",
    )
    def _partitions_have_a_column(self) -> bool:
        return self.by is PartitionBy.NONE or self.column is not None

    @rule(
        "buckets",
        message="must be a power of two: 16, 32, 64",
        cel="self.buckets in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]",
    )
    def _buckets_are_a_power_of_two(self) -> bool:
        return self.buckets & (self.buckets - 1) == 0


class ExtractOutput(Output):
    """Where the data set goes, and how many versions of it are kept."""

    uri: Uri = f"data/raw/{TABLE}"
    """Folder in which each run gets a folder of its own (runs/{run id}/); latest.json names the newest complete one. In
    a cluster it is in a bucket, or on a volume that podTemplate mounts."""


class ExtractSpec(JobSpec):
    """What to read from which database, and how the data set is cut."""

    source: ExtractSource = ExtractSource()
    """What is read."""
    partition: Partition = Partition()
    """How the data set is cut into folders."""
    output: ExtractOutput = ExtractOutput()
    """Where the data set goes, and how many versions of it are kept."""

    _layout_is_bucketed = layout_is_bucketed

    @rule(
        "engine",
        message="must be auto or local: a database is read by several connections of one process",
        cel="self.engine in ['auto', 'local']",
    )
    def _engine_is_local(self) -> bool:
        return self.engine in (Engine.AUTO, Engine.LOCAL)

    @property
    def secrets(self) -> tuple[str, ...]:
        return (*super().secrets, *filter(None, (self.source.connection.secret_name,)))


class ExtractJob(Job):
    """A table or query of PostgreSQL or CockroachDB as partitioned Parquet: one consistent snapshot a run."""

    kind: Literal["ExtractJob"] = "ExtractJob"
    spec: ExtractSpec = ExtractSpec()
    """What to read from which database, and how the data set is cut."""
