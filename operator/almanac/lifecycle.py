"""The life of a job as one pure function: what it should be, what is there and what time it is say what to do next.

A reconcile asks `decide`, carries out the actions, then writes the status, and asks again when the decision says so. It
may die between any two of these: what must be on record before it is done (that there is a run before its driver is
created, how a run ended before its driver is deleted) takes two decisions, of which the first only writes.

What it sees may be old, since watches lag, and another operator may have gone on from there. A status is written over
the version that it was decided on, or not at all; and a driver is created only where that has just happened, or where
everything was read anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from almanac import names, runs, troubles, workers
from almanac.api import Engine, ExtractRun, Job, JobError, JobStatus, Phase, Run, Trigger
from almanac.case import LOOK, NO_PROGRESS, Case, Verdict, over, second
from almanac.conditions import ready, standing, transition
from almanac.decision import SCHEDULE_SKIPPED, Action, Create, Decision, Delete, Event, Provide, Release, Suspend
from almanac.endings import Ending, ending
from almanac.executing import executing
from almanac.observed import Driver, Extract, Observed, Progress, Refusal
from almanac.waiting import PATIENCE, waiting

ENGINES: frozenset[Engine] = frozenset({Engine.LOCAL, Engine.SPARK, Engine.DASK})
"""The engines that this operator can start."""

CLUSTERS = {"ForecastJob": Engine.SPARK, "AnomalyJob": Engine.DASK}
"""The engine that a run of each kind moves to where its data do not fit into one process."""

STANDING = frozenset({Engine.DASK})
"""Engines whose clusters do not go with the driver's pods."""

RETRY = timedelta(seconds=20)
"""Time after which the API server is asked again for what it has refused."""
DRIVERS = 2
"""Drivers that a run may have: the first, and one more if that is deleted."""


def decide(
    job: Job, status: JobStatus, seen: Observed, now: datetime, engines: Collection[Engine] = ENGINES
) -> Decision:
    """What to do about a job whose status was `status`, now that `seen` is there and it is `now` (with a time zone)."""
    if (job.metadata.model_extra or {}).get("deletionTimestamp"):
        return Decision(status)
    status, seen = runs.trusted(job, status), seen.of(job.metadata.uid or "")
    run, engine = runs.present(status, seen)
    due = runs.due(job, run, status, now)
    case = Case(job, status, run, engine or _first_engine(job), seen, now, due, engines)
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


_RESUMED = "Resumed"
_LONG = 8192
"""Characters of a message that tells many problems at once."""


def _verdict(case: Case) -> Verdict:
    """The state table: the first line that fits."""
    run, driver, suspend = case.run, case.driver, case.job.spec.suspend
    unfinished = run is not None and run.end_time is None
    if run and (case.before.run is None or case.before.run.id != run.id):
        return Verdict(Phase.PENDING, "Adopted", f"run {run.id} was found by its driver", requeue=case.now)
    if unfinished and run and driver and driver.outcome:
        return _ended(case, run, driver)
    if case.due.trigger and not suspend:
        return _start(case, case.due.trigger)
    if suspend and (unfinished or case.due.trigger in _AFRESH or case.job.spec.schedule):
        return _hold(case)
    if run is None or not unfinished:
        return _finished(case)
    if driver is None:
        return _missing(case, run)
    if driver.held:
        cluster = (Provide(run, driver.engine),) if driver.engine in STANDING else ()
        resumed = (Suspend(driver.name, False), *cluster)
        return Verdict(Phase.PENDING, _RESUMED, f"run {run.id} goes on", actions=resumed, requeue=case.now + PATIENCE)
    pods = case.seen.pods_of(driver)
    running = next((pod for pod in reversed(pods) if pod.running), None)
    if running is not None:
        certain = case.seen.live or not _halted(case.before)
        return executing(case, run, running, _progressed(case.seen.progress)) if certain else LOOK
    verdict = waiting(case, run, driver, pods)
    return replace(verdict, changes={"workers": workers.between(case.before.workers, case.engine), **verdict.changes})


def _start(case: Case, trigger: Trigger) -> Verdict:
    """A run is due: first stop what is active, then put the new run on record. Its driver is created after that."""
    engine = _first_engine(case.job)
    if engine not in case.engines:
        message = f"spec.engine: this operator has no engine {engine}: write {_choice(case.engines)}"
        return Verdict(Phase.FAILED, "EngineUnavailable", message)
    if case.run is not None and case.run.end_time is None:
        return _replaced(case, case.run, f"{_why(case, trigger)}: the run that is active is stopped")
    if any(one.active for one in case.seen.drivers):
        return Verdict(Phase.PENDING, "Replacing", f"{_why(case, trigger)}: the run that was active is being stopped")
    wanted = case.job.spec.extract
    source = _source(wanted, case.seen.extract)
    if wanted is not None and not source:
        message = f"run starts once {_without_run(wanted.name, case.seen.extract)}"
        return Verdict(Phase.PENDING, "WaitingForExtract", message)
    run = runs.claimed(case.job, case.run, case.seen, trigger, case.now, source)
    changes = {
        "run": run,
        "engine": engine,
        "engine_reason": "",
        "next_schedule_time": case.due.tick.next,
        **NO_PROGRESS,
    }
    reads = f", reads {source}" if source else ""
    return Verdict(Phase.PENDING, "Submitted", f"run {run.id}: {_why(case, trigger)}{reads}", changes, requeue=case.now)


