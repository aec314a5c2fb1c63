"""One look at one job: what `decide` makes of what is known, and that done in order: actions, status, events.

Everything here may be repeated, and may stop after any request: what is done twice is found done, and a status is
written only over the version that it was decided on.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from almanac import engines, lifecycle, names, troubles
from almanac.api import Job, JobError, JobStatus, Phase, Reason, Run
from almanac.cluster import CREATED, DASK_CLUSTERS, DRIVERS, EVENTS, JOBS, PODS, ApiError, Cluster
from almanac.decision import SCHEDULE_SKIPPED, Ask, Create, Decision, Delete, Event, Provide, Release, Scale, Suspend
from almanac.metrics import Metrics
from almanac.observed import DaskCluster, Observed, Progress, Refusal, WorkerCounts, driver
from almanac.resource import read_job, read_status, status_patch
from almanac.settings import Settings
from almanac.store import Key, Store, version_of
from almanac.warned import Warnings

log = logging.getLogger(__name__)

ROUNDS = 10
"""Decisions about a job in one go. One that wants more waits its turn again."""
PROGRESS_EVERY = 15.0
"""Seconds between two questions to a driver how far it is; longer with many drivers: 20 questions a second at most."""
_FINAL = (400, 422)
"""Answers that stay the same as long as the job does."""
_REFUSALS = (*_FINAL, 403)
_NOTE = 1024
"""Bytes of UTF-8 that the message of an event may have."""
_SHORTEN = "write less into it, above all into spec.podTemplate and metadata.annotations"


class Reconciler:
    """Looks at jobs. `post` is given the events to send, `now` is the clock."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        settings: Settings,
        metrics: Metrics,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._warnings = Warnings(cluster)
        self._progress: dict[Key, Progress] = {}
        self._unanswered: dict[Key, tuple[JobStatus, Decision]] = {}
        """Decisions whose status may have been written although no answer says so, with the status before."""
        self._too_large: dict[Key, int] = {}
        self._ran: dict[Key, str] = {}
        """The run of each job that was seen to run last."""
        self.running: set[Key] = set()
        """Jobs one of whose drivers runs: `ask` is worth a question."""
        self.outbox: deque[tuple[str, dict[str, Any]]] = deque(maxlen=10_000)
        """Namespaces and events to be sent. The oldest are dropped where the API takes none."""

    async def reconcile(self, key: Key) -> float | None:
        """Look at a job until there is nothing to do; the seconds until it is to be looked at again."""
        begun, fresh = time.perf_counter(), False
        try:
            for _ in range(ROUNDS):
                document = self._store.job(key)
                if document is None:
                    self._forget(key)
                    self._ran.pop(key, None)
                    self._unanswered.pop(key, None)
                    self._too_large.pop(key, None)
                    return None
                again, fresh = await self._round(key, document, fresh)
                if again is None or again > 0:
                    return again
            return 1.0
        except ApiError as error:
            self._metrics.errors.labels(key.kind, troubles.word(error.reason, "Unreachable")).inc()
            raise
        finally:
            self._metrics.reconciles.labels(key.kind).observe(time.perf_counter() - begun)

    async def ask(self, key: Key) -> bool:
        """Ask a job's running driver how far it is; whether it said something new."""
        document = self._store.job(key) or {}
        uid = document.get("metadata", {}).get("uid", "")
        name = ((document.get("status") or {}).get("run") or {}).get("driver", "")
        seen = self._store.seen(uid)
        driver = seen.named(name)
        pod = next((one for one in seen.pods_of(driver) if one.running and one.ip), None) if driver else None
        if pod is None:
            self._forget(key)
            return False
        said = _progress(await self._cluster.progress(pod.ip))
        if said is None or said == self._progress.get(key):
            return False
        self._progress[key] = said
        return True

    async def _round(self, key: Key, document: dict[str, Any], fresh: bool) -> tuple[float | None, bool]:
        """Decide once, on a status that was written a moment ago or not.

        Gives the seconds until the next time, 0 for at once and None for not before something happens, and whether the
        status has been written.
        """
        now, job, status = self._now(), read_job(document, stored=True), read_status(document)
        unanswered = self._unanswered.pop(key, None)
        if unanswered is not None and status_patch(document, unanswered[1].status) is None:
            self._tell(key, document, *unanswered)
        if isinstance(job, JobError):
            decision = lifecycle.refuse(document, job, status, now)
        else:
            seen = replace(self._store.seen(job.metadata.uid or ""), progress=self._progress.get(key), fresh=fresh)
            seen = replace(seen, extract=self._store.extract(key))
            made = await self._decide(key, document, job, seen)
            if made is None:
                return 0.0, False
            decision = made
        patch = status_patch(document, decision.status)
        if patch is not None:
            try:
                written = await self._write(key, document, patch)
            except ApiError:
                self._unanswered[key] = status, decision
                raise
            if not written:
                if unanswered is not None:  # the version that was in the way may be its own
                    self._unanswered[key] = unanswered
                return 0.0, False
        self._tell(key, document, status, decision)
        again = None if decision.requeue is None else max(0.0, (decision.requeue - self._now()).total_seconds())
        return again, patch is not None

    async def _decide(self, key: Key, document: dict[str, Any], job: Job, seen: Observed) -> Decision | None:
        """Decide, knowing all that the decision asks for, and act; None where the job has turned out to be old."""
        now, status = self._now(), read_status(document)
        decision = lifecycle.decide(job, status, seen, now)
        while decision.look or decision.ask:
            if decision.look and not seen.live:
                live = await self._look(key, document)
                if live is None:
                    return None
                seen = replace(seen, drivers=live.drivers, pods=live.pods, workers=live.workers, live=True)
            elif decision.ask and seen.warnings is None:
                seen = await self._asked(key, decision.ask, seen)
            else:
                break
            decision = lifecycle.decide(job, status, seen, now)
        refusal = await self._act(key, job, decision, seen)
        return lifecycle.decide(job, status, replace(seen, refusal=refusal), now) if refusal else decision

    async def _look(self, key: Key, document: dict[str, Any]) -> Observed | None:
        """Drivers and pods of a job as they are, not as they were reported; None where the job has changed."""
        await self._refresh(key, document)
        now = self._store.job(key)
        if now is None or now["metadata"].get("resourceVersion") != document["metadata"].get("resourceVersion"):
            return None
        uid = document["metadata"].get("uid", "")
        for resource, selector in ((DRIVERS, names.job_selector(uid)), (PODS, names.job_pod_selector(uid))):
            objects: list[dict[str, Any]] = []
            version = 0
            async for page in self._cluster.list(resource, key.namespace, labelSelector=selector):
                objects += page["items"]
                version = version or version_of(page)
            for one in objects:
                self._store.put(one)
            self._store.keep_only_of(uid, resource.kind, {one["metadata"]["uid"] for one in objects}, version)
        return self._store.seen(uid)

    async def _asked(self, key: Key, about: Ask, seen: Observed) -> Observed:
        """What is seen, with what was asked about an object that does not come on."""
        if about.kind != "DaskCluster":
            return replace(seen, warnings=await self._warnings.about(key.namespace, about.uid))
        there = await self._dask_cluster(key, about.name)
        found = await self._warnings.about_replica_sets(key.namespace, f"{about.name}-")
        return replace(seen, dask=there, warnings=tuple(replace(one, about=about.uid) for one in found))

    async def _dask_cluster(self, key: Key, name: str) -> DaskCluster:
        try:
            raw = await self._cluster.get(DASK_CLUSTERS, key.namespace, name)
        except ApiError as error:
            if not error.gone:
                raise
            return DaskCluster(there=False)
        phase = (raw.get("status") or {}).get("phase")
        leaving = "deletionTimestamp" in raw["metadata"]
        return DaskCluster(there=True, leaving=leaving, phase=phase if isinstance(phase, str) else "")

    async def _act(self, key: Key, job: Job, decision: Decision, seen: Observed) -> Refusal | None:
        for action in decision.actions:
            if isinstance(action, Create | Provide):
                refusal = await self._create(key, job, action)
                if refusal is not None:
                    return refusal
            elif isinstance(action, Delete):
                await self._delete(key, action, seen)
            elif isinstance(action, Release):
                await self._discard(key, (engines.CLUSTERS[action.engine],), action.driver)
            elif isinstance(action, Scale):
                await self._scale(key, action)
            else:
                await self._suspend(key, action)
        return None

    async def _create(self, key: Key, job: Job, action: Create | Provide) -> Refusal | None:
        manifests = engines.build(job, action.run, action.engine, self._settings)
        if isinstance(action, Provide):
            manifests = [one for one in manifests if one["kind"] != DRIVERS.kind]
        resource = DRIVERS
        try:
            for manifest in manifests:
                resource = CREATED[manifest["kind"]]
                made = await self._cluster.create(manifest)
                if made is not None:
                    self._store.put(made)
                    if made.get("kind") == DRIVERS.kind:
                        self._metrics.submitted(key.kind, action.engine, self._waited(key, action.run))
                elif manifest["kind"] == DRIVERS.kind:
                    return await self._found(key, job, action)
        except ApiError as error:
            absent = error.gone and resource is DASK_CLUSTERS
            if not absent and error.code not in _REFUSALS and not error.too_large:
                raise
            log.warning("%s: run %s: %s", key, action.run.id, error)
            return _NO_DASK if absent else _refusal(error)
        return None

    async def _found(self, key: Key, job: Job, action: Create | Provide) -> Refusal | None:
        """Look at the driver that is there already: it is the run's own, or another object has its name."""
        name = action.run.driver
        async for page in self._cluster.list(DRIVERS, key.namespace, fieldSelector=f"metadata.name={name}"):
            for there in page["items"]:
                found = driver(there)
                if found is None or (found.job_uid, found.run) != (job.metadata.uid, action.run.id):
                    return Refusal("NameTaken", f"there is a Job {name} that is not of this run: delete it", final=True)
                self._store.put(there)
        return None

    async def _delete(self, key: Key, action: Delete, seen: Observed) -> None:
        """Delete a driver that was seen, and before it what else has its name, which nobody would look for after."""
        await self._discard(key, engines.COMPANIONS[action.engine], action.driver)
        gone = seen.named(action.driver)
        if gone is not None:
            await self._cluster.delete(DRIVERS, key.namespace, action.driver, gone.uid)

    async def _discard(self, key: Key, kinds: tuple[str, ...], name: str) -> None:
        """Delete what has this name. Kinds that the operator has no right to delete, it could not create either."""
        for kind in kinds:
            try:
                await self._cluster.delete(CREATED[kind], key.namespace, name)
            except ApiError as error:
                if error.code != 403:
                    raise

    async def _scale(self, key: Key, action: Scale) -> None:
        patch = {"spec": {"worker": {"replicas": action.workers}}}
        try:
            await self._cluster.patch(CREATED[engines.CLUSTERS[action.engine]], key.namespace, action.driver, patch)
        except ApiError as error:
            if not error.gone:
                raise

    async def _suspend(self, key: Key, action: Suspend) -> None:
        patch = {
            "metadata": {"annotations": {names.SUSPENDED: "true" if action.suspend else None}},
            "spec": {"suspend": action.suspend},
        }
        try:
            self._store.put(await self._cluster.patch(DRIVERS, key.namespace, action.driver, patch))
        except ApiError as error:
            if not error.gone:
                raise

    async def _write(self, key: Key, document: dict[str, Any], patch: dict[str, Any]) -> bool:
        """Write the status over the version that it was decided on; False where that is not the present one."""
        patch["metadata"] = {"resourceVersion": document["metadata"].get("resourceVersion")}
        try:
            self._store.put_job(
                await self._cluster.patch(JOBS[key.kind], key.namespace, key.name, patch, subresource="status")
            )
        except ApiError as error:
            if error.gone:
                self._store.drop(key, document["metadata"].get("uid", ""))
                return False
            if error.too_large:
                self._tell_too_large(key, document)
            if not error.conflict:
                raise
            await self._refresh(key, document)
            return False
        return True

    def _tell_too_large(self, key: Key, document: dict[str, Any]) -> None:
        """A job that leaves no room for its status, so that an event is all that can be said about it: once."""
        generation = document["metadata"].get("generation", 0)
        if self._too_large.get(key) == generation:
            return
        self._too_large[key] = generation
        told = Event("Warning", "TooLarge", f"nothing runs, since the job leaves no room for its status: {_SHORTEN}")
        self.outbox.append((key.namespace, _event(document, told, self._now(), self._settings.identity)))

    async def _refresh(self, key: Key, document: dict[str, Any]) -> None:
        try:
            self._store.put_job(await self._cluster.get(JOBS[key.kind], key.namespace, key.name))
        except ApiError as error:
            if not error.gone:
                raise
            self._store.drop(key, document["metadata"].get("uid", ""))

    def _tell(self, key: Key, document: dict[str, Any], before: JobStatus, decision: Decision) -> None:
        """Count and log what has changed, and leave events to be sent."""
        after = decision.status
        if after.phase is Phase.RUNNING:
            self.running.add(key)
        else:
            self._forget(key)
        for event in decision.events:
            log.info("%s: %s: %s", key, event.reason, event.message)
            self.outbox.append((key.namespace, _event(document, event, self._now(), self._settings.identity)))
            if event.reason == SCHEDULE_SKIPPED:
                self._metrics.skipped.labels(key.kind).inc()
        self._count(key, before, after)

    def _count(self, key: Key, before: JobStatus, after: JobStatus) -> None:
        """Count a run that runs for the first time, as far as this process knows, and one that is over."""
        run = after.run
        if run is None:
            return
        same = before.run is not None and before.run.id == run.id
        if (
            after.phase is Phase.RUNNING
            and not (same and before.phase is Phase.RUNNING)
            and self._ran.get(key) != run.id
        ):
            self._ran[key] = run.id
            waited = self._waited(key, run)
            if waited is not None:
                self._metrics.running(key.kind, after.engine, waited)
        if run.end_time and not (same and before.run and before.run.end_time):
            past = after.history[0] if after.history else None
            phase, reason = (past.phase if past else after.phase) or "", past.reason if past else ""
            took = run.end_time - run.start_time if run.start_time else None
            result = after.result if phase == Phase.SUCCEEDED else None
            self._metrics.finished(key.kind, after.engine, phase, reason, took, result)

    def _waited(self, key: Key, run: Run) -> timedelta | None:
        """How long ago a run was asked for: by the job's creation, for the first run of one that was never edited."""
        metadata = (self._store.job(key) or {}).get("metadata", {})
        first = run.number == 1 and metadata.get("generation") == 1
        since = troubles.moment(metadata.get("creationTimestamp")) if first else run.start_time
        return None if since is None else self._now() - since

    def _forget(self, key: Key) -> None:
        self.running.discard(key)
        self._progress.pop(key, None)


