"""ForecastJob: defaults, what is refused and in which words, and that one look tells everything."""

from typing import Any

import pytest
from pydantic import ValidationError

from almanac.api import ForecastJob, JobError, Reason, invalid_spec, problems
from manifests import SMALLEST, document


def told(value: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        ForecastJob.parse(value)
    return [str(one) for one in problems(caught.value)]


def test_defaults_are_those_of_the_design() -> None:
    spec = ForecastJob.parse(SMALLEST).spec.model_dump(mode="json")
    assert spec == {
        "source": SMALLEST["spec"]["source"] | {"extract": None, "aggregate": "sum", "filter": None, "timeZone": None},
        "storage": None,
        "model": {
            "family": "arima",
            "order": [1, 1, 1],
            "seasonalOrder": [0, 0, 0],
            "seasonLength": 1,
            "constant": "auto",
        },
        "frequency": "D",
        "horizon": 30,
        "intervals": [80, 95],
        "missing": "zero",
        "minObservations": 20,
        "floor": None,
        "evaluation": {"windows": 3},
        "output": {"uri": "s3://ledger/models", "layout": "bucketed", "keepRuns": None},
        "engine": "auto",
        "spark": {
            "executors": {
                "instances": None,
                "minimum": None,
                "maximum": None,
                "cores": 2,
                "memory": "4Gi",
                "memoryOverhead": None,
            },
            "driver": {"cores": 1, "memory": "2Gi"},
            "conf": {},
        },
        "dask": {"workers": None, "minimum": None, "maximum": None, "threads": 2, "memory": "4Gi"},
        "image": "",
        "serviceAccountName": "",
        "suspend": False,
        "backoffLimit": 2,
        "activeDeadlineSeconds": 7200,
        "startDeadlineSeconds": 600,
        "ttlSecondsAfterFinished": 3600,
        "schedule": "",
        "timeZone": "",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": None,
        "restartNonce": 0,
        "podTemplate": {"metadata": {}, "spec": {}},
    }


def test_a_job_survives_json() -> None:
    job = ForecastJob.parse(document(model__constant=True, model__order=[1, 0, 1], intervals=[99.5, 80.0]))
    assert ForecastJob.model_validate_json(job.model_dump_json()) == job
    assert job.spec.model.constant is True
    assert [str(level) for level in job.spec.intervals] == ["99.5", "80"]


def test_what_kubernetes_adds_is_left_alone() -> None:
    added = document() | {"status": {"phase": "Running", "later": 1}}
    added["metadata"] |= {"uid": "1", "generation": 3, "labels": {"a": "b"}, "managedFields": []}
    job = ForecastJob.parse(added)
    assert (job.metadata.namespace, job.metadata.uid, job.metadata.generation) == ("default", "1", 3)
    assert "status" not in job.model_dump()


def test_null_is_unset() -> None:
    assert ForecastJob.parse(document(horizon=None, storage=None, model=None)) == ForecastJob.parse(SMALLEST)
    assert told(document(source=None)) == ["spec: `source` is missing"]


def test_frozen() -> None:
    job = ForecastJob.parse(SMALLEST)
    with pytest.raises(ValidationError):
        job.spec.horizon = 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"horizon": 0}, "spec.horizon: must be at least 1 (got 0)"),
        ({"horizon": "14"}, 'spec.horizon: must be a whole number (got "14")'),
        ({"horizon": True}, "spec.horizon: must be a whole number (got true)"),
        ({"horizon": 1.5}, "spec.horizon: must be a whole number (got 1.5)"),
        ({"suspend": "yes"}, 'spec.suspend: must be true or false (got "yes")'),
        ({"suspend": 1}, "spec.suspend: must be true or false (got 1)"),
        ({"floor": "0"}, 'spec.floor: must be a number (got "0")'),
        ({"floor": float("nan")}, "spec.floor: must be a finite number (got NaN)"),
        ({"frequency": "2 days"}, "spec.frequency: must be s, min, H, D, W, W-SUN"),
        ({"missing": "nan"}, "spec.missing: must be 'zero', 'interpolate', 'drop' or 'fail' (got \"nan\")"),
        ({"intervals": 80}, "spec.intervals: must be a list (got 80)"),
        ({"intervals": [0]}, "spec.intervals[0]: must be strictly between 0 and 100"),
        ({"intervals": [80, 100]}, "spec.intervals[1]: must be strictly between 0 and 100"),
        ({"intervals": [80, 95, 80.0]}, "spec.intervals: must be different from each other (got [80, 95, 80])"),
        ({"intervals": [99.1234567]}, "spec.intervals[0]: must have at most 6 digits"),
        ({"intervals": list(range(1, 12))}, "spec.intervals: must have at most 10 items"),
        ({"model__order": [1, 1]}, "spec.model.order: item 3 is missing"),
        ({"model__order": [1, 1, 1, 1]}, "spec.model.order: must have at most 3 items, has 4"),
        ({"model__order": [6, 0, 0]}, "spec.model.order[0]: must be at most 5 (got 6)"),
        ({"model__order": [0, 3, 0]}, "spec.model.order[1]: must be at most 2 (got 3)"),
        ({"model__order": [0, 0, -1]}, "spec.model.order[2]: must be at least 0 (got -1)"),
        (
            {"model__seasonalOrder": [0, 2, 0], "model__seasonLength": 7},
            "spec.model.seasonalOrder[1]: must be at most 1 (got 2)",
        ),
        (
            {"model__seasonalOrder": [1, 0, 0]},
            "spec.model.seasonLength: must be above 1 where seasonalOrder has a term",
        ),
        (
            {"model__family": "ets", "model__seasonLength": 365},
            "spec.model.seasonLength: must be at most 60 with family ets",
        ),
        ({"model__seasonLength": 367}, "spec.model.seasonLength: must be at most 366 (got 367)"),
        ({"model__constant": "yes"}, 'spec.model.constant: must be auto, true or false (got "yes")'),
        ({"model__constant": 1}, "spec.model.constant: must be auto, true or false (got 1)"),
        (
            {"model__constant": True, "model__order": [1, 2, 1]},
            "spec.model.constant: cannot be true with two differences or more",
        ),
        (
            {"model": {"constant": True, "seasonalOrder": [0, 1, 1], "seasonLength": 7}},
            "spec.model.constant: cannot be true with two differences or more",
        ),
        ({"model": {"family": "ets", "order": [2, 1, 1]}}, "spec.model.order: is read by family arima only"),
        ({"model": {"family": "ets", "seasonalOrder": [1, 0, 0]}}, "spec.model.seasonalOrder: is read by family arima"),
        ({"model": {"family": "mean", "constant": False}}, "spec.model.constant: is read by family arima only"),
        ({"model__family": "ets", "missing": "drop"}, "spec.missing: cannot be drop with ets and theta"),
        ({"model__family": "theta", "missing": "drop"}, "spec.missing: cannot be drop with ets and theta"),
        (
            {"source__columns": {"entity": "a", "time": "b", "value": "a"}},
            "spec.source.columns.value: entity, time and",
        ),
        (
            {"source__columns": {"entity": "", "time": "b", "value": "a"}},
            "spec.source.columns.entity: must not be empty",
        ),
        ({"source__filter": ""}, "spec.source.filter: must not be empty"),
        ({"output__uri": "s3://ledger/raw/models"}, "spec.output.uri: must not lie inside source.uri"),
        ({"output__keepRuns": 0}, "spec.output.keepRuns: must be at least 1 (got 0)"),
        ({"spark__executors__memory": "4GB"}, "spec.spark.executors.memory: must be an amount such as 512Mi"),
        ({"spark__conf": {"master": "x"}}, "spec.spark.conf.master: must start with `spark.`"),
        (
            {"spark__conf": {"spark.master": "yarn"}},
            "spec.spark.conf.spark.master: cannot be set: the operator does",
        ),
        (
            {"spark__conf": {"spark.executor.memory": "8g"}},
            "spec.spark.conf.spark.executor.memory: cannot be set: write spec.spark.executors",
        ),
        (
            {"spark__conf": {"spark.kubernetes.executor.volumes.hostPath.a.mount.path": "/"}},
            "spec.spark.conf.spark.kubernetes.executor.volumes.hostPath.a.mount.path: cannot be set: pods follow from",
        ),
        (
            {"spark__executors": {"instances": 2, "maximum": 4}},
            "spec.spark.executors.instances: cannot be set together with maximum",
        ),
        ({"spark__executors": {"minimum": 2}}, "spec.spark.executors.minimum: needs a maximum"),
        ({"spark__executors__memory": "700Mi"}, "spec.spark.executors.memory: must be 768Mi at least"),
        ({"spark__driver__memory": "700Mi"}, "spec.spark.driver.memory: must be 768Mi at least"),
        (
            {"spark__executors": {"memory": "2Gi", "memoryOverhead": "1537Mi"}},
            "spec.spark.executors.memoryOverhead: must leave 512Mi",
        ),
        ({"dask": {"workers": 2, "maximum": 4}}, "spec.dask.workers: cannot be set together with maximum"),
        ({"dask": {"minimum": 3, "maximum": 2}}, "spec.dask.minimum: needs a maximum that is not below it"),
        ({"dask__memory": "256Mi"}, "spec.dask.memory: must be 512Mi at least"),
        ({"spark__conf": {"spark.x": 3}}, "spec.spark.conf.spark.x: must be a string (got 3)"),
        ({"schedule": "every day"}, "spec.schedule: must be five fields"),
        ({"timeZone": "Mars"}, "spec.timeZone: must be a time zone"),
        ({"storage__endpoint": "minio:9000"}, "spec.storage.endpoint: must be a URL"),
        ({"storage__secretName": "My Secret"}, "spec.storage.secretName: must be lower-case"),
        ({"podTemplate": {"nodeSelector": {}}}, "spec.podTemplate.nodeSelector: unknown field"),
        ({"engine": "ray"}, "spec.engine: must be 'auto', 'local', 'spark' or 'dask'"),
        ({"model": []}, "spec.model: must be a mapping of names to values (got [])"),
        ({"horizn": 3}, "spec.horizn: unknown field, did you mean `horizon`?"),
        ({"season_length": 3}, "spec.season_length: unknown field"),
        ({"min_observations": 3}, "spec.min_observations: unknown field, did you mean `minObservations`?"),
    ],
)
def test_refused(fields: dict[str, Any], words: str) -> None:
    (only,) = told(document(**fields))
    assert only.startswith(words)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": {"order": [5, 2, 5]}},
        {"model": {"order": [2, 1, 2], "seasonalOrder": [2, 1, 2], "seasonLength": 366}},
        {"model": {"constant": True}},
        {"model": {"constant": True, "order": [0, 0, 0], "seasonalOrder": [0, 1, 1], "seasonLength": 12}},
        {"model": {"constant": False, "order": [1, 2, 1]}},
        {"model": {"family": "ets", "order": [1, 1, 1], "seasonalOrder": [0, 0, 0], "constant": "auto"}},
        {"model": {"family": "seasonalnaive"}, "missing": "drop"},
        {"intervals": []},
        {"intervals": [0.1, 99.99]},
        {"evaluation": {"windows": 0}, "output__uri": "data/out", "source__uri": "data/in"},
        {"output__uri": "s3://ledger/raw-models"},
        {"schedule": "@daily", "timeZone": "UTC", "concurrencyPolicy": "Replace", "startingDeadlineSeconds": 60},
    ],
)
def test_accepted(fields: dict[str, Any]) -> None:
    ForecastJob.parse(document(**fields))


