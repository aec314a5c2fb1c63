"""The chart's network policies where a network enforces them: who reaches what, and that no run lacks anything.

Needs a cluster whose pods can reach this machine, and an image: KUBECONFIG, ALMANAC_TEST_IMAGE (the name of an image of
images/python/Dockerfile that nodes have or can pull) and ALMANAC_TEST_ADDRESS (of this machine, for pods). Runs on
Spark and Dask are made where their images are named too. Skipped where the cluster's network enforces nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import helm_python
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import anomalies
import dask_kubernetes_operator
import ledgers
from almanac import names
from almanac.engines import dask
from finance import ADDRESS, PATIENCE, Finance, marks
from kube.cluster import Cluster
from kube.real import real
from kube.waiting import eventually
from s3 import S3Server
from tools.chart import CHART

IMAGE, SPARK, DASK = "ALMANAC_TEST_IMAGE", "ALMANAC_TEST_SPARK_IMAGE", "ALMANAC_TEST_DASK_IMAGE"
pytestmark = marks(IMAGE)

RELEASE = "test"
DRIVER = {names.MANAGED_BY: "almanac", names.COMPONENT: "driver"}
EXECUTOR = {names.MANAGED_BY: "almanac", names.COMPONENT: "executor"}
STORE = {"app": "store"}
METRICS, PROGRESS, DATA, OTHER = 8080, 9400, 9000, 9001
SPARK_PORTS = (7078, 7079)

LISTEN = """
import socket, sys, threading, time
def answer(port):
    with socket.create_server(("", port)) as server:
        while True:
            server.accept()[0].close()
for port in sys.argv[1:]:
    threading.Thread(target=answer, args=(int(port),), daemon=True).start()
time.sleep(3600)
"""
REACH = """
import json, socket, sys, time
def reaches(place):
    host, port = place.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True
expected = json.loads(sys.argv[1])
end = time.monotonic() + float(sys.argv[2])
while (found := {place: reaches(place) for place in expected}) != expected and time.monotonic() < end:
    time.sleep(0.5)
open("/dev/termination-log", "w").write(json.dumps(found))
"""
"""Tries until what can be reached is what is expected: plugins take a moment to learn of a pod."""


class Pods:
    """Pods of the tests' own in some namespace, which listen, or tell what they reach."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.client, self.namespace = cluster.client, namespace

    def start(self, program: str, *arguments: str, labels: dict[str, str] | None = None) -> str:
        """The name of a new pod that runs a program."""
        context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        container = {
            "name": "python",
            "image": os.environ[IMAGE],
            "command": ["/opt/almanac/bin/python", "-c", program, *arguments],
            "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}, "requests": {"cpu": "0"}},
            "securityContext": context,
        }
        user = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
        spec = {"containers": [container], "restartPolicy": "Never", "securityContext": user}
        metadata = {"name": f"pod-{uuid4().hex[:8]}", "labels": labels or {}}
        made = self.client.create("pods", {"metadata": metadata, "spec": spec}, namespace=self.namespace)
        name: str = made["metadata"]["name"]
        return name

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("pods", name, namespace=self.namespace)["status"]
        return found

    def listens(self, *ports: int, labels: dict[str, str] | None = None) -> str:
        """The address of a new pod that takes connections at these ports."""
        name = self.start(LISTEN, *map(str, ports), labels=labels)
        eventually(lambda: self.status(name)["phase"] == "Running", f"{name} to run", PATIENCE)
        address: str = self.status(name)["podIP"]
        return address

    def reaches(
        self, *allowed: str, refused: tuple[str, ...] = (), labels: dict[str, str] | None = None, patience: int = 60
    ) -> bool:
        """Whether a new pod reaches these places, and those not."""
        expected = dict.fromkeys(allowed, True) | dict.fromkeys(refused, False)
        name = self.start(REACH, json.dumps(expected), str(patience), labels=labels)
        eventually(lambda: self.status(name)["phase"] in ("Succeeded", "Failed"), f"{name} to end", PATIENCE)
        (container,) = self.status(name)["containerStatuses"]
        found: dict[str, bool] = json.loads(container["state"]["terminated"]["message"])
        return found == expected


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server(os.environ[ADDRESS]) as server:
        server.make_bucket("lake")
        for path, table in {"raw": ledgers.ledger(50, 120), "entries": anomalies.entries(20000, 50)}.items():
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            server.put("lake", f"{path}/part-0.parquet", sink.getvalue().to_pybytes())
        yield server


