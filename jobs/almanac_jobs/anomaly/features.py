"""What rows are judged by: learnt once from the source, then the same for training, scoring and serving.

| column | feature | value |
|---|---|---|
| number, boolean | `amount` | itself |
| string | `account` | how many values are more common: 0 is the most common one; a value never seen is beyond all |
| date, timestamp | `due.weekday`, `due.day` | 0 (Monday) to 6, day of the month |
| timestamp | `due.hour` | hour of the day with its fraction, on the wall clock of the source's time zone |
| preset ledger | `ledger. ...` | see `almanac_jobs.anomaly.ledger` |

A null is a missing value, which trees know how to treat. A matrix of features is of float32, a row for each row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from almanac.api import Features, JobError, Reason
from almanac.api.model import nearest

Floats32 = NDArray[np.float32]

FIELD = "spec.features"
CATEGORIES = 4096
"""Values of a column of strings that are told apart, the most common ones; all others count as one, beyond these."""
IDENTIFIER = 0.5
"""Share of distinct values from which on a column of strings names rows rather than says something of them."""
BEYOND = "(rarer than all that the model knows)"
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FEW = 100
"""Rows below which nothing is taken for an identifier."""
_DISTINCT = 1_000_000
"""Distinct values that are counted."""
_LARGEST = float(np.finfo(np.float32).max)


class Kind(StrEnum):
    """How a feature follows from its column."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    CATEGORY = "category"
    WEEKDAY = "weekday"
    DAY = "day"
    HOUR = "hour"
    LEDGER = "ledger"


_CALENDAR_OF_LEDGER = {"ledger.weekday": Kind.WEEKDAY, "ledger.hour": Kind.HOUR}
_CALENDAR = (Kind.WEEKDAY, Kind.DAY, Kind.HOUR)


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a matrix. `categories` are those of a category, the most common first."""

    name: str
    column: str
    kind: Kind
    categories: tuple[str, ...] = ()

    def shown(self, values: Floats32) -> list[str | None]:
        """Values of the feature as people know them, for explanations; None for nulls."""
        return [None if np.isnan(value) else self._shown(float(value)) for value in values]

    def _shown(self, value: float) -> str:
        match _CALENDAR_OF_LEDGER.get(self.name, self.kind):
            case Kind.CATEGORY:
                return self.categories[int(value)] if value < len(self.categories) else BEYOND
            case Kind.BOOLEAN:
                return "true" if value else "false"
            case Kind.WEEKDAY:
                return WEEKDAYS[int(value)]
            case Kind.HOUR:
                return f"{int(value):02}:{round(value % 1 * 60):02}"
            case _:
                return f"{value:.6g}"

    def encode(self, column: pa.Array | pa.ChunkedArray, time_zone: str | None) -> Floats32:
        """The feature of each value of its column."""
        match self.kind:
            case Kind.CATEGORY:
                return self._codes(column)
            case Kind.WEEKDAY | Kind.DAY | Kind.HOUR:
                return _calendar(self.kind, wall(column, time_zone))
            case _:
                return _numbers(column)

    def _codes(self, column: pa.Array | pa.ChunkedArray) -> Floats32:
        texts = pc.cast(column, pa.string())
        codes = pc.index_in(texts, pa.array(self.categories, pa.string()))
        beyond = pc.if_else(pc.is_valid(texts), len(self.categories), None)
        return _numbers(pc.coalesce(pc.cast(codes, pa.float64()), pc.cast(beyond, pa.float64())))

    def as_json(self) -> dict[str, Any]:
        """The feature for a manifest."""
        told: dict[str, Any] = {"name": self.name, "column": self.column, "kind": self.kind.value}
        return told | ({"categories": list(self.categories)} if self.kind is Kind.CATEGORY else {})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Feature:
        """The inverse of `as_json`."""
        return cls(value["name"], value["column"], Kind(value["kind"]), tuple(value.get("categories", ())))


@dataclass(frozen=True, slots=True)
class Schema:
    """The features of a model, in their order; those of preset ledger come last, from columns of their own."""

    features: tuple[Feature, ...]
    time_zone: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.features)

    @property
    def plain(self) -> tuple[Feature, ...]:
        """The features that follow from one value each."""
        return tuple(one for one in self.features if one.kind is not Kind.LEDGER)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that plain features are made of."""
        return tuple(dict.fromkeys(one.column for one in self.plain))

    def encode(self, batch: pa.RecordBatch | pa.Table) -> Floats32:
        """The plain features of rows, as a matrix.

        Raises:
            JobError: DataError for a column that is missing or of a type that cannot be the feature's, infinite values.
        """
        made = np.empty((batch.num_rows, len(self.plain)), np.float32)
        for at, feature in enumerate(self.plain):
            column = self._column(batch, feature)
            made[:, at] = feature.encode(column, self.time_zone)
            check_finite(made[:, at], feature.column)
        return made

    def _column(self, batch: pa.RecordBatch | pa.Table, feature: Feature) -> pa.Array | pa.ChunkedArray:
        if feature.column not in batch.schema.names:
            raise JobError(Reason.DATA_ERROR, f"{FIELD}: there is no column `{feature.column}`: the model needs it")
        column = decoded(batch.column(feature.column))
        kinds = kinds_of(column.type)
        if feature.kind not in kinds and not pa.types.is_null(column.type):
            raise JobError(
                Reason.DATA_ERROR,
                f"{FIELD}: column `{feature.column}` is of type {column.type}, and the model has learnt it as "
                f"{_LEARNT[feature.kind]}: give it as that",
            )
        return column


