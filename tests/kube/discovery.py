"""What the API says of itself: groups, versions, kinds, and their schemas for clients that validate and explain."""

from __future__ import annotations

from collections.abc import Iterable

from kube.refusals import unknown_path
from kube.resources import Document, Resource

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")

VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0-embedded",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}


def document(path: tuple[str, ...], served: Iterable[Resource]) -> Document:
    """The discovery document at a path such as `("apis", "batch", "v1")`. Raises Refusal where there is none."""
    kinds = list(served)
    groups = list(dict.fromkeys(one.group for one in kinds if one.group))
    match path:
        case ("version",):
            return VERSION
        case ("api",):
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ("apis",):
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(one, kinds) for one in groups]}
        case ("apis", group) if group in groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, kinds)}
        case ("api", "v1") | ("apis", _, _):
            wanted = "/".join(path[1:])
            if found := [one for one in kinds if one.api_version == wanted]:
                return _list(wanted, found)
        case ("openapi", "v3"):
            places = {_place(one) for one in kinds}
            return {"paths": {one: {"serverRelativeURL": f"/openapi/v3/{one}?hash=0"} for one in sorted(places)}}
        case ("openapi", "v3", *rest):
            if found := [one for one in kinds if _place(one) == "/".join(rest)]:
                return _openapi(found)
    raise unknown_path()


def _place(resource: Resource) -> str:
    return f"apis/{resource.api_version}" if resource.group else "api/v1"


def _group(group: str, kinds: list[Resource]) -> Document:
    versions = dict.fromkeys(one.version for one in kinds if one.group == group)
    told = [{"groupVersion": f"{group}/{one}", "version": one} for one in versions]
    return {"name": group, "versions": told, "preferredVersion": told[0]}


def _list(group_version: str, kinds: list[Resource]) -> Document:
    listed = []
    for one in kinds:
        shared = {"namespaced": one.namespaced, "kind": one.kind}
        extras = {"shortNames": list(one.short_names), "categories": list(one.categories)}
        listed.append(
            {"name": one.plural, "singularName": one.kind.lower(), **shared, "verbs": _VERBS}
            | {name: value for name, value in extras.items() if value}
        )
        for sub in one.subresources:
            verbs = {"status": ["get", "patch", "update"], "log": ["get"]}.get(sub, ["create"])
            listed.append({"name": f"{one.plural}/{sub}", "singularName": "", **shared, "verbs": verbs})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


def _openapi(kinds: list[Resource]) -> Document:
    paths: Document = {}
    schemas: Document = {}
    for one in kinds:
        kind = {"group": one.group, "version": one.version, "kind": one.kind}
        name = f"embedded.{one.group or 'core'}.{one.version}.{one.kind}"
        schemas[name] = {**(one.schema or {"type": "object"}), "x-kubernetes-group-version-kind": [kind]}
        reference = {"schema": {"$ref": f"#/components/schemas/{name}"}}
        parameters = [{"name": text, "in": "query", "schema": {"type": "string"}} for text in _WRITE_PARAMETERS]
        base = f"/{_place(one)}{'/namespaces/{namespace}' if one.namespaced else ''}/{one.plural}"
        for path, verbs in ((base, ("post",)), (f"{base}/{{name}}", ("get", "put", "patch"))):
            paths[path] = {
                verb: {
                    "x-kubernetes-action": verb,
                    "x-kubernetes-group-version-kind": kind,
                    "parameters": parameters,
                    "responses": {"200": {"description": "OK", "content": {"application/json": reference}}},
                }
                for verb in verbs
            }
    info = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}
