"""The life of a job as one pure function: what it should be, what is there and what time it is say what to do next.

A reconcile asks `decide`, carries out the actions, then writes the status, and asks again when the decision says so. It
may die between any two of these: what must be on record before it is done (that there is a run before its driver is
created, how a run ended before its driver is deleted) takes two decisions, of which the first only writes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from almanac import runs, troubles
from almanac.api import Engine, ExitCode, Job, JobError, JobStatus, Phase, Run, Trigger
from almanac.conditions import ready, standing, transition
from almanac.decision import Action, Ask, Create, Decision, Delete, Event, Suspend
from almanac.endings import Ending, ending
from almanac.manifests import NEVER_RETRIED
from almanac.observed import Driver, Observed, Pod, Progress
from almanac.runs import Due
from almanac.troubles import Trouble

ENGINES: frozenset[Engine] = frozenset({Engine.LOCAL})
"""The engines that this operator can start."""

CLUSTERS = {"ForecastJob": Engine.SPARK}
"""The engine that a run of each kind moves to where its data do not fit into one process."""

PATIENCE = timedelta(seconds=3)
"""How long a driver may stay silent before warning events about it are looked for."""
ASK_EVERY = timedelta(seconds=15)
"""Time between two looks at the warning events about a driver that does not come on."""
RETRY = timedelta(seconds=20)
"""Time after which the API server is asked again for what it has refused."""
DRIVERS = 2
"""Drivers that a run may have: the first, and one more if that is deleted."""


@dataclass(frozen=True, slots=True)
class _Case:
    """All that a decision depends on."""

    job: Job
    before: JobStatus
    run: Run | None
    engine: Engine
    seen: Observed
    now: datetime
    due: Due
    engines: Collection[Engine]

    @property
    def driver(self) -> Driver | None:
        """The driver of the present run."""
        return self.seen.named(self.run.driver) if self.run else None


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a case comes to: where the job stands, why, and what is to be done."""

    phase: Phase
    reason: str
    message: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the status besides the phase and its conditions."""
    actions: tuple[Action, ...] = ()
    requeue: datetime | None = None
    ask: Ask | None = None
    warning: bool = False
    look: bool = False


_LOOK = _Verdict(Phase.PENDING, "", "", look=True)


def decide(
    job: Job, status: JobStatus, seen: Observed, now: datetime, engines: Collection[Engine] = ENGINES
) -> Decision:
    """What to do about a job whose status was `status`, now that `seen` is there and it is `now` (with a time zone)."""
    if (job.metadata.model_extra or {}).get("deletionTimestamp"):
        return Decision(status)
    seen = seen.of(job.metadata.uid or "")
    run, engine = runs.present(status, seen)
    due = runs.due(job, run, status.next_schedule_time, now)
    case = _Case(job, status, run, engine or _first_engine(job), seen, now, due, engines)
    verdict = _verdict(case)
    if verdict.look or (verdict.ask and seen.warnings is None):
        return Decision(status, look=verdict.look, ask=verdict.ask)
    return _decision(case, verdict)


def refuse(document: Mapping[str, Any], problem: JobError, status: JobStatus, now: datetime) -> Decision:
    """What to do about a document that is no job: say so. Its runs, if it has any, are left as they are."""
    message = troubles.plain(problem.message, _LONG)
    generation = _generation(document.get("metadata"))
    made = standing(status, generation, Phase.FAILED, problem.reason, message, now)
    return Decision(made, events=transition(status, made))


_LONG = 8192
"""Characters of a message that tells many problems at once."""


def _verdict(case: _Case) -> _Verdict:
    """The state table: the first line that fits."""
    run, driver, suspend = case.run, case.driver, case.job.spec.suspend
    unfinished = run is not None and run.end_time is None
    if unfinished and run and driver and driver.outcome:
        return _ended(case, run, driver)
    if case.due.trigger and not suspend:
        return _start(case, case.due.trigger)
    if suspend and (unfinished or case.due.trigger in _AFRESH):
        return _hold(case)
    if run is None or not unfinished:
        return _finished(case)
    if driver is None:
        return _missing(case, run)
    if driver.held:
        resumed = (Suspend(driver.name, False),)
        return _Verdict(Phase.PENDING, "Resumed", f"run {run.id} goes on", actions=resumed)
    pods = case.seen.pods_of(driver)
    if any(pod.running for pod in pods):
        return _Verdict(Phase.RUNNING, "Running", f"run {run.id} is running", _progressed(case.seen.progress))
    return _waiting(case, run, driver, pods)


def _start(case: _Case, trigger: Trigger) -> _Verdict:
    """A run is due: first stop what is active, then put the new run on record. Its driver is created after that."""
    engine = _first_engine(case.job)
    if engine not in case.engines:
        message = f"spec.engine: this operator has no engine {engine}: write {_choice(case.engines)}"
        return _Verdict(Phase.FAILED, "EngineUnavailable", message)
    active = tuple(Delete(one.name) for one in case.seen.drivers if one.active)
    if active:
        message = f"{_WHY[trigger]}: the run that is active is stopped"
        return _Verdict(Phase.PENDING, "Replacing", message, actions=active)
    run = runs.claimed(case.job, case.run, case.seen, trigger, case.now)
    changes = {"run": run, "engine": engine, "next_schedule_time": case.due.tick.next, **_NO_PROGRESS}
    rest: tuple[Action, ...] = ()
    if case.run is not None and case.run.end_time is None:
        past = runs.over(case.run, Phase.FAILED, "Replaced", _second(case.now))
        changes["history"] = runs.remembered(case.before.history, past)
        rest = (Delete(case.run.driver),)
    return _Verdict(Phase.PENDING, "Submitted", f"run {run.id}: {_WHY[trigger]}", changes, rest, requeue=case.now)


def _first_engine(job: Job) -> Engine:
    """The engine that a run of a job begins with."""
    return Engine.LOCAL if job.spec.engine is Engine.AUTO else job.spec.engine


_AFRESH = (Trigger.SPEC, Trigger.RESTART)
"""What leaves an active run without a purpose."""

_WHY = {
    Trigger.SPEC: "the spec is new",
    Trigger.RESTART: "restartNonce has changed",
    Trigger.SCHEDULE: "the schedule is due",
}


def _hold(case: _Case) -> _Verdict:
    """The job is suspended: what is active waits, or goes where it would not be continued."""
    afresh = case.due.trigger in _AFRESH
    active = [one for one in case.seen.drivers if one.active]
    if afresh:
        actions: tuple[Action, ...] = tuple(Delete(one.name) for one in active)
    else:
        actions = tuple(Suspend(one.name, True) for one in active if one is case.driver and not one.held)
    then = "a run starts" if afresh or case.run is None else f"run {case.run.id} goes on"
    return _Verdict(Phase.SUSPENDED, "Suspended", f"{then} once spec.suspend is false", actions=actions)


def _finished(case: _Case) -> _Verdict:
    """The run is over: say how it ended, whatever the status has said since."""
    run, before = case.run, case.before
    past = next((one for one in before.history if run and one.id == run.id), None)
    phase = (past and past.phase) or Phase.FAILED
    reason = (past and past.reason) or "Unknown"
    said = ready(before.conditions)
    same = said is not None and before.phase is phase and said.reason == reason
    return _Verdict(phase, reason, said.message if same and said else f"run {run.id if run else ''} is over")


def _missing(case: _Case, run: Run) -> _Verdict:
    """The run has no driver: it was never created, or it is gone."""
    refusal, attempts = case.seen.refusal, run.attempts or 0
    if case.engine not in case.engines:
        return _over(case, run, "EngineUnavailable", f"this operator has no engine {case.engine}")
    if refusal is not None:
        begun = run.start_time or case.now
        late = case.now >= begun + timedelta(seconds=case.job.spec.start_deadline_seconds)
        if refusal.final or late:
            return _over(case, run, refusal.reason, refusal.message)
        again = case.now + RETRY
        return _Verdict(Phase.PENDING, refusal.reason, refusal.message, requeue=again, warning=True)
    if attempts and not case.seen.live:
        return _LOOK
    if attempts >= DRIVERS:
        return _over(case, run, "DriverLost", f"driver {run.driver} was deleted, as was the one before it")
    create = (Create(run.model_copy(update={"attempts": attempts + 1}), case.engine),)
    if attempts:
        message = f"driver {run.driver} was deleted: it is created once more"
        return _Verdict(Phase.PENDING, "Recreated", message, actions=create, warning=True)
    said = ready(case.before.conditions)
    if case.before.phase is Phase.PENDING and said is not None:  # refused or submitted: that is still so
        return _Verdict(Phase.PENDING, said.reason, said.message, actions=create)
    return _Verdict(Phase.PENDING, "Submitted", f"run {run.id} starts", actions=create)


def _waiting(case: _Case, run: Run, driver: Driver, pods: tuple[Pod, ...]) -> _Verdict:
    """A driver none of whose pods runs: say why, until its time is up."""
    if driver.suspended:
        message = f"driver {driver.name} is suspended, and not by this operator: a queue may hold it"
        return _Verdict(Phase.PENDING, "Queued", message)
    tried = [pod.exit for pod in pods if pod.exit]
    fresh = next((pod for pod in reversed(pods) if pod.waiting), None)
    if tried and not fresh:
        if tried[-1].code in _LAST or len(tried) > case.job.spec.backoff_limit:  # the Job controller has yet to say so
            return _Verdict(Phase.RUNNING, "Running", f"run {run.id} is running")
        said = f"{tried[-1].reason}: {tried[-1].message}"
        message = f"attempt {len(tried)} failed, Kubernetes tries again ({said})"
        return _Verdict(Phase.PENDING, "Retrying", message, warning=True)
    since = fresh.created if fresh and tried else driver.started
    deadline = since + timedelta(seconds=case.job.spec.start_deadline_seconds) if since else None
    trouble = (fresh.trouble if fresh else None) or _warned(case, fresh.uid if fresh else driver.uid)
    if deadline and case.now >= deadline and (trouble or case.seen.warnings is not None):
        late = f"not running after {case.job.spec.start_deadline_seconds} s (spec.startDeadlineSeconds)"
        if trouble is None:
            return _over(case, run, "StartDeadlineExceeded", late)
        return _over(case, run, trouble.reason, f"{late}: {trouble.message}")
    if fresh and fresh.trouble:
        return _Verdict(Phase.PENDING, fresh.trouble.reason, _told(case, fresh.trouble), requeue=deadline, warning=True)
    return _silent(case, run, fresh or driver, trouble, since, deadline)


def _silent(
    case: _Case,
    run: Run,
    about: Pod | Driver,
    trouble: Trouble | None,
    since: datetime | None,
    deadline: datetime | None,
) -> _Verdict:
    """Something that does not come on, and does not say why: after a while, warning events are asked about it."""
    patient = min(filter(None, ((since or case.now) + PATIENCE, deadline)))
    ask = None if case.now < patient else Ask("Pod" if isinstance(about, Pod) else "Job", about.name, about.uid)
    again = patient if ask is None else min(filter(None, (deadline, case.now + ASK_EVERY)))
    if trouble:
        return _Verdict(Phase.PENDING, trouble.reason, trouble.message, requeue=again, ask=ask, warning=True)
    said = ready(case.before.conditions)
    if case.before.phase is Phase.PENDING and said and said.reason in _FRESH:
        return _Verdict(Phase.PENDING, said.reason, said.message, requeue=again, ask=ask)
    return _Verdict(Phase.PENDING, "Starting", f"run {run.id} is starting", requeue=again, ask=ask)


_LAST = (ExitCode.DONE, *NEVER_RETRIED)
"""Exit codes after which there is no other attempt."""

_FRESH = ("Submitted", "Recreated", "Resumed", "Escalated")


def _told(case: _Case, trouble: Trouble) -> str:
    """The message of a trouble, or the one that the status has where that says more."""
    said = ready(case.before.conditions)
    return said.message if trouble.vague and said and said.reason == trouble.reason else trouble.message


def _warned(case: _Case, uid: str) -> Trouble | None:
    """What the last warning event about an object says."""
    told = [one for one in case.seen.warnings or () if one.about == uid]
    last = max(told, key=lambda one: one.time, default=None)
    return troubles.of_warning(last.reason, last.message) if last else None


def _ended(case: _Case, run: Run, driver: Driver) -> _Verdict:
    """The driver is done: copy its report, or move to a cluster where it could not hold the data.

    What is due is left for the next decision: only then is this run known to be over.
    """
    verdict = _ending(case, run, driver)
    return replace(verdict, changes={**verdict.changes, "next_schedule_time": case.before.next_schedule_time})


def _ending(case: _Case, run: Run, driver: Driver) -> _Verdict:
    how = ending(case.job, driver, case.seen.pods_of(driver), certain=case.seen.live)
    if how is None:
        return _LOOK
    end = (driver.outcome and driver.outcome.time) or _second(case.now)
    if how.succeeded:
        return _succeeded(case, run, how, end)
    if not (how.too_big and case.job.spec.engine is Engine.AUTO and driver.engine is Engine.LOCAL):
        return _over(case, run, how.reason, how.message, end)
    cluster = CLUSTERS.get(case.job.kind)
    if cluster is None or cluster not in case.engines:
        message = f"{how.message}: this operator has no engine {cluster} to go on with"
        return _over(case, run, "EngineUnavailable", message, end)
    changes = {"run": runs.moved(case.job, run, cluster), "engine": cluster, **_NO_PROGRESS}
    message = f"run {run.id} goes on with engine {cluster}: {how.message}"
    return _Verdict(Phase.PENDING, "Escalated", message, changes, requeue=case.now)


def _succeeded(case: _Case, run: Run, how: Ending, end: datetime) -> _Verdict:
    result = how.report.result if how.report else None
    past = runs.over(run, Phase.SUCCEEDED, how.reason, end, result.uri if result else "")
    changes = {
        "run": run.model_copy(update={"end_time": end}),
        "result": result,
        "history": runs.remembered(case.before.history, past),
        **_NO_PROGRESS,
        "progress": "100%",
    }
    return _Verdict(Phase.SUCCEEDED, how.reason, how.message, changes, requeue=case.now)


def _over(case: _Case, run: Run, reason: str, message: str, end: datetime | None = None) -> _Verdict:
    """The run has failed. Its driver, if it has one, is deleted once that is on record; without one, the rest is."""
    end = end or _second(case.now)
    rest = () if case.driver else (Delete(run.driver),)
    past = runs.over(run, Phase.FAILED, reason, end)
    changes = {
        "run": run.model_copy(update={"end_time": end}),
        "history": runs.remembered(case.before.history, past),
    }
    return _Verdict(Phase.FAILED, reason, message, changes, rest, requeue=case.now)


_NO_PROGRESS: dict[str, Any] = {"progress": "", "stage": "", "done": None, "total": None}


def _progressed(progress: Progress | None) -> dict[str, Any]:
    """Progress as the status has it; what was said before stays where the driver has not been asked."""
    if progress is None:
        return {}
    percent = f"{100 * min(progress.done, progress.total) // progress.total}%" if progress.total else ""
    return {"progress": percent, "stage": progress.stage, "done": progress.done, "total": progress.total}


def _decision(case: _Case, verdict: _Verdict) -> Decision:
    """A verdict as a decision: the whole status, what is swept up besides, and when to look again."""
    job, before, at = case.job, case.before, case.due.tick
    kept = before.next_schedule_time if case.due.trigger is Trigger.SCHEDULE else at.next
    changes = {"run": case.run, "engine": case.engine, "next_schedule_time": kept, **verdict.changes}
    generation = job.metadata.generation or 0
    made = standing(before, generation, verdict.phase, verdict.reason, verdict.message, case.now, changes)
    swept, expiry = _swept(case)
    told = transition(before, made, warning=verdict.warning)
    if case.due.skipped and made.next_schedule_time != before.next_schedule_time:
        told = (*told, Event("Warning", "ScheduleSkipped", case.due.skipped))
    return Decision(
        status=made,
        actions=tuple(dict.fromkeys((*verdict.actions, *swept))),
        requeue=min(filter(None, (verdict.requeue, expiry, None if job.spec.suspend else at.next)), default=None),
        events=told,
    )


def _swept(case: _Case) -> tuple[tuple[Delete, ...], datetime | None]:
    """Drivers that have no use any more, and when the next one has not.

    Only what the status has on record counts: the present run's driver is not touched until its end is written.
    """
    record = case.before.run
    if record is None:
        return (), None
    ttl = timedelta(seconds=case.job.spec.ttl_seconds_after_finished)
    useless, expiries = [], []
    for driver in case.seen.drivers:
        if driver.number > (record.number or 0) or (driver.name == record.driver and record.end_time is None):
            continue
        expiry = None if driver.outcome is None else (driver.outcome.time or driver.created) + ttl
        if expiry is None or expiry <= case.now:
            useless.append(Delete(driver.name))
        else:
            expiries.append(expiry)
    return tuple(useless), min(expiries, default=None)


def _generation(metadata: object) -> int:
    """The generation of a document that may be anything."""
    given = metadata.get("generation") if isinstance(metadata, Mapping) else None
    return given if isinstance(given, int) and given >= 0 else 0


def _choice(engines: Collection[Engine]) -> str:
    return " or ".join(sorted({Engine.AUTO, *engines}))


def _second(time: datetime) -> datetime:
    """A time as the API keeps it."""
    return time.replace(microsecond=0)
