"""What kinds of job share: the outer frame, where data lie, where results go, which engine runs it, and when."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, StrictInt

from almanac.api import checks
from almanac.api.model import Model, rule

GROUP = "almanac.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["almanac.dev/v1alpha1"] = "almanac.dev/v1alpha1"

Name = Annotated[str, Field(min_length=1, max_length=253)]


def cel(condition: str, message: str) -> dict[str, Any]:
    """What makes Kubernetes refuse a value that does not meet a condition over `self`, with a message that helps."""
    return {"x-kubernetes-validations": [{"rule": condition, "message": message}]}


def pattern(expression: str) -> str:
    """The condition in CEL that a string matches a regular expression."""
    return f"self.matches(r'{expression}')"


def unless_empty(condition: str) -> str:
    """The condition in CEL that a string is empty, or meets a condition."""
    return f"self == '' || {condition}"


ObjectName = Annotated[
    str,
    Field(max_length=253, json_schema_extra=cel(unless_empty(pattern(checks.OBJECT_NAME)), checks.OBJECT_NAME_HELP)),
    AfterValidator(checks.optional_object_name),
]
Uri = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        json_schema_extra=cel(
            f"{pattern(checks.UNPADDED)} && ({pattern(checks.URI)} || "
            f"!self.contains('://') && !{pattern(checks.URI_WITHOUT_SLASHES)})",
            "must start with s3://, gs:// or file:///, or be a path, without blanks around it",
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
TimeZone = Annotated[
    str,
    Field(
        max_length=64,
        json_schema_extra=cel(  # one that there is not is an error, which refuses the value with this message, too
            unless_empty(f"{pattern(checks.TIME_ZONE)} && timestamp('2026-01-01T00:00:00Z').getHours(self) >= 0"),
            checks.TIME_ZONE_HELP,
        ),
    ),
    AfterValidator(checks.time_zone),
]
Endpoint = Annotated[
    str,
    Field(max_length=2048, json_schema_extra=cel(unless_empty(pattern(checks.ENDPOINT)), checks.ENDPOINT_HELP)),
    AfterValidator(checks.endpoint),
]
LARGEST = 999_999_999_999_999
"""A whole number that every reader of JSON takes for the same."""
SparkSetting = Annotated[str, AfterValidator(checks.spark_setting)]
Count = Annotated[StrictInt, Field(ge=0)]
Time = Annotated[datetime, AfterValidator(checks.moment)]
Positive = Annotated[StrictInt, Field(ge=1, le=LARGEST)]
Seconds = Annotated[StrictInt, Field(ge=1, le=31_536_000)]


LEAST_HEAP = 512 << 20
"""Bytes of the smallest heap that Spark starts with, and some to work in."""
LEAST_MEMORY = 768 << 20
"""Bytes of the smallest pod of a Spark cluster."""
LEAST_WORKER = 512 << 20
"""Bytes of the smallest worker of a Dask cluster."""


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

    endpoint: Endpoint = ""
    """URL of an S3-compatible store, e.g. https://minio.storage:9000. Empty: the cloud's own."""
    region: Annotated[str, Field(max_length=64)] = ""
    """Region of the buckets. Empty: what the environment says (AWS_REGION), else us-east-1."""
    secret_name: ObjectName = ""
    """Secret of the job's namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones,
    AWS_SESSION_TOKEN. Empty: workload identity. Outside Kubernetes, credentials come from the environment instead."""


class ExtractRun(Model):
    """The data set of an ExtractJob: that of its newest complete run."""

    name: Annotated[
        str,
        Field(
            min_length=1, max_length=253, json_schema_extra=cel(pattern(checks.OBJECT_NAME), checks.OBJECT_NAME_HELP)
        ),
        AfterValidator(checks.object_name),
    ]
    """Name of an ExtractJob in the job's namespace."""
    uri: Uri | None = None
    """Folder of the run to read, {output.uri}/runs/{run id}. Unset: the newest complete one when a run begins."""


class ParquetSource(Model):
    """What is read: Parquet, from wherever it is."""

    uri: Uri | None = None
    """A Parquet file, a folder or a hive-partitioned data set: s3://bucket/folder, gs://, file:///folder or a path."""
    extract: ExtractRun | None = None
    """The data set of an ExtractJob, in place of uri: its newest complete run, which is waited for."""

    @rule(
        "uri",
        "extract",
        message="or extract is needed, and not both: name Parquet by its uri, or an ExtractJob that writes it",
        cel="has(self.uri) != has(self.extract)",
    )
    def _one_of_uri_and_extract(self) -> bool:
        return (self.uri is None) != (self.extract is None)

    @property
    def place(self) -> str:
        """Where it is, for people: the URI, or that of the extract's run."""
        return self.uri or (self.extract.uri if self.extract else None) or ""


