"""Requests to an API server and what it answers. Every failure becomes a `ClientError` that says what to do."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from almanac import kubeconfig
from almanac.client.errors import (
    AccessDeniedError,
    ClientError,
    ConfigError,
    ConflictError,
    ExpiredError,
    NotFoundError,
    NotInstalledError,
    RejectedError,
    UnreachableError,
)
from almanac.cluster import Cluster
from almanac.kubeconfig import Access

Raw = dict[str, Any]

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

CONNECT_SECONDS = 5
ANSWER_SECONDS = 30
ATTEMPTS = 4
"""How often a request is sent that the server is too busy for."""

_UNDECLARED = "field not declared in schema"
"""Server-side apply of a field that the cluster's definition of the kind does not have is a 500."""

_ANSWER = aiohttp.ClientTimeout(total=ANSWER_SECONDS, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS)


def find(path: str | os.PathLike[str] | None, context: str | None) -> Access:
    """The cluster of the kubeconfig at `path`, else the one that kubectl would take.

    Raises:
        ConfigError: if there is none, or it cannot be used.
    """
    environment = {**os.environ, **({"KUBECONFIG": os.fspath(path)} if path else {})}
    try:
        return kubeconfig.find(environment, context)
    except kubeconfig.AccessError as error:
        raise ConfigError(str(error)) from error


class Connection:
    """An open connection to one API server."""

    def __init__(self, access: Access) -> None:
        self.server = access.server
        self._session = Cluster(access).session()

    async def close(self) -> None:
        """Close what is open."""
        await self._session.close()

    async def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
    ) -> Raw:
        """The document that the server answers with.

        Raises:
            ClientError: of the kind that fits, in the server's words and with what to do.
        """
        for attempt in range(1, ATTEMPTS + 1):
            async with self._open(method, path, query, _ANSWER, body, content_type) as response:
                text = await response.text(errors="replace")
                if response.status < 400:
                    return _document(text)
                if response.status not in (429, 503) or attempt == ATTEMPTS:
                    raise _error(response.status, text, self.server)
                asked = response.headers.get("Retry-After", "")
            await asyncio.sleep(_pause(attempt, asked))
        raise AssertionError("the last attempt has returned or raised")

    async def lines(
        self, path: str, query: Mapping[str, str] | None = None, silence: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The lines of an answer as they come, without their ends. It ends with the answer.

        `silence` is how many seconds may pass without a word before the connection counts as dead.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=silence
        )
        async with self._open("GET", path, query, timeout) as response:
            if response.status >= 400:
                raise _error(response.status, await response.text(errors="replace"), self.server)
            rest = b""
            async for chunk in response.content.iter_any():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield line
            if rest:
                yield rest

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer while it is read. What goes wrong on the way becomes an `UnreachableError`."""
        try:
            async with self._session.request(
                method,
                f"{self.server}{path}",
                params=query,
                data=None if body is None else json.dumps(body).encode(),
                headers=None if body is None else {"Content-Type": content_type},
                timeout=timeout,
            ) as response:
                yield response
        except kubeconfig.AccessError as error:
            raise ConfigError(str(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error, self.server) from error


def _pause(attempt: int, asked: str) -> float:
    """Seconds until the next attempt: what the server asks for, within reason, and never the same for everybody."""
    return min(float(asked) if asked.isdecimal() else 2**attempt / 4, 5) * random.uniform(0.8, 1.2)  # noqa: S311


def _document(text: str) -> Raw:
    try:
        answer = json.loads(text) if text else {}
    except ValueError as error:
        raise UnreachableError(f"the server does not answer as Kubernetes does: {_short(text)}") from error
    return answer if isinstance(answer, dict) else {}


def _unreachable(error: Exception, server: str) -> UnreachableError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return UnreachableError(f"the certificate of {server} is not trusted: {error.certificate_error}")
    if isinstance(error, TimeoutError):
        return UnreachableError(f"{server} does not answer: is the cluster up, and this machine in its network?")
    why = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else ""
    return UnreachableError(f"{server} cannot be reached: {why or str(error) or type(error).__name__}")


def failure(status: Mapping[str, Any], server: str) -> ClientError:
    """A Status object of the API as the error that it stands for."""
    code = status.get("code")
    return _error(code if isinstance(code, int) else 500, json.dumps(status), server)


def _error(code: int, text: str, server: str) -> ClientError:
    try:
        status: Any = json.loads(text)
    except ValueError:
        status = None
    told = isinstance(status, dict) and status.get("kind") == "Status"
    message = str(status.get("message") or "") if told else ""
    details = (status.get("details") if told else None) or {}
    if code == 401:
        return AccessDeniedError(f"{server} does not accept the kubeconfig's credentials: log in again")
    if code == 403:
        return AccessDeniedError(_denied(message or _short(text)))
    if code == 404 and (told or text.strip() == "404 page not found"):
        if not details.get("name"):
            return NotInstalledError(
                "this cluster does not know Almanac's kinds: almanac crds | kubectl apply --server-side -f -"
            )
        return NotFoundError(message)
    if code == 409:
        return ConflictError(message or _short(text))
    if code == 410 or (told and status.get("reason") == "Expired"):
        return ExpiredError(message)
    if code in (400, 413, 422) or _UNDECLARED in message:
        return RejectedError(_causes(message, details) or _short(text))
    return UnreachableError(f"{server} answers {code}: {message or _short(text) or 'it may not be a Kubernetes API'}")


def _denied(message: str) -> str:
    """The server's refusal, and the permission that would do."""
    match = re.search(
        r'User "(?P<who>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
        r'(?: in the namespace "(?P<namespace>[^"]*)")?',
        message,
    )
    if not match:
        return message
    resource, _, sub = match["resource"].partition("/")
    full = (f"{resource}.{match['group']}" if match["group"] else resource) + (f"/{sub}" if sub else "")
    where = f" in namespace {match['namespace']}" if match["namespace"] else " in all namespaces"
    return (
        f"{match['who']} may not {match['verb']} {full}{where}: ask whoever runs the cluster for a Role that allows it"
    )


def _causes(message: str, details: Mapping[str, Any]) -> str:
    """What is wrong, a line for each field."""
    causes = [cause for cause in details.get("causes") or () if isinstance(cause, Mapping) and cause.get("field")]
    said = [f"{cause['field']}: {cause.get('message', '')}" for cause in causes if cause["field"] != "<nil>"]
    return "\n".join(dict.fromkeys(said)) or message


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 200 else f"{plain[:199]}…"
