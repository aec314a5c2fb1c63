"""What kinds of job share: the outer frame, where data lie, where results go, which engine runs it, and when."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, StrictInt

from almanac.api import checks
from almanac.api.model import Model, rule

GROUP = "almanac.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["almanac.dev/v1alpha1"] = "almanac.dev/v1alpha1"

Name = Annotated[str, Field(min_length=1, max_length=253)]
ObjectName = Annotated[str, Field(max_length=253), AfterValidator(checks.optional_object_name)]


def cel(condition: str, message: str) -> dict[str, Any]:
    """What makes Kubernetes refuse a value that does not meet a condition over `self`, with a message that helps."""
    return {"x-kubernetes-validations": [{"rule": condition, "message": message}]}


def pattern(expression: str) -> str:
    """The condition in CEL that a string matches a regular expression."""
    return f"self.matches(r'{expression}')"


Uri = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        json_schema_extra=cel(
            f"{pattern(checks.URI)} || !self.contains('://')", "must start with s3://, gs:// or file:///, or be a path"
        ),
    ),
    AfterValidator(checks.uri),
]
Quantity = Annotated[
    str,
    Field(
        max_length=32,
        json_schema_extra=cel(
            f"{pattern(checks.QUANTITY)} && {pattern(checks.ABOVE_ZERO)}",
            checks.QUANTITY_HELP,
        ),
    ),
    AfterValidator(checks.quantity),
]
Cron = Annotated[
    str,
    Field(
        max_length=128,
        json_schema_extra=cel(
            pattern(checks.CRON), "must be five fields such as 0 6 * * 1-5, or a macro such as @daily"
        ),
    ),
    AfterValidator(checks.cron),
]
TimeZone = Annotated[str, Field(max_length=64), AfterValidator(checks.time_zone)]
Count = Annotated[StrictInt, Field(ge=0)]
Positive = Annotated[StrictInt, Field(ge=1)]
Seconds = Annotated[StrictInt, Field(ge=1, le=31_536_000)]


class Engine(StrEnum):
    """What a run computes on."""

    AUTO = "auto"
    LOCAL = "local"
    SPARK = "spark"
    DASK = "dask"


class Layout(StrEnum):
    """How tables of a run are cut into files."""

    BUCKETED = "bucketed"
    PER_ENTITY = "perEntity"


class ConcurrencyPolicy(StrEnum):
    """What happens when the schedule is due while a run is active."""

    FORBID = "Forbid"
    REPLACE = "Replace"


class Metadata(Model):
    """The part of Kubernetes' object metadata that Almanac reads; the rest may be there and is left alone."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, AfterValidator(checks.object_name)]
    """Name of the job, unique in its namespace."""
    namespace: Annotated[str, AfterValidator(checks.object_name)] = "default"
    """Namespace of the job."""
    uid: str | None = None
    """Identity that Kubernetes gave the object."""
    generation: StrictInt | None = None
    """Number that Kubernetes raises with every change of the spec."""


class Storage(Model):
    """How object storage is reached. Unset: workload identity in a cluster, a profile elsewhere."""

    endpoint: Annotated[str, Field(max_length=2048), AfterValidator(checks.endpoint)] = ""
    """URL of an S3-compatible store, e.g. https://minio.storage:9000. Empty: the cloud's own."""
    region: Annotated[str, Field(max_length=64)] = ""
    """Region of the buckets. Empty: what the environment says (AWS_REGION), else us-east-1."""
    secret_name: ObjectName = ""
    """Secret of the job's namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones,
    AWS_SESSION_TOKEN. Empty: workload identity. Outside Kubernetes, credentials come from the environment instead."""


class Output(Model):
    """Where results go, and how they are kept."""

    uri: Uri
    """Folder in which each run gets a folder of its own (runs/{run id}/); latest.json names the newest complete one."""
    layout: Layout = Layout.BUCKETED
    """bucketed: a few files, sorted and split by a hash of the entity. perEntity: besides, a folder with a model for
    each entity, in the shape of a saved Spark ML model; for at most 10 000 entities."""
    keep_runs: Positive | None = None
    """How many complete runs are kept; older ones are deleted once a new one is complete. Unset: all are kept."""


class SparkExecutors(Model):
    """Executors of a Spark cluster."""

    instances: Annotated[StrictInt, Field(ge=1, le=1000)] = 4
    """Number of executor pods."""
    cores: Annotated[StrictInt, Field(ge=1, le=256)] = 2
    """CPU cores of each executor."""
    memory: Quantity = "4Gi"
    """Memory of each executor pod, all overheads included."""


