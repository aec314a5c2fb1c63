"""What is sent of a job: the fields that its author wrote, and nothing that belongs to the cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from almanac.api import API_VERSION, KINDS, Job
from almanac.client.errors import RejectedError

_CLUSTERS = (
    "creationTimestamp",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
"""Metadata that a document has only because it was read from a cluster."""


def manifest(job: Job | Mapping[str, Any], namespace: str | None, default: str) -> tuple[dict[str, Any], str]:
    """The document to send, and its namespace: `namespace`, which must not contradict the document, else its own, else
    `default`. Fields of a model that were not set stay away, so that they remain the cluster's to default.

    Raises:
        RejectedError: it names no job, or another namespace.
    """
    document = _document(job)
    metadata = {name: value for name, value in dict(document.get("metadata") or {}).items() if name not in _CLUSTERS}
    own = metadata.get("namespace")
    if document.get("kind") not in KINDS or not metadata.get("name"):
        raise RejectedError(f"a job needs a kind ({', '.join(KINDS)}) and metadata.name")
    if namespace and own and own != namespace:
        raise RejectedError(f"{metadata['name']}: metadata.namespace is {own}, which is not {namespace}: leave one out")
    where = str(namespace or own or default)
    sent = {name: value for name, value in document.items() if name != "status"}
    return {**sent, "metadata": {**metadata, "namespace": where}}, where


def _document(job: Job | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(job, Job):
        return dict(job)
    told = job.model_dump(mode="json", exclude_unset=True)
    return {**told, "apiVersion": API_VERSION, "kind": job.kind}


def same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two versions of an object say the same, as far as people write it."""
    return _said(before) == _said(after)


def _said(document: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    metadata = document.get("metadata") or {}
    return document.get("spec"), metadata.get("labels") or {}, metadata.get("annotations") or {}
