"""A phase as conditions: Complete, Failed and Suspended as a batch/v1 Job has them, the others as kstatus reads them.

All six are always there, so that nobody waits on one that is missing. kstatus takes `Ready=False` for work in progress;
`Stalled=True` is what tells it, Flux and Argo CD that a job has failed for good.
"""

from __future__ import annotations

from datetime import datetime

from almanac.api import Condition, ConditionStatus, Phase

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
    changed = before is None or before.status is not status or before.last_transition_time is None
    told = kind == "Ready" or status is ConditionStatus.TRUE
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message if told else "",
        last_transition_time=now.replace(microsecond=0) if changed or not before else before.last_transition_time,
        observed_generation=generation,
    )


def ready(before: tuple[Condition, ...]) -> Condition | None:
    """The condition that says in one word and one sentence where the job stands."""
    return next((one for one in before if one.type == "Ready"), None)
