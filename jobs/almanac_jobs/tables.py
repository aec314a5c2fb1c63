"""What a run's tables hold: forecasts and fitted models as Arrow tables, models back from them, tables as Parquet.

Pure: arrays and tables in, tables and bytes out. The same input gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from almanac_jobs.calendar import Calendar
from almanac_jobs.forecast import fit
from almanac_jobs.forecast.types import Floats, Forecast, Ints, Parameters, Ragged, Strings


def future_times(calendar: Calendar, end: Ints, horizon: int) -> pa.Array:
    """The `horizon` periods after each period of `end`, as the calendar's times, those of one end side by side."""
    return calendar.times((end[:, None] + np.arange(1, horizon + 1)).reshape(-1))


def forecasts_table(
    entities: pa.Array, times: pa.Array, forecast: Forecast, intervals: Sequence[float], floor: float | None
) -> pa.Table:
    """One row an entity and period: entity, time, mean, and `lo80`, `hi80` ... for each level of `intervals`.

    `entities` are n, in the order that rows are to have; `times` are n * horizon, those of an entity side by side
    (`future_times`). Nothing is below `floor`. Entities without a forecast have no row; a bound that the model does not
    give is null.
    """
    n, horizon = forecast.mean.shape
    columns = {"mean": forecast.mean if floor is None else np.maximum(forecast.mean, floor)}
    for level in intervals:
        columns[f"lo{level:g}"], columns[f"hi{level:g}"] = forecast.interval(level, floor)
    kept = np.flatnonzero(~np.isnan(forecast.mean).all(axis=1))
    if len(kept) < n:
        times = times.take(pa.array((kept[:, None] * horizon + np.arange(horizon)).reshape(-1)))
        columns = {name: values[kept] for name, values in columns.items()}
    arrays = {name: _nullable(values.reshape(-1)) for name, values in columns.items()}
    return pa.table({"entity": entities.take(pa.array(np.repeat(kept, horizon))), "time": times, **arrays})


def parameters_table(entities: pa.Array, parameters: Parameters, end_times: pa.Array) -> pa.Table:
    """One row an entity: its fitted model, as `Parameters` has it, and `end`, the last period that it was fitted to.

    `end_times` are null for entities without an observation. Coefficients become a map by their names.
    """
    return pa.table(
        {
            "entity": entities,
            "model": pa.array(parameters.model, pa.string()),
            "form": pa.array(parameters.form, pa.string()),
            "status": pa.array(parameters.status, pa.string()),
            "coefficients": _named(parameters),
            "sigma2": _nullable(parameters.sigma2),
            "loglik": _nullable(parameters.loglik),
            "aicc": _nullable(parameters.aicc),
            "observations": pa.array(parameters.observations, pa.int64()),
            "end": end_times,
            "state": _lists(parameters.state),
            "state_cov": _lists(parameters.state_cov),
        }
    )


def parameters_from_table(table: pa.Table) -> Parameters:
    """The parameters of the rows of `table`, in their order: the inverse of `parameters_table`."""
    column = {name: table.column(name).combine_chunks() for name in table.column_names}
    coefficients = column["coefficients"]
    return Parameters(
        model=_strings(column["model"]),
        form=_strings(column["form"]),
        status=_strings(column["status"]),
        coefficients=_ragged(coefficients.offsets, coefficients.items),
        sigma2=_floats(column["sigma2"]),
        loglik=_floats(column["loglik"]),
        aicc=_floats(column["aicc"]),
        observations=column["observations"].to_numpy(),
        state=_ragged(column["state"].offsets, column["state"].values),
        state_cov=_ragged(column["state_cov"].offsets, column["state_cov"].values),
    )


FOOTER = 60_000
"""Bytes that a file's footer may take: readers fetch the last 64 KiB of a file first, so that it takes one request."""
_CHUNK = 110  # bytes of the footer that a column takes in each row group
# Dictionaries pay for columns that repeat themselves; floats would take a fifth more with them.
_REPETITIVE = ("entity", "time", "end", "model", "form", "status")


def parquet(table: pa.Table) -> pa.Buffer:
    """`table` as Parquet for two kinds of readers, of all and of one entity. Rows are sorted by entity, then time.

    No entity is cut by the end of a row group. There are as many groups as make the footer as large as a group is,
    since these two are what is read for one entity, but not so many that the footer takes a second request.
    """
    names = table.schema.names
    leaves = sum(2 if pa.types.is_map(kind) else 1 for kind in table.schema.types)
    groups = min(math.isqrt(table.nbytes // (leaves * _CHUNK)), FOOTER // (leaves * _CHUNK))
    sink = pa.BufferOutputStream()
    writer = pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in _REPETITIVE if name in names],
        sorting_columns=[pq.SortingColumn(names.index(name)) for name in ("entity", "time") if name in names],
    )
    with writer:
        for part in _cut(table, max(groups, 1)):
            writer.write_table(part, row_group_size=max(len(part), 1))
    return sink.getvalue()


def _cut(table: pa.Table, parts: int) -> Iterator[pa.Table]:
    """`table` in at most `parts` parts of about equal numbers of entities."""
    if not len(table):
        yield table
        return
    entity = table.column("entity").combine_chunks()
    changes = pc.not_equal(entity.slice(1), entity.slice(0, len(entity) - 1))
    starts = np.concatenate(([0], np.flatnonzero(changes.to_numpy(zero_copy_only=False)) + 1))
    bounds = [*starts[:: -(-len(starts) // parts)].tolist(), len(entity)]
    for start, end in pairwise(bounds):
        yield table.slice(start, end - start)


def _named(parameters: Parameters) -> pa.MapArray:
    """The coefficients as maps from name to value; names are looked up once for each form."""
    coefficients = parameters.coefficients
    kinds, kind = np.unique(np.stack((parameters.model, parameters.form)), axis=1, return_inverse=True)
    keys = np.empty(len(coefficients.values), object)
    for i, (model, form) in enumerate(kinds.T.tolist()):
        names = fit.terms(model, form)
        starts = coefficients.offsets[:-1][kind == i]
        keys[starts[:, None] + np.arange(len(names))] = names
    return pa.MapArray.from_arrays(
        pa.array(coefficients.offsets, pa.int32()), pa.array(keys, pa.string()), pa.array(coefficients.values)
    )


def _nullable(values: Floats) -> pa.Array:
    """Floats as Arrow has them, without a copy; NaN is null."""
    return pa.array(values, from_pandas=True)


def _floats(column: pa.Array) -> Floats:
    values: Floats = column.to_numpy(zero_copy_only=False)  # null is NaN
    return values


def _strings(column: pa.Array) -> Strings:
    return np.array(column.to_pylist(), dtype=np.str_)


def _lists(lists: Ragged) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(lists.offsets, pa.int32()), pa.array(lists.values))


def _ragged(offsets: pa.Array, values: pa.Array) -> Ragged:
    """Lists without a copy. Of a slice, offsets are its own and values the whole column's, which they index."""
    bounds = offsets.to_numpy().astype(np.int64)
    return Ragged(values.to_numpy()[bounds[0] : bounds[-1]], bounds - bounds[0])
