"""The end of each entity's history, which a run keeps beside its forecasts: charts need it when the source has changed.

Pure: arrays in, tables out.
"""

from __future__ import annotations

import pyarrow as pa

from almanac_jobs.forecast.types import SeriesBatch


def history_table(entities: pa.Array, batch: SeriesBatch, end_times: pa.Array, periods: int) -> pa.Table:
    """One row an entity: `values`, its last `periods` periods or fewer, oldest first, and `end`, the last one's time.

    Null is a period in which nothing was observed; no list starts with one. `end_times` are null for entities without
    an observation, whose lists are empty. `highlights.history_periods` says how many periods a chart needs. A list
    takes a fraction of the space and time that a row a period would.
    """
    tail = batch.tail(periods).values
    values = pa.array(tail.values, from_pandas=True)
    lists = pa.ListArray.from_arrays(pa.array(tail.offsets, pa.int32()), values)
    return pa.table({"entity": entities, "end": end_times, "values": lists})
