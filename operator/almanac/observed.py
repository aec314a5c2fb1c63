"""What the operator sees of a job's runs: drivers and pods, each reduced to the facts that decide.

Reads plain dicts as the API gives them, and touches nothing. The facts are small: an operator keeps those of every
driver and pod in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from almanac import names, troubles
from almanac.api import Engine, Trigger
from almanac.troubles import Exit, Trouble

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a driver ended, by its own conditions."""

    succeeded: bool
    reason: str = ""
    message: str = ""
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Driver:
    """A batch/v1 Job of ours. Which run it is of, what started that, and the rest come from its labels."""

    name: str
    uid: str
    job_uid: str
    """uid of the custom resource that owns it."""
    run: str
    number: int
    engine: Engine
    created: datetime
    trigger: Trigger | None = None
    spec_hash: str = ""
    restart_nonce: int | None = None
    attempt: int = 1
    source: str = ""
    """Folder of the run of an ExtractJob that it reads."""
    started: datetime | None = None
    """When Kubernetes took it up, or took it up again; None while it is suspended."""
    suspended: bool = False
    held: bool = False
    """It is suspended, and it was the operator that did so."""
    outcome: Outcome | None = None

    @property
    def active(self) -> bool:
        """It runs, or will."""
        return self.outcome is None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a driver."""

    name: str
    uid: str
    driver: str
    """uid of its driver: a driver that was made anew has the name of the old one."""
    job_uid: str
    """uid of the custom resource that its driver's labels name."""
    created: datetime
    running: bool = False
    """Its container runs."""
    ip: str = ""
    trouble: Trouble | None = None
    """What keeps it from running."""
    exit: Exit | None = None
    """How it ended."""
    initializing: str = ""
    """Name of the init container that runs at the moment."""
    leaving: str = ""
    """It is being deleted, and has yet to end: who wants that, as far as it is known."""

    @property
    def waiting(self) -> bool:
        """It has yet to run."""
        return not self.running and self.exit is None


@dataclass(frozen=True, slots=True)
class Worker:
    """A pod that computes for a driver: an executor of Spark's, the scheduler or a worker of Dask's."""

    name: str
    uid: str
    role: str
    """`almanac.names.EXECUTOR`, `SCHEDULER` or `WORKER`."""
    of: str
    """Whose it is: uid of the driver's pod, with which executors go; on Dask, whose cluster stays, id of the run."""
    job_uid: str
    """uid of the custom resource that its labels name."""
    created: datetime
    running: bool = False
    """Its container runs; on Dask, it answers besides."""
    trouble: Trouble | None = None
    """What keeps it from running."""
    exit: Exit | None = None
    """How its container ended last, unless that was asked to."""
    restarts: int = 0
    """How often its container was started again."""
    over: bool = False
    """It has ended for good."""
    leaving: bool = False
    """It was asked to end."""

    @property
    def waiting(self) -> bool:
        """It has yet to run."""
        return not (self.running or self.over or self.leaving)


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning event about a driver or a pod."""

    about: str
    """uid of the object that it speaks of."""
    reason: str
    message: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API server had against creating a run's objects, in its own words."""

    reason: str
    message: str
    final: bool = False
    """Trying again cannot help as long as the job stays as it is."""


