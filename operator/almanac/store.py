"""What the operator remembers of the cluster: each job as it was read last, and the facts of its drivers and pods.

Small on purpose: a job is kept as compressed JSON without what only others read, a pod as a few facts. An older version
of an object never replaces a newer one, whichever way it arrives. Touches no API.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from almanac import observed, troubles
from almanac.api import KINDS, JobStatus, Phase, Reason
from almanac.observed import Driver, Extract, Observed, Pod, Worker
from almanac.tolerant import tolerant

Raw = Mapping[str, Any]


class Key(NamedTuple):
    """A job."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class _Kept:
    version: int
    uid: str
    phase: str
    reason: str
    next: datetime | None
    """When its schedule is due, if it runs by one."""
    document: bytes
    reads: str = ""
    """Name of the ExtractJob that it reads from."""


@dataclass(frozen=True, slots=True)
class _Fact:
    namespace: str
    version: int
    fact: Driver | Pod | Worker


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a kind's objects that were known at some moment."""

    newest: int
    each: Mapping[str, int]
    """By uid: of objects that are there, and of those of any kind that are gone."""

    def are_after(self, page: Raw) -> bool:
        """Whether a page of a list that was asked for later is older: the cluster was restored from a backup."""
        listed = ((self.each.get(one["metadata"].get("uid", ""), 0), _version(one)) for one in page["items"])
        return 0 < _version(page) < self.newest or any(0 < version < known for known, version in listed)


GONE = 10_000
"""Objects whose end is remembered: more than can go while one answer of the API is under way."""


class Store:
    """Jobs, drivers and pods. Methods that change it return the key of the job that this concerns, if it is known."""

    def __init__(self) -> None:
        self._jobs: dict[Key, _Kept] = {}
        self._keys: dict[str, Key] = {}
        self._facts: dict[str, dict[str, _Fact]] = {"Job": {}, "Pod": {}}
        self._children: dict[str, set[tuple[str, str]]] = {}
        self._gone: dict[str, int] = {}
        """The versions at which objects went that are here no more: what was read of them before comes late."""

    def put(self, raw: Raw) -> Key | None:
        """Remember an object: a job, a driver or a pod; others are left out."""
        return self.put_job(raw) if raw.get("kind") in KINDS else self._put_fact(raw)

    def remove(self, raw: Raw) -> Key | None:
        """Forget an object that was deleted. What was read of it before, and arrives later, does not bring it back."""
        metadata = raw["metadata"]
        self._bury(metadata.get("uid", ""), _version(raw))
        if raw.get("kind") not in KINDS:
            return self._forget(raw.get("kind", ""), metadata.get("uid", ""))
        key = _key(raw)
        self.drop(key, metadata.get("uid", ""))
        return key

    def put_job(self, raw: Raw) -> Key | None:
        """Remember a job; None where this version, or a newer one, is known."""
        key, version = _key(raw), _version(raw)
        uid, kept = raw["metadata"].get("uid", ""), self._jobs.get(key)
        if self._is_stale(uid, version, kept):
            return None
        if kept is not None and kept.uid != uid:
            self._keys.pop(kept.uid, None)
        self._jobs[key] = _Kept(version, uid, *_standing(raw), _packed(raw), _reads(raw))
        self._keys[uid] = key
        return key

    def drop(self, key: Key, uid: str) -> None:
        """Forget a job, if it is the one of this uid still."""
        kept = self._jobs.get(key)
        if kept is not None and kept.uid == uid:
            del self._jobs[key]
            self._keys.pop(uid, None)

    def job(self, key: Key) -> dict[str, Any] | None:
        """A job's document as it was read last."""
        kept = self._jobs.get(key)
        return _unpacked(kept.document) if kept else None

    def knows(self, raw: Raw) -> bool:
        """Whether an object is remembered, in whatever version."""
        uid = raw["metadata"].get("uid", "")
        return uid in self._keys or any(uid in facts for facts in self._facts.values())

    def extract(self, key: Key) -> Extract | None:
        """The ExtractJob that a job reads from; None if there is none of the name that it gives."""
        kept = self._jobs.get(key)
        document = self.job(Key("ExtractJob", key.namespace, kept.reads)) if kept and kept.reads else None
        if document is None:
            return None
        status = tolerant(JobStatus, document.get("status")) or JobStatus()
        _, reason, _ = _standing(document)
        return Extract(str(status.phase or ""), status.result.uri if status.result else "", reason)

    def waiting(self, key: Key) -> list[Key]:
        """The jobs that read from an ExtractJob, and have yet to."""
        if key.kind != "ExtractJob":
            return []
        return [
            one
            for one, kept in self._jobs.items()
            if kept.reads == key.name and one.namespace == key.namespace and kept.phase in ("", Phase.PENDING)
        ]

    def jobs(self) -> tuple[Key, ...]:
        """Every job."""
        return tuple(self._jobs)

    def seen(self, uid: str) -> Observed:
        """What is there of the job of this uid."""
        facts = [self._facts[kind][one].fact for kind, one in self._children.get(uid, ())]
        return Observed(
            drivers=tuple(one for one in facts if isinstance(one, Driver)),
            pods=tuple(one for one in facts if isinstance(one, Pod)),
            workers=tuple(one for one in facts if isinstance(one, Worker)),
        )

    def versions(self, kind: str) -> Versions:
        """The versions of a kind that are known at this moment."""
        jobs = {kept.uid: kept.version for key, kept in self._jobs.items() if key.kind == kind}
        here = jobs | {uid: one.version for uid, one in self._facts.get(kind, {}).items()}
        return Versions(max(here.values(), default=0), self._gone | here)

    def keep_only(self, kind: str, namespace: str | None, uids: Iterable[str], version: int) -> set[Key]:
        """Forget what a complete list of a namespace (None: of all), read at `version`, does not have.

        Returns the jobs that this concerns. What is newer than the list stays.
        """
        listed = set(uids)
        touched: set[Key | None] = set()
        if kind in KINDS:
            for key, kept in list(self._jobs.items()):
                old = key.kind == kind and kept.version <= version and namespace in (None, key.namespace)
                if old and kept.uid not in listed:
                    self._bury(kept.uid, version)
                    self.drop(key, kept.uid)
            return set()
        for uid, one in list(self._facts[kind].items()):
            if uid not in listed and one.version <= version and namespace in (None, one.namespace):
                self._bury(uid, version)
                touched.add(self._forget(kind, uid))
        return {key for key in touched if key is not None}

    def keep_only_of(self, job: str, kind: str, uids: Iterable[str], version: int) -> None:
        """Forget drivers or pods of the job of this uid that a complete list of them, read at `version`, has not."""
        listed = set(uids)
        for one_kind, uid in list(self._children.get(job, ())):
            if one_kind == kind and uid not in listed and self._facts[kind][uid].version <= version:
                self._bury(uid, version)
                self._forget(kind, uid)

    def counts(self) -> dict[str, int]:
        """How many objects of each kind are remembered."""
        jobs = {kind: sum(key.kind == kind for key in self._jobs) for kind in KINDS}
        return jobs | {kind: len(facts) for kind, facts in self._facts.items()}

    def standings(self) -> dict[tuple[str, ...], float]:
        """How many jobs there are, by kind, phase and reason."""
        found = Counter((key.kind, kept.phase, kept.reason) for key, kept in self._jobs.items())
        return {labels: float(count) for labels, count in found.items()}

    def delays(self, now: datetime) -> dict[tuple[str, ...], float]:
        """How many seconds the schedule is late that is furthest behind, by kind; 0 where all are in time."""
        delays: dict[tuple[str, ...], float] = {(kind,): 0.0 for kind in KINDS}
        for key, kept in self._jobs.items():
            if kept.next is not None:
                delays[key.kind,] = max(delays[key.kind,], (now - kept.next).total_seconds())
        return delays

    def _put_fact(self, raw: Raw) -> Key | None:
        kind = raw.get("kind", "")
        fact = observed.driver(raw) if kind == "Job" else observed.pod(raw) if kind == "Pod" else None
        if fact is None:
            return None
        version, before = _version(raw), self._facts[kind].get(fact.uid)
        if self._is_stale(fact.uid, version, before):
            return None
        self._facts[kind][fact.uid] = _Fact(raw["metadata"].get("namespace", ""), version, fact)
        self._children.setdefault(fact.job_uid, set()).add((kind, fact.uid))
        same = before is not None and before.fact == fact
        return None if same else self._keys.get(fact.job_uid)

    def _bury(self, uid: str, version: int) -> None:
        """Remember that an object went at a version, and forget that of those which went long ago."""
        self._gone.pop(uid, None)
        self._gone[uid] = version
        if len(self._gone) > GONE:
            del self._gone[next(iter(self._gone))]

    def _is_stale(self, uid: str, version: int, known: _Kept | _Fact | None) -> bool:
        """Whether this version of an object, or a newer one, is known, or the object has gone since."""
        latest = max(known.version if known is not None else -1, self._gone.get(uid, -1))
        return bool(version) and version <= latest

    def _forget(self, kind: str, uid: str) -> Key | None:
        one = self._facts.get(kind, {}).pop(uid, None)
        if one is None:
            return None
        job = one.fact.job_uid
        children = self._children.get(job, set())
        children.discard((kind, uid))
        if not children:
            self._children.pop(job, None)
        return self._keys.get(job)


