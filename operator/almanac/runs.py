"""Runs as records: which one is present, what starts the next, and what the status keeps of those that are over. Pure.

A run's number only grows, and its names follow from it: `almanac.names`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from almanac import names
from almanac.api import ConcurrencyPolicy, Engine, Job, JobStatus, PastRun, Phase, Run, Trigger
from almanac.observed import Driver, Observed
from almanac.schedule import Schedule, Tick, tick

HISTORY = 5
"""Finished runs that a status keeps."""
REPLACED = "Replaced"
"""Reason of runs that were given up for another one."""


@dataclass(frozen=True, slots=True)
class Due:
    """Whether a run is to start, and where the schedule stands."""

    trigger: Trigger | None
    """What starts it; None: nothing does."""
    tick: Tick
    skipped: str = ""
    """Why the time that was due starts nothing."""


def trusted(job: Job, status: JobStatus) -> JobStatus:
    """A status without a run that is none of the job's: names follow from job and number, and name what is deleted."""
    run, uid = status.run, job.metadata.uid or ""
    if run is None or not run.driver:
        return status
    number = run.number or 0
    drivers = {names.child_name(job.metadata.name, uid, number, suffix) for suffix in ("", *Engine)}
    ours = run.driver in drivers and run.id.endswith(names.token(uid, number)) and names.run_start(run.id)
    return status if ours else status.model_copy(update={"run": None})


def present(status: JobStatus, seen: Observed) -> tuple[Run | None, Engine | None]:
    """The run that the job is at, and its engine: what the status says, or what a later driver's labels do.

    The second happens where a status was lost. A run that is not over counts the drivers that it was seen to have, and
    reads what its driver does: an operator that does not know of sources yet may have written the status anew.
    """
    run = status.run if status.run is not None and status.run.driver else None
    newest = max(seen.drivers, key=lambda one: (one.number, one.engine is not Engine.LOCAL, one.created), default=None)
    if newest is not None and (run is None or newest.number > (run.number or 0)):
        return _of(newest), newest.engine
    if run is None or run.end_time is not None:
        return run, status.engine
    driver = seen.named(run.driver)
    if driver is None:
        return run, status.engine
    attempts = max(run.attempts or 0, driver.attempt)
    source = run.source or driver.source
    return run.model_copy(update={"attempts": attempts, "source": source}), status.engine or driver.engine


def _of(driver: Driver) -> Run:
    return Run(
        id=driver.run,
        number=driver.number,
        trigger=driver.trigger,
        spec_hash=driver.spec_hash,
        restart_nonce=driver.restart_nonce,
        source=driver.source,
        attempts=driver.attempt,
        driver=driver.name,
        start_time=names.run_start(driver.run) or driver.created,
    )


def due(job: Job, run: Run | None, status: JobStatus, now: datetime) -> Due:
    """What starts the next run, if anything does. A changed spec comes before a restart, both before the schedule.

    A run that was given up for another one has not computed what it was to: should nothing else be due, that still is.
    """
    spec = job.spec
    schedule = Schedule(spec.schedule, spec.time_zone) if spec.schedule else None
    at = tick(schedule, status.next_schedule_time, now)
    if run is None or (run.spec_hash and run.spec_hash != spec.hash):
        return Due(Trigger.SPEC, at)
    if run.restart_nonce is not None and run.restart_nonce != spec.restart_nonce:
        return Due(Trigger.RESTART, at)
    given_up = any(one.id == run.id and one.reason == REPLACED for one in status.history)
    otherwise = Trigger.SPEC if given_up else None
    if at.due is None:
        return Due(otherwise, at)
    within = spec.starting_deadline_seconds
    if within is not None and now > at.due + timedelta(seconds=within):
        return Due(otherwise, at, f"the run of {at.due:%Y-%m-%dT%H:%MZ} could not start within {within} s of its time")
    if run.end_time is None and spec.concurrency_policy is ConcurrencyPolicy.FORBID:
        return Due(None, at, f"the run of {at.due:%Y-%m-%dT%H:%MZ} was left out: run {run.id} is not over")
    return Due(Trigger.SCHEDULE, at)


def claimed(job: Job, before: Run | None, seen: Observed, trigger: Trigger, now: datetime, source: str = "") -> Run:
    """The next run of a job. Nothing of it exists yet: it has had no driver. `source` is the extract's run it reads."""
    number = 1 + max((before.number or 0) if before else 0, *(one.number for one in seen.drivers), 0)
    uid, start = job.metadata.uid or "", now.replace(microsecond=0)
    return Run(
        id=names.run_id(start, uid, number),
        number=number,
        trigger=trigger,
        spec_hash=job.spec.hash,
        restart_nonce=job.spec.restart_nonce,
        source=source,
        attempts=0,
        driver=names.child_name(job.metadata.name, uid, number),
        start_time=start,
    )


def moved(job: Job, run: Run, engine: Engine) -> Run:
    """The same run on an engine of its own driver, which it has yet to get."""
    name = names.child_name(job.metadata.name, job.metadata.uid or "", run.number or 0, engine)
    return run.model_copy(update={"driver": name, "attempts": 0})


def over(run: Run, phase: Phase, reason: str, end: datetime, uri: str = "") -> PastRun:
    """What the history keeps of a run."""
    return PastRun(**(dict(run) | {"end_time": end}), phase=phase, reason=reason, uri=uri)


def remembered(history: tuple[PastRun, ...], past: PastRun) -> tuple[PastRun, ...]:
    """A history with one more run, newest first."""
    return (past, *(one for one in history if one.id != past.id))[:HISTORY]
