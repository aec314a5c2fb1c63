"""Who owns which field: the bookkeeping of server-side apply, and `metadata.managedFields`.

A path is a tuple of field names; an item of a list that is merged by keys is `("k", its keys)`, and one of a set is
`("v", itself)`, both as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kube.patches import merge_key
from kube.refusals import Problem, Refusal
from kube.resources import Document, Resource

Element = str | tuple[str, str]
Path = tuple[Element, ...]
ListKeys = Callable[[tuple[str, ...], list[Any]], tuple[str, ...] | None]
"""The keys by which a list at a path of names is merged: none for a set, None for a list that is one value."""

_SERVERS = {
    *(
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
    ),
    *("deletionGracePeriodSeconds", "managedFields", "selfLink"),
}
"""Fields of the metadata that nobody owns."""


@dataclass(slots=True)
class Manager:
    """What one manager owns by one operation."""

    name: str
    operation: str
    subresource: str
    api_version: str
    time: str
    paths: set[Path] = field(default_factory=set)

    def entry(self) -> Document:
        made: Document = {
            "manager": self.name,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(self.paths),
        }
        return made | ({"subresource": self.subresource} if self.subresource else {})


def list_keys(resource: Resource) -> ListKeys:
    """How the lists of a kind are merged by server-side apply."""

    def built_in(path: tuple[str, ...], items: list[Any]) -> tuple[str, ...] | None:
        if path[-1] == "finalizers":
            return ()
        key = merge_key(path[-1], items)
        return (key,) if key and all(isinstance(one, dict) and key in one for one in items) else None

    def custom(path: tuple[str, ...], items: list[Any]) -> tuple[str, ...] | None:
        if path[0] == "metadata":
            return built_in(path, items)
        schema: Any = resource.schema
        for name in path:
            schema = (schema or {}).get("properties", {}).get(name)
        match (schema or {}).get("x-kubernetes-list-type"):
            case "map":
                return tuple(schema["x-kubernetes-list-map-keys"])
            case "set":
                return ()
        return None

    return custom if resource.custom else built_in


def fields(document: Document, keys: ListKeys) -> dict[Path, Any]:
    """The fields of a document that can be owned, with their values."""
    found: dict[Path, Any] = {}
    for name, value in document.items():
        if name == "metadata":
            found.update(
                _leaves({key: one for key, one in value.items() if key not in _SERVERS}, ("metadata",), keys, True)
            )
        elif name not in ("apiVersion", "kind"):
            found.update(_leaves(value, (name,), keys))
    return found


def _leaves(value: Any, path: Path, keys: ListKeys, inner: bool = False) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and (value or inner):
        for name, one in value.items():
            yield from _leaves(one, (*path, name), keys)
    elif isinstance(value, list) and value and (by := keys(_names(path), value)) is not None:
        for one in value:
            place = (*path, _item(one, by))
            yield place, None
            if by:
                yield from _leaves(one, place, keys, inner=True)
    else:
        yield path, value


def _names(path: Path) -> tuple[str, ...]:
    return tuple(one for one in path if isinstance(one, str))


def _item(value: Any, by: tuple[str, ...]) -> tuple[str, str]:
    if not by:
        return "v", json.dumps(value)
    return "k", json.dumps({key: value.get(key) for key in by}, sort_keys=True, separators=(",", ":"))


def _tree(paths: set[Path]) -> Document:
    tree: Document = {}
    for path in sorted(paths, key=str):
        node = tree
        for element in path:
            node = node.setdefault(f"f:{element}" if isinstance(element, str) else ":".join(element), {})
        if not isinstance(path[-1], str):
            node.setdefault(".", {})
    return tree


def updated(managers: list[Manager], by: Manager, before: dict[Path, Any], after: dict[Path, Any]) -> list[Manager]:
    """The owners after a write that was no apply: what it changed is the writer's."""
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    if not changed and after.keys() == before.keys():
        return managers
    kept = []
    for one in managers:
        mine = _same(one, by)
        paths = (one.paths & after.keys()) if mine else (one.paths - changed) & after.keys()
        if mine:
            by = Manager(by.name, by.operation, by.subresource, by.api_version, by.time, by.paths | paths)
        elif paths:
            kept.append(Manager(one.name, one.operation, one.subresource, one.api_version, one.time, paths))
    by.paths |= changed
    return [*kept, by] if by.paths else kept


def _same(one: Manager, other: Manager) -> bool:
    return (one.name, one.operation, one.subresource) == (other.name, other.operation, other.subresource)


def applied(
    managers: list[Manager], by: Manager, live: Document, wanted: Document, keys: ListKeys, force: bool
) -> tuple[Document, list[Manager]]:
    """The document and its owners after an apply. Raises Refusal where others own what it would change."""
    wants, has = fields(wanted, keys), fields(live, keys)
    others = [one for one in managers if not _same(one, by)]
    disputed = [
        (one, path)
        for one in others
        for path in sorted(one.paths & wants.keys(), key=str)
        if has.get(path) != wants[path]
    ]
    if disputed and not force:
        raise _dispute(disputed)
    for one, path in disputed:
        one.paths.discard(path)
    mine = next((one.paths for one in managers if _same(one, by)), set())
    held = set().union(*(one.paths for one in others))
    document = _merged(
        live, {key: value for key, value in wanted.items() if key not in ("apiVersion", "kind")}, (), keys
    )
    for path in sorted(mine - wants.keys() - held, key=len):
        if not any(other[: len(path)] == path for other in held):
            document = _without(document, path)
    by.paths = set(wants)
    return document, [*(one for one in others if one.paths), by]


def _dispute(disputed: list[tuple[Manager, Path]]) -> Refusal:
    told = [Problem(_text(path), f'conflict with "{one.name}"', "FieldManagerConflict") for one, path in disputed]
    one, path = disputed[0]
    plural = "s" if len(told) > 1 else ""
    message = f'Apply failed with {len(told)} conflict{plural}: conflict{plural} with "{one.name}"'
    return Refusal(409, "Conflict", f"{message} using {one.api_version}: {_text(path)}", tuple(told))


def _text(path: Path) -> str:
    return "".join(f".{one}" if isinstance(one, str) else f"[{one[1]}]" for one in path)


def _merged(live: Any, wanted: Any, path: Path, keys: ListKeys) -> Any:
    if isinstance(wanted, dict):
        made = dict(live) if isinstance(live, dict) else {}
        for name, value in wanted.items():
            if not (path == ("metadata",) and name in _SERVERS and name in made):
                made[name] = _merged(made.get(name), value, (*path, name), keys)
        return made
    if isinstance(wanted, list) and isinstance(live, list) and (by := keys(_names(path), wanted)) is not None:
        items = {_item(one, by): one for one in live}
        for one in wanted:
            place = _item(one, by)
            items[place] = _merged(items.get(place), one, (*path, place), keys)
        return list(items.values())
    return wanted


def _without(value: Any, path: Path) -> Any:
    """A document without a field; a map that this leaves empty goes with it."""
    first, rest = path[0], path[1:]
    if isinstance(first, tuple):
        if not isinstance(value, list):
            return value
        by = tuple(json.loads(first[1])) if first[0] == "k" else ()
        made = []
        for one in value:
            if (by and not isinstance(one, dict)) or _item(one, by) != first:
                made.append(one)
            elif rest:
                made.append(_without(one, rest))
        return made
    if not isinstance(value, dict) or first not in value:
        return value
    if not rest:
        return {name: one for name, one in value.items() if name != first}
    inner = _without(value[first], rest)
    return {name: one for name, one in value.items() if name != first} if inner in ({}, []) else {**value, first: inner}
