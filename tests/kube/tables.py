"""Objects as the table that `kubectl get` prints."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from kube.resources import Document, Resource
from kube.selectors import at

_NAME = {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}
_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_FILTER = re.compile(r'^(.*)\[\?\(@\.(\w+)=="([^"]*)"\)\](.*)$')


def table(resource: Resource, items: list[Document], metadata: Document) -> Document:
    columns = resource.columns or (_AGE,)
    told = [
        {"name": one["name"], "type": one["type"], "format": "", "description": "", "priority": one.get("priority", 0)}
        for one in columns
    ]
    rows = [
        {
            "cells": [item["metadata"]["name"], *(_cell(item, one) for one in columns)],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": item["metadata"],
            },
        }
        for item in items
    ]
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    return {**head, "columnDefinitions": [_NAME, *told], "rows": rows}


def _cell(item: Document, column: Document) -> Any:
    path = column["jsonPath"]
    if found := _FILTER.match(path):  # conditions[?(@.type=="Ready")].reason
        items = at(item, found[1]) or []
        value = next((at(one, found[4]) for one in items if one.get(found[2]) == found[3]), None)
    else:
        value = at(item, path)
    return _age(value) if value and column["type"] == "date" else value


def _age(moment: str) -> str:
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    for size, unit in ((172_800, "d"), (7_200, "h"), (120, "m")):
        if seconds >= size:
            return f"{seconds // {'d': 86_400, 'h': 3_600, 'm': 60}[unit]}{unit}"
    return f"{seconds}s"
