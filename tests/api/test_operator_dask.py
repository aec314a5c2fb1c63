"""Clusters of runs on Dask before a Kubernetes API, embedded and real: tests play what dask-kubernetes does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import dask_kubernetes_operator
import raw
from almanac import cluster as api
from almanac import executing, names, process
from almanac.api import Engine, Phase
from almanac.engines import COMPANIONS
from kube.cluster import Cluster
from kube.waiting import eventually
from matrix import Group, Moment, cell
from operators import Ledger, Operator, play

Raw = dict[str, Any]

PLURALS = {"DaskCluster": "daskclusters", "ConfigMap": "configmaps", "NetworkPolicy": "networkpolicies"}


@pytest.fixture
def operator(cluster: Cluster, hasty: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    """An operator that loses its patience with workers at once, where the definitions of dask-kubernetes are."""
    dask_kubernetes_operator.define(cluster)
    cluster.client.know("networkpolicies", "networking.k8s.io/v1")
    monkeypatch.setattr(executing, "PATIENCE", timedelta(seconds=0.2))
    monkeypatch.setattr(executing, "ASK_EVERY", timedelta(seconds=0.2))
    with Operator(cluster) as made:
        yield made


class Dask:
    """What becomes of the cluster of a run."""

    def __init__(self, cluster: Cluster, ledger: Ledger) -> None:
        self.client, self.kubelet, self.ledger = cluster.client, cluster.kubelet, ledger

    @property
    def name(self) -> str:
        name: str = self.ledger.status["run"]["driver"]
        return name

    @property
    def cluster(self) -> Raw | None:
        return self.client.find("daskclusters", self.name)

    def phase(self, phase: str) -> None:
        """Let dask-kubernetes say how it is."""
        self.client.patch("daskclusters", self.name, {"status": {"phase": phase}})

    def refuse(self, message: str) -> None:
        """Let Kubernetes refuse to create a pod of it."""
        about = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{self.name}-scheduler-x", "uid": "x"}
        event = {
            "metadata": {"name": "refused"},
            "involvedObject": about | {"namespace": self.client.namespace},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": message,
        }
        self.client.create("events", event, version="v1")

    def pod(self, name: str, *, again: bool = False) -> str:
        """Let it have a pod, `scheduler` or a worker, that runs unless it is made in place of another; the pod's name.

        There is no ReplicaSet that owns it, so it is said to be of a group that the garbage collector does not know.
        """
        made = raw.dask_pod(self.ledger.driver, name=name)
        (owner,) = made["metadata"]["ownerReferences"]
        owner["apiVersion"] = "tests.almanac.dev/v1"
        made["metadata"]["name"] += "-again" if again else ""
        return play(self.client, self.kubelet, made, runs=not again)

    def whole(self) -> tuple[str, str, str]:
        """Let it have all its pods, and the status say so; their names, the scheduler's first."""
        self.ledger.until(Phase.RUNNING, "DaskUnavailable")
        self.phase("Running")
        made = self.pod(names.SCHEDULER), self.pod("worker-1"), self.pod("worker-2")
        self.ready("2/2")
        return made

    def ready(self, said: str) -> None:
        """Wait until the status says so of the workers, and that the run goes on."""
        eventually(lambda: (self.ledger.status.get("workers") or {}).get("ready") == said, f"{said} workers")
        self.ledger.until(Phase.RUNNING, "Running")

    def goes_on(self) -> None:
        """It is the one run with the one driver still, which ends well and takes its cluster with it."""
        self.ledger.succeed()
        self.ledger.until(Phase.SUCCEEDED, "Completed")
        self.ledger.has_ended()
        eventually(lambda: self.cluster is None, "the cluster to go")

    @property
    def left(self) -> list[str]:
        """Kinds of what is there of the run besides its driver."""
        found = {kind: self.client.find(PLURALS[kind], self.name) for kind in COMPANIONS[Engine.DASK]}
        return [kind for kind, one in found.items() if one is not None]


@pytest.fixture
def dask(cluster: Cluster, operator: Operator, ledger: Ledger) -> Dask:
    """The cluster of the job `ledger`, whose driver has a pod that runs."""
    ledger.submit(engine="dask", dask={"minimum": 2, "maximum": 5})
    cluster.kubelet.run(ledger.pod(), "127.0.0.1")
    return Dask(cluster, ledger)