@dataclass(frozen=True, slots=True)
class WorkerCounts:
    """How many workers a driver on a cluster says that it has, and wants."""

    wanted: int
    running: int
    failed: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the driver says that it is."""

    stage: str
    done: int
    total: int | None = None
    workers: WorkerCounts | None = None


@dataclass(frozen=True, slots=True)
class DaskCluster:
    """The DaskCluster of a run, as far as it says whether anybody cares for it."""

    there: bool
    leaving: bool = False
    """It is being deleted."""
    phase: str = ""
    """What the dask-kubernetes operator says of it; empty: it has said nothing yet."""


@dataclass(frozen=True, slots=True)
class Extract:
    """The ExtractJob that a job reads from; `uri` is the folder of its newest complete run, empty where it has none."""

    phase: str = ""
    uri: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is known of a job's runs at one moment."""

    drivers: tuple[Driver, ...] = ()
    pods: tuple[Pod, ...] = ()
    workers: tuple[Worker, ...] = ()
    warnings: tuple[Warned, ...] | None = None
    """Warning events about what a decision asked for; None: nobody has looked."""
    dask: DaskCluster | None = None
    """The DaskCluster that a decision asked for; None: nobody has looked."""
    refusal: Refusal | None = None
    """Why the last attempt to create the run's objects, a moment ago, came to nothing."""
    progress: Progress | None = None
    extract: Extract | None = None
    """The ExtractJob that the job reads from; None: there is none of that name, or it reads from none."""
    live: bool = False
    """The job, its drivers and pods were read from the API just now: what is not here does not exist."""
    fresh: bool = False
    """The status was written just now, by whoever decides on it: nobody else has gone on from there."""

    def of(self, uid: str) -> Observed:
        """What concerns the job of this uid alone."""
        drivers = tuple(one for one in self.drivers if one.job_uid == uid)
        ours = {one.uid for one in drivers}
        pods = tuple(one for one in self.pods if one.driver in ours)
        theirs = {one.uid for one in pods}
        workers = tuple(
            one for one in self.workers if (one.of in theirs if one.role == names.EXECUTOR else one.job_uid == uid)
        )
        return replace(self, drivers=drivers, pods=pods, workers=workers)

    def named(self, name: str) -> Driver | None:
        """The driver of this name."""
        return next((one for one in self.drivers if one.name == name), None)

    def pods_of(self, driver: Driver) -> tuple[Pod, ...]:
        """The pods of a driver, oldest first."""
        return tuple(sorted((one for one in self.pods if one.driver == driver.uid), key=lambda one: one.created))

    def workers_of(self, whose: str) -> tuple[Worker, ...]:
        """The workers of a driver's pod (its uid) or of a run (its id), oldest first."""
        return tuple(sorted((one for one in self.workers if one.of == whose), key=lambda one: one.created))


def observe(objects: Iterable[Raw]) -> Observed:
    """The facts of Jobs, Pods and Events as the API lists them; what is not the operator's is left out."""
    drivers: list[Driver] = []
    pods: list[Pod] = []
    workers: list[Worker] = []
    warnings: list[Warned] = []
    for one in objects:
        kind = one.get("kind")
        if kind == "Job" and (found := driver(one)):
            drivers.append(found)
        elif kind == "Pod" and (seen := pod(one)):
            if isinstance(seen, Pod):
                pods.append(seen)
            else:
                workers.append(seen)
        elif kind == "Event" and (warned := warning(one)):
            warnings.append(warned)
    return Observed(tuple(drivers), tuple(pods), tuple(workers), tuple(warnings) or None)


