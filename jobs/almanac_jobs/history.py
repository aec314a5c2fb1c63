"""The end of each entity's history, as a run keeps it beside its forecasts: a chart needs it long after the source has changed.

Pure: arrays in, tables out, and back.
"""

from __future__ import annotations

import pyarrow as pa

from almanac_jobs.forecast.types import SeriesBatch


def history_table(entities: pa.Array, batch: SeriesBatch, end_times: pa.Array, periods: int) -> pa.Table:
    """One row an entity: `values`, its last periods (at most `periods`, see `highlights.history_periods`), oldest first,
    null where nothing was observed; and `end`, the time of the last one.

    `end_times` are null for entities without an observation, whose lists are empty. A list takes a fraction of the
    space and time that a row a period would.
    """
    tail = batch.tail(periods).values
    values = pa.array(tail.values, from_pandas=True)
    lists = pa.ListArray.from_arrays(pa.array(tail.offsets, pa.int32()), values)
    return pa.table({"entity": entities, "end": end_times, "values": lists})
