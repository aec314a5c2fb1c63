"""The rows of an AnomalyJob: who, when, what is known of them, and the features that they are judged by.

Keys and what preset ledger needs are kept in memory. Features are, too, where memory holds them; else they lie in files
of a folder that is gone with the run, and the source is read twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from almanac.api import AnomalySpec, JobError, Preset, Reason
from almanac_jobs import source
from almanac_jobs.anomaly.features import Floats32, Kind, Learner, Schema, candidates, check_names, decoded, kinds_of
from almanac_jobs.anomaly.ledger import Ledger, everywhere
from almanac_jobs.anomaly.matrix import Flags, Ints, Matrix, Resident, Spooled
from almanac_jobs.calendar import check_zone
from almanac_jobs.crew import Crew, Held, Reach
from almanac_jobs.source import Counts, Dataset, Portion
from almanac_jobs.source.columns import plain

RESIDENT, EXTERNAL = 16, 0.5
"""Bytes that each feature of a row takes at most, by where features lie."""
KEYS, LEDGER = 96, 256
"""Bytes that a row takes besides: for its keys and results, and for preset ledger."""
SHARE = 0.6
"""Share of the memory that features may take before they go to the disk."""


@dataclass(frozen=True, slots=True)
class Share:
    """n rows that lie in one place. `keys` have columns entity, time and, where the job names one, id; `labels` are
    None without a label."""

    keys: pa.Table
    matrix: Matrix
    labels: Flags | None
    history: pa.Table | None
    """What preset ledger was made of."""

    @property
    def ticks(self) -> Ints:
        """The time of each row as a number."""
        time = self.keys.column("time")
        return np.asarray(time.cast(pa.int32() if pa.types.is_date32(time.type) else pa.int64()).to_numpy(), np.int64)


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows, in shares of so many rows each (`sizes`), which follow one another."""

    shares: Held[Share]
    sizes: tuple[int, ...]
    schema: Schema
    ledger: Ledger | None
    left_out: Mapping[str, str]
    """Columns that make no feature, with the reason."""
    counts: Counts
    positives: int | None
    """Rows labelled odd; None without a label."""
    external: bool
    """Whether features lie on the disk."""

    @property
    def count(self) -> int:
        return sum(self.sizes)


def open_source(spec: AnomalySpec) -> Dataset:
    """Look at the source of a job, and hold the columns that it names against it.

    Raises:
        JobError: as `source.open_columns` does; DataError for columns that cannot be what they are to be.
    """

    def wanted(types: Mapping[str, pa.DataType]) -> dict[str, str]:
        check_names(spec.features, types)
        fields: dict[str, str] = {}
        if spec.label is not None:
            fields[spec.label] = "spec.label"
        ledger = _ledger(spec, types)
        if ledger is not None:
            ledger.check({name: plain(kind) for name, kind in types.items()})
            fields |= dict.fromkeys(ledger.needed, "spec.features.ledger")
        return fields | dict.fromkeys(candidates(spec.features, types, _roles(spec)), "spec.features")

    return source.open_columns(spec.source, spec.storage, wanted)


def need(spec: AnomalySpec, dataset: Dataset, *, external: bool) -> int:
    """Bytes of memory that the rows of a source take at most."""
    features = sum(len(kinds_of(kind)) for kind in dataset.types.values())
    each = KEYS + features * (EXTERNAL if external else RESIDENT)
    each += LEDGER if spec.features.preset is Preset.LEDGER else 0
    return int(dataset.rows * each)


def read(
    spec: AnomalySpec,
    types: Mapping[str, pa.DataType],
    parts: Sequence[Dataset | Portion],
    crew: Crew,
    *,
    external: bool,
    most: int | None = None,
) -> Rows:
    """Read all rows of a source that have an entity and a time, or the first `most` of them.

    `types` are those of the source's columns, `parts` are for one place each. Features are kept in memory, or on the
    disk if they are to be `external`. `crew` counts the rows that are gone through.

    Raises:
        JobError: as `source.scan` does; DataError for values that cannot be learnt from; SourceEmpty.
    """
    if spec.source.time_zone:
        check_zone(spec.source.time_zone, "spec.source.timeZone")
    reading = Reading(spec, {name: plain(kind) for name, kind in types.items()}, external, most)
    places = crew.deal(parts)
    raw = crew.counted(reading.look, places)
    learners, counts, labels = zip(*crew.fetch(crew.each(_seen, raw)), strict=True)
    learner, whole = learners[0], counts[0]
    for other, number in zip(learners[1:], counts[1:], strict=True):
        learner.merge(other)
        whole = whole + number
    _check_rows(spec, whole)
    pa.default_memory_pool().release_unused()  # reading begins anew
    ledger = reading.ledger
    schema, left_out = learner.finish(spec.source.time_zone)
    extra = None if ledger is None else everywhere(crew, ledger, crew.each(_history, raw))
    if not schema.features and ledger is None:
        raise _no_features(left_out)
    if spec.label is not None:
        _check_label(labels, spec.label)
    shares = crew.each(reading.encode, places, raw, schema, extra)
    sizes, positives = zip(*crew.fetch(crew.each(_size, shares)), strict=True)
    pa.default_memory_pool().release_unused()  # what reading took is for XGBoost now
    features = (*schema.features, *(ledger.features if ledger else ()))
    known = None if spec.label is None else sum(positives)
    return Rows(shares, sizes, replace(schema, features=features), ledger, left_out, whole, known, external)


