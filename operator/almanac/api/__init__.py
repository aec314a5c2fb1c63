"""The contract between the people who write jobs, the operator and the programs that run them.

Imports pydantic and the standard library only.
"""

from almanac.api.common import (
    API_VERSION,
    GROUP,
    VERSION,
    ConcurrencyPolicy,
    Engine,
    Job,
    JobSpec,
    Layout,
    Metadata,
    Output,
    PodTemplate,
    Spark,
    SparkDriver,
    SparkExecutors,
    Storage,
)
from almanac.api.errors import AlmanacError, ExitCode, JobError, Problem, Reason, invalid_spec, problems
from almanac.api.forecast import (
    Aggregate,
    Columns,
    Evaluation,
    Family,
    ForecastJob,
    ForecastModel,
    ForecastSpec,
    Missing,
    Source,
)
from almanac.api.report import Report, Result
from almanac.api.status import Condition, ConditionStatus, Executors, JobStatus, PastRun, Phase, Run, Trigger

KINDS: dict[str, type[Job]] = {"ForecastJob": ForecastJob}
"""The kinds of job by name."""

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "VERSION",
    "Aggregate",
    "AlmanacError",
    "Columns",
    "ConcurrencyPolicy",
    "Condition",
    "ConditionStatus",
    "Engine",
    "Evaluation",
    "Executors",
    "ExitCode",
    "Family",
    "ForecastJob",
    "ForecastModel",
    "ForecastSpec",
    "Job",
    "JobError",
    "JobSpec",
    "JobStatus",
    "Layout",
    "Metadata",
    "Missing",
    "Output",
    "PastRun",
    "Phase",
    "PodTemplate",
    "Problem",
    "Reason",
    "Report",
    "Result",
    "Run",
    "Source",
    "Spark",
    "SparkDriver",
    "SparkExecutors",
    "Storage",
    "Trigger",
    "invalid_spec",
    "problems",
]
