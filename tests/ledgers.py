"""Small ledgers as Parquet, and jobs that forecast them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

FIRST_DAY = np.datetime64("2026-01-05")


def ledger(entities: int, days: int, seed: int = 7) -> pa.Table:
    """A row for each entity and day: `account`, `date`, `amount`, days in order; amounts have a weekly pattern."""
    rng = np.random.default_rng(seed)
    day, entity = (one.reshape(-1) for one in np.mgrid[0:days, 0:entities])
    amount = 50 + 10 * np.sin(2 * np.pi * day / 7 + entity) + rng.normal(0, 3, len(day)).round(2)
    names = pa.array([f"account-{number:07}" for number in range(entities)])
    return pa.table(
        {
            "account": names.take(pa.array(entity)),
            "date": pa.array((FIRST_DAY + day).astype("datetime64[D]")),
            "amount": pa.array(amount),
        }
    )


def write_parquet(table: pa.Table, path: Path, **options: Any) -> Path:
    """Write a table, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def job(source: str | Path, output: str | Path, **fields: Any) -> dict[str, Any]:
    """A job over a ledger, evaluated in one window, with fields of its spec set: `job(..., model__family="ets")`."""
    made: dict[str, Any] = {
        "apiVersion": "almanac.dev/v1alpha1",
        "kind": "ForecastJob",
        "metadata": {"name": "ledger", "namespace": "finance"},
        "spec": {
            "source": {"uri": str(source), "columns": {"entity": "account", "time": "date", "value": "amount"}},
            "horizon": 7,
            "minObservations": 10,
            "evaluation": {"windows": 1},
            "output": {"uri": str(output)},
        },
    }
    spec = deepcopy(made["spec"])
    for path, value in fields.items():
        *parents, last = path.split("__")
        place = spec
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return {**made, "spec": spec}


def write_job(path: Path, document: dict[str, Any]) -> Path:
    """Write a job as YAML."""
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
