"""The operator as a process: watches that feed a store, a queue of jobs to look at, an election, health and metrics.

A standby does all of this but act: its store is as warm as the leader's, and it begins the moment that it is elected.
Who lacks a right, or cannot read what it watches, is not ready and does not stand for election. What is lost later is
told, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from prometheus_client.core import Metric

from almanac import handlers, names
from almanac.cluster import DRIVERS, EVENTS, JOBS, PODS, ApiError, Cluster, Resource
from almanac.handlers import WATCHED, Pulse
from almanac.kubeconfig import Access
from almanac.leader import Election
from almanac.metrics import CONTENT_TYPE, Metrics, gauge
from almanac.reconciler import PROGRESS_EVERY, Reconciler
from almanac.rights import Rights
from almanac.settings import Settings
from almanac.store import Key, Store, version_of
from almanac.workqueue import WorkQueue, backoff

log = logging.getLogger(__name__)

WORKERS = 12
"""Jobs that are looked at side by side."""
SETTLE = 0.25
"""Seconds after which a change of a driver or a pod is looked at: they come in bursts, and new jobs come first."""
RESYNC = 600.0
"""Seconds between two comparisons of the store with the cluster: what no watch has told is found then."""
GATHER = 5.0
"""Seconds from a watch that had to begin anew to the comparison: the others often have to as well."""
CLOCK_EVERY = 5.0
"""Seconds between two looks at the clock."""
JUMP = 2.0
"""Seconds by which the clock may move against the time that passes, before all is looked at that waits for a time."""
STUCK = 300.0
"""Seconds that one look at a job may take before the process counts as sick."""
GRACE = 10.0
"""Seconds that looks which have begun may go on when the process is asked to stop."""
FAREWELL = 5.0
"""Seconds for events that are still to be sent then. There may be thousands; Kubernetes kills after half a minute."""


class Operator:
    """The parts of the process, connected. It is the listener of the watches."""

    def __init__(self, cluster: Cluster, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.store = Store()
        self.pulse = Pulse(settings.namespaces)
        self._cluster = cluster
        self._reconciler = Reconciler(cluster, self.store, settings, metrics)
        self._queue: WorkQueue[Key] = WorkQueue(self._work, WORKERS)
        self._questions: WorkQueue[Key] = WorkQueue(self._ask, 4)
        self.rights = Rights(cluster, settings)
        self._relisted = asyncio.Event()
        self._prepared = asyncio.Event()
        self._waits = "what is watched has not been read yet"
        self._election: Election | None = None
        self._main: asyncio.Task[Any] | None = None
        self._outdated = False
        metrics.observe(self._shown)

    def changed(self, raw: dict[str, Any], *, listed: bool) -> None:
        """An object is there, or is different."""
        if listed and self.store.knows(raw):
            self._relisted.set()  # a watch began anew: what was deleted in between, nobody tells
        key = self.store.put(raw)
        if key is not None:
            self._queue.add(key, 0.0 if raw.get("kind") in JOBS else SETTLE)
            self._wake(key)

    def deleted(self, raw: dict[str, Any]) -> None:
        """An object is there no more."""
        key = self.store.remove(raw)
        if key is not None:
            self._queue.add(key)

    async def run(self) -> bool:
        """Run until a signal asks the process to stop; or, and then it is True, until all that is known is wrong."""
        self._main = asyncio.current_task()
        tasks = self._tasks()
        self._queue.start()
        self._questions.start()
        try:
            await self._watch()
        except asyncio.CancelledError:
            if not self._outdated:
                log.info("asked to stop")
        finally:
            log.info("stopping")
            await asyncio.gather(self._queue.drain(0 if self._outdated else GRACE), self._questions.drain(0))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._election is not None:
                await self._election.release()
            if not self._outdated:  # what was to be told has not happened
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._flush(), FAREWELL)
        return self._outdated and self._main is not None and not self._main.uncancel()

    def _begin_anew(self) -> None:
        """Give up what is known, and the watches: they are ahead of the cluster, and would not hear what it does."""
        if not self._outdated and self._main is not None:
            log.error("the cluster is older than it was, as after a restore from a backup: everything is read anew")
            self._outdated = True
            self._lost()
            self._main.cancel()

    def _tasks(self) -> list[asyncio.Task[None]]:
        """What goes on beside the watches. Made before them: kopf ends what is made after it."""
        return [
            asyncio.create_task(_forever(name, one), name=name)
            for name, one in (
                ("election", self._elect),
                ("rights", self._mind_rights),
                ("resync", self._resync),
                ("events", self._send),
                ("clock", self._mind_clock),
            )
        ]

    async def _watch(self) -> None:
        """Watch until the process is asked to stop; a watch that breaks beyond repair is no reason to."""
        failures = 0
        _stop_on_signals()
        await self._prepare()
        self._prepared.set()
        while True:
            begun = time.monotonic()
            try:
                return await handlers.watch(self._cluster, self.settings.namespaces, self, self.pulse)
            except Exception:
                failures = 1 if time.monotonic() - begun > RESYNC else failures + 1
                delay = backoff(failures, random.Random())  # noqa: S311 - spreads load
                log.exception("watches have failed; again in %.1f s", delay)
                _stop_on_signals()
                await asyncio.sleep(delay)

    async def _prepare(self) -> None:
        """Wait until the rights are there and all that is watched is read: no job is looked at before."""
        failures = 0
        while True:
            try:
                await self.rights.check()
                if not self.rights.obstacle:
                    for resource in WATCHED:
                        await self._compare(resource)
                    return
            except ApiError as error:
                hint = ": apply the CustomResourceDefinitions (almanac crds | kubectl apply -f -)" if error.gone else ""
                self._waits = f"{error}{hint}"
                log.warning("not ready: %s", self._waits)
            failures += 1
            await asyncio.sleep(backoff(failures, random.Random()))  # noqa: S311 - spreads load

    async def _mind_rights(self) -> None:
        await self._prepared.wait()
        await self.rights.mind()

    async def _elect(self) -> None:
        await self._prepared.wait()
        if not self.settings.lease:
            return self._won()
        settings = self.settings
        self._election = Election(self._cluster, settings.namespace, settings.lease, settings.identity)
        return await self._election.run(self._won, self._lost, self._begin_anew)

    def _won(self) -> None:
        """Begin to look at jobs."""
        self.metrics.leader.set(1)
        for key in self.store.jobs():
            self._queue.add(key)
        self._queue.open()
        self._questions.open()

    def _lost(self) -> None:
        self.metrics.leader.set(0)
        self._queue.shut()
        self._questions.shut()

    async def _work(self, key: Key) -> float | None:
        again = await self._reconciler.reconcile(key)
        self._wake(key)
        if key in self._reconciler.running:
            self._questions.add(key, random.uniform(1, PROGRESS_EVERY))  # noqa: S311 - spreads load
        return again

    def _wake(self, key: Key) -> None:
        """Have the jobs looked at that wait for an ExtractJob."""
        for one in self.store.waiting(key):
            self._queue.add(one)

    async def _ask(self, key: Key) -> float | None:
        if await self._reconciler.ask(key):
            self._queue.add(key)
        running = len(self._reconciler.running)
        return max(PROGRESS_EVERY, running / 20) if key in self._reconciler.running else None

    async def _resync(self) -> None:
        """Compare the store with the cluster now and then, and whenever a watch had to begin anew."""
        while True:
            try:
                async with asyncio.timeout(RESYNC * random.uniform(0.8, 1.2)):  # noqa: S311 - spreads load
                    await self._relisted.wait()
                await asyncio.sleep(GATHER)
            except TimeoutError:
                pass
            self._relisted.clear()
            try:
                for resource in WATCHED:
                    await self._compare(resource)
            except ApiError as error:
                log.warning("resync: %s", error)
                await asyncio.sleep(GATHER)
                self._relisted.set()

    async def _mind_clock(self) -> None:
        """Look at all jobs when the clock has jumped, or the machine was asleep: they wait for times of the clock."""
        before = clock_offset()
        while True:
            await asyncio.sleep(CLOCK_EVERY)
            jump = clock_offset() - before
            if abs(jump) > JUMP:
                log.warning("the clock has jumped by %+.0f s: all jobs are looked at", jump)
                before += jump
                for key in self.store.jobs():
                    self._queue.add(key)

    async def _compare(self, resource: Resource) -> None:
        """Read all objects of a kind, remember what is new, forget what is gone, and look at the jobs concerned.

        Where it is known that they cannot be read, they are left as they are.
        """
        selector = {DRIVERS: names.DRIVER_SELECTOR, PODS: names.POD_SELECTOR}.get(resource, "")
        query = {"labelSelector": selector} if selector else {}
        known = self.store.versions(resource.kind)
        for namespace in self.settings.namespaces or (None,):
            if self.rights.blind(resource.path(namespace)):
                continue
            uids: set[str] = set()
            version = 0
            async for page in self._cluster.list(resource, namespace, **query):
                version = version or version_of(page)
                if known.are_after(page):
                    self._begin_anew()
                    return
                for raw in page["items"]:
                    uids.add(raw["metadata"]["uid"])
                    key = self.store.put(raw)
                    if key is not None:
                        self._queue.add(key)
            for key in self.store.keep_only(resource.kind, namespace, uids, version):
                self._queue.add(key)

    async def _send(self) -> None:
        """Send events, one after the other: they must never hold up a run, and wait a while for jobs that do."""
        while True:
            for _ in range(15):
                await asyncio.sleep(0.2)
                if not self._queue.depth:
                    break
            await self._flush()

    async def _flush(self) -> None:
        """Send what there is to send. What the API cannot take now is sent another time, after all others."""
        outbox = self._reconciler.outbox
        while outbox:
            namespace, event = outbox[0]  # it stays there until it is sent: this may be cancelled meanwhile
            try:
                await self._cluster.post(EVENTS, namespace, event)
            except ApiError as error:
                if error.code in (0, 429) or error.code >= 500:
                    outbox.rotate(-1)
                    return
                if not error.conflict:  # it is there already: the answer was lost
                    log.warning("event %s of %s/%s: %s", event["reason"], namespace, event["regarding"]["name"], error)
            if outbox and outbox[0][1] is event:  # unless it has made way for newer ones
                outbox.popleft()

    def sickness(self) -> list[str]:
        """What is wrong with this process, so that a new one is needed; nothing, if it is well."""
        dead = [path for path in self.pulse.dead() if not self.rights.blind(path)]
        found = [f"watch {path} has heard nothing for more than {handlers.DEAD:.0f} s" for path in dead]
        if self._queue.longest > STUCK:
            found.append(f"a job has been looked at for more than {STUCK:.0f} s")
        return found

    @property
    def obstacle(self) -> str:
        """What this operator lacks to do its work: a right, a CustomResourceDefinition, an answer; empty if nothing."""
        return self.rights.obstacle or ("" if self._prepared.is_set() else self._waits)

    def _shown(self) -> Iterable[Metric]:
        objects: dict[tuple[str, ...], float] = {(kind,): float(count) for kind, count in self.store.counts().items()}
        ages = {path: age for path, age in self.pulse.ages().items() if not self.rights.blind(path)}
        silences: dict[tuple[str, ...], float] = {(path,): age for path, age in ages.items()}
        yield gauge("almanac_jobs", self.store.standings())
        yield gauge("almanac_objects", objects)
        yield gauge("almanac_schedule_delay_seconds", self.store.delays(datetime.now(UTC)))
        yield gauge("almanac_queue_depth", {(): float(self._queue.depth)})
        yield gauge("almanac_queue_age_seconds", {(): self._queue.age})
        yield gauge("almanac_reconcile_age_seconds", {(): self._queue.longest})
        yield gauge("almanac_watch_silence_seconds", silences)
        yield gauge("almanac_ready", {(): float(not self.obstacle)})
        missing = Counter((one.verb, one.object) for one in self.rights.missing)
        yield gauge("almanac_missing_rights", {labels: float(count) for labels, count in missing.items()})


def clock_offset() -> float:
    """What the clock says less the time that has passed: constant, in seconds, while the clock is right."""
    return time.time() - time.monotonic()


def _stop_on_signals() -> None:
    """Have signals end this task. While it watches, kopf has handlers of its own, and none before or after that."""
    task = asyncio.current_task()
    if task is not None and threading.current_thread() is threading.main_thread():
        for one in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(one, task.cancel)


async def _forever(name: str, what: Any) -> None:
    """Run a part of the process; one that fails is started again."""
    while True:
        try:
            await what()
            return
        except Exception:
            log.exception("%s has failed", name)
            await asyncio.sleep(5)


async def serve(operator: Operator, port: int) -> web.AppRunner:
    """Answer /healthz, /readyz and /metrics."""

    async def healthz(_: web.Request) -> web.Response:
        found = operator.sickness()
        return web.Response(text="\n".join(found) or "ok", status=500 if found else 200)

    async def readyz(_: web.Request) -> web.Response:
        found = operator.obstacle
        return web.Response(text=found or "ok", status=500 if found else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=operator.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner


async def run(access: Access, settings: Settings) -> None:
    """Run the operator until a signal asks it to stop."""
    again = True
    while again:
        metrics = Metrics()
        async with Cluster(access, counted=metrics.request) as cluster:
            operator = Operator(cluster, settings, metrics)
            runner = await serve(operator, settings.metrics_port) if settings.metrics_port else None
            try:
                again = await operator.run()
            finally:
                if runner is not None:
                    await runner.cleanup()


class JsonLog(logging.Formatter):
    """Log records as JSON, one a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr(level: str) -> None:
    """Write logs as JSON to the standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLog())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def start(main: Coroutine[Any, Any, None]) -> None:
    """Run the process's coroutine."""
    asyncio.run(main)
