"""A job as the API has it, in and out: the document read, its status read, and its status as a patch. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from almanac import nesting, podtemplate
from almanac.api import KINDS, Job, JobError, JobStatus, Problem, invalid_spec, problems
from almanac.tolerant import drop, tolerant

Raw = Mapping[str, Any]

_SHOWN = 4
"""Steps into a spec that lead people to what is nested too deeply."""


def read_job(document: Raw, *, stored: bool = False) -> Job | JobError:
    """The job of a document, or all that is wrong with it as the error that refuses it.

    A document that an API has `stored` holds no field that its CustomResourceDefinition does not have. One that this
    version does not know is of a newer one, which gives it to every job if it has a default: it is left out, so that an
    operator that is not upgraded yet, or was rolled back, goes on.
    """
    kind = KINDS.get(document.get("kind", ""))
    if kind is None:
        return invalid_spec([Problem(("kind",), f"must be one of {', '.join(KINDS)}")])
    deep = nesting.too_deep(document.get("spec"))
    if deep is not None:
        where = ("spec", *deep[:_SHOWN])
        return invalid_spec([Problem(where, f"is nested deeper than {nesting.LEVELS} levels: write it flatter")])
    given = {name: part for name, part in document.items() if name != "status"}
    try:
        job = _parsed(kind, given) if stored else kind.parse(given)
        _ = job.spec.hash
    except ValidationError as error:
        return invalid_spec(problems(error))
    template = job.spec.pod_template
    wrong = podtemplate.problems(template) or podtemplate.unmounted(job.spec.output.uri, template)
    return invalid_spec(wrong) if wrong else job


def _parsed(kind: type[Job], given: dict[str, Any]) -> Job:
    try:
        return kind.parse(given)
    except ValidationError as error:
        newer = [one["loc"] for one in error.errors(include_url=False) if one["type"] == "unknown_field"]
        if not newer:
            raise
    kept = deepcopy(given)
    for location in newer:
        drop(kept, location)
    return kind.parse(kept)


def read_status(document: Raw) -> JobStatus:
    """The status of a document; what cannot be understood of it counts as not there."""
    return tolerant(JobStatus, document.get("status")) or JobStatus()


def status_patch(document: Raw, status: JobStatus) -> dict[str, Any] | None:
    """The JSON merge patch that makes a document's status say `status`; None where it says so already."""
    before = document.get("status")
    changed = _difference(before if isinstance(before, Mapping) else {}, status_document(status))
    return {"status": changed} if changed else None


def status_document(status: JobStatus) -> dict[str, Any]:
    """A status as the API has it."""
    return status.model_dump(mode="json", exclude_none=True)


def _difference(old: Raw, new: Raw) -> dict[str, Any]:
    """The merge patch from `old` to `new`: lists are replaced as a whole, and what is gone is null."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inside = _difference(before, value)
            if inside:
                patch[name] = inside
        elif name not in old or before != value:
            patch[name] = value
    return patch