_LEARNT = {
    Kind.NUMBER: "numbers",
    Kind.BOOLEAN: "booleans",
    Kind.CATEGORY: "strings",
    Kind.WEEKDAY: "dates or timestamps",
    Kind.DAY: "dates or timestamps",
    Kind.HOUR: "timestamps",
}


def kinds_of(kind: pa.DataType) -> tuple[Kind, ...]:
    """The features that a column of this type makes; none for types that make none."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_boolean(kind):
        return (Kind.BOOLEAN,)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return (Kind.NUMBER,)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return (Kind.CATEGORY,)
    if pa.types.is_timestamp(kind):
        return _CALENDAR
    return (Kind.WEEKDAY, Kind.DAY) if pa.types.is_date(kind) else ()


def check_names(features: Features, types: Mapping[str, pa.DataType]) -> None:
    """Refuse columns of a job that the source, whose `types` these are, does not have or that make no feature.

    Raises:
        JobError: DataError, saying what there is instead.
    """
    named = features.columns if features.columns is not None else features.exclude
    where = f"{FIELD}.{'columns' if features.columns is not None else 'exclude'}"
    for name in named:
        if name not in types:
            meant = nearest(name, types)
            hint = f": did you mean `{meant}`?" if meant else f": it has {', '.join(list(types)[:20])}"
            raise JobError(Reason.DATA_ERROR, f"{where}: the source has no column `{name}`{hint}")
    for name in features.columns or ():
        if not kinds_of(types[name]) and not pa.types.is_null(types[name]):
            raise JobError(
                Reason.DATA_ERROR,
                f"{where}: column `{name}` is of type {types[name]}, which makes no feature: features are of numbers, "
                "booleans, strings, dates and timestamps",
            )


def candidates(features: Features, types: Mapping[str, pa.DataType], roles: Iterable[str]) -> tuple[str, ...]:
    """The columns that features may be made of: those that the job names, or all of `types` but those with `roles`."""
    if features.columns is not None:
        return tuple(dict.fromkeys(features.columns))
    left_out = {*roles, *features.exclude}
    return tuple(
        name for name, kind in types.items() if name not in left_out and (kinds_of(kind) or pa.types.is_null(kind))
    )


@dataclass(slots=True)
class _Seen:
    """What is known of a column so far."""

    kind: pa.DataType
    valid: int = 0
    least: float = np.inf
    most: float = -np.inf
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def constant(self) -> bool:
        return len(self.counts) == 1 if Kind.CATEGORY in kinds_of(self.kind) else self.least == self.most


class Learner:
    """Learns a schema from the rows of a source, batch by batch."""

    def __init__(self, features: Features, types: Mapping[str, pa.DataType], columns: Sequence[str]) -> None:
        """`columns` are the `candidates`, of `types`."""
        self._explicit = features.columns is not None
        self._seen = {name: _Seen(types[name]) for name in columns}
        self._rows = 0

    def add(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Look at rows that have all columns.

        Raises:
            JobError: DataError for infinite values.
        """
        self._rows += batch.num_rows
        for name, seen in self._seen.items():
            column = batch.column(name)
            seen.valid += len(column) - column.null_count
            if Kind.CATEGORY not in kinds_of(seen.kind):
                values = _values(decoded(column))
                check_finite(values, name)
                known = values[~np.isnan(values)]
                if len(known):
                    seen.least, seen.most = min(seen.least, float(known.min())), max(seen.most, float(known.max()))
            elif len(seen.counts) <= _DISTINCT:
                counted = pc.value_counts(column)
                counted = counted.filter(pc.is_valid(counted.field("values")))
                texts = pc.cast(counted.field("values"), pa.string()).to_pylist()
                for text, number in zip(texts, counted.field("counts").to_pylist(), strict=True):
                    seen.counts[text] += number

    def merge(self, other: Learner) -> None:
        """Look at the rows that another one has looked at, with the same columns."""
        self._rows += other._rows
        for name, seen in self._seen.items():
            theirs = other._seen[name]
            seen.valid += theirs.valid
            seen.least, seen.most = min(seen.least, theirs.least), max(seen.most, theirs.most)
            seen.counts.update(theirs.counts)

    def finish(self, time_zone: str | None) -> tuple[Schema, dict[str, str]]:
        """The schema, and the columns that are left out, each with the reason.

        Raises:
            JobError: DataError for a column that the job names and that says nothing.
        """
        made: list[Feature] = []
        left_out: dict[str, str] = {}
        for name, seen in self._seen.items():
            useless = self._useless(seen)
            if useless and self._explicit:
                raise JobError(
                    Reason.DATA_ERROR,
                    f"{FIELD}.columns: column `{name}` {useless}: leave it out, it tells no rows apart",
                )
            if useless:
                left_out[name] = useless
                continue
            made += [_feature(name, kind, seen) for kind in kinds_of(seen.kind)]
        return Schema(tuple(made), time_zone), left_out

    def _useless(self, seen: _Seen) -> str:
        if not seen.valid:
            return "holds nothing but nulls"
        if seen.constant and seen.valid == self._rows:
            return "has the same value everywhere"
        if self._rows >= _FEW and len(seen.counts) > min(IDENTIFIER * seen.valid, _DISTINCT):
            return f"has {len(seen.counts):,} different values in {seen.valid:,} rows, as names of rows have"
        return ""