class SparkDriver(Model):
    """Driver of a Spark cluster."""

    cores: Annotated[StrictInt, Field(ge=1, le=256)] = 1
    """CPU cores of the driver."""
    memory: Quantity = "2Gi"
    """Memory of the driver pod, all overheads included."""


class Spark(Model):
    """The Spark cluster that a run gets, where its engine is spark."""

    executors: SparkExecutors = SparkExecutors()
    """Executors: how many, how big."""
    driver: SparkDriver = SparkDriver()
    """Driver: how big."""
    conf: Annotated[dict[str, str], Field(max_length=256)] = {}
    """Further Spark settings by their own names (spark....). Values are strings."""

    @rule(
        "conf",
        message="must hold names that start with `spark.`",
        cel="!has(self.conf) || self.conf.all(name, name.startsWith('spark.'))",
    )
    def _settings_are_sparks(self) -> bool:
        return all(name.startswith("spark.") for name in self.conf)


class PodTemplate(Model):
    """What every pod of a run gets besides Almanac's own settings, as in a PodTemplateSpec."""

    metadata: dict[str, Any] = {}
    """Labels and annotations."""
    spec: dict[str, Any] = {}
    """A PodSpec: nodeSelector, tolerations, affinity, priorityClassName, volumes, containers (env, resources) ..."""


class JobSpec(Model):
    """The fields of every kind of job."""

    operational: ClassVar[frozenset[str]] = frozenset(
        {
            "suspend",
            "backoff_limit",
            "active_deadline_seconds",
            "start_deadline_seconds",
            "ttl_seconds_after_finished",
            "schedule",
            "time_zone",
            "concurrency_policy",
            "starting_deadline_seconds",
            "restart_nonce",
        }
    )
    """Fields that change neither the result nor how it is computed: editing them starts no run."""

    storage: Storage | None = None
    """How object storage is reached. Unset: the environment decides (workload identity in a cluster)."""
    output: Output
    """Where results go, and how they are kept."""
    engine: Engine = Engine.AUTO
    """auto starts in one pod and moves to a cluster only when the data do not fit. local is one pod, spark and dask are
    clusters."""
    image: Annotated[str, Field(max_length=1024)] = ""
    """Container image of the run's pods. Empty: the operator's choice for the engine."""
    service_account_name: ObjectName = ""
    """Service account of the run's pods, e.g. one with a workload identity. Empty: the operator's choice."""
    suspend: StrictBool = False
    """true holds the job: a run that is active is stopped and none is started until it is false again."""
    backoff_limit: Annotated[StrictInt, Field(ge=0, le=100)] = 2
    """How often a run is retried after a failure that a retry can mend."""
    active_deadline_seconds: Seconds = 7200
    """A run that takes longer than this has failed."""
    start_deadline_seconds: Seconds = 600
    """A run whose driver is not running by then has failed, with what kept it from starting as the reason."""
    ttl_seconds_after_finished: Annotated[StrictInt, Field(ge=0, le=31_536_000)] = 3600
    """How long the pods of a finished run are kept. The job and its results stay."""
    schedule: Cron = ""
    """When to run again, as cron writes it: 0 6 * * 1-5. Empty: only when the spec changes."""
    time_zone: TimeZone = ""
    """Time zone of the schedule, e.g. Europe/Berlin. Empty: UTC."""
    concurrency_policy: ConcurrencyPolicy = ConcurrencyPolicy.FORBID
    """What happens when the schedule is due while a run is active. Forbid: nothing. Replace: the active run is stopped,
    and the new one starts."""
    starting_deadline_seconds: Seconds | None = None
    """A scheduled run that could not start this long after its time is skipped. Unset: it starts late."""
    restart_nonce: Annotated[StrictInt, Field(ge=0)] = 0
    """Change it, to any other number, to run again."""
    pod_template: PodTemplate = PodTemplate()
    """What every pod of a run gets besides Almanac's own settings, as in a PodTemplateSpec."""

    @property
    def hash(self) -> str:
        """sha256, in hex, of what changes the result or how it is computed. Spelling out a default keeps it."""
        kept: dict[str, Any] = dict.fromkeys(self.operational, True) | {"output": {"keep_runs"}}
        told = self.model_dump(mode="json", by_alias=True, exclude=kept, exclude_defaults=True)
        return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Job(Model):
    """The outer frame of every kind of job."""

    api_version: Literal["almanac.dev/v1alpha1"] = API_VERSION
    kind: str
    metadata: Metadata
    spec: JobSpec
    status: dict[str, Any] | None = Field(default=None, exclude=True)
    """Written by the operator, and read by nobody through this model."""
