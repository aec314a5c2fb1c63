"""One range of a relation, from the database to files: what several connections do side by side.

All connections see one snapshot. A range that an earlier attempt has done under another snapshot counts if it holds the
same in this one, which PostgreSQL's rows tell: each says by which transaction it was written. A row that was written
since is of a transaction that was not over in the old snapshot. If there is none in the range, all its rows were there
before; if there are as many as were read, none has gone since: they are the same rows.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from almanac.api import Connection, JobError, Reason
from almanac_jobs.extract import database
from almanac_jobs.extract.database import Dialect, Session, Snapshot
from almanac_jobs.extract.files import Writer
from almanac_jobs.extract.folders import Folders
from almanac_jobs.extract.relation import KeyRange, Relation
from almanac_jobs.extract.state import Done, State
from almanac_jobs.progress import Progress
from almanac_jobs.storage import Location

ATTEMPTS = 5
"""Times that a range is read, with growing pauses, as long as another connection may do better."""
XIDS = 1 << 32
"""Transactions after which their numbers in rows begin anew."""


@dataclass(slots=True)
class Pool:
    """Connections to one snapshot, one for each thread."""

    connection: Connection
    dialect: Dialect
    snapshot: Snapshot
    _own: threading.local = field(default_factory=threading.local)
    _all: list[Session] = field(default_factory=list)

    def session(self) -> Session:
        """The connection of this thread.

        Raises:
            JobError: SourceUnavailable, also if the snapshot is there no more.
        """
        found: Session | None = getattr(self._own, "session", None)
        if found is None:
            found = Session(self.connection, self.dialect)
            try:
                found.begin(self.snapshot)
            except JobError as error:
                found.close()
                gone = f"{database.FIELD}: the snapshot that this run reads is gone ({error.message}): run it again"
                raise error if database.lost(error) else JobError(Reason.SOURCE_UNAVAILABLE, gone) from error
            self._own.session = found
            self._all.append(found)
        return found

    def drop(self) -> None:
        """Give up the connection of this thread."""
        found: Session | None = getattr(self._own, "session", None)
        if found is not None:
            found.close()
            self._own.session = None

    def close(self) -> None:
        """End all connections."""
        for session in self._all:
            with suppress(Exception):
                session.close()


@dataclass(frozen=True, slots=True)
class Reading:
    """What is done with every range. `watermark` is a column whose highest value is wanted."""

    pool: Pool
    relation: Relation
    folders: Folders
    run: Location
    scratch: Path
    state: State
    watermark: str | None
    progress: Progress
    going: Progress
    """Asked whether to go on: it stops with the others that read from this snapshot."""
    pause: Callable[[float], None] = time.sleep

    def __call__(self, part: KeyRange, before: Done | None) -> Done:
        """Read a range, unless `before` is still true; what it gives is remembered.

        Raises:
            JobError: whatever a person can mend, once `ATTEMPTS` have failed where trying again may help.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                done = self._same(before) if before else None
                done = done or self._read(part)
                self.state.write_done(done)
                return done
            except JobError as error:
                self.pool.drop()
                if attempt == ATTEMPTS or not database.lost(error):
                    raise
            self.going.check()
            self.pause(min(2.0 ** (attempt - 1), 10.0))
        raise AssertionError  # the last attempt has returned or raised

    def _same(self, before: Done) -> Done | None:
        """What was done, if it is true of this snapshot."""
        now, then = self.pool.snapshot, before.snapshot
        if (now.id, now.time) == (then.id, then.time):
            self.progress.advance(before.rows)
            return before
        if not (self.relation.table and self.pool.dialect.versioned and now.system and now.system == then.system):
            return None
        written = f"mod(xmin::text::int8 - {then.low % XIDS} + {XIDS}, {XIDS}) < {now.high - then.low}"
        query = f"SELECT count(*), count(*) FILTER (WHERE {written}) FROM {self.relation.sql}{self.relation.where(before.range)}"  # noqa: E501
        ((rows, since),) = self.pool.session().rows(query)
        if since or rows != before.rows:
            return None
        self.progress.advance(before.rows)
        return replace(before, snapshot=now)

    def _read(self, part: KeyRange) -> Done:
        name = f"part-{part.number:05d}.{mark(self.pool.snapshot)}.parquet"
        schema = self.relation.columns.schema
        writer = Writer(self.run, self.scratch, schema, self.folders, name)
        highest = Highest(self.watermark)
        apart = Apart(self.relation.key if self.watermark else ())
        rows = 0
        try:
            for batch in self._batches(part):
                writer.write(batch)
                highest.see(batch)
                apart.see(batch)
                rows += batch.num_rows
                self.progress.advance(batch.num_rows)
                self.going.check()
        except JobError:
            writer.discard()
            self.progress.advance(-rows)  # they are read again, or the run ends
            raise
        return Done(part, rows, tuple(writer.close()), highest.text, self.pool.snapshot)

    def _batches(self, part: KeyRange) -> Iterator[pa.RecordBatch]:
        columns = self.relation.columns
        for batch in self.pool.session().batches(self.relation.select(part)):
            yield columns.convert(batch)


class Highest:
    """The highest value of a column, as text of SQL."""

    def __init__(self, column: str | None) -> None:
        self._column = column
        self._value: pa.Scalar | None = None

    def see(self, batch: pa.RecordBatch) -> None:
        """Look at some rows."""
        if self._column is None:
            return
        found = pc.max(batch.column(batch.schema.get_field_index(self._column)))
        if found.is_valid and (self._value is None or pc.greater(found, self._value).as_py()):
            self._value = found

    @property
    def text(self) -> str | None:
        """The highest so far; None if there was none."""
        return None if self._value is None else self._value.cast(pa.string()).as_py()


class Apart:
    """Refuses rows whose key is that of another one, or not known as a whole: they could not be replaced.

    Rows come in the order of their key, and those of one key are in one range.
    """

    def __init__(self, key: tuple[str, ...]) -> None:
        self._key = key
        self._last: pa.RecordBatch | None = None

    def see(self, batch: pa.RecordBatch) -> None:
        """Look at the next rows.

        Raises:
            JobError: DataError.
        """
        if not self._key or not batch.num_rows:
            return
        keys = batch.select(list(self._key))
        if any(column.null_count for column in keys.columns):
            self._refuse("is null in some rows")
        ends = [self._last] if self._last is not None else []
        rows = pa.Table.from_batches([*ends, keys])
        same = [pc.equal(column.slice(1), column.slice(0, len(rows) - 1)) for column in rows.columns]
        alike = same[0]
        for one in same[1:]:
            alike = pc.and_(alike, one)
        if pc.any(alike).as_py():
            self._refuse("is that of several rows")
        self._last = keys.slice(keys.num_rows - 1)

    def _refuse(self, why: str) -> NoReturn:
        names = ", ".join(f"`{name}`" for name in self._key)
        raise JobError(
            Reason.DATA_ERROR,
            f"spec.source.key: {names} {why}, and with a watermark rows are replaced by it: name the columns that tell "
            "rows apart",
        )


def mark(snapshot: Snapshot) -> str:
    """What tells files of one snapshot from those of another, which a process that was given up may still write."""
    return hashlib.sha256(f"{snapshot.system} {snapshot.id} {snapshot.time}".encode()).hexdigest()[:8]
