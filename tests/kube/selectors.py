"""Label and field selectors, as text in a query and as objects in a spec."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kube.refusals import bad_request

Labels = Mapping[str, str]
Predicate = Callable[[dict[str, Any]], bool]

_BETWEEN = re.compile(r",(?![^(]*\))")
_PRESENCE = re.compile(r"(!?)\s*([\w./-]+)")
_EQUALITY = re.compile(r"([\w./-]+)\s*(==|=|!=)\s*([\w.-]*)")
_SET = re.compile(r"([\w./-]+)\s+(in|notin)\s*\(([^)]*)\)")


def by_labels(text: str) -> Predicate:
    """What `labelSelector=text` selects."""
    requirements = [_requirement(part.strip()) for part in _BETWEEN.split(text) if part.strip()]

    def selects(item: dict[str, Any]) -> bool:
        labels = item["metadata"].get("labels") or {}
        return all(holds(labels) for holds in requirements)

    return selects


def _requirement(text: str) -> Callable[[Labels], bool]:
    if found := _SET.fullmatch(text):
        key, values = found[1], {value.strip() for value in found[3].split(",")}
        if found[2] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUALITY.fullmatch(text):
        key, value = found[1], found[3]
        if found[2] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if not (found := _PRESENCE.fullmatch(text)):
        raise bad_request(f"unable to parse requirement: {text!r}")
    key = found[2]
    if found[1]:
        return lambda labels: key not in labels
    return lambda labels: key in labels


def by_fields(text: str) -> Predicate:
    """What `fieldSelector=text` selects."""
    requirements = [re.fullmatch(r"([^!=]+)(!?)==?(.*)", part) for part in text.split(",") if part]
    if not all(requirements):
        raise bad_request(f"invalid field selector: {text!r}")

    def selects(item: dict[str, Any]) -> bool:
        return all((str(at(item, one[1]) or "") == one[3]) != bool(one[2]) for one in requirements if one)

    return selects


def at(item: Any, path: str) -> Any:
    """The value at a path of names such as `status.phase`; None where there is none."""
    for name in path.strip(".").split("."):
        item = item.get(name) if isinstance(item, dict) else None
    return item
