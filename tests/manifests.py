"""Jobs for tests: the smallest valid document, and documents that differ from it in named fields."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

SMALLEST: dict[str, Any] = {
    "apiVersion": "almanac.dev/v1alpha1",
    "kind": "ForecastJob",
    "metadata": {"name": "ledger"},
    "spec": {
        "source": {"uri": "s3://ledger/raw", "columns": {"entity": "account", "time": "date", "value": "amount"}},
        "output": {"uri": "s3://ledger/models"},
    },
}


def document(**fields: Any) -> dict[str, Any]:
    """The smallest job with fields of its spec set: `document(horizon=3, model__family="ets")`."""
    made = deepcopy(SMALLEST)
    for path, value in fields.items():
        *parents, last = path.split("__")
        place = made["spec"]
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return made