class Output(Model):
    """Where results go, and how they are kept."""

    uri: Uri
    """Folder in which each run gets a folder of its own (runs/{run id}/); latest.json names the newest complete one. In
    a cluster it is in a bucket, or on a volume that podTemplate mounts."""
    layout: Layout = Layout.BUCKETED
    """bucketed: a few files, sorted and split by a hash of the entity. perEntity: besides, a folder with a model for
    each entity, in the shape of a saved Spark ML model; for at most 10 000 entities."""
    keep_runs: Positive | None = None
    """How many complete runs are kept; older ones are deleted once a new one is complete. Unset: all are kept."""


@rule(
    "minimum",
    "maximum",
    message="needs a maximum that is not below it",
    cel="!has(self.minimum) || (has(self.maximum) && self.minimum <= self.maximum)",
)
def bounds_in_order(pods: SparkExecutors | Dask) -> bool:
    """Of pods whose number follows the work."""
    return pods.minimum is None or (pods.maximum is not None and pods.minimum <= pods.maximum)


@rule(
    "output.layout",
    message="must be bucketed: perEntity is of ForecastJob",
    cel="self.output.layout == 'bucketed'",
)
def layout_is_bucketed(spec: JobSpec) -> bool:
    """Of kinds that fit no model for each entity."""
    return spec.output.layout is Layout.BUCKETED


@rule(
    "output.uri",
    "source.uri",
    message="must not lie inside source.uri: the next run would read this one's results as data",
    cel="!has(self.source.uri) || "
    "!(self.output.uri + '/').startsWith(self.source.uri + (self.source.uri.endsWith('/') ? '' : '/'))",
)
def output_is_apart(spec: Any) -> bool:
    """Of kinds that read Parquet."""
    return spec.source.uri is None or not checks.is_inside(spec.output.uri, spec.source.uri)


