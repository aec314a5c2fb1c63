"""What keeps the pods of a Job out, and where it is told."""

from __future__ import annotations

from typing import Any

import pytest

from kube.cluster import SCHEDULER, Cluster

Raw = dict[str, Any]

RESTRICTED: Raw = {"pod-security.kubernetes.io/enforce": "restricted"}
SAFE: Raw = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def job(name: str = "a", container: Raw | None = None, **pod: Any) -> Raw:
    spec = {
        "restartPolicy": "Never",
        "schedulerName": SCHEDULER,
        "containers": [{"name": "driver", "image": "localhost/none:1", **(container or {})}],
        **pod,
    }
    return {"metadata": {"name": name}, "spec": {"template": {"spec": spec}}}


def refusals(cluster: Cluster) -> list[str]:
    found = cluster.client.list("events", fields="reason=FailedCreate")
    return [one["message"] for one in found if one["involvedObject"]["kind"] == "Job"]


def refused(cluster: Cluster) -> str:
    """The words of the first refusal."""
    return cluster.wait(lambda: next(iter(refusals(cluster)), ""), "a refused pod")


@pytest.fixture(autouse=True)
def _controllers(cluster: Cluster) -> None:
    cluster.needs_controllers()


def test_a_service_account_that_is_not_there(cluster: Cluster) -> None:
    cluster.client.create("jobs", job(serviceAccountName="nobody"))
    told = refused(cluster)
    assert told.startswith('Error creating: pods "a-')
    assert told.endswith(
        f'is forbidden: error looking up service account {cluster.namespace}/nobody: serviceaccount "nobody" not found'
    )
    assert not cluster.client.get("jobs", "a")["status"].get("active")
    cluster.client.create("serviceaccounts", {"metadata": {"name": "nobody"}})
    cluster.kubelet.pod_of("a")


def test_a_quota(cluster: Cluster) -> None:
    hard = {"requests.cpu": "1", "pods": "3"}
    cluster.client.create("resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": hard}})

    def counted() -> bool:
        return not cluster.real or "used" in cluster.client.get("resourcequotas", "small").get("status", {})

    cluster.wait(counted, "the quota to be counted")
    cluster.client.create("jobs", job("fits", {"resources": {"requests": {"cpu": "600m"}}}))
    cluster.kubelet.pod_of("fits")
    cluster.client.create("jobs", job("over", {"resources": {"requests": {"cpu": "500m"}}}))
    told = refused(cluster)
    assert told.endswith(
        "is forbidden: exceeded quota: small, requested: requests.cpu=500m, used: requests.cpu=600m, "
        "limited: requests.cpu=1"
    )


def test_a_quota_asks_for_requests(cluster: Cluster) -> None:
    cluster.client.create("resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": {"requests.cpu": "1"}}})
    cluster.client.create("jobs", job())

    def told() -> bool:
        return any("failed quota: small: must specify requests.cpu for: driver" in one for one in refusals(cluster))

    cluster.wait(told, "a refused pod")


def test_pod_security(cluster: Cluster) -> None:
    cluster.client.patch("namespaces", cluster.namespace, {"metadata": {"labels": RESTRICTED}})
    cluster.client.create("jobs", job("safe", {"securityContext": SAFE}))
    cluster.kubelet.pod_of("safe")
    cluster.client.create("jobs", job("bare"))
    told = refused(cluster)
    assert told.startswith('Error creating: pods "bare-')
    assert told.endswith(
        'is forbidden: violates PodSecurity "restricted:latest": '
        "allowPrivilegeEscalation != false "
        '(container "driver" must set securityContext.allowPrivilegeEscalation=false), '
        'unrestricted capabilities (container "driver" must set securityContext.capabilities.drop=["ALL"]), '
        'runAsNonRoot != true (pod or container "driver" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or container "driver" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")'
    )
    assert not cluster.client.list("pods", labels="batch.kubernetes.io/job-name=bare")


@pytest.mark.parametrize(
    ("pod", "container", "words"),
    [
        ({"hostNetwork": True}, {}, "host namespaces (hostNetwork=true)"),
        ({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, {}, 'uses restricted volume type "hostPath"'),
        ({}, {"privileged": True, "allowPrivilegeEscalation": True}, "must not set securityContext.privileged=true"),
        ({}, {"runAsUser": 0}, "runAsUser=0"),
        ({}, {"runAsNonRoot": False}, "runAsNonRoot != true"),
        ({}, {"capabilities": {"drop": ["NET_RAW"]}}, 'capabilities.drop=["ALL"]'),
    ],
)
def test_each_rule_of_pod_security(cluster: Cluster, pod: Raw, container: Raw, words: str) -> None:
    cluster.client.patch("namespaces", cluster.namespace, {"metadata": {"labels": RESTRICTED}})
    cluster.client.create("jobs", job(container={"securityContext": SAFE | container}, **pod))
    assert words in refused(cluster)
