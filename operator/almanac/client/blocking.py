"""The same client for programs that know nothing of asyncio, notebooks included: each call waits for its answer.

The calls are `AsyncClient`'s, made on an event loop in a thread of their own: a notebook has a loop already, and a
second one cannot run in the same thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from almanac.api import Job, Result
from almanac.client.aio import AsyncClient, Submission
from almanac.client.records import JobRecord
from almanac.kubeconfig import Access

Answer = TypeVar("Answer")


class Client:
    """Jobs in a cluster: submit them, see what becomes of them, cancel them. The verbs are those of `AsyncClient`.

    with Client() as client:
        client.submit(job)
        record = client.wait("ledger")
    """

    def __init__(
        self,
        *,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        namespace: str | None = None,
        access: Access | None = None,
    ) -> None:
        """A client of the cluster that kubectl would take; the arguments are those of `AsyncClient`."""
        self._client = AsyncClient(kubeconfig=kubeconfig, context=context, namespace=namespace, access=access)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def namespace(self) -> str:
        """Where jobs are looked for, if nothing else is said."""
        return self._client.namespace

    def close(self) -> None:
        """Close the connection. The next call opens it again."""
        if self._loop is None or self._thread is None:
            return
        self._answer(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    def submit(
        self,
        job: Job | Mapping[str, Any],
        *,
        namespace: str | None = None,
        create: bool = False,
        dry_run: bool = False,
        force: bool = False,
    ) -> Submission:
        """Bring a job into the cluster (`AsyncClient.submit`)."""
        return self._answer(self._client.submit(job, namespace=namespace, create=create, dry_run=dry_run, force=force))

    def status(self, name: str, *, namespace: str | None = None) -> JobRecord:
        """A job as it is now (`AsyncClient.status`)."""
        return self._answer(self._client.status(name, namespace=namespace))

    def watch(self, name: str, *, namespace: str | None = None) -> Iterator[JobRecord]:
        """A job as it is now, and again after each change of it, without end (`AsyncClient.watch`)."""
        return self._each(self._client.watch(name, namespace=namespace))

    def wait(
        self,
        name: str,
        *,
        namespace: str | None = None,
        timeout: float | None = None,
        on_change: Callable[[JobRecord], None] | None = None,
    ) -> JobRecord:
        """The job once the run of its present spec is over, or it is suspended (`AsyncClient.wait`).

        `on_change` is called in another thread.
        """
        return self._answer(self._client.wait(name, namespace=namespace, timeout=timeout, on_change=on_change))

    def results(self, name: str, *, namespace: str | None = None) -> Result:
        """What the last complete run of a job has written, and where (`AsyncClient.results`)."""
        return self._answer(self._client.results(name, namespace=namespace))

    def cancel(self, name: str, *, namespace: str | None = None, delete: bool = False) -> JobRecord:
        """Stop a job's run and start no other until `resume`, or delete it (`AsyncClient.cancel`)."""
        return self._answer(self._client.cancel(name, namespace=namespace, delete=delete))

    def resume(self, name: str, *, namespace: str | None = None) -> JobRecord:
        """Let a job go on that was cancelled (`AsyncClient.resume`)."""
        return self._answer(self._client.resume(name, namespace=namespace))

    def list(
        self, *, namespace: str | None = None, all_namespaces: bool = False, selector: str = ""
    ) -> tuple[JobRecord, ...]:
        """The jobs of a namespace, or of all, by name (`AsyncClient.list`)."""
        return self._answer(self._client.list(namespace=namespace, all_namespaces=all_namespaces, selector=selector))

    def logs(
        self,
        name: str,
        *,
        namespace: str | None = None,
        run: str | None = None,
        follow: bool = False,
        tail: int | None = None,
    ) -> Iterator[str]:
        """The lines that a run's driver has written (`AsyncClient.logs`)."""
        return self._each(self._client.logs(name, namespace=namespace, run=run, follow=follow, tail=tail))

    def _answer(self, asked: Coroutine[Any, Any, Answer]) -> Answer:
        """What a call comes to. One that is interrupted is cancelled."""
        future = asyncio.run_coroutine_threadsafe(asked, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _each(self, items: AsyncGenerator[Answer, None]) -> Iterator[Answer]:
        try:
            while True:
                try:
                    yield self._answer(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            if self._loop is not None:  # a client that is closed has nothing open
                self._answer(items.aclose())

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="almanac-client", daemon=True)
            self._thread.start()
        return self._loop


async def _next(items: AsyncGenerator[Answer, None]) -> Answer:
    return await anext(items)