@pytest.fixture(scope="module")
def cluster(real_api: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with real(*real_api, tmp_path_factory.mktemp("cluster")) as made:
        dask_kubernetes_operator.define(made)
        made.client.know("networkpolicies", "networking.k8s.io/v1")
        yield made


@pytest.fixture(scope="module")
def elsewhere(cluster: Cluster) -> Pods:
    """A namespace that has nothing to do with Almanac."""
    return Pods(cluster, cluster.make_namespace())


@pytest.fixture(scope="module")
def monitoring(cluster: Cluster) -> Pods:
    return Pods(cluster, cluster.make_namespace())


@pytest.fixture(scope="module")
def store(cluster: Cluster, elsewhere: Pods) -> str:
    """A pod that stands for storage. Skips everything where a policy is not enforced."""
    address = elsewhere.listens(DATA, OTHER, labels=STORE)
    sealed = Pods(cluster, cluster.make_namespace())
    policy = {"metadata": {"name": "nothing"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}}
    cluster.client.create("networkpolicies", policy, namespace=sealed.namespace)
    if not sealed.reaches(refused=(f"{address}:{DATA}",), patience=20):
        pytest.skip("the network of this cluster does not enforce NetworkPolicies")
    return address


@pytest.fixture(scope="module")
def metadata(elsewhere: Pods) -> str:
    """A pod that stands for the metadata service of a cloud, at a port that data may be at."""
    return elsewhere.listens(DATA)


@pytest.fixture(scope="module")
def finance(
    cluster: Cluster, s3: S3Server, monitoring: Pods, elsewhere: Pods, store: str, metadata: str
) -> Iterator[Finance]:
    """A namespace with jobs, whose operator is a release of the chart in another one."""
    home = cluster.namespace
    made = Finance(cluster, s3)
    values = {
        "crds": {"install": False},
        "rbac": {"aggregate": False},
        "image": image(IMAGE),
        "spark": {"image": image(SPARK)},
        "dask": {"image": image(DASK)},
        "watch": {"namespaces": [cluster.namespace]},
        "resources": {"requests": {"cpu": "0"}},
        "networkPolicy": {
            "enabled": True,
            "dataPorts": [DATA, urlsplit(s3.endpoint).port],
            "blocked": ["169.254.0.0/16", f"{metadata}/32", f"{store}/32"],
            "dataPeers": [{"namespaceSelector": within(elsewhere), "podSelector": {"matchLabels": STORE}}],
            "metricsFrom": within(monitoring)["matchLabels"],
        },
    }
    with helm_python.Config(kubeconfig_path=cluster.kubeconfig, namespace=home) as helm:
        helm.install(CHART, RELEASE, values, wait="watcher", timeout=PATIENCE)
        helm.test(RELEASE)
        with dask_kubernetes_operator.operated(cluster):
            yield made
        helm.uninstall(RELEASE)


def within(pods: Pods) -> dict[str, Any]:
    """What selects the namespace of these pods."""
    return {"matchLabels": {"kubernetes.io/metadata.name": pods.namespace}}


def image(variable: str) -> dict[str, str]:
    """An image as values of the chart."""
    repository, tag = os.environ.get(variable, os.environ[IMAGE]).rsplit(":", 1)
    return {"repository": repository, "tag": tag}


@pytest.fixture
def tenant(cluster: Cluster, finance: Finance) -> Pods:
    """The namespace of jobs, to start pods in that are none of Almanac's."""
    return Pods(cluster, finance.client.namespace)


def test_data_is_reached_and_nothing_else(tenant: Pods, store: str, metadata: str, s3: S3Server) -> None:
    refused = (f"{store}:{OTHER}", f"{metadata}:{DATA}")
    assert tenant.reaches(f"{store}:{DATA}", s3.endpoint.removeprefix("http://"), refused=refused, labels=DRIVER)
    assert tenant.reaches(f"{store}:{DATA}", refused=refused, labels=EXECUTOR)
    assert tenant.reaches(f"{store}:{DATA}", *refused)  # nobody else's business


def test_a_driver_is_reached_by_who_measures_it(tenant: Pods, monitoring: Pods, elsewhere: Pods, store: str) -> None:
    driver = tenant.listens(PROGRESS, OTHER, labels=DRIVER)
    assert monitoring.reaches(f"{driver}:{PROGRESS}", refused=(f"{driver}:{OTHER}",))
    for pods in (elsewhere, tenant):
        assert pods.reaches(f"{store}:{DATA}", refused=(f"{driver}:{PROGRESS}", f"{driver}:{OTHER}"))


def test_spark_is_reached_by_spark(tenant: Pods, monitoring: Pods, store: str) -> None:
    driver = tenant.listens(*SPARK_PORTS, labels=DRIVER | {names.ENGINE: "spark"})
    executor = tenant.listens(*SPARK_PORTS, labels=EXECUTOR)
    ports = (*(f"{driver}:{port}" for port in SPARK_PORTS), f"{executor}:{SPARK_PORTS[-1]}")
    assert tenant.reaches(*ports, labels=EXECUTOR)
    for pods in (tenant, monitoring):
        assert pods.reaches(f"{store}:{DATA}", refused=ports)


def test_an_operator_is_reached_by_who_measures_it(
    cluster: Cluster, finance: Finance, tenant: Pods, monitoring: Pods, store: str
) -> None:
    ready = [one for one in operators(cluster) if one["status"]["phase"] == "Running"]
    places = [f"{one['status']['podIP']}:{METRICS}" for one in ready]
    assert monitoring.reaches(*places)
    assert tenant.reaches(f"{store}:{DATA}", refused=tuple(places))


def operators(cluster: Cluster) -> list[dict[str, Any]]:
    found = cluster.client.list("pods", namespace="", labels=f"app.kubernetes.io/instance={RELEASE}")
    return [one for one in found if one["metadata"]["labels"].get(names.COMPONENT) == "operator"]


def entries(**fields: Any) -> dict[str, Any]:
    """A job of the smallest size that there is, whose model is trained long enough to be asked about."""
    resources = {"requests": {"cpu": "0"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    return anomalies.document(
        **{
            "source__uri": "s3://lake/entries",
            "source__columns__id": "entry",
            "model": {"rounds": 8000, "earlyStopping": 0, "max_depth": 3},
            "contamination": 0.001,
            "podTemplate": {"spec": {"containers": [{"name": "almanac", "resources": resources}]}},
            **fields,
        }
    )


def test_a_run_in_one_pod(finance: Finance) -> None:
    """It reads and writes, and tells the operator how far it is."""
    finance.submit(entries(engine="local"))
    finance.trains()
    finance.succeeds()
    finance.delete()


@pytest.mark.skipif(not os.environ.get(DASK), reason=f"there is no image for runs on Dask: set {DASK}")
def test_a_run_on_dask(finance: Finance, tenant: Pods, monitoring: Pods, store: str) -> None:
    """Its pods reach each other. Nobody else reaches them: whoever does may run code there."""
    finance.submit(entries(engine="dask", dask={"workers": 2, "threads": 1, "memory": "1Gi"}))
    finance.trains()
    (scheduler,) = (one["status"]["podIP"] for one in finance.running(names.SCHEDULER)())
    workers = [one["status"]["podIP"] for one in finance.running(names.WORKER)()]
    closed = (f"{scheduler}:{dask.COMM_PORT}", *(f"{address}:{dask.WORKER_PORT}" for address in workers))
    assert len(closed) == 3
    for pods in (tenant, monitoring):
        assert pods.reaches(f"{store}:{DATA}", refused=closed)
    finance.succeeds()
    finance.delete()


@pytest.mark.skipif(not os.environ.get(SPARK), reason=f"there is no image for runs on Spark: set {SPARK}")
def test_a_run_on_spark(finance: Finance) -> None:
    small = {"cores": 1, "memory": "1Gi"}
    conf = {f"spark.kubernetes.{role}.request.cores": "0" for role in ("driver", "executor")}
    spark = {"executors": small | {"instances": 2}, "driver": small, "conf": conf}
    finance.submit(ledgers.job("s3://lake/raw", "", engine="spark", spark=spark))
    finance.until(lambda: len(finance.running("executor")()) == 2, "executors to run")
    finance.succeeds()
    finance.delete()
