"""ExtractJobs from a real PostgreSQL to a published data set: that it is the table, whatever happens on the way."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import disks
from almanac.api import Connection, ExitCode, JobError, Reason
from almanac_jobs import extracting
from almanac_jobs.buckets import bucket_of
from almanac_jobs.extract import arranging, database, reading, relation
from almanac_jobs.extract.database import COCKROACHDB, Session
from almanac_jobs.extract.reading import Reading
from almanac_jobs.extract.state import State
from extracts import answer, carry_out, job, newest, rows
from matrix import Group, Moment, cell
from postgres import Server
from s3 import Fault, S3Server


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "ALMANAC_", "PG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tables are read in many ranges, and their small files stay what they are."""
    monkeypatch.setattr(relation, "RANGE_BYTES", 16 << 10)
    monkeypatch.setattr(relation, "COUNTED_ROWS", 300)
    monkeypatch.setattr(relation, "STREAMED_ROWS", 300)
    monkeypatch.setattr(arranging, "SMALL", 0)


@pytest.fixture
def entries(postgres: Server) -> Iterator[str]:
    """A table of 3,000 journal entries over three years, with a primary key, which lie in the order of their key."""
    postgres.run(
        "DROP TABLE IF EXISTS entries",
        "CREATE TABLE entries (id int8 PRIMARY KEY, account text NOT NULL, posted date, "
        "updated_at timestamptz NOT NULL, amount numeric(18, 2))",
        "INSERT INTO entries SELECT i, 'A-' || i % 50, date '2022-01-01' + i % 1000, "
        "timestamptz '2024-01-01' + i * interval '1 minute', (i * 37 % 1000) / 7.0 FROM generate_series(1, 3000) i",
        "ANALYZE entries",
    )
    yield "entries"
    postgres.run("DROP TABLE entries")


