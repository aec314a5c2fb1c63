"""Connections to PostgreSQL and CockroachDB by libpq (ADBC), one snapshot for all of them, and errors in words.

What the job leaves open comes from libpq's environment variables. Sessions only read, tell time in UTC and write values
in forms that do not depend on anybody's settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlencode

import adbc_driver_manager as adbc
import adbc_driver_postgresql.dbapi as driver
import pyarrow as pa

from almanac.api import Connection, JobError, Reason

FIELD = "spec.source.connection"
CONNECT_TIMEOUT = 10
"""Seconds that a server gets to accept a connection."""
BATCH_BYTES = 4 << 20
"""Bytes of a batch of rows, about."""
_COPY, _BATCH = "adbc.postgresql.use_copy", "adbc.postgresql.batch_size_hint_bytes"

_SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "iso_8601",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_POSTGRESQL = {
    "jit": "off",
    "synchronize_seqscans": "off",
    "lock_timeout": "0",
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the databases that speak PostgreSQL's protocol."""

    name: str
    copy: bool
    """Rows come by COPY in a stream. CockroachDB has no binary COPY: its rows come as one answer."""
    versioned: bool
    """Rows tell by which transaction they were written (xmin)."""
    samples: bool
    """There is TABLESAMPLE."""
    settings: dict[str, str]

    def begin(self, snapshot: Snapshot | None) -> list[str]:
        """Statements that begin a transaction: at a snapshot, or at what is there now, for a snapshot of its own."""
        if self.versioned:
            begun = ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"]
            adopted = [f"SET TRANSACTION SNAPSHOT {literal(snapshot.id)}"] if snapshot else []
        else:
            begun = [f"BEGIN AS OF SYSTEM TIME {literal(snapshot.id)}" if snapshot else "BEGIN READ ONLY"]
            adopted = []
        return [*begun, *adopted, *(f"SET LOCAL {name} = {literal(value)}" for name, value in self.settings.items())]


