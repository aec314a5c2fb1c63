"""What the operator calls its objects: labels, annotations, selectors, and names that follow from job and run alone.

The names of a run's children are a function of the job's uid and the run's number. An operator that died after it had
created them finds them again by their labels, and one that creates them twice is told that they exist.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

NAME = "app.kubernetes.io/name"
MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
KIND = "almanac.dev/kind"
JOB = "almanac.dev/job"
JOB_UID = "almanac.dev/job-uid"
RUN = "almanac.dev/run"
RUN_NUMBER = "almanac.dev/run-number"
ENGINE = "almanac.dev/engine"

SPEC_HASH = "almanac.dev/spec-hash"
"""Annotation: hash of what the run computes."""
TRIGGER = "almanac.dev/trigger"
"""Annotation: what started the run."""
RESTART_NONCE = "almanac.dev/restart-nonce"
"""Annotation: restartNonce of the job when the run began."""
ATTEMPT = "almanac.dev/attempt"
"""Annotation: 1 on the first driver of a run, 2 on the one that replaced it."""
SOURCE = "almanac.dev/source"
"""Annotation: folder of the run of an ExtractJob that the run reads."""
SUSPENDED = "almanac.dev/suspended"
"""Annotation: "true" on a driver that the operator suspended, and which nobody else should wake."""

ALMANAC = "almanac"
DRIVER = "driver"
EXECUTOR = "executor"
SCHEDULER = "scheduler"
WORKER = "worker"

CONTAINER = "almanac"
"""Name of the container that computes, in every pod of a run: what spec.podTemplate merges with."""

SELECTOR = f"{MANAGED_BY}={ALMANAC}"
"""Everything that the operator has created."""
DRIVER_SELECTOR = f"{SELECTOR},{COMPONENT}={DRIVER}"
"""Drivers: what the operator watches besides jobs and pods."""
POD_SELECTOR = f"{SELECTOR},{COMPONENT} in ({DRIVER},{EXECUTOR},{SCHEDULER},{WORKER})"
"""Pods of drivers, and those that compute for them: executors on Spark, scheduler and workers on Dask."""

LABEL_LENGTH = 63
CHILD_LENGTH = 52
"""The Job controller adds a hyphen and five characters for pods, and more for indexed ones."""
_SUFFIX_LENGTH = 6


def job_selector(uid: str) -> str:
    """Drivers of one job, and their pods."""
    return f"{DRIVER_SELECTOR},{JOB_UID}={uid}"


def job_pod_selector(uid: str) -> str:
    """Pods of one job: its drivers', and those that compute for them."""
    return f"{POD_SELECTOR},{JOB_UID}={uid}"


def token(uid: str, number: int) -> str:
    """Six hexadecimal digits that tell the runs of all jobs apart."""
    return hashlib.sha256(f"{uid}:{number}".encode()).hexdigest()[:6]


def run_id(start: datetime, uid: str, number: int) -> str:
    """The id of a run: `20261121-021500-3f9a2c`, in UTC, so that ids sort as runs began."""
    return f"{start.astimezone(UTC):%Y%m%d-%H%M%S}-{token(uid, number)}"


def run_start(run: str) -> datetime | None:
    """When a run of this id began; None for what is not an id."""
    match = re.fullmatch(r"([0-9]{8}-[0-9]{6})-[0-9a-f]{6}", run)
    try:
        return datetime.strptime(match[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC) if match else None
    except ValueError:
        return None


def child_name(job: str, uid: str, number: int, suffix: str = "") -> str:
    """The name of a run's driver and of all that goes with it: `ledger-3f9a2c`, a DNS label that begins with a letter.

    `suffix` tells the driver that a run moved to from the one that it began with: `ledger-3f9a2c-spark`.
    """
    end = f"-{token(uid, number)}" + (f"-{suffix}" if suffix else "")
    letter = "" if job[0].isalpha() else "run-"  # names of Services begin with one
    slug = f"{letter}{job}".replace(".", "-")[: CHILD_LENGTH - len(end)].strip("-")
    return f"{slug}{end}"


def label(value: str) -> str:
    """A name as the value of a label: itself where it fits, else cut, with a hash that keeps it apart from others."""
    if len(value) <= LABEL_LENGTH:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:_SUFFIX_LENGTH]
    return f"{value[: LABEL_LENGTH - _SUFFIX_LENGTH - 1].rstrip('-.')}-{digest}"
