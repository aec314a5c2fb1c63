"""The Job controller, as far as batch/v1 Jobs of one pod at a time need it.

After Kubernetes' pkg/controller/job: one call looks at a Job and its pods, and writes what follows. Parallelism,
completion modes, success policies and limits per index are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from kube.api import Api, Options, now
from kube.refusals import Refusal
from kube.resources import EVENTS, JOBS, PODS, Document
from kube.store import Key

TRACKING = "batch.kubernetes.io/job-tracking"
_FINISHED = ("Succeeded", "Failed")
_STATUS = Options(subresource="status", manager="kube-controller-manager")


@dataclass
class JobController:
    """`again` is called with a Job that is to be looked at later, after so many seconds."""

    api: Api
    again: Callable[[Key, float], None]
    retry_delay: float = 0.0
    """What Kubernetes waits before a second pod is 10 s, before a third 20 s ..."""
    refused_delay: float = 0.2
    """How long after a refused pod it is tried again."""

    def sync(self, key: Key) -> None:
        job = self.api.objects.find(JOBS, key)
        if job is None or _is_true(job, "Complete") or _is_true(job, "Failed"):
            return
        pods = self._pods(job)
        new = deepcopy(job)
        status = new["status"]
        if "startTime" not in status and not job["spec"]["suspend"]:
            status["startTime"] = now()
        final = self._end(job, pods, status)
        if final is None:
            self._manage(job, pods, status)
            pods = self._pods(job)
            if status.get("succeeded", 0) + len(_succeeded(pods)) >= job["spec"]["completions"]:
                final = _condition(
                    "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"
                )
        else:
            for pod in filter(_active, pods):
                self._delete(job, pod)
            pods = self._pods(job)
        self._record(new, job, pods, final)

    def _pods(self, job: Document) -> list[Document]:
        found = [
            self.api.objects.find(*place)
            for place in self.api.objects.dependents(job["metadata"]["uid"])
            if place[0] == PODS
        ]
        return [one for one in found if one is not None]

    # Deciding

    def _end(self, job: Document, pods: list[Document], status: Document) -> Document | None:
        """The condition that ends the Job, if anything does but success."""
        spec = job["spec"]
        for kind in ("SuccessCriteriaMet", "FailureTarget"):
            for one in status.get("conditions", []):
                if one["type"] == kind:
                    return one
        for pod in pods:
            if _failed(pod, job) and (why := _policy(job, pod)[1]):
                return _condition("FailureTarget", "PodFailurePolicy", why)
        failures = status.get("failed", 0) + len(_newly_failed(job, pods))
        if failures > spec["backoffLimit"]:
            return _condition("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        if spec.get("activeDeadlineSeconds") is not None and not spec["suspend"] and status.get("startTime"):
            left = spec["activeDeadlineSeconds"] - _seconds_since(status["startTime"])
            if left <= 0:
                return _condition("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
            self.again((job["metadata"]["namespace"], job["metadata"]["name"]), left)
        return None

    def _manage(self, job: Document, pods: list[Document], status: Document) -> None:
        """Bring the number of pods to what it should be."""
        active = [one for one in pods if _active(one)]
        if job["spec"]["suspend"]:
            for pod in active:  # let go of first: it does not count as a failure
                self._release(pod)
                self._delete(job, pod)
            if _put(status, _condition("Suspended", "JobSuspended", "Job suspended")):
                self._event(job, "Normal", "Suspended", "Job suspended")
                status.pop("startTime", None)
            return
        if any(one["type"] == "Suspended" for one in status.get("conditions", [])) and _put(
            status, _condition("Suspended", "JobResumed", "Job resumed", "False")
        ):
            self._event(job, "Normal", "Resumed", "Job resumed")
            status["startTime"] = now()
        wanted = min(
            job["spec"]["completions"] - status.get("succeeded", 0) - len(_succeeded(pods)), job["spec"]["parallelism"]
        )
        stopping = sum(_terminating(one) for one in pods) if _waits(job) else 0
        if wanted - len(active) - stopping <= 0 or "deletionTimestamp" in job["metadata"]:
            return
        failures = status.get("failed", 0) + len(_newly_failed(job, pods))
        wait = self._wait(job, failures)
        if wait > 0:
            self.again((job["metadata"]["namespace"], job["metadata"]["name"]), wait)
        else:
            self._create(job)

    def _wait(self, job: Document, failures: int) -> float:
        """Seconds until the pod after a failed one may start."""
        if not failures or not self.retry_delay:
            return 0.0
        finished = [_finish_time(one) for one in self._pods(job) if _failed(one, job)]
        return self.retry_delay * 2 ** (failures - 1) - _seconds_since(max(finished, default=now()))

    # Acting

    def _create(self, job: Document) -> None:
        metadata, template = job["metadata"], deepcopy(job["spec"]["template"])
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        made = template["metadata"]
        made |= {"generateName": f"{metadata['name']}-", "finalizers": [*made.get("finalizers", []), TRACKING]}
        made["ownerReferences"] = [owner | {"controller": True, "blockOwnerDeletion": True}]
        try:
            pod = self.api.create(self.api.built_in(PODS), metadata["namespace"], template)
        except Refusal as refusal:
            if "NamespaceTerminating" not in {one.reason for one in refusal.problems}:
                self._event(job, "Warning", "FailedCreate", f"Error creating: {refusal}")
                self.again((metadata["namespace"], metadata["name"]), self.refused_delay)
        else:
            self._event(job, "Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    def _delete(self, job: Document, pod: Document) -> None:
        self.api.delete(self.api.built_in(PODS), pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._event(job, "Normal", "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")

    def _record(self, new: Document, job: Document, pods: list[Document], final: Document | None) -> None:
        """Count what has ended, tell how it stands, let go of pods that are counted: in Kubernetes' order of writes."""
        status = new["status"]
        counted: dict[str, list[str]] = {"succeeded": [], "failed": []}
        released = []
        ends = final is not None or "deletionTimestamp" in job["metadata"]
        fails = final is not None and final["type"] == "FailureTarget"
        for pod in pods:
            failed = _failed(pod, job)
            if TRACKING not in pod["metadata"].get("finalizers", ()) or not (
                ends or failed or _is_phase(pod, "Succeeded")
            ):
                continue
            released.append(pod)
            if _is_phase(pod, "Succeeded"):
                counted["succeeded"].append(pod["metadata"]["uid"])
            elif (failed or fails) and _policy(job, pod)[0]:
                counted["failed"].append(pod["metadata"]["uid"])
        status["active"] = sum(map(_active, pods))
        status["ready"] = sum(_active(one) and _ready(one) for one in pods)
        status["terminating"] = sum(map(_terminating, pods))
        status["uncountedTerminatedPods"] = {name: uids for name, uids in counted.items() if uids}
        if final:
            _put(status, final)
        if status["active"] == 0:
            del status["active"]
        new = self._write(job, status)
        for pod in released:
            self._release(pod)
        status = deepcopy(new["status"])
        for name, uids in counted.items():
            if uids:
                status[name] = status.get(name, 0) + len(uids)
        status["uncountedTerminatedPods"] = {}
        status["terminating"] = sum(map(_terminating, self._pods(job)))
        if final and not status["terminating"]:
            kind = "Complete" if final["type"] == "SuccessCriteriaMet" else "Failed"
            _put(status, _condition(kind, final["reason"], final["message"]))
            if kind == "Complete":
                status["completionTime"] = now()
                self._event(job, "Normal", "Completed", "Job completed")
            else:
                self._event(job, "Warning", final["reason"], final["message"])
        self._write(new, status)

    def _write(self, job: Document, status: Document) -> Document:
        metadata = job["metadata"]
        place = (self.api.built_in(JOBS), metadata["namespace"], metadata["name"])
        return self.api.patch(*place, lambda old: {**old, "status": status}, _STATUS)

    def _release(self, pod: Document) -> None:
        found = self.api.objects.find(PODS, (pod["metadata"]["namespace"], pod["metadata"]["name"]))
        if found is not None:
            release(self.api, found)

    def _event(self, job: Document, kind: str, reason: str, message: str) -> None:
        """One event for each thing told of a Job, with a count, as the event recorder has it."""
        metadata = job["metadata"]
        mark = sha256(f"{metadata['uid']}{reason}{message}".encode()).hexdigest()[:16]
        name, moment = f"{metadata['name'][:200]}.{mark}", now()
        place = (self.api.built_in(EVENTS), metadata["namespace"])
        if found := self.api.objects.find(EVENTS, (metadata["namespace"], name)):
            again = {"count": found["count"] + 1, "lastTimestamp": moment}
            self.api.patch(*place, name, lambda old: {**old, **again})
            return
        about = {"kind": "Job", "apiVersion": "batch/v1", "namespace": metadata["namespace"], "name": metadata["name"]}
        event = {
            "metadata": {"name": name},
            "involvedObject": about | {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "eventTime": None,
            "source": {"component": "job-controller"},
            "reportingComponent": "job-controller",
            "reportingInstance": "",
        }
        try:
            self.api.create(*place, event)
        except Refusal:
            return  # a namespace that is being deleted takes none


def release(api: Api, pod: Document) -> None:
    """Take the Job controller's finalizer off a pod."""
    kept = [one for one in pod["metadata"].get("finalizers", ()) if one != TRACKING]
    metadata = pod["metadata"]

    def without(old: Document) -> Document:
        return {**old, "metadata": {**old["metadata"], "finalizers": kept}}

    api.patch(api.built_in(PODS), metadata["namespace"], metadata["name"], without)


def _policy(job: Document, pod: Document) -> tuple[bool, str]:
    """Whether a failed pod counts, and the message if it fails the Job: what podFailurePolicy says."""
    named = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for place, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules", [])):
        action = rule["action"]
        ending = f"matching {action} rule at index {place}"
        if "onExitCodes" in rule:
            container = _exited(pod, rule["onExitCodes"])
            if container is None:
                continue
            code = container["state"]["terminated"]["exitCode"]
            told = f"Container {container['name']} for pod {named} failed with exit code {code}"
        else:
            wanted = {(one["type"], one.get("status", "True")) for one in rule["onPodConditions"]}
            met = next(
                (one for one in pod["status"].get("conditions", []) if (one["type"], one["status"]) in wanted), None
            )
            if met is None:
                continue
            told = f"Pod {named} has condition {met['type']}"
        return action != "Ignore", f"{told} {ending}" if action == "FailJob" else ""
    return True, ""


def _exited(pod: Document, wanted: Document) -> Document | None:
    statuses = [*pod["status"].get("containerStatuses", []), *pod["status"].get("initContainerStatuses", [])]
    for one in statuses:
        code = one.get("state", {}).get("terminated", {}).get("exitCode", 0)
        named = wanted.get("containerName") in (None, one["name"])
        if code and named and (code in wanted["values"]) == (wanted["operator"] == "In"):
            return one
    return None


def _waits(job: Document) -> bool:
    """Whether a pod that is being stopped holds its place."""
    return "podFailurePolicy" in job["spec"] or job["spec"]["podReplacementPolicy"] == "Failed"


def _failed(pod: Document, job: Document) -> bool:
    if _is_phase(pod, "Failed"):
        return True
    return not _waits(job) and "deletionTimestamp" in pod["metadata"] and not _is_phase(pod, "Succeeded")


def _newly_failed(job: Document, pods: list[Document]) -> list[Document]:
    return [
        one
        for one in pods
        if TRACKING in one["metadata"].get("finalizers", ()) and _failed(one, job) and _policy(job, one)[0]
    ]


def _succeeded(pods: list[Document]) -> list[Document]:
    return [one for one in pods if _is_phase(one, "Succeeded") and TRACKING in one["metadata"].get("finalizers", ())]


def _is_phase(pod: Document, phase: str) -> bool:
    return bool(pod["status"].get("phase") == phase)


def _active(pod: Document) -> bool:
    return pod["status"].get("phase") not in _FINISHED and "deletionTimestamp" not in pod["metadata"]


def _terminating(pod: Document) -> bool:
    return pod["status"].get("phase") not in _FINISHED and "deletionTimestamp" in pod["metadata"]


def _ready(pod: Document) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def _is_true(job: Document, kind: str) -> bool:
    return any(one["type"] == kind and one["status"] == "True" for one in job["status"].get("conditions", []))


def _condition(kind: str, reason: str, message: str, status: str = "True") -> Document:
    moment = now()
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": moment,
        "lastTransitionTime": moment,
        "reason": reason,
        "message": message,
    }


def _put(status: Document, condition: Document) -> bool:
    """Add or change a condition; whether its status has changed."""
    conditions = status.setdefault("conditions", [])
    for place, one in enumerate(conditions):
        if one["type"] == condition["type"]:
            if one["status"] == condition["status"]:
                return False
            conditions[place] = condition
            return True
    conditions.append(condition)
    return True


def _finish_time(pod: Document) -> str:
    ended = [
        one.get("state", {}).get("terminated", {}).get("finishedAt")
        for one in pod["status"].get("containerStatuses", [])
    ]
    return max(filter(None, ended), default=now())


def _seconds_since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
