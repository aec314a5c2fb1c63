"""What is read, as the database knows it: a table or a query, its key, and the ranges of it that are read in parallel.

Ranges hold about as many rows each, however keys are spread: their bounds are quantiles of a sample of the table's
blocks, or where there is no sampling (queries, views, CockroachDB), every so many rows counted through.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from almanac.api import ExtractSource, JobError, Reason
from almanac_jobs.extract.columns import Columns, columns_of, names_in
from almanac_jobs.extract.database import Session, identifier, identifiers, literal

RANGE_BYTES = 32 << 20
"""Bytes of the table that a range is of, at least: what is read again if a connection breaks."""
RANGES = 2_000
"""Ranges of a table at most."""
COUNTED_ROWS = 50_000
"""Rows of a range where they are counted: an answer without COPY is in memory as a whole."""
STREAMED_ROWS = 500_000
"""The same where they come in a stream."""
BLOCKS = 60
"""Blocks that are looked at for each range."""
BLOCK_BYTES = 8192


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Rows whose key is at least `low` and below `high` (None: all there are), or those that lack a part of it.

    Bounds are values as text.
    """

    number: int
    low: tuple[str, ...] | None = None
    high: tuple[str, ...] | None = None
    nulls: bool = False

    def to_json(self) -> list[Any]:
        """The range as JSON has it."""
        return [self.number, self.low, self.high, self.nulls]

    @classmethod
    def from_json(cls, told: list[Any]) -> KeyRange:
        """The range that `to_json` has told."""
        number, low, high, nulls = told
        return cls(number, low and tuple(low), high and tuple(high), nulls)


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or a query. `table` is a real one, whose rows lie in blocks and tell their transaction."""

    sql: str
    """What stands after FROM."""
    columns: Columns
    key: tuple[str, ...]
    nullable: bool
    """A part of the key may be null."""
    conditions: tuple[str, ...]
    """What every row meets: filter, range."""
    table: bool = False
    oids: tuple[str, ...] = ()
    """The table, and the parts that it is partitioned into: others have other rows, although none was written."""
    bytes: int = 0

    def where(self, part: KeyRange) -> str:
        """The condition of a range's rows."""
        return _where([*self.conditions, *self._bounds(part)])

    def _bounds(self, part: KeyRange) -> list[str]:
        names = [identifier(name) for name in self.key]
        missing = " OR ".join(f"{name} IS NULL" for name in names)
        if part.nulls:
            return [missing]
        row = names[0] if len(names) == 1 else f"({', '.join(names)})"
        bounds = [
            f"{row} {sign} {_row(values)}"
            for sign, values in ((">=", part.low), ("<", part.high))
            if values is not None
        ]
        return [*bounds, *([f"NOT ({missing})"] if self.nullable and self.key else [])]

    def select(self, part: KeyRange) -> str:
        """The query that reads a range, by key."""
        order = f" ORDER BY {identifiers(self.key)}" if self.key else ""
        return f"SELECT {self.columns.sql} FROM {self.sql}{self.where(part)}{order}"

    def since(self, condition: str) -> Relation:
        """The rows of it that meet one more condition."""
        return replace(self, conditions=(*self.conditions, condition))


def describe(session: Session, source: ExtractSource) -> Relation:
    """What a job's source is.

    Raises:
        JobError: SourceNotFound for a table that there is not, DataError for columns, InvalidSpec for wrong SQL.
    """
    found = _table(session, source.relation) if source.relation is not None else None
    oids, kind, size, sql = found or ((), "q", 0, f"({(source.query or '').strip().rstrip(';')}) AS source")
    wanted = identifiers(source.columns) if source.columns else "*"
    answer = session.schema(f"SELECT {wanted} FROM {sql}")
    catalogue = _catalogue(session, oids[0]) if found is not None else {}
    modifiers = {name: modifier for name, (modifier, _) in catalogue.items()}
    columns = columns_of(answer, source.numeric, modifiers, arrays=session.dialect.samples)
    conditions = [f"({source.filter})"] if source.filter else []
    if source.range is not None:
        name = identifier(source.range.column)
        conditions += [
            f"{name} {sign} {literal(bound)}"
            for sign, bound in ((">=", source.range.start), ("<", source.range.end))
            if bound is not None
        ]
    key, nullable = source.key or (), source.key is not None
    if found is not None:
        key = source.key or _primary_key(session, oids[0])
        nullable = not all(catalogue[name][1] for name in key if name in catalogue)
    relation = Relation(sql, columns, key, nullable, tuple(conditions), kind in ("r", "p", "m"), oids, size)
    session.schema(
        f"SELECT {identifiers(key) or 1} FROM {sql}{_where(list(conditions))}"
    )  # which refuses what is wrong
    if source.watermark is not None:
        if not key:
            raise JobError(
                Reason.INVALID_SPEC,
                f"spec.source.key: is missing: `{source.relation}` has no primary key, and with a watermark rows are "
                "replaced by it: name the columns that tell rows apart",
            )
        names_in(columns, (*key, source.watermark.column), "spec.source.watermark")
    return relation


