"""A driver that runs: whether its executors do, where its engine has some, and why not if none does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from almanac import executors
from almanac.api import Engine, Phase, Run
from almanac.case import Case, Verdict, over
from almanac.observed import Executor, ExecutorCounts, Pod
from almanac.troubles import Trouble
from almanac.waiting import ASK_EVERY


def executing(case: Case, run: Run, pod: Pod, progressed: Mapping[str, Any]) -> Verdict:
    """A run whose driver runs in this pod. One none of whose executors comes on has as long as a driver has."""
    if case.engine is not Engine.SPARK:
        return Verdict(Phase.RUNNING, "Running", f"run {run.id} is running", progressed)
    seen, counts = case.seen.executors_of(pod), case.seen.progress.executors if case.seen.progress else None
    changes = {**progressed, "executors": executors.status(case.before.executors, counts, seen)}
    trouble, since = _trouble(seen) if seen else _refused(counts, pod)
    first = not seen and (case.before.executors is None or case.before.executors.running != 0)
    if trouble is None or first:  # pods may be on their way
        again = None if trouble is None else case.now + ASK_EVERY
        return Verdict(Phase.RUNNING, "Running", f"run {run.id} is running", changes, requeue=again)
    deadline = since + timedelta(seconds=case.job.spec.start_deadline_seconds)
    if case.now >= deadline:
        late = f"no executor is running after {case.job.spec.start_deadline_seconds} s (spec.startDeadlineSeconds)"
        return over(case, run, trouble.reason, f"{late}: {trouble.message}")
    message = f"none of its executors is running: {trouble.message}"
    return Verdict(Phase.RUNNING, trouble.reason, message, changes, requeue=deadline, warning=True)


def _trouble(seen: tuple[Executor, ...]) -> tuple[Trouble | None, datetime]:
    """What the executor says that has waited longest, if none runs; and since when it does."""
    first = next((one for one in seen if one.trouble is not None), seen[0])
    return (None if any(one.running for one in seen) else first.trouble), first.created


def _refused(counts: ExecutorCounts | None, pod: Pod) -> tuple[Trouble | None, datetime]:
    """A driver that waits for executors, and has none, not even one that waits: nobody lets it create them."""
    since = pod.started or pod.created
    if counts is None or not counts.wanted or counts.running or counts.failed:
        return None, since
    said = "their pods are not created: a quota may be against it, the driver's log says"
    return Trouble("ExecutorsRefused", said), since
