"""Runs on Spark in a real cluster: through the operator, the pod of a driver and pods of executors.

Needs a cluster whose pods can reach this machine, and an image: KUBECONFIG, ALMANAC_TEST_SPARK_IMAGE (the name of an
image of images/spark/Dockerfile that nodes have or can pull) and ALMANAC_TEST_ADDRESS (of this machine, for pods).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from almanac import names
from almanac_jobs import __main__ as driver
from kube.cluster import Cluster
from kube.real import real
from kube.refusals import Refusal
from kube.waiting import eventually
from ledgers import job, ledger
from s3 import S3Server

IMAGE, ADDRESS = "ALMANAC_TEST_SPARK_IMAGE", "ALMANAC_TEST_ADDRESS"
MISSING = [name for name in ("KUBECONFIG", IMAGE, ADDRESS) if not os.environ.get(name)]

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"no Spark in a real cluster: set {', '.join(MISSING)}"),
    pytest.mark.timeout(1200),
]

PATIENCE = 600
"""Seconds for what takes half a minute on a machine that has nothing else to do."""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server(os.environ[ADDRESS]) as server:
        server.make_bucket("lake")
        for part in range(4):
            sink = pa.BufferOutputStream()
            pq.write_table(ledger(50, 120, seed=part), sink)
            server.put("lake", f"raw/part-{part}.parquet", sink.getvalue().to_pybytes())
        yield server


class Finance:
    """A namespace that takes restricted pods only, an operator that watches it, and jobs in it."""

    def __init__(self, cluster: Cluster, s3: S3Server) -> None:
        self.client, self.s3 = cluster.client, s3
        self.client.namespace = cluster.make_namespace(**{"pod-security.kubernetes.io/enforce": "restricted"})
        secret = {name: s3.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        self.client.create("secrets", {"metadata": {"name": "s3"}, "stringData": secret}, version="v1")

    def apply(self, **fields: Any) -> dict[str, Any]:
        """A job of the smallest size that there is; its requests are nothing, so that any node has room for it."""
        conf = {f"spark.kubernetes.{role}.request.cores": "0" for role in ("driver", "executor")}
        small = {"cores": 1, "memory": "1Gi"}
        spark = {"executors": small | {"instances": 1}, "driver": small, "conf": conf}
        storage = {"endpoint": self.s3.endpoint, "region": "us-east-1", "secretName": "s3"}
        fields = {"engine": "spark", "spark": spark, "storage": storage, **fields}
        document = job("s3://lake/raw", f"s3://lake/{self.client.namespace}", **fields)
        document["metadata"]["namespace"] = self.client.namespace
        self.client.create("forecastjobs", document)
        return document

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("forecastjobs", "ledger").get("status") or {}
        return found

    @property
    def said(self) -> tuple[str, str, str]:
        """Phase, reason and message."""
        ready = [one for one in self.status.get("conditions", ()) if one["type"] == "Ready"]
        return self.status.get("phase", ""), *((ready[0]["reason"], ready[0]["message"]) if ready else ("", ""))

    def pods(self, component: str) -> list[dict[str, Any]]:
        return self.client.list("pods", labels=f"{names.MANAGED_BY}=almanac,{names.COMPONENT}={component}")

    def kill(self, pod: dict[str, Any]) -> None:
        """Take a pod away at once, as the loss of its node does."""
        self.client.delete("pods", pod["metadata"]["name"], gracePeriodSeconds=0)

    def until(self, found: Callable[[], Any], what: str) -> Any:
        def told() -> Any:
            assert self.said[0] != "Failed", self.said
            return found()

        return eventually(told, what, PATIENCE)

    def running(self, component: str) -> Callable[[], list[dict[str, Any]]]:
        return lambda: [one for one in self.pods(component) if one.get("status", {}).get("phase") == "Running"]

    def succeeds(self) -> dict[str, Any]:
        """The report of the run, once it is complete."""
        self.until(lambda: self.status.get("phase") == "Succeeded", "the job to be done")
        assert self.running("executor")() == []
        prefix = f"{self.client.namespace}/runs/{self.status['run']['id']}"
        body = self.s3.client.get_object(Bucket="lake", Key=f"{prefix}/report.json")["Body"].read()
        read: dict[str, Any] = json.loads(body)
        return read


@pytest.fixture
def finance(real_api: Any, s3: S3Server, tmp_path: Path) -> Iterator[Finance]:
    access, controlled = real_api
    with real(access, controlled, tmp_path) as cluster:
        made = Finance(cluster, s3)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ALMANAC_"))},
            "KUBECONFIG": str(cluster.kubeconfig),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "ALMANAC_IMAGE": os.environ[IMAGE],
            "ALMANAC_SPARK_IMAGE": os.environ[IMAGE],
            "ALMANAC_LEASE": "",
            "ALMANAC_METRICS_PORT": "0",
        }
        command = [sys.executable, "-c", "from almanac.cli import main; main()", "operator"]
        with (tmp_path / "operator.log").open("w") as log:
            operator = subprocess.Popen(
                [*command, "--namespace", made.client.namespace], env=environment, stdout=log, stderr=log
            )
            try:
                yield made
            finally:
                operator.terminate()
                operator.wait(30)


@pytest.fixture(scope="module")
def local(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of the same job in this process."""
    folder = tmp_path_factory.mktemp("local")
    storage = {"endpoint": s3.endpoint, "region": "us-east-1"}
    document = job("s3://lake/raw", "s3://lake/local", engine="local", storage=storage)
    (folder / "job.json").write_text(json.dumps(document))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        identity = "20000101-000000-000000"
        assert driver.main([str(folder / "job.json"), "--run-id", identity, "--port", "0"]) == 0
    body = s3.client.get_object(Bucket="lake", Key=f"local/runs/{identity}/report.json")["Body"].read()
    read: dict[str, Any] = json.loads(body)
    return read


