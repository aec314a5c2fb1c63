"""What happens in the cluster, told to a listener: the only module that imports kopf, for its watches alone.

Three kinds of watch: jobs, drivers and pods, the last two by label at the server. Only `on.event` is used, and nothing
else of kopf: no annotation and no finalizer of its own is ever written to anybody's object.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Protocol, cast

import aiohttp
import kopf

from almanac import names, nesting
from almanac.cluster import DRIVERS, JOBS, PAGE, PODS, Answer, Cluster, Resource

SILENCE = 70.0
"""Seconds without an event or a bookmark after which a watch is opened anew. Servers send a bookmark every minute."""
LIFETIME = 290
"""Seconds that a server is asked to serve a watch for."""
DEAD = 4 * SILENCE
"""Seconds without an event, a bookmark or a list after which a watch counts as dead."""

WATCHED: tuple[Resource, ...] = (*JOBS.values(), DRIVERS, PODS)


class Listener(Protocol):
    """Who is told what happens."""

    def changed(self, raw: dict[str, Any], *, listed: bool) -> None:
        """An object is there, or is different; `listed` where a list had it, with which a watch begins."""

    def deleted(self, raw: dict[str, Any]) -> None:
        """An object is there no more."""


class Pulse:
    """When each watch has heard from the server last: events, bookmarks and lists count, a mere connection does not."""

    def __init__(self, namespaces: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        within = tuple(namespaces) or (None,)
        start = clock()
        self._heard = {one.path(namespace): start for one in WATCHED for namespace in within}

    def beat(self, path: str) -> None:
        """Something was heard at this path of the API."""
        if path in self._heard:
            self._heard[path] = self._clock()

    def ages(self) -> dict[str, float]:
        """Seconds since each watch has heard something, by its path."""
        now = self._clock()
        return {path: now - heard for path, heard in self._heard.items()}

    def dead(self) -> list[str]:
        """The watches that have heard nothing for too long."""
        return [path for path, age in self.ages().items() if age > DEAD]

    def response(self) -> type[aiohttp.ClientResponse]:
        """A class of responses that report to this pulse."""
        beat = self.beat

        class Heard(Answer):
            async def read(self) -> bytes:
                content = await super().read()
                if self.status == 200:
                    beat(self.url.path)
                return content

            async def start(self, connection: Any) -> aiohttp.ClientResponse:
                await super().start(connection)
                if self.status == 200 and "watch" in self.url.query:
                    self.content: Any = _Stream(self.content, lambda: beat(self.url.path), cut=self.of_jobs)
                return self

        return Heard


class _Stream:
    """The content of a watch, which tells of every chunk that arrives, and cuts what is nested too deeply."""

    def __init__(self, content: aiohttp.StreamReader, heard: Callable[[], None], *, cut: bool) -> None:
        self._content = content
        self._heard = heard
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        line = bytearray()
        async for chunk in self._content.iter_chunked(size):
            self._heard()
            if not self._cut:
                yield chunk
                continue
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                yield nesting.cut(bytes(line + end)) + b"\n"
                line.clear()
            line += rest


class _Backoffs:
    """Times between attempts, without an end: an outage of the API ends some day."""

    def __iter__(self) -> Iterator[float]:
        longest = 1.0
        while True:
            yield longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
            longest = min(30.0, longest * 2)


async def watch(cluster: Cluster, namespaces: tuple[str, ...], listener: Listener, pulse: Pulse) -> None:
    """Watch until a signal asks the process to stop."""
    await kopf.operator(
        registry=_registry(cluster, listener, pulse),
        settings=_settings(),
        standalone=True,
        identity=cast(Any, "almanac"),  # kopf would ask for the user's name: in containers, users have none
        clusterwide=not namespaces,
        namespaces=namespaces,
    )


class _NoMemory(kopf.DiffBaseStorage):
    """Keeps nothing of an object to compare it with later: kopf copies each in full for that, at most of its cost."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        """The part of an object that is compared: none."""
        return {}

    def fetch(self, *, body: Any) -> None:
        """What was kept: nothing."""

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        """Keeps nothing."""


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.process.ultimate_exiting_timeout = None  # the process may outlive these watches, and begin others
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = LIFETIME
    settings.watching.inactivity_timeout = SILENCE
    settings.watching.chunk_size = PAGE
    settings.watching.label_selectors[DRIVERS.group, DRIVERS.version, DRIVERS.plural] = names.DRIVER_SELECTOR
    settings.watching.label_selectors[PODS.group, PODS.version, PODS.plural] = names.POD_SELECTOR
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _Backoffs()
    settings.queueing.idle_timeout = 0.5
    settings.persistence.diffbase_storage = _NoMemory()
    settings.persistence.progress_storage = kopf.StatusProgressStorage()  # never written: no handler keeps progress
    return settings


def _registry(cluster: Cluster, listener: Listener, pulse: Pulse) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.AiohttpSession:
        session = cluster.session(pulse.response())
        return kopf.AiohttpSession(server=cluster.access.server, aiohttp_session=session)

    async def event(event: Any, **_: Any) -> None:
        raw = event["object"]
        if event["type"] == "DELETED":
            listener.deleted(raw)
        else:
            listener.changed(raw, listed=event["type"] is None)

    kopf.on.login(id="login", registry=registry)(login)
    for one in WATCHED:
        kopf.on.event(one.group, one.version, one.plural, id=one.plural, registry=registry)(event)
    return registry
