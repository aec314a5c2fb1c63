"""A driver none of whose pods runs: why, in the words of whoever knows, and how long that may go on. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from almanac import troubles
from almanac.api import ExitCode, Phase, Run
from almanac.case import Case, Verdict, over
from almanac.conditions import ready
from almanac.decision import Ask
from almanac.observed import Driver, Pod
from almanac.troubles import Trouble

PATIENCE = timedelta(seconds=3)
"""How long a driver may stay silent before warning events about it are looked for."""
ASK_EVERY = timedelta(seconds=15)
"""Time between two looks at the warning events about a driver that does not come on."""

_FINAL = tuple(code for code in ExitCode if code.final)


def waiting(case: Case, run: Run, driver: Driver, pods: tuple[Pod, ...]) -> Verdict:
    """A driver none of whose pods runs: say why, until its time is up."""
    if driver.suspended:
        message = f"driver {driver.name} is suspended, and not by this operator: a queue may hold it"
        return Verdict(Phase.PENDING, "Queued", message)
    tried = [pod.exit for pod in pods if pod.exit]
    fresh = next((pod for pod in reversed(pods) if pod.waiting), None)
    if tried and not fresh:
        if tried[-1].code in _FINAL or len(tried) > case.job.spec.backoff_limit:  # the Job controller has yet to say so
            return Verdict(Phase.RUNNING, "Running", f"run {run.id} is running")
        said = f"{tried[-1].reason}: {tried[-1].message}"
        message = f"attempt {len(tried)} failed, Kubernetes tries again ({said})"
        return Verdict(Phase.PENDING, "Retrying", message, warning=True)
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


def _silent(
    case: Case,
    run: Run,
    about: Pod | Driver,
    trouble: Trouble | None,
    since: datetime | None,
    deadline: datetime | None,
) -> Verdict:
    """Something that does not come on, and does not say why: after a while, warning events are asked about it."""
    patient = min(filter(None, ((since or case.now) + PATIENCE, deadline)))
    ask = None if case.now < patient else Ask("Pod" if isinstance(about, Pod) else "Job", about.name, about.uid)
    again = patient if ask is None else min(filter(None, (deadline, case.now + ASK_EVERY)))
    if trouble:
        return Verdict(Phase.PENDING, trouble.reason, trouble.message, requeue=again, ask=ask, warning=True)
    said = ready(case.before.conditions)
    if case.before.phase is Phase.PENDING and said and said.reason in _FRESH:
        return Verdict(Phase.PENDING, said.reason, said.message, requeue=again, ask=ask)
    return Verdict(Phase.PENDING, "Starting", f"run {run.id} is starting", requeue=again, ask=ask)


_FRESH = ("Submitted", "Recreated", "Resumed", "Escalated")


def _told(case: Case, trouble: Trouble) -> str:
    """The message of a trouble, or the one that the status has where that says more."""
    said = ready(case.before.conditions)
    return said.message if trouble.vague and said and said.reason == trouble.reason else trouble.message


def warned(case: Case, uid: str) -> Trouble | None:
    """What the last warning event about an object says."""
    told = [one for one in case.seen.warnings or () if one.about == uid]
    last = max(told, key=lambda one: one.time, default=None)
    return troubles.of_warning(last.reason, last.message) if last else None
