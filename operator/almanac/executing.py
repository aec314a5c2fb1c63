"""A driver that runs: whether those that compute for it do, where its engine has some, and why not if too few do. Pure.

A driver waits for them without an end, and cannot say what keeps them: the operator does, and ends the run in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from almanac import workers
from almanac.api import Engine, Phase, Run
from almanac.case import Case, Verdict, over
from almanac.decision import Action, Ask, Provide, Scale
from almanac.observed import Pod, Worker
from almanac.troubles import Trouble
from almanac.waiting import ASK_EVERY, warned
from almanac.workers import Crew

PATIENCE = timedelta(seconds=30)
"""How long workers may be absent, or silent about what they wait for."""


def executing(case: Case, run: Run, pod: Pod, progressed: Mapping[str, Any]) -> Verdict:
    """A run whose driver runs in this pod. While too few compute for it, it has as long as a driver to start."""
    goes_on = Verdict(Phase.RUNNING, "Running", f"run {run.id} is running", progressed)
    if case.engine is Engine.LOCAL:
        return goes_on
    crew = _crew(case, run, pod)
    status = workers.status(case.before.workers, crew, case.now)
    goes_on = replace(goes_on, changes={**progressed, "workers": status}, actions=_scaled(case, run, crew))
    if crew is None or status is None or not crew.lack:
        return goes_on
    if status.short_since is None:  # enough for the run, and fewer than its driver wants
        told = _told(crew)
        return _said(goes_on, crew, told) if told else goes_on
    waits = case.now - status.short_since
    deadline = status.short_since + timedelta(seconds=case.job.spec.start_deadline_seconds)
    ask, trouble, actions = _why(case, run, crew, silent=waits >= PATIENCE)
    if case.now >= deadline and (ask is None or case.seen.warnings is not None):
        late = f"{crew.lack} after {case.job.spec.start_deadline_seconds} s (spec.startDeadlineSeconds)"
        return (
            over(case, run, trouble.reason, f"{late}: {trouble.message}") if trouble else over(case, run, _LATE, late)
        )
    again = min(deadline, case.now + (ASK_EVERY if waits >= PATIENCE else PATIENCE - waits))
    goes_on = replace(goes_on, actions=(*goes_on.actions, *actions), requeue=again, ask=ask)
    return _said(goes_on, crew, trouble) if trouble else goes_on


def _said(verdict: Verdict, crew: Crew, trouble: Trouble) -> Verdict:
    """A run that goes on, with what it lacks and why."""
    return replace(verdict, reason=trouble.reason, message=f"{crew.lack}: {trouble.message}", warning=True)


def _told(crew: Crew) -> Trouble | None:
    """What the pod says that is needed first, of those that say what they wait for."""
    return next((one.trouble for one in crew.waiting if one.trouble is not None), None)


_LATE = "StartDeadlineExceeded"


def _crew(case: Case, run: Run, pod: Pod) -> Crew | None:
    counts = case.seen.progress.workers if case.seen.progress else None
    if case.engine is Engine.SPARK:
        return workers.on_spark(case.seen.workers_of(pod.uid), counts)
    return workers.on_dask(case.seen.workers_of(run.id), counts, case.job.spec.dask, case.before.workers)


def _scaled(case: Case, run: Run, crew: Crew | None) -> tuple[Action, ...]:
    """As many workers as the driver wants now. It alone knows when their number must not change."""
    said = case.seen.progress is not None and case.seen.progress.workers is not None
    if case.engine is not Engine.DASK or crew is None or crew.wanted is None or not said:
        return ()
    same = case.before.workers is not None and case.before.workers.wanted == crew.wanted
    return () if same or case.job.spec.dask.maximum is None else (Scale(run.driver, case.engine, crew.wanted),)


def _why(case: Case, run: Run, crew: Crew, *, silent: bool) -> tuple[Ask | None, Trouble | None, tuple[Action, ...]]:
    """Why too few run, what to ask about that, and what can be done about it."""
    told = _told(crew)
    if told is not None or not silent:
        return None, told or _warned(case, crew.waiting), ()
    if crew.waiting:
        first = crew.waiting[0]
        return Ask("Pod", first.name, first.uid), _warned(case, crew.waiting), ()
    if case.engine is Engine.SPARK:
        return None, _REFUSED, ()
    return Ask("DaskCluster", run.driver), *_dask(case, run)


def _warned(case: Case, waiting: tuple[Worker, ...]) -> Trouble | None:
    return warned(case, waiting[0].uid) if waiting else None


_REFUSED = Trouble("ExecutorsRefused", "their pods are not created: a quota may be against it, the driver's log says")
"""A driver that has not a single executor, not even one that waits: nobody lets it create them."""


def _dask(case: Case, run: Run) -> tuple[Trouble | None, tuple[Action, ...]]:
    """Pods of a DaskCluster that are not there: who makes them is not, or may not, or somebody has deleted it."""
    if case.seen.refusal is not None:
        return Trouble(case.seen.refusal.reason, case.seen.refusal.message), ()
    cluster, name = case.seen.dask, run.driver
    if cluster is None:
        return None, ()
    if not cluster.there:
        gone = Trouble("Recreated", f"DaskCluster {name} was deleted: it is created once more")
        return gone, (Provide(run, case.engine),)
    if cluster.leaving:
        return Trouble("Stopping", f"DaskCluster {name} is being deleted: another one follows. {_OPERATOR}"), ()
    if not cluster.phase:
        return Trouble("DaskUnavailable", f"nobody has taken up DaskCluster {name}. {_OPERATOR}"), ()
    if cluster.phase == "Error":
        return Trouble("DaskUnavailable", f"the dask-kubernetes operator refuses DaskCluster {name}: {_LOG}"), ()
    return warned(case, "") or Trouble(
        "WorkersRefused", f"the dask-kubernetes operator creates no pods of DaskCluster {name}: {_LOG}"
    ), ()


_OPERATOR = "The dask-kubernetes operator has to run, and to watch this namespace (docs/dask.md)"
_LOG = "its log may say why"
