"""What a decision about a job depends on, and what it comes to. Pure values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from almanac import runs, workers
from almanac.api import Engine, Job, JobStatus, Phase, Run
from almanac.decision import Action, Ask, Delete
from almanac.observed import Driver, Observed
from almanac.runs import Due


@dataclass(frozen=True, slots=True)
class Case:
    """All that a decision depends on."""

    job: Job
    before: JobStatus
    run: Run | None
    engine: Engine
    seen: Observed
    now: datetime
    due: Due
    engines: Collection[Engine]

    @property
    def driver(self) -> Driver | None:
        """The driver of the present run."""
        return self.seen.named(self.run.driver) if self.run else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a case comes to: where the job stands, why, and what is to be done."""

    phase: Phase
    reason: str
    message: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the status besides the phase and its conditions."""
    actions: tuple[Action, ...] = ()
    requeue: datetime | None = None
    ask: Ask | None = None
    warning: bool = False
    look: bool = False


LOOK = Verdict(Phase.PENDING, "", "", look=True)
"""More must be known first."""

NO_PROGRESS: dict[str, Any] = {"progress": "", "stage": "", "done": None, "total": None, "workers": None}
"""The progress of a run that has none."""


def over(case: Case, run: Run, reason: str, message: str, end: datetime | None = None) -> Verdict:
    """The run has failed. Its driver, if it has one, is deleted once that is on record; without one, the rest is."""
    end = end or second(case.now)
    rest = () if case.driver else (Delete(run.driver, case.engine),)
    past = runs.over(run, Phase.FAILED, reason, end)
    changes = {
        "run": run.model_copy(update={"end_time": end}),
        "history": runs.remembered(case.before.history, past),
        "workers": workers.over(case.before.workers),
    }
    return Verdict(Phase.FAILED, reason, message, changes, rest, requeue=case.now)


def second(time: datetime) -> datetime:
    """A time as the API keeps it."""
    return time.replace(microsecond=0)
