"""The embedded API as HTTP sees it: paths, queries, bodies and watches."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from aiohttp import web

from kube import discovery, events, patches, reviews, selectors
from kube.api import Api, Options, key_of
from kube.refusals import Refusal, bad_request, expired, unknown_path
from kube.resources import EVENTS, PODS, Document, Resource
from kube.selectors import Predicate
from kube.store import Change
from kube.tables import table

_MOST_BYTES = 3 << 20
_INITIAL_END = {"k8s.io/initial-events-end": "true"}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path leads to."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


class Embedded:
    """The API of this process: every answer but for faults."""

    bookmark_every = 5.0

    def __init__(self) -> None:
        self.api = Api()

    async def advance(self) -> int:
        """Compact: the version from which on watches can start."""
        self.api.objects.compact()
        return self.api.objects.oldest

    def back_up(self) -> Callable[[bool], None]:
        """See `Objects.back_up`."""
        return self.api.objects.back_up()

    # Requests

    async def answer(self, request: web.Request) -> web.Response:
        path = tuple(part for part in request.path.split("/") if part)
        if path in (("healthz",), ("readyz",), ("livez",)):
            return web.Response(text="ok")
        if request.path == reviews.PATH and request.method == "POST":
            return web.json_response(reviews.answered(await request.json(), allowed=True), status=201)
        target = self._target(path)
        if target is None:
            return web.json_response(discovery.document(path, self.api.served.values()))
        code, body = self._do(request.method, target, request, await _body(request))
        return web.json_response(body, status=code)

    def _target(self, path: tuple[str, ...]) -> Target | None:
        match path:
            case ("api", "v1", first, *more):
                group, version = "", "v1"
            case ("apis", group, version, first, *more):
                pass
            case _:
                return None
        namespace, rest = "", [first, *more]
        if first == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        resource = self.api.served.get((group, version, rest[0]))
        name, subresource, *beyond = [*rest[1:], "", ""][: max(2, len(rest) - 1)]
        if resource is None or beyond or (subresource and subresource not in resource.subresources):
            raise unknown_path()
        return Target(resource, namespace, name, subresource)

    def _do(self, method: str, target: Target, request: web.Request, body: Any) -> tuple[int, Document]:
        resource, namespace, name = target.resource, target.namespace, target.name
        as_table = "as=Table" in request.headers.get("Accept", "")
        options = _options(request, target)
        match method, bool(name):
            case "GET", False:
                return 200, self._list(target, request.query, as_table)
            case "GET", True:
                found = self.api.get(resource, namespace, name)
                shown = self.api.shown(resource, found)
                return 200, table(resource, [shown], {"resourceVersion": "0"}) if as_table else shown
            case "POST", False:
                return 201, self.api.shown(resource, self.api.create(resource, namespace, body, options))
            case "POST", True if target.subresource == "binding" and resource.store == PODS:
                self.api.bind(namespace, name, body)
                return 201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
            case "PUT", True:
                return 200, self.api.shown(resource, self.api.update(resource, namespace, name, body, options))
            case "PATCH", True:
                return self._patch(target, request.content_type, body, options)
            case "DELETE", True:
                return 200, self._delete(target, body, request.query)
            case "DELETE", False:
                for item in self._selected(target, request.query):
                    self.api.delete(resource, *key_of(item), _delete_options(body, request.query))
                return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        told = "the server does not allow this method on the requested resource"
        raise Refusal(405, "MethodNotAllowed", told)

    def _patch(self, target: Target, kind: str, body: Any, options: Options) -> tuple[int, Document]:
        place = (target.resource, target.namespace, target.name)
        match kind:
            case "application/apply-patch+yaml" | "application/apply-patch+cbor":
                if options.manager == "unknown":
                    raise bad_request(
                        "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch"
                    )
                new = self.api.objects.find(target.resource.store, (target.namespace, target.name)) is None
                return 201 if new else 200, self.api.shown(target.resource, self.api.apply(*place, body, options))
            case "application/json-patch+json":
                made = self.api.patch(*place, lambda old: patches.operations(old, body), options)
            case "application/merge-patch+json":
                made = self.api.patch(*place, lambda old: _on_latest(patches.merge(old, body), body), options)
            case "application/strategic-merge-patch+json" if not target.resource.custom:
                made = self.api.patch(*place, lambda old: _on_latest(patches.strategic(old, body), body), options)
            case _:
                told = "the body of the request was in an unknown format - accepted media types include: "
                kinds = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
                raise Refusal(415, "UnsupportedMediaType", told + kinds)
        return 200, self.api.shown(target.resource, made)

    def _delete(self, target: Target, body: Any, query: Mapping[str, str]) -> Document:
        resource = target.resource
        left, gone = self.api.delete(resource, target.namespace, target.name, _delete_options(body, query))
        if not gone or resource.store == PODS:
            return self.api.shown(resource, left)
        details = {
            "name": target.name,
            "group": resource.group,
            "kind": resource.plural,
            "uid": left["metadata"]["uid"],
        }
        details = {key: value for key, value in details.items() if value}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    # Lists

    def _selected(self, target: Target, query: Mapping[str, str]) -> list[Document]:
        selects = _selects(target, query)
        return [one for one in self.api.objects.all(target.resource.store, target.namespace) if selects(one)]

    def _list(self, target: Target, query: Mapping[str, str], as_table: bool) -> Document:
        resource = target.resource
        version, start = self.api.objects.version, 0
        if token := query.get("continue"):
            version, start = json.loads(base64.b64decode(token))
            if version < self.api.objects.oldest:
                raise expired("The provided continue parameter is too old to display a consistent list result.")
        metadata: Document = {"resourceVersion": str(version)}
        found = self._selected(target, query)
        limit = int(query.get("limit") or 0)
        if limit and len(found) > start + limit:
            metadata["continue"] = base64.b64encode(json.dumps([version, start + limit]).encode()).decode()
            if not query.get("labelSelector") and not query.get("fieldSelector"):
                metadata["remainingItemCount"] = len(found) - start - limit
        page = [self.api.shown(resource, one) for one in (found[start : start + limit] if limit else found)]
        if as_table:
            return table(resource, page, metadata)
        if not resource.custom:  # kinds of items are known from the list's
            page = [{key: value for key, value in one.items() if key not in ("apiVersion", "kind")} for one in page]
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": page}

    # Watches

    async def watch(self, request: web.Request) -> AsyncIterator[bytes]:
        """The lines of a watch. Raises Refusal for one that cannot begin."""
        target = self._target(tuple(part for part in request.path.split("/") if part))
        if target is None:
            raise unknown_path()
        query = dict(request.query)
        if target.name:
            query["fieldSelector"] = f"metadata.name={target.name}"
        since = query.get("resourceVersion") or "0"
        if not since.isdigit():
            told = f'strconv.ParseUint: parsing "{since}": invalid syntax'
            raise bad_request(f'resourceVersion: Invalid value: "{since}": {told}')
        if query.get("sendInitialEvents") != "true" and since != "0" and int(since) < self.api.objects.oldest:
            return too_old(since, self.api.objects.oldest)
        return self._watching(target, query, int(since), "as=Table" in request.headers.get("Accept", ""))

    async def _watching(
        self, target: Target, query: Mapping[str, str], since: int, as_table: bool
    ) -> AsyncIterator[bytes]:
        """First what there is or what has changed since, then what changes, until its time is over."""
        resource, selects = target.resource, _selects(target, query)
        changes: asyncio.Queue[Change] = asyncio.Queue()

        def line(kind: str, item: Document) -> bytes:
            shown = self.api.shown(resource, item)
            return _line(kind, table(resource, [shown], {"resourceVersion": "0"}) if as_table else shown)

        def listen(change: Change) -> None:
            if change.store == resource.store:
                changes.put_nowait(change)

        self.api.objects.listeners.append(listen)
        try:
            whole = query.get("sendInitialEvents") == "true"
            present = [line("ADDED", one) for one in self._selected(target, query)] if whole or not since else []
            if whole:
                present.append(self._bookmark(resource, {"annotations": _INITIAL_END}))
            elif since:
                for change in self.api.objects.since(since):
                    listen(change)
            for one in present:
                yield one
            over = asyncio.get_running_loop().time() + float(query.get("timeoutSeconds") or 1800)
            while (left := over - asyncio.get_running_loop().time()) > 0:
                try:
                    change = await asyncio.wait_for(changes.get(), min(left, self.bookmark_every))
                except TimeoutError:
                    if query.get("allowWatchBookmarks") in ("true", "1"):
                        yield self._bookmark(resource, {})
                    continue
                if change.version <= since:  # a watch from the future hears nothing until that has come
                    continue
                if kind := _seen(change, selects):
                    yield line(kind, change.object)
        finally:
            self.api.objects.listeners.remove(listen)

    def _bookmark(self, resource: Resource, metadata: Document) -> bytes:
        metadata = {"resourceVersion": str(self.api.objects.version), "creationTimestamp": None, **metadata}
        return _line("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata})


async def too_old(since: str, oldest: int) -> AsyncIterator[bytes]:
    """A watch from a version that is forgotten: one line, and its end."""
    yield _line("ERROR", expired(f"too old resource version: {since} ({oldest})").status())


def _seen(change: Change, selects: Predicate) -> str:
    """What a change is to those who see only some objects; empty if nothing."""
    was, is_now = change.before is not None and selects(change.before), selects(change.object)
    if change.type == "DELETED":
        return "DELETED" if was or is_now else ""
    if was:
        return "MODIFIED" if is_now else "DELETED"
    return "ADDED" if is_now else ""


def _as_it_is(item: Document) -> Document:
    return item


def _line(kind: str, item: Document) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def _selects(target: Target, query: Mapping[str, str]) -> Predicate:
    labels = selectors.by_labels(query.get("labelSelector", ""))
    events_too = target.resource.store == EVENTS and target.resource.group
    shown = events.to_events if events_too else _as_it_is
    fields = selectors.by_fields(query.get("fieldSelector", ""))
    namespace = target.namespace

    def selects(item: Document) -> bool:
        here = not namespace or item["metadata"].get("namespace") == namespace
        return here and labels(item) and fields(shown(item))

    return selects


def _options(request: web.Request, target: Target) -> Options:
    query = request.query
    agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
    applies = request.content_type.startswith("application/apply-patch")
    return Options(
        subresource=target.subresource,
        manager=query.get("fieldManager") or ("unknown" if applies else agent),
        force=query.get("force") == "true",
        strict=query.get("fieldValidation") == "Strict",
        dry_run=query.get("dryRun") == "All",
    )


def _delete_options(body: Any, query: Mapping[str, str]) -> Document:
    given = dict(body or {})
    for name in ("propagationPolicy", "dryRun"):
        if name in query:
            given[name] = query[name]
    if "gracePeriodSeconds" in query:
        given["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
    return given


def _on_latest(new: Any, patch: Any) -> Any:
    """A merged document is checked against the version that its patch names, if it names one."""
    if not isinstance(patch, dict) or not isinstance(new.get("metadata"), dict):
        raise bad_request("the patch cannot be applied: it leaves no object")
    if "resourceVersion" not in (patch.get("metadata") or {}):
        new["metadata"] = {key: value for key, value in new["metadata"].items() if key != "resourceVersion"}
    return new


async def _body(request: web.Request) -> Any:
    raw = await request.read() if request.can_read_body else b""
    if len(raw) > _MOST_BYTES:
        raise Refusal(413, "RequestEntityTooLarge", f"Request entity too large: limit is {_MOST_BYTES}")
    if not raw:
        return None
    if "protobuf" in request.content_type:
        raise Refusal(415, "UnsupportedMediaType", "the embedded API speaks JSON and YAML only")
    try:
        if "yaml" in request.content_type and raw[:1] != b"{":
            return yaml.safe_load(raw)
        return _whole(json.loads(raw)) if rb"\ud" in raw.lower() else json.loads(raw)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"error decoding the body: {error}") from None


def _whole(value: Any) -> Any:
    """JSON without halves of surrogate pairs: as in Go, a replacement character stands for each."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(name): _whole(one) for name, one in value.items()}
    return [_whole(one) for one in value] if isinstance(value, list) else value
