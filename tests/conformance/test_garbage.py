"""What goes when its owner goes, and what stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kube.cluster import SCHEDULER, Cluster
from kube.refusals import Refusal

Raw = dict[str, Any]
Samples = Callable[..., Raw]


def owned_by(*owners: Raw, blocking: bool = True) -> list[Raw]:
    return [
        {
            "apiVersion": one["apiVersion"],
            "kind": one["kind"],
            "name": one["metadata"]["name"],
            "uid": one["metadata"]["uid"],
            "blockOwnerDeletion": blocking,
        }
        for one in owners
    ]


def config(name: str, *owners: Raw) -> Raw:
    return {"metadata": {"name": name, "ownerReferences": owned_by(*owners)}}


def job(*owners: Raw, name: str = "j") -> Raw:
    pod = {
        "restartPolicy": "Never",
        "schedulerName": SCHEDULER,
        "containers": [{"name": "driver", "image": "localhost/none:1"}],
    }
    return {**config(name, *owners), "spec": {"template": {"spec": pod}}}


def gone(cluster: Cluster, plural: str, name: str) -> None:
    cluster.wait(lambda: cluster.client.find(plural, name) is None, f"{plural}/{name} to be gone")


@pytest.fixture(autouse=True)
def _controllers(cluster: Cluster) -> None:
    cluster.needs_controllers()


def test_dependents_follow_their_owner(cluster: Cluster, samples: Samples) -> None:
    owner = cluster.client.create("samples", samples("owner"))
    cluster.client.create("configmaps", config("c", owner))
    cluster.client.create("jobs", job(owner))
    pod = cluster.kubelet.pod_of("j")
    cluster.client.delete("samples", "owner")
    assert cluster.client.find("samples", "owner") is None
    for plural, name in (("configmaps", "c"), ("jobs", "j"), ("pods", pod)):
        gone(cluster, plural, name)


def test_foreground_waits_for_dependents(cluster: Cluster, samples: Samples) -> None:
    owner = cluster.client.create("samples", samples("owner"))
    held = config("c", owner)
    held["metadata"]["finalizers"] = ["almanac.dev/a"]
    cluster.client.create("configmaps", held)
    cluster.client.delete("samples", "owner", "Foreground")
    cluster.wait(lambda: "deletionTimestamp" in cluster.client.get("configmaps", "c")["metadata"], "c to be deleted")
    assert cluster.client.get("samples", "owner")["metadata"]["finalizers"] == ["foregroundDeletion"]
    cluster.client.patch("configmaps", "c", {"metadata": {"finalizers": None}})
    gone(cluster, "samples", "owner")


def test_foreground_with_a_job(cluster: Cluster, samples: Samples) -> None:
    owner = cluster.client.create("samples", samples("owner"))
    cluster.client.create("jobs", job(owner))
    pod = cluster.kubelet.pod_of("j")
    cluster.kubelet.exit(pod, 0)
    cluster.client.delete("samples", "owner", "Foreground")
    for plural, name in (("pods", pod), ("jobs", "j"), ("samples", "owner")):
        gone(cluster, plural, name)


def test_orphans_stay(cluster: Cluster, samples: Samples) -> None:
    owner = cluster.client.create("samples", samples("owner"))
    cluster.client.create("configmaps", config("c", owner))
    cluster.client.delete("samples", "owner", "Orphan")
    gone(cluster, "samples", "owner")
    assert "ownerReferences" not in cluster.client.get("configmaps", "c")["metadata"]


def test_a_job_that_is_just_deleted_leaves_its_pods(cluster: Cluster) -> None:
    """What batch/v1 has always done, and what surprises everybody: a policy must be named."""
    cluster.client.create("jobs", job())
    pod = cluster.kubelet.pod_of("j")
    cluster.client.delete("jobs", "j", policy="")
    gone(cluster, "jobs", "j")
    cluster.wait(lambda: "finalizers" not in cluster.client.get("pods", pod)["metadata"], "the pod to be let go")
    assert "ownerReferences" not in cluster.client.get("pods", pod)["metadata"]


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_a_job_is_deleted_with_its_pods(cluster: Cluster, policy: str) -> None:
    cluster.client.create("jobs", job())
    pod = cluster.kubelet.pod_of("j")
    cluster.kubelet.run(pod)
    cluster.client.delete("jobs", "j", policy)
    gone(cluster, "pods", pod)
    gone(cluster, "jobs", "j")


def test_one_owner_of_two_is_enough(cluster: Cluster, samples: Samples) -> None:
    first, second = (cluster.client.create("samples", samples(name)) for name in ("first", "second"))
    cluster.client.create("configmaps", config("c", first, second))
    cluster.client.delete("samples", "first")

    def left() -> list[str]:
        metadata = cluster.client.get("configmaps", "c")["metadata"]
        return [one["name"] for one in metadata["ownerReferences"]]

    cluster.wait(lambda: left() == ["second"], "the lost owner to be forgotten")
    cluster.client.delete("samples", "second")
    gone(cluster, "configmaps", "c")


def test_what_comes_after_its_owner_is_gone_goes_too(cluster: Cluster, samples: Samples) -> None:
    owner = cluster.client.create("samples", samples("owner"))
    cluster.client.delete("samples", "owner")
    cluster.client.create("configmaps", config("late", owner))
    gone(cluster, "configmaps", "late")


def test_an_owner_of_the_same_name_is_another(cluster: Cluster, samples: Samples) -> None:
    owner = cluster.client.create("samples", samples("owner"))
    cluster.client.create("configmaps", config("c", owner))
    cluster.client.delete("samples", "owner")
    cluster.client.create("samples", samples("owner"))
    gone(cluster, "configmaps", "c")


def test_a_namespace_goes_with_all_that_is_in_it(cluster: Cluster, samples: Samples) -> None:
    other = cluster.make_namespace()
    cluster.client.create("samples", samples("a"), namespace=other)
    cluster.client.create("jobs", job(), namespace=other)
    cluster.client.create(
        "configmaps", {"metadata": {"name": "held", "finalizers": ["almanac.dev/a"]}}, namespace=other
    )
    cluster.client.delete("namespaces", other)
    with pytest.raises(Refusal) as refused:
        cluster.client.create("configmaps", {"metadata": {"name": "late"}}, namespace=other)
    assert refused.value.code == 403
    assert [one.reason for one in refused.value.problems] == ["NamespaceTerminating"]
    cluster.wait(lambda: not cluster.client.list("jobs", namespace=other), "the Job to be gone")
    assert cluster.client.get("namespaces", other)["status"]["phase"] == "Terminating"
    cluster.client.patch("configmaps", "held", {"metadata": {"finalizers": None}}, namespace=other)
    gone(cluster, "namespaces", other)
