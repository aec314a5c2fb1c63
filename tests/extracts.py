"""ExtractJobs for tests: documents, whole runs in this process, and what is in a data set and in a table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import adbc_driver_postgresql.dbapi as driver
import pyarrow as pa

import almanac_jobs
from almanac.api import Engine, ExtractJob
from almanac_jobs import run
from almanac_jobs.extracted import Extract
from almanac_jobs.progress import Progress
from almanac_jobs.run import Outcome
from manifests import filled
from postgres import Server

SMALLEST: dict[str, Any] = {
    "apiVersion": "almanac.dev/v1alpha1",
    "kind": "ExtractJob",
    "metadata": {"name": "entries"},
    "spec": {"output": {"uri": "s3://ledger/raw/journal_entries"}},
}
REFUSED: list[dict[str, Any]] = [
    {"source__connection__password": "hunter2"},
    {"source__connection__password": ""},
    {"source__connection__host": "postgresql://u:hunter2@db/ledger"},
    {"source__connection__host": "a b"},
    {"source__connection__port": 0},
    {"source__connection__sslmode": "on"},
    {"source__table": ""},
    {"source__table": "t", "source__query": "SELECT 1"},
    {"source__query": "SELECT 1", "source__watermark": {"column": "t"}},
    {"source__columns": []},
    {"source__columns": ["a"], "source__watermark": {"column": "t"}},
    {"source__columns": ["a", "t"], "source__watermark": {"column": "t"}, "source__key": ["b"]},
    {"source__numeric": "decimal(77, 2)"},
    {"source__numeric": "float"},
    {"source__connections": 0},
    {"source__range": {"start": "2024-01-01"}},
    {"partition": {"by": "month"}},
    {"partition": {"by": "entity", "column": "a", "buckets": 3}},
    {"partition": {"by": "day", "column": "a"}},
    {"engine": "spark"},
    {"engine": "dask"},
    {"output__layout": "perEntity"},
    {"output__uri": "hdfs://x"},
]
"""Fields for `extract` with which both the models and Kubernetes refuse a job."""

TAKEN: list[dict[str, Any]] = [
    {},
    {"source__connection": {"host": "::1", "port": 26257, "sslmode": "verify-full", "secretName": "db"}},
    {"source__table": 'finance."Entries"', "source__key": ["a", "b"], "source__connections": 64},
    {"source__query": "SELECT 1 AS a", "source__key": ["a"], "source__watermark": {"column": "a", "lagSeconds": 0}},
    {"source__range": {"column": "date", "end": "2025-01-01"}},
    {"source__numeric": "text"},
    {"source__numeric": "decimal(20,4)", "partition": {"by": "none"}},
    {"partition": {"by": "entity", "column": "a", "buckets": 1024}, "engine": "local"},
    {"source__columns": ["a", "t"], "source__watermark": {"column": "t"}},
]
"""Fields for `extract` with which both take it."""

_IDS = count()


def extract(**fields: Any) -> dict[str, Any]:
    """The smallest ExtractJob with fields of its spec set: `extract(source__table="t")`."""
    return filled(SMALLEST, fields)


def job(server: Server, uri: str, **fields: Any) -> ExtractJob:
    """A job that reads from a server into a folder."""
    return ExtractJob.parse(extract(source__connection=server.connection, output__uri=uri, **fields))


def carry_out(made: ExtractJob, run_id: str | None = None, progress: Progress | None = None) -> Outcome:
    """A run of a job, in this process."""
    return run.run(
        made,
        engine=Engine.LOCAL,
        run_id=run_id or f"run-{next(_IDS):04d}",
        clock=lambda: datetime.now(UTC),
        progress=progress or Progress(),
        manifest="{}",
    )


def newest(uri: str) -> Extract:
    """The newest complete run of an output."""
    found = almanac_jobs.load(uri)
    assert isinstance(found, Extract)
    return found


def rows(uri: str, *key: str) -> list[dict[str, Any]]:
    """All rows of the newest run by key, without the columns of its folders."""
    found = newest(uri)
    names = [one["name"] for one in found.report["extract"]["columns"]]
    return by_key(found.to_table(columns=names), *key)


def by_key(table: pa.Table, *key: str) -> list[dict[str, Any]]:
    """The rows of a table in the order of their key."""
    ordered: Callable[[dict[str, Any]], list[str]] = lambda row: [str(row[name]) for name in key]  # noqa: E731
    return sorted(table.to_pylist(), key=ordered)


def answer(server: Server, query: str, *key: str) -> list[dict[str, Any]]:
    """The rows of a query by key, as ADBC gives them."""
    with driver.connect(server.url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return by_key(cursor.fetch_arrow_table(), *key)
