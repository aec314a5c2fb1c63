"""The Spark engine: executors read, aggregate, fit and write; one shuffle brings the rows of an entity together.

What is done is in `shuffled`, each round of tasks a job of Spark's. The JVM sees no row either: what it shuffles are
Arrow's bytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pyspark import RDD, SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from almanac.api import ForecastJob, ForecastSpec, JobError, Reason
from almanac_jobs.choice import has_java
from almanac_jobs.engines import shuffled, spark_events
from almanac_jobs.engines.shuffle import Census, Division, Grouping, MapRows, Record, take_census
from almanac_jobs.engines.shuffled import Shuffled, Task, Watch, unwatched
from almanac_jobs.engines.spark_actions import Actions, job_error
from almanac_jobs.engines.spark_tasks import Coalesced, root_cause
from almanac_jobs.progress import Progress
from almanac_jobs.resources import usable_cores
from almanac_jobs.source import Dataset

MASTER, CONF_DIR = "SPARK_MASTER", "SPARK_CONF_DIR"

Other = TypeVar("Other")


@contextmanager
def session(job: ForecastJob, progress: Progress) -> Iterator[Spark]:
    """Spark as the environment has it; what was started for this ends with the block.

    In a cluster spark-defaults.conf in `SPARK_CONF_DIR` says how to reach it. Elsewhere `spec.spark.conf` does, or
    `SPARK_MASTER`, else Spark runs on the cores of this machine. A context that this process has already is used.

    Raises:
        JobError: NotInstalled without Java, ClusterUnavailable where Spark does not start, and what `spark_events.kept`
            refuses.
    """
    existing = SparkContext._active_spark_context
    if existing is not None:
        yield Spark(existing)
        return
    with spark_events.kept(job) as events:
        context = _started(settings(job) | events)
        try:
            yield Spark(context)
        finally:
            context.stop()


def _started(wanted: Mapping[str, str]) -> SparkContext:
    if not has_java():
        raise JobError(
            Reason.NOT_INSTALLED,
            "spec.engine: spark needs Java 17 or newer, and there is none on the PATH and no JAVA_HOME: install it, or "
            "run the job here with --set spec.engine=local",
        )
    if not os.environ.get(CONF_DIR):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # tasks run in processes of their own
    builder = SparkSession.builder
    for name, value in wanted.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate().sparkContext
    except (PySparkException, OSError, Exception) as error:
        said = root_cause(str(error)) or type(error).__name__
        raise JobError(Reason.CLUSTER_UNAVAILABLE, f"spec.spark: Spark does not start: {said}") from error


def settings(job: ForecastJob) -> dict[str, str]:
    """What a session of this job's own is started with."""
    # Partitions of the shuffle are put together by their place, not by where their data are (`Grouping`).
    own = {"spark.shuffle.reduceLocality.enabled": "false"}
    if os.environ.get(CONF_DIR):
        return own
    here = {
        "spark.app.name": f"{job.metadata.namespace}/{job.metadata.name}",
        "spark.ui.showConsoleProgress": "false",
        "spark.master": os.environ.get(MASTER) or f"local[{usable_cores()}]",
        "spark.ui.enabled": "false",
        "spark.log.level": "ERROR",
        # A JVM that does little and not for long: most of its work would be compiling itself.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }
    return here | job.spec.spark.conf | own


@dataclass(frozen=True)
class Spark:
    """See `engines.Engine`."""

    context: SparkContext

    def read(self, spec: ForecastSpec, dataset: Dataset, progress: Progress) -> Shuffled:
        cores = self.context.defaultParallelism
        division = shuffled.division(dataset.rows, cores)
        actions = Actions(self.context)
        portions = shuffled.shares(dataset, spec, cores)
        try:
            handed_out = self.context.parallelize(portions, len(portions))
        except OSError as error:  # it goes through a file
            raise job_error(error) from error
        mapped = handed_out.mapPartitionsWithIndex(
            actions.guarded(MapRows(spec, division)).__call__  # Spark wants to see a function
        )
        records = mapped.partitionBy(division.partitions, int)  # a record's key is its partition
        return shuffled.read(spec, dataset, division, Shuffle(actions, records, division), progress)


@dataclass(frozen=True)
class Shuffle:
    """Spark's own shuffle: see `shuffled.Exchange`. The first action leaves it behind, and others start from it."""

    actions: Actions
    records: RDD[Record]
    division: Division

    @property
    def counter(self) -> Callable[[], Progress]:
        return Progress

    def census(self, progress: Progress, watch: Watch) -> list[Census]:
        return self.actions.run(self.records, take_census, self.division.census, progress, watch, stage=0)

    def run(
        self, task: Task[Other], grouping: Grouping, groups: Sequence[int], progress: Progress, watch: Watch = unwatched
    ) -> list[Other]:
        grouped = self.records.coalesce(grouping.groups)
        return self.actions.run(grouped, Coalesced(task, grouping), groups, progress, watch)
