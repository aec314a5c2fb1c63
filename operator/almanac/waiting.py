"""A driver none of whose pods runs: why, in the words of whoever knows, and how long that may go on. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from almanac import troubles
from almanac.api import ExitCode, Phase, Run
from almanac.case import Case, Verdict, over
from almanac.conditions import ready
from almanac.decision import Ask
from almanac.observed import Driver, Pod
from almanac.troubles import Exit, Trouble

PATIENCE = timedelta(seconds=3)
"""How long a driver may stay silent before warning events about it are looked for."""
ASK_EVERY = timedelta(seconds=15)
"""Time between two looks at the warning events about a driver that does not come on, at first."""
RARER = 4
"""Later it is so many times shorter than the driver has waited: thousands may, for an hour, where a queue is long."""

_FINAL = tuple(code for code in ExitCode if code.final)


def waiting(case: Case, run: Run, driver: Driver, pods: tuple[Pod, ...]) -> Verdict:
    """A driver none of whose pods runs: say why, until its time is up."""
    if driver.suspended:
        message = f"driver {driver.name} is suspended, and not by this operator: a queue may hold it"
        return Verdict(Phase.PENDING, "Queued", message)
    tried = [pod.exit for pod in pods if pod.exit]
    fresh = next((pod for pod in reversed(pods) if pod.waiting), None)
    if tried and not fresh:
        if tried[-1].code in _FINAL or len(tried) > case.job.spec.backoff_limit:
            return _as_before(case, run)  # the Job controller has yet to say that it is over
        return _retried(case, driver, tried)
    if fresh and fresh.leaving:
        message = f"pod {fresh.name} is being stopped ({fresh.leaving}): another one starts once it is gone"
        return Verdict(Phase.PENDING, "Stopping", message, warning=True)
    since = fresh.created if fresh and tried else driver.started
    deadline = since + timedelta(seconds=case.job.spec.start_deadline_seconds) if since else None
    trouble = (fresh.trouble if fresh else None) or warned(case, fresh.uid if fresh else driver.uid)
    if deadline and case.now >= deadline and (trouble or case.seen.warnings is not None):
        late = f"not running after {case.job.spec.start_deadline_seconds} s (spec.startDeadlineSeconds)"
        if trouble is None:
            return over(case, run, "StartDeadlineExceeded", late)
        return over(case, run, trouble.reason, f"{late}: {trouble.message}")
    if fresh and fresh.trouble:
        return Verdict(Phase.PENDING, fresh.trouble.reason, _told(case, fresh.trouble), requeue=deadline, warning=True)
    return _silent(case, run, fresh or driver, trouble, since, deadline)


def _as_before(case: Case, run: Run) -> Verdict:
    """What the status has said of this run, for the moment that it takes until more is known."""
    said, before = ready(case.before.conditions), case.before
    if said is None or before.phase is not Phase.PENDING or before.run is None or before.run.id != run.id:
        return Verdict(Phase.RUNNING, "Running", f"run {run.id} is running")
    return Verdict(Phase.PENDING, said.reason, said.message)


def _retried(case: Case, driver: Driver, tried: list[Exit]) -> Verdict:
    """An attempt has failed and the next has no pod yet: Kubernetes waits with it, or may not create it."""
    last = tried[-1]
    failed, again = f"attempt {len(tried)} failed", case.now + ASK_EVERY
    trouble = warned(case, driver.uid, after=last.time)
    reason, message = "Retrying", f"{failed}, Kubernetes tries again ({last.reason}: {last.message})"
    if trouble:
        reason = trouble.reason
        message = f"{failed} ({last.reason}: {last.message}), and the next cannot begin: {trouble.message}"
    ask = Ask("Job", driver.name, driver.uid) if last.time and case.now >= last.time + ASK_EVERY else None
    return Verdict(Phase.PENDING, reason, message, requeue=again, ask=ask, warning=True)


def _silent(
    case: Case,
    run: Run,
    about: Pod | Driver,
    trouble: Trouble | None,
    since: datetime | None,
    deadline: datetime | None,
) -> Verdict:
    """Something that does not come on, and does not say why: after a while, warning events are asked about it."""
    begun = since or case.now
    patient = min(filter(None, (begun + PATIENCE, deadline)))
    ask = None if case.now < patient else Ask("Pod" if isinstance(about, Pod) else "Job", about.name, about.uid)
    pause = max(ASK_EVERY, (case.now - begun) / RARER)
    again = patient if ask is None else min(filter(None, (deadline, case.now + pause)))
    if trouble:
        return Verdict(Phase.PENDING, trouble.reason, trouble.message, requeue=again, ask=ask, warning=True)
    said = ready(case.before.conditions)
    started = isinstance(about, Pod) and about.initializing
    if case.before.phase is Phase.PENDING and said and said.reason in _FRESH and not started:
        return Verdict(Phase.PENDING, said.reason, said.message, requeue=again, ask=ask)
    at = about.initializing if isinstance(about, Pod) else ""
    message = f"run {run.id} is starting" + (f": init container {at} runs" if at else "")
    return Verdict(Phase.PENDING, "Starting", message, requeue=again, ask=ask)


_FRESH = ("Submitted", "Recreated", "Resumed", "Escalated")


def _told(case: Case, trouble: Trouble) -> str:
    """The message of a trouble, or the one that the status has where that says more."""
    said = ready(case.before.conditions)
    return said.message if trouble.vague and said and said.reason == trouble.reason else trouble.message


def warned(case: Case, uid: str, after: datetime | None = None) -> Trouble | None:
    """What the last warning event about an object says, or the last one after some moment."""
    told = [one for one in case.seen.warnings or () if one.about == uid and (after is None or one.time > after)]
    last = max(told, key=lambda one: one.time, default=None)
    return troubles.of_warning(last.reason, last.message) if last else None