def _table(session: Session, name: str) -> tuple[tuple[str, ...], str, int, str]:
    """oids of a table and its parts, its kind, size in bytes and full name."""
    rows = session.rows(
        "SELECT c.oid::text, c.relkind::text, n.nspname, c.relname FROM pg_catalog.pg_class c "
        f"JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass({literal(name)})::oid"
    )
    if not rows or rows[0][1] not in ("r", "p", "m", "v", "f"):
        ((path,),) = session.rows("SELECT array_to_string(current_schemas(false), ', ')")
        raise JobError(
            Reason.SOURCE_NOT_FOUND,
            f"spec.source.table: there is no table `{name}`, or this role does not see it: its schemas are {path}",
        )
    oid, kind, schema, table = map(str, rows[0])
    sql = f"{identifier(schema)}.{identifier(table)}"
    if not (session.dialect.samples and kind in ("r", "p", "m")):
        return (oid,), kind, 0, sql
    parts = f"pg_partition_tree({oid}::oid::regclass)" if kind == "p" else f"(SELECT {oid}::oid AS relid) one"
    found = session.rows(f"SELECT relid::oid::text, pg_table_size(relid) FROM {parts} ORDER BY relid::oid")
    return (oid, *(str(part) for part, _ in found if str(part) != oid)), kind, sum(int(size) for _, size in found), sql


def _catalogue(session: Session, oid: str) -> dict[str, tuple[int, bool]]:
    """Of each column of a table: the modifier of its type, and whether it is never null."""
    found = session.rows(
        "SELECT attname, atttypmod, attnotnull FROM pg_catalog.pg_attribute "
        f"WHERE attrelid = {oid}::oid AND attnum > 0 AND NOT attisdropped"
    )
    return {str(name): (int(modifier), bool(firm)) for name, modifier, firm in found}


def _primary_key(session: Session, oid: str) -> tuple[str, ...]:
    """The columns of a table's primary key."""
    key = session.rows(
        "SELECT k.place, a.attname FROM pg_catalog.pg_constraint c "
        "CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY AS k(num, place) "
        "JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.num "
        f"WHERE c.contype = 'p' AND c.conrelid = {oid}::oid ORDER BY k.place"
    )
    return tuple(str(name) for _, name in key)


def ranges(session: Session, relation: Relation, connections: int) -> tuple[list[KeyRange], int | None]:
    """The ranges that a relation is read in, and about how many rows they have in all (None: nobody knows)."""
    if not relation.key:
        return [KeyRange(0)], None
    if relation.table and session.dialect.samples:
        bounds, rows = _sampled(session, relation, connections)
    else:
        bounds, rows = _counted(session, relation)
    edges = [None, *bounds, None]
    made = [KeyRange(at, low, high) for at, (low, high) in enumerate(pairwise(edges))]
    return [*made, *([KeyRange(len(made), nulls=True)] if relation.nullable else [])], rows


def _sampled(session: Session, relation: Relation, connections: int) -> tuple[list[tuple[str, ...]], int]:
    size = max(RANGE_BYTES, relation.bytes // RANGES)
    parts = max(-(-relation.bytes // size), min(4 * connections, relation.bytes // (RANGE_BYTES // 8)), 1)
    blocks = max(relation.bytes // BLOCK_BYTES, 1)
    percent = min(100.0, 100.0 * BLOCKS * parts / blocks)
    sample = f"{relation.sql} TABLESAMPLE SYSTEM ({percent:.6f}) REPEATABLE (1)"
    # A row is a bound where its share of the sample goes past another one of `parts`.
    passes = f"almanac_n * {parts} / almanac_c <> (almanac_n - 1) * {parts} / almanac_c AND almanac_n < almanac_c"
    found = session.rows(_numbered(relation, sample, f"{passes} OR almanac_n = almanac_c"))
    sampled = int(found[-1][0]) if found else 0
    return _distinct(found[:-1]), round(sampled * 100 / percent)


def _counted(session: Session, relation: Relation) -> tuple[list[tuple[str, ...]], int]:
    step = STREAMED_ROWS if session.dialect.copy else COUNTED_ROWS
    found = session.rows(_numbered(relation, relation.sql, f"almanac_n % {step} = 0 OR almanac_n = almanac_c"))
    rows = int(found[-1][0]) if found else 0
    return _distinct(found[:-1]), rows


def _numbered(relation: Relation, source: str, wanted: str) -> str:
    """The query for rows of some numbers in the order of the key: how many rows there are, and the key as text."""
    names = identifiers(relation.key)
    texts = ", ".join(f"{identifier(name)}::text" for name in relation.key)
    filled = [f"{identifier(name)} IS NOT NULL" for name in relation.key] if relation.nullable else []
    inner = (
        f"SELECT {names}, row_number() OVER (ORDER BY {names}) AS almanac_n, count(*) OVER () AS almanac_c "
        f"FROM {source}{_where([*relation.conditions, *filled])}"
    )
    return f"SELECT almanac_c, {texts} FROM ({inner}) numbered WHERE {wanted} ORDER BY almanac_n"


def _distinct(found: list[tuple[Any, ...]]) -> list[tuple[str, ...]]:
    """Keys of rows, each once: a value that many rows share is one bound."""
    return list(dict.fromkeys(tuple(map(str, row[1:])) for row in found))


def _row(values: tuple[str, ...]) -> str:
    texts = [literal(value) for value in values]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def _where(conditions: list[str]) -> str:
    return " WHERE " + " AND ".join(f"({one})" for one in conditions) if conditions else ""