def version_of(raw: Raw) -> int:
    """The resourceVersion of an object or a list, as the number that it is since Kubernetes 1.35; 0 for another."""
    return _version(raw)


def _version(raw: Raw) -> int:
    text = raw["metadata"].get("resourceVersion", "")
    return int(text) if text.isdecimal() else 0


def _key(raw: Raw) -> Key:
    return Key(raw["kind"], raw["metadata"].get("namespace", ""), raw["metadata"]["name"])


def _standing(raw: Raw) -> tuple[str, str, datetime | None]:
    """Phase and reason of a job, and when its schedule is due: never for one that is suspended or not understood."""
    status = raw.get("status")
    if not isinstance(status, Mapping):
        return "", "", None
    conditions = status.get("conditions")
    told = [one for one in conditions if isinstance(one, Mapping)] if isinstance(conditions, list) else []
    phase = status.get("phase")
    phase = sys.intern(phase) if isinstance(phase, str) and phase in set(Phase) else ""
    reason = sys.intern(troubles.word(next((one.get("reason") for one in told if one.get("type") == "Ready"), ""), ""))
    waits = phase != Phase.SUSPENDED and reason != Reason.INVALID_SPEC
    return phase, reason, troubles.moment(status.get("nextScheduleTime")) if waits else None


def _reads(raw: Raw) -> str:
    found: Any = raw
    for step in ("spec", "source", "extract", "name"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else ""


_UNREAD = ("managedFields", "annotations", "labels", "selfLink", "ownerReferences", "finalizers")
"""Metadata that decides nothing."""


def _packed(raw: Raw) -> bytes:
    metadata = {name: value for name, value in raw["metadata"].items() if name not in _UNREAD}
    document = {name: raw[name] for name in ("apiVersion", "kind", "spec", "status") if name in raw}
    return zlib.compress(json.dumps(document | {"metadata": metadata}, separators=(",", ":")).encode(), 1)


def _unpacked(document: bytes) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(zlib.decompress(document))
    return read
