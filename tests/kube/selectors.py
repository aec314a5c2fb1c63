"""Label and field selectors, as text in a query and as objects in a spec."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kube.refusals import bad_request

Labels = Mapping[str, str]
Predicate = Callable[[dict[str, Any]], bool]

_BETWEEN = re.compile(r",(?![^(]*\))")
_SET = re.compile(r"(\S+)\s+(in|notin)\s*\(([^)]*)\)")


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
    if "!=" in text:
        key, _, value = (part.strip() for part in text.partition("!="))
        return lambda labels: labels.get(key) != value
    if "=" in text:
        key, value = (part.strip() for part in re.split("==?", text, maxsplit=1))
        return lambda labels: labels.get(key) == value
    if not re.fullmatch(r"!?[A-Za-z0-9_./-]+", text):
        raise bad_request(f"unable to parse requirement: {text!r}")
    if text[0] == "!":
        return lambda labels: text[1:] not in labels
    return lambda labels: text in labels


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
