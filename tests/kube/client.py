"""What a test itself asks of an API: plain documents in, plain documents out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from kube.refusals import Problem, Refusal
from kube.resources import BUILT_IN

Document = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
OPERATIONS = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"

_BUILT_IN = {one.plural: (one.api_version, one.namespaced) for one in BUILT_IN if one.group != "events.k8s.io"}


class Client:
    """Every verb. Kinds are named by their plural; `version` is for those that have more than one.

    What is not in a namespace, or in another than the client's, is asked for with `namespace=`; an empty one stands
    for all. Raises Refusal when the answer is an error.
    """

    def __init__(self, url: str, namespace: str = "", token: str = "") -> None:
        self.url, self.namespace = url, namespace
        self._places = dict(_BUILT_IN)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["User-Agent"] = "test"
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def know(self, plural: str, api_version: str) -> None:
        """Learn where a custom resource is."""
        self._places[plural] = (api_version, True)

    def path(self, plural: str, name: str = "", sub: str = "", namespace: str | None = None, version: str = "") -> str:
        api_version, namespaced = self._places.get(plural, (version, True))
        api_version = version or api_version
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        inside = self.namespace if namespace is None else namespace
        place = f"/namespaces/{inside}" if namespaced and inside else ""
        return f"{root}{place}/{plural}" + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")

    def request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json", **query: Any
    ) -> requests.Response:
        """One request, whatever the answer."""
        data = None if body is None else body if isinstance(body, (str, bytes)) else json.dumps(body)
        headers = {"Content-Type": kind} if data is not None else {}
        if "accept" in query:
            headers["Accept"] = query.pop("accept")
        return self._session.request(method, self.url + path, data=data, headers=headers, params=query, timeout=60)

    def _do(self, method: str, path: str, body: Any = None, kind: str = "application/json", **query: Any) -> Document:
        reply = self.request(method, path, body, kind, **query)
        told: Document = reply.json()
        if reply.status_code >= 400:
            details = told.get("details") or {}
            causes = [
                Problem(one.get("field", ""), one.get("message", ""), one.get("reason", ""))
                for one in details.get("causes", [])
            ]
            raise Refusal(reply.status_code, told.get("reason", ""), told.get("message", ""), tuple(causes), details)
        return told

    def create(
        self, plural: str, item: Document, *, namespace: str | None = None, version: str = "", **query: Any
    ) -> Document:
        return self._do("POST", self.path(plural, namespace=namespace, version=version), item, **query)

    def get(self, plural: str, name: str, *, namespace: str | None = None, version: str = "") -> Document:
        return self._do("GET", self.path(plural, name, namespace=namespace, version=version))

    def find(self, plural: str, name: str, *, namespace: str | None = None) -> Document | None:
        """The object, or None."""
        try:
            return self.get(plural, name, namespace=namespace)
        except Refusal as refusal:
            if refusal.code != 404:
                raise
            return None

    def list(
        self,
        plural: str,
        *,
        labels: str = "",
        fields: str = "",
        namespace: str | None = None,
        version: str = "",
        **query: Any,
    ) -> list[Document]:
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        query |= {name: text for name, text in selectors.items() if text}
        items: list[Document] = self._do("GET", self.path(plural, namespace=namespace, version=version), **query)[
            "items"
        ]
        return items

    def replace(self, plural: str, item: Document, *, sub: str = "", namespace: str | None = None) -> Document:
        return self._do("PUT", self.path(plural, item["metadata"]["name"], sub, namespace), item)

    def patch(
        self,
        plural: str,
        name: str,
        body: Any,
        *,
        kind: str = MERGE,
        sub: str = "",
        namespace: str | None = None,
        **query: Any,
    ) -> Document:
        return self._do("PATCH", self.path(plural, name, sub, namespace), body, kind, **query)

    def apply(
        self, plural: str, item: Document, manager: str = "test", *, sub: str = "", force: bool = False
    ) -> Document:
        """Server-side apply."""
        query = {"fieldManager": manager} | ({"force": "true"} if force else {})
        return self.patch(plural, item["metadata"]["name"], item, kind=APPLY, sub=sub, **query)

    def delete(
        self, plural: str, name: str, policy: str = "Background", *, namespace: str | None = None, **options: Any
    ) -> Document:
        """`policy` may be empty: what becomes of dependents is the server's choice then."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", **options}
        body |= {"propagationPolicy": policy} if policy else {}
        return self._do("DELETE", self.path(plural, name, namespace=namespace), body)

    @contextmanager
    def watch(
        self, plural: str, *, namespace: str | None = None, version: str = "", **query: Any
    ) -> Iterator[Iterator[Document]]:
        """The events of a watch, one after the other; they end with the watch, which lasts 30 s at most."""
        query = {"watch": "1", "timeoutSeconds": "30", **query}
        path = self.path(plural, namespace=namespace, version=version)
        reply = self._session.get(self.url + path, params=query, stream=True, timeout=60)
        with reply:
            if reply.status_code >= 400:
                told = reply.json()
                raise Refusal(reply.status_code, told["reason"], told["message"])
            yield (json.loads(line) for line in reply.iter_lines(chunk_size=1) if line)
