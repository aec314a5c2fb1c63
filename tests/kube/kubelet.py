"""A kubelet that a test plays: it writes what a real one would write into the status of pods, through the API.

Pods are on no node unless a test asks for one, so they go as soon as they are deleted. A pod with a node stays until
`remove`, as one that takes its time to stop.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from kube.client import STRATEGIC, Client, Document
from kube.logs import Logs
from kube.waiting import eventually

DISRUPTION = "DisruptionTarget"


class Kubelet:
    """Every method names a pod and returns it as it is then. Reasons and messages are a real kubelet's by default."""

    def __init__(self, client: Client, logs: Logs) -> None:
        self._client, self._logs = client, logs

    def pod_of(self, job: str, but: tuple[str, ...] = ()) -> str:
        """The name of the pod that a Job runs now, once it is there. `but` names those that are not meant."""

        def found() -> str:
            for one in self._client.list("pods", labels=f"batch.kubernetes.io/job-name={job}"):
                ended = one["status"].get("phase") in ("Succeeded", "Failed") or "deletionTimestamp" in one["metadata"]
                if not ended and one["metadata"]["name"] not in but:
                    return str(one["metadata"]["name"])
            return ""

        return eventually(found, f"a pod of {job}")

    def schedule(self, pod: str, node: str) -> Document:
        """Bind a pod to a node, which need not exist."""
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod},
            "target": {"kind": "Node", "name": node},
        }
        self._client.request("POST", self._client.path("pods", pod, "binding"), body).raise_for_status()
        return self._client.get("pods", pod)

    def unschedulable(self, pod: str, message: str = "0/3 nodes are available: 3 Insufficient memory.") -> Document:
        return self._write(pod, {"phase": "Pending"}, PodScheduled=("False", "Unschedulable", message))

    def waiting(self, pod: str, reason: str = "ContainerCreating", message: str = "") -> Document:
        """Scheduled, and kept from starting: `ImagePullBackOff`, `ErrImagePull`, `CreateContainerConfigError` ..."""
        state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        status = {"phase": "Pending", "containerStatuses": self._containers(pod, state, ready=False)}
        return self._write(pod, status, PodScheduled="True", Ready=("False", "ContainersNotReady", ""))

    def run(self, pod: str, ip: str = "10.0.0.1", ready: bool = True) -> Document:
        status = {
            "phase": "Running",
            "startTime": _now(),
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "containerStatuses": self._containers(pod, {"running": {"startedAt": _now()}}, ready=ready),
        }
        said = str(ready)
        return self._write(pod, status, PodScheduled="True", Initialized="True", ContainersReady=said, Ready=said)

    def exit(self, pod: str, code: int = 0, message: str = "", reason: str = "") -> Document:
        """The container ends; `message` is what it wrote to its termination message path."""
        finished = datetime.now(UTC)
        ended = {
            "exitCode": code,
            "reason": reason or ("Error" if code else "Completed"),
            "startedAt": (finished - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "finishedAt": finished.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "containerID": "containerd://0",
        }
        if message:
            ended["message"] = message[:4096]
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": self._containers(pod, {"terminated": ended}, ready=False),
        }
        self._logs.write(self._client.namespace, pod, ended=True)
        why = ("False", "PodFailed" if code else "PodCompleted", "")
        return self._write(pod, status, PodScheduled="True", ContainersReady=why, Ready=why)

    def out_of_memory(self, pod: str) -> Document:
        return self.exit(pod, 137, reason="OOMKilled")

    def evict(self, pod: str, message: str = "The node was low on resource: memory.") -> Document:
        """The kubelet needs the room: the pod fails, and is a disruption."""
        why = "TerminationByKubelet"
        status = {"phase": "Failed", "reason": "Evicted", "message": message}
        return self._write(pod, status, **{DISRUPTION: ("True", why, message), "Ready": ("False", "PodFailed", "")})

    def lose_node(self, pod: str) -> None:
        """The node is gone, and its pods with it, as the controllers for nodes and for pods leave them."""
        message = "PodGC: node no longer exists"
        status = {"phase": "Failed", "reason": "NodeLost", "message": "Node which was running pod is unresponsive"}
        self._write(pod, status, **{DISRUPTION: ("True", "DeletionByPodGC", message)})
        self.remove(pod)

    def lose_contact(self, pod: str) -> None:
        """The node does not answer any more: its pods are unknown, and asked to go, and nobody is there to do so."""
        status = {
            "phase": "Unknown",
            "reason": "NodeLost",
            "message": "Node which was running pod is unresponsive",
        }
        message = "Taint manager: deleting due to NoExecute taint"
        self._write(pod, status, **{DISRUPTION: ("True", "DeletionByTaintManager", message), "Ready": "Unknown"})
        self._client.delete("pods", pod, "")

    def warn(self, pod: str, reason: str, message: str) -> None:
        """A warning event about a pod, as kubelets send them."""
        about = self._client.get("pods", pod)["metadata"]
        event = {
            "metadata": {"generateName": f"{pod}."},
            "involvedObject": {"kind": "Pod", "name": pod, "namespace": about["namespace"], "uid": about["uid"]},
            "reason": reason,
            "message": message,
            "type": "Warning",
            "source": {"component": "kubelet"},
            "firstTimestamp": _now(),
            "lastTimestamp": _now(),
            "count": 1,
        }
        self._client.create("events", event)

    def remove(self, pod: str) -> None:
        """What a kubelet does at the end of a pod that is being deleted."""
        self._client.delete("pods", pod, "", gracePeriodSeconds=0)

    def log(self, pod: str, text: str) -> None:
        """Text that the container writes."""
        self._logs.write(self._client.namespace, pod, text)

    def _containers(self, pod: str, state: Document, ready: bool) -> list[Document]:
        spec = self._client.get("pods", pod)["spec"]
        return [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": "",
                "ready": ready,
                "started": "running" in state,
                "restartCount": 0,
                "state": state,
            }
            for one in spec["containers"]
        ]

    def _write(self, pod: str, status: Document, **conditions: Any) -> Document:
        told = []
        for kind, given in conditions.items():
            says, reason, message = (given, "", "") if isinstance(given, str) else given
            one = {"type": kind, "status": says, "lastTransitionTime": _now()}
            told.append(one | ({"reason": reason} if reason else {}) | ({"message": message} if message else {}))
        body = {"status": status | {"conditions": told}}
        return self._client.patch("pods", pod, body, kind=STRATEGIC, sub="status")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
