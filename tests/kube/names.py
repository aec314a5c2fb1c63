"""The rules for names, labels and annotations of every object."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kube.refusals import Problem
from kube.resources import Document, Resource

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_PATH_SEGMENTS = "rbac.authorization.k8s.io"

SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character"
)
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character"
)
VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character"
)


def problems(resource: Resource, item: Document) -> Iterator[Problem]:
    """What the API server refuses in the metadata of an object."""
    metadata = item["metadata"]
    name = metadata["name"]
    if resource.group == _PATH_SEGMENTS:
        if "/" in name or "%" in name or name in (".", ".."):
            yield Problem("metadata.name", f"Invalid value: \"{name}\": may not contain '/' or '%'")
    elif resource.plural in ("namespaces", "services"):
        if not _DNS_LABEL.fullmatch(name) or len(name) > 63:
            yield Problem("metadata.name", f'Invalid value: "{name}": {LABEL_RULE}')
    elif not _DNS_SUBDOMAIN.fullmatch(name) or len(name) > 253:
        yield Problem("metadata.name", f'Invalid value: "{name}": {SUBDOMAIN_RULE}')
    yield from labels(metadata.get("labels"), "metadata.labels")
    yield from _annotations(metadata.get("annotations"))
    yield from _owners(metadata.get("ownerReferences"))
    for one in metadata.get("finalizers") or []:
        if "/" not in one and one not in ("orphan", "foregroundDeletion", "kubernetes"):
            yield Problem("metadata.finalizers", f'Invalid value: "{one}": name is neither a standard finalizer name')


def labels(given: Any, path: str) -> Iterator[Problem]:
    for key, value in (given or {}).items():
        yield from _key(key, path)
        if not isinstance(value, str) or (value and not _QUALIFIED.fullmatch(value)):
            yield Problem(path, f'Invalid value: "{value}": {VALUE_RULE}')
        elif len(value) > 63:
            yield Problem(path, f'Invalid value: "{value}": must be no more than 63 bytes')


def _annotations(given: Any) -> Iterator[Problem]:
    total = 0
    for key, value in (given or {}).items():
        yield from _key(key.lower(), "metadata.annotations")
        total += len(key.encode()) + len(value.encode())
    if total > 256 * 1024:
        yield Problem("metadata.annotations", "Too long: may not be more than 262144 bytes", "FieldValueTooLong")


def _key(key: str, path: str) -> Iterator[Problem]:
    prefix, slash, name = key.rpartition("/")
    if (slash and not _DNS_SUBDOMAIN.fullmatch(prefix)) or not _QUALIFIED.fullmatch(name) or len(name) > 63:
        yield Problem(path, f'Invalid value: "{key}": name part must consist of alphanumeric characters')


def _owners(given: Any) -> Iterator[Problem]:
    for place, one in enumerate(given or []):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not one.get(name):
                yield Problem(f"metadata.ownerReferences[{place}].{name}", "Required value", "FieldValueRequired")
    if sum(bool(one.get("controller")) for one in given or []) > 1:
        yield Problem("metadata.ownerReferences", "Invalid value: Only one reference can have Controller set to true")