def _source(wanted: ExtractRun | None, seen: Extract | None) -> str:
    """The folder of the extract's run that is read: the one that the job names, or the newest complete one."""
    if wanted is None:
        return ""
    return wanted.uri or (seen.uri if seen else "")


def _without_run(name: str, seen: Extract | None) -> str:
    if seen is None:
        return f"there is an ExtractJob {name} in this namespace, and it has a complete run"
    return f"ExtractJob {name} has a complete run: it is {seen.phase or 'not looked at yet'}" + (
        f" ({seen.reason})" if seen.reason else ""
    )


def _replaced(case: Case, run: Run, message: str) -> Verdict:
    """The run is given up for another one: that is on record, so that it never comes back, before its driver goes."""
    return replace(over(case, run, runs.REPLACED, message), phase=Phase.PENDING, reason="Replacing")


def _first_engine(job: Job) -> Engine:
    """The engine that a run of a job begins with."""
    return Engine.LOCAL if job.spec.engine is Engine.AUTO else job.spec.engine


_AFRESH = (Trigger.SPEC, Trigger.RESTART)
"""What leaves an active run without a purpose."""

_WHY = {
    Trigger.SPEC: "the spec has changed",
    Trigger.RESTART: "restartNonce has changed",
    Trigger.SCHEDULE: "the schedule is due",
}


def _why(case: Case, trigger: Trigger) -> str:
    """What starts a run. A spec that no run was made of cannot have changed."""
    return "the job is new" if case.run is None else _WHY[trigger]


def _hold(case: Case) -> Verdict:
    """The job is suspended: what is active waits, or goes where it would not be continued. No schedule is due."""
    afresh, run = case.due.trigger in _AFRESH, case.run
    then = "a run starts" if afresh or run is None else f"run {run.id} goes on"
    if not afresh and run is not None and run.end_time is not None:
        then = "the schedule goes on"
    message = f"{then} once spec.suspend is false"
    if afresh and run is not None and run.end_time is None:
        return replace(_replaced(case, run, message), phase=Phase.SUSPENDED, reason="Suspended")
    driver = case.driver
    held = driver is None or not driver.active or driver.held
    hold = () if driver is None or held else (*_released(driver), Suspend(driver.name, True))
    changes = {"workers": workers.over(case.before.workers)}
    return Verdict(Phase.SUSPENDED, "Suspended", message, changes, hold)


def _finished(case: Case) -> Verdict:
    """The run is over: say how it ended, whatever the status has said since."""
    run, before = case.run, case.before
    past = next((one for one in before.history if run and one.id == run.id), None)
    phase = (past and past.phase) or Phase.FAILED
    reason = (past and past.reason) or "Unknown"
    said = ready(before.conditions)
    same = said is not None and before.phase is phase and said.reason == reason
    written = f": written to {past.uri}" if past and past.uri else ""
    return Verdict(phase, reason, said.message if same and said else f"run {run.id if run else ''} is over{written}")


def _missing(case: Case, run: Run) -> Verdict:
    """The run has no driver: it was never created, or it is gone."""
    seen, attempts = case.seen, run.attempts or 0
    if case.engine not in case.engines:
        return over(case, run, "EngineUnavailable", f"this operator has no engine {case.engine}")
    if seen.refusal is not None:
        return _refused(case, run, seen.refusal)
    if not seen.live and (attempts or not seen.fresh):
        return LOOK
    if attempts >= DRIVERS:
        return over(case, run, "DriverLost", f"driver {run.driver} was deleted, as was the one before it")
    create = (Create(run.model_copy(update={"attempts": attempts + 1}), case.engine),)
    again = case.now + PATIENCE  # nothing may happen to it: a quota, say, lets no pod of it into the world
    if attempts:
        message = f"driver {run.driver} was deleted: it is created once more"
        return Verdict(Phase.PENDING, "Recreated", message, actions=create, requeue=again, warning=True)
    said = ready(case.before.conditions)
    if said and case.before.phase is Phase.PENDING:  # refused, perhaps: that is still so
        return Verdict(Phase.PENDING, said.reason, said.message, actions=create, requeue=again)
    return Verdict(Phase.PENDING, "Submitted", f"run {run.id} starts", actions=create, requeue=again)


def _refused(case: Case, run: Run, refusal: Refusal) -> Verdict:
    """The API server would not have the driver: that may change, for a while."""
    patient = (run.start_time or case.now) + timedelta(seconds=case.job.spec.start_deadline_seconds)
    if refusal.final or case.now >= patient:
        return over(case, run, refusal.reason, refusal.message)
    reason = "Recreated" if run.attempts else refusal.reason
    return Verdict(Phase.PENDING, reason, refusal.message, requeue=case.now + RETRY, warning=True)


