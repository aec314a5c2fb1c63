"""What the operator has to be allowed, and what of it it is not: the API is asked, not tried.

Rights that only some runs need are not asked for (Spark, Dask, events): who has no use for them does not grant them,
and a run that needs one says so itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from almanac.cluster import CONFIG_MAPS, DRIVERS, JOBS, LEASES, PODS, ApiError, Cluster, Resource
from almanac.settings import Settings

log = logging.getLogger(__name__)

CHECK_EVERY = 60.0
"""Seconds between two questions what is allowed, as long as something is not."""


class Right(NamedTuple):
    """A verb for a kind of object, in a namespace or (None) in all; for the one object of a name, if there is one."""

    verb: str
    resource: Resource
    namespace: str | None
    subresource: str = ""
    name: str = ""

    @property
    def object(self) -> str:
        """What it is about, as kubectl names it: anomalyjobs.almanac.dev/status."""
        kind = f"{self.resource.plural}.{self.resource.group}".rstrip(".")
        return f"{kind}/{self.subresource}" if self.subresource else kind


_NEEDED: tuple[tuple[Resource, str, tuple[str, ...]], ...] = (
    *((one, "", ("get", "list", "watch")) for one in JOBS.values()),
    *((one, "status", ("patch",)) for one in JOBS.values()),
    (DRIVERS, "", ("list", "watch", "create", "patch", "delete")),
    (CONFIG_MAPS, "", ("create", "delete")),
    (PODS, "", ("list", "watch")),
)


def needed(settings: Settings) -> tuple[Right, ...]:
    """The rights without which an operator with these settings cannot do its work."""
    rights = [
        Right(verb, resource, namespace, subresource)
        for namespace in settings.namespaces or (None,)
        for resource, subresource, verbs in _NEEDED
        for verb in verbs
    ]
    if settings.lease:
        rights.append(Right("create", LEASES, settings.namespace))
        rights += [Right(verb, LEASES, settings.namespace, name=settings.lease) for verb in ("get", "update")]
    return tuple(rights)


def told(rights: Iterable[Right]) -> str:
    """Rights that are missing, in a line: what, where, and what to do."""
    verbs: dict[tuple[str, str | None], list[str]] = {}
    for one in rights:
        verbs.setdefault((one.object, one.namespace), []).append(one.verb)
    places: dict[tuple[str, str], list[str | None]] = {}
    for (kind, namespace), which in verbs.items():
        places.setdefault((", ".join(which), kind), []).append(namespace)
    lines = [f"{which} {kind} in {_places(where)}" for (which, kind), where in places.items()]
    return f"this operator may not {'; '.join(lines)}: {_DO}"


_DO = (
    "upgrade the chart, whose Roles grant it (rbac.create), or grant it yourself "
    "(docs/operator.md, What it may do), and watch no namespace that is gone (watch.namespaces)"
)


def left_alone(namespaces: Sequence[str]) -> str:
    """Namespaces in which nothing is granted, in a line: which, and what to do."""
    return (
        f"this operator may do nothing in {_places(namespaces)}, and goes on with the others: "
        "create what is gone again and upgrade the chart, or watch it no more (watch.namespaces)"
    )


def _places(namespaces: Sequence[str | None]) -> str:
    if None in namespaces:
        return "all namespaces"
    named = ", ".join(str(one) for one in namespaces[:5])
    more = f" and {len(namespaces) - 5} more" if len(namespaces) > 5 else ""
    return f"namespace{'s' if len(namespaces) > 1 else ''} {named}{more}"


class Rights:
    """The rights that an operator needs, and which of them it lacks, as far as is known."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._needed = needed(settings)
        self._namespaces = settings.namespaces
        self.missing: tuple[Right, ...] = ()

    @property
    def closed(self) -> tuple[str, ...]:
        """Namespaces in which nothing is granted, while something is in others: most often those that were deleted."""
        open_ = {one.namespace for one in {*self._needed} - {*self.missing} if one.resource is not LEASES}
        found = tuple(one for one in self._namespaces if one not in open_)
        return found if len(found) < len(self._namespaces) else ()

    @property
    def obstacle(self) -> str:
        """The rights without which the operator does not do its work, in a line; empty if it has them.

        One team's namespace that was deleted, and took its Role with it, is no obstacle to the runs of all others.
        """
        closed = self.closed
        found = [one for one in self.missing if one.namespace not in closed or one.resource is LEASES]
        return told(found) if found else ""

    async def mind(self) -> None:
        """Ask again whenever the API has forbidden something, and as long as a right is missing."""
        while True:
            if not self.missing:
                await self._cluster.forbidden.wait()
            self._cluster.forbidden.clear()
            try:
                await self.check()
            except ApiError as error:
                log.warning("rights: %s", error)
                self._cluster.forbidden.set()
            await asyncio.sleep(CHECK_EVERY)

    async def check(self) -> None:
        """Ask which rights are missing, and say so where that is new. Where nobody may ask, none is taken to be.

        Raises:
            ApiError: the API does not answer.
        """
        missing: list[Right] = []
        for _, some in groupby(self._needed, key=lambda one: one.namespace):
            rights = list(some)
            try:
                granted = await asyncio.gather(*map(self._granted, rights))
            except ApiError as error:
                if error.code not in (403, 404):
                    raise
                log.warning("which rights are missing cannot be asked for: %s", error)
                self._needed, missing = (), []
                break
            missing += [one for one, has in zip(rights, granted, strict=True) if not has]
        before, self.missing = self.missing, tuple(missing)
        if self.missing == before:
            return
        if self.obstacle:
            log.error("%s", self.obstacle)
        if self.closed:
            log.error("%s", left_alone(self.closed))
        if not self.missing:
            log.info("no right is missing any more")

    def blind(self, path: str) -> bool:
        """Whether what is at this path of the API cannot be listed or watched."""
        unread = [one for one in self.missing if one.verb in ("list", "watch")]
        return any(one.resource.path(one.namespace) == path for one in unread)

    async def _granted(self, right: Right) -> bool:
        attributes = {"verb": right.verb, "resource": right.resource.plural, "group": right.resource.group}
        given = {"namespace": right.namespace, "subresource": right.subresource, "name": right.name}
        return await self._cluster.allows(attributes | {name: value for name, value in given.items() if value})
