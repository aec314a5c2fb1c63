"""Small complete runs, written without reading a source."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from almanac.api import Output, Storage
from almanac_jobs import tables
from almanac_jobs.artefacts import RunWriter, prune
from almanac_jobs.buckets import bucket_of
from almanac_jobs.calendar import Calendar, Frequency
from almanac_jobs.forecast import arima, fit
from almanac_jobs.history import history_table
from series import batch, simulated

CALENDAR = Calendar(Frequency.parse("D"), pa.date32())
HORIZON, INTERVALS = 5, (80, 95)


def made(entities: list[Any], kind: pa.DataType | None = None, seed: int = 1) -> dict[int, dict[str, pa.Table]]:
    """Tables of ARIMA(1,1,1) forecasts for some entities, by bucket, of four."""
    column = pa.array(entities, kind or pa.string())
    buckets = bucket_of(column, 4)
    one = batch(*simulated(len(entities), 60, seed))
    out = {}
    for bucket in range(4):
        rows = np.flatnonzero(buckets == bucket)
        rows = rows[np.argsort([str(entities[row]) for row in rows], kind="stable")].astype(np.int64)
        part = one.take(rows)
        parameters = fit.fit(part, part.observed, arima.ForecastModel(), 10)
        names, ends = column.take(pa.array(rows)), CALENDAR.times(part.end)
        times = tables.future_times(CALENDAR, part.end, HORIZON)
        out[bucket] = {
            "forecasts": tables.forecasts_table(names, times, fit.forecast(parameters, HORIZON), INTERVALS, None),
            "parameters": tables.parameters_table(names, parameters, ends),
            "history": history_table(names, part, ends, 20),
        }
    return out


def report(parts: dict[int, dict[str, pa.Table]], began: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    """What report.json needs to be read back."""
    kind = parts[0]["parameters"].schema.field("entity").type
    return {
        "job": {"kind": "ForecastJob", "namespace": "default", "name": "made"},
        "entities": sum(len(part["parameters"]) for part in parts.values()),
        "startTime": began,
        "endTime": began,
        "buckets": 4,
        "entityType": str(kind),
        "forecasting": {"frequency": "D", "timeZone": None, "intervals": list(INTERVALS), "floor": None},
    }


def write_run(
    uri: str,
    run: str,
    entities: list[Any] | None = None,
    *,
    storage: Storage | None = None,
    began: str = "2026-01-01T00:00:00Z",
    keep: int | None = None,
    kind: pa.DataType | None = None,
) -> RunWriter:
    """Write and publish a run."""
    parts = made(entities or ["a", "b", "c"], kind)
    writer = RunWriter(Output(uri=uri, keep_runs=keep), storage, run)
    for bucket, named in parts.items():
        writer.write(bucket, named)
    writer.write_page("<p>run</p>")
    record = writer.publish(report(parts, began))
    if keep is not None:
        prune(writer.output, record, keep, datetime.fromisoformat(began))
    return writer
