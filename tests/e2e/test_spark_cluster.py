"""Runs on Spark in a real cluster: through the operator, the pod of a driver and pods of executors.

Needs a cluster whose pods can reach this machine, and an image: KUBECONFIG, ALMANAC_TEST_SPARK_IMAGE (the name of an
image of images/spark/Dockerfile that nodes have or can pull) and ALMANAC_TEST_ADDRESS (of this machine, for pods).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finance import ADDRESS, PATIENCE, Finance, locally, marks, operated, tables
from kube.real import real
from kube.refusals import Refusal
from kube.waiting import eventually
from ledgers import job, ledger
from s3 import S3Server

IMAGE = "ALMANAC_TEST_SPARK_IMAGE"
pytestmark = marks(IMAGE)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server(os.environ[ADDRESS]) as server:
        server.make_bucket("lake")
        for part in range(4):
            sink = pa.BufferOutputStream()
            pq.write_table(ledger(50, 120, seed=part), sink)
            server.put("lake", f"raw/part-{part}.parquet", sink.getvalue().to_pybytes())
        yield server


def apply(finance: Finance, **fields: Any) -> None:
    """A job of the smallest size that there is; its requests are nothing, so that any node has room for it."""
    conf = {f"spark.kubernetes.{role}.request.cores": "0" for role in ("driver", "executor")}
    small = {"cores": 1, "memory": "1Gi"}
    spark = {"executors": small | {"instances": 1}, "driver": small, "conf": conf}
    finance.submit(job("s3://lake/raw", "", **{"engine": "spark", "spark": spark, **fields}))


@pytest.fixture
def finance(real_api: Any, s3: S3Server, tmp_path: Path) -> Iterator[Finance]:
    access, controlled = real_api
    with real(access, controlled, tmp_path) as cluster:
        made = Finance(cluster, s3)
        image = os.environ[IMAGE]
        with operated(cluster, {"ALMANAC_IMAGE": image, "ALMANAC_SPARK_IMAGE": image}):
            yield made


@pytest.fixture(scope="module")
def local(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of the same job in this process."""
    with pytest.MonkeyPatch.context() as patch:
        return locally(job("s3://lake/raw", ""), s3, tmp_path_factory.mktemp("local"), patch.setenv)


def test_a_run_through_operator_driver_and_executors(finance: Finance, local: dict[str, Any]) -> None:
    """The results are those of a run in one process, byte for byte, and all that was made for it goes with the job."""
    apply(finance)
    (executor,) = finance.until(finance.running("executor"), "an executor to run")
    owners = {one["metadata"]["name"] for one in finance.pods("driver")}
    assert {one["name"] for one in executor["metadata"]["ownerReferences"]} <= owners
    report = finance.succeeds()
    assert finance.running("executor")() == []
    assert tables(report) == tables(local) != {}
    assert finance.status["engine"] == "spark"
    finance.delete()
    kinds = ("jobs", "pods", "services", "serviceaccounts", "configmaps")
    eventually(lambda: not finance.left(*kinds), "all of the job to be gone", PATIENCE)


def test_an_executor_and_a_driver_that_are_killed(finance: Finance, local: dict[str, Any]) -> None:
    """Another executor does what the first one did not; another driver has executors of its own."""
    apply(finance)
    (executor,) = finance.until(finance.running("executor"), "an executor to run")
    finance.kill(executor)
    again = finance.until(finance.running("executor"), "another executor to run")
    assert executor["metadata"]["uid"] not in {one["metadata"]["uid"] for one in again}
    (first,) = finance.running("driver")()
    finance.kill(first)
    eventually(
        lambda: not [one for one in finance.pods("executor") if one["metadata"]["uid"] == again[0]["metadata"]["uid"]],
        "executors to go with their driver",
        PATIENCE,
    )
    assert tables(finance.succeeds()) == tables(local)


def test_a_source_that_one_pod_cannot_hold(finance: Finance) -> None:
    """The same run goes on with Spark, whose executors follow the work, and keeps Spark's event log."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables([ledger(50, 120)] * 800), sink)  # 4.8 million rows may take 293 MiB
    finance.s3.put("lake", "big/part-0.parquet", sink.getvalue().to_pybytes())
    conf = {f"spark.kubernetes.{role}.request.cores": "0" for role in ("driver", "executor")}
    small = {"cores": 1, "memory": "1Gi"}
    spark = {"executors": small | {"minimum": 1, "maximum": 2}, "driver": small}
    resources = {"requests": {"cpu": "0"}, "limits": {"cpu": "1", "memory": "256Mi"}}
    apply(
        finance,
        engine="auto",
        source__uri="s3://lake/big",
        spark=spark | {"conf": conf | {"spark.eventLog.enabled": "true"}},
        podTemplate={"spec": {"containers": [{"name": "almanac", "resources": resources}]}},
    )
    first = finance.until(lambda: finance.status.get("run"), "a run in one pod")
    finance.until(lambda: (finance.status.get("workers") or {}).get("running"), "executors to be told of")
    assert finance.status["engine"] == "spark"
    assert finance.succeeds()["run"] == first["id"]
    logs = [key for key in finance.s3.keys("lake") if key.startswith(f"{finance.client.namespace}/spark-events/")]
    assert [key for key in logs if key.endswith(".zstd")]


def test_executors_for_which_there_is_no_node(finance: Finance) -> None:
    """The driver would wait for ever, and say nothing."""
    conf = {"spark.kubernetes.driver.request.cores": "0"}
    spark = {"executors": {"instances": 1, "cores": 256}, "driver": {"memory": "1Gi"}, "conf": conf}
    apply(finance, spark=spark, startDeadlineSeconds=90)
    finance.until(lambda: finance.said[:2] == ("Running", "Unschedulable"), "the status to say why")
    assert "none of its executors is running: " in finance.said[2]
    _, reason, message = finance.fails()
    assert reason == "Unschedulable"
    assert "none of its executors is running after 90 s" in message
    eventually(lambda: not finance.pods("executor"), "executors to go", PATIENCE)


def test_an_image_that_is_not_there(finance: Finance) -> None:
    apply(finance, image="localhost/almanac:of-nobody", startDeadlineSeconds=60)
    finance.until(lambda: finance.said[:2] == ("Pending", "ImagePullBackOff"), "the status to say why")
    assert "localhost/almanac:of-nobody" in finance.fails()[2]


def test_a_setting_that_is_the_operators(finance: Finance) -> None:
    """Kubernetes refuses it before the operator sees it."""
    with pytest.raises(Refusal, match=r"spark\.master"):
        apply(finance, spark={"conf": {"spark.master": "local[2]"}})
