"""The verbs of the client: what the command line does with jobs in a cluster, for asyncio programs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from almanac.api import KINDS, Job, Result
from almanac.api.model import nearest
from almanac.client import pods
from almanac.client.connection import APPLY, JSON, MERGE, Connection, failure, find
from almanac.client.errors import (
    AccessDeniedError,
    ConflictError,
    ExpiredError,
    NotFoundError,
    NotInstalledError,
    RejectedError,
    UnreachableError,
    WaitTimeoutError,
)
from almanac.client.manifest import manifest, same
from almanac.client.records import JobRecord, Reference
from almanac.cluster import JOBS, PODS
from almanac.kubeconfig import Access

FIELD_MANAGER = "almanac"
"""Who owns the fields that `submit` writes."""
CANCELLER = "almanac-cancel"
"""Who owns spec.suspend once `cancel` has written it: a job file that says the same thing otherwise is told so."""

PAGE = 500
WATCH_SECONDS = 240
"""How long the server is asked to go on with one watch."""
SILENCE_SECONDS = 300
"""A watch that says nothing for so long is dead."""
OUTAGE_SECONDS = 120
"""How long a watch goes on trying while the server cannot be reached."""
RETRY_SECONDS = 1.0

Change = Literal["created", "configured", "unchanged"]


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that was submitted, and what that has changed."""

    record: JobRecord
    change: Change


