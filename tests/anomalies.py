"""Jobs that look for odd rows, and small data with odd rows in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from manifests import filled

SMALLEST: dict[str, Any] = {
    "apiVersion": "almanac.dev/v1alpha1",
    "kind": "AnomalyJob",
    "metadata": {"name": "entries"},
    "spec": {
        "source": {"uri": "s3://ledger/raw", "columns": {"entity": "account", "time": "posted_at"}},
        "output": {"uri": "s3://ledger/anomalies"},
    },
}


def document(**fields: Any) -> dict[str, Any]:
    """The smallest job with fields of its spec set: `document(model__detector="student")`."""
    return filled(SMALLEST, fields)


def job(source: Path, output: Path, **fields: Any) -> dict[str, Any]:
    """A quick job over `entries`."""
    made = document(**{"model__rounds": 20, **fields})
    made["spec"]["source"]["uri"], made["spec"]["output"]["uri"] = str(source), str(output)
    made["spec"]["source"]["columns"]["id"] = "entry"
    return made


def entries(rows: int = 1500, odd: int = 60, seed: int = 3) -> pa.Table:
    """Entries by time, of which about `odd` are (column `fraud`): large, at night, by somebody else."""
    rng = np.random.default_rng(seed)
    fraud = np.zeros(rows, np.bool_)
    fraud[rng.permutation(rows)[:odd]] = True
    day = np.sort(rng.integers(0, 200, rows))
    hour = np.where(fraud, rng.integers(0, 5, rows), rng.integers(8, 18, rows))
    posted = np.datetime64("2025-01-06", "us") + (day * 24 + hour) * np.timedelta64(3_600_000_000, "us")
    amount = np.exp(rng.normal(np.where(fraud, 8, 5), 0.7)).round(2)
    user = np.where(
        fraud & (rng.random(rows) < 0.7), "guest", np.array(["ann", "bob", "cem"])[rng.integers(0, 3, rows)]
    )
    return pa.table(
        {
            "entry": np.arange(rows),
            "account": pa.array([f"a{at}" for at in rng.integers(0, 12, rows)]),
            "posted_at": pa.array(posted),
            "amount": amount,
            "user": pa.array(user.astype(object), pa.string()),
            "partner": pa.array([f"p{at}" for at in rng.integers(0, 5, rows)]),
            "lines": rng.integers(2, 9, rows),
            "fraud": fraud,
        }
    )


REFUSED: list[dict[str, Any]] = [
    {"contamination": 0},
    {"contamination": 1},
    {"contamination": 0.6},
    {"threshold": 1.5},
    {"threshold": 0.9, "contamination": 0.1},
    {"model__detector": "classifier"},
    {"model__detector": "blend"},
    {"model__detector": "forest"},
    {"model__max_depth": 0},
    {"model__eta": 0},
    {"model__lambda": -1},
    {"model__subsample": 1.5},
    {"model__scale_pos_weight": 0},
    {"label": "account"},
    {"label": "posted_at"},
    {"label": "fraud", "features": {"columns": ["amount", "fraud"]}},
    {"source__columns": {"entity": "a", "time": "b", "id": "b"}},
    {"source__columns": {"entity": "a", "time": "a"}},
    {"features": {"columns": []}},
    {"features": {"columns": ["a"], "exclude": ["b"]}},
    {"features": {"preset": "journal"}},
    {"features": {"ledger": {"user": "u"}}},
    {"features": {"ledger": {"amount": "value"}}},
    {"explain": {"topK": 0}},
    {"output__layout": "perEntity"},
    {"engine": "spark"},
    {"output__uri": "s3://ledger/raw/anomalies"},
]
"""Fields for `document` with which both the models and Kubernetes refuse a job."""

TAKEN: list[dict[str, Any]] = [
    {"contamination": 0.5},
    {"threshold": 0},
    {"label": "fraud", "model__detector": "classifier", "features": {"exclude": ["memo"]}},
    {"model": {"rounds": 1, "earlyStopping": 0, "seed": 7, "max_depth": 16, "lambda": 0, "gamma": 1.5, "max_bin": 64}},
    {"source__columns": {"entity": "a", "time": "b", "id": "c"}},
    {"features": {"preset": "ledger", "ledger": {"amount": "value", "user": "u", "counterparty": "c"}}},
    {"features": {"columns": ["amount"]}, "explain": {"topK": 50}},
    {"engine": "local"},
]
"""Fields for `document` with which both take it."""