def _feature(name: str, kind: Kind, seen: _Seen) -> Feature:
    if kind is not Kind.CATEGORY:
        return Feature(f"{name}.{kind}" if kind in _CALENDAR else name, name, kind)
    common = sorted(seen.counts.items(), key=lambda one: (-one[1], one[0]))[:CATEGORIES]
    return Feature(name, name, kind, tuple(text for text, _ in common))


def check_finite(values: NDArray[Any], column: str) -> None:
    """Refuse what is infinite, or is in 32 bits.

    Raises:
        JobError: DataError, saying how many.
    """
    with np.errstate(invalid="ignore"):
        infinite = int((np.abs(values) > _LARGEST).sum())
    if infinite:
        raise JobError(
            Reason.DATA_ERROR,
            f"{FIELD}: column `{column}` holds {infinite:,} infinite value{'' if infinite == 1 else 's'} (or above "
            f"{_LARGEST:.1e}): make them null where the data are written, leave such rows out by spec.source.filter, "
            f"or leave the column out by {FIELD}.exclude",
        )


def decoded(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """A column without a dictionary around its values."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def wall(column: pa.Array | pa.ChunkedArray, time_zone: str | None) -> pa.Array | pa.ChunkedArray:
    """Dates and timestamps on the wall clock: of `time_zone` if there is one, else of the column's own."""
    kind = column.type
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        return column
    return pc.local_timestamp(column.cast(pa.timestamp(kind.unit, time_zone or kind.tz)))


def _calendar(kind: Kind, times: pa.Array | pa.ChunkedArray) -> Floats32:
    if kind is Kind.WEEKDAY:
        return _numbers(pc.day_of_week(times))
    if kind is Kind.DAY:
        return _numbers(pc.day(times))
    minutes = pc.add(pc.multiply(pc.hour(times), 60), pc.minute(times))
    return _numbers(pc.divide(pc.cast(minutes, pa.float64()), 60.0))


def _values(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """Numbers, booleans and times as doubles; null is NaN."""
    kind = column.type
    if pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    column = column.cast(pa.float64(), safe=False)
    return np.asarray(column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy())


def _numbers(column: pa.Array | pa.ChunkedArray) -> Floats32:
    with np.errstate(over="ignore"):  # what is too large is infinite, and refused
        return _values(column).astype(np.float32)