LONG = "12345678901234567890.123456789012345678"
UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
TYPES: list[tuple[str, str, Any, str]] = [
    ("int2", "-32768", -32768, "int16"),
    ("int4", "2147483647", 2147483647, "int32"),
    ("int8", "-9223372036854775808", -(2**63), "int64"),
    ("float4", "0.5", 0.5, "float"),
    ("float8", "'Infinity'", float("inf"), "double"),
    ("bool", "true", True, "bool"),
    ("text", "'Grüße '''", "Grüße '", "string"),
    ("varchar(9)", "'nine'", "nine", "string"),
    ("char(3)", "'ab'", "ab ", "string"),
    ("bytea", "'\\x00ff'", b"\x00\xff", "binary"),
    ("numeric(18, 2)", "-1234567890123456.78", Decimal("-1234567890123456.78"), "decimal128(18, 2)"),
    ("numeric(60, 10)", "1e49", Decimal("1e49"), "decimal256(60, 10)"),
    ("numeric(5, -2)", "1234567", Decimal(1234600), "decimal128(7, 0)"),
    ("numeric(2, 4)", "0.0012", Decimal("0.0012"), "decimal128(4, 4)"),
    ("numeric(100, 5)", "7.5", "7.50000", "string"),
    ("numeric", LONG, Decimal(LONG), "decimal128(38, 18)"),
    ("date", "'0044-03-15'", date(44, 3, 15), "date32[day]"),
    ("time", "'23:59:59.999999'", time(23, 59, 59, 999999), "time64[us]"),
    ("timetz", "'12:00+02'", "12:00:00+02", "string"),
    ("timestamp", "'2024-02-29 12:00:00.000001'", datetime(2024, 2, 29, 12, 0, 0, 1), "timestamp[us]"),
    ("timestamptz", "'2024-02-29 12:00+02'", datetime(2024, 2, 29, 10, tzinfo=UTC), "timestamp[us, tz=UTC]"),
    ("interval", "'1 year 2 days 3.5 s'", "P1Y2DT3.5S", "string"),
    ("json", "'{\"a\":  1}'", '{"a":  1}', "string"),
    ("jsonb", "'{\"a\":  [1, null]}'", '{"a": [1, null]}', "string"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "string"),
    ("mood", "'so so'", "so so", "string"),
    ("cents", "7", Decimal("7.00"), "decimal128(10, 2)"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8", "string"),
    ("int4range", "'[1,5)'", "[1,5)", "string"),
    ("money", "'1234.5'", None, "string"),
    ("oid", "4294967295", "4294967295", "string"),
    ("int4[]", "array[1, null, 3]", [1, None, 3], "list<item: int32>"),
    ("text[]", "'{}'", [], "list<item: string>"),
    ("numeric(9, 1)[]", "array[1.5, null]", [Decimal("1.5"), None], "list<item: decimal128(9, 1)>"),
    ("uuid[]", f"array['{UUID}'::uuid]", [UUID], "list<item: string>"),
    ("mood[]", "array['fine']::mood[]", ["fine"], "list<item: string>"),
    ("timestamptz[]", "array['2024-01-01+00'::timestamptz]", [NEW_YEAR], "list<item: timestamp[us, tz=UTC]>"),
]  # fmt: skip


@pytest.fixture
def every_type(postgres: Server) -> Iterator[str]:
    columns = ", ".join(f"c{place} {kind}" for place, (kind, *_) in enumerate(TYPES))
    values = ", ".join(value for _, value, _, _ in TYPES)
    postgres.run(
        "DROP TABLE IF EXISTS every_type",
        "DROP TYPE IF EXISTS mood CASCADE",
        "DROP DOMAIN IF EXISTS cents CASCADE",
        "CREATE TYPE mood AS ENUM ('so so', 'fine')",
        "CREATE DOMAIN cents AS numeric(10, 2)",
        f"CREATE TABLE every_type (id int PRIMARY KEY, {columns})",
        f"INSERT INTO every_type VALUES (1, {values}), (2{', NULL' * len(TYPES)})",
    )
    yield "every_type"
    postgres.run("DROP TABLE every_type")


@pytest.mark.parametrize("copy", [True, False], ids=["in a stream", "without COPY"])
def test_types_are_kept(
    postgres: Server, every_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, copy: bool
) -> None:
    if not copy:
        monkeypatch.setattr(database, "POSTGRESQL", without_copy())
    carry_out(job(postgres, str(tmp_path), source__table=every_type))
    first, second = rows(str(tmp_path), "id")
    for place, (kind, _, wanted, parquet) in enumerate(TYPES):
        column = newest(str(tmp_path)).dataset().schema.field(f"c{place}")
        assert str(column.type).replace("element", "item") == parquet, kind
        assert second[f"c{place}"] is None, kind
        if kind != "money":  # how it is written depends on the server's locale
            assert first[f"c{place}"] == wanted, kind
    assert newest(str(tmp_path)).dataset().schema.field("c10").metadata[b"sql.type"] == b"numeric(18,2)"


def without_copy() -> database.Dialect:
    """PostgreSQL read as CockroachDB is: rows come as one answer."""
    told = database.POSTGRESQL
    return database.Dialect(told.name, False, told.versioned, told.samples, told.settings)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("'infinity'::timestamptz", "column `x` holds infinity"),
        ("'-infinity'::date", "column `x` holds infinity"),
        ("'24:00'::time", "column `x` holds 24:00"),
        ("'NaN'::numeric(5, 2)", "column `x` holds NaN or infinity"),
        ("0.1234567890123456789::numeric", "column `x` holds a number that decimal(38, 18) cannot hold exactly"),
        ("array[[1, 2], [3, 4]]", "column `x` holds an array of several dimensions"),
        ("'[2:3]={7,8}'::int[]", "column `x` holds an array of several dimensions, or one that does not begin at 1"),
    ],
)
def test_what_parquet_cannot_hold_is_refused(postgres: Server, tmp_path: Path, expression: str, said: str) -> None:
    with pytest.raises(JobError, match=r"spec\.source") as refused:
        carry_out(job(postgres, str(tmp_path), source__query=f"SELECT 1 AS id, {expression} AS x"))
    assert refused.value.reason is Reason.DATA_ERROR
    assert said in refused.value.message
    assert not list(tmp_path.rglob("*.parquet"))


def test_numeric_as_text(postgres: Server, tmp_path: Path) -> None:
    query = "SELECT 'NaN'::numeric AS x, array[1.50]::numeric[] AS y"
    carry_out(job(postgres, str(tmp_path), source__query=query, source__numeric="text"))
    assert rows(str(tmp_path)) == [{"x": "NaN", "y": ["1.50"]}]


def test_an_empty_table_keeps_its_columns(postgres: Server, tmp_path: Path) -> None:
    query = "SELECT 1 AS id, now() AS at WHERE false"
    outcome = carry_out(job(postgres, str(tmp_path), source__query=query, source__key=["id"]))
    assert outcome.report.result is not None
    assert outcome.report.result.rows == 0
    assert newest(str(tmp_path)).dataset().schema.names == ["id", "at"]


