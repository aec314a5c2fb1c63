"""What the operator may do about a job, as values: actions, events, and the decision that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from almanac.api import Engine, JobStatus, Run

SCHEDULE_SKIPPED = "ScheduleSkipped"
"""Reason of the event that says which run of a schedule was left out."""


@dataclass(frozen=True, slots=True)
class Create:
    """Create all of a run's manifests for an engine. Those of this run that exist already are fine."""

    run: Run
    engine: Engine


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the driver of this name, its pods, and what its engine has created with it under the same name.

    Where no driver of that name was seen, only the rest is: a Job that has the name may be somebody else's.
    """

    driver: str
    engine: Engine = Engine.LOCAL


@dataclass(frozen=True, slots=True)
class Suspend:
    """Suspend a driver and mark it as suspended by the operator (`almanac.names.SUSPENDED`), or undo both."""

    driver: str
    suspend: bool


@dataclass(frozen=True, slots=True)
class Provide:
    """Create what a run's driver computes with, once more: its manifests without the driver. Those there are fine."""

    run: Run
    engine: Engine


@dataclass(frozen=True, slots=True)
class Release:
    """Delete the cluster that a driver computes with, which would otherwise outlast it. The driver is left alone."""

    driver: str
    engine: Engine


@dataclass(frozen=True, slots=True)
class Scale:
    """Have so many workers in the cluster that a driver computes with."""

    driver: str
    engine: Engine
    workers: int


Action = Create | Delete | Suspend | Provide | Release | Scale


@dataclass(frozen=True, slots=True)
class Event:
    """What `kubectl describe` shows of a transition."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Ask:
    """An object that does not come on, and does not say why: warning events about it would.

    Of a DaskCluster, which nobody watches, it is asked besides whether it is there (`Observed.dask`). The events are
    those about its pods that nobody may create, under its own uid: empty, since nobody knows it.
    """

    kind: Literal["Job", "Pod", "DaskCluster"]
    name: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now: the actions in their order, then the status.

    Where `look` or `ask` is set, more must be known first: learn it, and decide again.
    """

    status: JobStatus
    actions: tuple[Action, ...] = ()
    requeue: datetime | None = None
    """When to decide again, even if nothing happens. Not after now: at once, with the status as it was written."""
    events: tuple[Event, ...] = ()
    """One for each transition, to be sent once the status is written."""
    look: bool = False
    """Something is missing. Read the job, its drivers and pods from the API, and decide again with `Observed.live`."""
    ask: Ask | None = None
    """Read the warning events about this object, and decide again with them as `Observed.warnings`."""