@dataclass(slots=True)
class Raw:
    """Rows as they were read, until it is known what features they have; `kept` is let go of on the way, and None where
    they are read again for that."""

    learner: Learner
    counts: Counts
    keys: pa.Table
    history: pa.Table | None
    label: pa.ChunkedArray | None
    kept: list[pa.Table] | None


@dataclass(frozen=True, slots=True)
class Reading:
    """How the rows of one place are read."""

    spec: AnomalySpec
    types: Mapping[str, pa.DataType]
    external: bool
    most: int | None

    @property
    def ledger(self) -> Ledger | None:
        return _ledger(self.spec, self.types)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that features may be made of."""
        return candidates(self.spec.features, self.types, _roles(self.spec))

    def look(self, part: Dataset | Portion, reach: Reach) -> Raw:
        """Read them, and learn what there is. Raises as `read` does."""
        spec, ledger = self.spec, self.ledger
        learner = Learner(spec.features, self.types, self.names)
        raw = Raw(learner, Counts(0), pa.table({}), None, None, None if self.external else [])
        keys: list[pa.Table] = []
        history: list[pa.Table] = []
        labels: list[pa.Array] = []
        for batch, done, raw.counts in self._batches(part):
            learner.add(batch)
            keys.append(batch.select(_keys(spec)))
            history += [batch.select(ledger.needed)] if ledger else []
            labels += batch.column(spec.label).chunks if spec.label is not None else []
            if raw.kept is not None:
                raw.kept.append(batch.select(self.names))
            reach(done)
        none = pa.table({name: pa.array([], kind) for name, kind in self.types.items()})  # of which there may be no row
        raw.keys = pa.concat_tables([none.select(_keys(spec)), *keys]).rename_columns(
            ["entity", "time", "id"][: len(_keys(spec))]
        )
        raw.keys = raw.keys.combine_chunks()
        raw.history = pa.concat_tables([none.select(ledger.needed), *history]) if ledger else None
        raw.label = None if spec.label is None else pa.chunked_array(labels, self.types[spec.label])
        return raw

    def encode(self, part: Dataset | Portion, raw: Raw, schema: Schema, extra: Floats32 | None) -> Share:
        """Make their features, of which `extra` are those of preset ledger."""
        if raw.kept is None:
            matrix: Matrix = Spooled(_encoded(schema, (batch for batch, _, _ in self._batches(part)), extra))
        else:
            matrix = Resident(_together(schema, raw.kept, extra))
        labels = None if raw.label is None else _flags(raw.label)
        return Share(raw.keys, matrix, labels, raw.history)

    def _batches(self, part: Dataset | Portion) -> Iterator[tuple[pa.Table, int, Counts]]:
        """Rows that have an entity and a time, with all columns of the source, and what was counted so far."""
        columns, left = self.spec.source.columns, self.most
        counts = Counts(0)
        dataset = part.open() if isinstance(part, Portion) else part
        for batch, done in source.scan(dataset, frugal=self.external):
            table = pa.table({name: decoded(batch.column(name)).cast(kind) for name, kind in self.types.items()})
            named, timed = (pc.is_valid(table.column(name)) for name in (columns.entity, columns.time))
            kept = table.filter(pc.and_(named, timed))
            nameless = len(table) - pc.sum(named).as_py() if len(table) else 0
            counts = Counts(
                rows=counts.rows + len(table),
                null_entities=counts.null_entities + nameless,
                null_times=counts.null_times + len(table) - nameless - len(kept),
            )
            if left is not None:
                kept = kept.slice(0, left)
                left -= len(kept)
            yield kept, done, counts
            if left == 0:
                return


def _seen(raw: Raw) -> tuple[Learner, Counts, pa.Array | None]:
    return raw.learner, raw.counts, None if raw.label is None else pc.unique(raw.label)


def _history(raw: Raw) -> pa.Table | None:
    return raw.history


def _size(share: Share) -> tuple[int, int]:
    return share.matrix.rows, 0 if share.labels is None else int(share.labels.sum())


def prepared(table: pa.Table, schema: Schema, ledger: Ledger | None, history: pa.Table | None) -> Floats32:
    """The features of other rows, for a model that has learnt: `history` are the rows that preset ledger was made of.

    Of these, those count that are earlier than all rows of `table`.

    Raises:
        JobError: DataError for columns that are missing or of other types.
    """
    made = schema.encode(table)
    if ledger is None:
        return made
    missing = [name for name in ledger.needed if name not in table.column_names]
    if missing:
        raise JobError(
            Reason.DATA_ERROR, f"spec.features.ledger: there is no column `{missing[0]}`: the model needs it"
        )
    new = pa.table({name: decoded(table.column(name)) for name in ledger.needed})
    if history is None or not len(new):
        return np.concatenate([made, ledger.encode(new)], axis=1)
    first = pc.min(new.column(ledger.time))
    before = history.filter(pc.less(history.column(ledger.time), first.cast(history.schema.field(ledger.time).type)))
    try:
        whole = pa.concat_tables([before, new.cast(history.schema)])
    except pa.ArrowInvalid as error:
        raise JobError(Reason.DATA_ERROR, f"spec.features.ledger: a column is of another type: {error}") from error
    return np.concatenate([made, ledger.encode(whole)[len(before) :]], axis=1)


def _keys(spec: AnomalySpec) -> list[str]:
    columns = spec.source.columns
    return [name for name in (columns.entity, columns.time, columns.id) if name is not None]


def _roles(spec: AnomalySpec) -> list[str]:
    """Columns that are no features by themselves, unless they are named."""
    told = spec.features.ledger.model_dump(exclude_none=True) if spec.features.preset is Preset.LEDGER else {}
    return [*_keys(spec), *([spec.label] if spec.label is not None else []), *told.values()]


def _ledger(spec: AnomalySpec, types: Mapping[str, pa.DataType]) -> Ledger | None:
    columns = spec.source.columns
    if spec.features.preset is not Preset.LEDGER:
        return None
    hours = columns.time in types and pa.types.is_timestamp(types[columns.time])
    return Ledger(spec.features.ledger, columns.entity, columns.time, hours, spec.source.time_zone)


def _check_rows(spec: AnomalySpec, counts: Counts) -> None:
    if not counts.rows:
        raise JobError(
            Reason.SOURCE_EMPTY, f"spec.source.filter: no row of `{spec.source.place}` meets `{spec.source.filter}`"
        )
    if counts.rows == counts.null_entities + counts.null_times:
        raise JobError(
            Reason.DATA_ERROR,
            f"spec.source.columns: no row of `{spec.source.place}` has both entity and time: of {counts.rows}, "
            f"{counts.null_entities} have no `{spec.source.columns.entity}` and {counts.null_times} no "
            f"`{spec.source.columns.time}`",
        )


def _together(schema: Schema, kept: list[pa.Table], extra: Floats32 | None) -> Floats32:
    """All features in one array; each batch is let go of once it is encoded."""
    width = len(schema.features) + (extra.shape[1] if extra is not None else 0)
    made = np.empty((sum(map(len, kept)), width), np.float32)
    start = 0
    kept.reverse()
    while kept:
        part = schema.encode(kept.pop())
        made[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    if extra is not None:
        made[:, len(schema.features) :] = extra
    return made


def _encoded(schema: Schema, batches: Iterator[pa.Table], extra: Floats32 | None) -> Iterator[Floats32]:
    start = 0
    for batch in batches:
        part = schema.encode(batch)
        if extra is not None:
            part = np.concatenate([part, extra[start : start + len(part)]], axis=1)
        start += len(part)
        yield part


def _check_label(found: Sequence[pa.Array], name: str) -> None:
    """Hold the different values of a label, of each place, against what a label is.

    Raises:
        JobError: DataError for a label that is neither boolean nor 0 and 1, or is the same for all rows that have one.
    """
    kind = found[0].type
    wrong = f"spec.label: column `{name}`"
    if not (pa.types.is_boolean(kind) or kinds_of(kind) == (Kind.NUMBER,)):
        raise JobError(
            Reason.DATA_ERROR,
            f"{wrong} is of type {kind}: write true and false, or 1 and 0, where the data are written",
        )
    every = pa.chunked_array(found)
    values = pc.unique(every).drop_null().cast(pa.float64(), safe=False).to_pylist()
    others = sorted(set(values) - {0.0, 1.0})
    if others:
        raise JobError(
            Reason.DATA_ERROR,
            f"{wrong} holds {len(values)} different values, {others[0]:g} among them: a label is 1 or true for rows "
            "that are known to be odd, 0 or false for others",
        )
    if set(values) == {1.0} and not every.null_count:
        raise JobError(Reason.DATA_ERROR, f"{wrong} says of every row that it is odd: there is nothing to tell apart")


def _flags(column: pa.ChunkedArray) -> Flags:
    """A label as flags; null is false."""
    return np.asarray(np.asarray(pc.fill_null(column.cast(pa.float64(), safe=False), 0.0)) == 1)


def _no_features(left_out: Mapping[str, str]) -> JobError:
    told = "; ".join(f"`{name}` {why}" for name, why in list(left_out.items())[:5])
    return JobError(
        Reason.DATA_ERROR,
        "spec.features: no column is left to judge rows by"
        + (f": {told}" if told else ": the source has none besides entity, time, id and label")
        + ": add columns, or choose preset ledger",
    )
