"""A phase as conditions: Complete, Failed and Suspended as a batch/v1 Job has them, the others as kstatus reads them.

All six are always there, so that nobody waits on one that is missing. kstatus takes `Ready=False` for work in progress;
`Stalled=True` is what tells it, Flux and Argo CD that a job has failed for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from almanac.api import Condition, ConditionStatus, JobStatus, Phase
from almanac.decision import Event
from almanac.troubles import plain

TYPES = ("Complete", "Failed", "Suspended", "Ready", "Reconciling", "Stalled")

HOLD: dict[Phase, frozenset[str]] = {
    Phase.PENDING: frozenset({"Reconciling"}),
    Phase.RUNNING: frozenset({"Reconciling"}),
    Phase.SUSPENDED: frozenset({"Suspended"}),
    Phase.SUCCEEDED: frozenset({"Complete", "Ready"}),
    Phase.FAILED: frozenset({"Failed", "Stalled"}),
}
"""The conditions that hold in each phase; the others do not."""


def conditions(
    phase: Phase, reason: str, message: str, *, before: tuple[Condition, ...], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions of a phase. One that says what it said before keeps the time of its last transition."""
    known = {one.type: one for one in before}
    return tuple(_condition(kind, phase, reason, message, known.get(kind), generation, now) for kind in TYPES)


def _condition(
    kind: str, phase: Phase, reason: str, message: str, before: Condition | None, generation: int, now: datetime
) -> Condition:
    status = ConditionStatus.TRUE if kind in HOLD[phase] else ConditionStatus.FALSE
    since = before.last_transition_time if before is not None and before.status is status else None
    told = kind == "Ready" or status is ConditionStatus.TRUE
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message if told else "",
        last_transition_time=since or now.replace(microsecond=0),
        observed_generation=generation,
    )


def ready(before: tuple[Condition, ...]) -> Condition | None:
    """The condition that says in one word and one sentence where the job stands."""
    return next((one for one in before if one.type == "Ready"), None)


def standing(
    before: JobStatus,
    generation: int,
    phase: Phase,
    reason: str,
    message: str,
    now: datetime,
    changes: Mapping[str, Any] | None = None,
) -> JobStatus:
    """A status with a phase, all its conditions, and the other fields that have changed."""
    told = conditions(phase, reason, message, before=before.conditions, generation=generation, now=now)
    changed = {"observed_generation": generation, "phase": phase, "conditions": told, **(changes or {})}
    return before.model_copy(update=changed)


def transition(before: JobStatus, after: JobStatus, *, warning: bool = False) -> tuple[Event, ...]:
    """The event of a transition; none where the job stands as it stood."""
    old, new = ready(before.conditions), ready(after.conditions)
    where = (before.phase, old.reason if old else None, before.run.id if before.run else None)
    if new is None or where == (after.phase, new.reason, after.run.id if after.run else None):
        return ()
    kind: Literal["Normal", "Warning"] = "Warning" if warning or after.phase is Phase.FAILED else "Normal"
    return (Event(kind, new.reason, plain(new.message)),)
