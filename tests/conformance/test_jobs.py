"""Jobs of batch/v1: what becomes of a Job and its pods, with a kubelet that the test plays."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from kube.cluster import SCHEDULER, Cluster
from kube.refusals import Refusal

Raw = dict[str, Any]

POLICY: Raw = {
    "rules": [
        {"action": "FailJob", "onExitCodes": {"containerName": "driver", "operator": "In", "values": [64, 65, 79]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
}


def job(name: str = "a", **spec: Any) -> Raw:
    container = {"name": "driver", "image": "localhost/none:1"}
    pod = {"restartPolicy": "Never", "schedulerName": SCHEDULER, "containers": [container]}
    return {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": pod}, **spec}}


def status(cluster: Cluster, name: str = "a") -> Raw:
    told: Raw = cluster.client.get("jobs", name)["status"]
    return told


def conditions(cluster: Cluster, name: str = "a") -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one.get("reason", "")) for one in status(cluster, name).get("conditions", [])}


def ended(cluster: Cluster, kind: str, name: str = "a") -> Raw:
    """The status of a Job, once it has ended so."""
    cluster.wait(lambda: conditions(cluster, name).get(kind, ("",))[0] == "True", f"{name} {kind}")
    return status(cluster, name)


def messages(cluster: Cluster, reason: str) -> list[str]:
    return [one["message"] for one in cluster.client.list("events") if one["reason"] == reason]


def pods(cluster: Cluster) -> list[Raw]:
    return cluster.client.list("pods")


def test_a_job_gets_defaults_and_marks(cluster: Cluster) -> None:
    made = cluster.client.create("jobs", job())
    spec, metadata = made["spec"], made["metadata"]
    assert metadata["generation"] == 1
    assert (spec["completions"], spec["parallelism"], spec["suspend"]) == (1, 1, False)
    assert spec["podReplacementPolicy"] == "TerminatingOrFailed"
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": metadata["uid"]}}
    labels = spec["template"]["metadata"]["labels"]
    assert labels["batch.kubernetes.io/job-name"] == labels["job-name"] == "a"
    (container,) = spec["template"]["spec"]["containers"]
    assert container["terminationMessagePath"] == "/dev/termination-log"
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert made["status"] == {}


def test_a_pod_belongs_to_its_job(cluster: Cluster) -> None:
    made = cluster.client.create("jobs", job())
    pod = cluster.client.get("pods", cluster.kubelet.pod_of("a"))
    metadata = pod["metadata"]
    assert metadata["name"].startswith("a-")
    assert metadata["labels"]["batch.kubernetes.io/controller-uid"] == made["metadata"]["uid"]
    assert metadata["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Job", made["metadata"]["uid"], True)
    assert pod["status"]["phase"] == "Pending"
    cluster.wait(lambda: messages(cluster, "SuccessfulCreate"), "an event")
    assert messages(cluster, "SuccessfulCreate") == [f"Created pod: {metadata['name']}"]


def test_a_job_succeeds_with_its_pod(cluster: Cluster) -> None:
    cluster.client.create("jobs", job())
    pod = cluster.kubelet.pod_of("a")
    cluster.wait(lambda: status(cluster).get("active") == 1, "an active pod")
    assert status(cluster)["ready"] == 0
    cluster.kubelet.run(pod)
    cluster.wait(lambda: status(cluster).get("ready") == 1, "a ready pod")
    cluster.kubelet.exit(pod, 0, "done")
    told = ended(cluster, "Complete")
    assert conditions(cluster) == {
        "SuccessCriteriaMet": ("True", "CompletionsReached"),
        "Complete": ("True", "CompletionsReached"),
    }
    assert told["succeeded"] == 1
    assert told["completionTime"]
    assert not told.get("active")
    assert told["uncountedTerminatedPods"] == {}
    (left,) = pods(cluster)
    assert "finalizers" not in left["metadata"]
    assert left["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "done"


def test_a_job_fails_with_its_last_try(cluster: Cluster) -> None:
    cluster.client.create("jobs", job())
    cluster.kubelet.exit(cluster.kubelet.pod_of("a"), 1)
    told = ended(cluster, "Failed")
    assert conditions(cluster) == {
        "FailureTarget": ("True", "BackoffLimitExceeded"),
        "Failed": ("True", "BackoffLimitExceeded"),
    }
    assert told["failed"] == 1
    assert "completionTime" not in told
    cluster.wait(lambda: messages(cluster, "BackoffLimitExceeded"), "an event")


def test_a_failure_is_tried_again(cluster: Cluster) -> None:
    cluster.client.create("jobs", job(backoffLimit=1))
    first = cluster.kubelet.pod_of("a")
    cluster.kubelet.exit(first, 1)
    second = cluster.kubelet.pod_of("a", but=(first,))
    assert status(cluster)["failed"] == 1
    cluster.kubelet.exit(second, 0)
    assert ended(cluster, "Complete")["succeeded"] == 1


@pytest.mark.parametrize("limit", [0, 3])
def test_some_failures_are_final(cluster: Cluster, limit: int) -> None:
    cluster.client.create("jobs", job(backoffLimit=limit, podFailurePolicy=POLICY))
    pod = cluster.kubelet.pod_of("a")
    cluster.kubelet.exit(pod, 65, "{}")
    told = ended(cluster, "Failed")
    assert conditions(cluster)["Failed"] == ("True", "PodFailurePolicy")
    assert told["failed"] == 1
    failed = next(one for one in told["conditions"] if one["type"] == "Failed")
    assert failed["message"] == (
        f"Container driver for pod {cluster.namespace}/{pod} failed with exit code 65 matching FailJob rule at index 0"
    )


@pytest.mark.parametrize("how", ["evict", "lose_node"])
def test_disruptions_do_not_count(cluster: Cluster, how: str) -> None:
    cluster.client.create("jobs", job(podFailurePolicy=POLICY))
    first = cluster.kubelet.pod_of("a")
    cluster.kubelet.run(first)
    getattr(cluster.kubelet, how)(first)
    second = cluster.kubelet.pod_of("a", but=(first,))
    assert not status(cluster).get("failed")
    cluster.kubelet.out_of_memory(second)
    assert ended(cluster, "Failed")["failed"] == 1


def test_a_deadline(cluster: Cluster) -> None:
    cluster.client.create("jobs", job(activeDeadlineSeconds=1, backoffLimit=5))
    cluster.kubelet.run(cluster.kubelet.pod_of("a"))
    told = ended(cluster, "Failed")
    assert conditions(cluster)["Failed"] == ("True", "DeadlineExceeded")
    assert told["failed"] == 1
    cluster.wait(lambda: not pods(cluster), "the pod to be gone")


def test_suspended_from_the_start(cluster: Cluster) -> None:
    cluster.needs_controllers()
    cluster.client.create("jobs", job(suspend=True))
    cluster.wait(lambda: conditions(cluster).get("Suspended") == ("True", "JobSuspended"), "the Job to be suspended")
    assert "startTime" not in status(cluster)
    assert not pods(cluster)
    cluster.client.patch("jobs", "a", {"spec": {"suspend": False}})
    cluster.kubelet.exit(cluster.kubelet.pod_of("a"), 0)
    ended(cluster, "Complete")
    assert conditions(cluster)["Suspended"] == ("False", "JobResumed")


def test_suspending_stops_pods(cluster: Cluster) -> None:
    cluster.client.create("jobs", job(podFailurePolicy=POLICY))
    first = cluster.kubelet.pod_of("a")
    cluster.kubelet.schedule(first, "nowhere")
    cluster.kubelet.run(first)
    cluster.client.patch("jobs", "a", {"spec": {"suspend": True}})
    cluster.wait(lambda: conditions(cluster).get("Suspended") == ("True", "JobSuspended"), "the Job to be suspended")
    stopping = cluster.client.get("pods", first)["metadata"]
    assert stopping["deletionGracePeriodSeconds"] == 30
    cluster.client.patch("jobs", "a", {"spec": {"suspend": False}})
    cluster.wait(lambda: conditions(cluster)["Suspended"] == ("False", "JobResumed"), "the Job to be resumed")
    cluster.wait(lambda: status(cluster).get("terminating") == 1, "the pod to be counted as terminating")
    assert [one["metadata"]["name"] for one in pods(cluster)] == [first]
    cluster.kubelet.exit(first, 143)
    cluster.kubelet.remove(first)
    second = cluster.kubelet.pod_of("a", but=(first,))
    cluster.wait(lambda: cluster.client.find("pods", first) is None, "the first pod to be gone")
    assert cluster.client.get("pods", second)["status"]["phase"] == "Pending"
    assert not status(cluster).get("failed")  # a pod that suspending has stopped is no failure


def test_a_job_ends_when_its_pods_have(cluster: Cluster) -> None:
    cluster.client.create("jobs", job(activeDeadlineSeconds=1))
    pod = cluster.kubelet.pod_of("a")
    cluster.kubelet.schedule(pod, "nowhere")
    cluster.kubelet.run(pod)
    cluster.wait(lambda: "FailureTarget" in conditions(cluster), "the deadline")
    cluster.wait(lambda: status(cluster).get("terminating") == 1, "the pod to be stopped")
    assert "Failed" not in conditions(cluster)
    cluster.kubelet.exit(pod, 143)
    cluster.kubelet.remove(pod)
    ended(cluster, "Failed")


def test_a_pod_that_is_deleted_is_a_failure(cluster: Cluster) -> None:
    cluster.client.create("jobs", job())
    pod = cluster.kubelet.pod_of("a")
    cluster.kubelet.run(pod)
    cluster.client.delete("pods", pod)
    assert ended(cluster, "Failed")["failed"] == 1


def test_what_a_job_computes_does_not_change(cluster: Cluster) -> None:
    cluster.client.create("jobs", job())
    image = {"spec": {"template": {"spec": {"containers": [{"name": "driver", "image": "other:1"}]}}}}
    for change in (image, {"spec": {"completions": 2}}, {"spec": {"podFailurePolicy": POLICY}}):
        with pytest.raises(Refusal) as refused:
            cluster.client.patch("jobs", "a", change)
        assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    changed = {"spec": {"activeDeadlineSeconds": 9, "backoffLimit": 3, "ttlSecondsAfterFinished": 99}}
    assert cluster.client.patch("jobs", "a", changed)["metadata"]["generation"] == 2


def wrong(path: str, value: Any) -> Raw:
    made = deepcopy(job(podFailurePolicy=deepcopy(POLICY)))
    *parents, last = path.split(".")
    place: Any = made
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return made


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("metadata.name", "a" * 64, "spec.template.labels"),
        ("spec.backoffLimit", -1, "spec.backoffLimit"),
        ("spec.activeDeadlineSeconds", -1, "spec.activeDeadlineSeconds"),
        ("spec.template.spec.restartPolicy", "Always", "spec.template.spec.restartPolicy"),
        ("spec.template.spec.restartPolicy", "OnFailure", "spec.template.spec.restartPolicy"),
        ("spec.template.spec.containers", [], "spec.template.spec.containers"),
        ("spec.template.spec.containers.0.image", None, "spec.template.spec.containers[0].image"),
        ("spec.template.metadata", {"labels": {"l": "no label"}}, "spec.template.labels"),
        ("spec.podFailurePolicy.rules.0.action", "Retry", "spec.podFailurePolicy.rules[0].action"),
        ("spec.podFailurePolicy.rules.0.onExitCodes.values", [0], "spec.podFailurePolicy.rules[0].onExitCodes.values"),
        (
            "spec.template.spec.containers.0.volumeMounts",
            [{"name": "none", "mountPath": "/x"}],
            "spec.template.spec.containers[0].volumeMounts[0].name",
        ),
    ],
)
def test_jobs_that_are_refused(cluster: Cluster, path: str, value: Any, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        cluster.client.create("jobs", wrong(path, value))
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    assert any(one.field.startswith(field) for one in refused.value.problems), refused.value
