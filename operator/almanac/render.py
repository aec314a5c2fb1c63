"""What the operator would create for a job, without a cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from almanac import crd, engines
from almanac.api import API_VERSION, Job, JobError, JobStatus, Phase, Reason
from almanac.decision import Create
from almanac.lifecycle import decide
from almanac.manifests import Manifest
from almanac.observed import Extract, Observed
from almanac.resource import read_job
from almanac.settings import Settings

UID = "00000000-0000-0000-0000-000000000000"
"""Stands for the uid that a cluster gives to a job."""
EXTRACT = "file:///newest-complete-run-of-the-extract"
"""Stands for the folder of the run of an ExtractJob that a job reads."""
START = datetime(2000, 1, 1, tzinfo=UTC)
"""Stands for the moment at which the run begins."""


def render(
    job: Job | Mapping[str, Any],
    *,
    namespace: str | None = None,
    settings: Settings | None = None,
    uid: str = UID,
    start: datetime = START,
) -> list[Manifest]:
    """The manifests of a job's first run, as an operator with these settings creates them: the same for the same job.

    Names, labels and the run's id follow from `uid` and `start`, which only a cluster knows: without them something
    stands in. A suspended job is rendered as if it were not.

    Raises:
        JobError: the job is invalid, or asks for what the operator cannot do.
    """
    read = _as_a_cluster_has_it(job, namespace, uid)
    status, nothing = JobStatus(), Observed(live=True, extract=Extract(uri=EXTRACT))
    for _ in range(2):  # the run goes on record first, and is created then
        decision = decide(read, status, nothing, start)
        for action in decision.actions:
            if isinstance(action, Create):
                return engines.build(read, action.run, action.engine, settings or Settings())
        status = decision.status
    said = next((one.message for one in status.conditions if one.type == "Ready"), "")
    assert status.phase is Phase.FAILED  # noqa: S101 - a new job is started or refused
    raise JobError(Reason.INVALID_SPEC, said)


def _as_a_cluster_has_it(job: Job | Mapping[str, Any], namespace: str | None, uid: str) -> Job:
    told = {**job.model_dump(mode="json", exclude_unset=True), "kind": job.kind} if isinstance(job, Job) else dict(job)
    read = read_job({"apiVersion": API_VERSION, **told})
    if isinstance(read, JobError):
        raise read
    identity = {"namespace": namespace or read.metadata.namespace, "uid": uid, "generation": 1}
    spec = defaulted(told["spec"], _schema(read.kind)) | {"suspend": False}
    return type(read).parse(
        {**told, "apiVersion": API_VERSION, "metadata": {**told["metadata"], **identity}, "spec": spec}
    )


def defaulted(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value with the defaults of its schema, as an API server fills them in."""
    if isinstance(value, Mapping):
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties") or {}
        filled = {
            name: one for name, one in value.items() if one is not None or "default" not in properties.get(name, {})
        }
        absent = {name: deepcopy(one["default"]) for name, one in properties.items() if "default" in one} | filled
        return {name: defaulted(one, properties.get(name, more)) for name, one in absent.items()}
    return [defaulted(one, schema.get("items") or {}) for one in value] if isinstance(value, list) else value


def _schema(kind: str) -> Mapping[str, Any]:
    root = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema: Mapping[str, Any] = root["properties"]["spec"]
    return schema
