"""HTTP in front of an API, embedded or real, in a thread of its own: faults, watches that break, a log of requests."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Protocol, Self

from aiohttp import web

from kube import reviews
from kube.controllers import Controllers
from kube.faults import REASONS, Fault, Request, Switches
from kube.logs import Logs
from kube.refusals import Refusal
from kube.rest import Embedded, too_old


class Backend(Protocol):
    """What answers requests."""

    async def answer(self, request: web.Request) -> web.Response: ...

    async def watch(self, request: web.Request) -> AsyncIterator[bytes]: ...

    async def advance(self) -> int: ...


class Server:
    """An API at `url` while the `with` block lasts. Its methods are for other threads than its own."""

    def __init__(self, backend: Backend) -> None:
        self.switches = Switches()
        self.logs = Logs()
        self.controllers: Controllers | None = None
        self._backend = backend
        self._watches: dict[asyncio.Task[None], web.Request] = {}
        self._frozen: set[asyncio.Task[None]] = set()
        self._oldest = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kube", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self.controllers and self.controllers.crashes:
            raise self.controllers.crashes[0]

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(60)

    def call(self, what: Any, *arguments: Any) -> Any:
        """Call a function on the thread of the server."""

        async def work() -> Any:
            return what(*arguments)

        return self._wait(work())

    async def _start(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        if isinstance(self._backend, Embedded):
            self.controllers = Controllers(self._backend.api, self._loop)
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        self._port = 0
        await self._listen()
        self.url = f"http://127.0.0.1:{self._port}"

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        if self.controllers:
            self.controllers.stop()
        self._break_watches(clean=False)
        await self._runner.cleanup()
        close = getattr(self._backend, "close", None)
        if close:
            await close()

    # What a test may do to it

    @property
    def requests(self) -> list[Request]:
        """Every request so far."""
        return self.switches.requests

    @property
    def made(self) -> list[Any]:
        """Every Job that was created, as the answers said, whether they arrived or not."""
        return self.switches.made

    @property
    def told(self) -> list[Any]:
        """Every object whose status was written by a request, as it was then."""
        return self.switches.told

    def fault(self, **what: Any) -> Fault:
        """Add a Fault."""
        made = Fault(**what)
        self.switches.faults.append(made)
        return made

    def drop_watches(self, clean: bool = True) -> None:
        """End every open watch: as a server does when its time is over, or with a broken connection."""
        self.call(self._break_watches, clean)

    def compact(self) -> None:
        """Make every version so far too old to watch from: 410."""

        async def advance() -> None:
            self._oldest = await self._backend.advance()

        self._wait(advance())

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Open watches stay open and tell nothing; what they missed comes when the block ends."""
        self.call(self._open.clear)
        try:
            yield
        finally:
            self.call(self._open.set)

    def freeze_watches(self, path: str = "") -> None:
        """Have every open watch of such a path (a regular expression) stay open and tell nothing more; new ones do."""
        self.call(lambda: self._frozen.update(task for task, one in self._watches.items() if re.search(path, one.path)))

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody listens at the address; it comes back at the same one."""
        self._wait(self._leave())
        try:
            yield
        finally:
            self._wait(self._listen())

    def back_up(self) -> Callable[[bool], None]:
        """See `Cluster.back_up`: of the embedded API, with whose controllers this is."""
        backend, controllers = self._backend, self.controllers
        assert isinstance(backend, Embedded)
        assert controllers is not None
        restore = self.call(backend.back_up)

        def put_back(ahead: bool) -> None:
            self.call(restore, ahead)
            self.call(controllers.begin_anew)

        return put_back

    async def _leave(self) -> None:
        await self._site.stop()
        server = self._runner.server
        assert server is not None
        for connection in list(server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    def _break_watches(self, clean: bool = True) -> None:
        for task, request in list(self._watches.items()):
            if not clean and request.transport is not None:
                request.transport.abort()
            task.cancel()

    # Requests

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        watches = request.method == "GET" and request.query.get("watch") in ("1", "true")
        agent, token = request.headers.get("User-Agent", ""), request.headers.get("Authorization", "")[len("Bearer ") :]
        told = Request(request.method, request.path, dict(request.query), agent, watches, token)
        fault = self.switches.next(told)
        try:
            if fault and not fault.late:
                await self._fail(fault, request)
            log = await self.logs.answer(request)
            if log is not None:
                return log
            if watches:
                return await self._watch(request)
            if request.path == reviews.PATH and self.switches.forbids(reviews.asked(await request.json(), told)):
                return web.json_response(reviews.answered(await request.json(), allowed=False), status=201)
            answer = await self._backend.answer(request)
            if answer.status == 201 and request.path.endswith("/jobs") and "dryRun" not in request.query:
                self.switches.made.append(json.loads(answer.body))  # type: ignore[arg-type]
            if answer.status == 200 and request.path.endswith("/status") and request.method != "GET":
                self.switches.told.append(json.loads(answer.body))  # type: ignore[arg-type]
            if fault:
                await self._fail(fault, request)
        except Refusal as refusal:
            wait = {"Retry-After": str(fault.retry_after)} if fault and fault.retry_after else None
            return web.json_response(refusal.status(), status=refusal.code, headers=wait)
        return answer

    async def _fail(self, fault: Fault, request: web.Request) -> None:
        await asyncio.sleep(fault.delay)
        if fault.reset and request.transport is not None:
            request.transport.abort()
            raise Refusal(500, "InternalError", "nobody hears this")
        if fault.status:
            reason = fault.reason or REASONS.get(fault.status, "Unknown")
            raise Refusal(fault.status, reason, f"{reason}: on demand")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        lines = await self._lines(request)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)

        async def copy() -> None:
            async for line in lines:
                await self._open.wait()
                if task in self._frozen:
                    await asyncio.Event().wait()
                await response.write(line)

        task = asyncio.create_task(copy())
        self._watches[task] = request
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await asyncio.shield(task)
        finally:
            task.cancel()
            del self._watches[task]
            self._frozen.discard(task)
        with suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _lines(self, request: web.Request) -> AsyncIterator[bytes]:
        since = request.query.get("resourceVersion") or "0"
        if since != "0" and since.isdigit() and int(since) < self._oldest:
            return too_old(since, self._oldest)
        return await self._backend.watch(request)
