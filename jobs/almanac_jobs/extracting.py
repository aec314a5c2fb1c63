"""What an ExtractJob does in a run: plan, read ranges of keys in parallel, merge with what was there, arrange."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from almanac.api import Engine, ExtractJob, ExtractSpec, JobError, Reason
from almanac_jobs import artefacts, objects
from almanac_jobs.choice import Choice, Footprint
from almanac_jobs.engines.local import map_unordered
from almanac_jobs.extract import database, folders
from almanac_jobs.extract.arranging import KEYS, Arranging, referred
from almanac_jobs.extract.columns import Columns
from almanac_jobs.extract.database import Session, Snapshot, identifier, literal
from almanac_jobs.extract.files import DATA, File, scratch, written
from almanac_jobs.extract.folders import Folders
from almanac_jobs.extract.reading import Pool, Reading, mark
from almanac_jobs.extract.relation import KeyRange, Relation, describe, ranges
from almanac_jobs.extract.state import Done, Plan, State
from almanac_jobs.progress import Progress
from almanac_jobs.report.extract import ExtractData, Preview, render
from almanac_jobs.reporting import Circumstances
from almanac_jobs.resources import memory_limit, usable_cores
from almanac_jobs.task import Look, Made, Task

CONNECTIONS = 8
"""Connections at most where the job does not say how many; fewer where cores or half of the memory allow fewer."""
ATTEMPTS = 3
"""Snapshots that a run tries: one is lost with the connection that holds it."""
THREAD_BYTES = 192 << 20
"""Memory that a connection takes at most, with what it reads and writes."""
SAMPLED = 5
"""Rows of a sample."""


@dataclass(frozen=True, slots=True)
class Base:
    """The run that this one goes on from: its files, and the highest value of the watermark in it."""

    run: str
    files: tuple[File, ...]
    highest: str


@dataclass(frozen=True, slots=True)
class Read:
    """All that a run has read. `base` is what it is to be merged with."""

    relation: Relation
    dialect: str
    snapshot: Snapshot
    base: Base | None
    done: tuple[Done, ...]
    resumed: int
    """Ranges that an earlier attempt had read, and that are still true."""

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.done)

    @property
    def files(self) -> list[File]:
        return [file for one in self.done for file in one.files]

    @property
    def highest(self) -> str | None:
        """The highest value of the watermark. All values are written the same way, of one type, but for length."""
        found = [one.highest for one in self.done if one.highest is not None]
        found += [self.base.highest] if self.base else []
        return max(found, key=_rank, default=None)


def carry_out(job: ExtractJob, task: Task) -> Made[ExtractData]:
    """Do all of a run but publishing it. What is read stays when the run fails and may be tried again.

    Raises:
        JobError: whatever a person can mend.
    """
    task.begun = task.resumable = True
    task.choice = task.progress.choice = Choice(Engine.LOCAL, "a database is read by the connections of one process")
    with scratch(task.writer.folder) as place:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                read = _read(job.spec, task, place)
                break
            except JobError as error:
                if attempt == ATTEMPTS or not database.lost(error):
                    raise
            task.progress.check()
            time.sleep(attempt)
        files = _arranged(job.spec, task, place, read)
    columns = read.relation.columns
    if not files:
        path = f"{DATA}/part-00000.parquet"
        files = [File(path, *written(task.writer.folder / path, columns.schema), 0)]
    task.writer.register({file.path: _entry(file) for file in files})
    task.progress.start("report")
    circumstances = Circumstances(**task.circumstances())
    facts = _Facts(circumstances, job, read, files)
    page = _page(facts)
    return Made(page, render(page), _record(facts))


def sample(job: ExtractJob, progress: Progress) -> Preview:
    """Read the first rows, and write nothing.

    Raises:
        JobError: as `carry_out` does.
    """
    progress.start("read", unit="rows")
    with Session(job.spec.source.connection) as session:
        session.begin()
        relation = _described(session, job.spec)
        query = f"{relation.select(KeyRange(0))} LIMIT {SAMPLED}"
        rows = [row for batch in session.batches(query) for row in relation.columns.convert(batch).to_pylist()]
    progress.finish()
    columns = tuple((one.name, one.declared, str(one.type)) for one in relation.columns.columns)
    return Preview(_called(job.spec), relation.key, columns, tuple(rows))


def look(job: ExtractJob) -> Look:
    """What there is to read: ranges in place of files.

    Raises:
        JobError: as `carry_out` does.
    """
    connections = _connections(job.spec)
    with Session(job.spec.source.connection) as session:
        session.begin()
        relation = _described(session, job.spec)
        parts, rows = ranges(session, relation, connections)
    return Look(len(parts), relation.bytes, _footprint(relation, rows, connections), memory_limit(), ())


def _footprint(relation: Relation, rows: int | None, connections: int) -> Footprint:
    return Footprint(rows or 0, len(relation.columns.columns), relation.bytes, connections * THREAD_BYTES)


def _connections(spec: ExtractSpec) -> int:
    """Connections that read at a time: as many as there is memory for, where the job does not say."""
    return spec.source.connections or max(1, min(usable_cores(), CONNECTIONS, memory_limit() // 2 // THREAD_BYTES))


def _called(spec: ExtractSpec) -> str:
    """What is read, for people."""
    return spec.source.relation or "a query"


def _described(session: Session, spec: ExtractSpec) -> Relation:
    relation = describe(session, spec.source)
    folders.check(spec.partition, relation)
    if spec.source.watermark is not None:
        _moment(relation, spec, "0")
    return relation


def _read(spec: ExtractSpec, task: Task, place: Any) -> Read:
    """Read all ranges that are not read yet, under one snapshot."""
    progress, run = task.progress, task.writer.folder
    state = State(run)
    progress.start("plan")
    with Session(spec.source.connection) as holder:
        earlier = state.plan()
        snapshot = _begun(holder, earlier)
        relation = _described(holder, spec)
        shape = _shape(spec, relation.columns)
        base = _base(task, shape)
        part = relation
        if base is not None:
            part = relation.since(_moment(relation, spec, base.highest))
        plan = Plan(
            shape,
            f"{' '.join(relation.oids)} {relation.sql}",
            base.run if base else None,
            base.highest if base else None,
            (),
            None,
            snapshot,
        )
        before: dict[int, Done] = {}
        if earlier is not None and earlier.fits(plan):
            before = _there(task, state.done())
            plan = replace(plan, ranges=earlier.ranges, rows=earlier.rows)
        else:
            parts, rows = ranges(holder, part, _connections(spec))
            if base is not None and (rows or 0) > KEYS:  # too much has changed to be worth a merge
                base, part = None, relation
                plan = replace(plan, base=None, since=None)
                parts, rows = ranges(holder, part, _connections(spec))
            plan = replace(plan, ranges=tuple(parts), rows=rows)
        task.choose(_footprint(relation, plan.rows, _connections(spec)), ())
        state.write_plan(plan)
        before = {number: one for number, one in before.items() if one.range in plan.ranges}
        progress.start("read", plan.rows, "rows")
        pool = Pool(spec.source.connection, holder.dialect, snapshot)
        column = spec.source.watermark.column if spec.source.watermark else None
        going = Progress(guard=progress.check)  # of this snapshot: if it is lost, there may be another
        work = Reading(pool, part, Folders(spec.partition), run, place, state, column, progress, going)
        try:
            threads = min(_connections(spec), len(plan.ranges))
            done = list(map_unordered(lambda one: work(one, before.get(one.number)), plan.ranges, threads, going))
        finally:
            pool.close()
    told = sum(one.rows for one in done)
    progress.expect(told)
    resumed = sum(one.files == before[one.range.number].files for one in done if one.range.number in before)
    ordered = tuple(sorted(done, key=lambda one: one.range.number))
    return Read(relation, holder.dialect.name, snapshot, base, ordered, resumed)


def _begun(holder: Session, earlier: Plan | None) -> Snapshot:
    """The snapshot of a run: that of an earlier attempt where it can be read still, else a new one of `holder`."""
    if earlier is not None and not holder.dialect.versioned:
        try:
            holder.begin(earlier.snapshot)
            holder.rows("SELECT 1 FROM pg_catalog.pg_class LIMIT 1")
            return earlier.snapshot
        except JobError as error:
            if database.lost(error):
                raise
            holder.run("ROLLBACK")  # it is older than what the database remembers
    holder.begin()
    return holder.snapshot()


def _there(task: Task, done: Mapping[int, Done]) -> dict[int, Done]:
    """Ranges whose files are there."""
    found = {
        info.path.removeprefix(f"{task.writer.folder.path}/"): info.size for info in objects.files(task.writer.folder)
    }
    return {number: one for number, one in done.items() if all(found.get(file.path) == file.size for file in one.files)}


def _shape(spec: ExtractSpec, columns: Columns) -> str:
    """A hash of what a data set holds and how it is cut: runs of one shape can be merged."""
    source = spec.source.model_dump(mode="json", exclude={"connection", "connections"})
    partition = spec.partition.model_dump(mode="json")
    kinds = [(one.name, str(one.type), one.declared) for one in columns.columns]
    return hashlib.sha256(json.dumps([source, partition, kinds], sort_keys=True).encode()).hexdigest()


def _base(task: Task, shape: str) -> Base | None:
    """The newest complete run, if this one can go on from it."""
    job: Any = task.job
    if job.spec.source.watermark is None:
        return None
    pointer = artefacts.latest(task.writer.output)
    record = artefacts.complete(task.writer.output, pointer["run"]) if pointer else None
    told = record.get("extract") if record else None
    if record is None or not told or told["shape"] != shape or not told["watermark"]:
        return None
    files = [File(one["path"], one["size"], one["sha256"], one["rows"]) for one in record["files"] if "rows" in one]
    return Base(record["run"], tuple(referred(files, record["run"])), told["watermark"])


def _moment(relation: Relation, spec: ExtractSpec, highest: str) -> str:
    """The condition of rows that may have changed since a value of the watermark."""
    watermark = spec.source.watermark
    assert watermark is not None  # noqa: S101 - callers have looked
    kind = relation.columns.schema.field(watermark.column).type
    name, lag = identifier(watermark.column), watermark.lag_seconds
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        declared = "timestamptz" if getattr(kind, "tz", None) else "timestamp"
        return f"{name} >= {literal(highest)}::{declared} - INTERVAL '{lag} seconds'"
    if pa.types.is_integer(kind):
        return f"{name} >= {int(highest) - lag}"
    raise JobError(
        Reason.DATA_ERROR,
        f"spec.source.watermark.column: `{watermark.column}` is {kind}: watermarks are timestamps, dates or integers",
    )


def _arranged(spec: ExtractSpec, task: Task, place: Any, read: Read) -> list[File]:
    """The files of the whole data set."""
    relation = read.relation
    arranging = Arranging(
        task.writer.folder,
        place,
        relation.columns.schema,
        spec.partition,
        relation.key,
        mark(read.snapshot),
        _connections(spec),
        task.progress,
    )
    files = read.files
    if read.base is not None:
        files = [*arranging.without(read.base.files, arranging.keys(read.files)), *files]
    return arranging.arrange(files)


def _entry(file: File) -> dict[str, Any]:
    return {"size": file.size, "sha256": file.sha256, "rows": file.rows}


def _rank(text: str) -> tuple[int, str]:
    """What sorts values of a watermark as text: whole numbers by their size, times by their digits."""
    return (int(text), "") if text.lstrip("-").isdigit() else (0, text)


@dataclass(frozen=True, slots=True)
class _Facts:
    """All that is known once the files are there."""

    circumstances: Circumstances
    job: ExtractJob
    read: Read
    files: Sequence[File]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def versions(self) -> dict[str, str]:
        from importlib.metadata import version

        return {**self.circumstances.versions, "adbc-driver-postgresql": version("adbc-driver-postgresql")}


def _record(facts: _Facts) -> dict[str, Any]:
    """What report.json says besides the files."""
    read, columns = facts.read, facts.read.relation.columns
    return {
        **facts.circumstances.record(),
        "versions": facts.versions,
        "seed": None,
        "source": {
            "rows": facts.rows,
            "changed": read.rows,
            "database": read.dialect,
            "snapshot": read.snapshot.time,
            "key": list(read.relation.key),
            "ranges": len(read.done),
            "resumedRanges": read.resumed,
        },
        "extract": {
            "shape": _shape(facts.job.spec, columns),
            "base": read.base and read.base.run,
            "watermark": read.highest,
            "columns": [{"name": one.name, "type": str(one.type), "sqlType": one.declared} for one in columns.columns],
        },
        "failedEntities": 0,
        "scores": {"changed": float(read.rows)},
    }


def _page(facts: _Facts) -> ExtractData:
    """What the page says."""
    read, circumstances, metadata = facts.read, facts.circumstances, facts.job.metadata
    sizes: dict[str, list[File]] = {}
    for file in facts.files:
        sizes.setdefault(file.folder or DATA, []).append(file)
    return ExtractData(
        job=f"{metadata.namespace}/{metadata.name}",
        run=circumstances.run,
        finished=circumstances.finished,
        manifest=circumstances.manifest,
        source=_called(facts.job.spec),
        database=read.dialect,
        snapshot=read.snapshot.time,
        key=read.relation.key,
        rows=facts.rows,
        read=read.rows,
        base=read.base.run if read.base else None,
        ranges=len(read.done),
        resumed=read.resumed,
        bytes=sum(file.size for file in facts.files),
        files=len(facts.files),
        columns=tuple((one.name, one.declared, str(one.type)) for one in read.relation.columns.columns),
        folders=tuple(
            (name, sum(one.rows for one in some), len(some), sum(one.size for one in some))
            for name, some in sizes.items()
        ),
        durations=circumstances.durations,
        versions=facts.versions,
    )
