"""What the operator writes into a job's status."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from almanac.api.common import Count, Engine, Time
from almanac.api.model import Model
from almanac.api.report import Result


class Phase(StrEnum):
    """Where a job stands, in one word."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Trigger(StrEnum):
    """What started a run."""

    SPEC = "Spec"
    """The job is new, or its spec has changed."""
    RESTART = "Restart"
    """restartNonce has changed."""
    SCHEDULE = "Schedule"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One aspect of the job's state, as Kubernetes writes them."""

    type: str
    """Complete, Failed, Suspended, Ready, Reconciling or Stalled."""
    status: ConditionStatus
    """Whether the condition holds."""
    reason: str = ""
    """Why, in one CamelCase word."""
    message: str = ""
    """Why, in a sentence for a person."""
    last_transition_time: Time | None = None
    """When the status of this condition changed last."""
    observed_generation: Count | None = None
    """Generation of the job that this condition speaks of."""


class Run(Model):
    """One execution of the job."""

    id: str
    """Id of the run: its start, and a hash of the job."""
    number: Count | None = None
    """Runs of this job so far, this one included."""
    trigger: Trigger | None = None
    """What started it."""
    spec_hash: str = ""
    """Hash of what it computes."""
    restart_nonce: Count | None = None
    """restartNonce of the job when it began."""
    source: str = ""
    """Folder of the run of its ExtractJob that it reads, where it reads one."""
    attempts: Count | None = None
    """How often its driver was started."""
    driver: str = ""
    """Name of its driver, a batch/v1 Job."""
    start_time: Time | None = None
    """When it began."""
    end_time: Time | None = None
    """When it ended."""


class PastRun(Run):
    """One finished execution of the job."""

    phase: Phase | None = None
    """How it ended: Succeeded or Failed."""
    reason: str = ""
    """Why, in one CamelCase word."""
    uri: str = ""
    """Folder of its results, if it has any."""


class Workers(Model):
    """The pods that compute for the driver of a run on a cluster: executors of Spark, workers of Dask."""

    ready: str = ""
    """How many run, of how many that there are to be: 3/4."""
    wanted: Count | None = None
    """How many there are to be, at the moment."""
    running: Count | None = None
    """How many run."""
    failed: Count | None = None
    """How many have failed so far, and were replaced or started again."""
    short_since: Time | None = None
    """Since when too few run to go on with: none on Spark, fewer than the least number on Dask."""
    message: str = ""
    """How the last one ended that has failed."""


class JobStatus(Model):
    """What happened, written by the operator."""

    observed_generation: Count | None = None
    """Generation of the job that this status speaks of."""
    phase: Phase | None = None
    """Pending, Running, Suspended, Succeeded or Failed."""
    engine: Engine | None = None
    """What the run computes on: what auto became."""
    engine_reason: str = ""
    """Why on this engine: what footers and memory said, once the run has told."""
    progress: str = ""
    """How much of the present stage is done: 62%."""
    stage: str = ""
    """What the run is doing."""
    done: Count | None = None
    """Units of the stage that are done."""
    total: Count | None = None
    """Units of the stage."""
    workers: Workers | None = None
    """Executors of a run on Spark, workers of one on Dask, while it lasts; of one that failed, how they were."""
    run: Run | None = None
    """The present run, or the last one."""
    result: Result | None = None
    """What the last complete run has written."""
    history: tuple[PastRun, ...] = ()
    """The last few finished runs, newest first."""
    next_schedule_time: Time | None = None
    """When the schedule starts a run next."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = ()
    """Complete, Failed, Suspended as a batch/v1 Job has them; Ready, Reconciling, Stalled as kstatus reads them."""
