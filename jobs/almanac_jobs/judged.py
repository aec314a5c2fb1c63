"""The rows of an AnomalyJob: who, when, what is known of them, and the features that they are judged by.

Keys and what preset ledger needs are kept in memory. Features are, too, where memory holds them; else they lie in files
of a folder that is gone with the run, and the source is read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from almanac.api import AnomalySpec, JobError, Preset, Reason
from almanac_jobs import source
from almanac_jobs.anomaly.features import Floats32, Kind, Learner, Schema, candidates, check_names, decoded, kinds_of
from almanac_jobs.anomaly.ledger import Ledger
from almanac_jobs.anomaly.matrix import Matrix, Resident, Spooled
from almanac_jobs.calendar import check_zone
from almanac_jobs.source import Counts, Dataset
from almanac_jobs.source.columns import plain

Flags = NDArray[np.bool_]

RESIDENT, EXTERNAL = 16, 0.5
"""Bytes that each feature of a row takes at most, by where features lie."""
KEYS, LEDGER = 96, 256
"""Bytes that a row takes besides: for its keys and results, and for preset ledger."""
SHARE = 0.6
"""Share of the memory that features may take before they go to the disk."""


@dataclass(frozen=True, slots=True)
class Rows:
    """n rows. `keys` have columns entity, time and, where the job names one, id; `labels` are None without a label."""

    keys: pa.Table
    matrix: Matrix
    schema: Schema
    ledger: Ledger | None
    history: pa.Table | None
    """What preset ledger was made of."""
    labels: Flags | None
    left_out: Mapping[str, str]
    """Columns that make no feature, with the reason."""
    counts: Counts

    @property
    def ticks(self) -> NDArray[np.int64]:
        """The time of each row as a number."""
        time = self.keys.column("time")
        return np.asarray(time.cast(pa.int32() if pa.types.is_date32(time.type) else pa.int64()).to_numpy(), np.int64)


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
    spec: AnomalySpec, dataset: Dataset, folder: Path | None, reach: Callable[[int], None], most: int | None = None
) -> Rows:
    """Read all rows of a source that have an entity and a time, or the first `most` of them.

    `folder` is where features are to lie; None keeps them in memory. `reach` hears how many rows are gone through.

    Raises:
        JobError: as `source.scan` does; DataError for values that cannot be learnt from; SourceEmpty.
    """
    if spec.source.time_zone:
        check_zone(spec.source.time_zone, "spec.source.timeZone")
    types = {name: plain(kind) for name, kind in dataset.types.items()}
    ledger = _ledger(spec, types)
    names = candidates(spec.features, types, _roles(spec))
    learner = Learner(spec.features, types, names)
    keys: list[pa.Table] = []
    history: list[pa.Table] = []
    labels: list[pa.ChunkedArray] = []
    kept: list[pa.Table] = []
    counts = Counts(0)
    frugal = folder is not None
    for batch, done, so_far in _batches(dataset, types, spec, most, frugal=frugal):
        learner.add(batch)
        keys.append(batch.select(_keys(spec)))
        history += [batch.select(ledger.needed)] if ledger else []
        labels += [batch.column(spec.label)] if spec.label is not None else []
        kept += [batch.select(names)] if folder is None else []
        counts = so_far
        reach(done)
    _check_rows(spec, counts)
    schema, left_out = learner.finish(spec.source.time_zone)
    past = pa.concat_tables(history) if ledger else None
    extra = ledger.encode(past) if ledger and past is not None else None
    if not schema.features and ledger is None:
        raise _no_features(left_out)
    if folder is None:
        matrix: Matrix = Resident(_together(schema, kept, extra))
    else:
        again = (batch for batch, _, _ in _batches(dataset, types, spec, most, frugal=frugal))
        matrix = Spooled.of(folder, _encoded(schema, again, extra))
    pa.default_memory_pool().release_unused()  # what reading took is for XGBoost now
    whole = replace(schema, features=(*schema.features, *(ledger.features if ledger else ())))
    table = pa.concat_tables(keys).rename_columns(["entity", "time", "id"][: len(_keys(spec))]).combine_chunks()
    known = (
        None if spec.label is None else _flags(pa.chunked_array([c for one in labels for c in one.chunks]), spec.label)
    )
    return Rows(table, matrix, whole, ledger, past, known, left_out, counts)


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


def _batches(
    dataset: Dataset, types: Mapping[str, pa.DataType], spec: AnomalySpec, most: int | None, *, frugal: bool
) -> Iterator[tuple[pa.Table, int, Counts]]:
    """Rows that have an entity and a time, with all columns of the data set's types, and what was counted so far."""
    columns, left = spec.source.columns, most
    counts = Counts(0)
    for batch, done in source.scan(dataset, frugal=frugal):
        table = pa.table({name: decoded(batch.column(name)).cast(kind) for name, kind in types.items()})
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


def _flags(column: pa.ChunkedArray, name: str) -> Flags:
    """A label as flags; null is false.

    Raises:
        JobError: DataError for a label that is neither boolean nor 0 and 1, or is the same for all rows that have one.
    """
    kind = column.type
    wrong = f"spec.label: column `{name}`"
    if not (pa.types.is_boolean(kind) or kinds_of(kind) == (Kind.NUMBER,)):
        raise JobError(
            Reason.DATA_ERROR,
            f"{wrong} is of type {kind}: write true and false, or 1 and 0, where the data are written",
        )
    values = pc.unique(column).drop_null().cast(pa.float64(), safe=False).to_pylist()
    others = sorted(set(values) - {0.0, 1.0})
    if others:
        raise JobError(
            Reason.DATA_ERROR,
            f"{wrong} holds {len(values)} different values, {others[0]:g} among them: a label is 1 or true for rows "
            "that are known to be odd, 0 or false for others",
        )
    flags: Flags = np.asarray(pc.fill_null(column.cast(pa.float64(), safe=False), 0.0).to_numpy()) == 1
    if flags.all():
        raise JobError(Reason.DATA_ERROR, f"{wrong} says of every row that it is odd: there is nothing to tell apart")
    return flags


def _no_features(left_out: Mapping[str, str]) -> JobError:
    told = "; ".join(f"`{name}` {why}" for name, why in list(left_out.items())[:5])
    return JobError(
        Reason.DATA_ERROR,
        "spec.features: no column is left to judge rows by"
        + (f": {told}" if told else ": the source has none besides entity, time, id and label")
        + ": add columns, or choose preset ledger",
    )
