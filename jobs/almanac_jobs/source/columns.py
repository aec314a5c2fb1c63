"""Types of columns: what one is over files of different age, and which may be entities, times and values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from almanac.api import AnomalyColumns, Columns, JobError, Reason

_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def is_text(kind: pa.DataType) -> bool:
    """Whether it is one of Arrow's types of strings."""
    return any(is_kind(kind) for is_kind in _TEXT)


def is_number(kind: pa.DataType) -> bool:
    """Whether it is an integer, a float or a decimal."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def plain(kind: pa.DataType) -> pa.DataType:
    """The type without what only says how values are stored: a dictionary around it, the width of offsets in text."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if is_text(kind) else kind


def common_type(field: str, name: str, types: Iterable[tuple[str, pa.DataType]]) -> pa.DataType:
    """The type of column `name` over files, given as (URI, type there); `field` is the job's field with its name.

    A file without a type of its own (null: no value was ever written) agrees with all others.

    Raises:
        JobError: DataError, naming the two files that do not agree.
    """
    common, origin = pa.null(), ""
    for uri, kind in types:
        joined = _join(common, plain(kind))
        if joined is None:
            raise JobError(
                Reason.DATA_ERROR,
                f"{field}: column `{name}` is of type {common} in `{origin}` and {plain(kind)} in `{uri}`: "
                "write one of them again with the other's type",
            )
        if joined != common:
            common, origin = joined, uri
    return common


def _join(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The narrowest type that holds the values of both; None if there is none."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if is_number(one) and is_number(other):
        return _join_numbers(one, other)
    if pa.types.is_date(one) and pa.types.is_date(other):
        return pa.date32()
    if pa.types.is_timestamp(one) and pa.types.is_timestamp(other) and one.tz == other.tz:
        finer = max(one.unit, other.unit, key=("s", "ms", "us", "ns").index)
        return pa.timestamp(finer, one.tz)
    return None


def _join_numbers(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if pa.types.is_floating(one) or pa.types.is_floating(other):
        return pa.float64()
    signed = {pa.types.is_signed_integer(kind): kind for kind in (one, other)}
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        if len(signed) == 1:
            return max(one, other, key=lambda kind: kind.bit_width)
        if signed[False].bit_width < 64:
            return pa.int64()
    whole = max(_digits(kind)[0] for kind in (one, other))
    scale = max(_digits(kind)[1] for kind in (one, other))
    return pa.decimal128(whole + scale, scale) if whole + scale <= 38 else pa.decimal256(min(whole + scale, 76), scale)


def _digits(kind: pa.DataType) -> tuple[int, int]:
    """Decimal digits before and after the point that a type can hold."""
    if pa.types.is_decimal(kind):
        return kind.precision - kind.scale, kind.scale
    return len(str(2**kind.bit_width)), 0


def check_roles(columns: Columns, types: Mapping[str, pa.DataType]) -> None:
    """Refuse columns of types that cannot be an entity, a time or a value.

    Raises:
        JobError: DataError, saying what to write instead.
    """
    check_keys(columns, types)
    value = types[columns.value]
    if not is_number(value):
        advice = "write 0 and 1 to sum booleans" if pa.types.is_boolean(value) else "values are numbers"
        raise _wrong_type("value", columns.value, value, advice)


def check_keys(columns: Columns | AnomalyColumns, types: Mapping[str, pa.DataType]) -> None:
    """Refuse columns of types that cannot be an entity, a time or the name of a row.

    Raises:
        JobError: DataError, saying what to write instead.
    """
    entity, time = types[columns.entity], types[columns.time]
    if not (is_text(entity) or pa.types.is_integer(entity) or pa.types.is_date(entity)):
        raise _wrong_type("entity", columns.entity, entity, "entities are strings, integers or dates")
    if is_text(time):
        advice = "times are dates or timestamps: convert it when the file is written (pandas: to_datetime, SQL: CAST)"
        raise _wrong_type("time", columns.time, time, advice)
    if not (pa.types.is_date(time) or pa.types.is_timestamp(time)):
        raise _wrong_type("time", columns.time, time, "times are dates or timestamps")
    if isinstance(columns, AnomalyColumns) and columns.id is not None:
        name = types[columns.id]
        if not (is_text(name) or pa.types.is_integer(name)):
            raise _wrong_type("id", columns.id, name, "names of rows are strings or integers")


def _wrong_type(role: str, name: str, kind: pa.DataType, advice: str) -> JobError:
    found = "holds nothing but nulls" if pa.types.is_null(kind) else f"is of type {kind}"
    return JobError(Reason.DATA_ERROR, f"spec.source.columns.{role}: column `{name}` {found}: {advice}")