def test_everything_is_told_at_once() -> None:
    wrong = document(
        source__uri="s3a://ledger/raw",
        model={"family": "ets", "order": [2, 1, 1], "seasonalOrder": [1, 0, 0], "seasonLength": 0},
        missing="drop",
        intervals=[80, 80],
        horizon=0,
        output__layout="flat",
        spark={"conf": {"x": "y"}, "driver": {"cores": 0}},
    )
    wrong["metadata"]["name"] = "Ledger"
    places = [one.split(":")[0] for one in told(wrong)]
    assert sorted(places) == sorted(
        [
            "metadata.name",
            "spec.source.uri",
            "spec.model.order",
            "spec.model.seasonalOrder",
            "spec.model.seasonLength",
            "spec.missing",
            "spec.intervals",
            "spec.horizon",
            "spec.output.layout",
            "spec.spark.conf.x",
            "spec.spark.driver.cores",
        ]
    )


def test_one_mistake_is_told_once() -> None:
    """What follows from a mistake is not a second one."""
    assert told(document(model={"seasonalOrder": [1, 0, 0], "seasonlength": 7})) == [
        "spec.model.seasonlength: unknown field, did you mean `seasonLength`?"
    ]
    misspelt = document()
    misspelt["spec"]["sorce"] = misspelt["spec"].pop("source")
    assert told(misspelt) == ["spec.sorce: unknown field, did you mean `source`?"]