def test_a_cluster_has_the_life_of_its_run(dask: Dask) -> None:
    """It is the job's, is not there while the job is suspended, and goes when the driver is done."""
    ledger = dask.ledger
    ledger.until(Phase.RUNNING, "DaskUnavailable")
    assert dask.cluster is not None
    (owner,) = dask.cluster["metadata"]["ownerReferences"]
    assert owner["uid"] == ledger.document["metadata"]["uid"]
    ledger.edit(suspend=True)
    ledger.until(Phase.SUSPENDED, "Suspended")
    eventually(lambda: dask.cluster is None, "the cluster to go")
    ledger.edit(suspend=False)
    eventually(lambda: dask.cluster is not None, "the cluster to be there again")
    ledger.succeed()
    ledger.until(Phase.SUCCEEDED, "Completed")
    assert dask.left == ["ConfigMap", "NetworkPolicy"]
    ledger.edit(ttlSecondsAfterFinished=0)
    eventually(lambda: not dask.left, "the rest to go")


@cell(
    Group.CLUSTERS,
    "dask-kubernetes is away, or may create no pods (a quota)",
    Moment.BEFORE,
    "Running, with what lacks and why; it goes on once scheduler and workers are there.",
)
def test_what_keeps_pods_from_being_created(dask: Dask) -> None:
    ledger = dask.ledger
    assert "nobody has taken up DaskCluster" in ledger.until(Phase.RUNNING, "DaskUnavailable")
    dask.phase("Error")
    eventually(lambda: "refuses DaskCluster" in ledger.told[2], "the refusal to be told")
    dask.phase("Running")
    ledger.until(Phase.RUNNING, "WorkersRefused")
    dask.refuse('Error creating: pods "x" is forbidden: exceeded quota: small')
    assert "exceeded quota: small" in ledger.until(Phase.RUNNING, "QuotaExceeded")
    for name in (names.SCHEDULER, "worker-1", "worker-2"):
        dask.pod(name)
    dask.ready("2/2")
    dask.goes_on()


LACKS = (
    "Running, with what lacks and why, and how a pod ended; once another pod is there it goes on: one run, one driver."
)


@cell(
    Group.CLUSTERS,
    "The DaskCluster is deleted, with its scheduler and workers",
    Moment.WHILE,
    "It is created once more, and the status says so; the driver stays, and goes on with the new one.",
)
def test_a_cluster_that_somebody_deletes_is_created_again(dask: Dask) -> None:
    pods = dask.whole()
    assert dask.cluster is not None
    before = dask.cluster["metadata"]["uid"]
    dask.client.delete("daskclusters", dask.name)
    for pod in pods:  # as dask-kubernetes and the garbage collector do
        dask.kubelet.remove(pod)
    eventually(lambda: (dask.cluster or {}).get("metadata", {}).get("uid", before) != before, "another cluster")
    assert len(dask.ledger.drivers) == 1
    dask.whole()
    dask.goes_on()


@pytest.mark.parametrize(
    ("lost", "lack"),
    [
        pytest.param(
            *(0, "the scheduler of its workers is not running"),
            marks=cell(Group.CLUSTERS, "The scheduler of Dask is lost", Moment.WHILE, LACKS),
            id="scheduler",
        ),
        pytest.param(
            *(1, "only 1 of its 2 workers are running"),
            marks=cell(Group.CLUSTERS, "A worker of Dask is lost", Moment.WHILE, LACKS),
            id="worker",
        ),
    ],
)
@pytest.mark.parametrize("how", ["evict", "lose_node"])
def test_a_pod_of_a_cluster_that_is_lost(dask: Dask, lost: int, lack: str, how: str) -> None:
    pods = dask.whole()
    getattr(dask.kubelet, how)(pods[lost])
    pod = dask.pod(names.SCHEDULER if lost == 0 else "worker-3", again=True)
    dask.kubelet.unschedulable(pod)
    assert dask.ledger.until(Phase.RUNNING, "Unschedulable").startswith(f"{lack}: 0/3 nodes are available")
    if how == "evict":
        assert "Evicted: The node was low on resource" in dask.ledger.status["workers"]["message"]
    dask.kubelet.run(pod)
    dask.ready("2/2")
    dask.goes_on()


