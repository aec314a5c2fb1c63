"""A filter's condition as an expression of Arrow, which Parquet's reader pushes down. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_FLOOR, Context, Decimal
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from almanac.api import JobError, Reason
from almanac_jobs.source.columns import is_number, is_text, plain
from almanac_jobs.source.filters import FIELD, All, Comparison, Condition, Either, Flag, IsNull, Membership, Not, Value

Types = Mapping[str, pa.DataType]


def expression(condition: Condition, types: Types, zone: str | None) -> pc.Expression:
    """The condition over columns of these types, for pyarrow.

    A time without an offset is wall clock where the column has a zone: that of `zone`, or else of the column's own.

    Raises:
        JobError: DataError if a column is compared with a value of another kind.
    """
    match condition:
        case Comparison(column, sign, value):
            kind, grid = types[column], _Grid.of(types[column])
            if grid and isinstance(value, Decimal):
                return _compare(pc.field(column), kind, grid, sign, value)
            return _SIGNS[sign](pc.field(column), _scalar(column, kind, value, zone))
        case Membership(column, values):
            kind, grid = types[column], _Grid.of(types[column])
            scalars = [
                _scalar(column, kind, value, zone)
                for value in values
                if not grid or not isinstance(value, Decimal) or grid.holds(value)
            ]
            return _is_in(pc.field(column), scalars) if scalars else _everywhere(pc.field(column), False)
        case IsNull(column):
            return pc.field(column).is_null()
        case Flag(column):
            if not pa.types.is_boolean(types[column]):
                raise _mismatch(column, types[column], "a condition by itself", "compare it with a value")
            return pc.field(column)
        case Not(inner):
            return ~expression(inner, types, zone)
        case All(several):
            return reduce(operator.and_, [expression(one, types, zone) for one in several])
        case Either(several):
            return reduce(operator.or_, [expression(one, types, zone) for one in several])


_SIGNS: dict[str, Callable[[pc.Expression, pa.Scalar], pc.Expression]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_DIGITS = Context(prec=1200)  # more than any number that the grammar writes has


@dataclass(frozen=True, slots=True)
class _Grid:
    """The numbers that a type can hold: multiples of `unit`. With others Arrow compares as floats, which may lie."""

    unit: Decimal
    lowest: Decimal
    highest: Decimal

    @classmethod
    def of(cls, kind: pa.DataType) -> _Grid | None:
        """The grid of integers or decimals; None for other types."""
        if pa.types.is_decimal(kind):
            highest = Decimal(10**kind.precision - 1).scaleb(-kind.scale, _DIGITS)
            return cls(Decimal(1).scaleb(-kind.scale), -highest, highest)
        if pa.types.is_integer(kind):
            signed = pa.types.is_signed_integer(kind)
            highest = Decimal(2 ** (kind.bit_width - signed) - 1)
            return cls(Decimal(1), -highest - 1 if signed else Decimal(0), highest)
        return None

    def below(self, value: Decimal) -> Decimal:
        """The largest multiple of the unit that is not above `value`."""
        return value.quantize(self.unit, ROUND_FLOOR, _DIGITS)

    def holds(self, value: Decimal) -> bool:
        return self.lowest <= value <= self.highest and self.below(value) == value


def _compare(field: pc.Expression, kind: pa.DataType, grid: _Grid, sign: str, value: Decimal) -> pc.Expression:
    """The comparison of a column with a number of any size and as many digits."""
    below = grid.below(value)
    inside = grid.lowest <= below <= grid.highest
    if below != value and sign in ("==", "!="):
        return _everywhere(field, sign == "!=")
    if not inside:
        return _everywhere(field, sign == "!=" or (sign != "==" and sign.startswith("<") == (below > grid.highest)))
    if below != value:  # between two values of the column
        sign = "<=" if sign.startswith("<") else ">"
    return _SIGNS[sign](field, _number(below, kind))


def _everywhere(field: pc.Expression, truth: bool) -> pc.Expression:
    """True or false for every value of an exact type, and unknown for nulls."""
    return field == field if truth else field != field


def _number(value: Decimal, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(value if pa.types.is_decimal(kind) else int(value), kind)


def _is_in(field: pc.Expression, scalars: Sequence[pa.Scalar]) -> pc.Expression:
    found = field.isin(pa.array([scalar.as_py() for scalar in scalars], scalars[0].type))
    # Arrow's is_in calls a null false; in SQL it is unknown, and `not in` leaves it out as well.
    return pc.if_else(field.is_null(), pa.scalar(None, pa.bool_()), found)


def _scalar(column: str, kind: pa.DataType, value: Value, zone: str | None) -> pa.Scalar:
    """`value` as what a column of type `kind` can be compared with."""
    kind = plain(kind)
    if is_text(kind):
        if isinstance(value, str):
            return pa.scalar(value, kind)
        raise _mismatch(column, kind, _shown(value), "put the value between quotes")
    if pa.types.is_boolean(kind):
        if isinstance(value, bool):
            return pa.scalar(value)
        raise _mismatch(column, kind, _shown(value), "write true or false")
    if is_number(kind):
        if isinstance(value, Decimal):
            return pa.scalar(float(value)) if pa.types.is_floating(kind) else _number(value, kind)
        raise _mismatch(column, kind, _shown(value), "write a number without quotes")
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        if isinstance(value, str):
            return _moment(column, kind, value, zone)
        raise _mismatch(column, kind, _shown(value), "write it as '2024-12-31'")
    raise JobError(Reason.DATA_ERROR, f"{FIELD}: column `{column}` is of type {kind}, which cannot be compared")


def _moment(column: str, kind: pa.DataType, value: str, zone: str | None) -> pa.Scalar:
    try:
        if pa.types.is_date(kind):
            return pa.scalar(date.fromisoformat(value), kind)
        moment = datetime.fromisoformat(value)
    except ValueError:
        wanted = "'2024-12-31'" if pa.types.is_date(kind) else "'2024-12-31' or '2024-12-31T23:59:59'"
        raise _mismatch(column, kind, _shown(value), f"write it as {wanted}") from None
    if kind.tz is None and moment.tzinfo is not None:
        raise _mismatch(column, kind, _shown(value), "write the time without an offset, as the column has none")
    if kind.tz is not None and moment.tzinfo is None:
        naive = pa.scalar(moment, pa.timestamp("us"))
        return pc.assume_timezone(naive, zone or kind.tz, ambiguous="earliest", nonexistent="latest").cast(kind)
    return pa.scalar(moment, pa.timestamp("us", kind.tz)).cast(kind, safe=False)


def _mismatch(column: str, kind: pa.DataType, value: str, advice: str) -> JobError:
    return JobError(
        Reason.DATA_ERROR, f"{FIELD}: column `{column}` is of type {kind}, which {value} does not fit: {advice}"
    )


def _shown(value: Value) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value).lower()
