"""A driver that runs: whether its executors do, where its engine has some, and why not if none does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from almanac import executors
from almanac.api import Engine, Phase, Run
from almanac.case import Case, Verdict, over
from almanac.decision import Ask
from almanac.observed import Executor, Pod
from almanac.troubles import Trouble
from almanac.waiting import ASK_EVERY, warned

PATIENCE = timedelta(seconds=30)
"""How long executors may be absent, or silent about what they wait for."""


def executing(case: Case, run: Run, pod: Pod, progressed: Mapping[str, Any]) -> Verdict:
    """A run whose driver runs in this pod. While none of its executors does, it has as long as a driver to start."""
    if case.engine is not Engine.SPARK:
        return Verdict(Phase.RUNNING, "Running", f"run {run.id} is running", progressed)
    seen, counts = case.seen.executors_of(pod), case.seen.progress.executors if case.seen.progress else None
    status = executors.status(case.before.executors, counts, seen, case.now)
    seen = tuple(one for one in seen if one.waiting)
    changes = {**progressed, "executors": status}
    if status is None or status.none_since is None:
        return Verdict(Phase.RUNNING, "Running", f"run {run.id} is running", changes)
    waits = case.now - status.none_since
    deadline = status.none_since + timedelta(seconds=case.job.spec.start_deadline_seconds)
    ask = Ask("Pod", seen[0].name, seen[0].uid) if seen and waits >= PATIENCE and not _told(seen) else None
    trouble = _told(seen) or (warned(case, seen[0].uid) if seen else _refused(waits))
    if case.now >= deadline and (ask is None or case.seen.warnings is not None):
        late = f"no executor is running after {case.job.spec.start_deadline_seconds} s (spec.startDeadlineSeconds)"
        return (
            over(case, run, trouble.reason, f"{late}: {trouble.message}") if trouble else over(case, run, _LATE, late)
        )
    again = min(deadline, case.now + (ASK_EVERY if waits >= PATIENCE else PATIENCE - waits))
    if trouble is None:
        return Verdict(Phase.RUNNING, "Running", f"run {run.id} is running", changes, requeue=again, ask=ask)
    message = f"none of its executors is running: {trouble.message}"
    return Verdict(Phase.RUNNING, trouble.reason, message, changes, requeue=again, ask=ask, warning=True)


_LATE = "StartDeadlineExceeded"


def _told(seen: tuple[Executor, ...]) -> Trouble | None:
    """What the executor says that has waited longest, of those that say something."""
    return next((one.trouble for one in seen if one.trouble is not None), None)


def _refused(waits: timedelta) -> Trouble | None:
    """A driver that has not a single executor, not even one that waits: nobody lets it create them."""
    said = "their pods are not created: a quota may be against it, the driver's log says"
    return Trouble("ExecutorsRefused", said) if waits >= PATIENCE else None