KEYS = {
    "int": "int8 PRIMARY KEY|i",
    "uuid": "uuid PRIMARY KEY|md5(i::text)::uuid",
    "text": "text PRIMARY KEY|concat('k''ey-', md5(i::text))",
    "timestamp": "timestamptz PRIMARY KEY|timestamptz '2024-01-01' + i * interval '1 microsecond'",
    "skewed": "float8 PRIMARY KEY|exp(i / 100.0)",
    "bytes": "bytea PRIMARY KEY|sha256(i::text::bytea)",
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.usefixtures("small_ranges")
def test_ranges_of_any_key(postgres: Server, tmp_path: Path, kind: str) -> None:
    declared, value = KEYS[kind].split("|")
    postgres.run(
        "DROP TABLE IF EXISTS keyed",
        f"CREATE TABLE keyed (k {declared}, n int)",
        f"INSERT INTO keyed SELECT {value}, i FROM generate_series(1, 8000) i",
    )
    carry_out(job(postgres, str(tmp_path), source__table="keyed", source__connections=3))
    assert Counter(row["n"] for row in rows(str(tmp_path), "n")) == Counter(range(1, 8001))
    sizes = [one["rows"] for one in newest(str(tmp_path)).report["files"] if "rows" in one]
    assert len(sizes) > 8
    assert max(sizes) < 8000 / len(sizes) * 2.5


@pytest.mark.usefixtures("small_ranges")
def test_ranges_of_several_columns_and_of_nothing(postgres: Server, tmp_path: Path) -> None:
    """Rows whose key is not known as a whole are read, and once."""
    postgres.run(
        "DROP TABLE IF EXISTS pairs",
        "CREATE TABLE pairs (a int, b text, n int)",
        "INSERT INTO pairs SELECT nullif(i % 7, 0), nullif('b' || i % 400, 'b5'), i FROM generate_series(1, 6000) i",
    )
    carry_out(job(postgres, str(tmp_path / "key"), source__table="pairs", source__key=["a", "b"]))
    assert [row["n"] for row in rows(str(tmp_path / "key"), "n")] == sorted(range(1, 6001), key=str)
    assert newest(str(tmp_path / "key")).report["source"]["ranges"] > 5
    carry_out(job(postgres, str(tmp_path / "none"), source__table="pairs"))
    assert len(rows(str(tmp_path / "none"), "n")) == 6000
    assert newest(str(tmp_path / "none")).report["source"]["ranges"] == 1


@pytest.mark.usefixtures("small_ranges")
def test_a_query_is_read_in_parallel_by_its_key(postgres: Server, entries: str, tmp_path: Path) -> None:
    query = f"SELECT id, upper(account) AS who FROM {entries} WHERE id <= 2000;"
    carry_out(job(postgres, str(tmp_path), source__query=query, source__key=["id"]))
    assert [row["id"] for row in rows(str(tmp_path), "id")] == sorted(range(1, 2001), key=str)
    assert newest(str(tmp_path)).report["source"]["ranges"] > 5


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("kind", ["partitioned table", "view", "materialized view"])
def test_what_else_is_a_table(postgres: Server, entries: str, tmp_path: Path, kind: str) -> None:
    body = "SELECT id, amount FROM entries"
    made = [f"CREATE {kind} other AS {body}"]
    if kind == "partitioned table":
        made = ["CREATE TABLE other (id int8 PRIMARY KEY, amount numeric(18, 2)) PARTITION BY HASH (id)"]
        for part in range(3):
            made.append(f"CREATE TABLE other_{part} PARTITION OF other FOR VALUES WITH (MODULUS 3, REMAINDER {part})")
        made.append(f"INSERT INTO other {body}")
    postgres.run(*made)
    try:
        carry_out(job(postgres, str(tmp_path), source__table="other", source__key=["id"]))
        assert plain(rows(str(tmp_path), "id")) == plain(answer(postgres, body, "id"))
        assert newest(str(tmp_path)).report["source"]["ranges"] > 3
    finally:
        postgres.run(f"DROP {kind.replace('partitioned ', '')} other")


def test_columns_filter_and_range(postgres: Server, entries: str, tmp_path: Path) -> None:
    made = job(
        postgres,
        str(tmp_path),
        source__table=f"public.{entries}",
        source__columns=["id", "posted"],
        source__filter="account = 'A-1' OR account = 'A-2'",
        source__range={"column": "posted", "start": "2023-01-01", "end": None},
    )
    carry_out(made)
    query = f"SELECT id, posted FROM {entries} WHERE account IN ('A-1', 'A-2') AND posted >= '2023-01-01'"
    assert rows(str(tmp_path), "id") == answer(postgres, query, "id")


def test_folders_of_months_are_columns_of_any_reader(postgres: Server, entries: str, tmp_path: Path) -> None:
    postgres.run(f"UPDATE {entries} SET posted = NULL WHERE id = 77")
    made = job(postgres, str(tmp_path), source__table=entries, partition={"by": "month", "column": "posted"})
    outcome = carry_out(made)
    assert outcome.report.result is not None
    whole = ds.dataset(f"{outcome.report.result.uri}/data", partitioning="hive")
    assert whole.count_rows() == 3000
    march = whole.to_table(filter=(ds.field("year") == 2023) & (ds.field("month") == 3))
    query = f"SELECT id FROM {entries} WHERE posted >= '2023-03-01' AND posted < '2023-04-01'"
    assert sorted(march["id"].to_pylist()) == sorted(row["id"] for row in answer(postgres, query))
    names = {one["path"].split("/")[1] for one in newest(str(tmp_path)).report["files"] if "rows" in one}
    assert names == {"year=2022", "year=2023", "year=2024", "year=__HIVE_DEFAULT_PARTITION__"}


@pytest.mark.usefixtures("small_ranges")
def test_buckets_of_entities_are_those_of_results_and_sorted(postgres: Server, entries: str, tmp_path: Path) -> None:
    partition = {"by": "entity", "column": "account", "buckets": 4}
    carry_out(job(postgres, str(tmp_path), source__table=entries, partition=partition))
    found = newest(str(tmp_path))
    assert len(found.paths) == 4
    for path in found.paths:
        table = pq.read_table(path, partitioning=None)
        accounts = table["account"].combine_chunks()
        assert set(bucket_of(accounts, 4).tolist()) == {int(path.split("bucket=")[1][:4])}
        pairs = list(zip(accounts.to_pylist(), table["id"].to_pylist(), strict=True))
        assert pairs == sorted(pairs)
    assert [row["id"] for row in rows(str(tmp_path), "id")] == sorted(range(1, 3001), key=str)


@pytest.mark.usefixtures("small_ranges")
def test_all_rows_are_of_one_moment(
    postgres: Server, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answer(postgres, f"SELECT * FROM {entries}", "id")
    read = Reading._read
    changed: list[int] = []

    def meddle(self: Reading, part: Any) -> Any:
        if not changed:
            changed.append(part.number)
            postgres.run(f"UPDATE {entries} SET amount = -1", f"DELETE FROM {entries} WHERE id % 3 = 0")
        return read(self, part)

    monkeypatch.setattr(Reading, "_read", meddle)
    carry_out(job(postgres, str(tmp_path), source__table=entries))
    assert plain(rows(str(tmp_path), "id")) == plain(before)


def plain(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose numbers are of one type: ADBC gives numerics as text."""
    return [{name: Decimal(value) if name == "amount" else value for name, value in row.items()} for row in found]


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("seed", range(4))
def test_a_killed_run_goes_on_and_is_the_table(
    postgres: Server, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """What was read stays if it is still true; ranges that have changed since are read again."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    made = job(
        postgres,
        str(tmp_path),
        source__table=entries,
        partition={"by": "year", "column": "posted"},
        source__connections=1,
    )
    write_done = State.write_done
    left = 0

    def mortal(self: State, done: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        write_done(self, done)

    monkeypatch.setattr(State, "write_done", mortal)
    for _ in range(4):
        left = chance.randrange(1, 12)
        with pytest.raises(Killed):
            carry_out(made, "the-run")
        postgres.run(*meddling(chance, entries))
    left = 10**6
    read_again = []
    read = Reading._read
    monkeypatch.setattr(Reading, "_read", lambda self, part: read_again.append(part.number) or read(self, part))
    carry_out(made, "the-run")
    assert plain(rows(str(tmp_path), "id")) == plain(answer(postgres, f"SELECT * FROM {entries}", "id"))
    told = newest(str(tmp_path)).report["source"]
    assert told["resumedRanges"] == told["ranges"] - len(read_again) > 0
    assert not list(tmp_path.glob("runs/*/.*"))


def meddling(chance: random.Random, table: str) -> list[str]:
    """A few changes: rows that come, go, change, and move to other keys; some undone, in a subtransaction."""
    at = chance.randrange(1, 3000)
    new = chance.randrange(10**6, 10**9)
    return chance.sample(
        [
            f"UPDATE {table} SET amount = 8, updated_at = clock_timestamp() WHERE id BETWEEN {at} AND {at + 2}",
            f"DELETE FROM {table} WHERE id = {at + 5}",
            f"INSERT INTO {table} VALUES ({new}, 'A-new', '2024-05-05', clock_timestamp(), 5)",
            f"UPDATE {table} SET id = -id, updated_at = clock_timestamp() WHERE id = {at + 9}",
            f"DO $$ BEGIN BEGIN UPDATE {table} SET amount = 3, updated_at = clock_timestamp() WHERE id = {at}; "
            "EXCEPTION WHEN others THEN NULL; END; END $$",
            "SELECT 1",
        ],
        chance.randrange(1, 4),
    )


@pytest.mark.usefixtures("small_ranges")
def test_changes_that_were_under_way_are_seen(
    postgres: Server, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that began before the first attempt, in a subtransaction, and is over only after it."""
    made = job(postgres, str(tmp_path), source__table=entries)
    with Session(Connection.parse(postgres.connection)) as writer:
        writer.run("BEGIN")
        writer.run(f"UPDATE {entries} SET amount = 1 WHERE id = 1")
        writer.run("SAVEPOINT one")
        writer.run(f"UPDATE {entries} SET amount = 2 WHERE id = 2999")
        monkeypatch.setattr(extracting, "_arranged", dying)
        with pytest.raises(Killed):
            carry_out(made, "the-run")
        writer.run("COMMIT")
    monkeypatch.undo()
    monkeypatch.setattr(relation, "RANGE_BYTES", 16 << 10)
    carry_out(made, "the-run")
    assert plain(rows(str(tmp_path), "id")) == plain(answer(postgres, f"SELECT * FROM {entries}", "id"))
    assert newest(str(tmp_path)).report["source"]["resumedRanges"] > 0


def test_parts_that_were_exchanged_are_other_rows(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row of them was written since, and they are as many."""
    postgres.run(
        "CREATE TABLE years (id int PRIMARY KEY, n int) PARTITION BY RANGE (id)",
        "CREATE TABLE year_1 PARTITION OF years FOR VALUES FROM (0) TO (100)",
        "INSERT INTO years SELECT i, 1 FROM generate_series(0, 99) i",
        "CREATE TABLE year_2 (LIKE years INCLUDING ALL)",
        "INSERT INTO year_2 SELECT i, 2 FROM generate_series(0, 99) i",
    )
    try:
        made = job(postgres, str(tmp_path), source__table="years")
        with monkeypatch.context() as patched:
            patched.setattr(extracting, "_arranged", dying)
            with pytest.raises(Killed):
                carry_out(made, "the-run")
        postgres.run(
            "ALTER TABLE years DETACH PARTITION year_1",
            "ALTER TABLE years ATTACH PARTITION year_2 FOR VALUES FROM (0) TO (100)",
        )
        carry_out(made, "the-run")
        assert {row["n"] for row in rows(str(tmp_path), "id")} == {2}
    finally:
        postgres.run("DROP TABLE IF EXISTS years, year_1, year_2")


def dying(*_: Any) -> Any:
    raise Killed


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("by", ["none", "month", "entity"])
def test_runs_by_watermark_are_the_table(postgres: Server, entries: str, tmp_path: Path, by: str) -> None:
    """New and changed rows replace those of their key, wherever these were; files without such a row stay."""
    chance = random.Random(by)  # noqa: S311 - no secret
    column = {"none": {}, "month": {"column": "posted"}, "entity": {"column": "account", "buckets": 8}}[by]
    watermark = {"column": "updated_at", "lagSeconds": 0}
    made = job(
        postgres, str(tmp_path), source__table=entries, partition={"by": by, **column}, source__watermark=watermark
    )
    carry_out(made)
    for turn in range(6):
        at = chance.randrange(1, 2500)
        postgres.run(
            f"UPDATE {entries} SET amount = {turn}, updated_at = clock_timestamp() WHERE id BETWEEN {at} AND {at + 4}",
            f"UPDATE {entries} SET posted = '2025-07-01', account = 'A-moved', updated_at = clock_timestamp() "
            f"WHERE id = {at + 9}",
            f"INSERT INTO {entries} VALUES ({10_000 + turn}, 'A-new', '2025-07-0{turn + 1}', clock_timestamp(), 1)",
        )
        outcome = carry_out(made)
        told = newest(str(tmp_path)).report
        assert outcome.report.result is not None
        assert outcome.report.result.scores == {"changed": told["source"]["changed"]}
        assert told["source"]["changed"] < 15
        assert told["extract"]["base"] is not None
        assert any(one["path"].startswith("../") for one in told["files"]), "nothing of the run before is used"
        assert plain(rows(str(tmp_path), "id")) == plain(answer(postgres, f"SELECT * FROM {entries}", "id"))
    carry_out(made)  # nothing has changed but what the watermark stands at
    assert plain(rows(str(tmp_path), "id")) == plain(answer(postgres, f"SELECT * FROM {entries}", "id"))


def test_a_key_of_two_columns_and_old_runs_that_go(postgres: Server, tmp_path: Path) -> None:
    """Files that a newer run goes on using outlive their run."""
    postgres.run(
        "DROP TABLE IF EXISTS lines",
        "CREATE TABLE lines (entry int, line text, version int NOT NULL, PRIMARY KEY (entry, line))",
        "INSERT INTO lines SELECT i / 4, 'l' || i % 4, 0 FROM generate_series(0, 3999) i",
    )
    watermark = {"column": "version", "lagSeconds": 0}
    partition = {"by": "entity", "column": "entry", "buckets": 16}
    made = job(
        postgres,
        str(tmp_path),
        source__table="lines",
        source__watermark=watermark,
        partition=partition,
        output__keepRuns=1,
    )
    for version in range(1, 5):
        carry_out(made)
        postgres.run(f"UPDATE lines SET version = {version} WHERE entry = {version} AND line IN ('l0', 'l3')")
    carry_out(made)
    assert rows(str(tmp_path), "entry", "line") == answer(postgres, "SELECT * FROM lines", "entry", "line")
    assert len(list(tmp_path.glob("runs/*/report.json"))) == 1
    assert any(one["path"].startswith("../") for one in newest(str(tmp_path)).report["files"])


def test_another_shape_is_read_anew(postgres: Server, entries: str, tmp_path: Path) -> None:
    watermark = {"column": "updated_at"}
    carry_out(job(postgres, str(tmp_path), source__table=entries, source__watermark=watermark))
    postgres.run(f"ALTER TABLE {entries} ADD COLUMN note text DEFAULT 'new'")
    carry_out(job(postgres, str(tmp_path), source__table=entries, source__watermark=watermark))
    assert newest(str(tmp_path)).report["extract"]["base"] is None
    assert {row["note"] for row in rows(str(tmp_path), "id")} == {"new"}


@pytest.mark.usefixtures("small_ranges")
def test_a_connection_that_breaks_is_replaced(
    postgres: Server, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[int] = []
    read = Reading._read

    def cut(self: Reading, part: Any) -> Any:
        if len(broken) < 3:
            broken.append(part.number)
            session = self.pool.session()
            ((pid,),) = session.rows("SELECT pg_backend_pid()")
            postgres.rows(f"SELECT pg_terminate_backend({pid})")
        return read(self, part)

    monkeypatch.setattr(Reading, "_read", cut)
    monkeypatch.setattr(reading.time, "sleep", lambda _: None)
    carry_out(job(postgres, str(tmp_path), source__table=entries))
    assert [row["id"] for row in rows(str(tmp_path), "id")] == sorted(range(1, 3001), key=str)
    assert len(broken) == 3


@pytest.mark.usefixtures("small_ranges")
def test_a_snapshot_that_is_lost_is_replaced(
    postgres: Server, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All connections are cut once, that of the snapshot too: the run goes on with another, and is what that sees."""
    cut: list[int] = []
    read = Reading._read

    def all_gone(self: Reading, part: Any) -> Any:
        if part.number == 3 and not cut:
            cut.append(part.number)
            postgres.run(f"UPDATE {entries} SET amount = 5 WHERE id = 1")
            postgres.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'almanac'")
        return read(self, part)

    monkeypatch.setattr(Reading, "_read", all_gone)
    monkeypatch.setattr(reading.time, "sleep", lambda _: None)
    carry_out(job(postgres, str(tmp_path), source__table=entries, source__connections=1))
    assert plain(rows(str(tmp_path), "id")) == plain(answer(postgres, f"SELECT * FROM {entries}", "id"))
    assert newest(str(tmp_path)).report["source"]["resumedRanges"] > 0


REFUSED: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "no such table": ({"source__table": "nowhere"}, Reason.SOURCE_NOT_FOUND, "there is no table `nowhere`"),
    "no name": ({"source__table": "a b c"}, Reason.INVALID_SPEC, "invalid name syntax"),
    "no such column": ({"source__columns": ["id", "nope"]}, Reason.DATA_ERROR, 'column "nope" does not exist'),
    "no such key": ({"source__key": ["nope"]}, Reason.DATA_ERROR, 'column "nope" does not exist'),
    "no such time": (
        {"partition": {"by": "month", "column": "nope"}},
        Reason.DATA_ERROR,
        "spec.partition.column: there is no column `nope`",
    ),
    "no time": ({"partition": {"by": "month", "column": "account"}}, Reason.DATA_ERROR, "`account` is string"),
    "no entity": ({"partition": {"by": "entity", "column": "amount"}}, Reason.DATA_ERROR, "`amount` is decimal128"),
    "filter": ({"source__filter": "amount >"}, Reason.INVALID_SPEC, "syntax error"),
    "query": ({"source__query": "DELETE FROM entries"}, Reason.INVALID_SPEC, "syntax error"),
    "writing": (
        {"source__query": "SELECT nextval('numbers') AS id"},
        Reason.INVALID_SPEC,
        "cannot execute nextval() in a read-only transaction",
    ),
    "no number": ({"source__filter": "account::int > 1"}, Reason.DATA_ERROR, "invalid input syntax for type integer"),
    "two names": ({"source__query": "SELECT 1 AS a, 2 AS a"}, Reason.DATA_ERROR, "two columns `a`"),
    "no watermark": (
        {"source__watermark": {"column": "account"}},
        Reason.DATA_ERROR,
        "watermarks are timestamps, dates or integers",
    ),
    "no primary key": (
        {"source__table": "keyless", "source__watermark": {"column": "n"}},
        Reason.INVALID_SPEC,
        "`keyless` has no primary key",
    ),
    "a key of several rows": (
        {"source__key": ["account"], "source__watermark": {"column": "updated_at"}},
        Reason.DATA_ERROR,
        "spec.source.key: `account` is that of several rows",
    ),
    "a key that is null": (
        {"source__table": "keyless", "source__key": ["n"], "source__watermark": {"column": "n"}},
        Reason.DATA_ERROR,
        "spec.source.key: `n` is null in some rows",
    ),
    "folder is a column": (
        {"source__query": "SELECT now() AS t, 2024 AS year", "partition": {"by": "year", "column": "t"}},
        Reason.DATA_ERROR,
        "the table has a column `year`",
    ),
    "no database": ({"source__connection__database": "nowhere"}, Reason.SOURCE_NOT_FOUND, "connection.database"),
    "no role": ({"source__connection__user": "nobody"}, Reason.ACCESS_DENIED, 'role "nobody" does not exist'),
    "no server": ({"source__connection__port": 1}, Reason.SOURCE_UNAVAILABLE, "Connection refused"),
    "no host": ({"source__connection__host": "nowhere.invalid"}, Reason.SOURCE_UNAVAILABLE, "nowhere.invalid"),
    "no SSL": ({"source__connection__sslmode": "require"}, Reason.SOURCE_UNAVAILABLE, "server does not support SSL"),
    "no rights": ({"source__connection__user": "stranger"}, Reason.ACCESS_DENIED, "permission denied for table"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_one_clear_error(
    postgres: Server, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    postgres.run(
        "CREATE TABLE IF NOT EXISTS keyless (n int)",
        "INSERT INTO keyless VALUES (NULL)",
        "CREATE SEQUENCE IF NOT EXISTS numbers",
        "DO $$ BEGIN CREATE ROLE stranger LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    )
    monkeypatch.setattr(extracting.time, "sleep", lambda _: None)
    fields, reason, said = REFUSED[case]
    given = {"source__table": entries} if "source__query" not in fields else {}
    made = job(postgres, str(tmp_path), **{**given, **fields})
    with pytest.raises(JobError) as refused:
        carry_out(made)
    assert refused.value.reason is reason
    assert refused.value.message.startswith("spec."), refused.value.message
    assert said in refused.value.message
    assert "\n" not in refused.value.message
    assert not list(tmp_path.rglob("latest.json"))


def test_a_wrong_password_is_no_secret_and_no_mystery(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hba = postgres.folder / "data" / "pg_hba.conf"
    before = hba.read_text()
    postgres.run("DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN PASSWORD 'right'")
    hba.write_text(f"host all reader all scram-sha-256\n{before}")
    try:
        postgres.run("SELECT pg_reload_conf()")
        made = job(postgres, str(tmp_path), source__query="SELECT 1 AS x", source__connection__user="reader")
        monkeypatch.setenv("PGPASSWORD", "hunter2")
        with pytest.raises(JobError, match="password authentication failed") as refused:
            carry_out(made)
        assert refused.value.exit_code is ExitCode.ACCESS_DENIED
        assert "hunter2" not in refused.value.message
        monkeypatch.setenv("PGPASSWORD", "right")
        carry_out(made)
        assert "right" not in (Path(newest(str(tmp_path)).folder.path) / "report.json").read_text()
    finally:
        hba.write_text(before)
        postgres.run("SELECT pg_reload_conf()")


def test_without_copy_none_is_sent(
    postgres: Server, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CockroachDB has no binary COPY: what is sent to it, PostgreSQL takes as well."""
    monkeypatch.setattr(database, "POSTGRESQL", without_copy())
    monkeypatch.setattr(relation, "RANGE_BYTES", 16 << 10)
    before = len(postgres.log)
    carry_out(job(postgres, str(tmp_path), source__table=entries))
    said = postgres.log[before:]
    assert 'FROM "public"."entries"' in said
    assert "COPY" not in said
    assert plain(rows(str(tmp_path), "id")) == plain(answer(postgres, f"SELECT * FROM {entries}", "id"))


def test_what_is_said_to_cockroachdb() -> None:
    snapshot = database.Snapshot("1700000000000000000.0000000000", 0, 0, "", "2024-01-01")
    begun = COCKROACHDB.begin(snapshot)
    assert begun[0] == "BEGIN AS OF SYSTEM TIME '1700000000000000000.0000000000'"
    assert COCKROACHDB.begin(None)[0] == "BEGIN READ ONLY"
    assert not COCKROACHDB.copy
    assert not any("jit" in one or "SNAPSHOT" in one for one in begun)


def test_the_same_table_gives_the_same_checksum(postgres: Server, entries: str, tmp_path: Path) -> None:
    made = [
        job(postgres, str(tmp_path / name), source__table=entries, source__filter="id < 999") for name in ("a", "b")
    ]
    sums = {outcome.report.result.checksum for outcome in map(carry_out, made) if outcome.report.result}
    assert len(sums) == 1


def test_into_an_object_store(postgres: Server, entries: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And with a store that fails now and then, in the middle."""
    with S3Server() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        store.make_bucket("lake")
        monkeypatch.setattr(relation, "RANGE_BYTES", 16 << 10)
        partition = {"by": "year", "column": "posted"}
        watermark = {"column": "updated_at", "lagSeconds": 0}
        made = job(postgres, "s3://lake/raw", source__table=entries, partition=partition, source__watermark=watermark)
        carry_out(made)
        postgres.run(f"UPDATE {entries} SET amount = 9, updated_at = now() WHERE id = 5")
        store.faults.append(Fault(lambda method, path: method == "PUT" and "part-" in path, status=503))
        carry_out(made)
        assert plain(rows("s3://lake/raw", "id")) == plain(answer(postgres, f"SELECT * FROM {entries}", "id"))


@cell(
    Group.STORAGE,
    "The disk for temporary files is full (ENOSPC), where an ExtractJob writes files for a store",
    Moment.WRITING,
    "StorageFull, tried again; it names the local disk. Tried again, the data set is the table.",
)
def test_files_for_a_store_without_room_on_the_way(
    postgres: Server, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with S3Server() as store, disks.mounted(tmp_path / "disk", "4m") as disk:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        store.make_bucket("lake")
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        made = job(postgres, "s3://lake/raw", source__table=entries)
        words = rf"spec\.output\.uri: no space is left on the local disk to write `{disk}/"
        with disks.filled(disk), pytest.raises(JobError, match=words) as caught:
            carry_out(made, "one")
        assert caught.value.reason is Reason.STORAGE_FULL
        assert "raw/latest.json" not in store.keys("lake")
        carry_out(made, "one")
        assert plain(rows("s3://lake/raw", "id")) == plain(answer(postgres, f"SELECT * FROM {entries}", "id"))


def test_a_failure_that_may_pass_leaves_what_was_read(
    postgres: Server, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job(postgres, str(tmp_path), source__table=entries)
    monkeypatch.setattr(extracting, "_arranged", lambda *_: _raise(JobError(Reason.STORAGE_FULL, "full")))
    with pytest.raises(JobError, match="full"):
        carry_out(made, "one")
    assert list(tmp_path.glob("runs/one/.state/range-*.json"))
    monkeypatch.setattr(extracting, "_arranged", lambda *_: _raise(JobError(Reason.DATA_ERROR, "bad")))
    with pytest.raises(JobError, match="bad"):
        carry_out(made, "one")
    assert not (tmp_path / "runs/one").exists()


def _raise(error: Exception) -> Any:
    raise error


def test_memory_is_asked_for_before_buckets_are_sorted(
    postgres: Server, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("almanac_jobs.extract.arranging.memory_limit", lambda: 1000)
    with pytest.raises(JobError, match=r"spec.partition.buckets: .* write a larger power of two"):
        carry_out(
            job(
                postgres,
                str(tmp_path),
                source__table=entries,
                partition={"by": "entity", "column": "account", "buckets": 1},
            )
        )


def test_look_and_sample_write_nothing(postgres: Server, entries: str, tmp_path: Path) -> None:
    from almanac_jobs import run
    from almanac_jobs.progress import Progress
    from almanac_jobs.report.extract import Preview

    made = job(postgres, str(tmp_path / "out"), source__table=entries)
    look = run.look(made)
    assert 2500 < look.footprint.rows < 3500
    shown = run.sample(made, Progress())
    assert isinstance(shown, Preview)
    assert [row["id"] for row in shown.rows] == [1, 2, 3, 4, 5]
    assert shown.columns[4] == ("amount", "numeric(18,2)", "decimal128(18, 2)")
    assert not (tmp_path / "out").exists()
