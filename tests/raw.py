"""Jobs, pods and events as the Kubernetes API writes them, for tests of those who read them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import goldens
from almanac import names
from almanac.api import Engine, ExitCode, Reason, Report, Result, Run

Raw = dict[str, Any]


def time(moment: datetime) -> str:
    """A moment as the API writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


CREATED = goldens.START + timedelta(seconds=1)


def driver(run: Run | None = None, created: datetime = CREATED, engine: Engine = Engine.LOCAL, **status: Any) -> Raw:
    """The driver of a run, as the operator creates it and the API stores it."""
    of = goldens.job(goldens.document("smallest"))
    made = goldens.build(of, run or goldens.first_run(of), engine, goldens.SETTINGS)[-1]
    made["metadata"] |= {"uid": f"uid-of-{made['metadata']['name']}", "creationTimestamp": time(created)}
    return made | {"status": status}


def condition(kind: str, reason: str = "", message: str = "", status: str = "True", at: datetime = CREATED) -> Raw:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time(at)}


def pod(of: Raw, created: datetime = CREATED, name: str = "a", **status: Any) -> Raw:
    """A pod of a driver, as the Job controller makes it."""
    template = of["spec"]["template"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": of["metadata"]["name"], "uid": of["metadata"]["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{of['metadata']['name']}-{name}",
            "namespace": of["metadata"]["namespace"],
            "uid": f"uid-of-pod-{of['metadata']['uid']}-{name}",
            "creationTimestamp": time(created),
            "labels": template["metadata"]["labels"] | {"batch.kubernetes.io/job-name": of["metadata"]["name"]},
            "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        },
        "spec": template["spec"],
        "status": {"phase": "Pending", **status},
    }


def executor(of: Raw, created: datetime = CREATED, name: str = "exec-1", **status: Any) -> Raw:
    """An executor that the driver in this pod has asked for, as Spark makes it."""
    metadata = of["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"], "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name']}-{name}",
            "namespace": metadata["namespace"],
            "uid": f"uid-of-{metadata['uid']}-{name}",
            "creationTimestamp": time(created),
            "labels": metadata["labels"] | {names.COMPONENT: names.EXECUTOR, "spark-role": "executor"},
            "ownerReferences": [owner],
        },
        "spec": {"containers": [{"name": names.CONTAINER, "resources": {"limits": {"memory": "4096Mi"}}}]},
        "status": {"phase": "Pending", **status},
    }


def dask_pod(of: Raw, created: datetime = CREATED, name: str = "worker-1", **status: Any) -> Raw:
    """The scheduler or a worker of the DaskCluster of a driver, as dask-kubernetes and a Deployment make it."""
    metadata = of["metadata"]
    role = names.SCHEDULER if name == names.SCHEDULER else names.WORKER
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": f"uid-of-set-{name}"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name']}-{name}",
            "namespace": metadata["namespace"],
            "uid": f"uid-of-{metadata['uid']}-{name}",
            "creationTimestamp": time(created),
            "labels": metadata["labels"] | {names.COMPONENT: role, "dask.org/component": role},
            "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {"containers": [{"name": names.CONTAINER, "resources": {"limits": {"memory": "4Gi"}}}]},
        "status": {"phase": "Pending", **status},
    }


def unschedulable(message: str) -> Raw:
    """The status of a pod for which there is no node."""
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"conditions": [said]}


def container(name: str = names.CONTAINER, **state: Any) -> Raw:
    """The status of a container."""
    return {"name": name, "ready": False, "restartCount": 0, "state": state}


def running() -> Raw:
    """The status of a pod that runs."""
    return {"phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [container(running={"startedAt": ""})]}


def ready() -> Raw:
    """The status of a pod that runs and answers."""
    state = container(running={"startedAt": ""}) | {"ready": True}
    return {"phase": "Running", "podIP": "10.0.0.8", "containerStatuses": [state]}


def restarted(code: int, reason: str = "Error", restarts: int = 1, at: datetime = CREATED, **now: Any) -> Raw:
    """The status of a pod whose container has ended, and is started again, or is about to be."""
    last = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": time(at)}}
    state = container(**now) | {"restartCount": restarts, "lastState": last, "ready": "running" in now}
    return {"phase": "Running", "containerStatuses": [state]}


def waiting(reason: str, message: str = "") -> Raw:
    """The status of a pod whose container waits."""
    return {"containerStatuses": [container(waiting={"reason": reason, "message": message})]}


def terminated(code: int, message: str = "", reason: str = "Error", at: datetime = CREATED) -> Raw:
    """The status of a pod whose container has ended."""
    end = {"exitCode": code, "reason": reason, "message": message, "finishedAt": time(at)}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container(terminated=end)]}


def success(run: str) -> str:
    """The termination message of a run that is complete."""
    result = Result(
        uri=f"s3://ledger/models/runs/{run}", entities=5, rows=60, scores={"mase": 0.87}, checksum="sha256:0"
    )
    return Report(
        run=run,
        reason=Reason.COMPLETED,
        exit_code=ExitCode.DONE,
        engine=Engine.LOCAL,
        engine_reason="60 rows of 3 columns",
        message="older runs could not be deleted",
        result=result,
    ).to_json()


def failure(run: str, reason: Reason, message: str) -> str:
    """The termination message of a run that a person can mend."""
    return Report(run=run, reason=reason, exit_code=reason.exit_code, engine=Engine.LOCAL, message=message).to_json()


def event(about: Raw, reason: str, message: str, at: datetime = CREATED) -> Raw:
    """A warning event about an object, as v1 has it."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "type": "Warning",
        "metadata": {"name": "x", "creationTimestamp": time(at)},
        "involvedObject": {"kind": about["kind"], "name": about["metadata"]["name"], "uid": about["metadata"]["uid"]},
        "reason": reason,
        "message": message,
        "lastTimestamp": time(at),
    }


def document_of(message: str) -> Raw:
    """A termination message as the document that it is."""
    read: Raw = json.loads(message)
    return read
