"""What holds whatever fails: no job is lost, runs twice or goes back, each end has a reason, every result is whole."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from almanac import names
from almanac.api import Phase
from almanac.crd import RESOURCES
from kube.cluster import Cluster
from operators import Operator

Raw = dict[str, Any]


def hold_in_cluster(cluster: Cluster) -> None:
    """Every job is over, waits to be resumed, or has the one driver of its run, and tells why it is where it is.

    A job that is none of that was left by an operator that was stopped a moment ago: the next one sees to it.
    """
    if any(not _at_rest(cluster, job) for job in _jobs(cluster)):
        with Operator(cluster):
            cluster.wait(lambda: all(_at_rest(cluster, job) for job in _jobs(cluster)), "all jobs to be seen to")
    jobs = _jobs(cluster)
    for job in jobs:
        _told(job)
        _once(cluster, job)
        _forward(cluster, job)
    uids = {job["metadata"]["uid"] for job in jobs}
    if cluster.has_controllers:
        cluster.wait(lambda: not _orphans(cluster, uids), "what belongs to no job to go")


def hold_in(folder: Path) -> None:
    """Whatever latest.json names is there, and every run that says that it is complete has all its files as they were.

    `folder` is one of this machine; what is below it is gone through.
    """
    for pointer in folder.rglob("latest.json"):
        named = json.loads(pointer.read_bytes())
        assert (pointer.parent / named["path"] / "report.json").exists(), f"{pointer} names a run that is not complete"
    for report in folder.rglob("runs/*/report.json"):
        for file in json.loads(report.read_bytes())["files"]:
            data = (report.parent / file["path"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file["size"], file["sha256"]), file["path"]


def _jobs(cluster: Cluster) -> list[Raw]:
    return [job for kind in RESOURCES.values() for job in cluster.client.list(kind.plural)]


def _drivers(cluster: Cluster, job: Raw) -> list[Raw]:
    """The job's drivers that are not over."""
    found = cluster.client.list("jobs", labels=names.job_selector(job["metadata"]["uid"]))
    ends = ("Complete", "Failed")
    return [
        one
        for one in found
        if "deletionTimestamp" not in one["metadata"]
        and not any(said["type"] in ends for said in one.get("status", {}).get("conditions") or ())
    ]


def _at_rest(cluster: Cluster, job: Raw) -> bool:
    """Whether somebody has seen to the job as it is."""
    status = job.get("status") or {}
    if status.get("observedGeneration") != job["metadata"]["generation"]:
        return False
    active = _drivers(cluster, job)
    if status["phase"] in ("Succeeded", "Failed"):
        return not active
    return status["phase"] == "Suspended" or [one["metadata"]["name"] for one in active] == [status["run"]["driver"]]


def _told(job: Raw) -> None:
    """The job has a reason, and so has every run of it that is over."""
    status = job["status"]
    (ready,) = [one for one in status["conditions"] if one["type"] == "Ready"]
    assert ready["reason"], status
    assert ready["message"] or status["phase"] != "Failed", status
    assert all(one["reason"] for one in status.get("history") or ()), status


def _once(cluster: Cluster, job: Raw) -> None:
    """No run had a second driver, unless somebody else had deleted the first; the run before was over by then."""
    made = [one for one in cluster.server.made if names.JOB_UID in (one["metadata"].get("labels") or {})]
    ours = [one["metadata"] for one in made if one["metadata"]["labels"][names.JOB_UID] == job["metadata"]["uid"]]
    deleted = [one.path.rsplit("/", 1)[1] for one in cluster.server.requests if _is_deletion_by_others(one)]
    for name in {one["name"] for one in ours}:
        drivers = [one for one in ours if one["name"] == name]
        assert len(drivers) <= 1 + deleted.count(name), f"{name} was created {len(drivers)} times"
    numbers = [int(one["labels"][names.RUN_NUMBER]) for one in ours]
    assert numbers == sorted(numbers), f"runs began in the order {numbers}"


def _forward(cluster: Cluster, job: Raw) -> None:
    """What runs goes on or ends: no run was said to run more often than pods of its driver have run."""
    uid, began, before = job["metadata"]["uid"], Counter[str](), ("", "")
    for one in sorted(cluster.server.told, key=lambda one: int(one["metadata"]["resourceVersion"])):
        if one["metadata"]["uid"] == uid and "run" in one["status"]:
            now = one["status"]["run"]["id"], one["status"]["phase"]
            began[now[0]] += now[1] == Phase.RUNNING and now != before
            before = now
    pods = {one["metadata"]["uid"]: one["metadata"]["labels"] for one in cluster.server.told if _runs(one)}
    ours = [one for one in pods.values() if one[names.JOB_UID] == uid and one[names.COMPONENT] == names.DRIVER]
    ran = Counter(one[names.RUN] for one in ours)
    assert began <= ran, f"runs were said to run {dict(began)} times, and their pods ran {dict(ran)} times"


def _runs(one: Raw) -> bool:
    """Whether an object is a pod that runs."""
    containers = one["status"].get("containerStatuses", ()) if one["kind"] == "Pod" else ()
    return any("running" in said["state"] for said in containers)


def _is_deletion_by_others(request: Any) -> bool:
    return request.method == "DELETE" and "/jobs/" in request.path and not request.agent.startswith("almanac")


def _orphans(cluster: Cluster, uids: set[str]) -> list[Raw]:
    found = [one for kind in ("jobs", "configmaps") for one in cluster.client.list(kind, labels=names.SELECTOR)]
    return [one for one in found if one["metadata"]["labels"].get(names.JOB_UID) not in uids]
