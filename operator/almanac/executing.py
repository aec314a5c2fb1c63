"""A driver that runs: whether its executors do, where its engine has some, and why not if none does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from almanac import executors
from almanac.api import Engine, Phase, Run
from almanac.case import Case, Verdict, over
from almanac.observed import Executor, Pod


def executing(case: Case, run: Run, pod: Pod, progressed: Mapping[str, Any]) -> Verdict:
    """A run whose driver runs in this pod. One none of whose executors comes on has as long as a driver has."""
    if case.engine is not Engine.SPARK:
        return Verdict(Phase.RUNNING, "Running", f"run {run.id} is running", progressed)
    seen, counts = case.seen.executors_of(pod), case.seen.progress.executors if case.seen.progress else None
    changes = {**progressed, "executors": executors.status(case.before.executors, counts, seen)}
    stuck = None if any(one.running for one in seen) else _stuck(seen)
    if stuck is None or stuck.trouble is None:
        return Verdict(Phase.RUNNING, "Running", f"run {run.id} is running", changes)
    deadline = stuck.created + timedelta(seconds=case.job.spec.start_deadline_seconds)
    if case.now >= deadline:
        late = f"no executor is running after {case.job.spec.start_deadline_seconds} s (spec.startDeadlineSeconds)"
        return over(case, run, stuck.trouble.reason, f"{late}: {stuck.trouble.message}")
    message = f"none of its executors is running: {stuck.trouble.message}"
    return Verdict(Phase.RUNNING, stuck.trouble.reason, message, changes, requeue=deadline, warning=True)


def _stuck(seen: tuple[Executor, ...]) -> Executor | None:
    """The executor that has waited longest for something that it names."""
    return next((one for one in seen if one.trouble is not None), None)