def _progress(said: dict[str, Any] | None) -> Progress | None:
    """Progress as a driver says it; None for anything else."""
    if said is None or not isinstance(said.get("stage"), str) or not said["stage"]:
        return None
    done, total = said.get("done"), said.get("total")
    if type(done) is not int or done < 0:
        return None
    workers = _workers(said.get("workers"))
    return Progress(said["stage"][:100], done, total if type(total) is int and total >= 0 else None, workers)


def _workers(said: object) -> WorkerCounts | None:
    """The counts of workers as a driver says them; None for anything else."""
    told = said if isinstance(said, dict) else {}
    counts = [one for name in ("wanted", "running", "failed") if type(one := told.get(name)) is int and one >= 0]
    return WorkerCounts(*counts) if len(counts) == 3 else None


_NO_DASK = Refusal(
    "DaskUnavailable",
    "this cluster knows no DaskCluster: install the dask-kubernetes operator (docs/dask.md)",
)


def _refusal(error: ApiError) -> Refusal:
    """What the API has against a run's objects. All that may be wrong with their form comes from the pod template."""
    if error.too_large:
        return Refusal("TooLarge", f"{troubles.plain(error.message)}: {_SHORTEN}", final=True)
    if error.code in _FINAL:
        message = error.message.replace("spec.template.", "spec.podTemplate.")
        return Refusal(Reason.INVALID_SPEC, troubles.plain(message), final=True)
    trouble = troubles.of_warning(error.reason or "Refused", error.message)
    return Refusal(trouble.reason, trouble.message)


def _cut(text: str, size: int) -> str:
    """A text of so many bytes at most."""
    line = troubles.plain(text, size)
    whole = line.encode(errors="replace")
    return line if len(whole) <= size else f"{whole[: size - 3].decode(errors='ignore')}…"


def _event(document: dict[str, Any], event: Event, now: datetime, instance: str) -> dict[str, Any]:
    """An Event about a job. Its name follows from when it is and what it says: it cannot be there twice.

    Names that begin with the time are also in the order in which kubectl shows events, which knows no better one.
    """
    metadata = document["metadata"]
    said = hashlib.sha256(repr((metadata.get("uid"), event)).encode()).hexdigest()[:8]
    name = f"{metadata['name'][:200]}.{int(now.timestamp() * 1e6):014x}.{said}"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": EVENTS.kind,
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "almanac.dev/operator",
        "reportingInstance": (instance or "operator")[:128],
        "action": "Reconcile",
        "type": event.type,
        "reason": event.reason,
        "note": _cut(event.message, _NOTE),
        "regarding": {
            "apiVersion": document["apiVersion"],
            "kind": document["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata.get("uid", ""),
        },
    }
