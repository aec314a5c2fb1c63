"""Answers to who asks what it may do: SelfSubjectAccessReview. All is allowed but what faults forbid: see `Fault`."""

from __future__ import annotations

from dataclasses import replace

from kube.faults import Request
from kube.resources import Document

PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
METHODS = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}


def asked(review: Document, by: Request) -> Request:
    """A request that would need the right that a review asks for, from whom the review is."""
    about = review["spec"]["resourceAttributes"]
    group, namespace, verb = about.get("group", ""), about.get("namespace", ""), about["verb"]
    place = f"/namespaces/{namespace}" if namespace else ""
    name = about.get("name") or ("any" if verb in ("get", "update", "patch", "delete") else "")
    parts = [one for one in (about["resource"], name, about.get("subresource", "")) if one]
    root = f"/apis/{group}/v1" if group else "/api/v1"
    return replace(
        by,
        method=METHODS.get(verb, "GET"),
        path=f"{root}{place}/{'/'.join(parts)}",
        watch=verb == "watch",
    )


def answered(review: Document, *, allowed: bool) -> Document:
    """The review with its answer."""
    return review | {"metadata": {}, "status": {"allowed": allowed}}
