"""The pods of a run's driver, as far as reading their logs needs it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from almanac import names
from almanac.client.errors import ClientError, NotFoundError, UnreachableError
from almanac.client.records import JobRecord

CONTAINER = names.CONTAINER


@dataclass(frozen=True, slots=True)
class DriverPod:
    """One attempt of a driver."""

    name: str
    uid: str
    created: str
    started: bool
    """Its container runs or has run: it may have written something."""
    waits: str
    """What keeps its container from starting."""

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> DriverPod:
        """The pod of an object of the API."""
        metadata, status = raw["metadata"], raw.get("status") or {}
        states = [one for one in status.get("containerStatuses") or () if one.get("name") == CONTAINER]
        state = states[0].get("state") or {} if states else {}
        scheduled = [one for one in status.get("conditions") or () if one.get("type") == "PodScheduled"]
        waiting = state.get("waiting") or (scheduled[0] if scheduled and scheduled[0].get("status") != "True" else {})
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            created=metadata.get("creationTimestamp", ""),
            started="running" in state or "terminated" in state,
            waits=": ".join(text for text in (waiting.get("reason"), waiting.get("message")) if text),
        )


def run_of(record: JobRecord) -> str:
    """The id of a job's present run; empty if it has had none."""
    return record.status.run.id if record.status.run else ""


def selector(record: JobRecord, run: str) -> str:
    """What chooses the pods of one run."""
    return f"{names.job_selector(record.uid)},{names.RUN}={run}"


def no_logs(record: JobRecord, run: str | None, found: Collection[DriverPod]) -> ClientError:
    """Why there is nothing to read."""
    job, asked = record.reference, run or run_of(record)
    if not asked:
        return NotFoundError(f"{job} has had no run yet, its phase is {record.status.phase or 'none'}")
    if waiting := [pod for pod in found if not pod.started]:
        why = f": {waiting[-1].waits}" if waiting[-1].waits else ""
        return UnreachableError(f"pod {waiting[-1].name} of {job} has not started{why}")
    known = {one.id for one in (record.status.run, *record.status.history) if one}
    if asked not in known:
        choice = f": there are {', '.join(sorted(known, reverse=True))}" if known else ""
        return NotFoundError(f"{job} knows of no run {asked}{choice}")
    if record.finished or asked != run_of(record):
        return NotFoundError(f"the pods of run {asked} are gone: spec.ttlSecondsAfterFinished says how long they stay")
    return UnreachableError(f"run {asked} of {job} has no pod yet: {record.reason}: {record.message}")