def test_a_job_of_another_version() -> None:
    assert told(document() | {"apiVersion": "almanac.dev/v1"}) == [
        "apiVersion: must be 'almanac.dev/v1alpha1' (got \"almanac.dev/v1\")"
    ]


def test_python_speaks_either_way() -> None:
    spec = ForecastJob.parse(SMALLEST).spec
    assert type(spec)(source=spec.source, output=spec.output, min_observations=5) == type(spec)(
        source=spec.source, output=spec.output, minObservations=5
    )


def test_invalid_spec_is_a_job_error() -> None:
    with pytest.raises(ValidationError) as caught:
        ForecastJob.parse(document(horizon=0, suspend=3))
    error = invalid_spec(problems(caught.value))
    assert isinstance(error, JobError)
    assert (error.reason, error.exit_code) == (Reason.INVALID_SPEC, 64)
    assert error.message == "spec.suspend: must be true or false (got 3); spec.horizon: must be at least 1 (got 0)"


class TestHash:
    def hash(self, **fields: Any) -> str:
        return ForecastJob.parse(document(**fields)).spec.hash

    def test_is_stable(self) -> None:
        assert self.hash() == self.hash(horizon=30, model={"family": "arima"}, intervals=[80.0, 95])
        assert len(self.hash()) == 64

    @pytest.mark.parametrize(
        "fields",
        [
            {"suspend": True},
            {"schedule": "@daily"},
            {"ttlSecondsAfterFinished": 0},
            {"activeDeadlineSeconds": 5},
            {"restartNonce": 4},
            {"backoffLimit": 0},
            {"output__keepRuns": 3},
        ],
    )
    def test_ignores_how_the_job_is_kept(self, fields: dict[str, Any]) -> None:
        assert self.hash(**fields) == self.hash()

    @pytest.mark.parametrize(
        "fields", [{"horizon": 31}, {"source__filter": "a == 1"}, {"image": "x"}, {"engine": "spark"}, {"floor": 0}]
    )
    def test_follows_what_is_computed(self, fields: dict[str, Any]) -> None:
        assert self.hash(**fields) != self.hash()