class SparkExecutors(Model):
    """Executors of a Spark cluster. Their number is fixed, or follows the work between two bounds."""

    instances: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None
    """Number of executor pods. Unset: 4, or what minimum and maximum say."""
    minimum: Annotated[StrictInt, Field(ge=0, le=1000)] | None = None
    """Fewest executor pods, and how many there are to begin with. Needs maximum. Unset: 1."""
    maximum: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None
    """Most executor pods: as many as the work has use for, and idle ones go. Unset: instances, all the time."""
    cores: Annotated[StrictInt, Field(ge=1, le=256)] = 2
    """CPU cores of each executor, and how many tasks it runs at once."""
    memory: Quantity = "4Gi"
    """Memory of each executor pod, all overheads included."""
    memory_overhead: Quantity | None = None
    """The part of memory that is not the heap of Spark's JVM: models are fitted in it. Unset: three fifths, where that
    leaves 512Mi to the heap."""

    @rule(
        "instances",
        "maximum",
        message="cannot be set together with maximum: a number is fixed, or has bounds",
        cel="!has(self.instances) || !has(self.maximum)",
    )
    def _number_is_fixed_or_bounded(self) -> bool:
        return self.instances is None or self.maximum is None

    _bounds_are_in_order = bounds_in_order

    @rule("memory", message="must be 768Mi at least: 512Mi are the JVM's")
    def _memory_is_enough(self) -> bool:
        return checks.amount(self.memory) >= LEAST_MEMORY

    @rule("memory_overhead", "memory", message="must leave 512Mi of memory to the heap of the JVM")
    def _overhead_leaves_a_heap(self) -> bool:
        if self.memory_overhead is None or checks.amount(self.memory) < LEAST_MEMORY:
            return True
        return checks.amount(self.memory) - checks.amount(self.memory_overhead) >= LEAST_HEAP

    @property
    def heap(self) -> int:
        """Bytes of an executor's heap."""
        memory = checks.amount(self.memory)
        if self.memory_overhead is not None:
            return memory - checks.amount(self.memory_overhead)
        return max(LEAST_HEAP, memory * 2 // 5)


class SparkDriver(Model):
    """Driver of a Spark cluster."""

    cores: Annotated[StrictInt, Field(ge=1, le=256)] = 1
    """CPU cores of the driver."""
    memory: Quantity = "2Gi"
    """Memory of the driver pod, all overheads included. Half of it is the heap of Spark's JVM, 512Mi at least."""

    @rule("memory", message="must be 768Mi at least: 512Mi are the JVM's")
    def _memory_is_enough(self) -> bool:
        return checks.amount(self.memory) >= LEAST_MEMORY

    @property
    def heap(self) -> int:
        """Bytes of the driver's heap."""
        return max(LEAST_HEAP, checks.amount(self.memory) // 2)


class Spark(Model):
    """The Spark cluster that a run gets, where its engine is spark."""

    executors: SparkExecutors = SparkExecutors()
    """Executors: how many, how big."""
    driver: SparkDriver = SparkDriver()
    """Driver: how big."""
    conf: Annotated[
        dict[SparkSetting, Annotated[str, Field(max_length=4096)]],
        Field(
            max_length=256,
            json_schema_extra=cel(
                "self.all(name, name.startsWith('spark.') "
                f"&& !name.matches(r'{checks.SPARK_OURS}') "
                f"&& (!name.matches(r'{checks.SPARK_PODS}') || name.matches(r'{checks.SPARK_TUNING}')))",
                "must hold names that start with `spark.`, and none of those that the operator sets itself, such as "
                "spark.master, spark.executor.memory or spark.kubernetes.namespace: docs/spark.md has the list",
            ),
        ),
    ] = {}
    """Further Spark settings by their own names (spark....). Values are strings. What the operator sets itself cannot
    be set here: where the cluster is, what its pods are, and what spec.spark and spec.podTemplate say."""


class Dask(Model):
    """The Dask cluster that a run gets, where its engine is dask. The number of workers is fixed, or has two bounds."""

    workers: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None
    """Number of worker pods. Unset: 4, or what minimum and maximum say."""
    minimum: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None
    """Fewest worker pods, and how many there are to begin with. Needs maximum. Unset: 1."""
    maximum: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None
    """Most worker pods: as many as the work has use for. While a model is trained, their number stays what it is.
    Unset: workers, all the time."""
    threads: Annotated[StrictInt, Field(ge=1, le=256)] = 2
    """Threads of each worker, and CPU cores of its pod."""
    memory: Quantity = "4Gi"
    """Memory of each worker pod."""

    @rule(
        "workers",
        "maximum",
        message="cannot be set together with maximum: a number is fixed, or has bounds",
        cel="!has(self.workers) || !has(self.maximum)",
    )
    def _number_is_fixed_or_bounded(self) -> bool:
        return self.workers is None or self.maximum is None

    _bounds_are_in_order = bounds_in_order

    @property
    def fewest(self) -> int:
        """Workers that there are at least, and to begin with."""
        return self.workers or 4 if self.maximum is None else self.minimum or 1

    @property
    def most(self) -> int:
        """Workers that there are at most."""
        return self.maximum or self.fewest

    @rule("memory", message="must be 512Mi at least: a worker's libraries take half of that")
    def _memory_is_enough(self) -> bool:
        return checks.amount(self.memory) >= LEAST_WORKER


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
    dask: Dask = Dask()
    """The Dask cluster that a run gets, where its engine is dask."""
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
    """A run whose driver is not running by then has failed, with what kept it from starting as the reason; so has one
    on a cluster too few of whose workers run for as long."""
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
    restart_nonce: Annotated[StrictInt, Field(ge=0, le=LARGEST)] = 0
    """Change it, to any other number, to run again."""
    pod_template: PodTemplate = PodTemplate()
    """What every pod of a run gets besides Almanac's own settings, as in a PodTemplateSpec."""

    @property
    def extract(self) -> ExtractRun | None:
        """The ExtractJob whose data set is read; None for a job that reads something else."""
        source = getattr(self, "source", None)
        return source.extract if isinstance(source, ParquetSource) else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of Secrets that become environment variables of the container that computes."""
        named = self.storage.secret_name if self.storage else ""
        return (named,) if named else ()

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

    def reading(self, uri: str) -> Self:
        """This job with the folder of the run of its ExtractJob that it is to read."""
        source: Any = self.spec.source  # type: ignore[attr-defined]  # a job that has `spec.extract` has it from there
        extract = source.extract.model_copy(update={"uri": uri})
        spec = self.spec.model_copy(update={"source": source.model_copy(update={"extract": extract})})
        return self.model_copy(update={"spec": spec})
