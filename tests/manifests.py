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
    return filled(SMALLEST, fields)


def filled(smallest: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """A copy of a job with fields of its spec set, those of a field by two underscores: `model__family`."""
    made = deepcopy(smallest)
    for path, value in fields.items():
        *parents, last = path.split("__")
        place = made["spec"]
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return made


REFUSED: list[dict[str, Any]] = [
    {"model": {"order": [1, 3, 1]}},
    {"model": {"seasonalOrder": [0, 2, 1], "seasonLength": 7}},
    {"model": {"seasonalOrder": [1, 0, 0]}},
    {"model": {"family": "ets", "order": [2, 1, 1]}},
    {"model": {"family": "ets", "seasonalOrder": [1, 0, 0]}},
    {"model": {"family": "ets"}, "missing": "drop"},
    {"model": {"family": "theta"}, "missing": "drop"},
    {"intervals": [80, 95, 80]},
    {"intervals": [0]},
    {"intervals": [100]},
    {"intervals": list(range(1, 12))},
    {"frequency": "2 days"},
    {"frequency": "D-MON"},
    {"horizon": 0},
    {"horizon": "3"},
    {"missing": "nan"},
    {"output__uri": "s3://ledger/raw/models"},
    {"output__uri": "s3://ledger/raw"},
    {"output__uri": "s3a://ledger/models"},
    {"output__uri": "s3://key:secret@ledger/models"},
    {"output__uri": "hdfs://ledger/models"},
    {"output__uri": "file://models"},
    {"source__uri": ""},
    {"source__columns": {"entity": "a", "time": "b", "value": "b"}},
    {"source__columns": {"entity": "a", "time": "b"}},
    {"spark__conf": {"master": "x"}},
    {"spark__conf": {"spark.x": 3}},
    {"spark__conf": {"spark.master": "local[2]"}},
    {"spark__conf": {"spark.executor.memory": "8g"}},
    {"spark__conf": {"spark.kubernetes.namespace": "other"}},
    {"spark__conf": {"spark.kubernetes.executor.volumes.hostPath.root.mount.path": "/"}},
    {"spark__conf": {"spark.kubernetes.driver.request.coresx": "1"}},
    {"spark__executors": {"instances": 2, "maximum": 4}},
    {"spark__executors": {"minimum": 2}},
    {"spark__executors": {"minimum": 3, "maximum": 2}},
    {"spark__executors__memory": "4GB"},
    {"spark__driver__memory": "0.0Gi"},
    {"schedule": "* * * *"},
    {"schedule": "0 0 * * * *"},
    {"model": {"constant": "yes"}},
    {"model": {"constant": 3}},
    {"suspend": "true"},
    {"concurrencyPolicy": "Allow"},
    {"activeDeadlineSeconds": 0},
    {"schedule": "60 * * * *"},
    {"schedule": "0 0 * * 1#2"},
    {"schedule": "0 0 L * *"},
    {"schedule": "@reboot"},
    {"schedule": "*/0 * * * *"},
    {"schedule": "TZ=UTC * * * * *"},
    {"timeZone": "Mars/Phobos"},
    {"source__timeZone": "../etc/passwd"},
    {"serviceAccountName": "Robot"},
    {"storage": {"secretName": "a..b"}},
    {"storage": {"endpoint": "ftp://x"}},
    {"storage": {"endpoint": "https://key:secret@minio"}},
    {"storage": {"endpoint": "https://minio?x=y"}},
    {"source__uri": "s3:raw"},
    {"source__uri": " s3://ledger/raw"},
    {"spark__conf": {"spark.x": "x" * 4097}},
    {"restartNonce": 10**15},
    {"minObservations": 10**15},
    {"source__extract": {"name": "entries"}},
    {"source": {"columns": SMALLEST["spec"]["source"]["columns"]}},
    {"source": {"extract": {"name": "Entries"}, "columns": SMALLEST["spec"]["source"]["columns"]}},
]
"""Fields for `document` with which both the models and Kubernetes refuse a job."""

TAKEN: list[dict[str, Any]] = [
    {"model": {"order": [5, 2, 5], "seasonalOrder": [2, 1, 2], "seasonLength": 366}},
    {"model": {"constant": True}},
    {"model": {"constant": False, "order": [0, 2, 1]}},
    {"model": {"family": "autoarima", "seasonLength": 12}, "missing": "drop"},
    {"intervals": []},
    {"intervals": [0.5, 99.5, 80]},
    {"frequency": "15min", "floor": -1.5},
    {"frequency": "W-SUN", "missing": "interpolate"},
    {"source__uri": "data/in", "output__uri": "data/in-out"},
    {"source__uri": "file:///data", "output__uri": "/out"},
    {"source__uri": "gs://bucket", "output__uri": "s3://bucket/x"},
    {"spark": {"conf": {"spark.x": "3"}, "executors": {"memory": "1.5Gi"}}},
    {"spark": {"conf": {"spark.kubernetes.executor.request.cores": "500m", "spark.sql.shuffle.partitions": "8"}}},
    {"spark": {"executors": {"minimum": 0, "maximum": 4, "memory": "2Gi", "memoryOverhead": "1Gi"}}},
    {"schedule": "*/5 0 1,2 jan-feb mon", "timeZone": "UTC"},
    {"schedule": "@daily"},
    {"schedule": " 05 0  ? * SUN-7 "},
    {"schedule": "0-59/15 00,23 31 12 *"},
    {"timeZone": "Europe/Berlin", "source__timeZone": "America/Argentina/Buenos_Aires"},
    {"serviceAccountName": "robot.v2", "storage": {"secretName": "s"}},
    {"storage": {"endpoint": "HTTP://[::1]:9000/path"}},
    {"source__uri": "s3://ledger/with blanks/x"},
    {"podTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "x", "env": []}]}}},
    {"image": "", "serviceAccountName": "", "schedule": "", "timeZone": ""},
    {"storage": {"endpoint": "", "region": "", "secretName": ""}},
    {"source": {"extract": {"name": "entries"}, "columns": SMALLEST["spec"]["source"]["columns"]}},
    {"source": {"extract": {"name": "e", "uri": "s3://x/runs/r"}, "columns": SMALLEST["spec"]["source"]["columns"]}},
]
"""Fields for `document` with which both take it."""
