"""Warning events of a namespace, read once for all jobs in there that do not come on.

A look at the events of one object costs an API server as much as one at all of its namespace: it goes through every
event there is. Thousands of jobs that wait, each asking for itself, keep it busy with that alone, and wait the longer.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from almanac.cluster import WARNINGS, ApiError, Cluster
from almanac.observed import Warned, warning

FRESH = 2.0
"""Seconds that what was read is good for, at least."""
SHARE = 20.0
"""It is good for so many times as long as it took to read: the API server is busy with it a twentieth of the time."""
KEPT = 300.0
"""Seconds after which what was read of a namespace is forgotten."""


@dataclass
class _Read:
    """What was read of a namespace, and until when (of the clock) it is good for."""

    until: float = float("-inf")
    by_uid: dict[str, list[Warned]] = field(default_factory=dict)
    of_replica_sets: list[tuple[str, Warned]] = field(default_factory=list)
    """With the name of each ReplicaSet."""
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Warnings:
    """Asks for warning events; `clock` gives seconds."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._read: defaultdict[str, _Read] = defaultdict(_Read)

    async def about(self, namespace: str, uid: str) -> tuple[Warned, ...]:
        """Those about an object; none where the operator may not read events.

        Raises:
            ApiError: the API does not answer.
        """
        return tuple((await self._of(namespace)).by_uid.get(uid, ()))

    async def about_replica_sets(self, namespace: str, prefix: str) -> tuple[Warned, ...]:
        """Those about ReplicaSets whose names begin so; none where the operator may not read events.

        Raises:
            ApiError: the API does not answer.
        """
        found = (await self._of(namespace)).of_replica_sets
        return tuple(one for name, one in found if name.startswith(prefix))

    async def _of(self, namespace: str) -> _Read:
        read = self._read[namespace]
        async with read.reading:
            begun = self._clock()
            if begun >= read.until:
                await self._fill(read, namespace)
                ended = self._clock()
                read.until = ended + max(FRESH, SHARE * (ended - begun))
                self._forget(ended)
        return read

    async def _fill(self, read: _Read, namespace: str) -> None:
        by_uid: dict[str, list[Warned]] = {}
        of_replica_sets = []
        try:
            async for page in self._cluster.list(WARNINGS, namespace, fieldSelector="type=Warning"):
                for raw in page["items"]:
                    found, about = warning(raw), raw.get("involvedObject") or {}
                    if found is None:
                        continue
                    by_uid.setdefault(found.about, []).append(found)
                    if about.get("kind") == "ReplicaSet":
                        of_replica_sets.append((about.get("name", ""), found))
        except ApiError as error:
            if error.code != 403:
                raise
        read.by_uid, read.of_replica_sets = by_uid, of_replica_sets

    def _forget(self, now: float) -> None:
        old = [one for one, read in self._read.items() if now > read.until + KEPT and not read.reading.locked()]
        for namespace in old:
            del self._read[namespace]
