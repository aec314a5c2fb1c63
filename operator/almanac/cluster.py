"""The Kubernetes API: the only module that calls it. Plain dicts in and out, one request for each method.

Every refusal is an `ApiError` that carries the API's own words. Nothing is tried twice here: who asked knows better
whether and when to ask again. Only a token that has expired is read anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from almanac import nesting
from almanac.api import GROUP, KINDS, VERSION
from almanac.kubeconfig import Access, AccessError

Raw = Mapping[str, Any]

TIMEOUT = 15.0
"""Seconds that a request may take."""
PAGE = 50
"""Objects that one page of a list holds: what bounds the memory that reading a list takes. A job may have 1.5 MiB."""
PROGRESS_PORT = 9400
_PROGRESS_TIMEOUT = aiohttp.ClientTimeout(total=2)
_PROGRESS_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as the API's paths name it."""

    group: str
    version: str
    plural: str
    kind: str

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """The path of one object, or of all in a namespace, or (`namespace` None) of all."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{quote(namespace, safe='')}" if namespace is not None else ""
        parts = (quote(part, safe="") for part in (self.plural, name, subresource) if part)
        return f"{root}{within}/{'/'.join(parts)}"


JOBS: dict[str, Resource] = {kind: Resource(GROUP, VERSION, f"{kind.lower()}s", kind) for kind in KINDS}
"""The kinds of job."""
DRIVERS = Resource("batch", "v1", "jobs", "Job")
PODS = Resource("", "v1", "pods", "Pod")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
WARNINGS = Resource("", "v1", "events", "Event")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview")

SERVICES = Resource("", "v1", "services", "Service")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
DASK_CLUSTERS = Resource("kubernetes.dask.org", "v1", "daskclusters", "DaskCluster")

CREATED: dict[str, Resource] = {
    one.kind: one
    for one in (
        *(SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS, SERVICES, CONFIG_MAPS),
        *(NETWORK_POLICIES, DASK_CLUSTERS, DRIVERS),
    )
}
"""What runs are made of, by kind."""


class ApiError(Exception):
    """The API refused a request, or did not answer (`code` 0)."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{reason or code}: {message}" if code else message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds after which the API wants to be asked again."""

    @property
    def gone(self) -> bool:
        """There is no such object, or it is not the one that was meant."""
        return self.code == 404

    @property
    def conflict(self) -> bool:
        """The object has changed since it was read, or there is one of that name already."""
        return self.code == 409

    @property
    def too_large(self) -> bool:
        """The object is larger than what the API, or the store behind it, takes."""
        return self.code == 413 or (self.code == 500 and "request is too large" in self.message)


class Answer(aiohttp.ClientResponse):
    """A response of the API. Jobs in it are cut where they are nested too deeply to be read: other kinds cannot be."""

    @property
    def of_jobs(self) -> bool:
        """Whether it holds jobs."""
        return self.status == 200 and self.url.path.startswith(f"/apis/{GROUP}/")

    async def read(self) -> bytes:
        """The body."""
        content = await super().read()
        return nesting.cut(content) if self.of_jobs else content

    async def json(self, **options: Any) -> Any:
        """The body, read."""
        return json.loads(await self.read()) if self.of_jobs else await super().json(**options)


class Cluster:
    """One Kubernetes API. Open it with `async with`."""

    def __init__(self, access: Access, *, counted: Callable[[str, int], None] = lambda verb, code: None) -> None:
        self.access = access
        self._origin = URL(access.server).origin()
        self._counted = counted
        self._session: aiohttp.ClientSession | None = None
        self.forbidden = asyncio.Event()
        """Set whenever the API forbids something (403)."""

    async def __aenter__(self) -> Cluster:
        self._session = self.session()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def session(self, response_class: type[aiohttp.ClientResponse] = Answer) -> aiohttp.ClientSession:
        """A session that reaches this API and proves who we are with every request. The caller closes it."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self.access.tls or True),
            headers={"User-Agent": "almanac"},
            middlewares=(self._authorized,),
            response_class=response_class,
        )

    async def _authorized(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Says who we are, to the API alone; once more with a new token where the old one is not taken. And counts."""
        if request.url.origin() != self._origin:
            return await handler(request)
        token = self.access.token
        request.headers.update(self.access.headers)
        request.server_hostname = self.access.server_name or None
        if self.access.proxy:
            request.update_proxy(URL(self.access.proxy), None, None)
        await self._prove(request)
        response = await handler(request)
        if response.status == 401 and token is not None:
            response.close()  # a certificate that has expired is the connection's
            token.expire()
            await self._prove(request)
            response = await handler(request)
        self._counted(_verb(request.method, request.url.query), response.status)
        if response.status == 403:
            self.forbidden.set()
        return response

    async def _prove(self, request: aiohttp.ClientRequest) -> None:
        """Add the token, if there is one. It may have to be read, or got from a plugin."""
        token = self.access.token
        value = "" if token is None else await asyncio.to_thread(token.get) if token.stale else token.get()
        if value:
            request.headers["Authorization"] = f"Bearer {value}"

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        """One object."""
        return await self._call("GET", resource.path(namespace, name))

    async def list(self, resource: Resource, namespace: str | None, **query: str) -> AsyncIterator[dict[str, Any]]:
        """The pages of a list, each as the API gives it. Its items name their kind, as single objects do."""
        query = {"limit": str(PAGE), **query}
        while True:
            page = await self._call("GET", resource.path(namespace), query=query)
            kind = {"kind": resource.kind}
            page["items"] = [one | kind for one in page.get("items") or ()]
            yield page
            more = page["metadata"].get("continue")
            if not more:
                return
            query = query | {"continue": more}

    async def create(self, manifest: Raw) -> dict[str, Any] | None:
        """Create an object; None where one of its name exists. A field that the API does not know is refused."""
        resource = CREATED[manifest["kind"]]
        path = resource.path(manifest["metadata"]["namespace"])
        try:
            return await self._call("POST", path, manifest, query={"fieldValidation": "Strict"})
        except ApiError as error:
            if error.conflict and error.reason == "AlreadyExists":
                return None
            raise

    async def delete(self, resource: Resource, namespace: str | None, name: str, uid: str = "") -> None:
        """Delete an object, and later what it owns; one that is not there is fine. `uid` spares one made anew."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", resource.path(namespace, name), options)
        except ApiError as error:
            if not error.gone and not (uid and error.conflict):
                raise

    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Raw, subresource: str = ""
    ) -> dict[str, Any]:
        """Change an object by a JSON merge patch; with metadata.resourceVersion in it only if that is still so."""
        path = resource.path(namespace, name, subresource)
        return await self._call("PATCH", path, patch, content_type="application/merge-patch+json")

    async def post(self, resource: Resource, namespace: str | None, document: Raw) -> dict[str, Any]:
        """Create an object of a given kind."""
        return await self._call("POST", resource.path(namespace), document)

    async def replace(self, resource: Resource, namespace: str, name: str, document: Raw) -> dict[str, Any]:
        """Replace an object, if it is still of the resourceVersion that the document has."""
        return await self._call("PUT", resource.path(namespace, name), document)

    async def allows(self, attributes: Mapping[str, str]) -> bool:
        """Whether the API allows us what the `resourceAttributes` of a SelfSubjectAccessReview say."""
        review = {"apiVersion": f"{REVIEWS.group}/{REVIEWS.version}", "kind": REVIEWS.kind}
        answer = await self.post(REVIEWS, None, review | {"spec": {"resourceAttributes": dict(attributes)}})
        return bool((answer.get("status") or {}).get("allowed"))

    async def progress(self, address: str) -> dict[str, Any] | None:
        """What a driver at this address says of how far it is; None where it does not answer."""
        if self._session is None:
            raise RuntimeError("the cluster is not open")
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{PROGRESS_PORT}/progress"
        try:
            async with self._session.get(url, timeout=_PROGRESS_TIMEOUT, allow_redirects=False) as response:
                read = json.loads(await response.content.read(_PROGRESS_LENGTH)) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return read if isinstance(read, dict) else None

    async def _call(
        self,
        method: str,
        path: str,
        body: Raw | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        if self._session is None:
            raise RuntimeError("the cluster is not open")
        try:
            async with self._session.request(
                method,
                self.access.server + path,
                params=query,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": content_type} if body is not None else None,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            ) as response:
                content = await response.read()
                if response.status >= 400:
                    raise _refused(response, content)
                read: dict[str, Any] = json.loads(content)
                return read
        except AccessError as error:
            raise ApiError(0, "NoCredentials", f"{method} {path}: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._counted(_verb(method, query or {}), 0)
            raise ApiError(0, "Unreachable", f"{method} {path}: {str(error) or type(error).__name__}") from error


def _verb(method: str, query: Mapping[str, str]) -> str:
    """A request in the API's words."""
    if method == "GET":
        return "watch" if "watch" in query else "get"
    return {"POST": "create", "PUT": "update"}.get(method, method.lower())


def _refused(response: aiohttp.ClientResponse, content: bytes) -> ApiError:
    """The error that a response is: a Status object, or whatever stands between us and the API has to say."""
    try:
        status = json.loads(content)
    except ValueError:
        status = {}
    if not isinstance(status, dict):
        status = {}
    message = status.get("message") or content[:200].decode(errors="replace") or response.reason or ""
    after = response.headers.get("Retry-After", "")
    return ApiError(response.status, status.get("reason") or "", message, float(after) if after.isdecimal() else None)
