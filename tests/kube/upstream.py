"""A real API server, reached through the test process so that faults and the log of requests are the same for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web

from kube.access import Access
from kube.refusals import Refusal

_HOP = {"connection", "content-length", "content-encoding", "transfer-encoding", "host", "keep-alive", "date", "server"}


class Upstream:
    """Passes requests on, with the access that the kubeconfig gives unless a request brings its own."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None

    async def _send(self, request: web.Request, body: bytes | None) -> aiohttp.ClientResponse:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._access.tls(), limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        if "Authorization" not in headers and self._access.token:
            headers["Authorization"] = f"Bearer {self._access.token}"
        return await self._session.request(
            request.method, self._access.server + request.path_qs, data=body, headers=headers, allow_redirects=False
        )

    async def answer(self, request: web.Request) -> web.Response:
        async with await self._send(request, await request.read()) as reply:
            headers = {name: value for name, value in reply.headers.items() if name.lower() not in _HOP}
            return web.Response(body=await reply.read(), status=reply.status, headers=headers)

    async def watch(self, request: web.Request) -> AsyncIterator[bytes]:
        reply = await self._send(request, None)
        if reply.status != 200:
            told: Any = await reply.json()
            raise Refusal(reply.status, told.get("reason", ""), told.get("message", ""))
        return _lines(reply)

    async def advance(self) -> int:
        """A version later than all that were handed out so far."""
        assert self._session is not None
        headers = {"Authorization": f"Bearer {self._access.token}"} if self._access.token else {}
        url = f"{self._access.server}/api/v1/namespaces/default/configmaps"
        body = {"metadata": {"generateName": "version-"}}
        async with self._session.post(url, json=body, headers=headers) as reply:
            made = await reply.json()
        async with self._session.delete(f"{url}/{made['metadata']['name']}", headers=headers):
            return int(made["metadata"]["resourceVersion"])

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


async def _lines(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with reply:
        buffer = b""
        async for chunk in reply.content.iter_any():
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                yield line + b"\n"
