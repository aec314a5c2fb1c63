"""Runs on Dask in a real cluster: two operators, and the pods of driver, scheduler and workers.

Needs a cluster whose pods can reach this machine, and an image: KUBECONFIG, ALMANAC_TEST_DASK_IMAGE (the name of an
image of images/python/Dockerfile with FOR=dask that nodes have or can pull) and ALMANAC_TEST_ADDRESS (of this machine,
for pods).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dask_kubernetes_operator
import ledgers
from almanac import names
from anomalies import document, entries
from finance import ADDRESS, PATIENCE, Finance, locally, marks, operated, tables
from kube.cluster import Cluster
from kube.real import real
from kube.waiting import eventually
from ledgers import ledger
from s3 import S3Server

IMAGE = "ALMANAC_TEST_DASK_IMAGE"
pytestmark = marks(IMAGE)

KINDS = ("daskclusters", "daskworkergroups", "deployments", "jobs", "pods", "services", "configmaps", "networkpolicies")
"""All that a run is made of."""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server(os.environ[ADDRESS]) as server:
        server.make_bucket("lake")
        for part in range(4):
            sink = pa.BufferOutputStream()
            pq.write_table(entries(5000, 50, seed=part), sink)
            server.put("lake", f"entries/part-{part}.parquet", sink.getvalue().to_pybytes())
        yield server


def job(**fields: Any) -> dict[str, Any]:
    """A job of the smallest size that there is; its requests are nothing, so that any node has room for it."""
    resources = {"requests": {"cpu": "0"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    return document(
        **{
            "source__uri": "s3://lake/entries",
            "source__columns__id": "entry",
            "model__rounds": 100,
            "engine": "dask",
            "dask": {"workers": 2, "threads": 1, "memory": "1Gi"},
            "podTemplate": {"spec": {"containers": [{"name": "almanac", "resources": resources}]}},
            **fields,
        }
    )


@pytest.fixture
def cluster(real_api: Any, tmp_path: Path) -> Iterator[Cluster]:
    access, controlled = real_api
    with real(access, controlled, tmp_path) as made:
        dask_kubernetes_operator.define(made)
        made.client.know("networkpolicies", "networking.k8s.io/v1")
        yield made


@pytest.fixture
def alone(cluster: Cluster, s3: S3Server) -> Iterator[Finance]:
    """Without the operator of dask-kubernetes."""
    made = Finance(cluster, s3)
    image = os.environ[IMAGE]
    with operated(cluster, {"ALMANAC_IMAGE": image, "ALMANAC_DASK_IMAGE": image}):
        yield made


@pytest.fixture
def finance(cluster: Cluster, alone: Finance) -> Iterator[Finance]:
    with dask_kubernetes_operator.operated(cluster):
        yield alone


@pytest.fixture(scope="module")
def local(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of the same job in this process."""
    with pytest.MonkeyPatch.context() as patch:
        return locally(job(), s3, tmp_path_factory.mktemp("local"), patch.setenv)


def long(**fields: Any) -> dict[str, Any]:
    """A job whose model is trained for half a minute at least: the operator asks every quarter of one."""
    model = {"rounds": 8000, "earlyStopping": 0, "max_depth": 3}
    return job(**{"model": model, "contamination": 0.001, **fields})


def ready(finance: Finance, number: int = 2) -> None:
    """Wait until so many workers are ready."""
    finance.until(lambda: (finance.status.get("workers") or {}).get("running") == number, f"{number} workers")


def is_gone(finance: Finance, *kinds: str) -> None:
    eventually(lambda: not finance.left(*kinds), "all to be gone", PATIENCE)


def test_a_run_through_operators_driver_scheduler_and_workers(finance: Finance, local: dict[str, Any]) -> None:
    """Its cluster goes with its end, the rest with the job."""
    finance.submit(job())
    ready(finance)
    assert len(finance.running(names.WORKER)()) == 2
    report = finance.succeeds()
    assert finance.status["engine"] == "dask"
    assert report["source"]["rows"] == local["source"]["rows"]
    assert tables(report).keys() == tables(local).keys()
    is_gone(finance, "daskclusters", "deployments", "services")
    eventually(lambda: not finance.pods(names.WORKER), "workers to go with their cluster", PATIENCE)
    finance.delete()
    is_gone(finance, *KINDS)