def driver(raw: Raw) -> Driver | None:
    """The facts of a batch/v1 Job; None for one that is not a driver of ours."""
    metadata = raw["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    owner = next((one for one in metadata.get("ownerReferences") or () if one.get("controller")), None)
    number, created = _number(labels.get(names.RUN_NUMBER)), troubles.moment(metadata.get("creationTimestamp"))
    engine = labels.get(names.ENGINE)
    if owner is None or not number or created is None or engine not in set(Engine) or not labels.get(names.RUN):
        return None
    suspended = bool(raw.get("spec", {}).get("suspend"))
    trigger = annotations.get(names.TRIGGER)
    return Driver(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        job_uid=owner.get("uid", ""),
        run=labels[names.RUN],
        number=number,
        engine=Engine(engine),
        created=created,
        trigger=Trigger(trigger) if trigger in set(Trigger) else None,
        spec_hash=annotations.get(names.SPEC_HASH, ""),
        restart_nonce=_number(annotations.get(names.RESTART_NONCE)),
        attempt=_number(annotations.get(names.ATTEMPT)) or 1,
        source=annotations.get(names.SOURCE, ""),
        started=None if suspended else _started(raw.get("status", {}), created),
        suspended=suspended,
        held=suspended and annotations.get(names.SUSPENDED) == "true",
        outcome=_outcome(raw.get("status", {})),
    )


def _started(status: Raw, created: datetime) -> datetime | None:
    """When a driver was taken up. One that was just woken has no start until the Job controller has seen it."""
    start = troubles.moment(status.get("startTime"))
    if start is not None:
        return start
    suspended = next((one for one in status.get("conditions") or () if one.get("type") == "Suspended"), None)
    if suspended is None:
        return created
    return troubles.moment(suspended.get("lastTransitionTime")) if suspended.get("status") == "False" else None


def _outcome(status: Raw) -> Outcome | None:
    for condition in status.get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            return Outcome(
                succeeded=condition["type"] == "Complete",
                reason=troubles.word(condition.get("reason"), "Failed"),
                message=troubles.plain(condition.get("message")),
                time=troubles.moment(condition.get("lastTransitionTime")),
            )
    return None


def pod(raw: Raw) -> Pod | Worker | None:
    """The facts of a driver's pod, or of one that computes for it; None for one that is of no run of ours."""
    metadata = raw["metadata"]
    labels = metadata.get("labels") or {}
    owner = next((one for one in metadata.get("ownerReferences") or () if one.get("controller")), None)
    created = troubles.moment(metadata.get("creationTimestamp"))
    if owner is None or created is None or names.JOB_UID not in labels:
        return None
    role = labels.get(names.COMPONENT)
    if role == names.EXECUTOR and owner.get("kind") == "Pod":
        return _executor(raw, owner, created)
    if role in (names.SCHEDULER, names.WORKER) and owner.get("kind") == "ReplicaSet":
        return _dask(raw, role, created)
    if owner.get("kind") != "Job":
        return None
    ended = troubles.exit_of(raw)
    return Pod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        driver=owner.get("uid", ""),
        job_uid=labels[names.JOB_UID],
        created=created,
        running=ended is None and troubles.running(raw),
        ip=raw.get("status", {}).get("podIP") or "",
        trouble=None if ended else troubles.of_pod(raw),
        exit=ended,
        initializing="" if ended else troubles.initializing(raw),
        leaving="" if ended else troubles.leaving(raw),
    )


def _executor(raw: Raw, owner: Raw, created: datetime) -> Worker:
    metadata, ended = raw["metadata"], troubles.exit_of(raw)
    return Worker(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        role=names.EXECUTOR,
        of=owner.get("uid", ""),
        job_uid=metadata["labels"][names.JOB_UID],
        created=created,
        running=ended is None and troubles.running(raw),
        trouble=None if ended else troubles.of_pod(raw),
        exit=None if "deletionTimestamp" in metadata else ended,
        over=ended is not None,
        leaving="deletionTimestamp" in metadata,
    )


def _dask(raw: Raw, role: str, created: datetime) -> Worker:
    """The scheduler or a worker of Dask's, whose container is started again whenever it ends."""
    metadata, last, trouble = raw["metadata"], troubles.last_exit(raw), troubles.of_pod(raw)
    if trouble and trouble.reason == "CrashLoopBackOff" and last:
        trouble = Trouble(last.reason, last.message)
    over, leaving = raw.get("status", {}).get("phase") in ("Failed", "Succeeded"), "deletionTimestamp" in metadata
    ended = troubles.exit_of(raw) if over else last
    return Worker(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        role=role,
        of=metadata["labels"].get(names.RUN, ""),
        job_uid=metadata["labels"][names.JOB_UID],
        created=created,
        running=not over and troubles.running(raw) and troubles.ready(raw),
        trouble=None if over else trouble,
        exit=None if leaving else ended,
        restarts=troubles.restarts(raw),
        over=over,
        leaving=leaving,
    )


def warning(raw: Raw) -> Warned | None:
    """The facts of an Event of v1 or events.k8s.io/v1; None for one that warns of nothing."""
    about = raw.get("involvedObject") or raw.get("regarding") or {}
    if raw.get("type") != "Warning" or not about.get("uid"):
        return None
    series = (raw.get("series") or {}).get("lastObservedTime")
    times = (series, raw.get("lastTimestamp"), raw.get("deprecatedLastTimestamp"), raw.get("eventTime"))
    last = next((read for text in times if (read := troubles.moment(text))), None)
    return Warned(
        about=about["uid"],
        reason=troubles.word(raw.get("reason"), "Warning"),
        message=troubles.plain(raw.get("message") or raw.get("note")),
        time=last or troubles.moment(raw["metadata"].get("creationTimestamp")) or datetime.min.replace(tzinfo=UTC),
    )


def _number(text: object) -> int | None:
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 16 else None
