"""The pods of a run's driver, as far as reading their logs needs it. Pure."""

from __future__ import annotations

import re
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
    ended: bool
    """Its container has run, and writes no more."""
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
            ended="terminated" in state,
            waits=": ".join(text for text in (waiting.get("reason"), waiting.get("message")) if text),
        )


_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z ")


@dataclass(slots=True)
class Bookmark:
    """Up to where the log of a pod has been read, so that a stream that broke goes on where it was.

    The server is asked for lines from a second on; those of it that were read before are left out here.
    """

    since: str = ""
    """The second of the last line, as the server takes it; empty where nothing has been read."""
    done: bool = False
    """There is no more to come."""
    _last: tuple[str, str] = ("", "")
    _count: int = 0
    """Lines that were read of the last moment: several may be of one."""
    _again: int = 0
    """Lines of that moment that have come once more."""

    def begin(self) -> None:
        """The log is asked for anew."""
        self._again = 0

    def take(self, line: str) -> str | None:
        """A line without the time that stands before it; None where it has been read already.

        A line without a time is the kubelet's: that a container which was read to its end is gone is no news.
        """
        stamp = _STAMP.match(line)
        if stamp is None:
            return None if self.since else line
        at, text = (stamp[1], (stamp[2] or "").ljust(9, "0")), line[stamp.end() :]
        if at < self._last:
            return None
        if at > self._last:
            self.since, self._last, self._count, self._again = f"{at[0]}Z", at, 1, 1
            return text
        self._again += 1
        if self._again <= self._count:
            return None
        self._count += 1
        return text


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