def test_a_forecast(cluster: Cluster, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tables are those of a run in one process, byte for byte."""
    sink = pa.BufferOutputStream()
    pq.write_table(ledger(50, 120), sink)
    s3.put("lake", "raw/part-0.parquet", sink.getvalue().to_pybytes())
    image, finance = os.environ[IMAGE], Finance(cluster, s3)
    fields = {name: job()["spec"][name] for name in ("engine", "dask", "podTemplate")}
    with operated(cluster, {"ALMANAC_DASK_IMAGE": image}), dask_kubernetes_operator.operated(cluster):
        finance.submit(ledgers.job("s3://lake/raw", "", **fields))
        report = finance.succeeds()
        assert finance.status["engine"] == "dask"
        is_gone(finance, "daskclusters", "deployments", "services")
    local = locally(ledgers.job("s3://lake/raw", ""), s3, tmp_path, monkeypatch.setenv)
    assert tables(report) == tables(local) != {}


@pytest.mark.parametrize("component", [names.WORKER, names.SCHEDULER, names.DRIVER])
def test_a_pod_that_is_killed_while_a_model_is_trained(finance: Finance, component: str) -> None:
    """The run is complete all the same."""
    finance.submit(long())
    finance.trains()
    finance.kill(finance.running(component)()[0])
    finance.succeeds()
    is_gone(finance, "daskclusters", "deployments", "services")


def test_a_job_that_is_deleted_in_the_middle_leaves_nothing(finance: Finance) -> None:
    finance.submit(long())
    finance.trains()
    finance.delete()
    is_gone(finance, *KINDS)


def test_a_job_that_is_suspended_and_edited(finance: Finance) -> None:
    """While it is suspended there is no cluster, and an edit gives the new run its own."""
    finance.submit(long())
    finance.trains()
    finance.edit(suspend=True)
    is_gone(finance, "daskclusters", "deployments", "pods")
    finance.edit(suspend=False)
    ready(finance)
    first = finance.status["run"]["driver"]
    finance.edit(model={"rounds": 50, "max_depth": 3})
    finance.until(lambda: finance.status["run"]["driver"] != first, "another run")
    finance.succeeds()
    assert finance.status["run"]["number"] == 2
    is_gone(finance, "daskclusters", "deployments", "services")


def test_workers_that_have_too_little_memory(finance: Finance) -> None:
    """What each row is known by is larger than what a worker has: it is killed, and so is every one that follows."""
    rows = entries(100_000, 50)
    long_ids = pa.array(["of a journal that names its entries at great length " * 4] * len(rows))
    sink = pa.BufferOutputStream()
    pq.write_table(rows.set_column(0, "entry", long_ids), sink)
    for part in range(60):
        finance.s3.put("lake", f"many/part-{part:02}.parquet", sink.getvalue().to_pybytes())
    few = {"workers": 1, "threads": 1, "memory": "512Mi"}
    finance.submit(job(source__uri="s3://lake/many", dask=few, backoffLimit=0))
    _, reason, message = finance.fails()
    assert reason == "ClusterUnavailable"
    assert "memory: give" in message
    assert "512Mi" in message
    is_gone(finance, "daskclusters", "deployments", "services")
    assert finance.status["workers"]["failed"] >= 3
    assert "OOMKilled" in finance.status["workers"]["message"]


def test_workers_for_which_there_is_no_node(finance: Finance) -> None:
    """The driver waits for them, and cannot know why."""
    finance.submit(job(dask={"workers": 2, "threads": 1, "memory": "900Gi"}, startDeadlineSeconds=60))
    finance.until(lambda: finance.said[:2] == ("Running", "Unschedulable"), "the status to say why")
    _, reason, message = finance.fails()
    assert reason == "Unschedulable"
    assert "none of its workers is running after 60 s" in message
    is_gone(finance, "daskclusters", "deployments", "services", "pods")


def test_pods_for_which_there_is_no_quota(finance: Finance) -> None:
    """Of pods that are never created, only their Deployments know."""
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "3"}}}
    finance.client.create("resourcequotas", quota, version="v1")
    finance.submit(job(startDeadlineSeconds=90))
    finance.until(lambda: finance.said[:2] == ("Running", "QuotaExceeded"), "the status to say why")
    assert finance.fails()[1] == "QuotaExceeded"
    is_gone(finance, "daskclusters", "deployments", "services", "pods")


def test_an_image_that_is_not_there(finance: Finance) -> None:
    finance.submit(job(image="localhost/almanac:of-nobody", startDeadlineSeconds=60))
    finance.until(lambda: finance.said[:2] == ("Pending", "ImagePullBackOff"), "the status to say why")
    assert "localhost/almanac:of-nobody" in finance.fails()[2]
    is_gone(finance, "daskclusters", "deployments", "services", "pods")


def test_without_the_operator_of_dask_kubernetes(cluster: Cluster, alone: Finance) -> None:
    """It is named, and a run that still waits when it comes goes on."""
    alone.submit(job())
    alone.until(lambda: alone.said[:2] == ("Running", "DaskUnavailable"), "the status to say why")
    assert "dask-kubernetes operator" in alone.said[2]
    with dask_kubernetes_operator.operated(cluster):
        alone.succeeds()
        is_gone(alone, "daskclusters", "deployments", "services")