def _ended(case: Case, run: Run, driver: Driver) -> Verdict:
    """The driver is done: copy its report, or move to a cluster where it could not hold the data.

    What is due is left for the next decision: only then is this run known to be over.
    """
    verdict = _ending(case, run, driver)
    kept = {**verdict.changes, "next_schedule_time": case.before.next_schedule_time}
    return replace(verdict, changes=kept, actions=(*_released(driver), *verdict.actions))


def _released(driver: Driver) -> tuple[Action, ...]:
    """The cluster of a driver that needs none any more goes, where it would not by itself."""
    return (Release(driver.name, driver.engine),) if driver.engine in STANDING else ()


def _ending(case: Case, run: Run, driver: Driver) -> Verdict:
    how = ending(case.job, driver, case.seen.pods_of(driver), certain=case.seen.live)
    if how is None:
        return LOOK
    end = (driver.outcome and driver.outcome.time) or second(case.now)
    if how.succeeded:
        return _succeeded(case, run, how, end)
    if not (how.too_big and case.job.spec.engine is Engine.AUTO and driver.engine is Engine.LOCAL):
        return over(case, run, how.reason, workers.told(how.message, case.before.workers), end)
    cluster = CLUSTERS.get(case.job.kind)
    if cluster is None or cluster not in case.engines:
        message = f"{how.message}: {_SMALLER}: this operator has no engine {cluster or 'of a cluster'} to go on with"
        return over(case, run, how.reason, message, end)
    changes = {
        "run": runs.moved(case.job, run, cluster),
        "engine": cluster,
        "engine_reason": how.message,
        **NO_PROGRESS,
    }
    message = f"run {run.id} goes on with engine {cluster}: {how.message}"
    return Verdict(Phase.PENDING, "Escalated", message, changes, requeue=case.now)


_SMALLER = (
    f"raise the memory limit of the container {names.CONTAINER} in spec.podTemplate, or read less with "
    "spec.source.filter"
)


def _succeeded(case: Case, run: Run, how: Ending, end: datetime) -> Verdict:
    result = how.report.result if how.report else None
    past = runs.over(run, Phase.SUCCEEDED, how.reason, end, result.uri if result else "")
    changes = {
        "run": run.model_copy(update={"end_time": end}),
        "result": result,
        "engine_reason": _engine_reason(case, how),
        "history": runs.remembered(case.before.history, past),
        **NO_PROGRESS,
        "progress": "100%",
    }
    return Verdict(Phase.SUCCEEDED, how.reason, how.message, changes, requeue=case.now)


def _engine_reason(case: Case, how: Ending) -> str:
    """Why the run was computed on its engine: why it was moved there, if it was, else what its driver says."""
    return case.before.engine_reason or (how.report.engine_reason if how.report else "")


def _halted(before: JobStatus) -> bool:
    """Whether the run has yet to go on after a suspension: a pod that seems to run may be the one that had to go."""
    said = ready(before.conditions)
    return before.phase is Phase.SUSPENDED or (said is not None and said.reason == _RESUMED)


def _progressed(progress: Progress | None) -> dict[str, Any]:
    """Progress as the status has it; what was said before stays where the driver has not been asked."""
    if progress is None:
        return {}
    percent = f"{100 * min(progress.done, progress.total) // progress.total}%" if progress.total else ""
    return {"progress": percent, "stage": progress.stage, "done": progress.done, "total": progress.total}


def _decision(case: Case, verdict: Verdict) -> Decision:
    """A verdict as a decision: the whole status, what is swept up besides, and when to look again."""
    job, before, at = case.job, case.before, case.due.tick
    kept = before.next_schedule_time if case.due.trigger is Trigger.SCHEDULE else at.next
    changes = {"run": case.run, "engine": case.engine, "next_schedule_time": kept, **verdict.changes}
    generation = job.metadata.generation or 0
    made = standing(before, generation, verdict.phase, verdict.reason, verdict.message, case.now, changes)
    swept, expiry = _swept(case)
    told = transition(before, made, warning=verdict.warning)
    if case.due.skipped and made.next_schedule_time != before.next_schedule_time:
        told = (*told, Event("Warning", SCHEDULE_SKIPPED, case.due.skipped))
    return Decision(
        status=made,
        actions=tuple(dict.fromkeys((*verdict.actions, *swept))),
        requeue=min(filter(None, (verdict.requeue, expiry, None if job.spec.suspend else at.next)), default=None),
        events=told,
    )


def _swept(case: Case) -> tuple[tuple[Delete, ...], datetime | None]:
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
            useless.append(Delete(driver.name, driver.engine))
        else:
            expiries.append(expiry)
    return tuple(useless), min(expiries, default=None)


def _generation(metadata: object) -> int:
    """The generation of a document that may be anything."""
    given = metadata.get("generation") if isinstance(metadata, Mapping) else None
    return given if isinstance(given, int) and given >= 0 else 0


def _choice(engines: Collection[Engine]) -> str:
    return " or ".join(sorted({Engine.AUTO, *engines}))