def tables(report: dict[str, Any]) -> dict[str, str]:
    """Checksums of a run's tables."""
    return {one["path"]: one["sha256"] for one in report["files"] if one["path"].endswith(".parquet")}


def test_a_run_through_operator_driver_and_executors(finance: Finance, local: dict[str, Any]) -> None:
    """The results are those of a run in one process, byte for byte, and all that was made for it goes with the job."""
    finance.apply()
    (executor,) = finance.until(finance.running("executor"), "an executor to run")
    owners = {one["metadata"]["name"] for one in finance.pods("driver")}
    assert {one["name"] for one in executor["metadata"]["ownerReferences"]} <= owners
    report = finance.succeeds()
    assert tables(report) == tables(local) != {}
    assert finance.status["engine"] == "spark"
    finance.client.delete("forecastjobs", "ledger")
    kinds = ("jobs", "pods", "services", "serviceaccounts", "configmaps")

    def left() -> list[dict[str, Any]]:
        return [one for kind in kinds for one in finance.client.list(kind, labels=names.SELECTOR)]

    eventually(lambda: not left(), "all of the job to be gone", PATIENCE)


def test_an_executor_and_a_driver_that_are_killed(finance: Finance, local: dict[str, Any]) -> None:
    """Another executor does what the first one did not; another driver has executors of its own."""
    finance.apply()
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
    finance.apply(
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
    finance.apply(spark=spark, startDeadlineSeconds=90)
    finance.until(lambda: finance.said[:2] == ("Running", "Unschedulable"), "the status to say why")
    assert "none of its executors is running: " in finance.said[2]
    eventually(lambda: finance.said[0] == "Failed", "the job to be given up", PATIENCE)
    assert finance.said[1] == "Unschedulable"
    assert "no executor is running after 90 s" in finance.said[2]
    eventually(lambda: not finance.pods("executor"), "executors to go", PATIENCE)


def test_an_image_that_is_not_there(finance: Finance) -> None:
    finance.apply(image="localhost/almanac:of-nobody", startDeadlineSeconds=60)
    finance.until(lambda: finance.said[:2] == ("Pending", "ImagePullBackOff"), "the status to say why")
    eventually(lambda: finance.said[0] == "Failed", "the job to be given up", PATIENCE)
    assert "localhost/almanac:of-nobody" in finance.said[2]


def test_a_setting_that_is_the_operators(finance: Finance) -> None:
    """Kubernetes refuses it before the operator sees it."""
    with pytest.raises(Refusal, match=r"spark\.master"):
        finance.apply(spark={"conf": {"spark.master": "local[2]"}})
