"""How columns of a database become columns of Parquet: what SQL asks for, and what is made of the answer.

Types are kept exactly, or a value is refused. What Parquet has no type for is text as the database writes it, and the
metadata of every column say what the database calls its type.

| database | Parquet |
|---|---|
| int2, int4, int8, float4, float8, bool, bytea, text and its kin | the same |
| numeric(p, s) | decimal(p, s); above 76 digits text |
| numeric | `spec.source.numeric` |
| date, time, timestamp, timestamptz | date, time, timestamp (microseconds), timestamp in UTC |
| json, jsonb, uuid, enums, interval (ISO 8601), and all other types | text |
| arrays of these | lists of these |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from almanac.api import JobError, Reason
from almanac.api.checks import decimal_type
from almanac_jobs.extract.database import identifier, unsupported

_AS_THEY_ARE = frozenset(
    {"bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar", "name", "char"}
    | {"date", "time", "timestamp", "timestamptz", "bytea", "json", "jsonb", "numeric"}
)
_FIRST_DAY = -2_440_588
"""4713 BC: infinity of either sign lies before it once Arrow has it."""
_FIRST_MICROSECOND = _FIRST_DAY * 86_400_000_000
_DAY = 86_400_000_000
TYPE = b"sql.type"
"""Metadata of a column: its type as the database calls it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the SQL that asks for it, and its type in Parquet. `array` has a check beside it in the answer."""

    name: str
    sql: str
    type: pa.DataType
    declared: str
    array: bool = False

    @property
    def field(self) -> pa.Field:
        """The column as Parquet has it."""
        return pa.field(self.name, self.type, metadata={TYPE: self.declared.encode()})


@dataclass(frozen=True, slots=True)
class Columns:
    """All columns of a data set, in their order."""

    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        """The columns as Parquet has them."""
        return pa.schema([column.field for column in self.columns])

    @property
    def sql(self) -> str:
        """What a SELECT lists: the columns, then the checks."""
        return ", ".join([*(column.sql for column in self.columns), *(_check(one) for one in self._arrays)])

    @property
    def _arrays(self) -> list[Column]:
        return [column for column in self.columns if column.array]

    def convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """An answer's rows as Parquet has them.

        Raises:
            JobError: DataError for a value that its type cannot have.
        """
        for place, column in enumerate(self._arrays, start=len(self.columns)):
            if pc.any(batch.column(place)).as_py():
                unsupported(
                    column.name,
                    "holds an array of several dimensions, or one that does not begin at 1",
                    "write it as text in spec.source.query (to_json(...)::text)",
                )
        arrays = [_converted(column, batch.column(place)) for place, column in enumerate(self.columns)]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def columns_of(answer: pa.Schema, numeric: str, modifiers: Mapping[str, int], *, arrays: bool = True) -> Columns:
    """How the columns of a query, as ADBC describes them, are read. `arrays` may have several dimensions.

    `modifiers` are what the catalogue says of precision and scale (atttypmod), which an answer does not tell of arrays.

    Raises:
        JobError: DataError if two columns have one name.
    """
    names = answer.names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise JobError(Reason.DATA_ERROR, f"spec.source.query: has two columns `{twice}`: name one of them with AS")
    return Columns(tuple(_column(field, numeric, modifiers.get(field.name, -1), arrays=arrays) for field in answer))


def _column(field: pa.Field, numeric: str, modifier: int, *, arrays: bool) -> Column:
    metadata = field.metadata or {}
    declared = metadata.get(b"POSTGRESQL:type", b"text").decode()
    inner = declared.removeprefix("_")
    is_array = pa.types.is_list(field.type)
    is_enum = pa.types.is_string(field.type.value_type if is_array else field.type) and inner not in _AS_THEY_ARE
    digits = None
    if inner == "numeric":
        modifier = int(metadata.get(b"POSTGRESQL:typmod", b"%d" % modifier))
        digits, declared = _digits(modifier, declared, numeric)
    sql = name = identifier(field.name)
    if (inner not in _AS_THEY_ARE and not is_enum) or (inner == "numeric" and digits is None):
        sql = f"{name}::text[] AS {name}" if is_array else f"{name}::text AS {name}"
        kind = pa.string()
    elif digits is not None:
        kind = pa.decimal128(*digits) if digits[0] <= 38 else pa.decimal256(*digits)
    else:
        kind = _stored(field.type.value_type if is_array else field.type)
    if is_array and arrays:
        cast = sql.removesuffix(f" AS {name}")
        sql = f"CASE WHEN {_several(name)} THEN NULL ELSE {cast} END AS {name}"
    return Column(field.name, sql, pa.list_(kind) if is_array else kind, declared, is_array and arrays)


def _digits(modifier: int, declared: str, numeric: str) -> tuple[tuple[int, int] | None, str]:
    """Precision and scale of a numeric, None for text; and its type in full."""
    if modifier < 4:
        return decimal_type(numeric), declared
    precision, scale = (modifier - 4) >> 16 & 0xFFFF, (modifier - 4) & 0x7FF
    scale -= (scale & 0x400) << 1  # of 11 bits, with a sign
    declared = f"{declared}({precision},{scale})"
    if scale < 0:  # rounded to tens, hundreds ...: Arrow's decimals of other programs have none of that
        precision, scale = precision - scale, 0
    precision = max(precision, scale)
    return ((precision, scale) if precision <= 76 else None), declared


def _stored(kind: pa.DataType) -> pa.DataType:
    """A type without what only Arrow knows of it: text of json."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _several(name: str) -> str:
    return f"array_ndims({name}) > 1 OR array_lower({name}, 1) <> 1"


