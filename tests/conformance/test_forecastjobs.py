"""The project's own kind: what an API server makes of its schema, its defaults, its rules and its columns."""

from __future__ import annotations

from typing import Any

import pytest

from almanac.api import ForecastJob
from kube.cluster import Cluster, own_definitions
from kube.refusals import Refusal
from manifests import REFUSED, SMALLEST, TAKEN, document

Raw = dict[str, Any]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def test_the_definitions_are_accepted_without_a_warning(cluster: Cluster) -> None:
    for one in own_definitions():
        path = cluster.client.path("customresourcedefinitions", one["metadata"]["name"])
        query = {"fieldManager": "test", "force": "true", "fieldValidation": "Strict"}
        reply = cluster.client.request("PATCH", path, one, "application/apply-patch+yaml", **query)
        assert reply.status_code == 200, reply.text
        assert "Warning" not in reply.headers
        conditions = {told["type"]: told["status"] for told in reply.json()["status"]["conditions"]}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_defaults_are_those_of_the_models(cluster: Cluster) -> None:
    made = cluster.client.create("forecastjobs", SMALLEST)
    assert made["spec"]["model"]["order"] == [1, 1, 1]
    assert ForecastJob.parse(made).spec == ForecastJob.parse(SMALLEST).spec
    assert made["status"] == {"observedGeneration": -1}, "nobody is to take it for done: see docs/gitops.md"
    assert cluster.client.get("forecastjobs", "ledger")["status"] == made["status"]


@pytest.mark.parametrize("fields", TAKEN)
def test_what_the_models_take(cluster: Cluster, fields: Raw) -> None:
    given = document(**fields)
    made = cluster.client.create("forecastjobs", given, fieldValidation="Strict", dryRun="All")
    assert ForecastJob.parse(made).spec == ForecastJob.parse(given).spec


@pytest.mark.parametrize("fields", REFUSED)
def test_what_the_models_refuse(cluster: Cluster, fields: Raw) -> None:
    with pytest.raises(Refusal) as refused:
        cluster.client.create("forecastjobs", document(**fields))
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"intervals": [80, 80]}, "spec.intervals", "must be different from each other"),
        ({"model": {"family": "ets"}, "missing": "drop"}, "spec.missing", "use zero or interpolate"),
        ({"output__uri": "s3://ledger/raw"}, "spec.output.uri", "must not lie inside source.uri"),
        ({"output__uri": "hdfs://x"}, "spec.output.uri", "must start with s3://, gs:// or file:///, or be a path"),
        ({"spark__driver__memory": "1GB"}, "spec.spark.driver.memory", "must be an amount such as 512Mi"),
        ({"schedule": "* *"}, "spec.schedule", "must be five fields such as"),
        ({"horizon": 0}, "spec.horizon", "greater than or equal to 1"),
        ({"engine": "ray"}, "spec.engine", 'supported values: "auto", "local", "spark", "dask"'),
        ({"model": {"order": [6, 0, 0]}}, "spec.model.order[0]", "less than or equal to 5"),
        ({"source__columns": {"entity": "a", "time": "b"}}, "spec.source.columns.value", "Required value"),
    ],
)
def test_refusals_name_the_field_and_what_to_do(cluster: Cluster, fields: Raw, field: str, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        cluster.client.create("forecastjobs", document(**fields))
    told = {one.field: one.message for one in refused.value.problems}
    assert words in told[field]
    assert f"{field}: " in refused.value.message


def test_fields_that_nobody_knows(cluster: Cluster) -> None:
    given = document(horizn=3)
    with pytest.raises(Refusal) as refused:
        cluster.client.create("forecastjobs", given, fieldValidation="Strict")
    assert refused.value.code == 400
    assert 'unknown field "spec.horizn"' in refused.value.message
    assert "horizn" not in cluster.client.create("forecastjobs", given)["spec"]


def test_a_pod_template_is_kept_as_it_is(cluster: Cluster) -> None:
    template = {
        "spec": {"nodeSelector": {"disk": "fast"}, "containers": [{"name": "driver", "anything": {"at": "all"}}]}
    }
    made = cluster.client.create("forecastjobs", document(podTemplate=template), fieldValidation="Strict")
    assert made["spec"]["podTemplate"] == template


def test_a_status_is_kept_and_shown(cluster: Cluster) -> None:
    status = {
        "observedGeneration": 1,
        "phase": "Running",
        "engine": "local",
        "progress": "62%",
        "workers": {"ready": "3/4", "wanted": 4, "running": 3, "failed": 1, "message": "OOMKilled"},
        "run": {"id": "20261121-021500-3f9a2c", "number": 1, "trigger": "Spec", "startTime": "2026-11-21T02:15:00Z"},
        "result": {"uri": "s3://b/r", "entities": 5000, "rows": 9, "scores": {"mase": 0.87}},
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "Running",
                "message": "it runs",
                "lastTransitionTime": "2026-11-21T02:15:00Z",
            }
        ],
    }
    cluster.client.create("forecastjobs", SMALLEST)
    told = cluster.client.patch("forecastjobs", "ledger", {"status": status}, sub="status")
    assert told["status"] == status
    assert told["metadata"]["generation"] == 1
    table = cluster.client.request("GET", cluster.client.path("forecastjobs"), accept=TABLE).json()
    names = [one["name"] for one in table["columnDefinitions"]]
    assert names == ["Name", "Phase", "Reason", "Engine", "Progress", "Entities", "MASE", "Workers", "Age"]
    assert table["rows"][0]["cells"][:-1] == ["ledger", "Running", "Running", "local", "62%", 5000, 0.87, "3/4"]
    for wrong in ({"phase": "Odd"}, {"conditions": status["conditions"] * 2}, {"run": {"id": None}}):
        with pytest.raises(Refusal) as refused:
            cluster.client.patch("forecastjobs", "ledger", {"status": wrong}, sub="status")
        assert refused.value.code == 422


def test_the_status_is_no_business_of_those_who_apply_the_spec(cluster: Cluster) -> None:
    cluster.client.apply("forecastjobs", SMALLEST, "users")
    status = {"observedGeneration": 1, "phase": "Running"}
    cluster.client.patch("forecastjobs", "ledger", {"status": status}, sub="status")
    again = cluster.client.apply("forecastjobs", document(horizon=7), "users")
    assert (again["status"], again["spec"]["horizon"]) == (status, 7)
    assert again["metadata"]["generation"] == 2
    back = cluster.client.apply("forecastjobs", SMALLEST, "users")
    assert back["spec"]["horizon"] == 30
