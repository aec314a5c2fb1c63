"""What was observed, one value an entity and period, and how it becomes series. Pure: arrays in, arrays out."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from almanac.api import JobError, Missing, Reason
from almanac_jobs.calendar import Calendar, Frequency
from almanac_jobs.forecast.types import Floats, Ints, Ragged, SeriesBatch


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows that were read, and what became of them."""

    rows: int
    """Rows that meet the filter."""
    null_entities: int = 0
    """Rows left out because they name no entity."""
    null_times: int = 0
    """Rows left out because they have an entity but no time."""
    null_values: int = 0
    """Rows left out because they have an entity and a time, but no value (null or NaN)."""
    merged: int = 0
    """Rows that share entity and period with another and became one value with it."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Observations:
    """Values of entities on a grid of periods, as rows (entity, period, value) sorted by entity and period.

    `entities` are distinct, of the source's own type, sorted by `bucket` and then by themselves; an entity whose values
    are all null is there and has no row. `bucket` is each one's bucket of `buckets` (see `almanac_jobs.buckets`). The
    rows of entity i are `offsets[i]` to `offsets[i + 1]` of `period` and `value`; its periods are distinct.
    """

    entities: pa.Array
    bucket: NDArray[np.int32]
    buckets: int
    offsets: Ints
    period: Ints
    value: Floats
    calendar: Calendar
    last_period: int
    """The last period of any entity: where series end under the policy `zero`."""
    counts: Counts
    """Rows that were read for these, as far as the process that has them has read them."""

    def __len__(self) -> int:
        """Number of entities."""
        return len(self.entities)

    @property
    def frequency(self) -> Frequency:
        return self.calendar.frequency

    @property
    def time_type(self) -> pa.DataType:
        """Type of the source's times, which times in results have as well."""
        return self.calendar.time_type

    @property
    def entity(self) -> NDArray[np.int32]:
        """The index of each row's entity."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.offsets))

    def series(self, first: int, last: int, missing: Missing) -> tuple[SeriesBatch, Ints]:
        """The series of entities `first` to `last` (not included), and the number of observed periods of each.

        What a period without a row becomes follows from `missing`: 0, a value on the line between its neighbours, or
        NaN. Under `zero` every series reaches to `last_period`, under the others to its own last row. An entity without
        a row has an empty series.

        Raises:
            JobError: DataError under `fail`, naming the first entity and period without a row.
        """
        start, end = self.offsets[first], self.offsets[last]
        period, value = self.period[start:end], self.value[start:end]
        counts = np.diff(self.offsets[first : last + 1])
        some = counts > 0
        heads = (self.offsets[first:last] - start)[some]
        begin, finish = np.zeros(last - first, np.int64), np.full(last - first, self.last_period)
        begin[some] = period[heads]
        if missing is not Missing.ZERO:
            finish[some] = period[heads + counts[some] - 1]
        lengths = np.where(some, finish - begin + 1, 0)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        position = period + np.repeat(offsets[:-1] - begin, counts)
        if missing is Missing.FAIL and offsets[-1] > len(position):
            raise self._gap(first, np.repeat(np.arange(last - first), counts), period)
        return SeriesBatch(Ragged(_filled(position, value, offsets[-1], missing), offsets), finish), counts

    def of_bucket(self, bucket: int) -> tuple[int, int]:
        """The first entity of a bucket, and the one after its last."""
        first, last = np.searchsorted(self.bucket, [bucket, bucket + 1]).tolist()
        return first, last

    def head(self, periods: int) -> Observations:
        """The same, with the first `periods` rows of every entity only, and ending where these do."""
        kept = np.arange(len(self.period)) - np.repeat(self.offsets[:-1], np.diff(self.offsets)) < periods
        lengths = np.minimum(np.diff(self.offsets), periods)
        return replace(
            self,
            offsets=np.concatenate(([0], np.cumsum(lengths))),
            period=self.period[kept],
            value=self.value[kept],
            last_period=int(self.period[kept].max()) if kept.any() else self.last_period,
        )

    def _gap(self, first: int, entity: Ints, period: Ints) -> JobError:
        at = np.flatnonzero((np.diff(entity) == 0) & (np.diff(period) > 1))[0]
        name, when = self.entities[first + entity[at]].as_py(), self.calendar.label(period[at] + 1)
        return JobError(
            Reason.DATA_ERROR,
            f"spec.missing: entity `{name}` has no row for {when}, and gaps are to fail: add it, or choose what a gap "
            "means (zero, interpolate, drop)",
        )


def _filled(position: Ints, value: Floats, length: int, missing: Missing) -> Floats:
    """`length` periods with `value` at `position`, which increases, and elsewhere what `missing` says."""
    if len(position) == length:
        return value.copy()
    filled = np.full(length, 0.0 if missing is Missing.ZERO else np.nan)
    if missing is Missing.INTERPOLATE:
        gap = np.ones(length, np.bool_)
        gap[position] = False
        gaps = np.flatnonzero(gap)
        after = np.searchsorted(position, gaps)
        left, right = position[after - 1], position[after]
        with np.errstate(invalid="ignore", over="ignore"):  # beside an infinity, which the fit reports
            slope = (value[after] - value[after - 1]) / (right - left)
            filled[gaps] = value[after - 1] + slope * (gaps - left)
    filled[position] = value
    return filled