def _check(column: Column) -> str:
    return f"COALESCE({_several(identifier(column.name))}, false)"


def _converted(column: Column, values: pa.Array) -> pa.Array:
    if pa.types.is_list(column.type):
        inside = Column(column.name, "", column.type.value_type, column.declared)
        items = _converted(inside, values.values)
        return pa.ListArray.from_arrays(values.offsets, items, type=column.type, mask=values.is_null())
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_decimal(column.type):
        return _decimals(column, values)
    if pa.types.is_timestamp(column.type):
        _within(column, values.cast(pa.int64()), _FIRST_MICROSECOND, None)
    elif pa.types.is_date32(column.type):
        _within(column, values.cast(pa.int32()), _FIRST_DAY, None)
    elif pa.types.is_time64(column.type):
        _within(column, values.cast(pa.int64()), None, _DAY)
    return values


def _decimals(column: Column, values: pa.Array) -> pa.Array:
    try:
        return values.cast(column.type)
    except pa.ArrowInvalid as error:
        odd = pc.any(pc.match_substring_regex(values, "[a-z]")).as_py()
        if odd:
            unsupported(
                column.name,
                "holds NaN or infinity, which no decimal can be",
                f"leave these rows out with spec.source.filter, or write {identifier(column.name)}::text in "
                "spec.source.query",
            )
        if column.declared in ("numeric", "_numeric"):
            digits = f"decimal({column.type.precision}, {column.type.scale})"
            unsupported(
                column.name,
                f"holds a number that {digits} cannot hold exactly",
                "write spec.source.numeric: text, or a decimal with more digits",
            )
        raise JobError(Reason.DATA_ERROR, f"spec.source: column `{column.name}`: {error}") from error


def _within(column: Column, values: pa.Array, first: int | None, end: int | None) -> None:
    """Refuse what a type of PostgreSQL's can be and Arrow's cannot: it would be taken for another time."""
    bounds = pc.min_max(values)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    if low is not None and ((first is not None and low < first) or (end is not None and high >= end)):
        what = "24:00" if end is not None else "infinity, or a year beyond 294246"
        unsupported(
            column.name,
            f"holds {what}, which Parquet has no value for",
            f"leave these rows out with spec.source.filter, or make them null in spec.source.query "
            f"(NULLIF({identifier(column.name)}, ...))",
        )


def names_in(columns: Columns, wanted: Sequence[str], field: str) -> None:
    """Refuse names that are no columns.

    Raises:
        JobError: DataError.
    """
    there = columns.schema.names
    for name in wanted:
        if name not in there:
            shown = ", ".join(there[:20]) + (" ..." if len(there) > 20 else "")
            raise JobError(Reason.DATA_ERROR, f"{field}: there is no column `{name}`: there are {shown}")