@cell(
    Group.CLUSTERS,
    "The driver's pod is lost, its Dask cluster is there",
    Moment.WHILE,
    "Another pod follows, of the same driver and run, and finds the cluster as it is: nothing of it is created again.",
)
@pytest.mark.parametrize("how", ["evict", "lose_node"])
def test_a_driver_that_is_lost_while_its_cluster_is_there(dask: Dask, how: str) -> None:
    dask.whole()
    assert dask.cluster is not None
    before, first = dask.cluster["metadata"]["uid"], dask.ledger.pod()
    getattr(dask.kubelet, how)(first)
    dask.kubelet.run(dask.ledger.pod(but=(first,)), "127.0.0.1")
    dask.ready("2/2")
    assert dask.cluster["metadata"]["uid"] == before
    dask.goes_on()


@cell(
    Group.CLUSTERS,
    "The driver (the Job) is deleted, its Dask cluster is there",
    Moment.WHILE,
    "It is created once more, and says so, and finds the cluster as it is; the second time: Failed, DriverLost, and "
    "the cluster goes.",
)
def test_a_driver_that_is_deleted_while_its_cluster_is_there(cluster: Cluster, dask: Dask) -> None:
    cluster.needs_controllers()
    dask.whole()
    assert dask.cluster is not None
    before = dask.cluster["metadata"]["uid"]
    dask.client.delete("jobs", dask.name)
    dask.ledger.until(Phase.PENDING, "Recreated")
    dask.ledger.run("127.0.0.1")
    dask.ready("2/2")
    assert dask.cluster["metadata"]["uid"] == before
    dask.client.delete("jobs", dask.name)
    dask.ledger.until(Phase.FAILED, "DriverLost")
    eventually(lambda: not dask.left, "all of the run to go")


def test_the_driver_says_how_many_workers_it_wants(
    cluster: Cluster,
    operator: Operator,
    ledger: Ledger,
    driver_says: Callable[[Raw], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {"stage": "read", "done": 1, "total": 8, "workers": {"wanted": 4, "running": 0, "failed": 0}}
    monkeypatch.setattr(api, "PROGRESS_PORT", driver_says(said))
    monkeypatch.setattr(process, "PROGRESS_EVERY", 0.2)
    ledger.submit(engine="dask", dask={"minimum": 2, "maximum": 5})
    cluster.kubelet.run(ledger.pod(), "127.0.0.1")
    dask = Dask(cluster, ledger)

    def wanted(number: int) -> bool:
        found = dask.cluster
        return found is not None and found["spec"]["worker"]["replicas"] == number

    eventually(lambda: wanted(4), "four workers")
    assert ledger.status["workers"]["ready"] == "0/4"
    said["workers"] = {"wanted": 9, "running": 0, "failed": 0}
    eventually(lambda: wanted(5), "five workers")


def test_what_the_operator_may_not_delete_does_not_hold_it_up(dask: Dask, cluster: Cluster) -> None:
    """It could not have created it: without rights for Dask there is nothing of Dask's."""
    cluster.server.fault(method="DELETE", path="/daskclusters/", status=403, times=100)
    dask.ledger.succeed()
    dask.ledger.until(Phase.SUCCEEDED, "Completed")
    assert cluster.client.list("daskclusters", labels=names.SELECTOR)


@cell(
    Group.CLUSTERS,
    "The cluster has no dask-kubernetes (no DaskCluster is known)",
    Moment.BEFORE,
    "Pending, DaskUnavailable, and what to install; all else works.",
)
def test_a_cluster_without_the_kind_says_what_to_install(cluster: Cluster, hasty: None, ledger: Ledger) -> None:
    """And all else works."""
    if cluster.client.find("customresourcedefinitions", "daskclusters.kubernetes.dask.org"):
        pytest.skip("this API has the definitions of dask-kubernetes")
    with Operator(cluster):
        ledger.submit(engine="dask")
        assert "install the dask-kubernetes operator" in ledger.until(Phase.PENDING, "DaskUnavailable")
        assert not ledger.drivers
        ledger.edit(engine="local")
        ledger.run()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
