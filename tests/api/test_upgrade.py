"""The operators of the previous release and of this one take turns: before a Kubernetes API, embedded and real."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import anomalies
import manifests
import raw
import releases
from almanac import names
from almanac.api import Phase
from kube.cluster import Cluster
from matrix import Group, Moment, cell
from operators import Ledger, play
from releases import Program, Release

Raw = dict[str, Any]

OWNED = ("jobs", "pods", "configmaps", "services", "roles", "rolebindings")
"""What a run may be made of, on engines that need no further operator."""
NEW_KIND = "extractjobs.almanac.dev"
"""A definition that the previous release does not have."""
NEW_FIELD = {
    **manifests.SMALLEST["spec"]["source"],
    "extract": {"name": "entries", "uri": "s3://ledger/extracts/runs/x"},
}
del NEW_FIELD["uri"]
"""A source that the previous release does not know."""
FAULT = "The operator is upgraded, then rolled back, with both versions there in between"
TAKEN_ON = "Each goes on from what the other has left: no driver is touched, nothing is told twice."


class Job(Ledger):
    """A job of a name of its own, and what there was of it when it was looked at last."""

    def __init__(self, cluster: Cluster, name: str, smallest: Any = manifests.document) -> None:
        super().__init__(cluster, partial(_named, name, smallest))
        self._told, self._before = (Phase.PENDING, ""), dict[str, Any]()
        self._touched = 3600

    def look(self) -> None:
        """Take note of what there is of it."""
        phase, reason, _ = self.told
        self._told, self._before = (Phase(phase), reason), self._seen()

    def is_as_before(self) -> None:
        """Whoever leads looks at the job, at an edit that is none of the run's, and changes nothing."""
        self._touched += 1
        self.edit(ttlSecondsAfterFinished=self._touched)
        self.until(*self._told)
        assert self._seen() == self._before

    def _seen(self) -> Raw:
        status = self.document["status"]
        uid = self.document["metadata"]["uid"]
        owned = {kind: self._cluster.client.list(kind, labels=f"{names.JOB_UID}={uid}") for kind in OWNED}
        return {
            **{name: _said(status.get(name)) for name in ("run", "phase", "result", "history")},
            "owned": {kind: [_identity(one) for one in found] for kind, found in owned.items()},
        }


OLDER, NEWER = "as the chart's", "of the newer version"
"""Definitions that there are after a rollback."""


def _named(name: str, smallest: Any, **spec: Any) -> Raw:
    made: Raw = smallest(**spec)
    return made | {"metadata": {"name": name}}


def _said(part: Any) -> Any:
    """What a part of a status says. A field that one version has and the other has not is empty."""
    if isinstance(part, dict):
        return {name: _said(value) for name, value in part.items() if value not in ("", None)}
    return [_said(one) for one in part] if isinstance(part, list) else part


def _identity(one: Raw) -> tuple[Any, ...]:
    """What tells an object from another of its name, and from what it was: its uid and what is wanted of it."""
    metadata = one["metadata"]
    said = (one.get("spec"), one.get("data"), one.get("rules"))
    return metadata["name"], metadata["uid"], metadata.get("deletionTimestamp"), metadata["labels"], *said


def _releases(cluster: Cluster, folder: Path) -> tuple[Release, Release]:
    """The previous one and this one, for a namespace of a cluster."""
    cluster.needs_controllers()
    home, root = cluster.make_namespace(), releases.previous(folder / "previous")
    return Release(root, cluster, home), Release(releases.ROOT, cluster, home)


def _leads(cluster: Cluster, program: Program) -> None:
    cluster.wait(lambda: program.leads, f"the next operator to lead: {program.said[-2000:]}")


def _knows_the_new_kind(cluster: Cluster) -> bool:
    """Whether an operator that has run is of this version."""
    return any("/extractjobs" in one.path for one in cluster.server.requests if one.agent == "almanac")


def _takes_over(cluster: Cluster, program: Program, before: Program, nothing_has_happened: Callable[[], None]) -> None:
    """Let an operator wait beside another, until this one is stopped."""
    cluster.wait(lambda: program.ready, "the next operator to know what is there")
    assert not program.leads
    nothing_has_happened()
    before.stop()
    _leads(cluster, program)
    nothing_has_happened()


