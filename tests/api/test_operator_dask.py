"""Clusters of runs on Dask before a Kubernetes API, embedded and real: tests play what dask-kubernetes does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import dask_kubernetes_operator
from almanac import cluster as api
from almanac import executing, names, process
from almanac.api import Engine, Phase
from almanac.engines import COMPANIONS
from kube.cluster import Cluster
from kube.waiting import eventually
from operators import Ledger, Operator

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
        self.client, self.ledger = cluster.client, ledger

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


def test_what_keeps_pods_from_being_created(dask: Dask) -> None:
    ledger = dask.ledger
    assert "nobody has taken up DaskCluster" in ledger.until(Phase.RUNNING, "DaskUnavailable")
    dask.phase("Error")
    eventually(lambda: "refuses DaskCluster" in ledger.told[2], "the refusal to be told")
    dask.phase("Running")
    ledger.until(Phase.RUNNING, "WorkersRefused")
    dask.refuse('Error creating: pods "x" is forbidden: exceeded quota: small')
    assert "exceeded quota: small" in ledger.until(Phase.RUNNING, "QuotaExceeded")


def test_a_cluster_that_somebody_deletes_is_created_again(dask: Dask) -> None:
    ledger = dask.ledger
    ledger.until(Phase.RUNNING, "DaskUnavailable")
    assert dask.cluster is not None
    before = dask.cluster["metadata"]["uid"]
    dask.client.delete("daskclusters", dask.name)
    eventually(lambda: (dask.cluster or {}).get("metadata", {}).get("uid", before) != before, "another cluster")
    assert len(ledger.drivers) == 1


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
