"""A cluster of one job, small enough to be looked through: what the API holds, who changes it, and an operator in it.

The operator is the pure part alone: `decide` between reading and writing, with requests that can be made to fail at any
point. Time stands still unless it is told to pass.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import goldens
import raw
from almanac import lifecycle, names
from almanac.api import Condition, Engine, Job, JobError, JobStatus
from almanac.decision import Action, Ask, Create, Decision, Delete, Event, Provide, Release, Scale, Suspend
from almanac.engines import CLUSTERS, COMPANIONS, build
from almanac.manifests import NEVER_RETRIED
from almanac.observed import DaskCluster, Extract, Observed, Progress, Refusal, observe, warning
from almanac.resource import read_job, read_status, status_patch
from manifests import document

Raw = dict[str, Any]


class Crash(Exception):  # noqa: N818 - it is not an error
    """The operator's process has died."""


class View:
    """What somebody saw of a world at some moment."""

    def __init__(self, job: Raw, drivers: list[Raw], pods: list[Raw]) -> None:
        self.job = deepcopy(job)
        self.seen = observe([*drivers, *pods])


class World:
    """What the API holds of a job and its children."""

    def __init__(self, now: datetime = goldens.START, **spec: Any) -> None:
        self.now = now
        self.job = document(**spec)
        self.job["metadata"] |= {"namespace": "default", "uid": goldens.UID, "generation": 1}
        self.drivers: dict[str, Raw] = {}
        self.pods: dict[str, Raw] = {}
        self.workers: dict[str, Raw] = {}
        """Pods that compute for drivers."""
        self.dask = ""
        """What the dask-kubernetes operator says of every DaskCluster; empty: it does not run."""
        self.companions: dict[tuple[str, str], Raw] = {}
        """What was created with drivers, by kind and name."""
        self.warnings: list[Raw] = []
        self.created: list[Raw] = []
        """Every driver that there has ever been, in order."""
        self.events: list[Event] = []
        self.writes = 0
        """Requests so far that changed something."""
        self.refusal: Refusal | None = None
        """What the API has against creating anything."""
        self.progress: Progress | None = None
        """What the driver says of how far it is."""
        self.extract: Extract | None = None
        """The ExtractJob that the job reads from."""
        self.engines: frozenset[Engine] = lifecycle.ENGINES

    # What there is to see.

    @property
    def status(self) -> JobStatus:
        return read_status(self.job)

    @property
    def driver(self) -> Raw:
        """The one driver that is active."""
        (only,) = self.active
        return only

    @property
    def driver_name(self) -> str:
        name: str = self.driver["metadata"]["name"]
        return name

    @property
    def active(self) -> list[Raw]:
        return [one for one in self.drivers.values() if not ended(one)]

    @property
    def config_maps(self) -> set[str]:
        return {name for kind, name in self.companions if kind == "ConfigMap"}

    def condition(self, kind: str) -> Condition:
        (only,) = [one for one in self.status.conditions if one.type == kind]
        return only

    @property
    def told(self) -> tuple[str, str]:
        """Phase and reason."""
        return self.status.phase or "", self.condition("Ready").reason

    # What users do.

    def edit(self, **spec: Any) -> None:
        """Change fields of the spec, as `kubectl apply` does."""
        changed = deepcopy(self.job["spec"])
        for path, value in spec.items():
            *parents, last = path.split("__")
            place = changed
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        if changed != self.job["spec"]:
            self.job["spec"] = changed
            self.job["metadata"]["generation"] += 1

    def delete_driver(self, name: str) -> None:
        gone = self.drivers.pop(name)
        self.pods = {name: pod for name, pod in self.pods.items() if owner(pod) != gone["metadata"]["uid"]}

    # What Kubernetes does.

    def sync(self) -> None:
        """Let the Job controller do all that it has to."""
        for one in list(self.drivers.values()):
            if not ended(one):
                self._sync(one)

    def _sync(self, job: Raw) -> None:
        status, pods = job["status"], self.pods_of(job)
        codes = [code for pod in pods if (code := exit_code(pod)) is not None]
        if 0 in codes:
            self._end(job, raw.condition("Complete", "CompletionsReached", at=self.now))
        elif codes and codes[-1] in NEVER_RETRIED:
            self._end(job, raw.condition("Failed", "PodFailurePolicy", "by a rule", at=self.now))
        elif len(codes) > job["spec"]["backoffLimit"]:
            self._end(job, raw.condition("Failed", "BackoffLimitExceeded", "too often", at=self.now))
        elif job["spec"]["suspend"]:
            self._drop_pods(pods)
            status.pop("startTime", None)
            status["conditions"] = [raw.condition("Suspended", "JobSuspended", at=self.now)]
        else:
            status["conditions"] = []
            start = status.setdefault("startTime", raw.time(self.now))
            late = datetime.fromisoformat(start) + timedelta(seconds=job["spec"]["activeDeadlineSeconds"])
            if self.now >= late:
                self._drop_pods(pods)
                self._end(job, raw.condition("Failed", "DeadlineExceeded", "was active too long", at=self.now))
            elif all(exit_code(pod) is not None for pod in pods):
                made = raw.pod(job, self.now, name=str(len(self.created) * 100 + len(self.pods) + self.writes))
                self.pods[made["metadata"]["name"]] = made

    def _drop_pods(self, pods: list[Raw]) -> None:
        for pod in pods:
            if exit_code(pod) is None:
                del self.pods[pod["metadata"]["name"]]

    def _end(self, job: Raw, how: Raw) -> None:
        job["status"]["conditions"] = [how]

    def pods_of(self, job: Raw) -> list[Raw]:
        return [pod for pod in self.pods.values() if owner(pod) == job["metadata"]["uid"]]

    def pod(self, **status: Any) -> None:
        """Set the status of the newest pod of the active driver, which gets one if it has none."""
        self.sync()
        self.pods_of(self.driver)[-1]["status"] = {"phase": "Pending", **status}
        self.sync()

    def executor(self, name: str = "exec-1", **status: Any) -> None:
        """Let the newest pod of the active driver have an executor in this state."""
        of = self.pods_of(self.driver)[-1]
        before = self.workers.get(f"{of['metadata']['name']}-{name}")
        made = raw.executor(of, self.now, name, **status)
        if before is not None:
            made["metadata"]["creationTimestamp"] = before["metadata"]["creationTimestamp"]
        self.workers[made["metadata"]["name"]] = made

    def dask_pod(self, name: str, **status: Any) -> None:
        """Let the DaskCluster of the active driver have a pod in this state: `scheduler`, or a worker."""
        made = raw.dask_pod(self.driver, self.now, name, **status)
        before = self.workers.get(made["metadata"]["name"])
        if before is not None:
            made["metadata"]["creationTimestamp"] = before["metadata"]["creationTimestamp"]
        self.workers[made["metadata"]["name"]] = made

    def exit(self, code: int, message: str = "", reason: str = "Error") -> None:
        """End the newest pod of the active driver, and let the Job controller see it."""
        run = self.driver["metadata"]["labels"][names.RUN]
        self.pod(**raw.terminated(code, message or (raw.success(run) if code == 0 else ""), reason, self.now))

    def succeed(self) -> None:
        self.exit(0)

    def warn(self, about: Raw, reason: str, message: str) -> None:
        self.warnings.append(raw.event(about, reason, message, self.now))

    def wait(self, **delta: float) -> None:
        self.now += timedelta(**delta)

    # What the operator does.

    def reconcile(self, crash_after: int | None = None) -> datetime | None:
        """Let the operator look until it has nothing to do. It dies after some number of requests, if one is given."""
        limit = None if crash_after is None else self.writes + crash_after
        fresh = False
        for _ in range(20):
            written = self.job.get("status")
            decision = self._round(self.view(), limit, fresh)
            fresh = self.job.get("status") != written
            if decision.requeue is None or decision.requeue > self.now:
                return decision.requeue
        raise AssertionError(f"the operator does not come to rest: {decision}")

    def view(self) -> View:
        """What there is now, for somebody who acts on it later."""
        return View(self.job, [*self.drivers.values()], [*self.pods.values(), *self.workers.values()])

    def reconcile_late(self, view: View) -> None:
        """Let an operator look once whose watches have stopped some time ago."""
        self._round(view, None, False)

    def settle(self) -> datetime | None:
        """Operator and Job controller take turns until both have nothing to do."""
        for _ in range(20):
            before = deepcopy((self.job, self.drivers, self.pods))
            requeue = self.reconcile()
            self.sync()
            if (self.job, self.drivers, self.pods) == before:
                return requeue
        raise AssertionError("the cluster does not come to rest")

    def decide(self, seen: Observed, job: Raw | None = None) -> Decision:
        """What the operator makes of a job, the present one if none is given."""
        job = job or self.job
        read, status = read_job(job, stored=True), read_status(job)
        if isinstance(read, JobError):
            return lifecycle.refuse(job, read, status, self.now)
        return lifecycle.decide(read, status, seen, self.now, self.engines)

    def _round(self, view: View, limit: int | None, fresh: bool) -> Decision:
        job, seen = view.job, replace(view.seen, fresh=fresh, progress=self.progress, extract=self.extract)
        decision = self.decide(seen, job)
        if decision.look:
            job, seen = self.job, replace(self.view().seen, live=True, progress=self.progress, extract=self.extract)
            decision = self.decide(seen, job)
        if decision.ask:
            seen = self._asked(decision.ask, seen)
            decision = self.decide(seen, job)
        assert not decision.look
        assert self.decide(seen, job) == decision
        if self.refusal and any(isinstance(one, Create | Provide) for one in decision.actions):
            decision = self.decide(replace(seen, refusal=self.refusal), job)
            assert not any(isinstance(one, Create) for one in decision.actions)
        for action in decision.actions:
            self._request(limit, lambda one=action: self._act(one, job, seen))  # type: ignore[misc]
        patch = status_patch(job, decision.status)
        if patch and job == self.job:  # else a conflict
            self._request(limit, lambda: self._write(patch))
            self.events += decision.events
        return decision

    def _asked(self, about: Ask, seen: Observed) -> Observed:
        told = [found for one in self.warnings if (found := warning(one))]
        if about.kind != "DaskCluster":
            return replace(seen, warnings=tuple(one for one in told if one.about == about.uid))
        dask = DaskCluster(("DaskCluster", about.name) in self.companions, phase=self.dask)
        return replace(seen, dask=dask, warnings=tuple(replace(one, about=about.uid) for one in told))

    def _request(self, limit: int | None, send: Callable[[], None]) -> None:
        if limit is not None and self.writes >= limit:
            raise Crash
        self.writes += 1
        send()

    def _write(self, patch: Raw) -> None:
        self.job = merged(self.job, patch)

    def _act(self, action: Action, job: Raw, seen: Observed) -> None:
        there = self.drivers.get(action.driver) if not isinstance(action, Create | Provide) else None
        if isinstance(action, Create | Provide):
            self._create(action, job)
        elif isinstance(action, Release):
            self.companions.pop((CLUSTERS[action.engine], action.driver), None)
        elif isinstance(action, Scale):
            cluster = self.companions[CLUSTERS[action.engine], action.driver]
            cluster["spec"]["worker"]["replicas"] = action.workers
        elif isinstance(action, Delete):
            known = seen.named(action.driver)
            if there and known and known.uid == there["metadata"]["uid"]:
                self.delete_driver(action.driver)
            for kind in COMPANIONS[action.engine]:
                self.companions.pop((kind, action.driver), None)
        elif there:
            self._suspend(action, there)

    def _create(self, action: Create | Provide, document: Raw) -> None:
        job = read_job(document, stored=True)
        assert isinstance(job, Job)
        *others, made = build(job, action.run, action.engine, goldens.SETTINGS)
        for one in others:
            self.companions.setdefault((one["kind"], one["metadata"]["name"]), one)
        if isinstance(action, Create) and action.run.driver not in self.drivers:
            identity = {"uid": f"driver-{len(self.created)}", "creationTimestamp": raw.time(self.now)}
            made |= {"metadata": made["metadata"] | identity, "status": {}}
            self.drivers[action.run.driver] = made
            self.created.append(made)

    def _suspend(self, action: Suspend, of: Raw) -> None:
        of["spec"]["suspend"] = action.suspend
        of["metadata"]["annotations"].pop(names.SUSPENDED, None)
        if action.suspend:
            of["metadata"]["annotations"][names.SUSPENDED] = "true"


def ended(job: Raw) -> bool:
    return any(one["type"] in ("Complete", "Failed") for one in job["status"].get("conditions", ()))


def owner(pod: Raw) -> str:
    uid: str = pod["metadata"]["ownerReferences"][0]["uid"]
    return uid


def exit_code(pod: Raw) -> int | None:
    for status in pod["status"].get("containerStatuses", ()):
        if "terminated" in status["state"]:
            code: int = status["state"]["terminated"]["exitCode"]
            return code
    return None


def merged(place: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    made = dict(place) if isinstance(place, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), value)
    return made
