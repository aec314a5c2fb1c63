"""Who of several operators acts: the one that holds a Lease (coordination.k8s.io), renewed as long as it lives.

The rules are those of Kubernetes' own controllers. Times are measured by our clock alone, from the moment that a change
of the Lease was seen: clocks of different machines are not compared. Two operators that act at once, for a moment, do
no harm: names of what they create follow from job and run, and a status is written only over the version that was read.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from almanac.cluster import LEASES, ApiError, Cluster
from almanac.store import version_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. What others wait for, when we give up, how often we write."""

    duration: int = 15
    """A Lease that was not renewed for this long may be taken."""
    deadline: float = 10.0
    """A leader that could not renew for this long stops to act: well before another begins."""
    interval: float = 3.0
    """Time between two looks at the Lease."""


class Election:
    """Takes part in an election until it is cancelled."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, identity: str, timing: Timing | None = None
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._timing = timing or Timing()
        self._lease: dict[str, Any] | None = None
        self._record: tuple[object, ...] = ()
        self._changed = 0.0
        self._version = 0
        self._outdated = False
        self.leading = False

    async def run(self, won: Callable[[], None], lost: Callable[[], None], older: Callable[[], None]) -> None:
        """Call `won` when this operator becomes the leader, and `lost` when it is no longer.

        `older` is called when the Lease is older than it was: the cluster was restored from a backup.
        """
        renewed = time.monotonic()
        while True:
            asked = time.monotonic()
            try:
                async with asyncio.timeout(self._timing.deadline / 2):
                    held: bool | None = await self._try()
            except (ApiError, TimeoutError) as error:
                log.warning("lease %s/%s: %s", self._namespace, self._name, str(error) or "no answer in time")
                held = None
            if self._outdated:
                older()
            if held:
                renewed = asked
            expired = time.monotonic() - renewed > self._timing.deadline
            if held and not self.leading:
                log.info("leading")
                self.leading = True
                won()
            elif self.leading and (held is False or expired):
                log.warning("no longer leading")
                self.leading = False
                lost()
            await asyncio.sleep(self._timing.interval * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load

    async def release(self) -> None:
        """Let another operator lead at once."""
        if not self.leading or self._lease is None:
            return
        self.leading = False
        spec = self._lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        with suppress(ApiError, TimeoutError):
            document = self._lease | {"spec": spec}
            async with asyncio.timeout(5):
                await self._cluster.replace(LEASES, self._namespace, self._name, document)
            log.info("released the lease")

    async def _try(self) -> bool:
        """Whether we hold the Lease now."""
        try:
            if self._lease is None or not self.leading:
                self._saw(await self._cluster.get(LEASES, self._namespace, self._name))
            if not self._free():
                return False
            self._saw(await self._cluster.replace(LEASES, self._namespace, self._name, self._claim()))
        except ApiError as error:
            if error.gone:
                return await self._create()
            if error.conflict:
                return await self._again()
            raise
        return True

    async def _again(self) -> bool:
        """Somebody has written the Lease since we read it; if we lead, that may have been our own lost answer."""
        self._saw(await self._cluster.get(LEASES, self._namespace, self._name))
        return self.leading and self._holder() == self._identity

    async def _create(self) -> bool:
        metadata = {"name": self._name, "namespace": self._namespace}
        document = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}
        self._lease = document
        try:
            self._saw(await self._cluster.post(LEASES, self._namespace, self._claim()))
        except ApiError as error:
            if error.conflict:
                return False
            raise
        return True

    def _saw(self, lease: dict[str, Any]) -> None:
        version = version_of(lease)
        self._outdated = self._outdated or 0 < version < self._version
        self._version = version
        spec = lease.get("spec") or {}
        record = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._record:
            self._record, self._changed = record, time.monotonic()
        self._lease = lease | {"spec": spec}

    def _holder(self) -> str:
        return ((self._lease or {}).get("spec") or {}).get("holderIdentity") or ""

    def _free(self) -> bool:
        """Whether we may write ourselves into it: it is ours, nobody's, or was not renewed in time."""
        if self._holder() in ("", self._identity):
            return True
        duration = (self._lease or {})["spec"].get("leaseDurationSeconds") or self._timing.duration
        return time.monotonic() - self._changed > duration

    def _claim(self) -> dict[str, Any]:
        lease = self._lease or {}
        before, now = lease.get("spec") or {}, _now()
        same = before.get("holderIdentity") == self._identity
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._timing.duration,
            "acquireTime": before.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": (before.get("leaseTransitions") or 0) + (0 if same else 1),
        }
        return lease | {"spec": spec}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