POSTGRESQL = Dialect("PostgreSQL", True, True, True, {**_SETTINGS, **_POSTGRESQL})
COCKROACHDB = Dialect("CockroachDB", False, False, False, _SETTINGS)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the database that many connections see.

    `id` is what a connection adopts it by. Every transaction below `low` is over in it, and none from `high` on is
    begun; `system` says which database these numbers are of, as far as it tells.
    """

    id: str
    low: int
    high: int
    system: str
    time: str
    """When it was taken, ISO 8601 in UTC."""


class Session:
    """One connection. Errors of the database are `JobError`s; `snapshot` is what its transaction sees."""

    def __init__(self, connection: Connection, dialect: Dialect | None = None) -> None:
        """Connect.

        Raises:
            JobError: SourceUnavailable, AccessDenied, or SourceNotFound for a database that there is not.
        """
        try:
            self._connection = driver.connect(uri(connection), autocommit=True)
        except adbc.Error as error:
            raise _not_connected(error) from error
        try:
            self.dialect = dialect or _dialect(self)
        except BaseException:
            self.close()
            raise

    def begin(self, snapshot: Snapshot | None = None) -> None:
        """Begin a transaction: see `Dialect.begin`."""
        for statement in self.dialect.begin(snapshot):
            self.run(statement)

    def snapshot(self) -> Snapshot:
        """The state that this session's transaction sees, for others to adopt as long as it lasts."""
        if not self.dialect.versioned:
            ((clock, now),) = self.rows("SELECT cluster_logical_timestamp()::text, now()::timestamptz::text")
            return Snapshot(clock, 0, 0, "", now)
        ((exported, low, high, now),) = self.rows(
            "SELECT pg_export_snapshot(), txid_snapshot_xmin(txid_current_snapshot()), "
            'txid_snapshot_xmax(txid_current_snapshot()), to_char(now(), \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\')'
        )
        return Snapshot(exported, low, high, self._system(), now)

    def _system(self) -> str:
        """Which server this is, and how often it was restored or promoted; numbers of others mean something else."""
        self.run("SAVEPOINT identity")
        try:
            ((system, timeline, database),) = self.rows(
                "SELECT (SELECT system_identifier::text FROM pg_control_system()), "
                "(SELECT timeline_id::text FROM pg_control_checkpoint()), current_database()"
            )
        except JobError:  # some services keep that to themselves: a run is never resumed on a doubt
            self.run("ROLLBACK TO SAVEPOINT identity")
            return ""
        return f"{system}/{timeline}/{database}"

    def run(self, sql: str) -> None:
        """Carry out a statement that has no rows."""
        with self._cursor() as cursor:
            cursor.execute(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a small answer."""
        with self._cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def schema(self, sql: str) -> pa.Schema:
        """The columns that a query has, with what the database calls their types as metadata."""
        with self._cursor() as cursor:
            return cursor.adbc_execute_schema(sql)

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of a query, in batches. On PostgreSQL they come as they are read; else memory holds them all."""
        with self._cursor(copy=self.dialect.copy) as cursor:
            cursor.execute(sql)
            reader = cursor.fetch_record_batch()
            yield from reader

    @contextmanager
    def _cursor(self, *, copy: bool = False) -> Iterator[Any]:
        cursor = self._connection.cursor()
        try:
            options = {_COPY: "true" if copy else "false"} | ({_BATCH: str(BATCH_BYTES)} if copy else {})
            cursor.adbc_statement.set_options(**options)
            yield cursor
        except (adbc.Error, pa.ArrowException, OSError) as error:
            raise refusal(error) from error
        finally:
            with suppress(Exception):
                cursor.close()

    def close(self) -> None:
        """End the connection; its transaction ends with it."""
        with suppress(Exception):
            self._connection.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def uri(connection: Connection) -> str:
    """What libpq connects to. It takes what is not here from its environment."""
    told = {
        "host": connection.host,
        "port": connection.port,
        "dbname": connection.database,
        "user": connection.user,
        "sslmode": connection.sslmode,
        "application_name": "almanac",
        "connect_timeout": CONNECT_TIMEOUT,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    return f"postgresql:///?{urlencode({name: value for name, value in told.items() if value})}"


def _dialect(session: Session) -> Dialect:
    session.dialect = COCKROACHDB  # asks without COPY, until it is known that there is one
    ((version,),) = session.rows("SELECT version()")
    return COCKROACHDB if str(version).startswith("CockroachDB") else POSTGRESQL


def literal(text: str) -> str:
    """A text as SQL has it."""
    if "\0" in text:
        raise JobError(Reason.INVALID_SPEC, f"spec.source: `{text!r}` holds a zero byte, which SQL cannot have")
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """The name of a column or a table as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def identifiers(names: Sequence[str]) -> str:
    """Names of columns, as a list of SQL's."""
    return ", ".join(map(identifier, names))


_REASONS = (
    (r"28...|42501", Reason.ACCESS_DENIED, "{said}: check the role, its password and its rights (SELECT is enough)"),
    (r"42P01|3F000|3D000", Reason.SOURCE_NOT_FOUND, "{said}: check spec.source.table and spec.source.query"),
    (r"42703", Reason.DATA_ERROR, "{said}: check the columns that spec.source and spec.partition name"),
    (r"42...|0A000|25006", Reason.INVALID_SPEC, "{said}: check spec.source"),
    (r"22...", Reason.DATA_ERROR, "{said}: check spec.source"),
    (r"08...|57P..|53...|57014|40...|55P03|58...|XX...", Reason.SOURCE_UNAVAILABLE, "{said}: try again"),
)
"""What states of SQL (SQLSTATE) mean for a run, the first that fits."""
_CONNECTING = (
    (r"password|authentication|no pg_hba|role .* does not exist|permission|not permitted", "28000"),
    (r"database .* does not exist", "3D000"),
    (r"could not translate host name", "08001"),
)
_READING = (
    (r"read-only transaction", "25006"),
    (r"terminating connection|canceling statement|closed the connection|shut(ting)? down|could not receive", "57P01"),
    (r"permission denied", "42501"),
)
"""What is said in the middle of a stream, where ADBC does not tell the state."""


def refusal(error: Exception) -> JobError:
    """An error of the database, or of its connection, as one that a person can do something about."""
    said = _said(error)
    state = getattr(error, "sqlstate", None) or next((one for words, one in _READING if re.search(words, said)), "")
    unknown = "22000" if isinstance(error, pa.ArrowInvalid) else "08006"
    return _classified(state or unknown, "spec.source", said)


def _not_connected(error: Exception) -> JobError:
    said = _said(error)
    state = getattr(error, "sqlstate", None)
    guessed = next((one for words, one in _CONNECTING if re.search(words, said)), "08001")
    refused = _classified(state or guessed, FIELD, said)
    if refused.reason is Reason.SOURCE_UNAVAILABLE:
        words = f"{FIELD}: the database cannot be reached: {said}: check host, port and sslmode, or try again"
        return JobError(Reason.SOURCE_UNAVAILABLE, words)
    if refused.reason is Reason.SOURCE_NOT_FOUND:
        return JobError(Reason.SOURCE_NOT_FOUND, f"{FIELD}.database: {said}: check the name")
    return JobError(
        refused.reason, f"{FIELD}: {said}: check user, and the password of the Secret (PGPASSWORD) or of ~/.pgpass"
    )


def _classified(state: str, field: str, said: str) -> JobError:
    for pattern, reason, words in _REASONS:
        if re.fullmatch(pattern, state):
            return JobError(reason, f"{field}: {words.format(said=said)}")
    return JobError(Reason.SOURCE_UNAVAILABLE, f"{field}: {said}: try again")


def lost(error: JobError) -> bool:
    """Whether another connection may do better."""
    return error.reason is Reason.SOURCE_UNAVAILABLE


def _said(error: Exception) -> str:
    """What the server, or libpq, has to say, on one line: without what ADBC puts around it, and without the query."""
    text = str(error)
    found = re.search(r"(?:ERROR|FATAL|PANIC): +(.*?)(?:\n|\. SQLSTATE|$)", text, re.DOTALL)
    if found:
        return found[1].strip().rstrip(".")
    text = re.split(r"\n\s*Query was|\. SQLSTATE", text)[0]
    text = re.sub(r"^[A-Z_]+: *(\[libpq\] *)?(Failed to connect: *)?", "", text)
    return " ".join(text.split()).rstrip(".") or "the connection was lost"


def unsupported(name: str, why: str, what: str) -> NoReturn:
    """Refuse a column."""
    raise JobError(Reason.DATA_ERROR, f"spec.source: column `{name}` {why}: {what}")
