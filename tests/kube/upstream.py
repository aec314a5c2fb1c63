"""A real API server, reached through the test process so that faults and the log of requests are the same for it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from almanac.kubeconfig import Access
from kube.refusals import Refusal

_HOP = {"connection", "content-length", "transfer-encoding", "host", "keep-alive", "date", "server"}


class Upstream:
    """Passes requests on, with the access that the kubeconfig gives unless a request brings its own."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    def _session(self, ours: bool) -> aiohttp.ClientSession:
        """With our certificate, or without: a certificate counts more than a token that a request brings."""
        if ours not in self._sessions:
            tls: Any = True
            if self._access.tls:
                tls = self._access.tls if ours else ssl._create_unverified_context()  # noqa: S323 - known by the other
            self._sessions[ours] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls, limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            )
        return self._sessions[ours]

    async def _send(self, request: web.Request, body: bytes | None) -> aiohttp.ClientResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        ours = "Authorization" not in headers
        if ours:
            headers |= self._credentials()
        url = URL(self._access.server + request.raw_path, encoded=True)
        return await self._session(ours).request(request.method, url, data=body, headers=headers, allow_redirects=False)

    def _credentials(self) -> dict[str, str]:
        token = {"Authorization": f"Bearer {self._access.token.get()}"} if self._access.token else {}
        return {**self._access.headers, **token}

    async def answer(self, request: web.Request) -> web.Response:
        async with await self._send(request, await request.read() or None) as reply:
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
        headers = self._credentials()
        url = f"{self._access.server}/api/v1/namespaces/default/configmaps"
        body = {"metadata": {"generateName": "version-"}}
        async with self._session(True).post(url, json=body, headers=headers) as reply:
            made = await reply.json()
        async with self._session(True).delete(f"{url}/{made['metadata']['name']}", headers=headers):
            return int(made["metadata"]["resourceVersion"])

    async def close(self) -> None:
        for one in self._sessions.values():
            await one.close()


async def _lines(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with reply:
        buffer = b""
        async for chunk in reply.content.iter_any():
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                yield line + b"\n"