@cell(Group.OPERATOR, FAULT, Moment.BEFORE, TAKEN_ON)
@cell(Group.OPERATOR, FAULT, Moment.WHILE, TAKEN_ON)
@cell(Group.OPERATOR, FAULT, Moment.PUBLISHING, TAKEN_ON)
@cell(Group.OPERATOR, FAULT, Moment.AFTER, TAKEN_ON)
@pytest.mark.parametrize("definitions", [OLDER, NEWER])
def test_forward_and_back(cluster: Cluster, tmp_path: Path, definitions: str) -> None:
    """As `helm upgrade` and `helm rollback` do it: definitions first, then rights, then one pod after the other.

    Helm puts definitions back as well; where somebody else applies them, those of the newer version stay.
    """
    previous, this = _releases(cluster, tmp_path)
    cluster.client.delete("customresourcedefinitions", NEW_KIND)
    cluster.wait(lambda: cluster.client.find("customresourcedefinitions", NEW_KIND) is None, "a definition to go")
    previous.define()
    previous.grant()

    starting, running, spark, pausing = (Job(cluster, name) for name in ("starting", "running", "spark", "pausing"))
    odd = Job(cluster, "odd", anomalies.document)
    jobs = [starting, running, spark, pausing, odd]
    with previous.operator("before") as before:
        _leads(cluster, before)
        for job in jobs:
            job.submit(**({"engine": "spark"} if job is spark else {}))
        cluster.kubelet.waiting(starting.pod())
        for job in (running, spark, pausing, odd):
            job.run()
        play(cluster.client, cluster.kubelet, raw.executor(cluster.client.get("pods", spark.pod())))
        pausing.edit(suspend=True)
        pausing.until(Phase.SUSPENDED, "Suspended")
        cluster.wait(lambda: not cluster.client.list("pods", labels=f"{names.JOB}=pausing"), "the pod to go")
        for job in jobs:
            job.look()

        def nothing_has_happened() -> None:
            for job in jobs:
                job.is_as_before()

        assert not _knows_the_new_kind(cluster)
        this.define()
        this.grant()
        nothing_has_happened()
        with this.operator("after") as after:
            _takes_over(cluster, after, before, nothing_has_happened)
            assert _knows_the_new_kind(cluster)

            starting.run()
            odd.succeed()
            odd.until(Phase.SUCCEEDED, "Completed")
            pausing.edit(suspend=False)
            pausing.run()
            jobs.append(between := Job(cluster, "between"))
            between.submit()
            between.run()
            for job in jobs:
                job.look()

            if definitions == OLDER:
                previous.define()
            previous.grant()
            nothing_has_happened()
            with previous.operator("again") as again:
                _takes_over(cluster, again, after, nothing_has_happened)

                last = Job(cluster, "last")
                last.submit()
                last.run()
                for job in (starting, running, spark, pausing, between, last):
                    job.succeed()
                    job.until(Phase.SUCCEEDED, "Completed")
                again.stop()

    for job in (starting, running, spark, odd, between, last):
        job.has_ended()
        job.until_events("Submitted", "Running", "Completed")
    pausing.has_lived()


def test_a_job_that_only_the_newer_version_knows(cluster: Cluster, tmp_path: Path) -> None:
    """The older one says so, where definitions stay, and leaves what runs alone. The newer one finds it again."""
    previous, this = _releases(cluster, tmp_path)
    this.define()
    this.grant()
    job = Job(cluster, "newer")
    with this.operator("before") as operator:
        _leads(cluster, operator)
        job.submit(source=NEW_FIELD)
        job.run()
        job.look()
        operator.stop()
    previous.grant()
    with previous.operator("back") as operator:
        job.until(Phase.FAILED, "InvalidSpec")
        operator.stop()
    this.grant()
    with this.operator("again"):
        job.is_as_before()
        job.succeed()
        job.until(Phase.SUCCEEDED, "Completed")
    job.has_ended()
    job.until_events("Submitted", "Running", "InvalidSpec", "Running", "Completed")