class AsyncClient:
    """Jobs in a cluster: submit them, see what becomes of them, cancel them.

    Names are those of jobs (`ledger`, or with a kind: `fj/ledger`). Every method raises a `ClientError`: NotFoundError,
    AccessDeniedError, UnreachableError, RejectedError, ConflictError or NotInstalledError. Use it as a context manager:

        async with AsyncClient() as client:
            await client.submit(job)
            record = await client.wait("ledger")
    """

    def __init__(
        self,
        *,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        namespace: str | None = None,
        access: Access | None = None,
    ) -> None:
        """A client of the cluster that kubectl would take, unless a kubeconfig, a context of it or `access` says which.

        `namespace` is where jobs are, if a call says nothing else; by default that of the context.
        """
        self._access = access or find(kubeconfig, context)
        self._connection: Connection | None = None
        self.namespace = namespace or self._access.namespace
        """Where jobs are looked for, if nothing else is said."""

    async def __aenter__(self) -> Self:
        self._connection = Connection(self._access)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. The next call opens it again."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(self._access)
        return self._connection

    async def submit(
        self,
        job: Job | Mapping[str, Any],
        *,
        namespace: str | None = None,
        create: bool = False,
        dry_run: bool = False,
        force: bool = False,
    ) -> Submission:
        """Bring a job into the cluster: a model, or a document as a job file has it.

        It goes into the namespace that it names, else into `namespace`, else into the client's. An existing job is
        changed by server-side apply, which leaves what others manage alone; `force` takes over what they do not agree
        on, `create` refuses to change anything. `dry_run` has the server check it, and keeps nothing.

        Raises:
            ConflictError: it exists (`create`), or somebody else manages a field that it changes.
            RejectedError: the server does not take it.
        """
        document, where = manifest(job, namespace, self.namespace)
        kind, name = document["kind"], document["metadata"]["name"]
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        try:
            if create:
                made = await self._open.send("POST", JOBS[kind].path(where), query, document, JSON)
                return Submission(JobRecord.read(made, kind), "created")
            before = await self._find(kind, name, where)
            query["force"] = "true" if force else "false"
            made = await self._open.send("PATCH", JOBS[kind].path(where, name), query, document, APPLY)
        except ConflictError as error:
            raise ConflictError(_conflict(error.message, create=create)) from error
        record = JobRecord.read(made, kind)
        if before is None:
            return Submission(record, "created")
        return Submission(record, "unchanged" if same(before.document, made) else "configured")

    async def status(self, name: str, *, namespace: str | None = None) -> JobRecord:
        """A job as it is now.

        Raises:
            NotFoundError: there is none of that name; it says which names there are that come near.
        """
        job, where = _reference(name), namespace or self.namespace
        try:
            return JobRecord.read(await self._open.send("GET", JOBS[job.kind].path(where, job.name)), job.kind)
        except NotFoundError as error:
            if type(error) is not NotFoundError:
                raise
            raise NotFoundError(await self._missing(job, where)) from None

    async def watch(self, name: str, *, namespace: str | None = None) -> AsyncGenerator[JobRecord, None]:
        """A job as it is now, and again after each change of it, without end.

        Raises:
            NotFoundError: there is no such job, or it was deleted meanwhile.
        """
        job, where = _reference(name), namespace or self.namespace
        record = await self.status(name, namespace=where)
        yield record
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            try:
                async with aclosing(self._changes(job, where, _version(record))) as changes:
                    async for record in changes:
                        heard = loop.time()
                        yield record
                await asyncio.sleep(RETRY_SECONDS)
                last, record = record, await self.status(name, namespace=where)
                heard = loop.time()
                if _version(record) != _version(last):
                    yield record
            except UnreachableError:
                if loop.time() - heard > OUTAGE_SECONDS:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def wait(
        self,
        name: str,
        *,
        namespace: str | None = None,
        timeout: float | None = None,
        on_change: Callable[[JobRecord], None] | None = None,
    ) -> JobRecord:
        """The job once the run of its present spec is over, well or not, or once it is suspended.

        `record.raise_for_failure()` turns a run that failed into an error. `on_change` is told the job as it is at
        first, and after each change.

        Raises:
            WaitTimeoutError: that did not happen within `timeout` seconds.
        """
        record: JobRecord | None = None
        try:
            async with asyncio.timeout(timeout), aclosing(self.watch(name, namespace=namespace)) as records:
                async for record in records:
                    if on_change:
                        on_change(record)
                    if record.settled:
                        return record
        except TimeoutError:
            stands = f"its phase is {record.phase}" if record and record.phase else "no operator has taken it up yet"
            raise WaitTimeoutError(f"{name} is not done after {timeout:g} s, {stands}") from None
        raise AssertionError("a watch has no end")

    async def results(self, name: str, *, namespace: str | None = None) -> Result:
        """What the last complete run of a job has written, and where.

        Raises:
            NotFoundError: there is no such job, or no run of it is complete.
        """
        record = await self.status(name, namespace=namespace)
        if record.result is None:
            why = f": {record.reason}: {record.message}" if record.message else ""
            raise NotFoundError(f"{record.reference} has no results yet, its phase is {record.phase or 'none'}{why}")
        return record.result

    async def cancel(self, name: str, *, namespace: str | None = None, delete: bool = False) -> JobRecord:
        """Stop a job's run and start no other until `resume`. With `delete`, the job and its pods go; results stay.

        A job that has finished and has no schedule is left as it is: there is nothing to stop.
        """
        record = await self.status(name, namespace=namespace)
        if delete:
            path = JOBS[record.kind].path(record.namespace, record.name)
            options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
            await self._open.send("DELETE", path, None, options)
            return record
        if record.suspended or (record.finished and not record.scheduled):
            return record
        return await self._suspend(record, True)

    async def resume(self, name: str, *, namespace: str | None = None) -> JobRecord:
        """Let a job go on that was cancelled."""
        record = await self.status(name, namespace=namespace)
        return await self._suspend(record, False) if record.suspended else record

    async def list(
        self, *, namespace: str | None = None, all_namespaces: bool = False, selector: str = ""
    ) -> tuple[JobRecord, ...]:
        """The jobs of a namespace, or of all, by name. `selector` chooses by labels, as kubectl's does."""
        where = None if all_namespaces else namespace or self.namespace
        found: list[JobRecord] = []
        unknown: list[NotInstalledError] = []
        for kind in KINDS:
            try:
                found += await self._all(kind, where, selector)
            except NotInstalledError as error:  # a cluster need not have every kind
                unknown.append(error)
        if len(unknown) == len(KINDS):
            raise unknown[0]
        return tuple(sorted(found, key=lambda record: (record.namespace, record.name, record.kind)))

    async def logs(
        self,
        name: str,
        *,
        namespace: str | None = None,
        run: str | None = None,
        follow: bool = False,
        tail: int | None = None,
    ) -> AsyncGenerator[str, None]:
        """The lines that a run's driver has written: the present run's, or that of the id `run`.

        Of a driver that was tried more than once, the last attempt. With `follow`, from the first attempt that is left
        to the end of the run, waiting for pods that have yet to start. `tail` is how many of the last lines to begin
        with.

        Raises:
            NotFoundError: the run has no pod, or has none any more.
            ClientError: its pod has not started, with the reason (only without `follow`).
        """
        record = await self.status(name, namespace=namespace)
        if follow:
            async with aclosing(self._followed(record, run, tail)) as lines:
                async for line in lines:
                    yield line
            return
        found = await self._pods(record, run or pods.run_of(record))
        started = [pod for pod in found if pod.started]
        if not started:
            raise pods.no_logs(record, run, found)
        query = {"follow": "false"} | ({} if tail is None else {"tailLines": str(tail)})
        async with aclosing(self._log(record.namespace, started[-1].name, query)) as lines:
            async for line in lines:
                yield line

    async def _followed(self, record: JobRecord, run: str | None, tail: int | None) -> AsyncGenerator[str, None]:
        """The lines of every attempt of a run to its end. A stream that breaks is taken up where it was."""
        name, loop = f"{record.kind}/{record.name}", asyncio.get_running_loop()
        places: dict[str, pods.Bookmark] = {}
        heard = loop.time()
        while True:
            try:
                found = await self._pods(record, run or pods.run_of(record))
                for pod in found:
                    place = places.get(pod.uid) or pods.Bookmark()
                    if not pod.started or place.done:
                        continue
                    places[pod.uid] = place
                    async with aclosing(self._rest(record.namespace, pod, place, tail)) as lines:
                        async for line in lines:
                            heard = loop.time()
                            yield line
                    place.done = place.done or record.finished
                unread = any(pod.started and not places[pod.uid].done for pod in found)
                if not unread and (record.finished or run not in (None, pods.run_of(record))):
                    break
                await asyncio.sleep(RETRY_SECONDS)
                record = await self.status(name, namespace=record.namespace)
                heard = loop.time()
            except UnreachableError:
                if loop.time() - heard > OUTAGE_SECONDS:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
        if not places:
            raise pods.no_logs(record, run, ())

    async def _rest(
        self, namespace: str, pod: pods.DriverPod, place: pods.Bookmark, tail: int | None
    ) -> AsyncGenerator[str, None]:
        """What a pod has written since it was read last, and what it writes until its end or that of the stream."""
        query = {"follow": "true", "timestamps": "true"}
        if place.since:
            query["sinceTime"] = place.since
        elif tail is not None:
            query["tailLines"] = str(tail)
        place.begin()
        try:
            async with aclosing(self._log(namespace, pod.name, query)) as lines:
                async for line in lines:
                    if (text := place.take(line)) is not None:
                        yield text
            place.done = pod.ended  # else the stream has ended, and the container perhaps not
        except NotFoundError:  # deleted since: another attempt may follow
            place.done = True

    async def _log(self, namespace: str, pod: str, query: Mapping[str, str]) -> AsyncGenerator[str, None]:
        asked = {"container": pods.CONTAINER, **query}
        async with aclosing(self._open.lines(PODS.path(namespace, pod, "log"), asked)) as lines:
            async for line in lines:
                yield line.decode(errors="replace")

    async def _pods(self, record: JobRecord, run: str) -> tuple[pods.DriverPod, ...]:
        """The pods of a run, oldest first; none where it has not been started."""
        if not run:
            return ()
        query = {"labelSelector": pods.selector(record, run)}
        answer = await self._open.send("GET", PODS.path(record.namespace), query)
        found = (pods.DriverPod.read(item) for item in answer.get("items") or ())
        return tuple(sorted(found, key=lambda pod: pod.created))

    async def _changes(self, job: Reference, namespace: str, version: str) -> AsyncGenerator[JobRecord, None]:
        """Changes of one job since a version of it, until the server ends the watch or forgets that version."""
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={job.name}",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        path = JOBS[job.kind].path(namespace)
        async with aclosing(self._open.lines(path, query, SILENCE_SECONDS)) as lines:
            try:
                async for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise failure(event["object"], self._open.server)
                    if event["type"] == "DELETED":
                        raise NotFoundError(f"{job} was deleted")
                    if event["type"] != "BOOKMARK":
                        yield JobRecord.read(event["object"], job.kind)
            except ExpiredError:
                return

    async def _find(self, kind: str, name: str, namespace: str) -> JobRecord | None:
        try:
            return JobRecord.read(await self._open.send("GET", JOBS[kind].path(namespace, name)), kind)
        except NotFoundError as error:
            if type(error) is not NotFoundError:
                raise
            return None

    async def _suspend(self, record: JobRecord, suspend: bool) -> JobRecord:
        path, query = JOBS[record.kind].path(record.namespace, record.name), {"fieldManager": CANCELLER}
        answer = await self._open.send("PATCH", path, query, {"spec": {"suspend": suspend}}, MERGE)
        return JobRecord.read(answer, record.kind)

    async def _all(self, kind: str, namespace: str | None, selector: str) -> tuple[JobRecord, ...]:
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        found: list[JobRecord] = []
        while True:
            try:
                page = await self._open.send("GET", JOBS[kind].path(namespace), query)
            except ExpiredError:  # the list has changed for too long while it was read: all of it at once
                found, page = [], await self._open.send("GET", JOBS[kind].path(namespace), _without_pages(query))
            found += (JobRecord.read(item, kind) for item in page.get("items") or ())
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return tuple(found)
            query["continue"] = more

    async def _missing(self, job: Reference, namespace: str) -> str:
        """That a job is missing, and where or under which name it may be found."""
        message = f"there is no {job} in namespace {namespace}"
        try:
            for kind in sorted(JOBS.keys() - {job.kind}):
                with suppress(AccessDeniedError, NotFoundError):  # who asks may not know of this kind
                    if await self._find(kind, job.name, namespace):
                        return f"{message}, did you mean {Reference(job.name, kind).typed}?"
            names = [record.name for record in await self._all(job.kind, namespace, "")]
            if close := nearest(job.name, names):
                return f"{message}, did you mean {close}?"
            elsewhere = [one.namespace for one in await self._all(job.kind, None, "") if one.name == job.name]
        except (AccessDeniedError, UnreachableError):
            return message
        return f"{message}: there is one in {', '.join(elsewhere)}" if elsewhere else message


def _reference(name: str) -> Reference:
    try:
        reference = Reference.parse(name)
    except ValueError as error:
        raise RejectedError(str(error)) from None
    if not reference.name:
        raise RejectedError(f"{name!r} names no job")
    return reference


def _version(record: JobRecord) -> str:
    return str((record.document.get("metadata") or {}).get("resourceVersion", ""))


def _without_pages(query: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in query.items() if name not in ("limit", "continue")}


def _conflict(message: str, *, create: bool) -> str:
    if create:
        return f"{message}: submit it without --create to change it"
    return f"{message}: leave these fields to their manager, or take them over with --force-conflicts"
